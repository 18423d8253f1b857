"""Cube masks for MaskFeat: the two published ways of choosing the tokens that are masked.

MaskFeat: Wei et al., CVPR 2022, arXiv 2112.09133, section 3. A mask depends on the clip's seed alone, not on
the batch, the process or whether the run was resumed.

Shape letters: B clips, t h w the grid of tokens, F predicted frames per token.
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
"""Range of height / width of the rectangles, for both rules."""


@dataclass(frozen=True)
class CubeMask:
    """The mask of one clip.

    Attributes:
        mask: bool (t, h, w), true where a token is masked.
        cubes: (first time step, number of time steps) of each cube; empty if cubes may overlap in time.
    """

    mask: NDArray[np.bool_]
    cubes: tuple[tuple[int, int], ...] = ()


class MaskGenerator(ABC):
    """Draws masks for one grid of tokens."""

    grid: Grid

    @abstractmethod
    def draw(self, rng: random.Random) -> CubeMask:
        """Draw one mask."""

    def of_clip(self, seed: int) -> CubeMask:
        """The mask of the clip with this seed."""
        return self.draw(random.Random(int(stream(seed, "mask").integers(2**63))))


class VideoTransformerCubes(MaskGenerator):
    """The rule of VideoTransformer-pytorch (mask_generator.py, CubeMaskGenerator): one spatial mask per cube.

    Until ``int(t * ratio)`` time steps are masked, a spatial mask of ``int(h * w * ratio)`` tokens is built
    from rectangles and applied to a random run of time steps that are still free. So the fraction of masked
    tokens is ``ratio`` squared: 15 % of 8x14x14 at 0.4. A run that starts after the last time step masks
    nothing, and another is drawn. No rectangle is larger than the number of tokens still to mask; if ten in a
    row do not fit, slightly fewer tokens are masked.

    Args:
        grid: (t, h, w).
        ratio: fraction of the time steps, and of the tokens of each, that are masked.
        min_patches: tokens of the smallest rectangle; None: 16 of 196, as published.

    Raises:
        ConfigError: nothing would be masked.
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
                f"masked.ratio: {ratio:g} of {grid[0]} steps in time of {grid[1]}x{grid[2]} tokens masks "
                "nothing; raise it, or use longer or larger clips"
            )
        if not 1 <= self.min_patches <= self.num_patches:
            raise ConfigError(
                f"masked.min_patches: must be 1 to {self.num_patches}, the {ratio:g} of {grid[1]}x{grid[2]} "
                f"tokens that are masked (is {min_patches})"
            )

    def draw(self, rng: random.Random) -> CubeMask:
        mask = np.zeros(self.grid, np.bool_)
        taken = np.zeros(self.grid[0], np.bool_)
        cubes = []
        while (left := self.num_steps - int(taken.sum())) > 0:
            shape = self._shape(rng)
            start = rng.randint(0, self.grid[0])  # may be after the last
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
                box = self._rectangle(rng, left)
                if box is not None and 0 < (~shape[box]).sum() <= left:
                    shape[box] = True
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
    """The rule of PySlowFast (datasets/transform.py, MaskingGenerator3D): draw boxes until ``ratio`` of the
    tokens are masked.

    Boxes are drawn on a grid of cells that is ``coarse`` times coarser than the tokens in height and width:
    8x7x7 for 8x14x14 tokens. A box spans 1 to t time steps and, on each, between a fifth and all of the
    cells; it leaves at least one row and one column free and masks no more cells than are still to mask. If a
    hundred in a row do not fit, slightly fewer cells are masked.

    Args:
        grid: (t, h, w) of the tokens.
        ratio: fraction of the tokens that are masked.
        coarse: side of a cell in tokens.
        min_patches: cells of the smallest box on one time step; None: a fifth of all.

    Raises:
        ConfigError: the grid is not made of whole cells, or nothing would be masked.
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
                f"masked.ratio: {ratio:g} of a window of {'x'.join(map(str, self.window))} cells masks "
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
                box = self._box(rng)
                if box is not None and 0 < (~mask[box]).sum() <= left:
                    mask[box] = True
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
    """Height and width of a random rectangle: draws its area, then the logarithm of height / width."""
    area = rng.uniform(least, most)
    shape = math.exp(rng.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
    return round(math.sqrt(area * shape)), round(math.sqrt(area / shape))


def _checked_ratio(ratio: float) -> float:
    if not 0 < ratio < 1:
        raise ConfigError(f"masked.ratio: must lie between 0 and 1 (is {ratio})")
    return ratio


@dataclass(frozen=True)
class MaskedTokens:
    """The masks of a batch, and the frames on which predictions are scored.

    Attributes:
        mask: bool (B, t, h, w), true where a token is masked.
        scored: bool (B, t, F), true for the frames on which masked tokens are scored.
    """

    mask: Tensor
    scored: Tensor

    @property
    def count(self) -> int:
        """Number of scored predictions: masked tokens times the scored frames of each."""
        return int((self.mask.sum((2, 3)) * self.scored.sum(2)).sum())

    def to(self, device: torch.device | str) -> MaskedTokens:
        """A copy on ``device``."""
        return MaskedTokens(
            self.mask.to(device, non_blocking=True), self.scored.to(device, non_blocking=True)
        )


def masked_tokens(masks: Sequence[CubeMask], *, scored: Scored, num_frames: int) -> MaskedTokens:
    """Stack the masks of clips to a batch.

    Args:
        scored: ``centre``: the middle frame of each cube, frame ``2 * start + length`` of the clip if a
            token covers two frames (VideoTransformer-pytorch); ``all``: every predicted frame.
        num_frames: F: 2 predicts both frames of a token, 1 only the first.
    """
    mask = np.stack([one.mask for one in masks])
    frames = np.ones((*mask.shape[:2], num_frames), np.bool_)
    if scored == "centre":
        frames[:] = False
        for of_clip, one in zip(frames, masks, strict=True):
            for start, length in one.cubes:
                step, second = divmod(2 * start + length, 2)
                of_clip[step, second if num_frames == 2 else 0] = True
    return MaskedTokens(torch.from_numpy(mask), torch.from_numpy(frames))
