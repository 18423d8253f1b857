"""The definition of the shift operator in plain PyTorch, to be read and to be tested against.

RubiksNet's learnable shift (ECCV 2020, section 3; github.com/StanfordVL/RubiksNet): every channel of a clip
is moved by a real number of frames and pixels of its own, and read between the grid points by linear
interpolation.

Shapes: x (B, C, T, H, W), shift (3, C) with the rows T, H and W, in frames and pixels.
Any device; differentiated by autograd.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor


def shift3d(
    x: Tensor, shift: Tensor, stride: Sequence[int], padding: Sequence[int], quantize: bool = False
) -> Tensor:
    """Output o reads the input at o * stride - padding + shift[:, c]; outside the frame there are zeros.

    With ``quantize`` the shift is rounded half up. The gradient of x is then the exact adjoint of that, the
    gradient of the shift is computed without rounding (straight-through).
    """
    compute = torch.float64 if x.dtype == torch.float64 else torch.float32
    values, shift = x.to(compute), shift.to(compute)
    if quantize:
        whole = torch.floor(shift)
        out = _blend(values, (whole + (shift - whole >= 0.5)).detach(), stride, padding)
        if shift.requires_grad:
            smooth = _blend(values.detach(), shift, stride, padding)
            out = out + (smooth - smooth.detach())
    else:
        out = _blend(values, shift, stride, padding)
    return out.to(x.dtype)


def output_size(size: Sequence[int], stride: Sequence[int], padding: Sequence[int]) -> list[int]:
    """floor((L + 2 * padding - 1) / stride) + 1 on every axis."""
    return [(n + 2 * p - 1) // s + 1 for n, s, p in zip(size, stride, padding, strict=True)]


def _blend(x: Tensor, shift: Tensor, stride: Sequence[int], padding: Sequence[int]) -> Tensor:
    """The eight neighbours of every source position, each with the product of its three weights."""
    whole = torch.floor(shift).detach()
    fraction = shift - whole  # its derivative is 1, at whole numbers too: the right derivative
    sizes = x.shape[2:]
    starts = [
        torch.arange(n, device=x.device) * s - p
        for n, s, p in zip(output_size(sizes, stride, padding), stride, padding, strict=True)
    ]
    channels = torch.arange(x.shape[1], device=x.device).view(-1, 1, 1, 1)
    total = x.new_zeros(x.shape[:2] + tuple(len(start) for start in starts))
    for corner in itertools.product((0, 1), repeat=3):
        weight = x.new_ones(x.shape[1], 1, 1, 1)
        inside = torch.ones_like(weight, dtype=torch.bool)
        index = []
        for axis, step in enumerate(corner):
            far = max(sizes[axis], starts[axis].numel() * stride[axis]) + padding[axis] + 1
            first = whole[axis].nan_to_num().clamp(-far, far).long()  # further away nothing is inside either
            position = starts[axis] + first.view(-1, 1) + step
            position = position.view(-1, *(position.shape[1] if a == axis else 1 for a in range(3)))
            inside = inside & (position >= 0) & (position < sizes[axis])
            index.append(position.clamp(0, max(sizes[axis] - 1, 0)))
            weight = weight * (fraction[axis] if step else 1 - fraction[axis]).view(-1, 1, 1, 1)
        value = x[:, channels, index[0], index[1], index[2]]
        total = total + weight * value.where(inside, value.new_zeros(()))
    return total
