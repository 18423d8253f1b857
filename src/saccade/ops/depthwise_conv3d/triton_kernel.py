"""The depthwise convolution on a GPU, in Triton; functions like those of native.py; channels-last-3d
memory.

A program computes a brick of positions (BT frames, BH rows, BW columns) by BLOCK_C channels. A brick reads
little more than it holds, and what neighbouring taps read again comes from the cache: a tap is one masked
load. All is summed in float32, tap after tap, in an order that no tuning changes; the weight gradient is
summed within a brick, then over the bricks in their order. So the same input gives the same bits.

Shape letters: B clips, C channels, T H W sizes of the input, OT OH OW sizes of the output; KT KH KW, ST SH
SW and PT PH PW are kernel, stride and padding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from saccade.ops._backend import interpreting
from saccade.ops.depthwise_conv3d.naive import output_size

# 4 to 16 values for each thread: with 32 the compiler runs out of registers. The tuner times them all once
# for each kind of layer; in the interpreter there is nothing to tune.
BRICKS = [
    triton.Config({"BT": 1, "BH": 8, "BW": 8}, num_warps=8),
    triton.Config({"BT": 4, "BH": 4, "BW": 4}, num_warps=8),
    triton.Config({"BT": 1, "BH": 4, "BW": 8}, num_warps=8),
]
_tune = triton.autotune(
    configs=BRICKS[:1] if interpreting() else BRICKS,
    key=["C", "KT", "KH", "KW", "ST", "SH", "SW", "size_class"],
)
# Sizes change from batch to batch when training in many shapes: a kernel serves them all.
_jit = triton.jit(do_not_specialize=["T", "H", "W", "OT", "OH", "OW", "size_class"])


def forward(
    x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], causal: bool = False
) -> Tensor:
    """x (B, C, T, H, W), weight (C, 1, KT, KH, KW); the output is channels-last-3d."""
    x = x.contiguous(memory_format=torch.channels_last_3d)
    kernel = weight.shape[2:]
    size = output_size(x.shape[2:], kernel, stride, padding, causal)
    y = allocate(x, (*x.shape[:2], *size))
    if y.numel():
        with torch.cuda.device_of(x):
            _forward[_grid(y)](
                *(x, _by_tap(weight), y, *x.shape[2:], *size, _size_class(y)),
                **_constants(x.shape[1], kernel, stride, padding),
            )
    return y


def backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    need_input: bool,
    need_weight: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of x (channels-last-3d) and of the weight, each or both."""
    grad = grad.contiguous(memory_format=torch.channels_last_3d)
    with torch.cuda.device_of(x):
        return (
            _grad_input(grad, x, weight, stride, padding) if need_input else None,
            _grad_weight(grad, x, weight, stride, padding) if need_weight else None,
        )


def allocate(like: Tensor, shape: Sequence[int]) -> Tensor:
    """Memory that nothing has written, of the type and device of ``like``; tests fill it with NaN."""
    layout = torch.channels_last_3d if len(shape) == 5 else torch.contiguous_format
    return torch.empty(tuple(shape), dtype=like.dtype, device=like.device, memory_format=layout)


def _grad_input(
    grad: Tensor, x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int]
) -> Tensor:
    grad_x = allocate(x, x.shape)
    if not grad.numel():
        return grad_x.zero_()
    channels, kernel, size_in, size_out = x.shape[1], weight.shape[2:], x.shape[2:], grad.shape[2:]
    if all(step == 1 for step in stride):  # again a convolution, with the taps in reverse
        full = [k - 1 - p for k, p in zip(kernel, padding, strict=True)]
        _forward[_grid(grad_x)](
            *(grad, _by_tap(weight).flip(0), grad_x, *size_out, *size_in, _size_class(grad_x)),
            **_constants(channels, kernel, stride, full),
        )
    else:
        _input_gradient[_grid(grad_x)](
            *(grad, _by_tap(weight), grad_x, *size_in, *size_out, _size_class(grad_x)),
            **_constants(channels, kernel, stride, padding),
        )
    return grad_x


def _grad_weight(
    grad: Tensor, x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int]
) -> Tensor:
    if not grad.numel():
        return weight.new_zeros(weight.shape)
    x = x.contiguous(memory_format=torch.channels_last_3d)
    batch, channels, *size = grad.shape
    constants = _constants(channels, weight.shape[2:], stride, padding)
    # No tuning: the brick is part of the order of summation.
    wide = constants["BLOCK_C"] > 32
    shape = {"BT": 2 if wide else 4, "BH": 8, "BW": 8}
    num_bricks = batch * _bricks(size, shape)
    taps = weight[0].numel()
    partial = allocate(weight.new_empty(0, dtype=torch.float32), (num_bricks, taps, channels))
    _weight_gradient[(num_bricks * triton.cdiv(channels, constants["BLOCK_C"]),)](
        *(grad, x, partial, *x.shape[2:], *size), **constants, **shape, num_warps=16 if wide else 8
    )
    return partial.sum(0).T.contiguous().view(weight.shape).to(weight.dtype)


def _by_tap(weight: Tensor) -> Tensor:
    """(KT * KH * KW, C) in float32: neighbouring channels, as the kernels read them, side by side."""
    by_tap = weight.new_empty((weight[0].numel(), weight.shape[0]), dtype=torch.float32)
    return by_tap.copy_(weight.flatten(1).T)


def _constants(
    channels: int, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> dict[str, int]:
    # The number of channels is a constant because the compiler derives the alignment of addresses from it.
    narrow, wide = triton.cdiv(channels, 32) * 32, triton.cdiv(channels, 64) * 64
    constants = {
        "C": channels,
        "BLOCK_C": min(64 if wide == narrow else 32, triton.next_power_of_2(channels)),
    }
    for letter, values in zip("KSP", (kernel, stride, padding), strict=True):
        constants |= {letter + axis: int(value) for axis, value in zip("THW", values, strict=True)}
    return constants


def _grid(out: Tensor) -> Callable[[dict[str, int]], tuple[int]]:
    batch, channels, *size = out.shape
    return lambda meta: (batch * _bricks(size, meta) * triton.cdiv(channels, meta["BLOCK_C"]),)


def _bricks(size: Sequence[int], shape: dict[str, int]) -> int:
    t, h, w = (triton.cdiv(n, shape[axis]) for n, axis in zip(size, ("BT", "BH", "BW"), strict=True))
    return t * h * w


def _size_class(out: Tensor) -> int:
    """What the best brick may depend on, coarsely, so that few sizes are tuned for."""
    return triton.next_power_of_2(out.shape[3]) * (2 if out.shape[2] > 2 else 1)


# ---------------------------------------------------------------------------------------------- the kernels


@triton.jit
def _brick(
    OT, OH, OW, C: tl.constexpr, BLOCK_C: tl.constexpr, BT: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr
):
    """This program's brick of a tensor (B, OT, OH, OW, C): its number, clip, positions and channels."""
    c_blocks: tl.constexpr = (C + BLOCK_C - 1) // BLOCK_C
    index = tl.program_id(0) // c_blocks
    c = tl.program_id(0) % c_blocks * BLOCK_C + tl.arange(0, BLOCK_C)
    blocks_t, blocks_h, blocks_w = tl.cdiv(OT, BT), tl.cdiv(OH, BH), tl.cdiv(OW, BW)
    position = tl.arange(0, BT * BH * BW)
    w = index % blocks_w * BW + position % BW
    h = index // blocks_w % blocks_h * BH + position // BW % BH
    t = index // (blocks_w * blocks_h) % blocks_t * BT + position // (BH * BW)
    n = index // (blocks_w * blocks_h * blocks_t)
    return index.to(tl.int64), n.to(tl.int64), t, h, w, c


@_tune
@_jit
def _forward(
    x, weight, y, T, H, W, OT, OH, OW, size_class,
    C: tl.constexpr, BLOCK_C: tl.constexpr, BT: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr,
    KT: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    ST: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    PT: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
):  # fmt: skip
    _, n, t, h, w, c = _brick(OT, OH, OW, C, BLOCK_C, BT, BH, BW)
    inside = (t < OT) & (h < OH) & (w < OW)
    channel = (c < C)[None, :]
    first_t, first_h, first_w = t * ST - PT, h * SH - PH, w * SW - PW
    first = x + (((n * T + first_t) * H + first_h) * W + first_w)[:, None] * C + c[None, :]
    total = tl.zeros((BT * BH * BW, BLOCK_C), dtype=tl.float32)
    for i in tl.static_range(KT):
        known_t = inside & (first_t + i >= 0) & (first_t + i < T)
        for j in tl.static_range(KH):
            known_h = known_t & (first_h + j >= 0) & (first_h + j < H)
            row = first + (i * H.to(tl.int64) + j) * W * C
            for k in tl.static_range(KW):
                known = known_h & (first_w + k >= 0) & (first_w + k < W)
                value = tl.load(row + k * C, mask=known[:, None] & channel, other=0.0)
                factor = tl.load(weight + ((i * KH + j) * KW + k) * C + c, mask=c < C, other=0.0)
                total += value.to(tl.float32) * factor[None, :]
    out = y + (((n * OT + t) * OH + h) * OW + w)[:, None] * C + c[None, :]
    tl.store(out, total.to(y.dtype.element_ty), mask=inside[:, None] & channel)


@triton.jit
def _output_of(position, stride: tl.constexpr, size):
    """The output whose window begins at ``position``, and whether there is one."""
    exists = (position >= 0) & (position < size * stride)
    if stride > 1:
        exists = exists & (position % stride == 0)
    return position // stride, exists


@_tune
@_jit
def _input_gradient(
    grad, weight, grad_x, T, H, W, OT, OH, OW, size_class,
    C: tl.constexpr, BLOCK_C: tl.constexpr, BT: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr,
    KT: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    ST: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    PT: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
):  # fmt: skip
    """With strides: every input gathers from the outputs that read it, at most one for each tap."""
    _, n, t, h, w, c = _brick(T, H, W, C, BLOCK_C, BT, BH, BW)
    inside = (t < T) & (h < H) & (w < W)
    channel = (c < C)[None, :]
    total = tl.zeros((BT * BH * BW, BLOCK_C), dtype=tl.float32)
    for i in tl.static_range(KT):
        out_t, exists = _output_of(t + PT - i, ST, OT)
        known_t = inside & exists
        for j in tl.static_range(KH):
            out_h, exists = _output_of(h + PH - j, SH, OH)
            known_h = known_t & exists
            for k in tl.static_range(KW):
                out_w, exists = _output_of(w + PW - k, SW, OW)
                known = known_h & exists
                source = ((n * OT + out_t) * OH + out_h) * OW + out_w
                pointer = grad + source[:, None] * C + c[None, :]
                value = tl.load(pointer, mask=known[:, None] & channel, other=0.0)
                factor = tl.load(weight + ((i * KH + j) * KW + k) * C + c, mask=c < C, other=0.0)
                total += value.to(tl.float32) * factor[None, :]
    out = grad_x + (((n * T + t) * H + h) * W + w)[:, None] * C + c[None, :]
    tl.store(out, total.to(grad_x.dtype.element_ty), mask=inside[:, None] & channel)


@_jit
def _weight_gradient(
    grad, x, partial, T, H, W, OT, OH, OW,
    C: tl.constexpr, BLOCK_C: tl.constexpr, BT: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr,
    KT: tl.constexpr, KH: tl.constexpr, KW: tl.constexpr,
    ST: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    PT: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
):  # fmt: skip
    """A brick of the output's gradient stays in registers; each tap multiplies it by its own view of x."""
    index, n, t, h, w, c = _brick(OT, OH, OW, C, BLOCK_C, BT, BH, BW)
    inside = (t < OT) & (h < OH) & (w < OW)
    channel = (c < C)[None, :]
    pointer = grad + (((n * OT + t) * OH + h) * OW + w)[:, None] * C + c[None, :]
    upstream = tl.load(pointer, mask=inside[:, None] & channel, other=0.0).to(tl.float32)
    first_t, first_h, first_w = t * ST - PT, h * SH - PH, w * SW - PW
    first = x + (((n * T + first_t) * H + first_h) * W + first_w)[:, None] * C + c[None, :]
    for i in tl.static_range(KT):
        known_t = inside & (first_t + i >= 0) & (first_t + i < T)
        for j in tl.static_range(KH):
            known_h = known_t & (first_h + j >= 0) & (first_h + j < H)
            row = first + (i * H.to(tl.int64) + j) * W * C
            for k in tl.static_range(KW):
                known = known_h & (first_w + k >= 0) & (first_w + k < W)
                value = tl.load(row + k * C, mask=known[:, None] & channel, other=0.0)
                total = tl.sum(value.to(tl.float32) * upstream, axis=0)
                tap = (i * KH + j) * KW + k
                tl.store(partial + (index * (KT * KH * KW) + tap) * C + c, total, mask=c < C)
