"""Random erasing for clips."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from saccade.clip import ClipSpec
from saccade.data.seeds import stream
from saccade.errors import ConfigError

AREA = (0.02, 0.4)  # of the picture; both from section 4 of the paper
ASPECT = (0.3, 1 / 0.3)  # height by width
_ATTEMPTS = 100


class RandomErasing:
    """Replace a random rectangle of a clip by noise, with the same rectangle and noise in every frame.

    Zhong et al. 2017, "Random Erasing Data Augmentation", arXiv 1708.04896, algorithm 1: with the given
    probability, area and aspect are drawn uniformly until the rectangle fits; every value in it is replaced
    by one drawn uniformly from 0..255 ("RE-R"). PySlowFast draws new noise for each frame.

    Args:
        probability: probability that a clip is erased.
        clip: mean and std by which the noise is normalised.

    Raises:
        ConfigError: the probability is outside 0..1.
    """

    def __init__(self, probability: float, clip: ClipSpec) -> None:
        if not 0.0 <= probability <= 1.0:
            raise ConfigError(f"augment.erasing: {probability} is not in 0..1")
        self.probability = probability
        self._mean, self._std = (torch.tensor(v, dtype=torch.float64) for v in (clip.mean, clip.std))

    def draw(self, seed: int, height: int, width: int) -> tuple[int, int, np.ndarray] | None:
        """Top, left and noise, uint8 (h, w, 3), of the clip with this seed; None if nothing is erased."""
        random = stream(seed, "erasing")
        if random.random() >= self.probability:
            return None
        for _ in range(_ATTEMPTS):
            area, aspect, down, right = random.uniform((*_low(), 0, 0), (*_high(), height, width))
            h = max(1, round(math.sqrt(area * height * width * aspect)))
            w = max(1, round(math.sqrt(area * height * width / aspect)))
            top, left = int(down), int(right)
            if top + h <= height and left + w <= width:
                return top, left, random.integers(0, 256, (h, w, 3), dtype=np.uint8)
        return None

    def __call__(self, x: Tensor, seeds: Sequence[int]) -> Tensor:
        """Erase in ``x``, normalised (B, 3, T, S, S), in place, each clip by its seed; return ``x``."""
        for clip, seed in zip(x, seeds, strict=True):
            drawn = self.draw(seed, *clip.shape[2:])
            if drawn is None:
                continue
            top, left, noise = drawn
            values = (torch.from_numpy(noise) / 255.0 - self._mean) / self._std
            h, w, _ = noise.shape
            clip[:, :, top : top + h, left : left + w] = values.permute(2, 0, 1)[:, None].to(clip)
        return x


def _low() -> tuple[float, float]:
    return AREA[0], ASPECT[0]


def _high() -> tuple[float, float]:
    return AREA[1], ASPECT[1]
