"""The depthwise convolution over time and space."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from saccade.layers import streaming
from saccade.ops.depthwise_conv3d import depthwise_conv3d, depthwise_conv3d_frame


class DepthwiseConv3d(nn.Conv3d):
    """`nn.Conv3d` with one group per channel and no bias, on `saccade.ops.depthwise_conv3d`.

    Parameter names and initialisation are the same as in `nn.Conv3d`.

    With ``causal`` a frame of the output sees no later frame: T is padded on the left alone, by the kernel's
    frames - 1.

    Shapes: (B, C, T, H, W) -> (B, C, T', H', W'); causal, also the next frame of a stream, (B, C, H, W) ->
    (B, C, H', W').
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int | tuple[int, int, int],
        *,
        stride: int | tuple[int, int, int] = 1,
        padding: int | tuple[int, int, int] = 0,
        causal: bool = False,
    ) -> None:
        super().__init__(channels, channels, kernel_size, stride, padding, groups=channels, bias=False)
        self.causal = causal
        if causal:
            assert not isinstance(self.padding, str)
            self.padding = (self.kernel_size[0] - 1, *self.padding[1:])

    def forward(self, input: Tensor) -> Tensor:
        assert not isinstance(self.padding, str)
        if input.ndim == 4:
            count = self.kernel_size[0] - 1
            past = streaming.memory().past(input, count) if count else []
            return depthwise_conv3d_frame(
                [*past, input], self.weight, stride=self.stride[1:], padding=self.padding[1:]
            )
        return depthwise_conv3d(
            input, self.weight, stride=self.stride, padding=self.padding, causal=self.causal
        )

    @property
    def temporal_reach(self) -> tuple[int, int]:
        """How many frames before and after its own a frame of the output sees."""
        kernel = self.kernel_size[0]
        return (kernel - 1, 0) if self.causal else (kernel // 2, kernel // 2)

    def causal_tensors(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """How to change tensors of a layer that is not causal."""
        return {"weight": causal_weight} if self.causal else {}


def causal_weight(weight: Tensor) -> Tensor:
    """The causal kernel (C, 1, KT, KH, KW) for one that is centred: taps of later frames are added to that of
    the present one, so that the output for a still picture is the same.
    """
    middle = weight.shape[2] // 2
    moved = torch.zeros_like(weight)
    moved[:, :, middle:] = weight[:, :, : middle + 1]
    moved[:, :, -1] += weight[:, :, middle + 1 :].sum(2)
    return moved
