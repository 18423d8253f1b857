from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from saccade.clip import ClipSpec
from saccade.data.types import ClipBatch
from saccade.errors import ConfigError
from saccade.recipes import get_recipe
from saccade.training.validate import validate
from saccade.transforms import TrainTransform
from saccade.transforms.area import draw_area
from saccade.video.resize import resize_to

IDENTITY = ClipSpec(num_frames=2, stride=1, crop=8, short_side=12, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def test_area_shape_and_place_are_drawn_from_their_ranges() -> None:
    height, width, area, aspect = 96, 160, (0.2, 0.7), (0.5, 2.0)
    boxes = [draw_area(seed, height, width, area=area, aspect=aspect) for seed in range(800)]
    shares = sorted(h * w / (height * width) for _, _, h, w in boxes)
    shapes = sorted(w / h for _, _, h, w in boxes)
    assert all(0 <= top <= height - h and 0 <= left <= width - w for top, left, h, w in boxes)
    assert shares[0] >= 0.2 * 0.97
    assert shares[-1] <= 0.7 * 1.03
    assert shapes[0] >= 0.5 * 0.95
    assert shapes[-1] <= 2.0 * 1.05
    # uniform in the logarithm: about as many lie as stand; what does not fit was drawn again
    assert 0.4 < sum(shape > 1 for shape in shapes) / 800 < 0.75
    assert {top == 0 for top, *_ in boxes} == {True, False}
    assert any(left == width - w for _, left, _, w in boxes)


def test_what_never_fits_is_the_largest_crop_in_the_middle() -> None:
    assert draw_area(1, 10, 100, area=(0.9, 1.0), aspect=(0.75, 4 / 3)) == (0, 43, 10, 13)
    assert draw_area(1, 100, 10, area=(0.9, 1.0), aspect=(0.75, 4 / 3)) == (43, 0, 13, 10)


def test_the_crop_is_resized_and_follows_its_own_seed() -> None:
    ramp = torch.arange(40, dtype=torch.uint8)
    clip = torch.stack([ramp.expand(30, 40), ramp[:30, None].expand(30, 40), torch.zeros(30, 40)], -1)
    clips = [clip.to(torch.uint8).expand(2, -1, -1, -1)] * 4
    batch = ClipBatch(clips, torch.zeros(4, dtype=torch.int64), (5, 6, 7, 5), (0,) * 4, 8)
    transform = TrainTransform(IDENTITY, flip=0.0, area=(0.1, 0.6))
    views = (transform(batch) * 255).round()
    assert views.shape == (4, 3, 2, 8, 8)
    assert torch.equal(views[0], views[3])
    assert not torch.equal(views[0], views[1])
    for view, seed in zip(views, batch.seeds, strict=True):
        top, left, height, width = draw_area(seed, 30, 40, area=(0.1, 0.6), aspect=(3 / 4, 4 / 3))
        columns, rows = view[0, 0, 0], view[1, 0, :, 0]
        expected = left + (torch.arange(8) + 0.5) * width / 8 - 0.5
        assert (columns[1:-1] - expected[1:-1]).abs().max() <= 1
        assert (rows[1:-1] - (top + (torch.arange(8) + 0.5) * height / 8 - 0.5)[1:-1]).abs().max() <= 1
    again = TrainTransform(IDENTITY, flip=0.0, area=(0.1, 0.6))(
        ClipBatch(clips[:1], torch.zeros(1, dtype=torch.int64), (6,), (0,), 8)
    )
    assert torch.equal(again[0], transform(batch)[1])
    flipped = TrainTransform(IDENTITY, flip=1.0, area=(0.1, 0.6))(batch)
    assert torch.equal(flipped.flip(-1), transform(batch))


def test_frames_of_the_size_are_not_resized() -> None:
    frames = torch.randint(0, 256, (2, 5, 7, 3), dtype=torch.uint8)
    assert resize_to(frames, 5, 7) is frames
    flat = torch.full((1, 9, 9, 3), 255, dtype=torch.uint8)
    assert (resize_to(flat, 4, 5) == 255).all()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"area": (0.5, 0.2)}, "augment.area: must be"),
        ({"area": (0.0, 1.0)}, "augment.area: must be"),
        ({"area": (0.1, 1.1)}, "augment.area: must be"),
        ({"aspect": (0.0, 1.0)}, "augment.aspect: must be"),
        ({"aspect": (2.0, 1.0)}, "augment.aspect: must be"),
        ({"area": (math.nan, 1.0)}, "augment.area: must be"),
    ],
)
def test_ranges_that_cannot_be(changes: dict, words: str) -> None:
    config = get_recipe("x3d_motion")
    with pytest.raises(ConfigError, match=words):
        validate(config.replace(augment=replace(config.augment, **changes)))


def test_a_detector_keeps_to_plain_crops() -> None:
    config = get_recipe("x3d_m_ava")
    with pytest.raises(ConfigError, match=r"augment.area: does not transform boxes"):
        validate(config.replace(augment=replace(config.augment, area=(0.5, 1.0))))
