"""How much of what a transformer reads out comes from where: attention rollout.

Abnar & Zuidema 2020, "Quantifying Attention Flow in Transformers", arXiv 2005.00928: what a block gives is
taken for half its input and half what its heads, on average, attend to; the blocks' matrices are multiplied.
Only the row of what is read out is wanted, so that it is carried back from block to block, and no matrix of
all tokens by all tokens is made.

Shape letters: T moments, P patches of one moment, N = 1 + T P tokens, the class token first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Grid = tuple[int, int, int]


def through_joint(row: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Blocks in which all tokens meet: a row (..., N), weights (..., heads, N, N) block by block -> (..., N).

    Also of blocks that look at moments one by one, with a row for each: (T, 1 + P).
    """
    for block in reversed(weights):
        row = 0.5 * row + 0.5 * torch.einsum("...n,...nm->...m", row, block.mean(-3))
    return row


def through_divided(row: Tensor, in_time: Sequence[Tensor], in_space: Sequence[Tensor]) -> Tensor:
    """Blocks with attention in time and then in space (`saccade.layers.transformer.DividedBlock`).

    Each is two steps, one for either attention. The class token has no part in time; in space every moment
    has a copy of it, and what becomes of them is averaged.

    Shapes: row (N,); in time (P, heads, T, T) and in space (T, heads, 1 + P, 1 + P), block by block -> (N,).
    """
    num_times = len(in_space[0])
    for time, space in zip(reversed(in_time), reversed(in_space), strict=True):
        frames = space.mean(1)
        token, patches = row[:1], row[1:].unflatten(0, (num_times, -1))
        rows = torch.cat((token.expand(num_times, 1) / num_times, patches), 1)
        seen = torch.einsum("tn,tnm->tm", rows, frames)
        token = 0.5 * token + 0.5 * seen[:, 0].sum(0, keepdim=True)
        patches = 0.5 * patches + 0.5 * seen[:, 1:]
        patches = 0.5 * patches + 0.5 * torch.einsum("tp,pts->sp", patches, time.mean(1))
        row = torch.cat((token, patches.flatten()))
    return row


@dataclass(frozen=True, eq=False)
class PooledBlock:
    """A block whose queries and keys are pooled (`saccade.models.mvit.MViTBlock`).

    Attributes:
        weights: (heads, 1 + queries, 1 + keys).
        grid: of the tokens it is given.
        pool_q: from a map (1, 1, *grid) to that of its queries and of its shortcut, where every value is a
            mean over patches; pool_k: the same to its keys.
    """

    weights: Tensor
    grid: Grid
    pool_q: Callable[[Tensor], Tensor]
    pool_k: Callable[[Tensor], Tensor]

    def looking_evenly(self) -> PooledBlock:
        """The same block with heads that look at everything alike."""
        return replace(self, weights=torch.full_like(self.weights, 1 / self.weights.shape[-1]))


def through_pooled(row: Tensor, blocks: Sequence[PooledBlock]) -> Tensor:
    """A row over the last block's tokens -> over the tokens (1 + t h w,) that the first one is given.

    A pooled key, or a pooled shortcut, counts as a share of each patch that it is the mean of.
    """
    for block in reversed(blocks):
        keys = row @ block.weights.mean(0)
        token = 0.5 * row[:1] + 0.5 * keys[:1]
        patches = 0.5 * spread_back(row[1:], block.pool_q, block.grid)
        patches = patches + 0.5 * spread_back(keys[1:], block.pool_k, block.grid)
        row = torch.cat((token, patches))
    return row


def spread_back(values: Tensor, pool: Callable[[Tensor], Tensor], grid: Grid) -> Tensor:
    """Values of pooled cells, shared out to the patches they are the mean of: (cells,) -> (patches,)."""
    with torch.enable_grad():
        patches = torch.zeros(1, 1, *grid, dtype=values.dtype, device=values.device, requires_grad=True)
        pooled = pool(patches)
        (shares,) = torch.autograd.grad(pooled, patches, values.detach().reshape(pooled.shape))
    return shares.flatten()


def pool_between(stride: int) -> Callable[[Tensor], Tensor]:
    """Pooling by ``stride`` in height and width, for rollout: each cell is the mean of the patches around the
    one it stands on, with weights that fall linearly to 0 at the next cell's.

    Whatever the window of a convolution: one with more stride than width would see spots of the clip alone.
    """
    if stride == 1:
        return lambda x: x
    ramp = 1 - torch.arange(1 - stride, stride).abs() / stride
    kernel = (ramp[:, None] * ramp)[None, None, None]

    def pool(x: Tensor) -> Tensor:
        weights = kernel.to(x)
        how: dict[str, Any] = {"stride": (1, stride, stride), "padding": (0, stride - 1, stride - 1)}
        return F.conv3d(x, weights, **how) / F.conv3d(torch.ones_like(x), weights, **how)

    return pool
