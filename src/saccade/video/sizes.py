"""What the readers share: sizes after resizing, turning pictures upright, the check of frame indices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from saccade.errors import VideoError

if TYPE_CHECKING:
    import av


def short_side_size(height: int, width: int, size: int) -> tuple[int, int]:
    """(height, width) after resizing so that the short side is ``size``; the long side is rounded down."""
    if min(height, width) == size:
        return height, width
    if width < height:
        return math.floor(float(height) / width * size), size
    return size, math.floor(float(width) / height * size)


def resized(height: int, width: int, short_side: int | None) -> tuple[int, int]:
    """Height and width with the shorter side brought to ``short_side``; the longer one is rounded down.

    The arithmetic is that of PySlowFast's ``random_short_side_scale_jitter``.
    """
    return (height, width) if short_side is None else short_side_size(height, width, short_side)


def check_indices(path: str, indices: Sequence[int], num_frames: int) -> list[int]:
    """``indices`` as plain integers, or a VideoError naming the first that does not exist."""
    numbers = np.asarray(indices)
    if numbers.size and (numbers.ndim != 1 or not np.issubdtype(numbers.dtype, np.integer)):
        raise TypeError(f"frame indices must be a sequence of integers, got {indices!r}")
    result: list[int] = numbers.astype(np.int64).tolist()
    for i in result:
        if not 0 <= i < num_frames:
            raise VideoError(path, f"has no frame {i}: it has {num_frames}, numbered from 0")
    return result


class Turn(NamedTuple):
    """How stored pictures are shown: rows and columns swapped first, then reversed."""

    transposed: bool = False
    rows_reversed: bool = False
    columns_reversed: bool = False

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """A view of ``picture`` (H, W, 3), upright."""
        if self.transposed:
            picture = picture.swapaxes(0, 1)
        return picture[:: -1 if self.rows_reversed else 1, :: -1 if self.columns_reversed else 1]


def display_turn(picture: av.VideoFrame) -> Turn:
    """The display matrix rounded to quarter turns and mirroring, as ``ffmpeg -autorotate`` applies it."""
    side_data: Any = picture.side_data  # PyAV's stub does not know its keys
    try:
        matrix = side_data["DISPLAYMATRIX"]
    except KeyError:
        return Turn()
    # A pixel (x, y) is shown at (a x + c y, b x + d y).
    a, b, _, c, d = np.frombuffer(bytes(matrix), np.int32)[:5].tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        return Turn(True, b < 0, c < 0)
    return Turn(False, d < 0, a < 0)
