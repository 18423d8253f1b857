"""The depthwise convolution over time and space."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class DepthwiseConv3d(nn.Conv3d):
    """`nn.Conv3d` with one group per channel and no bias; under autocast on a CPU it trains in float32.

    PyTorch's bfloat16 backward of this convolution in channels-last-3d layout reads memory that nothing has
    written (seen with torch 2.13 on an AVX-512 CPU): gradients are then now and then not finite.

    Shapes: (B, C, T, H, W) -> (B, C, T', H', W').
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int | tuple[int, int, int],
        *,
        stride: int | tuple[int, int, int] = 1,
        padding: int | tuple[int, int, int] = 0,
    ) -> None:
        super().__init__(channels, channels, kernel_size, stride, padding, groups=channels, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type == "cpu" and torch.is_grad_enabled() and torch.is_autocast_enabled("cpu"):
            with torch.autocast("cpu", enabled=False):
                return super().forward(input.to(self.weight.dtype))
        return super().forward(input)
