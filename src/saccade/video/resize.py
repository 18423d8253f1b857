"""Resizing decoded frames (the readers of files resize while decoding).

Two functions for two places, both bilinear and antialiased. `resize_short_side` runs in the workers and
computes in bytes: fast, and what Pillow makes of the same frame but for 1 in 0.1 to 1 % of the values.
`resize_to` runs on the device of the model and computes in floats, which every device can: it gives the exact
value, rounded. The results of the two differ by 1 in about a fifth of the values.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from saccade.video.sizes import short_side_size


def resize_short_side(frames: Tensor, size: int) -> Tensor:
    """Resize uint8 frames (N, H, W, 3) on a CPU so that the short side is ``size``, in bytes.

    The size follows `saccade.video.sizes.short_side_size`. Frames of that size are returned as they are.
    """
    height, width = short_side_size(frames.shape[1], frames.shape[2], size)
    if (height, width) == tuple(frames.shape[1:3]):
        return frames
    resized = F.interpolate(frames.permute(0, 3, 1, 2), (height, width), mode="bilinear", antialias=True)
    return resized.permute(0, 2, 3, 1).contiguous()


def resize_to(frames: Tensor, height: int, width: int) -> Tensor:
    """Resize uint8 frames (N, H, W, 3) to ``height`` × ``width`` on any device, rounding to the nearest."""
    if (height, width) == tuple(frames.shape[1:3]):
        return frames
    # CUDA cannot resize bytes with antialiasing, and from floats it rounds as a CPU does
    pixels = frames.permute(0, 3, 1, 2).float()
    resized = F.interpolate(pixels, (height, width), mode="bilinear", antialias=True)
    return resized.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
