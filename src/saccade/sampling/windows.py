"""A whole video through a model that sees a clip of it: overlapping windows joined without seams.

Shape letters: K classes, M frames of the video that are looked at (a stride apart), T frames of a window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from saccade.errors import UsageError


@dataclass(frozen=True)
class Windows:
    """Where the windows of a video lie.

    A frame near the end of a window lacks neighbours on one side, so it weighs nothing there: the first and
    the last quarter of each overlap count only in the other window, and in the half between them the weight
    passes from one window to the next in a straight line. At the ends of the video the window has all there
    is, and full weight.

    Attributes:
        num_points: M.
        size: T.
        starts: first frame of each window, rising. A video shorter than a window has one window, whose last
            frame repeats.
        overlap: frames that neighbouring windows share (the last two may share more).
    """

    num_points: int
    size: int
    starts: tuple[int, ...]
    overlap: int

    def frames(self, window: int) -> NDArray[np.int64]:
        """The frames of a window, each in 0 .. M-1: (T,)."""
        return np.minimum(self.starts[window] + np.arange(self.size), self.num_points - 1)

    def weights(self, window: int) -> NDArray[np.float64]:
        """How much the scores of a window's frames count: (T,)."""
        start = self.starts[window]
        if not self.overlap:
            return np.ones(self.size)
        place = np.arange(self.size) + 0.5
        edge, rise = self.overlap / 4, self.overlap / 2
        left: NDArray[Any] = np.ones(self.size)
        right: NDArray[Any] = np.ones(self.size)
        if start > 0:
            left = (place - edge) / rise
        if start + self.size < self.num_points:
            right = (self.size - place - edge) / rise
        weights: NDArray[np.float64] = np.minimum(left, right).clip(0.0, 1.0)
        return weights


def plan_windows(num_points: int, size: int, *, overlap: float = 0.5) -> Windows:
    """Windows of ``size`` frames that share about ``overlap`` of them and cover ``num_points`` frames.

    Raises:
        UsageError: the overlap is not at least 0 and below 1.
    """
    if not 0 <= overlap < 1:
        raise UsageError(f"overlap: is a fraction of a window, 0 to below 1 (is {overlap})")
    if num_points < 1 or size < 1:
        raise ValueError(f"{num_points} frames and windows of {size} make no plan")
    hop = max(1, round(size * (1 - overlap)))
    last = max(num_points - size, 0)
    starts = tuple(dict.fromkeys([*range(0, last, hop), last]))
    return Windows(num_points, size, starts, size - hop)


class Blend:
    """Joins the scores of a video's windows.

    The result is linear in them: a network that is convolutional in time, and whose reach to either side is
    at most a quarter of the overlap, gives what it would give in one pass over the whole video.
    """

    def __init__(self, windows: Windows, num_classes: int) -> None:
        self.windows = windows
        self._sums = np.zeros((windows.num_points, num_classes))
        self._weights = np.zeros(windows.num_points)

    def add(self, window: int, scores: ArrayLike) -> None:
        """Scores (K, T) of a window's frames."""
        rows = np.asarray(scores, np.float64).T
        if len(rows) != self.windows.size:
            raise ValueError(f"{len(rows)} scores for a window of {self.windows.size} frames")
        start = self.windows.starts[window]
        num = min(self.windows.size, self.windows.num_points - start)
        weights = self.windows.weights(window)[:num]
        self._sums[start : start + num] += weights[:, None] * rows[:num]
        self._weights[start : start + num] += weights

    def result(self) -> NDArray[np.float32]:
        """Scores of every frame: float32 (M, K)."""
        return (self._sums / self._weights[:, None]).astype(np.float32)
