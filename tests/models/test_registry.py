from __future__ import annotations

import pytest

import saccade
from saccade.clip import ClipSpec
from saccade.errors import UsageError
from saccade.models import clip_spec, create_model, list_models, model_info

X3D_NAMES = ["x2d", "x3d_xs", "x3d_s", "x3d_m", "x3d_l", "x3d_xl"]


def test_names_and_patterns() -> None:
    assert [name for name in saccade.list_models() if name in X3D_NAMES] == X3D_NAMES
    assert list_models("x3d_*") == X3D_NAMES[1:]
    assert list_models("x3d_?") == ["x3d_s", "x3d_m", "x3d_l"]
    assert list_models("nothing*") == []


@pytest.mark.parametrize("name", list_models())
def test_every_model_has_its_facts(name: str) -> None:
    info = model_info(name)
    assert info.name == name
    assert info.train_crop <= info.test_crop <= info.train_short_side[0] <= info.train_short_side[1]
    assert info.source
    assert info.licence
    assert bool(info.top1) == bool(info.top1_source)


def test_clips() -> None:
    assert clip_spec("x3d_m") == ClipSpec(num_frames=16, stride=5, crop=256, short_side=256)
    assert clip_spec("x3d_m", train=True) == ClipSpec(num_frames=16, stride=5, crop=224, short_side=256)


def test_unknown_model_and_option() -> None:
    with pytest.raises(UsageError, match="unknown model 'x3d_n'; did you mean x3d_"):
        create_model("x3d_n")
    with pytest.raises(UsageError, match=r"'densenet'.*x2d"):
        model_info("densenet")
    with pytest.raises(UsageError, match=r"gama_w.*gamma_w.*head_width"):
        create_model("x3d_m", gama_w=2)
