"""The public operator and its registration with PyTorch, with the gradient.

The kernels are in native.py and triton_kernel.py, with the same functions ``forward`` and ``backward``;
naive.py and PyTorch's convolution are differentiated by autograd.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import conv_flop_count, register_flop_formula

from saccade.errors import UsageError
from saccade.ops._backend import choose_backend, forced_backend
from saccade.ops._eager import plain
from saccade.ops.depthwise_conv3d import naive, native

DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
AXES = ("T", "H", "W")


def depthwise_conv3d(
    x: Tensor,
    weight: Tensor,
    *,
    stride: Sequence[int] = (1, 1, 1),
    padding: Sequence[int] = (0, 0, 0),
    causal: bool = False,
) -> Tensor:
    """Depthwise 3-D convolution with zero padding and without bias.

    Under autocast it runs in autocast's data type, as PyTorch's convolutions do.

    Args:
        x: (B, C, T, H, W), float32, bfloat16, float16 or float64; 16-bit types are summed in float32. Fastest
            in channels-last-3d memory; other layouts are converted.
        weight: (C, 1, KT, KH, KW), like x. Native and Triton kernels are for sizes of 1, 3 and 5 on each
            axis; other sizes run on PyTorch's convolution.
        stride, padding: on T, H and W.
        causal: pad T before the first frame alone, not after the last.

    Returns:
        (B, C, T', H', W') with L' = floor((L + 2 * padding - K) / stride) + 1 (T of a causal convolution:
        padding once), the data type of x;
        channels-last-3d from the native and Triton kernels.

    Raises:
        UsageError: an argument has the wrong shape, data type, device or value.
    """
    x, weight = _autocast(x, weight)
    stride, padding = _check(x, weight, stride, padding, causal)
    backend = choose_backend("depthwise_conv3d", x)
    if backend in ("native", "triton") and not _has_kernel(backend, weight.shape[2:]):
        if forced_backend() is not None:
            raise UsageError(
                f"depthwise_conv3d: backend {backend!r} was asked for, but it has no kernel of "
                f"{'x'.join(map(str, weight.shape[2:]))}: it takes sizes of 1, 3 and 5"
            )
        backend = "torch"
    if backend == "naive":
        return naive.depthwise_conv3d(x, weight, stride, padding, causal)
    if backend == "torch":
        return _pytorch(x, weight, stride, padding, causal)
    run = forward_op if not plain(x) else _Eager.apply if torch.is_grad_enabled() else _forward
    return run(x, weight, stride, padding, causal, backend)


def depthwise_conv3d_frame(
    frames: Sequence[Tensor],
    weight: Tensor,
    *,
    stride: Sequence[int] = (1, 1),
    padding: Sequence[int] = (0, 0),
) -> Tensor:
    """The frame of a depthwise convolution whose window over time is ``frames``. Without a gradient on the
    native backend; others use 2-D operators alone.

    Args:
        frames: KT frames (B, C, H, W), the first for the first tap; fastest in channels-last memory.
        weight: (C, 1, KT, KH, KW).
        stride, padding: on H and W.

    Returns:
        (B, C, H', W').
    """
    last = frames[-1]
    backend = choose_backend("depthwise_conv3d", last)
    if backend == "native" and native.runs(weight.shape[2:]):
        return native.forward_frame(frames, weight, stride, padding)
    taps = weight.unbind(2)
    parts = [
        F.conv2d(frame, tap, None, tuple(stride), tuple(padding), groups=max(last.shape[1], 1))
        for frame, tap in zip(frames, taps, strict=True)
    ]
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total


def _autocast(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    kind = x.device.type
    if kind == "meta" or not torch.is_autocast_enabled(kind):
        return x, weight
    dtype = torch.get_autocast_dtype(kind)
    # float64 stays, as in PyTorch
    return tuple(  # type: ignore[return-value]
        t.to(dtype) if t.is_floating_point() and t.dtype != torch.float64 else t for t in (x, weight)
    )


def _pytorch(
    x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], causal: bool
) -> Tensor:
    """PyTorch's convolution. Its bfloat16 backward on a CPU, channels-last-3d, reads uninitialised memory.

    Gradients are then sometimes not finite (seen with torch 2.13 on an AVX-512 CPU), so 16-bit types train
    in float32 there.
    """
    wanted = x.dtype
    if x.device.type == "cpu" and x.element_size() == 2 and torch.is_grad_enabled():
        x, weight = x.float(), weight.float()
    if causal and padding[0]:
        x, padding = F.pad(x, (0, 0, 0, 0, padding[0], 0)), (0, *padding[1:])
    kind = "cpu" if x.is_meta else x.device.type  # autocast knows no meta device
    with torch.autocast(kind, enabled=False):
        y = F.conv3d(x, weight, None, tuple(stride), tuple(padding), groups=max(x.shape[1], 1))
    return y.to(wanted)


# ------------------------------------------------------------------------------------ registered with PyTorch


def _forward(
    x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], causal: bool, backend: str
) -> Tensor:
    """The output is channels-last-3d."""
    return _kernels(backend).forward(x, weight, stride, padding, causal)


forward_op = torch.library.custom_op("saccade::depthwise_conv3d", _forward, mutates_args=())


@forward_op.register_fake
def _(
    x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], causal: bool, backend: str
) -> Tensor:
    size = naive.output_size(x.shape[2:], weight.shape[2:], stride, padding, causal)
    return _channels_last(x, (*x.shape[:2], *size))


def _backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    need_input: bool,
    need_weight: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """Gradients of x and of the weight; an unneeded one is empty."""
    grad_x, grad_weight = _kernels(backend).backward(
        grad, x, weight, stride, padding, need_input, need_weight
    )
    return (
        x.new_empty(0) if grad_x is None else grad_x,
        weight.new_empty(0) if grad_weight is None else grad_weight,
    )


backward_op = torch.library.custom_op("saccade::depthwise_conv3d_backward", _backward, mutates_args=())


@backward_op.register_fake
def _(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    need_input: bool,
    need_weight: bool,
    backend: str,
) -> tuple[Tensor, Tensor]:
    return (
        _channels_last(x, x.shape) if need_input else x.new_empty(0),
        weight.new_empty(weight.shape if need_weight else 0),
    )


def _channels_last(like: Tensor, shape: Sequence[int]) -> Tensor:
    return torch.empty(
        tuple(shape), dtype=like.dtype, device=like.device, memory_format=torch.channels_last_3d
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, weight, *ctx.options, _, ctx.backend = inputs  # the backward pass needs the sizes alone
    ctx.save_for_backward(x, weight)


def _gradients(
    backward: Callable[..., tuple[Tensor, Tensor]], ctx: Any, grad: Tensor
) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    need_input, need_weight = ctx.needs_input_grad[:2]
    grad_x, grad_weight = backward(grad, x, weight, *ctx.options, need_input, need_weight, ctx.backend)
    return grad_x if need_input else None, grad_weight if need_weight else None, *(None,) * 4


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
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        # the registered one refuses a second derivative, for which grad mode is on
        backward = backward_op if torch.is_grad_enabled() else _backward
        return _gradients(backward, ctx, grad)


@register_flop_formula(torch.ops.saccade.depthwise_conv3d)
def _flops(x_shape: Sequence[int], weight_shape: Sequence[int], *_: Any, out_shape: Any, **__: Any) -> int:
    return conv_flop_count(list(x_shape), list(weight_shape), list(out_shape))


@register_flop_formula(torch.ops.saccade.depthwise_conv3d_backward)
def _backward_flops(
    grad_shape: Sequence[int],
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    stride: Any,
    padding: Any,
    need_input: bool,
    need_weight: bool,
    *_: Any,
    **__: Any,
) -> int:
    once = conv_flop_count(list(x_shape), list(weight_shape), list(grad_shape))
    return once * (int(need_input) + int(need_weight))


def _has_kernel(backend: str, kernel: Sequence[int]) -> bool:
    return native.runs(kernel) if backend == "native" else all(k in native.KERNEL_SIZES for k in kernel)


def _kernels(backend: str) -> ModuleType:
    if backend == "native":
        return native
    return importlib.import_module("saccade.ops.depthwise_conv3d.triton_kernel")  # needs Triton


# -------------------------------------------------------------------------------------------------- arguments


def _check(
    x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], causal: bool
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if x.dim() != 5:
        raise UsageError(f"x has shape {tuple(x.shape)}: 5 axes BCTHW are needed")
    if x.dtype not in DTYPES:
        raise UsageError(f"x is {x.dtype}: one of {', '.join(map(str, DTYPES))} is needed")
    if weight.dim() != 5 or weight.shape[0] != x.shape[1] or weight.shape[1] != 1:
        raise UsageError(
            f"weight has shape {tuple(weight.shape)}: ({x.shape[1]}, 1, KT, KH, KW) is needed, a kernel per "
            f"channel of x"
        )
    if weight.dtype != x.dtype:
        raise UsageError(f"weight is {weight.dtype} and x {x.dtype}: both must have one data type")
    if weight.device != x.device:
        raise UsageError(f"weight is on {weight.device} and x on {x.device}: both must be on one device")
    for name, values, least in (("stride", stride, 1), ("padding", padding, 0)):
        if not _whole_numbers(values) or len(values) != 3 or min(values) < least:
            raise UsageError(f"{name} is {values}: 3 whole numbers of at least {least} are needed")
    padded = (padding[0] if causal else 2 * padding[0], 2 * padding[1], 2 * padding[2])
    for axis, n, k, p, total in zip(AXES, x.shape[2:], weight.shape[2:], padding, padded, strict=True):
        if k < 1:
            raise UsageError(f"weight has shape {tuple(weight.shape)}: at least one tap on {axis} is needed")
        if n < 1 or n + total < k:
            raise UsageError(
                f"x has {n} on {axis} and padding {p} there: too few for a kernel of {k} "
                f"(x {tuple(x.shape)}, weight {tuple(weight.shape)})"
            )
    return tuple(stride), tuple(padding)


def _whole_numbers(values: object) -> bool:
    return isinstance(values, Sequence) and all(isinstance(value, int) for value in values)
