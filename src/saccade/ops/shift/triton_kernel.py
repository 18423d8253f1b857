"""The shift on a GPU, in Triton; the same functions as native.py, on contiguous memory.

A program takes one channel of one clip and up to 512 positions of its frames, and goes through the frames
in order. A channel has one shift, so all weights and offsets are single numbers, and the blend of a frame's
four neighbours serves two outputs: as the later frame of one and the earlier frame of the next.

Sums are float32. The shift's gradient is summed along the frames, within a program, and at last over the
programs, always in one order: the same input gives the same bits.

Shape letters: B clips, C channels, T H W sizes of the input, OT OH OW sizes of the output; ST SH SW and PT
PH PW are stride and padding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from saccade.ops.shift.naive import output_size

# Heights and widths change from batch to batch when training in many shapes: a kernel serves them all.
_jit = triton.jit(do_not_specialize=["C", "H", "W", "OH", "OW"])


def forward(
    x: Tensor, shift: Tensor, stride: Sequence[int], padding: Sequence[int], quantize: bool
) -> Tensor:
    """x (B, C, T, H, W), shift (3, C) in float32; the output is contiguous."""
    x, shift = x.contiguous(), shift.contiguous()
    size = output_size(x.shape[2:], stride, padding)
    out = allocate(x, (*x.shape[:2], *size))
    if out.numel():
        block, blocks, num_warps = _blocks(size)
        with torch.cuda.device_of(x):
            _forward[(x.shape[0] * x.shape[1] * blocks,)](
                *(x, shift, out, x.shape[1], *x.shape[3:], *size[1:]),
                **_constants(x.shape[2], size[0], stride, padding),
                QUANTIZE=quantize,
                BLOCK=block,
                num_warps=num_warps,
            )
    return out


def backward(
    grad: Tensor,
    x: Tensor | None,
    shift: Tensor,
    in_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    quantize: bool,
    need_input: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of x, (T, H, W) = ``in_size``, and, if x is given, of the shift."""
    grad, shift = grad.contiguous(), shift.contiguous()
    grad_x = allocate(grad, (*grad.shape[:2], *in_size)) if need_input else None
    if not grad.numel():
        return None if grad_x is None else grad_x.zero_(), None if x is None else torch.zeros_like(shift)
    size_in, size_out = list(in_size), list(grad.shape[2:])
    x = None if x is None else x.contiguous()
    if need_input and x is not None and size_in == size_out:  # one pass over the gradient for both
        return grad_x, _launch_backward(grad, x, shift, grad_x, size_in, size_out, stride, padding, quantize)
    grad_shift = None
    if need_input:
        _launch_backward(grad, None, shift, grad_x, size_in, size_out, stride, padding, quantize)
    if x is not None:
        grad_shift = _launch_backward(grad, x, shift, None, size_in, size_out, stride, padding, quantize)
    return grad_x, grad_shift


def allocate(like: Tensor, shape: Sequence[int]) -> Tensor:
    """Contiguous memory that nothing has written; tests fill it with NaN."""
    return like.new_empty(shape)


def _launch_backward(
    grad: Tensor,
    x: Tensor | None,
    shift: Tensor,
    grad_x: Tensor | None,
    size_in: list[int],
    size_out: list[int],
    stride: Sequence[int],
    padding: Sequence[int],
    quantize: bool,
) -> Tensor | None:
    """Fill ``grad_x`` if given; return the shift's gradient if ``x`` is given."""
    batch, channels = grad.shape[:2]
    block, blocks, num_warps = _blocks(size_out if grad_x is None else size_in)
    partial = allocate(shift, (batch, blocks, 3, channels)) if x is not None else None
    with torch.cuda.device_of(grad):
        _backward[(batch * channels * blocks,)](
            *(grad, grad if x is None else x, shift),
            *(grad if grad_x is None else grad_x, shift if partial is None else partial),
            *(channels, *size_in[1:], *size_out[1:]),
            **_constants(size_in[0], size_out[0], stride, padding),
            QUANTIZE=quantize,
            NEED_INPUT=grad_x is not None,
            NEED_SHIFT=x is not None,
            BLOCK=block,
            num_warps=num_warps,
        )
        return None if partial is None else partial.flatten(0, 1).sum(0)


def _blocks(size: Sequence[int]) -> tuple[int, int, int]:
    """Positions a program takes of a frame, programs to a channel, and warps to a program.

    A fixed choice: the blocks are part of the order of summation.
    """
    positions = size[1] * size[2]
    block = min(512, triton.next_power_of_2(positions))
    return block, triton.cdiv(positions, block), max(1, block // 128)


def _constants(
    frames_in: int, frames_out: int, stride: Sequence[int], padding: Sequence[int]
) -> dict[str, int]:
    return {"T": frames_in, "OT": frames_out} | {
        letter + axis: int(value)
        for letter, values in (("S", stride), ("P", padding))
        for axis, value in zip("THW", values, strict=True)
    }


# ---------------------------------------------------------------------------------------------- the kernels


@triton.jit
def _split(shift, far, QUANTIZE: tl.constexpr):
    """A shift as a whole number, cut off at ``far`` (from there on nothing is inside), and a fraction."""
    floor = tl.floor(shift)
    fraction = shift - floor
    if QUANTIZE:
        floor = tl.where(fraction >= 0.5, floor + 1.0, floor)
    floor = tl.where(floor == floor, floor, 0.0)
    far *= 1.0
    return tl.minimum(tl.maximum(floor, -far), far).to(tl.int32), fraction


@triton.jit
def _shifts(
    shift, c, C, T, H, W, OT, OH, OW,
    ST: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    PT: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr, QUANTIZE: tl.constexpr,
):  # fmt: skip
    """The three shifts of channel ``c``: whole parts, then fractions."""
    ft, rt = _split(tl.load(shift + c), T + OT * ST + PT, QUANTIZE)
    fh, rh = _split(tl.load(shift + C + c), H + OH * SH + PH, QUANTIZE)
    fw, rw = _split(tl.load(shift + 2 * C + c), W + OW * SW + PW, QUANTIZE)
    return ft, fh, fw, rt, rh, rw


@triton.jit
def _divide(position, stride: tl.constexpr, size):
    """position / stride, and whether that is a whole number in [0, size)."""
    exists = (position >= 0) & (position < size * stride)
    if stride > 1:
        exists = exists & (position % stride == 0)
    return position // stride, exists


@triton.jit
def _all_if(exists, known):
    # what "known & exists" says; of that the interpreter of Triton 3.9 makes numbers, which are no mask
    return tl.where(exists, known, False)


@triton.jit
def _four(
    base, t, T, row, H, column, W, inside,
    step: tl.constexpr, ST: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
):  # fmt: skip
    """What frame t / ST has at (row, row + step) / SH and (column, column + step) / SW; zeros outside."""
    t, exists = _divide(t, ST, T)
    row_1, known_1 = _divide(row, SH, H)
    row_2, known_2 = _divide(row + step, SH, H)
    column_1, known_3 = _divide(column, SW, W)
    column_2, known_4 = _divide(column + step, SW, W)
    frame = base + t * (H.to(tl.int64) * W)
    known_1, known_2 = _all_if(exists, known_1 & inside), _all_if(exists, known_2 & inside)
    a = tl.load(frame + row_1 * W + column_1, mask=known_1 & known_3, other=0.0).to(tl.float32)
    b = tl.load(frame + row_1 * W + column_2, mask=known_1 & known_4, other=0.0).to(tl.float32)
    c = tl.load(frame + row_2 * W + column_1, mask=known_2 & known_3, other=0.0).to(tl.float32)
    d = tl.load(frame + row_2 * W + column_2, mask=known_2 & known_4, other=0.0).to(tl.float32)
    return a, b, c, d


@triton.jit
def _blend(first, second, fraction):
    return (1.0 - fraction) * first + fraction * second


@triton.jit
def _blend_frame(
    base, t, T, row, H, column, W, inside, rh, rw,
    step: tl.constexpr, ST: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
):  # fmt: skip
    a, b, c, d = _four(base, t, T, row, H, column, W, inside, step, ST, SH, SW)
    return _blend(_blend(a, b, rw), _blend(c, d, rw), rh)


@triton.jit
def _slopes(base, t, T, row, H, column, W, inside, rh, rw):
    """The blend of a frame, and its derivatives along the rows and along the columns."""
    a, b, c, d = _four(base, t, T, row, H, column, W, inside, 1, 1, 1, 1)
    upper, lower = _blend(a, b, rw), _blend(c, d, rw)
    return _blend(upper, lower, rh), lower - upper, _blend(b - a, d - c, rh)


@triton.jit
def _place(H, W, BLOCK: tl.constexpr):
    """This program's channel of a clip, its positions in every frame, and which of them are none."""
    blocks = tl.cdiv(H * W, BLOCK)
    position = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    return tl.program_id(0) // blocks, tl.program_id(0) % blocks, position, position < H * W


@_jit
def _forward(
    x, shift, out, C, H, W, OH, OW, T: tl.constexpr, OT: tl.constexpr,
    ST: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    PT: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
    QUANTIZE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    plane, _, position, inside = _place(OH, OW, BLOCK)
    ft, fh, fw, rt, rh, rw = _shifts(
        shift, plane % C, C, T, H, W, OT, OH, OW, ST, SH, SW, PT, PH, PW, QUANTIZE
    )
    row = position // OW * SH - PH + fh
    column = position % OW * SW - PW + fw
    x += plane.to(tl.int64) * T * H * W
    out += plane.to(tl.int64) * OT * OH * OW + position
    first = ft - PT

    if QUANTIZE:
        known = inside & (row >= 0) & (row < H) & (column >= 0) & (column < W)
        x += row * W + column
        for t in range(OT):
            source, exists = _divide(first + t * ST, 1, T)
            pointer = x + source * (H.to(tl.int64) * W)
            value = tl.load(pointer, mask=_all_if(exists, known), other=0.0)
            tl.store(out + t * (OH.to(tl.int64) * OW), value, mask=inside)
    else:
        near = _blend_frame(x, first, T, row, H, column, W, inside, rh, rw, 1, 1, 1, 1)
        for t in range(OT):
            source = first + t * ST
            if ST > 1:  # else this was the later frame of the output before
                near = _blend_frame(x, source, T, row, H, column, W, inside, rh, rw, 1, 1, 1, 1)
            later = _blend_frame(x, source + 1, T, row, H, column, W, inside, rh, rw, 1, 1, 1, 1)
            value = _blend(near, later, rt).to(out.dtype.element_ty)
            tl.store(out + t * (OH.to(tl.int64) * OW), value, mask=inside)
            near = later


@_jit
def _backward(
    grad, x, shift, grad_x, partial, C, H, W, OH, OW, T: tl.constexpr, OT: tl.constexpr,
    ST: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    PT: tl.constexpr, PH: tl.constexpr, PW: tl.constexpr,
    QUANTIZE: tl.constexpr, NEED_INPUT: tl.constexpr, NEED_SHIFT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """Either gradient, or both where input and output have one size."""
    if NEED_INPUT:
        plane, block, position, inside = _place(H, W, BLOCK)
    else:
        plane, block, position, inside = _place(OH, OW, BLOCK)
    c = plane % C
    grad += plane.to(tl.int64) * OT * OH * OW
    if NEED_INPUT:
        ft, fh, fw, rt, rh, rw = _shifts(shift, c, C, T, H, W, OT, OH, OW, ST, SH, SW, PT, PH, PW, QUANTIZE)
        grad_x += plane.to(tl.int64) * T * H * W + position
        _adjoint(
            grad, grad_x, position // W + PH - fh, position % W + PW - fw, PT - ft, inside, rt, rh, rw,
            H, W, OH, OW, T, OT, ST, SH, SW, QUANTIZE,
        )  # fmt: skip
    if NEED_SHIFT:
        ft, fh, fw, rt, rh, rw = _shifts(shift, c, C, T, H, W, OT, OH, OW, ST, SH, SW, PT, PH, PW, False)
        x += plane.to(tl.int64) * T * H * W
        sum_t, sum_h, sum_w = _along_shift(
            grad + position, x, position // OW * SH - PH + fh, position % OW * SW - PW + fw, ft - PT, inside,
            rt, rh, rw, H, W, OW * OH, T, OT, ST, BLOCK,
        )  # fmt: skip
        n = plane // C
        blocks = tl.cdiv(OH * OW, BLOCK)
        partial += ((n.to(tl.int64) * blocks + block) * 3) * C + c
        tl.store(partial, sum_t)
        tl.store(partial + C, sum_h)
        tl.store(partial + 2 * C, sum_w)


@triton.jit
def _adjoint(
    grad, grad_x, row, column, first, inside, rt, rh, rw, H, W, OH, OW,
    T: tl.constexpr, OT: tl.constexpr, ST: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr,
    QUANTIZE: tl.constexpr,
):  # fmt: skip
    """Every input gathers from the outputs that read it."""
    if QUANTIZE:
        out_row, known_row = _divide(row, SH, OH)
        out_column, known_column = _divide(column, SW, OW)
        known = inside & known_row & known_column
        grad += out_row * OW + out_column
        for t in range(T):
            source, exists = _divide(first + t, ST, OT)
            pointer = grad + source * (OH.to(tl.int64) * OW)
            value = tl.load(pointer, mask=_all_if(exists, known), other=0.0)
            tl.store(grad_x + t * (H.to(tl.int64) * W), value, mask=inside)
    else:
        before = _blend_frame(grad, first - 1, OT, row, OH, column, OW, inside, rh, rw, -1, ST, SH, SW)
        for t in range(T):
            if ST > 1:
                before = _blend_frame(
                    grad, first + t - 1, OT, row, OH, column, OW, inside, rh, rw, -1, ST, SH, SW
                )
            here = _blend_frame(grad, first + t, OT, row, OH, column, OW, inside, rh, rw, -1, ST, SH, SW)
            value = _blend(here, before, rt).to(grad_x.dtype.element_ty)
            tl.store(grad_x + t * (H.to(tl.int64) * W), value, mask=inside)
            before = here


@triton.jit
def _along_shift(
    grad, x, row, column, first, inside, rt, rh, rw, H, W, out_frame,
    T: tl.constexpr, OT: tl.constexpr, ST: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """The sums of gradient times derivative, over this program's outputs, for the shifts along T, H and W."""
    total_t = tl.zeros((BLOCK,), dtype=tl.float32)
    total_h = tl.zeros((BLOCK,), dtype=tl.float32)
    total_w = tl.zeros((BLOCK,), dtype=tl.float32)
    near, near_h, near_w = _slopes(x, first, T, row, H, column, W, inside, rh, rw)
    for t in range(OT):
        source = first + t * ST
        if ST > 1:
            near, near_h, near_w = _slopes(x, source, T, row, H, column, W, inside, rh, rw)
        later, later_h, later_w = _slopes(x, source + 1, T, row, H, column, W, inside, rh, rw)
        upstream = tl.load(grad + t * out_frame.to(tl.int64), mask=inside, other=0.0).to(tl.float32)
        total_t += upstream * (later - near)
        total_h += upstream * _blend(near_h, later_h, rt)
        total_w += upstream * _blend(near_w, later_w, rt)
        near, near_h, near_w = later, later_h, later_w
    return tl.sum(total_t, axis=0), tl.sum(total_h, axis=0), tl.sum(total_w, axis=0)
