"""Rounding of channel counts to multiples of 8."""

from __future__ import annotations


def round_channels(width: float, *, divisor: int = 8) -> int:
    """``width`` rounded to a multiple of ``divisor``, at least ``divisor`` and at least 90 % of ``width``.

    The rule of MobileNet that X3D (arXiv 2004.04730) uses: 278.4 -> 280, 3.375 -> 8; 27 -> 32, because 24
    would lose 11 %.
    """
    rounded = max(divisor, int(width + divisor / 2) // divisor * divisor)
    if rounded < 0.9 * width:
        rounded += divisor
    return rounded
