"""Histograms of oriented gradients of whole batches of frames: what MaskFeat predicts.

Dalal and Triggs, CVPR 2005; MaskFeat: Wei et al., CVPR 2022, arXiv 2112.09133. In each colour channel, a
pixel adds the magnitude of its gradient to one of nine unsigned orientation bins of 20 degrees; the bins of a
cell of 8x8 pixels form a histogram, which is L2-normalised. Two definitions are in use:

    soft   scikit-image's ``hog`` with cells_per_block (1, 1) and block_norm "L2", the target of
           VideoTransformer-pytorch: central differences, 0 at the border; votes are averaged over the cell,
           so that the epsilon 1e-5 shrinks the histograms of nearly flat cells
    hard   HOGLayerC of PySlowFast (models/operators.py): Sobel filters on the frame with reflect padding,
           angles measured from the other axis, no such epsilon

In both, each pixel votes for one bin only. PySlowFast computes HOG after normalising the frames. Scale and
offset of a colour channel change neither the bin nor the normalised histogram; on integer pixels, as here, an
exactly horizontal gradient also has an exact angle.

Shape letters: N frames, H and W pixels, h and w cells, 3 colours, 9 directions.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from saccade.errors import UsageError

HogKind = Literal["soft", "hard"]
CELL = 8
"""Side of a cell in pixels."""
NUM_BINS = 9
"""Orientation bins of a histogram."""
_SOFT_EPS = 1e-5
_HARD_EPS = 1e-12


def hog(pixels: Tensor, kind: HogKind = "soft") -> Tensor:
    """HOG of frames: uint8 (..., H, W, 3) -> float32 (..., h, w, 3, 9), on the device of the frames.

    Raises:
        UsageError: the frames have another dtype or number of channels, or a side is no multiple of 8 pixels.
    """
    check_pixels(pixels)
    frames = pixels.reshape(-1, *pixels.shape[-3:])
    down, across = _central(frames) if kind == "soft" else _sobel(frames)
    angles = torch.atan2(down, across) if kind == "soft" else torch.atan2(across, down)
    turns = angles.mul_(NUM_BINS / math.pi).add_(NUM_BINS)  # 0 .. 18, two turns of the directions
    votes = _cell_votes(turns, torch.hypot(down, across))
    if kind == "soft":
        votes /= CELL * CELL
        lengths = votes.square().sum(-1, keepdim=True).add_(_SOFT_EPS**2).sqrt_()
    else:
        lengths = votes.norm(dim=-1, keepdim=True).clamp_(min=_HARD_EPS)
    votes /= lengths
    return votes.view(*pixels.shape[:-3], *votes.shape[1:])


def check_pixels(pixels: Tensor) -> None:
    """Raise `UsageError` unless ``pixels`` are uint8 (..., H, W, 3) with sides that are multiples of 8."""
    if pixels.dtype != torch.uint8 or pixels.ndim < 3 or pixels.shape[-1] != 3:
        raise UsageError(
            f"HOG: frames must be uint8 (..., height, width, 3), got {pixels.dtype} {tuple(pixels.shape)}"
        )
    height, width = pixels.shape[-3:-1]
    if height % CELL or width % CELL or not height or not width:
        raise UsageError(f"HOG: height and width must be multiples of {CELL} pixels, got {height}x{width}")


def _central(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Vertical and horizontal central differences of uint8 (N, H, W, 3), 0 at the border: (N, H, 3 W)."""
    rows = frames.flatten(2).to(torch.float32)
    down, across = torch.empty_like(rows), torch.empty_like(rows)
    torch.sub(rows[:, 2:], rows[:, :-2], out=down[:, 1:-1])
    down[:, 0] = down[:, -1] = 0
    torch.sub(rows[:, :, 6:], rows[:, :, :-6], out=across[:, :, 3:-3])
    across[:, :, :3] = across[:, :, -3:] = 0
    return down, across


def _sobel(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Vertical and horizontal Sobel filters of uint8 (N, H, W, 3), reflect padding: float32 (N, H, 3 W)."""
    count, height, width, _ = frames.shape
    rows = torch.empty(count, height + 2, 3 * (width + 2), device=frames.device)
    rows[:, 1:-1, 3:-3] = frames.flatten(2)
    rows[:, 0], rows[:, -1] = rows[:, 2], rows[:, -3]
    rows[:, :, :3], rows[:, :, -3:] = rows[:, :, 6:9], rows[:, :, -9:-6]
    wide = torch.add(rows[:, :-2], rows[:, 1:-1], alpha=2).add_(rows[:, 2:])
    high = torch.add(rows[:, :, :-6], rows[:, :, 3:-3], alpha=2).add_(rows[:, :, 6:])
    return high[:, :-2] - high[:, 2:], wide[:, :, :-6] - wide[:, :, 6:]


def _cell_votes(turns: Tensor, weights: Tensor) -> Tensor:
    """Sums of ``weights`` by bin for each cell: (N, H, 3 W) -> (N, h, w, 3, 9)."""
    turns, weights = _by_cells(turns), _by_cells(weights)
    halves = 2 * NUM_BINS + 1  # exactly half a turn falls into bin 18
    if _scatters(turns):
        votes = weights.new_zeros((*weights.shape[:-1], halves))
        votes.scatter_add_(-1, turns.to(torch.int64), weights)
    else:
        bins = turns.to(torch.uint8)
        votes = torch.stack([(weights * (bins == k)).sum(-1) for k in range(halves)], -1)
    once, again = votes[..., :NUM_BINS], votes[..., NUM_BINS:-1]
    folded = once + again
    folded[..., 0] += votes[..., -1]
    return folded


def _scatters(values: Tensor) -> bool:
    """Whether scatter_add_ is deterministic and fast on this device."""
    return values.device.type == "cpu"


def _by_cells(values: Tensor) -> Tensor:
    """(N, H, 3 W) -> (N, h, w, 3, 64), the pixels of a cell last."""
    cells = values.unflatten(2, (-1, CELL, 3)).unflatten(1, (-1, CELL))  # N h 8 w 8 3
    return cells.permute(0, 1, 3, 5, 2, 4).flatten(-2).contiguous()
