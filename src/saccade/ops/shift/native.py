"""The native CPU kernels of the shift operator: contiguous memory, outputs allocated, the library called.

Layout is (B, C, T, H, W) contiguous: the shift is one for a whole channel, so whole rows are blended.
Channels-last input is copied first; the output is contiguous in every case.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from saccade.ops._library import DTYPE_CODES, native_library
from saccade.ops.shift.naive import output_size


def forward(
    x: Tensor, shift: Tensor, stride: Sequence[int], padding: Sequence[int], quantize: bool
) -> Tensor:
    """``shift`` is float64 where x is, else float32."""
    x, shift = x.contiguous(), shift.contiguous()
    size = output_size(x.shape[2:], stride, padding)
    out = allocate(x, (*x.shape[:2], *size))
    if out.numel():
        _call("shift3d_forward", x, (x, shift, out), x.shape, size, stride, padding, quantize)
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
    in_shape = (*grad.shape[:2], *in_size)
    grad_x = allocate(grad, in_shape) if need_input else None
    grad_shift = None if x is None else allocate(shift, shift.shape)
    if not grad.numel():
        return None if grad_x is None else grad_x.zero_(), None if grad_shift is None else grad_shift.zero_()
    data = None if x is None else x.contiguous()
    _call(
        "shift3d_backward",
        grad,
        (grad, data, shift, grad_x, grad_shift),
        in_shape,
        grad.shape[2:],
        stride,
        padding,
        quantize,
    )
    return grad_x, grad_shift


def allocate(like: Tensor, shape: Sequence[int]) -> Tensor:
    """Uninitialised contiguous memory; tests fill it with NaN."""
    return like.new_empty(tuple(shape))


def _call(
    name: str,
    x: Tensor,
    tensors: Sequence[Tensor | None],
    in_shape: Sequence[int],
    out_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    quantize: bool,
) -> None:
    library = native_library()
    assert library is not None  # else another backend would have been chosen
    library.call(name, DTYPE_CODES[x.dtype], *tensors, *in_shape, *out_size, *stride, *padding, int(quantize))
