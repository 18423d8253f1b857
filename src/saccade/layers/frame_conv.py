"""Convolution in space only, computed as a 2-D convolution over all frames."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from saccade.layers.pointwise_conv import CHANNELS_FOR_STRIDED_IMAGES
from saccade.layers.streaming import convolve_frame

PaddingRule = Literal["symmetric", "same"]


class FrameConv3d(nn.Conv3d):
    """`nn.Conv3d` with a 1xKxK kernel and no bias; parameter names, initialisation and outputs are the same.

    The frames of a clip in channels-last memory are a batch of images without a copy, and PyTorch's 2-D
    convolutions are faster than 3-D ones with a kernel of one frame.

    Args:
        padding_rule: symmetric: half the kernel on all sides. same: TensorFlow's "same": the total follows
            from the size of the input, and the larger half of an odd one is below and on the right.

    Shapes: (B, C, T, H, W) -> (B, C', T, ceil(H / stride), ceil(W / stride)), or for one frame without T.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        spatial_stride: int = 1,
        groups: int = 1,
        padding_rule: PaddingRule = "symmetric",
    ) -> None:
        self.follows_size = padding_rule == "same" and spatial_stride > 1  # else both rules are the same
        pad = 0 if self.follows_size else kernel_size // 2
        super().__init__(
            in_channels,
            out_channels,
            (1, kernel_size, kernel_size),
            (1, spatial_stride, spatial_stride),
            (0, pad, pad),
            groups=groups,
            bias=False,
        )

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim == 4:
            return convolve_frame(self, self._padded(input))
        if self.kernel_size[1] == 1 < self.stride[1] and self.in_channels < CHANNELS_FOR_STRIDED_IMAGES:
            return super().forward(input)
        images = self._padded(input.transpose(1, 2).flatten(0, 1))
        assert not isinstance(self.padding, str)
        y = F.conv2d(images, self.weight[:, :, 0], None, self.stride[1:], self.padding[1:], 1, self.groups)
        return y.unflatten(0, (input.shape[0], -1)).transpose(1, 2)

    def _padded(self, images: Tensor) -> Tensor:
        if not self.follows_size:
            return images
        (top, bottom), (left, right) = (self._padding_of(size) for size in images.shape[2:])
        return F.pad(images, (left, right, top, bottom))

    def _padding_of(self, size: int) -> tuple[int, int]:
        """Pixels before and after an axis of that size."""
        kernel, stride = self.kernel_size[1], self.stride[1]
        total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
        return total // 2, total - total // 2
