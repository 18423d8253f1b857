"""uint8 frames to normalised floats, in as few passes over memory as PyTorch allows."""

from __future__ import annotations

import torch
from torch import Tensor

GRAY = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey (ITU-R BT.601)."""


def batch_layout(per_channel: Tensor) -> Tensor:
    """View (3,) as (1, 1, 3): clip, frame, channel."""
    return per_channel.view(1, 1, 3)


def affine(
    pixels: Tensor, scale: Tensor, offset: Tensor, *, gray: Tensor | None = None, channels_last: bool = False
) -> Tensor:
    """``scale * pixels + gray * grey + offset`` in float32: uint8 (B, T, H, W, 3) to (B, 3, T, H, W).

    Factors broadcast over (B, T, 3). Both memory formats give the same bits. Broadcasting along an innermost
    dimension of three channels, or multiplying while converting, was 3 to 30 times slower on a CPU.
    """
    scale, offset = (factor.to(pixels.device, torch.float32) for factor in (scale, offset))
    batch, length, height, width, _ = pixels.shape
    luma = None
    if gray is not None:
        red, green, blue = (pixels[..., c].to(torch.float32) * GRAY[c] for c in range(3))
        luma = red.add_(green).add_(blue)  # (B, T, H, W)
        gray = gray.to(pixels.device, torch.float32)
    if not channels_last:
        out = pixels.permute(0, 4, 1, 2, 3).to(torch.float32, memory_format=torch.contiguous_format)
        out.mul_(_planes(scale))
        if gray is not None and luma is not None:
            out.add_(luma[:, None] * _planes(gray))
        return out.add_(_planes(offset))
    rows = pixels.reshape(batch, length, height, width * 3).to(torch.float32)
    rows.mul_(_rows(scale, width))
    if gray is not None and luma is not None:
        rows.add_(luma.repeat_interleave(3, dim=-1).mul_(_rows(gray, width)))
    rows.add_(_rows(offset, width))
    return rows.view(batch, length, height, width, 3).permute(0, 4, 1, 2, 3)


def _planes(factor: Tensor) -> Tensor:
    """(B, T, 3) to (B, 3, T, 1, 1)."""
    return factor.transpose(1, 2)[..., None, None]


def _rows(factor: Tensor, width: int) -> Tensor:
    """(B, T, 3) to (B, T, 1, width * 3): the factors of one row of interleaved pixels."""
    return factor.repeat(1, 1, width)[:, :, None]
