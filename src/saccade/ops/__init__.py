"""Operators that PyTorch does not have or that are slow in PyTorch, each with several backends."""

from __future__ import annotations

from saccade.ops._backend import backend_report, use_backend
from saccade.ops.batch_norm_act import batch_norm_act
from saccade.ops.depthwise_conv3d import depthwise_conv3d
from saccade.ops.shift import shift2d, shift3d

__all__ = [
    "backend_report",
    "batch_norm_act",
    "depthwise_conv3d",
    "shift2d",
    "shift3d",
    "use_backend",
]
