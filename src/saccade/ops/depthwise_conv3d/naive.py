"""The definition: a sum over the taps of the kernel, in plain PyTorch; any device, autograd's gradients."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def depthwise_conv3d(
    x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], causal: bool = False
) -> Tensor:
    """y[b, c, o] = sum over taps k of weight[c, 0, k] * x[b, c, o * stride - padding + k]; zeros outside.

    16-bit types are summed in float32.
    """
    dtype = torch.promote_types(x.dtype, torch.float32)
    size = output_size(x.shape[2:], weight.shape[2:], stride, padding, causal)
    padded = F.pad(x.to(dtype), both_ends(padding, causal))
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
    size: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    causal: bool = False,
) -> tuple[int, ...]:
    """Positions of the output on T, H and W."""
    after = (0 if causal else padding[0], *padding[1:])
    return tuple(
        (n + p + q - k) // s + 1 for n, k, s, p, q in zip(size, kernel, stride, padding, after, strict=True)
    )


def both_ends(padding: Sequence[int], causal: bool) -> list[int]:
    """The padding as `torch.nn.functional.pad` takes it: last axis first, before and after."""
    t, h, w = padding
    return [w, w, h, h, t, 0 if causal else t]
