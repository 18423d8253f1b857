"""The operator on a GPU: the four passes of triton_kernel.py, and in PyTorch the arithmetic between them.

`forward` and `backward` have the signatures of native.py. README.md derives the arithmetic.

Shape letters: B clips, C channels, S splits, H hidden units of the squeeze-excitation.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from saccade.ops.batch_norm_act import native, triton_kernel


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    fc: native.Excitation | None,
    clip_scale: Tensor | None,
    residual: Tensor | None,
    eps: float,
    activation: str,
    num_splits: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """As `native.forward`."""
    dtype = native.vector_dtype(x)
    layers = _Layers.of(dtype, fc)
    with _full_precision(x):
        clip_mean = gate = None
        if mean is None or layers is not None:
            clip_mean, m2 = triton_kernel.row_stats(x)
        if mean is None or var is None:
            assert clip_mean is not None
            mean, var = _batch_statistics(clip_mean, m2, _count(x), num_splits)
        else:
            mean, var = (value.to(dtype, copy=True)[None] for value in (mean, var))
        slope = weight.to(dtype) * torch.rsqrt(var + eps)
        if layers is not None:
            assert clip_mean is not None
            gate = layers.gate(layers.hidden(_normalised(clip_mean, mean, slope, bias)))
        scale, shift = _fold(slope, bias, mean, _factor(gate, clip_scale), x.shape[0])
    y = triton_kernel.affine_act(x, scale, shift, residual, activation)
    return y, mean, var, clip_mean if layers is not None else None, gate


def backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    clip_mean: Tensor | None,
    gate: Tensor | None,
    fc: native.Excitation | None,
    clip_scale: Tensor | None,
    extra: Tensor | None,
    by_batch: bool,
    eps: float,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...] | None, Tensor | None]:
    """As `native.backward`."""
    dtype = native.vector_dtype(x)
    layers = _Layers.of(dtype, fc)
    num_splits = mean.shape[0]
    inv_std = torch.rsqrt(var + eps)
    slope = weight.to(dtype) * inv_std
    factor = _factor(gate if layers is not None else None, clip_scale)
    scale, shift = _fold(slope, bias, mean, factor, x.shape[0])
    center = _per_clip(mean, x.shape[0]).contiguous()
    slopes = _per_clip(slope, x.shape[0])
    sum_g, sum_gx, g = triton_kernel.affine_act_reduce(grad_y, x, extra, scale, shift, center, activation)

    # the gradient of z = norm(x) is factor * g, plus the same number all over the clip: flat
    sum_z, sum_zx = (sum_g, sum_gx) if factor is None else (factor * sum_g, factor * sum_gx)
    grads_fc = None
    q = torch.zeros_like(scale)
    if layers is not None:
        assert clip_mean is not None
        assert gate is not None
        grad_gate = slopes * sum_gx + bias.to(dtype) * sum_g
        if clip_scale is not None:
            grad_gate = grad_gate * clip_scale.to(dtype)[:, None]
        squeezed = _normalised(clip_mean, mean, slope, bias)
        with _full_precision(x):
            grad_mean, grads_fc = layers.backward(grad_gate, squeezed, gate)
        sum_z, sum_zx = sum_z + grad_mean, sum_zx + grad_mean * (clip_mean - center)
        q = slopes * (grad_mean / max(_count(x), 1))
    grad_bias = _split(sum_z, num_splits).sum(0)
    grad_weight = _split(sum_zx, num_splits).sum(0) * inv_std
    if by_batch:
        flat, slant = _by_statistics(x, mean, inv_std, slope, grad_weight, grad_bias)
        q, r = q - flat, slant.contiguous()
    else:
        r = torch.zeros_like(q)
    if g is not None:
        grad_y, activation = g, "none"
    grad_x = triton_kernel.affine_act_backward(grad_y, x, scale, shift, scale, q, r, activation)
    return grad_x, grad_weight.sum(0), grad_bias.sum(0), grads_fc, g


class _Layers(NamedTuple):
    """The two layers of a squeeze-excitation, weights (H, C) and (C, H), and the shapes they came in."""

    weight1: Tensor
    bias1: Tensor
    weight2: Tensor
    bias2: Tensor
    shapes: tuple[torch.Size, ...]

    @classmethod
    def of(cls, dtype: torch.dtype, fc: native.Excitation | None) -> _Layers | None:
        if fc is None:
            return None
        weight1, bias1, weight2, bias2 = (parameter.to(dtype) for parameter in fc)
        return cls(weight1.flatten(1), bias1, weight2.flatten(1), bias2, tuple(t.shape for t in fc))

    def hidden(self, squeezed: Tensor) -> Tensor:
        return F.relu(F.linear(squeezed, self.weight1, self.bias1))

    def gate(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.weight2, self.bias2).sigmoid()

    def backward(
        self, grad_gate: Tensor, squeezed: Tensor, gate: Tensor
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Gradients of ``squeezed`` and of the four parameters, in their shapes."""
        hidden = self.hidden(squeezed)
        grad2 = grad_gate * gate * (1 - gate)
        grad1 = (grad2 @ self.weight2) * (hidden > 0)
        grads = (grad1.T @ squeezed, grad1.sum(0), grad2.T @ hidden, grad2.sum(0))
        shaped = tuple(grad.reshape(shape) for grad, shape in zip(grads, self.shapes, strict=True))
        return grad1 @ self.weight1, shaped


def _batch_statistics(clip_mean: Tensor, m2: Tensor, count: int, num_splits: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance (S, C) of each split from those of its clips, ``count``
    values long.
    """
    clip_mean, m2 = _split(clip_mean, num_splits), _split(m2, num_splits)
    mean = clip_mean.mean(0)
    return mean, m2.mean(0) / count + (clip_mean - mean).square().mean(0)


def _by_statistics(
    x: Tensor, mean: Tensor, inv_std: Tensor, slope: Tensor, grad_weight: Tensor, grad_bias: Tensor
) -> tuple[Tensor, Tensor]:
    """The part of x's gradient through mean and variance, slant * x - flat, with slant and flat (B, C)."""
    num_values = x.shape[0] // mean.shape[0] * _count(x)
    slant = slope * inv_std * grad_weight / -num_values
    flat = slope * grad_bias / num_values + slant * mean
    return _per_clip(flat, x.shape[0]), _per_clip(slant, x.shape[0])


def _split(rows: Tensor, num_splits: int) -> Tensor:
    """(B, C) -> (B / S, S, C): clip j is in split j mod S."""
    return rows.view(-1 if rows.numel() else 0, num_splits, rows.shape[1])


def _per_clip(values: Tensor, batch: int) -> Tensor:
    """(S, C) -> (B, C): the value of each clip's split."""
    return values.expand(batch, -1) if values.shape[0] == 1 else values.repeat(batch // values.shape[0], 1)


def _normalised(clip_mean: Tensor, mean: Tensor, slope: Tensor, bias: Tensor) -> Tensor:
    """The mean over T, H, W of norm(x), (B, C)."""
    batch = clip_mean.shape[0]
    return torch.addcmul(bias.to(slope.dtype), _per_clip(slope, batch), clip_mean - _per_clip(mean, batch))


def _factor(gate: Tensor | None, clip_scale: Tensor | None) -> Tensor | None:
    """The factor on norm(x): (B, C), (B, 1), or None for 1."""
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


def _full_precision(x: Tensor) -> AbstractContextManager[Any]:
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def _count(x: Tensor) -> int:
    return x.shape[2] * x.shape[3] * x.shape[4]
