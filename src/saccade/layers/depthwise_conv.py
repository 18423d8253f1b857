"""The depthwise convolution over time and space."""

from __future__ import annotations

from torch import Tensor, nn

from saccade.ops.depthwise_conv3d import depthwise_conv3d


class DepthwiseConv3d(nn.Conv3d):
    """`nn.Conv3d` with one group per channel and no bias, on `saccade.ops.depthwise_conv3d`.

    Parameter names and initialisation are the same as in `nn.Conv3d`.

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
        assert not isinstance(self.padding, str)
        return depthwise_conv3d(input, self.weight, stride=self.stride, padding=self.padding)
