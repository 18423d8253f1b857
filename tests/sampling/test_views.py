from __future__ import annotations

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from saccade.errors import UsageError
from saccade.sampling.views import Views, crop_box, draw_short_side, parse_views
from saccade.video.sizes import short_side_size

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "views.json").read_text())


def test_views_are_parsed_and_ordered() -> None:
    views = parse_views("10x3")
    assert views == Views(10, 3)
    assert str(views) == "10x3"
    assert len(views) == 30
    assert [views.split(v) for v in (0, 1, 2, 3, 29)] == [(0, 0), (0, 1), (0, 2), (1, 0), (9, 2)]


@pytest.mark.parametrize("text", ["10", "10x2", "0x1", "x3", "3x", "-1x1", "10x3x1", "ten", ""])
def test_other_views_are_refused_with_the_form(text: str) -> None:
    with pytest.raises(UsageError, match=f"'{text}' .*CLIPSxCROPS with 1 or 3 crops, such as"):
        parse_views(text)


def test_crops_as_recorded() -> None:
    for case in GOLDEN["uniform_crop"]:
        for offset in case["offsets"]:
            box = crop_box(case["height"], case["width"], case["crop"], offset["spatial_idx"])
            assert box == (offset["y"], offset["x"]), case


def test_sizes_as_recorded() -> None:
    for case in GOLDEN["short_side_scale"]:
        assert list(short_side_size(case["height"], case["width"], case["size"])) == case["out"]


def test_resize_and_crop_as_recorded() -> None:
    """The recorded figures of a whole test pipeline, from the size rule and the crop rule."""
    key = zlib.crc32(b"spatial_sampling")
    frames = np.random.Generator(np.random.Philox(key=key)).standard_normal((3, 2, 20, 27))
    for case in GOLDEN["test_pipeline"]:
        size = short_side_size(20, 27, case["scale"])
        resized = F.interpolate(torch.from_numpy(frames), size=size, mode="bilinear", align_corners=False)
        top, left = crop_box(*size, case["crop"], case["spatial_idx"])
        view = resized[:, :, top : top + case["crop"], left : left + case["crop"]]
        assert list(view.shape) == case["out"]["shape"]
        assert float(view.norm()) == pytest.approx(case["out"]["l2"], rel=1e-12)
        assert view.flatten()[:8].tolist() == pytest.approx(case["out"]["first8"], rel=1e-10)


def test_training_sizes_as_recorded() -> None:
    for case in GOLDEN["train_spatial"]:
        rng = np.random.RandomState(case["numpy_seed"])
        drawn = [draw_short_side((256, 320), rng, inverse=case["inverse_uniform"]) for _ in range(10)]
        sizes = [list(short_side_size(256, 340, size)) for size in drawn]
        assert sizes == case["sizes_from_256x340_in_256_320"]


def test_training_sizes_stay_within_their_limits() -> None:
    rng = np.random.default_rng(0)
    for inverse in (False, True):
        sizes = {draw_short_side((20, 24), rng, inverse=inverse) for _ in range(300)}
        assert sizes == {20, 21, 22, 23, 24}
        assert draw_short_side((128, 128), rng, inverse=inverse) == 128


def test_a_short_side_that_is_right_keeps_the_frame() -> None:
    # 49 * (100 / 49) is below 100 in floating point.
    assert short_side_size(49, 100, 49) == (49, 100)


def test_crop_larger_than_the_frame_names_the_sizes() -> None:
    with pytest.raises(UsageError, match="crop of 224 × 224 does not fit into frames of 200 × 300"):
        crop_box(200, 300, 224, 1)
