"""The operator as compilers see it, and its gradient.

The work is done by native.py or triton.py, both of which have a `forward` and a `backward`; README.md
derives what they do.

Shape letters: B clips, C channels, S splits, H hidden units of the squeeze-excitation.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from saccade.ops._eager import plain
from saccade.ops.batch_norm_act import native


def _forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    fc1_weight: Tensor | None,
    fc1_bias: Tensor | None,
    fc2_weight: Tensor | None,
    fc2_bias: Tensor | None,
    clip_scale: Tensor | None,
    residual: Tensor | None,
    eps: float,
    activation: str,
    num_splits: int,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """See `native.forward`. All results but y have no gradient."""
    x = _dense(x)
    fc = _excitation(fc1_weight, fc1_bias, fc2_weight, fc2_bias)
    residual = _like(residual, x)
    return _module(backend).forward(
        *(x, weight, bias, mean, var, fc, clip_scale, residual, eps, activation, num_splits)
    )


def _registered_forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    fc1_weight: Tensor | None,
    fc1_bias: Tensor | None,
    fc2_weight: Tensor | None,
    fc2_bias: Tensor | None,
    clip_scale: Tensor | None,
    residual: Tensor | None,
    eps: float,
    activation: str,
    num_splits: int,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`_forward`; what is not there is empty."""
    *results, clip_mean, gate = _forward(
        *(x, weight, bias, mean, var, fc1_weight, fc1_bias, fc2_weight, fc2_bias),
        *(clip_scale, residual, eps, activation, num_splits, backend),
    )
    y, mean, var = results
    if clip_mean is None or gate is None:
        clip_mean, gate = mean.new_empty((0, 0)), mean.new_empty((0, 0))
    return y, mean, var, clip_mean, gate


forward_op = torch.library.custom_op("saccade::batch_norm_act", _registered_forward, mutates_args=())


@forward_op.register_fake
def _(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    fc1_weight: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, ...]:
    dtype = native.vector_dtype(x)
    rows = tuple(x.shape[:2]) if fc1_weight is not None else (0, 0)
    splits = (rest[-2] if mean is None else 1, x.shape[1])
    vectors = (x.new_empty(shape, dtype=dtype) for shape in (splits, splits, rows, rows))
    return (torch.empty_like(_dense(x)), *vectors)


def _backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    clip_mean: Tensor,
    gate: Tensor,
    fc1_weight: Tensor | None,
    fc1_bias: Tensor | None,
    fc2_weight: Tensor | None,
    fc2_bias: Tensor | None,
    clip_scale: Tensor | None,
    extra: Tensor | None,
    by_batch: bool,
    eps: float,
    activation: str,
    backend: str,
) -> tuple[Tensor | None, ...]:
    """Gradients of x, weight, bias, fc1_weight, fc1_bias, fc2_weight, fc2_bias, residual; None without one.

    That of the residual is given if and only if ``extra`` is (see `native.backward`).
    """
    x = _dense(x)
    fc = _excitation(fc1_weight, fc1_bias, fc2_weight, fc2_bias)
    grad_x, grad_weight, grad_bias, grads_fc, grad_residual = _module(backend).backward(
        *(_like(grad_y, x), x, weight, bias, mean, var, clip_mean, gate),
        *(fc, clip_scale, _like(extra, x), by_batch, eps, activation),
    )
    if fc is None:
        grads_fc = (None,) * 4
    else:
        grads_fc = (grad.to(parameter.dtype) for grad, parameter in zip(grads_fc, fc, strict=True))
    return grad_x, grad_weight.to(weight.dtype), grad_bias.to(bias.dtype), *grads_fc, grad_residual


def _registered_backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    clip_mean: Tensor,
    gate: Tensor,
    fc1_weight: Tensor | None,
    fc1_bias: Tensor | None,
    fc2_weight: Tensor | None,
    fc2_bias: Tensor | None,
    clip_scale: Tensor | None,
    extra: Tensor | None,
    by_batch: bool,
    eps: float,
    activation: str,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """`_backward`; what is not there is empty."""
    grads = _backward(
        *(grad_y, x, weight, bias, mean, var, clip_mean, gate, fc1_weight, fc1_bias, fc2_weight, fc2_bias),
        *(clip_scale, extra, by_batch, eps, activation, backend),
    )
    return tuple(x.new_empty(0) if grad is None else grad for grad in grads)  # type: ignore[return-value]


backward_op = torch.library.custom_op(
    "saccade::batch_norm_act_backward", _registered_backward, mutates_args=()
)


@backward_op.register_fake
def _(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    clip_mean: Tensor,
    gate: Tensor,
    fc1_weight: Tensor | None,
    fc1_bias: Tensor | None,
    fc2_weight: Tensor | None,
    fc2_bias: Tensor | None,
    clip_scale: Tensor | None,
    extra: Tensor | None,
    *rest: Any,
) -> tuple[Tensor, ...]:
    small = (weight, bias, fc1_weight, fc1_bias, fc2_weight, fc2_bias)
    return (
        torch.empty_like(_dense(x)),
        *(x.new_empty(0) if t is None else t.new_empty(t.shape) for t in small),
        x.new_empty(0) if extra is None else torch.empty_like(_dense(x)),
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor | None, ...]) -> None:
    x, weight, bias, mean, _, *fc, clip_scale, residual, eps, activation, _, backend = inputs
    y, *saved = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*(tensor for tensor in saved if tensor is not None))
    extra = None
    if residual is not None and activation != "none":
        extra = y if activation == "relu" else residual
    ctx.save_for_backward(x, weight, bias, *saved, *fc, clip_scale, extra)
    ctx.options = (mean is None, eps, activation, backend)
    ctx.has_residual, ctx.has_excitation = residual is not None, fc[0] is not None


def _gradients(
    backward: Callable[..., tuple[Tensor | None, ...]], ctx: Any, grad_y: Tensor | None
) -> tuple[Tensor | None, ...]:
    if grad_y is None:
        return (None,) * 15
    grad_x, grad_weight, grad_bias, *grads_fc, grad_residual = backward(
        grad_y, *ctx.saved_tensors, *ctx.options
    )
    return (
        grad_x,
        grad_weight,
        grad_bias,
        *(None,) * 2,
        *(grads_fc if ctx.has_excitation else (None,) * 4),
        None,
        (grad_y if ctx.options[2] == "none" else grad_residual) if ctx.has_residual else None,
        *(None,) * 4,
    )


forward_op.register_autograd(
    lambda ctx, grad_y, *_: _gradients(backward_op, ctx, grad_y), setup_context=_setup_context
)


class _Eager(torch.autograd.Function):
    """The same without the dispatcher."""

    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor | None, ...]:
        output = _forward(*args)
        _setup_context(ctx, args, output)
        return output

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        # the registered one refuses a second derivative, for which grad mode is on
        backward = backward_op if torch.is_grad_enabled() else _backward
        return _gradients(backward, ctx, grad_y)


def run_forward(x: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor]:
    """y, mean and variance of `_forward`, with gradients: by the registered operator, or the short way."""
    run = forward_op if not plain(x) else _Eager.apply if torch.is_grad_enabled() else _forward
    y, mean, var, *_ = run(x, *args)
    return y, mean, var


def _module(backend: str) -> ModuleType:
    if backend == "native":
        return native
    return importlib.import_module("saccade.ops.batch_norm_act.triton")  # needs Triton


def _excitation(*fc: Tensor | None) -> Any:
    return None if fc[0] is None else fc


def _dense(x: Tensor) -> Tensor:
    return x if x.is_contiguous(memory_format=torch.channels_last_3d) else x.contiguous()


def _like(tensor: Tensor | None, x: Tensor) -> Any:
    """``tensor`` in the layout of ``x``."""
    if tensor is None:
        return None
    layout = torch.channels_last_3d
    return tensor.contiguous(
        memory_format=layout if x.is_contiguous(memory_format=layout) else torch.contiguous_format
    )
