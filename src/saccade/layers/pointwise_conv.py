"""1x1x1 convolution, computed as a 2-D convolution over all frames on one CPU thread."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from saccade.layers.streaming import SpatialConv3d

# From this batch size on, PyTorch uses oneDNN for 3-D convolutions with any number of threads.
_CLIPS_FOR_ONEDNN = 16

# With fewer input channels than a vector of AVX2 holds, the backward pass of oneDNN's strided 2-D convolution
# writes beyond its buffer on processors without AVX-512 (PyTorch 2.13). The 3-D one does not: see
# tools/scan_convolutions.py.
CHANNELS_FOR_STRIDED_IMAGES = 8


class PointwiseConv3d(SpatialConv3d):
    """`nn.Conv3d` with a 1x1x1 kernel; parameter names, initialisation and outputs are the same.

    For few clips on one thread PyTorch does not use oneDNN, and is about three times slower on the layers of
    X3D-S. The frames of a channels-last clip have the memory layout of a batch of images, and for a batch of
    that many images PyTorch uses oneDNN.

    Shapes: (B, C, T, H, W) -> (B, C', T, H', W'), or for one frame (B, C, H, W) -> (B, C', H', W').
    """

    def __init__(
        self, in_channels: int, out_channels: int, *, spatial_stride: int = 1, bias: bool = False
    ) -> None:
        super().__init__(in_channels, out_channels, 1, stride=(1, spatial_stride, spatial_stride), bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        if (
            input.ndim == 4
            or torch.compiler.is_compiling()
            or torch.jit.is_tracing()
            or (self.stride[1] > 1 and self.in_channels < CHANNELS_FOR_STRIDED_IMAGES)
            or not _better_as_images(input)
        ):
            return super().forward(input)
        batch, channels, frames, height, width = input.shape
        images = (
            input.permute(0, 2, 3, 4, 1).view(batch * frames, height, width, channels).permute(0, 3, 1, 2)
        )
        y = F.conv2d(images, self.weight[..., 0], self.bias, stride=self.stride[1:])
        return y.permute(0, 2, 3, 1).reshape(batch, frames, *y.shape[2:], -1).permute(0, 4, 1, 2, 3)


def _better_as_images(clips: Tensor) -> bool:
    return (
        clips.device.type == "cpu"
        and clips.dtype == torch.float32
        and clips.shape[0] < _CLIPS_FOR_ONEDNN
        and torch.get_num_threads() == 1
        and clips.numel() > 0
        and clips.is_contiguous(memory_format=torch.channels_last_3d)
        and not clips.is_contiguous()
    )
