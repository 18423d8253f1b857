"""Squeeze-and-excitation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from its mean over time and space (arXiv 1709.01507).

    Mean over T, H, W -> ``fc1`` to ``hidden`` -> ReLU -> ``fc2`` -> sigmoid -> multiply. With ``per_frame``
    the mean is over H and W only, and each frame has its own gates.

    Shapes: (B, C, T, H, W) -> (B, C, T, H, W).
    """

    def __init__(self, channels: int, hidden: int, *, bias: bool = True, per_frame: bool = False) -> None:
        super().__init__()
        self.fc1 = nn.Conv3d(channels, hidden, 1, bias=bias)
        self.fc2 = nn.Conv3d(hidden, channels, 1, bias=bias)
        self.pooled = (3, 4) if per_frame else (2, 3, 4)

    def forward(self, x: Tensor) -> Tensor:
        gate = x.mean(self.pooled, keepdim=True)
        gate = self.fc2(F.relu(self.fc1(gate)))
        return x * torch.sigmoid(gate)
