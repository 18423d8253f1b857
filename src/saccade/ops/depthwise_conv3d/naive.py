"""The definition: a sum over the taps of the kernel, in plain PyTorch; any device, autograd's gradients."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def depthwise_conv3d(x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int]) -> Tensor:
    """y[b, c, o] = sum over taps k of weight[c, 0, k] * x[b, c, o * stride - padding + k]; zeros outside.

    16-bit types are summed in float32.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    size = output_size(x.shape[2:], weight.shape[2:], stride, padding)
    padded = F.pad(x.to(dtype), [p for pad in reversed(padding) for p in (pad, pad)])
    y = padded.new_zeros((*x.shape[:2], *size))
    for tap in itertools.product(*map(range, weight.shape[2:])):
        window = padded
        for axis, (first, step, count) in enumerate(zip(tap, stride, size, strict=True)):
            window = window[
                (slice(None),) * (axis + 2) + (slice(first, first + step * (count - 1) + 1, step),)
            ]
        kt, kh, kw = tap
        y = y + weight[:, 0, kt, kh, kw].to(dtype).view(-1, 1, 1, 1) * window
    return y.to(x.dtype)


def output_size(
    size: Sequence[int], kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int]
) -> tuple[int, ...]:
    """Positions of the output on T, H and W."""
    return tuple((n + 2 * p - k) // s + 1 for n, k, s, p in zip(size, kernel, stride, padding, strict=True))
