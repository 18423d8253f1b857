"""The native CPU kernels of the depthwise convolution, on channels-last-3d memory.

In that layout the channels of a position lie side by side, so a vector of channels is loaded, multiplied and
stored at once; other layouts are copied first.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from saccade.ops._library import DTYPE_CODES, native_library
from saccade.ops.depthwise_conv3d.naive import output_size

KERNEL_SIZES = (1, 3, 5)  # on each axis


def runs(kernel: Sequence[int]) -> bool:
    """Whether there are native kernels of this size."""
    return all(k in KERNEL_SIZES for k in kernel)


def forward(
    x: Tensor, weight: Tensor, stride: Sequence[int], padding: Sequence[int], causal: bool = False
) -> Tensor:
    """x (B, C, T, H, W), weight (C, 1, KT, KH, KW); the output is channels-last-3d."""
    x, weight = dense(x), weight.contiguous()
    kernel = weight.shape[2:]
    size = output_size(x.shape[2:], kernel, stride, padding, causal)
    y = allocate(x, (*x.shape[:2], *size), torch.channels_last_3d)
    if y.numel():
        numbers = (*x.shape, *size, *kernel, *stride, *padding)
        _call("depthwise_conv3d", DTYPE_CODES[x.dtype], x, weight, y, *numbers)
    return y


def forward_frame(
    frames: Sequence[Tensor], weight: Tensor, stride: Sequence[int], padding: Sequence[int]
) -> Tensor:
    """KT frames (B, C, H, W) -> one frame, channels-last."""
    clip = torch.stack([frame.permute(0, 2, 3, 1) for frame in frames], 1).permute(0, 4, 1, 2, 3)
    return forward(clip, weight, (1, *stride), (0, *padding)).squeeze(2)


def backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    stride: Sequence[int],
    padding: Sequence[int],
    need_input: bool,
    need_weight: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of x and of the weight, each or both, in one pass over ``grad`` and x."""
    grad, x, weight = dense(grad), dense(x), weight.contiguous()
    grad_x = allocate(x, x.shape, torch.channels_last_3d) if need_input else None
    grad_weight = allocate(weight, weight.shape, torch.contiguous_format) if need_weight else None
    if not grad.numel():
        return (
            None if grad_x is None else grad_x.zero_(),
            None if grad_weight is None else grad_weight.zero_(),
        )
    numbers = (*x.shape, *grad.shape[2:], *weight.shape[2:], *stride, *padding)
    tensors = (grad, x, weight, grad_x, grad_weight)
    _call("depthwise_conv3d_backward", DTYPE_CODES[x.dtype], *tensors, *numbers)
    return grad_x, grad_weight


def allocate(like: Tensor, shape: Sequence[int], layout: torch.memory_format) -> Tensor:
    """Uninitialised memory; tests fill it with NaN."""
    return torch.empty(tuple(shape), dtype=like.dtype, device=like.device, memory_format=layout)


def dense(x: Tensor) -> Tensor:
    """``x`` in channels-last-3d layout, copied where it is not."""
    return x.contiguous(memory_format=torch.channels_last_3d)


def _call(name: str, *args: Tensor | int | None) -> None:
    library = native_library()
    assert library is not None  # else another backend would have been chosen
    library.call(name, *args)
