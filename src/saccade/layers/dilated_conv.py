"""Depthwise convolution with spatial dilation, for the last stage of a detector."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from saccade.layers.depthwise_conv import DepthwiseConv3d


class DilatedDepthwiseConv3d(DepthwiseConv3d):
    """A depthwise 3x3x3 convolution of stride 1 with dilation (1, d, d); it keeps the shape.

    Pixels interact only if their rows and columns are equal modulo d, so the map is split into d x d maps;
    the plain convolution runs on these, and the results are interleaved. Parameters as in `DepthwiseConv3d`.

    Shapes: (B, C, T, H, W) -> (B, C, T, H, W).
    """

    def __init__(self, channels: int, *, spatial_dilation: int, causal: bool = False) -> None:
        super().__init__(channels, 3, padding=1, causal=causal)
        self.spatial_dilation = spatial_dilation

    def forward(self, input: Tensor) -> Tensor:
        d = self.spatial_dilation
        batch, channels, frames, height, width = input.shape
        x = F.pad(input, (0, -width % d, 0, -height % d))
        rows, columns = x.shape[3] // d, x.shape[4] // d
        parts = x.view(batch, channels, frames, rows, d, columns, d).permute(0, 4, 6, 1, 2, 3, 5)
        parts = parts.reshape(batch * d * d, channels, frames, rows, columns)
        last = torch.channels_last_3d
        layout = last if input.is_contiguous(memory_format=last) else torch.contiguous_format
        parts = parts.contiguous(memory_format=layout)
        y = super().forward(parts)
        y = y.reshape(batch, d, d, channels, frames, rows, columns).permute(0, 3, 4, 5, 1, 6, 2)
        y = y.reshape(batch, channels, frames, rows * d, columns * d)
        return y[..., :height, :width].contiguous(memory_format=layout)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, spatial_dilation={self.spatial_dilation}"
