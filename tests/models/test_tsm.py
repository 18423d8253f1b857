"""TSM networks: where the shift is, what it can read, its options and its warm-up."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from saccade.errors import ConfigError
from saccade.layers import LearnableTemporalShift, TemporalShift
from saccade.models import create_model, create_on_meta, load_weights, memory_format, model_info

SMALL = {"tsm_efficientnet_lite0": {"width": 0.25}, "tsm_resnet50": {"width": 8, "depths": "1,2,1,1"}}
FAMILIES = list(SMALL)


def small(name: str, num_classes: int = 3, **options: Any) -> Any:
    torch.manual_seed(0)
    model = create_model(name, num_classes, **SMALL[name], **options)
    for module in model.modules():  # so that no layer is close to constant
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight)
    return model.eval()


def clips(frames: int = 5, size: int = 32) -> torch.Tensor:
    return torch.randn(2, 3, frames, size, size, generator=torch.Generator().manual_seed(1))


def test_size_is_that_of_the_paper() -> None:
    """Table 1: TSM-ResNet50 with 8 frames has 24.3 M parameters and 33 GFLOPs (multiply-adds)."""
    info = model_info("tsm_resnet50")
    assert round(info.params / 1e6, 1) == 24.3
    assert round(info.gmacs) == 33


def test_shift_is_where_tsm_has_it() -> None:
    """MobileNetV2: the blocks with a shortcut; ResNet: all; an eighth of the channels each way."""
    mobile, resnet = create_on_meta("tsm_mobilenetv2"), create_on_meta("tsm_resnet50")
    blocks = [i for i, block in enumerate(mobile.residual_blocks()) if isinstance(block.shift, TemporalShift)]
    assert blocks == [2, 4, 5, 7, 8, 9, 11, 12, 14, 15]
    assert len(resnet.shifts()) == 16
    assert [resnet.res2[0].shift.fold, resnet.res5[2].shift.fold] == [8, 256]


@pytest.mark.parametrize("name", FAMILIES)
def test_shift_is_on_the_branch_or_before_the_block(name: str) -> None:
    x = clips()
    plain = small(name, shift_place="none")
    for place in ("residual", "inplace"):
        model = small(name, shift_place=place)
        block = next(b for b in model.residual_blocks() if isinstance(b.shift, TemporalShift))
        same = dict(plain.named_modules())[{m: n for n, m in model.named_modules()}[block]]
        maps = torch.randn(2, block.shift.channels, 4, 6, 6)
        # a block without its last norm's scale is its shortcut
        for b in (block, same):
            nn.init.zeros_(b.norm_c.weight)
        wanted = same(maps if place == "residual" else block.shift(maps))
        assert torch.equal(block(maps), wanted)
        assert not torch.equal(model(x), plain(x))


@pytest.mark.parametrize("name", FAMILIES)
def test_without_a_shift_frames_are_independent(name: str) -> None:
    x = clips()
    models = [
        small(name, shift_place="none"),
        small(name, shift_fraction=0),
        small(name, shift="learnable", shift_fraction=0),
    ]
    torch.testing.assert_close(models[0](x), models[1](x), rtol=0, atol=0)
    torch.testing.assert_close(models[0](x), models[2](x))
    torch.testing.assert_close(models[0](x), models[0](x[:, :, [3, 1, 4, 0, 2]]))
    assert not small(name)(x).allclose(small(name)(x[:, :, [3, 1, 4, 0, 2]]))


@pytest.mark.parametrize("shift", ["fixed", "learnable", "learnable_3d"])
@pytest.mark.parametrize("place", ["residual", "inplace"])
@pytest.mark.parametrize("name", FAMILIES)
def test_causal_frames_do_not_depend_on_later_ones(name: str, place: str, shift: str) -> None:
    options = {
        "causal": True,
        "shift_place": place,
        "shift": shift,
        "localization": True,
        "shift_fraction": 0.25,
    }
    model, x = small(name, **options), clips(6)
    later = x.clone()
    later[:, :, 4:] = torch.randn(2, 3, 2, 32, 32)
    logits, changed = model(x), model(later)
    assert logits.shape == (2, 3, 6)
    torch.testing.assert_close(logits[:, :, :4], changed[:, :, :4], rtol=1e-6, atol=1e-6)
    assert not logits[:, :, 4:].allclose(changed[:, :, 4:])
    earlier = x.clone()
    earlier[:, :, 2] += 1
    assert not model(earlier)[:, :, 3].allclose(logits[:, :, 3])  # but on the one before


@pytest.mark.parametrize("name", FAMILIES)
def test_logits_are_the_mean_of_the_frames_logits(name: str) -> None:
    x = clips()
    frames, clip = small(name, localization=True), small(name)
    torch.testing.assert_close(frames(x).mean(2), clip(x))
    headless = small(name, 0)
    load_weights(headless, clip.state_dict(), strict=False)
    features = headless(x)
    assert features.shape == (2, clip.num_features)
    torch.testing.assert_close(clip.head.classifier(features), clip(x))


@pytest.mark.parametrize("name", FAMILIES)
def test_memory_format_changes_nothing(name: str) -> None:
    model, x = small(name), clips()
    logits = model(x)
    last = model.to(memory_format=memory_format(model))(x.to(memory_format=torch.channels_last_3d))
    torch.testing.assert_close(last, logits, rtol=1e-4, atol=1e-4)


def test_warm_up_ends_as_the_exact_shift() -> None:
    x = clips()
    model, tsm = small("tsm_efficientnet_lite0", shift_warmup=0.5), small("tsm_efficientnet_lite0")
    load_weights(model, tsm.state_dict(), strict=False)
    plain = small("tsm_efficientnet_lite0", shift_place="none")
    model.on_train_progress(0.0)
    assert model.in_final_form()  # each blend is a network of its own: the best may be an early one
    torch.testing.assert_close(model(x), plain(x))
    model.on_train_progress(0.25)
    assert {float(shift.blend) for shift in model.shifts().values()} == {0.5}
    model.on_train_progress(0.6)
    torch.testing.assert_close(model(x), tsm(x), rtol=0, atol=0)
    again = small("tsm_efficientnet_lite0", shift_warmup=0.5)
    load_weights(again, model.state_dict())
    again.on_train_progress(0.0)  # trained on: what is blended in stays
    assert {float(shift.blend) for shift in again.shifts().values()} == {1.0}
    assert model.not_averaged() == {f"{name}.blend" for name in model.shifts()}


def test_learnable_shifts_have_a_rate_of_their_own_and_no_decay() -> None:
    model = small("tsm_efficientnet_lite0", shift="learnable_3d")
    names = {name for name, m in model.named_modules() if isinstance(m, LearnableTemporalShift)}
    assert names == set(model.shifts())
    assert model.lr_multipliers() == dict.fromkeys([f"{name}.shift" for name in names], 0.01)
    assert model.no_weight_decay() == set(model.lr_multipliers())
    torch.testing.assert_close(model(clips()), small("tsm_efficientnet_lite0")(clips()), rtol=1e-5, atol=1e-5)


def test_chosen_blocks_and_drop_path() -> None:
    model = create_on_meta("tsm_resnet50", shift_blocks="0,2,4", drop_path=0.2)
    assert list(model.shifts()) == ["res2.0.shift", "res2.2.shift", "res3.1.shift"]
    assert model.res5[2].drop_path.rate == pytest.approx(0.2)
    assert model.build_args["shift_blocks"] == [0, 2, 4]
    assert list(create_on_meta(**model.build_args).shifts()) == list(model.shifts())


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"shift": "roll"}, "shift"),
        ({"shift_place": "before"}, "shift_place"),
        ({"shift_fraction": 0.6}, "shift_fraction"),
        ({"shift_fraction": -0.1}, "shift_fraction"),
        ({"shift_blocks": "1,x"}, "shift_blocks"),
        ({"shift_blocks": [99]}, "shift_blocks"),
        ({"shift_warmup": 1}, "shift_warmup"),
        ({"shift_warmup": 0.5, "shift": "learnable"}, "shift_warmup"),
        ({"causal": 1}, "causal"),
        ({"padding": "valid"}, "padding"),
        ({"network": "resnet"}, "network"),
        ({"width": 0}, "width"),
    ],
)
def test_invalid_options_are_named(options: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        create_on_meta("tsm_efficientnet_lite0", **options)
