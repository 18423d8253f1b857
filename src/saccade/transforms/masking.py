"""Which tokens of a clip MaskFeat hides: the two published ways of drawing cubes.

MaskFeat: Wei et al., CVPR 2022, arXiv 2112.09133, section 3. A generator draws from a `random.Random` alone,
so that a clip's mask follows from the clip's seed, in whatever batch, process or resumed run it is.

Shape letters: B clips, t h w the grid of tokens, F frames that are predicted for a token.
"""

from __future__ import annotations

import math
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saccade.data.seeds import stream
from saccade.errors import ConfigError

MaskRule = Literal["video-transformer", "pyslowfast"]
Scored = Literal["centre", "all"]
Grid = tuple[int, int, int]

ASPECT = (0.3, 1 / 0.3)
"""Height by width of the rectangles, in both."""


@dataclass(frozen=True)
class CubeMask:
    """What is hidden of one clip.

    Attributes:
        mask: bool (t, h, w), true for hidden.
        cubes: of each cube the first step in time and their number; empty where cubes have no order in time.
    """

    mask: NDArray[np.bool_]
    cubes: tuple[tuple[int, int], ...] = ()


class MaskGenerator(ABC):
    """Draws masks of one grid of tokens."""

    grid: Grid

    @abstractmethod
    def draw(self, rng: random.Random) -> CubeMask:
        """One mask."""

    def of_clip(self, seed: int) -> CubeMask:
        """The mask of the clip with this seed."""
        return self.draw(random.Random(int(stream(seed, "mask").integers(2**63))))


class VideoTransformerCubes(MaskGenerator):
    """VideoTransformer-pytorch's (mask_generator.py, CubeMaskGenerator): one shape for some steps in time.

    Until ``int(t * ratio)`` steps are hidden, a mask of ``int(h * w * ratio)`` tokens is put together from
    rectangles and laid on a stretch of steps drawn at random, as far as they are free. So ``ratio`` squared
    of all tokens are hidden: 15 % of 8x14x14 at 0.4. A stretch may be drawn to start behind the last step;
    nothing is hidden then, and another is drawn. Rectangles are at most as large as what is still to hide; if
    ten in a row do not fit, a few tokens less are hidden.

    Args:
        grid: (t, h, w).
        ratio: see above.
        min_patches: tokens of the smallest rectangle that is tried first; None: 16 of 196, as published.

    Raises:
        ConfigError: nothing would be hidden.
    """

    _attempts = 10

    def __init__(self, grid: Grid, *, ratio: float = 0.4, min_patches: int | None = None) -> None:
        self.grid, self.ratio = grid, _checked_ratio(ratio)
        self.num_steps, self.num_patches = int(grid[0] * ratio), int(grid[1] * grid[2] * ratio)
        if min_patches is None:
            min_patches = max(1, round(grid[1] * grid[2] * 16 / 196))
        self.min_patches = min_patches
        if not self.num_steps or not self.num_patches:
            raise ConfigError(
                f"masked.ratio: {ratio:g} of {grid[0]} steps in time of {grid[1]}x{grid[2]} tokens hides "
                "nothing; raise it, or take longer or larger clips"
            )
        if not 1 <= self.min_patches <= self.num_patches:
            raise ConfigError(
                f"masked.min_patches: must be 1 to {self.num_patches}, the {ratio:g} of {grid[1]}x{grid[2]} "
                f"tokens that are hidden (is {min_patches})"
            )

    def draw(self, rng: random.Random) -> CubeMask:
        mask = np.zeros(self.grid, np.bool_)
        taken = np.zeros(self.grid[0], np.bool_)
        cubes = []
        while (left := self.num_steps - int(taken.sum())) > 0:
            shape = self._shape(rng)
            start = rng.randint(0, self.grid[0])  # may be behind the last
            length = rng.randint(1, left)
            free = 0
            while free < length and start + free < self.grid[0] and not taken[start + free]:
                free += 1
            if free:
                taken[start : start + free] = True
                mask[start : start + free] = shape
                cubes.append((start, free))
        return CubeMask(mask, tuple(cubes))

    def _shape(self, rng: random.Random) -> NDArray[np.bool_]:
        shape = np.zeros(self.grid[1:], np.bool_)
        while (left := self.num_patches - int(shape.sum())) > 0:
            for _ in range(self._attempts):
                place = self._rectangle(rng, left)
                if place is not None and 0 < (~shape[place]).sum() <= left:
                    shape[place] = True
                    break
            else:
                break
        return shape

    def _rectangle(self, rng: random.Random, most: int) -> tuple[slice, slice] | None:
        _, height, width = self.grid
        h, w = _sides(rng, self.min_patches, most)
        if w >= width or h >= height:
            return None
        top, left = rng.randint(0, height - h), rng.randint(0, width - w)
        return slice(top, top + h), slice(left, left + w)


class PySlowFastCubes(MaskGenerator):
    """PySlowFast's (datasets/transform.py, MaskingGenerator3D): boxes until ``ratio`` of the tokens are
    hidden.

    It works on a window that is ``coarse`` times coarser than the tokens in height and width: [8, 7, 7] for
    8x14x14 tokens. A box has 1 to t steps and, on one step, a fifth to the whole of the window's cells; it
    must leave a row and a column of the window and may not hide more than is still to hide. If a hundred in a
    row do not fit, a few cells less are hidden.

    Args:
        grid: (t, h, w) of the tokens.
        ratio: share of the tokens that are hidden.
        coarse: tokens a side of a cell.
        min_patches: cells of the smallest box on one step; None: a fifth of the window's.

    Raises:
        ConfigError: cells do not fill the grid, or nothing would be hidden.
    """

    _attempts = 100

    def __init__(
        self, grid: Grid, *, ratio: float = 0.4, coarse: int = 2, min_patches: int | None = None
    ) -> None:
        self.grid, self.ratio, self.coarse = grid, _checked_ratio(ratio), coarse
        if coarse < 1 or grid[1] % coarse or grid[2] % coarse:
            raise ConfigError(
                f"masked.coarse: cells of {coarse} tokens do not fill {grid[1]}x{grid[2]} tokens"
            )
        self.window = (grid[0], grid[1] // coarse, grid[2] // coarse)
        self.max_patches = self.window[1] * self.window[2]
        self.min_patches = self.max_patches // 5 if min_patches is None else min_patches
        self.num_cells = round(math.prod(self.window) * ratio)
        if min(self.window[1:]) < 2 or not self.num_cells:
            raise ConfigError(
                f"masked.ratio: {ratio:g} of a window of {'x'.join(map(str, self.window))} cells hides "
                "nothing; raise it, or lower masked.coarse"
            )
        if not 0 <= self.min_patches <= self.max_patches:
            raise ConfigError(
                f"masked.min_patches: must be 0 to {self.max_patches}, the cells of a step (is {min_patches})"
            )

    def draw(self, rng: random.Random) -> CubeMask:
        mask = np.zeros(self.window, np.bool_)
        while (left := self.num_cells - int(mask.sum())) > 0:
            for _ in range(self._attempts):
                place = self._box(rng)
                if place is not None and 0 < (~mask[place]).sum() <= left:
                    mask[place] = True
                    break
            else:
                break
        return CubeMask(mask.repeat(self.coarse, axis=1).repeat(self.coarse, axis=2))

    def _box(self, rng: random.Random) -> tuple[slice, slice, slice] | None:
        steps, height, width = self.window
        h, w = _sides(rng, self.min_patches, self.max_patches)
        t = rng.randint(1, steps)
        if w >= width or h >= height:
            return None
        top, left = rng.randint(0, height - h), rng.randint(0, width - w)
        front = rng.randint(0, steps - t)
        return slice(front, front + t), slice(top, top + h), slice(left, left + w)


def _sides(rng: random.Random, least: float, most: float) -> tuple[int, int]:
    """Height and width of a rectangle; drawn in this order: its area, the logarithm of its shape."""
    area = rng.uniform(least, most)
    shape = math.exp(rng.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
    return round(math.sqrt(area * shape)), round(math.sqrt(area / shape))


def _checked_ratio(ratio: float) -> float:
    if not 0 < ratio < 1:
        raise ConfigError(f"masked.ratio: must lie between 0 and 1 (is {ratio})")
    return ratio


@dataclass(frozen=True)
class MaskedTokens:
    """What is hidden of a batch and what is learned from it.

    Attributes:
        mask: bool (B, t, h, w), true for hidden.
        scored: bool (B, t, F), the frames on which the hidden tokens are scored.
    """

    mask: Tensor
    scored: Tensor

    @property
    def count(self) -> int:
        """Scored tokens: each hidden one, as often as frames of it are scored."""
        return int((self.mask.sum((2, 3)) * self.scored.sum(2)).sum())

    def to(self, device: torch.device | str) -> MaskedTokens:
        """A copy on ``device``."""
        return MaskedTokens(
            self.mask.to(device, non_blocking=True), self.scored.to(device, non_blocking=True)
        )


def masked_tokens(masks: Sequence[CubeMask], *, scored: Scored, num_frames: int) -> MaskedTokens:
    """The masks of clips as one batch.

    Args:
        scored: ``centre``: the middle frame of each cube, number ``2 * start + length`` of the clip where a
            token covers two (VideoTransformer-pytorch); ``all``: every predicted frame.
        num_frames: F, frames predicted for a token: both (2), or its first (1).
    """
    mask = np.stack([one.mask for one in masks])
    frames = np.ones((*mask.shape[:2], num_frames), np.bool_)
    if scored == "centre":
        frames[:] = False
        for own, one in zip(frames, masks, strict=True):
            for start, length in one.cubes:
                step, second = divmod(2 * start + length, 2)
                own[step, second if num_frames == 2 else 0] = True
    return MaskedTokens(torch.from_numpy(mask), torch.from_numpy(frames))
