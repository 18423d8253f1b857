"""Attention whose queries, keys and values are pooled over space, as in Multiscale Vision Transformers.

Fan et al. 2021, "Multiscale Vision Transformers", arXiv 2104.11227; Li et al. 2022, "MViTv2", arXiv
2112.01526: relative positions and the residual connection of the pooled queries. Details that the papers
do not give follow PySlowFast.

Shape letters: B clips, N tokens (a class token, then the patches of a grid, time slowest), D channels of a
head.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saccade.layers.attention import RecordableAttention
from saccade.layers.depthwise_conv import DepthwiseConv3d
from saccade.layers.position import resize_time

Grid = tuple[int, int, int]
"""Patches along time, height and width."""

Kernel = tuple[int, int, int]
"""Sides of a pooling kernel along time, height and width, all odd."""


class TokenPool(nn.Module):
    """A depthwise convolution over the patches, the same for every head, and a norm over all tokens.

    The class token skips the convolution. ``stride`` applies to height and width, not to time.

    Shapes: (B, heads, N, D) and its grid -> (B, heads, N', D) and its grid.
    """

    def __init__(self, head_dim: int, kernel: Kernel, stride: int, *, norm_eps: float) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2, kernel[2] // 2)
        self.conv = DepthwiseConv3d(head_dim, kernel, stride=(1, stride, stride), padding=padding)
        self.norm = nn.LayerNorm(head_dim, eps=norm_eps)

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        patches = x[:, :, 1:].reshape(-1, *grid, x.shape[-1])
        pooled = self.conv(patches.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)
        tokens = torch.cat([x[:, :, :1], pooled.reshape(*x.shape[:2], -1, x.shape[-1])], 2)
        return self.norm(tokens), (pooled.shape[1], pooled.shape[2], pooled.shape[3])


class RelativePositions(nn.Module):
    """Decomposed relative position bias: one term each for the distance in time, height and width.

    Each axis has a table of 2 max(queries, keys) - 1 distances x D; the term is the dot product of the query
    with the row of its distance to the key. Where keys are coarser than queries, distances are in query
    positions. For other sizes the tables are interpolated. The class token has no position.
    """

    def __init__(self, head_dim: int, q_grid: Grid, k_grid: Grid) -> None:
        super().__init__()
        sizes = [2 * max(q, k) - 1 for q, k in zip(q_grid, k_grid, strict=True)]
        self.time, self.height, self.width = (nn.Parameter(torch.zeros(n, head_dim)) for n in sizes)

    def forward(self, q: Tensor, q_grid: Grid, k_grid: Grid) -> Tensor:
        """The terms of queries (B, heads, N, D) by key position: (B, heads, N, T + H + W), axis by axis.

        `key_marks` selects the three terms of each key.
        """
        patches = q[:, :, 1:].unflatten(2, q_grid)
        time, height, width = (
            rows_between(table, n, m)
            for table, n, m in zip((self.time, self.height, self.width), q_grid, k_grid, strict=True)
        )
        terms = [
            torch.einsum("bnthwd,tkd->bnthwk", patches, time),
            torch.einsum("bnthwd,hkd->bnthwk", patches, height),
            torch.einsum("bnthwd,wkd->bnthwk", patches, width),
        ]
        return F.pad(torch.cat(terms, -1).flatten(2, 4), (0, 0, 1, 0))


def rows_between(table: Tensor, num_queries: int, num_keys: int) -> Tensor:
    """Rows of ``table`` by the distance of each query to each key on an axis: (queries, keys, D)."""
    table = resized_table(table, 2 * max(num_queries, num_keys) - 1)
    q_step, k_step = max(num_keys / num_queries, 1.0), max(num_queries / num_keys, 1.0)
    q_positions = torch.arange(num_queries, device=table.device)[:, None] * q_step
    k_positions = torch.arange(num_keys, device=table.device)[None] * k_step
    distances = q_positions - k_positions + (num_keys - 1) * k_step
    return table[distances.long()]


def resized_table(table: Tensor, num_rows: int) -> Tensor:
    """``table`` (rows, D), linearly interpolated to ``num_rows``."""
    return resize_time(table[None], num_rows)[0]


def key_marks(grid: Grid, like: Tensor) -> Tensor:
    """Three-hot rows of the tokens, a one at the position on each axis: (N, T + H + W).

    A query's terms times a key's row are the sum of the three terms of that key.
    """
    t, h, w = grid
    marks = like.new_zeros(t, h, w, t + h + w)
    marks[..., :t] = torch.eye(t, dtype=like.dtype, device=like.device)[:, None, None]
    marks[..., t : t + h] = torch.eye(h, dtype=like.dtype, device=like.device)[:, None]
    marks[..., t + h :] = torch.eye(w, dtype=like.dtype, device=like.device)
    return F.pad(marks.flatten(0, 2), (0, 0, 1, 0))


class PooledAttention(RecordableAttention):
    """Multi-head attention of tokens on a grid, with pooled keys and values and optionally pooled queries.

    Parameters: ``qkv`` (rows q, k, v; within each, head by head), ``pool_q``, ``pool_k``, ``pool_v``,
    ``relative`` and ``proj``.

    Shapes: (B, N, in) and its grid -> (B, N', out) and the grid of the queries.
    """

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        num_heads: int,
        *,
        q_kernel: Kernel | None,
        q_stride: int,
        kv_kernel: Kernel | None,
        kv_stride: int,
        residual: bool,
        relative_on: Grid | None,
        norm_eps: float,
    ) -> None:
        """Args:
        q_kernel, kv_kernel: kernels of the pooling; None: no pooling.
        q_stride, kv_stride: strides of the pooling in height and width.
        residual: add the pooled queries to the output, except for the class token.
        relative_on: grid of tokens for which relative positions are learned; None: no relative positions.
        norm_eps: epsilon of the norms after the pooling.
        """
        super().__init__()
        self.num_heads, self.residual = num_heads, residual
        head_dim = out_dim // num_heads
        self.qkv = nn.Linear(in_dim, 3 * out_dim)
        self.proj = nn.Linear(out_dim, out_dim)
        self.pool_q, self.pool_k, self.pool_v = (
            TokenPool(head_dim, kernel, stride, norm_eps=norm_eps) if kernel else None
            for kernel, stride in ((q_kernel, q_stride), (kv_kernel, kv_stride), (kv_kernel, kv_stride))
        )
        self.relative = (
            RelativePositions(
                head_dim, pooled_grid(relative_on, q_stride), pooled_grid(relative_on, kv_stride)
            )
            if relative_on
            else None
        )

    def forward(self, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
        qkv = self.qkv(x).unflatten(-1, (3, self.num_heads, -1))  # (B, N, 3, heads, D)
        q, k, v = qkv.movedim((2, 3), (0, 2))
        q, q_grid = self.pool_q(q, grid) if self.pool_q is not None else (q, grid)
        k, k_grid = self.pool_k(k, grid) if self.pool_k is not None else (k, grid)
        v, _ = self.pool_v(v, grid) if self.pool_v is not None else (v, grid)
        x = self._attend(q, k, v, q_grid, k_grid)
        if self.residual:
            x = x + F.pad(q[:, :, 1:], (0, 0, 1, 0))
        return self.proj(x.transpose(1, 2).flatten(2)), q_grid

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, q_grid: Grid, k_grid: Grid) -> Tensor:
        """Attention with the relative position terms as additional channels of queries and keys.

        So the N x N' bias is never stored and fused kernels can be used, some of which need as many channels
        in the values.
        """
        if self.relative is None:
            return self.attend(q, k, v)
        terms = self.relative(q, q_grid, k_grid)
        marks = key_marks(k_grid, k).expand(*k.shape[:2], -1, -1)
        head_dim, more = q.shape[-1], terms.shape[-1]
        scale = (head_dim + more) ** 0.5  # undoes the scale of `attend`: the terms are not scaled
        q = torch.cat([q * (scale * head_dim**-0.5), terms * scale], -1)
        return self.attend(q, torch.cat([k, marks], -1), F.pad(v, (0, more)))[..., :head_dim]


def pooled_grid(grid: Grid, stride: int) -> Grid:
    """The grid after pooling by ``stride`` in height and width, rounded up."""
    t, h, w = grid
    return t, -(-h // stride), -(-w // stride)
