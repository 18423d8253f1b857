"""The operator as compilers see it, its gradient, and the arithmetic between the passes over memory.

The passes are those of native.py or triton_kernel.py; here all is on (B, C) or smaller. README.md derives it.

Shape letters: B clips, C channels, S splits, H hidden units of the squeeze-excitation.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from types import ModuleType
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Without ``mean`` and ``var`` they are taken from x, of every split by itself.

    Returns:
        y; mean and biased variance (S, C); of the squeeze-excitation, if there is one (else empty), the mean
        of x per clip and the gate, each (B, C). All but y have no gradient.
    """
    kernels = _kernels(backend)
    x = _dense(x)
    dtype = native.vector_dtype(x)
    with _full_precision(x):
        fc = _Excitation.of(dtype, fc1_weight, fc1_bias, fc2_weight, fc2_bias)
        if mean is None or fc is not None:
            clip_mean, m2 = kernels.row_stats(x)
        if mean is None or var is None:
            mean, var = _batch_statistics(clip_mean, m2, _count(x), num_splits)
        else:
            mean, var = (value.to(dtype, copy=True)[None] for value in (mean, var))
        slope = weight.to(dtype) * torch.rsqrt(var + eps)
        empty = x.new_empty((0, 0), dtype=dtype)
        gate = None
        if fc is not None:
            gate = fc.gate(fc.hidden(_normalised(clip_mean, mean, slope, bias)))
        scale, shift = _fold(slope, bias, mean, _factor(gate, clip_scale), x.shape[0])
    y = kernels.affine_act(x, scale, shift, _like(residual, x), activation)
    if gate is None:
        return y, mean, var, empty, torch.empty_like(empty)
    return y, mean, var, clip_mean, gate


fused_forward = torch.library.custom_op("saccade::batch_norm_act", _forward, mutates_args=())


@fused_forward.register_fake
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
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, weight, bias, fc1_weight, fc1_bias, fc2_weight, fc2_bias, residual.

    What is not there has an empty one. That of the residual is given if and only if ``extra`` is (see
    native.affine_act_reduce).
    """
    kernels = _kernels(backend)
    x = _dense(x)
    grad_y, extra = _like(grad_y, x), _like(extra, x)
    dtype = native.vector_dtype(x)
    fc = _Excitation.of(dtype, fc1_weight, fc1_bias, fc2_weight, fc2_bias)
    num_splits = mean.shape[0]
    inv_std = torch.rsqrt(var + eps)
    slope = weight.to(dtype) * inv_std
    factor = _factor(gate if fc is not None else None, clip_scale)
    scale, shift = _fold(slope, bias, mean, factor, x.shape[0])
    center = _per_clip(mean, x.shape[0]).contiguous()
    slopes = _per_clip(slope, x.shape[0])
    sum_g, sum_gx, g = kernels.affine_act_reduce(grad_y, x, extra, scale, shift, center, activation)

    # the gradient of z = norm(x) is factor * g, plus the same number all over the clip: flat
    sum_z, sum_zx = (sum_g, sum_gx) if factor is None else (factor * sum_g, factor * sum_gx)
    grads_fc: tuple[Tensor, ...] = tuple(x.new_empty(0) for _ in range(4))
    q = torch.zeros_like(scale)
    if fc is not None:
        grad_gate = slopes * sum_gx + bias.to(dtype) * sum_g
        if clip_scale is not None:
            grad_gate = grad_gate * clip_scale.to(dtype)[:, None]
        squeezed = _normalised(clip_mean, mean, slope, bias)
        with _full_precision(x):
            grad_mean, grads_fc = fc.backward(grad_gate, squeezed, gate)
        sum_z, sum_zx = sum_z + grad_mean, sum_zx + grad_mean * (clip_mean - center)
        q = slopes * (grad_mean / max(_count(x), 1))
    grad_bias = _split(sum_z, num_splits).sum(0)
    grad_weight = _split(sum_zx, num_splits).sum(0) * inv_std
    if by_batch:
        num_values = x.shape[0] // num_splits * _count(x)
        slant = slope * inv_std * grad_weight / -num_values
        q = q - _per_clip(slope * grad_bias / num_values + slant * mean, x.shape[0])
        r = _per_clip(slant, x.shape[0]).contiguous()
    else:
        r = torch.zeros_like(q)

    if g is None:
        grad_x = kernels.affine_act_backward(grad_y, x, scale, shift, scale, q, r, activation)
        g = x.new_empty(0)
    else:
        grad_x = kernels.affine_act_backward(g, x, scale, shift, scale, q, r, "none")
    grad_weight, grad_bias = grad_weight.sum(0), grad_bias.sum(0)
    return grad_x, grad_weight.to(weight.dtype), grad_bias.to(bias.dtype), *grads_fc, g


fused_backward = torch.library.custom_op("saccade::batch_norm_act_backward", _backward, mutates_args=())


@fused_backward.register_fake
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


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    x, weight, bias, mean, _, *fc, clip_scale, residual, eps, activation, _, backend = inputs
    y, *saved = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(*saved)
    extra = None
    if residual is not None and activation != "none":
        extra = y if activation == "relu" else residual
    ctx.save_for_backward(x, weight, bias, *saved, *fc, clip_scale, extra)
    ctx.options = (mean is None, eps, activation, backend)
    ctx.has_residual, ctx.has_excitation = residual is not None, fc[0] is not None


def _gradients(
    backward: Callable[..., tuple[Tensor, ...]], ctx: Any, grad_y: Tensor | None
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


fused_forward.register_autograd(
    lambda ctx, grad_y, *_: _gradients(fused_backward, ctx, grad_y), setup_context=_setup_context
)


class _Eager(torch.autograd.Function):
    """The same without the dispatcher."""

    @staticmethod
    def forward(ctx: Any, *args: Any) -> tuple[Tensor, ...]:
        output = _forward(*args)
        _setup_context(ctx, args, output)
        return output

    @staticmethod
    def backward(ctx: Any, grad_y: Tensor | None, *_: None) -> tuple[Tensor | None, ...]:
        # the registered one refuses a second derivative, for which grad mode is on
        backward = fused_backward if torch.is_grad_enabled() else _backward
        return _gradients(backward, ctx, grad_y)


def run_forward(x: Tensor, *args: Any) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """y and the statistics of `_forward`, with gradients: by the registered operator, or the short way."""
    return (_Eager.apply if plain(x) else fused_forward)(x, *args)


# -------------------------------------------------------------------------------------- on (B, C) and smaller


class _Excitation(NamedTuple):
    """The two layers of a squeeze-excitation, weights (H, C) and (C, H), and their gradients' shapes."""

    weight1: Tensor
    bias1: Tensor
    weight2: Tensor
    bias2: Tensor
    like: tuple[Tensor, ...]

    @classmethod
    def of(cls, dtype: torch.dtype, *parameters: Tensor | None) -> _Excitation | None:
        given = tuple(parameter for parameter in parameters if parameter is not None)
        if not given:
            return None
        weight1, bias1, weight2, bias2 = (parameter.to(dtype) for parameter in given)
        return cls(weight1.flatten(1), bias1, weight2.flatten(1), bias2, given)

    def hidden(self, squeezed: Tensor) -> Tensor:
        return F.relu(F.linear(squeezed, self.weight1, self.bias1))

    def gate(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.weight2, self.bias2).sigmoid()

    def backward(
        self, grad_gate: Tensor, squeezed: Tensor, gate: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Gradients of ``squeezed`` and of the four parameters, in their shapes and types."""
        hidden = self.hidden(squeezed)
        grad2 = grad_gate * gate * (1 - gate)
        grad1 = (grad2 @ self.weight2) * (hidden > 0)
        grads = (grad1.T @ squeezed, grad1.sum(0), grad2.T @ hidden, grad2.sum(0))
        shaped = tuple(
            grad.to(like.dtype).reshape(like.shape) for grad, like in zip(grads, self.like, strict=True)
        )
        return grad1 @ self.weight1, shaped


def _batch_statistics(clip_mean: Tensor, m2: Tensor, count: int, num_splits: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (S, C) of the clips of each split together, from those of each clip, ``count``
    values long.
    """
    clip_mean, m2 = _split(clip_mean, num_splits), _split(m2, num_splits)
    mean = clip_mean.mean(0)
    return mean, m2.mean(0) / count + (clip_mean - mean).square().mean(0)


def _split(rows: Tensor, num_splits: int) -> Tensor:
    """(B, C) -> (B / S, S, C): clip j is in split j mod S."""
    return rows.view(-1 if rows.numel() else 0, num_splits, rows.shape[1])


def _per_clip(values: Tensor, batch: int) -> Tensor:
    """(S, C) -> (B, C): what belongs to the split of each clip."""
    return values.expand(batch, -1) if values.shape[0] == 1 else values.repeat(batch // values.shape[0], 1)


def _normalised(clip_mean: Tensor, mean: Tensor, slope: Tensor, bias: Tensor) -> Tensor:
    """The mean over T, H, W of norm(x), (B, C)."""
    batch = clip_mean.shape[0]
    return torch.addcmul(bias.to(slope.dtype), _per_clip(slope, batch), clip_mean - _per_clip(mean, batch))


def _factor(gate: Tensor | None, clip_scale: Tensor | None) -> Tensor | None:
    """What norm(x) is multiplied by: (B, C), (B, 1), or None for 1."""
    if clip_scale is None:
        return gate
    clip_scale = clip_scale[:, None]
    return clip_scale.to(gate.dtype) * gate if gate is not None else clip_scale


def _fold(
    slope: Tensor, bias: Tensor, mean: Tensor, factor: Tensor | None, batch: int
) -> tuple[Tensor, Tensor]:
    """The scale and shift (B, C) that norm, gate and clip scale make together."""
    offset = _per_clip(torch.addcmul(bias.to(slope.dtype), slope, mean, value=-1), batch)
    slope = _per_clip(slope, batch)
    if factor is None:
        return slope.contiguous(), offset.contiguous()
    factor = factor.to(slope.dtype)
    return factor * slope, factor * offset


def _kernels(backend: str) -> ModuleType:
    if backend == "native":
        return native
    return importlib.import_module("saccade.ops.batch_norm_act.triton_kernel")  # needs Triton


def _full_precision(x: Tensor) -> AbstractContextManager[Any]:
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def _count(x: Tensor) -> int:
    return x.shape[2] * x.shape[3] * x.shape[4]


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
