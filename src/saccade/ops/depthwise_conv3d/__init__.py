"""The depthwise convolution over time and space. See the README beside this file."""

from __future__ import annotations

from saccade.ops.depthwise_conv3d.op import depthwise_conv3d, depthwise_conv3d_frame

__all__ = ["depthwise_conv3d", "depthwise_conv3d_frame"]
