"""The backend ``torch``: the shift built from PyTorch operators, where no kernel is available.

One axis after the other: the two neighbours are gathered, and blended by the channel's weight. Autograd
differentiates it.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from saccade.ops.shift.naive import output_size


def shift(x: Tensor, shift: Tensor, stride: Sequence[int], padding: Sequence[int], quantize: bool) -> Tensor:
    """What `saccade.ops.shift.naive.shift3d` defines, in another order of summation; also in two dimensions,
    with x (B, C, H, W) and shift (2, C).
    """
    compute = torch.float64 if x.dtype == torch.float64 else torch.float32
    values, shift = x.to(compute), shift.to(compute)
    whole = shift.detach().floor()
    fraction = shift - whole
    if quantize:
        out = _blend(values, whole, (fraction.detach() >= 0.5).to(compute), stride, padding)
        if shift.requires_grad and torch.is_grad_enabled():
            smooth = _blend(values.detach(), whole, fraction, stride, padding)
            out = out + (smooth - smooth.detach())
    else:
        out = _blend(values, whole, fraction, stride, padding)
    return out.to(x.dtype)


def _blend(
    x: Tensor, whole: Tensor, fraction: Tensor, stride: Sequence[int], padding: Sequence[int]
) -> Tensor:
    sizes = output_size(x.shape[2:], stride, padding)
    # strided axes first: what follows is smaller
    for axis in sorted(range(len(sizes)), key=lambda a: -stride[a]):
        x = _blend_axis(x, axis, whole[axis], fraction[axis], sizes[axis], stride[axis], padding[axis])
    return x


def _blend_axis(
    x: Tensor, axis: int, whole: Tensor, fraction: Tensor, size: int, stride: int, padding: int
) -> Tensor:
    """(B, C, .., L, ..) -> (B, C, .., size, ..)"""
    dim, length = axis + 2, x.shape[axis + 2]
    far = max(length, size * stride) + padding + 1  # further away nothing is inside either
    first = whole.nan_to_num().clamp(-far, far).long()[:, None] - padding
    # at stride 1 an output's second neighbour is the next one's first
    reads = torch.arange(size + 1 if stride == 1 else size, device=x.device) * stride
    near = _read(x, dim, first + reads)
    if stride == 1:
        near, next_ = near.narrow(dim, 0, size), near.narrow(dim, 1, size)
    else:
        next_ = _read(x, dim, first + reads + 1)
    weight = fraction.view(-1, *(1,) * (x.dim() - 2))
    return near * (1 - weight) + next_ * weight


def _read(x: Tensor, dim: int, position: Tensor) -> Tensor:
    """x at ``position`` (C, N) of axis ``dim``, zero outside."""
    shape = [1, x.shape[1], *(1,) * (x.dim() - 2)]
    shape[dim] = position.shape[1]
    length = x.shape[dim]
    inside = ((position >= 0) & (position < length)).view(shape)
    position = position.clamp(0, length - 1).view(shape)
    size = list(x.shape)
    size[dim] = position.shape[dim]
    return x.gather(dim, position.expand(size)).where(inside, x.new_zeros(()))
