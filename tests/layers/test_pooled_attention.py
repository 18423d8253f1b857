"""Pooled attention and relative positions against what they are by definition, written out in loops."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from saccade.layers import record_attention
from saccade.layers.pooled_attention import (
    PooledAttention,
    RelativePositions,
    TokenPool,
    key_marks,
    pooled_grid,
    resized_table,
    rows_between,
)

Grid = tuple[int, int, int]


def attention(
    *,
    grid: Grid,
    q_stride: int = 1,
    kv_stride: int = 2,
    residual: bool = True,
    relative: bool = True,
    heads: int = 2,
) -> PooledAttention:
    torch.manual_seed(0)
    layer = PooledAttention(
        6,
        4 * heads,
        heads,
        q_kernel=(3, 3, 3),
        q_stride=q_stride,
        kv_kernel=(3, 3, 3),
        kv_stride=kv_stride,
        residual=residual,
        relative_on=grid if relative else None,
        norm_eps=1e-6,
    ).double()
    for parameter in layer.parameters():
        nn.init.normal_(parameter, std=0.5)
    return layer


def pooled_by_hand(pool: TokenPool, x: Tensor, grid: Grid) -> tuple[Tensor, Grid]:
    """Each clip and each head alone, through PyTorch's own convolution: (B, heads, N, D)."""
    conv = nn.Conv3d(
        x.shape[-1],
        x.shape[-1],
        pool.conv.kernel_size,
        pool.conv.stride,
        pool.conv.padding,
        groups=x.shape[-1],
        bias=False,
    ).double()
    conv.weight = pool.conv.weight
    clips, new_grid = [], grid
    for clip in x:
        heads = []
        for head in clip:
            patches = conv(head[1:].t().reshape(1, -1, *grid))[0]
            new_grid = tuple(patches.shape[1:])
            heads.append(pool.norm(torch.cat([head[:1], patches.flatten(1).t()])))
        clips.append(torch.stack(heads))
    return torch.stack(clips), new_grid


def distance_row(table: Tensor, query: int, key: int, num_queries: int, num_keys: int) -> Tensor:
    """The row of one query and one key: their distance where the finer of both counts 1 a step.

    The farthest key behind has the first row. A table for another number of steps is stretched linearly.
    """
    wanted = 2 * max(num_queries, num_keys) - 1
    distance = query * max(num_keys / num_queries, 1) - key * max(num_queries / num_keys, 1)
    row = math.floor(distance + (num_keys - 1) * max(num_queries / num_keys, 1))
    place = min(max((row + 0.5) * len(table) / wanted - 0.5, 0.0), len(table) - 1.0)
    low = math.floor(place)
    high = min(low + 1, len(table) - 1)
    return table[low] * (1 - (place - low)) + table[high] * (place - low)


def positions(grid: Grid) -> list[Grid]:
    t, h, w = grid
    return [(a, b, c) for a in range(t) for b in range(h) for c in range(w)]


def attended_by_hand(layer: PooledAttention, x: Tensor, grid: Grid) -> tuple[Tensor, Tensor, Grid]:
    """One query at a time: output, weights and the grid."""
    parts = layer.qkv(x).reshape(*x.shape[:2], 3, layer.num_heads, -1).permute(2, 0, 3, 1, 4)
    assert layer.pool_q is not None
    assert layer.pool_k is not None
    assert layer.pool_v is not None
    q, q_grid = pooled_by_hand(layer.pool_q, parts[0], grid)
    k, k_grid = pooled_by_hand(layer.pool_k, parts[1], grid)
    v, _ = pooled_by_hand(layer.pool_v, parts[2], grid)
    b, heads, n, d = q.shape
    weights = torch.zeros(b, heads, n, k.shape[2], dtype=q.dtype)
    for clip in range(b):
        for head in range(heads):
            for i in range(n):
                scores = k[clip, head] @ q[clip, head, i] / math.sqrt(d)
                if layer.relative is not None and i > 0:
                    place = positions(q_grid)[i - 1]
                    for j, key_place in enumerate(positions(k_grid), start=1):
                        for axis, table in enumerate(
                            (layer.relative.time, layer.relative.height, layer.relative.width)
                        ):
                            row = distance_row(
                                table, place[axis], key_place[axis], q_grid[axis], k_grid[axis]
                            )
                            scores[j] = scores[j] + q[clip, head, i] @ row
                weights[clip, head, i] = scores.softmax(0)
    out = weights @ v
    if layer.residual:
        out[:, :, 1:] += q[:, :, 1:]
    return layer.proj(out.transpose(1, 2).reshape(b, n, -1)), weights, q_grid


CASES = [
    # built for, run on, stride of queries, of keys
    ((2, 4, 4), (2, 4, 4), 1, 2),
    ((2, 4, 4), (2, 4, 4), 2, 1),
    ((2, 4, 4), (2, 4, 4), 2, 4),
    ((2, 4, 4), (3, 3, 5), 1, 2),  # tables stretched, sizes that do not divide
    ((3, 6, 6), (1, 4, 2), 2, 1),  # tables shrunk
]


@pytest.mark.parametrize(("built_for", "grid", "q_stride", "kv_stride"), CASES)
@pytest.mark.parametrize("relative", [True, False])
@torch.no_grad()
def test_it_is_what_the_loops_give(
    built_for: Grid, grid: Grid, q_stride: int, kv_stride: int, relative: bool
) -> None:
    layer = attention(grid=built_for, q_stride=q_stride, kv_stride=kv_stride, relative=relative)
    x = torch.randn(2, 1 + grid[0] * grid[1] * grid[2], 6, dtype=torch.float64)
    output, q_grid = layer(x, grid)
    wanted, weights, wanted_grid = attended_by_hand(layer, x, grid)
    assert q_grid == wanted_grid == pooled_grid(grid, q_stride)
    torch.testing.assert_close(output, wanted, rtol=1e-10, atol=1e-10)
    with record_attention(layer) as records:
        recorded, _ = layer(x, grid)
    torch.testing.assert_close(recorded, wanted, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(records[""], weights, rtol=1e-10, atol=1e-10)


def test_gradients() -> None:
    layer = attention(grid=(1, 2, 2), kv_stride=2, heads=1)
    x = torch.randn(1, 5, 6, dtype=torch.float64, requires_grad=True)
    names, values = zip(*layer.named_parameters(), strict=True)

    def run(x: Tensor, *parameters: Tensor) -> Tensor:
        state = dict(zip(names, parameters, strict=True))
        output: Tensor = torch.func.functional_call(layer, state, (x, (1, 2, 2)))[0]
        return output

    assert torch.autograd.gradcheck(run, (x, *values), atol=1e-5, fast_mode=True)


def test_the_class_token_has_no_position() -> None:
    """Neither what it asks for nor how it is found depends on the tables."""
    positions = RelativePositions(4, (2, 3, 3), (2, 3, 3)).double()
    for table in positions.parameters():
        nn.init.normal_(table)
    q = torch.randn(1, 2, 19, 4, dtype=torch.float64)
    terms = positions(q, (2, 3, 3), (2, 3, 3)) @ key_marks((2, 3, 3), q).t()
    assert terms.shape == (1, 2, 19, 19)
    assert not terms[:, :, 0].any()
    assert not terms[:, :, :, 0].any()
    assert terms[:, :, 1:, 1:].all()


def test_rows_of_equal_lengths_are_distances() -> None:
    table = torch.arange(7.0)[:, None]
    rows = rows_between(table, 4, 4)[..., 0]
    assert rows.tolist() == [[3, 2, 1, 0], [4, 3, 2, 1], [5, 4, 3, 2], [6, 5, 4, 3]]
    coarse_keys = rows_between(table, 4, 2)[..., 0]  # a key is two queries wide
    assert coarse_keys.tolist() == [[2, 0], [3, 1], [4, 2], [5, 3]]


def test_a_table_of_the_same_length_is_itself() -> None:
    table = torch.randn(5, 3)
    assert torch.equal(resized_table(table, 5), table)
    assert resized_table(table, 9).shape == (9, 3)


def test_no_pooling_where_there_is_no_kernel() -> None:
    layer = PooledAttention(
        6,
        8,
        2,
        q_kernel=None,
        q_stride=1,
        kv_kernel=None,
        kv_stride=1,
        residual=False,
        relative_on=None,
        norm_eps=1e-6,
    )
    names = {name.partition(".")[0] for name, _ in layer.named_parameters()}
    assert names == {"qkv", "proj"}
    x = torch.randn(2, 9, 6)
    output, grid = layer(x, (2, 2, 2))
    assert (output.shape, grid) == ((2, 9, 8), (2, 2, 2))
    q, k, v = layer.qkv(x).reshape(2, 9, 3, 2, 4).permute(2, 0, 3, 1, 4)
    plain = ((q @ k.transpose(2, 3)) / 2).softmax(-1) @ v
    torch.testing.assert_close(output, layer.proj(plain.transpose(1, 2).reshape(2, 9, 8)))


@pytest.mark.parametrize("relative", [True, False])
def test_bfloat16_under_autocast(relative: bool) -> None:
    layer = attention(grid=(2, 4, 4), relative=relative).float()
    x = torch.randn(2, 33, 6)
    with torch.autocast("cpu", torch.bfloat16):
        output, _ = layer(x, (2, 4, 4))
    output.float().sum().backward()
    exact, _ = layer(x, (2, 4, 4))
    assert (output.float() - exact).norm() < 0.05 * exact.norm()
