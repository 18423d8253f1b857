"""The operator on the CPU: one C++ call forward and one backward, with the arithmetic between the passes.

In PyTorch that arithmetic would be about forty operators on tensors (B, C), whose overhead is a hundred times
their work. Conditions of `forward` and `backward`, here and in triton.py:

* ``x`` is (B, C, T, H, W), dense, in channels-last-3d or in contiguous layout; the other big tensors
  (``grad_y``, ``residual``, ``extra``) have its shape, data type and layout, and so have the big results. All
  are on one device. The small ones given may be of any floating point type.
* The small results have data type `vector_dtype`: float64 if ``x`` has, else float32. All is computed in
  that type or better, whatever the type of ``x``.
* ``activation`` is "none", "relu" or "silu". A NaN stays a NaN through all of them. relu's derivative at 0
  is 0.
* No tensor need have elements: sums over nothing are 0, a mean of nothing may be anything.
* The same input gives the same bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saccade.ops._library import DTYPE_CODES, NativeLibrary, native_library

Excitation = tuple[Tensor, Tensor, Tensor, Tensor]  # weights (H, C) and (C, H), each with its bias behind it
_ACTIVATIONS = {"none": 0, "relu": 1, "silu": 2}  # the same numbers stand in batch_norm_act_kernels.h


def forward(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor | None,
    var: Tensor | None,
    fc: Excitation | None,
    clip_scale: Tensor | None,
    residual: Tensor | None,
    eps: float,
    activation: str,
    num_splits: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
    """y; mean and biased variance (S, C); with ``fc`` the mean of x per clip and the gate, (B, C), else None.

    Without ``mean`` and ``var``, (C,), they are taken from x, of every split by itself.
    """
    dtype = vector_dtype(x)
    batch, channels = x.shape[:2]
    by_batch = mean is None or var is None
    if mean is None or var is None:
        mean, var = (torch.empty((num_splits, channels), dtype=dtype) for _ in range(2))
    else:
        mean, var = (value.to(dtype, copy=True).view(1, -1) for value in (mean, var))
    clip_mean = gate = None
    if fc is not None:
        clip_mean, gate = (torch.empty((batch, channels), dtype=dtype) for _ in range(2))
    y = torch.empty_like(x)
    parameters = _parameters(dtype, weight, bias, fc, clip_scale)
    options = _options(x, fc, eps, by_batch, activation, num_splits)
    _library().call(
        "batch_norm_act_forward", x, residual, mean, var, clip_mean, gate, y, *parameters, *options
    )
    return y, mean, var, clip_mean, gate


def backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    var: Tensor,
    clip_mean: Tensor | None,
    gate: Tensor | None,
    fc: Excitation | None,
    clip_scale: Tensor | None,
    extra: Tensor | None,
    by_batch: bool,
    eps: float,
    activation: str,
) -> tuple[Tensor, Tensor, Tensor, tuple[Tensor, ...] | None, Tensor | None]:
    """Gradients of x, weight, bias, of ``fc`` if it is there, of the residual if ``extra`` is.

    Args:
        mean, var, clip_mean, gate: as `forward` gave them; the last two are not looked at without ``fc``.
        extra: given if and only if the forward pass had a residual and an activation. For "silu" the
            residual; for "relu" the output y: the gradient is 0 where y <= 0.
    """
    dtype = vector_dtype(x)
    grad_x = torch.empty_like(x)
    g = None if extra is None else torch.empty_like(x)
    grad_weight, grad_bias = (torch.empty(x.shape[1], dtype=dtype) for _ in range(2))
    grads_fc = None if fc is None else tuple(torch.empty(t.shape, dtype=dtype) for t in fc)
    if fc is None:
        clip_mean = gate = None
    parameters = _parameters(dtype, weight, bias, fc, clip_scale)
    options = _options(x, fc, eps, by_batch, activation, mean.shape[0])
    given = (grad_y, x, extra, mean, var, clip_mean, gate)
    results = (grad_x, g, grad_weight, grad_bias, *(grads_fc or (None,) * 4))
    _library().call("batch_norm_act_backward", *given, *results, *parameters, *options)
    return grad_x, grad_weight, grad_bias, grads_fc, g


def vector_dtype(x: Tensor) -> torch.dtype:
    """The type that sums, scales and shifts have."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _parameters(
    dtype: torch.dtype, weight: Tensor, bias: Tensor, fc: Excitation | None, clip_scale: Tensor | None
) -> list[Tensor | None]:
    tensors = (weight, bias, *(fc or (None,) * 4), clip_scale)
    return [
        t if t is None or (t.dtype == dtype and t.is_contiguous()) else t.to(dtype).contiguous()
        for t in tensors
    ]


def _options(
    x: Tensor, fc: Excitation | None, eps: float, by_batch: bool, activation: str, num_splits: int
) -> tuple[int | float, ...]:
    batch, channels, *size = x.shape
    return (
        eps,
        by_batch,
        _ACTIVATIONS[activation],
        DTYPE_CODES[x.dtype],
        x.is_contiguous(memory_format=torch.channels_last_3d),
        batch,
        channels,
        num_splits,
        0 if fc is None else fc[0].shape[0],
        size[0] * size[1] * size[2],
    )


def _library() -> NativeLibrary:
    library = native_library()
    assert isinstance(library, NativeLibrary)
    return library
