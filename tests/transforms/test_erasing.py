"""Random erasing (arXiv 1708.04896, algorithm 1) of clips."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from saccade.clip import ClipSpec
from saccade.errors import ConfigError
from saccade.transforms.erasing import RandomErasing

CLIP = ClipSpec(num_frames=3, stride=1, crop=32, short_side=32)


def test_a_rectangle_of_noise_the_same_in_all_frames() -> None:
    x = torch.full((40, 3, 3, 32, 32), 7.0)
    erased = RandomErasing(1.0, CLIP)(x, range(40))
    assert erased is x
    changed = (x != 7.0).any(1)
    assert changed.equal(changed[:, :1].expand_as(changed))  # the same place ...
    assert x.equal(x[:, :, :1].expand_as(x))  # ... and the same noise in every frame
    for clip, mask in zip(x, changed[:, 0], strict=True):
        rows, columns = mask.nonzero().unbind(1)
        box = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        assert box.all()
        noise = clip[:, 0][:, mask] * 0.225 + 0.45
        assert noise.min() >= -1e-6
        assert noise.max() <= 1 + 1e-6
        assert noise.std() > 0.15  # uniform: 0.29


def test_places_areas_and_aspects_are_those_of_the_paper() -> None:
    erasing = RandomErasing(0.5, CLIP)
    drawn = [erasing.draw(seed, 200, 200) for seed in range(6000)]
    kept = [d for d in drawn if d is not None]
    assert len(kept) == pytest.approx(3000, abs=200)
    areas = np.array([noise.shape[0] * noise.shape[1] / 200**2 for _, _, noise in kept])
    aspects = np.array([noise.shape[0] / noise.shape[1] for _, _, noise in kept])
    assert areas.min() > 0.018
    assert areas.max() < 0.41
    assert aspects.min() > 0.27
    assert aspects.max() < 3.5
    assert np.ptp(areas) > 0.3
    assert np.ptp(aspects) > 2.5
    centres = np.array([(top + n.shape[0] / 2, left + n.shape[1] / 2) for top, left, n in kept])
    assert np.abs(centres.mean(0) - 100).max() < 4


def test_a_clip_draws_for_itself() -> None:
    x = torch.randn(6, 3, 2, 16, 16)
    whole = RandomErasing(0.5, CLIP)(x.clone(), (5, 6, 7, 8, 9, 10))
    part = RandomErasing(0.5, CLIP)(x[2:4].clone(), (7, 8))
    assert part.equal(whole[2:4])
    assert RandomErasing(0.0, CLIP)(x.clone(), range(6)).equal(x)


def test_both_memory_formats() -> None:
    x = torch.randn(4, 3, 2, 16, 16)
    last = x.to(memory_format=torch.channels_last_3d)
    assert RandomErasing(1.0, CLIP)(x.clone(), range(4)).equal(RandomErasing(1.0, CLIP)(last, range(4)))


def test_a_probability_is_one() -> None:
    with pytest.raises(ConfigError, match=r"augment.erasing: 1.5 is not in 0..1"):
        RandomErasing(1.5, CLIP)
