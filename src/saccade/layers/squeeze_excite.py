"""Squeeze-and-excitation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saccade.layers import streaming


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from its mean over time and space (arXiv 1709.01507).

    Mean over T, H, W -> ``fc1`` to ``hidden`` -> ReLU -> ``fc2`` -> sigmoid -> multiply. With ``per_frame``
    the mean is over H and W only, and each frame has its own gates; with ``window``, over H, W and that many
    frames up to each, as many as there are.

    Shapes: (B, C, T, H, W) -> (B, C, T, H, W); per frame or with a window, also the next frame of a stream,
    (B, C, H, W) -> (B, C, H, W).
    """

    def __init__(
        self, channels: int, hidden: int, *, bias: bool = True, per_frame: bool = False, window: int = 0
    ) -> None:
        super().__init__()
        self.fc1 = nn.Conv3d(channels, hidden, 1, bias=bias)
        self.fc2 = nn.Conv3d(hidden, channels, 1, bias=bias)
        self.pooled = (3, 4) if per_frame or window else (2, 3, 4)
        self.window = 1 if per_frame else window  # 0: the whole clip

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 4:
            return x * self.frame_gates(x.mean((2, 3)))[:, :, None, None]
        gate = x.mean(self.pooled, keepdim=True)
        if self.window > 1:
            gate = streaming.sliding_mean(gate, self.window)
        gate = self.fc2(F.relu(self.fc1(gate)))
        return x * torch.sigmoid(gate)

    def frame_gates(self, means: Tensor) -> Tensor:
        """Gates (B, C) of the next frame of a stream, whose means over H and W are (B, C)."""
        if self.window > 1:
            means = streaming.memory().window_mean(means, self.window)
        hidden = F.relu(F.linear(means, self.fc1.weight.flatten(1), self.fc1.bias))
        return torch.sigmoid(F.linear(hidden, self.fc2.weight.flatten(1), self.fc2.bias))
