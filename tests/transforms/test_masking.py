"""Masks against VideoTransformer-pytorch's recordings, and what the two ways of drawing promise."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from golden import rule
from saccade.errors import ConfigError
from saccade.transforms.masked_targets import scored_mask, scored_predictions, scored_targets, token_targets
from saccade.transforms.masking import (
    CubeMask,
    MaskGenerator,
    PySlowFastCubes,
    VideoTransformerCubes,
    masked_tokens,
)


def draws(generator: MaskGenerator, num: int = 200) -> list[CubeMask]:
    rng = random.Random(7)
    return [generator.draw(rng) for _ in range(num)]


# ----------------------------------------------------------------------------------- VideoTransformer-pytorch


@pytest.mark.parametrize(
    "draw", rule.load("vt_cube_mask")["draws"], ids=lambda d: f"{d['input_size']}-{d['seed']}"
)
def test_cubes_are_the_recorded_ones(draw: dict):
    found = VideoTransformerCubes(tuple(draw["input_size"])).draw(random.Random(draw["seed"]))
    assert [list(cube) for cube in found.cubes] == draw["cube_marker"]
    assert np.packbits(found.mask.flatten()).tobytes().hex() == draw["mask_hex"]


@pytest.mark.slow
def test_cubes_have_the_recorded_statistics():
    recorded = rule.load("vt_cube_mask")["statistics_2000_draws_seed_12345"]
    rng, generator = random.Random(12345), VideoTransformerCubes((8, 14, 14))
    masks = [generator.draw(rng) for _ in range(2000)]
    ratios = [mask.mask.mean() for mask in masks]
    assert np.mean(ratios) == pytest.approx(recorded["masked_ratio_mean"])
    assert min(ratios) == pytest.approx(recorded["masked_ratio_min"])
    counts = np.bincount([len(mask.cubes) for mask in masks])
    assert {str(n): int(c) for n, c in enumerate(counts) if c} == recorded["cubes_hist"]


def test_a_cube_holds_one_shape_for_its_steps():
    for found in draws(VideoTransformerCubes((8, 14, 14))):
        steps = [step for start, length in found.cubes for step in range(start, start + length)]
        assert len(steps) == len(set(steps)) == 3
        assert found.mask.any((1, 2)).nonzero()[0].tolist() == sorted(steps)
        for start, length in found.cubes:
            assert (found.mask[start : start + length] == found.mask[start]).all()


def test_small_grids_scale_the_smallest_rectangle():
    assert VideoTransformerCubes((8, 14, 14)).min_patches == 16
    assert {int(m.mask.sum()) for m in draws(VideoTransformerCubes((4, 4, 4)))} <= {5, 6}


# ------------------------------------------------------------------------------------------------- PySlowFast


def test_boxes_have_the_published_numbers():
    generator = PySlowFastCubes((8, 14, 14))
    assert generator.window == (8, 7, 7)
    assert (generator.min_patches, generator.max_patches, generator.num_cells) == (9, 49, 157)
    for found in draws(generator, 50):
        cells = found.mask[:, ::2, ::2]
        assert (found.mask == cells.repeat(2, axis=1).repeat(2, axis=2)).all()
        assert 140 <= cells.sum() <= 157
        assert not found.cubes


def test_boxes_of_single_tokens():
    assert {int(m.mask.sum()) for m in draws(PySlowFastCubes((4, 4, 4), coarse=1))} <= set(range(22, 27))


# -------------------------------------------------------------------------------------------------- in common


@pytest.mark.parametrize("generator", [VideoTransformerCubes((8, 14, 14)), PySlowFastCubes((8, 14, 14))])
def test_a_clip_s_mask_follows_from_its_seed(generator: MaskGenerator):
    state = random.getstate()
    first, other = generator.of_clip(5), generator.of_clip(6)
    random.random()
    assert (generator.of_clip(5).mask == first.mask).all()
    assert (other.mask != first.mask).any()
    random.setstate(state)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VideoTransformerCubes((2, 4, 4)), r"masked.ratio: 0.4 of 2 steps .* masks nothing"),
        (lambda: VideoTransformerCubes((8, 4, 4), min_patches=16), "masked.min_patches: must be 1 to 6"),
        (lambda: VideoTransformerCubes((8, 4, 4), ratio=1.0), "masked.ratio: must lie between 0 and 1"),
        (lambda: PySlowFastCubes((8, 7, 7)), "masked.coarse: cells of 2 tokens do not fill 7x7"),
        (lambda: PySlowFastCubes((8, 4, 4), coarse=4), r"masked.ratio: 0.4 of a window of 8x1x1 cells masks"),
        (lambda: PySlowFastCubes((8, 4, 4), min_patches=9), "masked.min_patches: must be 0 to 4"),
    ],
)
def test_masks_that_cannot_be_drawn_are_refused(make, message: str):
    with pytest.raises(ConfigError, match=message):
        make()


def two_masks() -> list[CubeMask]:
    first, second = np.zeros((4, 2, 2), np.bool_), np.zeros((4, 2, 2), np.bool_)
    first[0, 0] = first[2:4, 1, 1] = True
    second[1:4, :, 0] = True
    return [CubeMask(first, ((0, 1), (2, 2))), CubeMask(second, ((1, 3),))]


def test_the_middle_frame_of_each_cube_is_scored():
    """Frames 2 start + length: 1 and 6 of the first clip, 5 of the second."""
    both = masked_tokens(two_masks(), scored="centre", num_frames=2)
    assert both.scored.nonzero().tolist() == [[0, 0, 1], [0, 3, 0], [1, 2, 1]]
    assert both.count == 2 + 1 + 2
    one = masked_tokens(two_masks(), scored="centre", num_frames=1)
    assert one.scored.nonzero().tolist() == [[0, 0, 0], [0, 3, 0], [1, 2, 0]]


def test_all_frames_are_scored():
    tokens = masked_tokens(two_masks(), scored="all", num_frames=2)
    assert tokens.scored.all()
    assert tokens.count == 2 * int(tokens.mask.sum()) == 2 * (4 + 6)


@pytest.mark.parametrize("num_frames", [1, 2])
def test_targets_and_predictions_meet_in_frame_and_token(num_frames: int):
    tokens = masked_tokens(two_masks(), scored="centre", num_frames=num_frames)
    pixels = torch.randint(0, 256, (2, 8, 16, 16, 3), dtype=torch.uint8)
    targets = scored_targets(pixels, tokens, "soft")
    frames = [(0, 1), (0, 6), (1, 5)] if num_frames == 2 else [(0, 0), (0, 6), (1, 4)]
    for own, (clip, frame) in zip(targets, frames, strict=True):
        torch.testing.assert_close(own, token_targets(pixels[clip, frame][None], "soft", (2, 2))[0])
    predictions = torch.arange(2 * 4 * 4 * num_frames * 3).view(2, 4, 2, 2, num_frames * 3)
    found = scored_predictions(predictions, tokens)
    for own, (clip, step, second) in zip(found, tokens.scored.nonzero().tolist(), strict=True):
        assert own.equal(predictions[clip, step][..., 3 * second : 3 * second + 3])
    assert scored_mask(tokens)[0].equal(tokens.mask[0, 0])
