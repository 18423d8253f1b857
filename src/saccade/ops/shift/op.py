"""The public shift operators, and their registration with PyTorch, with the gradient.

There are only 3-D kernels, in native.py and triton_kernel.py, with the same functions ``forward`` and
``backward``; pytorch.py and naive.py are differentiated by autograd.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from saccade.errors import UsageError
from saccade.ops._backend import choose_backend
from saccade.ops._eager import plain
from saccade.ops.shift import naive, native, pytorch

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def shift3d(
    x: Tensor,
    shift: Tensor,
    *,
    stride: Sequence[int] = (1, 1, 1),
    padding: Sequence[int] = (0, 0, 0),
    quantize: bool = False,
    normalize_grad: bool = False,
    normalize_t_factor: float | Literal["auto"] = 1.0,
) -> Tensor:
    """Shift each channel by a learnable, fractional number of frames and pixels (RubiksShift).

    Output position o is the trilinear blend of the input around o * stride - padding + shift[:, c]; positions
    outside the clip count as zero. A positive shift reads later frames, lower rows, columns further right.

    Args:
        x: (B, C, T, H, W), float32, bfloat16, float16 or float64. The output has its data type.
        shift: (3, C), the rows T (in frames), H and W (in pixels). It is used in float32, or in
            float64 where x is.
        stride: steps between the source positions of two outputs, on T, H and W.
        padding: how far before the clip the first source position lies.
        quantize: round the shift to whole numbers, halves up. The gradient of x is the exact adjoint, the
            gradient of the shift is computed without rounding (straight-through).
        normalize_grad: divide each channel's shift gradient, summed over the batch of this process, by its
            length, so that the learning rate sets the step size. A zero gradient stays zero.
        normalize_t_factor: multiplies the T row before that. Negative: the T row alone, H and W become
            zero. "auto": T / H of the input.

    Returns:
        (B, C, T', H', W') with L' = floor((L + 2 * padding - 1) / stride) + 1.

    At a whole shift the operator has a kink; the gradient is the right derivative there.

    Source: RubiksNet (ECCV 2020), section 3; github.com/StanfordVL/RubiksNet.

    Raises:
        UsageError: an argument has the wrong shape, data type or value.
    """
    stride, padding = _check(x, shift, 3, stride, padding)
    if normalize_grad:
        if normalize_t_factor == "auto":
            factor = x.shape[2] / max(x.shape[3], 1)
        elif isinstance(normalize_t_factor, str):
            raise UsageError(f'normalize_t_factor is {normalize_t_factor!r}: a number or "auto" is needed')
        else:
            factor = float(normalize_t_factor)
        shift = _NormalizeGrad.apply(shift, factor)
    return _run("shift3d", x, shift, stride, padding, quantize)


def shift2d(
    x: Tensor,
    shift: Tensor,
    *,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
    quantize: bool = False,
    normalize_grad: bool = False,
) -> Tensor:
    """`shift3d` without time: x (B, C, H, W) and shift (2, C), the rows H and W in pixels.

    Kernels run the 3-D operator on a clip of one frame that moves by zero frames.

    Raises:
        UsageError: an argument has the wrong shape, data type or value.
    """
    stride, padding = _check(x, shift, 2, stride, padding)
    if normalize_grad:
        shift = _NormalizeGrad.apply(shift, None)
    if choose_backend("shift2d", x) == "torch":
        return pytorch.shift(x, shift, stride, padding, quantize)
    shift = torch.cat([shift.new_zeros(1, shift.shape[1]), shift])
    return _run("shift2d", x.unsqueeze(2), shift, (1, *stride), (0, *padding), quantize).squeeze(2)


def _run(
    operator: str,
    x: Tensor,
    shift: Tensor,
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    quantize: bool,
) -> Tensor:
    backend = choose_backend(operator, x)
    if backend == "naive":
        return naive.shift3d(x, shift, stride, padding, quantize)
    if backend == "torch":
        return pytorch.shift(x, shift, stride, padding, quantize)
    shift = shift.to(torch.float64 if x.dtype == torch.float64 else torch.float32)
    run = _Eager.apply if plain(x) else forward_op
    return run(x, shift, stride, padding, quantize, backend)


def _forward(
    x: Tensor, shift: Tensor, stride: Sequence[int], padding: Sequence[int], quantize: bool, backend: str
) -> Tensor:
    """The output is contiguous."""
    return _kernels(backend).forward(x, shift, stride, padding, quantize)


forward_op = torch.library.custom_op("saccade::shift3d", _forward, mutates_args=())


@forward_op.register_fake
def _(
    x: Tensor, shift: Tensor, stride: Sequence[int], padding: Sequence[int], quantize: bool, backend: str
) -> Tensor:
    return x.new_empty((*x.shape[:2], *naive.output_size(x.shape[2:], stride, padding)))


def _backward(
    grad: Tensor,
    x: Tensor | None,
    shift: Tensor,
    in_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    quantize: bool,
    need_input: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Gradients of x, (T, H, W) = ``in_size``, and of the shift; an unneeded one is empty. The gradient of
    the shift is needed if and only if x is given.
    """
    grad_x, grad_shift = _kernels(backend).backward(
        grad, x, shift, in_size, stride, padding, quantize, need_input
    )
    return (
        grad.new_empty(0) if grad_x is None else grad_x,
        shift.new_empty(0) if grad_shift is None else grad_shift,
    )


backward_op = torch.library.custom_op("saccade::shift3d_backward", _backward, mutates_args=())


@backward_op.register_fake
def _(
    grad: Tensor,
    x: Tensor | None,
    shift: Tensor,
    in_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    quantize: bool,
    need_input: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    return (
        grad.new_empty((*grad.shape[:2], *in_size) if need_input else 0),
        shift.new_empty(0 if x is None else shift.shape),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, shift, *options, ctx.backend = inputs
    ctx.options = (x.shape[2:], *options)
    # the gradient of x does not depend on x, which is large
    ctx.save_for_backward(x if ctx.needs_input_grad[1] else None, shift)


def _gradients(
    backward: Callable[..., tuple[Tensor, Tensor]], ctx: Any, grad: Tensor
) -> tuple[Tensor | None, ...]:
    x, shift = ctx.saved_tensors
    need_input, need_shift = ctx.needs_input_grad[:2]
    grad_x, grad_shift = backward(grad, x, shift, *ctx.options, need_input, ctx.backend)
    return grad_x if need_input else None, grad_shift if need_shift else None, None, None, None, None


forward_op.register_autograd(
    lambda ctx, grad: _gradients(backward_op, ctx, grad), setup_context=_setup_context
)


class _Eager(torch.autograd.Function):
    """The same without the dispatcher."""

    @staticmethod
    def forward(ctx: Any, *args: Any) -> Tensor:
        output = _forward(*args)
        _setup_context(ctx, args, output)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return _gradients(_backward, ctx, grad)


def _kernels(backend: str) -> ModuleType:
    if backend == "native":
        return native
    from saccade.ops.shift import triton_kernel  # needs Triton

    return triton_kernel


def _check(
    x: Tensor, shift: Tensor, axes: int, stride: Sequence[int], padding: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    layout, rows = ("BCTHW", "T, H and W") if axes == 3 else ("BCHW", "H and W")
    if x.dim() != axes + 2:
        raise UsageError(f"x has shape {tuple(x.shape)}: {axes + 2} axes {layout} are needed")
    if x.dtype not in DTYPES:
        raise UsageError(f"x is {x.dtype}: one of {', '.join(map(str, DTYPES))} is needed")
    if tuple(shift.shape) != (axes, x.shape[1]):
        raise UsageError(
            f"shift has shape {tuple(shift.shape)}: ({axes}, {x.shape[1]}) is needed, the rows {rows} "
            f"and a column per channel of x"
        )
    if not shift.is_floating_point():
        raise UsageError(f"shift is {shift.dtype}: a floating point type is needed")
    if shift.device != x.device:
        raise UsageError(f"shift is on {shift.device} and x on {x.device}: both must be on one device")
    for name, values, least in (("stride", stride, 1), ("padding", padding, 0)):
        if not isinstance(values, Sequence) or len(values) != axes or any(value < least for value in values):
            raise UsageError(f"{name} is {values}: {axes} whole numbers of at least {least} are needed")
    if 0 in x.shape[2:]:
        raise UsageError(f"x has shape {tuple(x.shape)}: at least one frame and one pixel are needed")
    return tuple(stride), tuple(padding)


class _NormalizeGrad(torch.autograd.Function):
    """The identity; backward makes every column of the gradient a unit vector, or leaves it zero."""

    @staticmethod
    def forward(ctx: Any, shift: Tensor, t_factor: float | None) -> Tensor:
        ctx.t_factor = t_factor
        return shift.view_as(shift)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        factor = ctx.t_factor
        if factor is not None:
            time, space = grad[:1], grad[1:]
            grad = torch.cat([time, torch.zeros_like(space)] if factor < 0 else [time * factor, space])
        length = torch.linalg.vector_norm(grad, dim=0, keepdim=True)
        return grad / length.where(length > 0, torch.ones_like(length)), None
