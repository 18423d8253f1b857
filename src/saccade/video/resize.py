"""Resizing frames that are already decoded (readers resize while decoding)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from saccade.video.sizes import short_side_size


def resize_short_side(frames: Tensor, size: int) -> Tensor:
    """Resize uint8 frames (N, H, W, 3) so that the short side is ``size``: bilinear, antialiased.

    The size follows `saccade.video.sizes.short_side_size`. Frames of that size are returned as they are.
    """
    height, width = short_side_size(frames.shape[1], frames.shape[2], size)
    if (height, width) == tuple(frames.shape[1:3]):
        return frames
    resized = F.interpolate(frames.permute(0, 3, 1, 2), (height, width), mode="bilinear", antialias=True)
    return resized.permute(0, 2, 3, 1).contiguous()


def resize_to(frames: Tensor, height: int, width: int) -> Tensor:
    """Resize uint8 frames (N, H, W, 3) to ``height`` × ``width``: bilinear, antialiased, on any device."""
    if (height, width) == tuple(frames.shape[1:3]):
        return frames
    # CUDA has no antialiased resizing of bytes, and rounds as the CPU does only from floats
    pixels = frames.permute(0, 3, 1, 2).float()
    resized = F.interpolate(pixels, (height, width), mode="bilinear", antialias=True)
    return resized.round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1)
