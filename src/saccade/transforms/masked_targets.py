"""Prediction targets for the masked tokens of a clip.

Shape letters: B clips, T frames, S pixels a side, t h w the grid of tokens, F frames predicted for a token, D
values predicted per frame of a token, n scored frames of a batch.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from saccade.errors import UsageError
from saccade.transforms.hog import hog
from saccade.transforms.masking import MaskedTokens

TargetKind = Literal["soft", "hard", "pixels"]
_PIXEL_EPS = 1e-6


def token_targets(frames: Tensor, kind: TargetKind, grid: tuple[int, int]) -> Tensor:
    """Targets of all tokens of frames: uint8 (n, S, S, 3) -> float32 (n, h, w, D).

    ``soft`` and ``hard``: the histograms of `saccade.transforms.hog` in the cells of a token. D is, slowest
    dimension first, (cell rows, cell columns, colours, bins) for ``soft``, as in VideoTransformer-pytorch,
    and (colours, bins, cell rows, cell columns) for ``hard``, as in PySlowFast. ``pixels``: (rows, columns,
    colours), normalised by mean and standard deviation of the token, as in PySlowFast and MAE.

    Raises:
        UsageError: the kind is unknown, or tokens are not made of whole cells.
    """
    h, w = grid
    if kind not in (kinds := get_args(TargetKind)):
        raise UsageError(f"targets: must be one of {', '.join(kinds)} (is {kind!r})")
    if frames.shape[1] % h or frames.shape[2] % w:
        raise UsageError(
            f"frames of {frames.shape[1]}x{frames.shape[2]} pixels do not divide into {h}x{w} tokens"
        )
    if kind == "pixels":
        patches = _by_tokens(frames.to(torch.float32) / 255, grid).flatten(3)
        deviation = (patches.var(-1, keepdim=True) + _PIXEL_EPS).sqrt()
        return (patches - patches.mean(-1, keepdim=True)) / deviation
    cells = hog(frames, kind)
    if cells.shape[1] % h or cells.shape[2] % w:
        raise UsageError(f"{cells.shape[1]}x{cells.shape[2]} HOG cells do not divide into {h}x{w} tokens")
    histograms = _by_tokens(cells, grid)  # n h w down across 3 9
    return (histograms if kind == "soft" else histograms.permute(0, 1, 2, 5, 6, 3, 4)).flatten(3)


def _by_tokens(values: Tensor, grid: tuple[int, int]) -> Tensor:
    """(n, H, W, ...) -> (n, h, w, H / h, W / w, ...)."""
    split = values.unflatten(2, (grid[1], -1)).unflatten(1, (grid[0], -1))
    return split.transpose(2, 3)


def scored_targets(pixels: Tensor, tokens: MaskedTokens, kind: TargetKind) -> Tensor:
    """Targets of the scored frames of clips, uint8 (B, T, S, S, 3): float32 (n, h, w, D), on their device."""
    clip, step, frame = tokens.scored.cpu().nonzero(as_tuple=True)
    span = pixels.shape[1] // tokens.mask.shape[1]
    h, w = tokens.mask.shape[2:]
    return token_targets(pixels[clip, step * span + frame], kind, (h, w))


def scored_predictions(predictions: Tensor, tokens: MaskedTokens) -> Tensor:
    """Predictions for the scored frames: (B, t, h, w, F D) -> (n, h, w, D)."""
    clip, step, frame = tokens.scored.cpu().nonzero(as_tuple=True)
    by_frame = predictions.unflatten(-1, (tokens.scored.shape[2], -1))
    return by_frame.permute(0, 1, 4, 2, 3, 5)[clip, step, frame]


def scored_mask(tokens: MaskedTokens) -> Tensor:
    """Which tokens of the scored frames are masked: bool (n, h, w)."""
    clip, step, _ = tokens.scored.nonzero(as_tuple=True)
    return tokens.mask[clip, step]
