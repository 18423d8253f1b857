"""The four passes over memory on a GPU, in Triton; triton.py makes the operator of them.

Big tensors are as native.py says; the small ones are (B, C), contiguous, float32. Sums over nothing are 0.

A program takes one tile of a clip: BLOCK_S positions by BLOCK_C channels (channels-last), or BLOCK_S
positions of one channel (contiguous). Sums are float32: within a tile, then over the tiles of a clip,
always in one order, so that the same input gives the same bits. Nothing is tuned at run time, since tiles
are part of that order.

Shape letters: B clips, C channels, S positions of a clip.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

TILE = 4096  # values: 16 for each thread of eight warps


def row_stats(x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean over T, H, W of every clip and channel, and the sum of squared distances from it, each (B, C).

    Sound for values far from zero: no difference of large sums of squares.
    """
    mean, m2 = _vector(x), _vector(x)
    if not x.numel():
        return mean.zero_(), m2.zero_()
    tiles = _Tiles(x)
    partial = allocate(mean, (2, x.shape[0], tiles.per_row, x.shape[1]))
    with torch.cuda.device_of(x):
        _tile_stats[tiles.grid](x, partial, partial[1], **tiles.constants)
        block = min(16, triton.next_power_of_2(x.shape[1]))
        block_t = min(256, triton.next_power_of_2(tiles.per_row))
        _merge_stats[(x.shape[0] * triton.cdiv(x.shape[1], block),)](
            *(partial, partial[1], mean, m2, x.shape[1], tiles.size, tiles.per_row),
            TILE_S=tiles.constants["BLOCK_S"],
            BLOCK_T=block_t,
            BLOCK_C=block,
            STEPS=triton.cdiv(tiles.per_row, block_t),
        )
    return mean, m2


def affine_act(x: Tensor, scale: Tensor, shift: Tensor, residual: Tensor | None, activation: str) -> Tensor:
    """act(scale * x + shift + residual), with scale and shift per clip and channel."""
    y = allocate(x)
    if x.numel():
        tiles = _Tiles(x)
        with torch.cuda.device_of(x):
            _affine_act[tiles.grid](
                *(x, x if residual is None else residual, scale, shift, y),
                HAS_RESIDUAL=residual is not None,
                ACTIVATION=activation,
                **tiles.constants,
            )
    return y


def affine_act_reduce(
    grad_y: Tensor,
    x: Tensor,
    extra: Tensor | None,
    scale: Tensor,
    shift: Tensor,
    center: Tensor,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The sums that the gradient needs.

    With u = scale * x + shift (+ residual) and g = grad_y * act'(u), per clip and channel over T, H, W:
    (sum of g, sum of g * (x - center), and g itself where ``extra`` is given, else None).

    Args:
        extra: as in `native.backward`.
        center: subtracted from x before it is multiplied, so that a large common offset costs no digits.
    """
    g = allocate(x) if extra is not None else None
    if not x.numel():
        return _vector(x).zero_(), _vector(x).zero_(), g
    tiles = _Tiles(x)
    partial = allocate(scale, (2, x.shape[0], tiles.per_row, x.shape[1]))
    with torch.cuda.device_of(x):
        _reduce[tiles.grid](
            *(grad_y, x, x if extra is None else extra, scale, shift, center),
            *(partial, partial[1], x if g is None else g),
            HAS_EXTRA=extra is not None,
            ACTIVATION=activation,
            **tiles.constants,
        )
        sums = partial.sum(2)
    return sums[0], sums[1], g


def affine_act_backward(
    grad_y: Tensor,
    x: Tensor,
    scale: Tensor,
    shift: Tensor,
    p: Tensor,
    q: Tensor,
    r: Tensor,
    activation: str,
) -> Tensor:
    """p * g + q + r * x, with g = grad_y * act'(scale * x + shift) and p, q, r per clip and channel.

    There is no residual here: with one, g comes out of `affine_act_reduce` and goes in as ``grad_y`` with the
    activation "none" (for which ``scale`` and ``shift`` are not looked at).
    """
    grad_x = allocate(x)
    if x.numel():
        tiles = _Tiles(x)
        with torch.cuda.device_of(x):
            _affine_act_backward[tiles.grid](
                *(grad_y, x, scale, shift, p, q, r, grad_x), ACTIVATION=activation, **tiles.constants
            )
    return grad_x


def allocate(like: Tensor, shape: tuple[int, ...] | None = None) -> Tensor:
    """Memory that nothing has written, in the layout of ``like`` or contiguous; tests fill it with NaN."""
    return torch.empty_like(like) if shape is None else like.new_empty(shape)


def _vector(x: Tensor) -> Tensor:
    return allocate(x.new_empty(0, dtype=torch.float32), (x.shape[0], x.shape[1]))


class _Tiles:
    """How a tensor is cut.

    Attributes:
        size: S; per_row: tiles along it; grid: the programs; constants: by which kernels find their tile.
    """

    def __init__(self, x: Tensor) -> None:
        batch, channels, *axes = x.shape
        self.size = axes[0] * axes[1] * axes[2]
        channels_last = x.is_contiguous(memory_format=torch.channels_last_3d)
        block_c = 1
        if channels_last:  # 64 or 32 channels, whichever leaves less of the last tile empty
            narrow, wide = triton.cdiv(channels, 32) * 32, triton.cdiv(channels, 64) * 64
            block_c = min(64 if wide == narrow else 32, triton.next_power_of_2(channels))
        block_s = min(TILE // block_c, triton.next_power_of_2(self.size))
        self.per_row = triton.cdiv(self.size, block_s)
        self.grid = (batch * self.per_row * triton.cdiv(channels, block_c),)
        self.constants = {
            "S": self.size,
            "C": channels,
            "CHANNELS_LAST": channels_last,
            "BLOCK_S": block_s,
            "BLOCK_C": block_c,
            "num_warps": max(1, min(8, block_s * block_c // 512)),
        }


# ---------------------------------------------------------------------------------------------- the kernels


@triton.jit
def _tile(S, C: tl.constexpr, CHANNELS_LAST: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_C: tl.constexpr):
    """This program's tile: offsets and mask of its values, (BLOCK_S, BLOCK_C); offsets of its channels in a
    (B, C) tensor and in a (B, tiles, C) one, and their mask; how many positions it has."""
    c_blocks: tl.constexpr = (C + BLOCK_C - 1) // BLOCK_C
    tiles = tl.cdiv(S, BLOCK_S)
    c = tl.program_id(0) % c_blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    row = tl.program_id(0) // c_blocks
    b = (row // tiles).to(tl.int64)
    first = row % tiles * BLOCK_S
    s = first + tl.arange(0, BLOCK_S)
    if CHANNELS_LAST:
        offsets = (b * S + s)[:, None] * C + c[None, :]
    else:
        offsets = (b * C + c)[None, :] * S + s[:, None]
    known = c < C
    mask = (s < S)[:, None] & known[None, :]
    return offsets, mask, b * C + c, row.to(tl.int64) * C + c, known, tl.minimum(S - first, BLOCK_S)


@triton.jit
def _row(pointer, offsets, mask):
    return tl.load(pointer + offsets, mask=mask, other=0.0)[None, :]


@triton.jit
def _values(pointer, offsets, mask):
    return tl.load(pointer + offsets, mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _slope(u, ACTIVATION: tl.constexpr):
    """The activation's derivative at u."""
    if ACTIVATION == "relu":
        slope = tl.where(u <= 0.0, 0.0, 1.0)
    else:
        s = tl.sigmoid(u)
        slope = s * (1.0 + u * (1.0 - s))
    return slope


@triton.jit
def _tile_stats(
    x, means, m2s, S, C: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    offsets, mask, _, in_tiles, known, count = _tile(S, C, CHANNELS_LAST, BLOCK_S, BLOCK_C)
    values = _values(x, offsets, mask)
    mean = tl.sum(values, axis=0) / count
    distance = tl.where(mask, values - mean[None, :], 0.0)
    tl.store(means + in_tiles, mean, mask=known)
    tl.store(m2s + in_tiles, tl.sum(distance * distance, axis=0), mask=known)


@triton.jit
def _merge_stats(
    means, m2s, mean_out, m2_out, C, S, tiles,
    TILE_S: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_C: tl.constexpr, STEPS: tl.constexpr,
):  # fmt: skip
    """The statistics of a clip from its tiles: the mean first, then the squared deviations."""
    c_blocks = tl.cdiv(C, BLOCK_C)
    b = (tl.program_id(0) // c_blocks).to(tl.int64)
    c = tl.program_id(0) % c_blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    known = c < C
    total = tl.zeros((BLOCK_T, BLOCK_C), dtype=tl.float32)
    for step in range(STEPS):
        tile = step * BLOCK_T + tl.arange(0, BLOCK_T)
        offsets, mask = (b * tiles + tile)[:, None] * C + c[None, :], (tile < tiles)[:, None] & known[None, :]
        count = tl.minimum(S - tile * TILE_S, TILE_S)[:, None]
        total += tl.where(mask, count * _values(means, offsets, mask), 0.0)
    mean = tl.sum(total, axis=0) / S
    total = tl.zeros((BLOCK_T, BLOCK_C), dtype=tl.float32)
    for step in range(STEPS):
        tile = step * BLOCK_T + tl.arange(0, BLOCK_T)
        offsets, mask = (b * tiles + tile)[:, None] * C + c[None, :], (tile < tiles)[:, None] & known[None, :]
        count = tl.minimum(S - tile * TILE_S, TILE_S)[:, None]
        distance = _values(means, offsets, mask) - mean[None, :]
        total += tl.where(mask, _values(m2s, offsets, mask) + count * (distance * distance), 0.0)
    tl.store(mean_out + b * C + c, mean, mask=known)
    tl.store(m2_out + b * C + c, tl.sum(total, axis=0), mask=known)


@triton.jit
def _affine_act(
    x, residual, scale, shift, y, S, C: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_C: tl.constexpr,
    HAS_RESIDUAL: tl.constexpr, ACTIVATION: tl.constexpr,
):  # fmt: skip
    offsets, mask, in_row, _, known, _ = _tile(S, C, CHANNELS_LAST, BLOCK_S, BLOCK_C)
    u = _row(scale, in_row, known) * _values(x, offsets, mask) + _row(shift, in_row, known)
    if HAS_RESIDUAL:
        u += _values(residual, offsets, mask)
    if ACTIVATION == "relu":
        u = tl.where(u <= 0.0, 0.0, u)  # unlike a maximum this leaves NaN
    if ACTIVATION == "silu":
        u = u * tl.sigmoid(u)
    tl.store(y + offsets, u.to(y.dtype.element_ty), mask=mask)


@triton.jit
def _reduce(
    grad_y, x, extra, scale, shift, center, sums_g, sums_gx, g_out, S, C: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_C: tl.constexpr,
    HAS_EXTRA: tl.constexpr, ACTIVATION: tl.constexpr,
):  # fmt: skip
    offsets, mask, in_row, in_tiles, known, _ = _tile(S, C, CHANNELS_LAST, BLOCK_S, BLOCK_C)
    g = _values(grad_y, offsets, mask)
    values = _values(x, offsets, mask)
    if ACTIVATION == "relu" and HAS_EXTRA:
        g = tl.where(_values(extra, offsets, mask) <= 0.0, 0.0, g)
    elif ACTIVATION != "none":
        u = _row(scale, in_row, known) * values + _row(shift, in_row, known)
        if HAS_EXTRA:
            u += _values(extra, offsets, mask)
        g *= _slope(u, ACTIVATION)
    if HAS_EXTRA:
        tl.store(g_out + offsets, g.to(g_out.dtype.element_ty), mask=mask)
    product = g * tl.where(mask, values - _row(center, in_row, known), 0.0)
    tl.store(sums_g + in_tiles, tl.sum(g, axis=0), mask=known)
    tl.store(sums_gx + in_tiles, tl.sum(product, axis=0), mask=known)


@triton.jit
def _affine_act_backward(
    grad_y, x, scale, shift, p, q, r, grad_x, S, C: tl.constexpr,
    CHANNELS_LAST: tl.constexpr, BLOCK_S: tl.constexpr, BLOCK_C: tl.constexpr, ACTIVATION: tl.constexpr,
):  # fmt: skip
    offsets, mask, in_row, _, known, _ = _tile(S, C, CHANNELS_LAST, BLOCK_S, BLOCK_C)
    g = _values(grad_y, offsets, mask)
    values = _values(x, offsets, mask)
    if ACTIVATION != "none":
        g *= _slope(_row(scale, in_row, known) * values + _row(shift, in_row, known), ACTIVATION)
    out = _row(p, in_row, known) * g + _row(q, in_row, known) + _row(r, in_row, known) * values
    tl.store(grad_x + offsets, out.to(grad_x.dtype.element_ty), mask=mask)
