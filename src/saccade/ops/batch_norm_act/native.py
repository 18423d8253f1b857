"""The four passes over memory that the operator is made of, on the CPU.

``triton_kernel`` has the same four functions for the GPU; fused.py works out all that is between them on
tensors of (B, C). What both sides rely on:

* ``x`` is (B, C, T, H, W), dense, in channels-last-3d or in contiguous layout; the other big tensors
  (``grad_y``, ``residual``, ``extra``) have its shape, data type and layout, and so have the big results. All
  are on one device.
* The small tensors are (B, C), contiguous, of data type `vector_dtype`: float32, or float64 where ``x`` is.
  All is reckoned in that type, whatever ``x`` is stored in.
* ``activation`` is "none", "relu" or "silu". A NaN stays a NaN through all of them.
* No tensor need have elements: sums over nothing are 0, a mean of nothing may be anything.
* The same input gives the same bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saccade.ops._library import DTYPE_CODES, NativeLibrary, native_library

_ACTIVATIONS = {"none": 0, "relu": 1, "silu": 2}  # the same numbers stand in batch_norm_act.cpp


def row_stats(x: Tensor) -> tuple[Tensor, Tensor]:
    """The mean over T, H, W of every clip and channel, and the sum of squared distances from it, each (B, C).

    Sound for values far from zero: no difference of large sums of squares.
    """
    mean, m2 = _vectors(x, 2)
    _call("row_stats", x, None, x, mean, m2)
    return mean, m2


def affine_act(x: Tensor, scale: Tensor, shift: Tensor, residual: Tensor | None, activation: str) -> Tensor:
    """act(scale * x + shift + residual), with scale and shift per clip and channel."""
    y = torch.empty_like(x)
    _call("affine_act", x, activation, x, residual, scale, shift, y)
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
        extra: given if and only if the forward pass had a residual and an activation. For "silu" the
            residual; for "relu" the output y: g is 0 where y <= 0, and grad_y elsewhere.
        center: subtracted from x before it is multiplied, so that a large common offset costs no digits.

    relu's derivative at 0 is 0. silu's is s * (1 + u * (1 - s)) with s = sigmoid(u).
    """
    sum_g, sum_gx = _vectors(x, 2)
    g = torch.empty_like(x) if extra is not None else None
    _call("affine_act_reduce", x, activation, grad_y, x, extra, scale, shift, center, sum_g, sum_gx, g)
    return sum_g, sum_gx, g


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
    grad_x = torch.empty_like(x)
    _call("affine_act_backward", x, activation, grad_y, x, scale, shift, p, q, r, grad_x)
    return grad_x


def vector_dtype(x: Tensor) -> torch.dtype:
    """The type that sums, scales and shifts have."""
    return torch.float64 if x.dtype == torch.float64 else torch.float32


def _vectors(x: Tensor, count: int) -> list[Tensor]:
    return [torch.empty(x.shape[:2], dtype=vector_dtype(x), device=x.device) for _ in range(count)]


def _call(name: str, x: Tensor, activation: str | None, *tensors: Tensor | None) -> None:
    library = native_library()
    assert isinstance(library, NativeLibrary)
    channels_last = x.is_contiguous(memory_format=torch.channels_last_3d)
    batch, channels, *size = x.shape
    library.call(
        name,
        *tensors,
        _ACTIVATIONS[activation or "none"],
        DTYPE_CODES[x.dtype],
        int(channels_last),
        batch,
        channels,
        size[0] * size[1] * size[2],
    )
