"""Overlapping windows over a whole video, and the blending of their scores.

Shape letters: K classes, M sampled frames of the video (a stride apart), T frames of a window.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from saccade.clip import ClipSpec
from saccade.errors import UsageError
from saccade.sampling.timing import FrameTimes, Steps


@dataclass(frozen=True)
class Windows:
    """The positions of the windows of a video, and the weights of their frames.

    A frame near the end of a window lacks neighbours on one side, so its weight there is zero: the first and
    the last quarter of each overlap count only in the other window, and over the half between them the
    weight passes linearly from one window to the next. At the ends of the video, and at gaps, a window has
    full weight.

    Attributes:
        num_points: M.
        size: T.
        starts: first frame of each window, rising. A video or section shorter than a window has one window,
            whose last frame repeats.
        overlap: frames that neighbouring windows of a section share (the last two may share more).
        cuts: frames before which there is a gap, which no window crosses.
    """

    num_points: int
    size: int
    starts: tuple[int, ...]
    overlap: int
    cuts: tuple[int, ...] = ()

    def section(self, window: int) -> tuple[int, int]:
        """First frame of the section in which a window lies, and the one after its last."""
        ends = (0, *self.cuts, self.num_points)
        number = bisect_right(ends, self.starts[window])
        return ends[number - 1], ends[number]

    def frames(self, window: int) -> NDArray[np.int64]:
        """The frames of a window, each in 0 .. M-1: (T,)."""
        return np.minimum(self.starts[window] + np.arange(self.size), self.section(window)[1] - 1)

    def weights(self, window: int) -> NDArray[np.float64]:
        """The weights of the scores of a window's frames: (T,)."""
        start = self.starts[window]
        if not self.overlap:
            return np.ones(self.size)
        centre = np.arange(self.size) + 0.5
        edge, rise = self.overlap / 4, self.overlap / 2
        left: NDArray[Any] = np.ones(self.size)
        right: NDArray[Any] = np.ones(self.size)
        first, stop = self.section(window)
        if start > first:
            left = (centre - edge) / rise
        if start + self.size < stop:
            right = (self.size - centre - edge) / rise
        weights: NDArray[np.float64] = np.minimum(left, right).clip(0.0, 1.0)
        return weights


def plan_windows(num_points: int, size: int, *, overlap: float = 0.5, cuts: Sequence[int] = ()) -> Windows:
    """Windows of ``size`` frames that overlap by the fraction ``overlap`` and cover ``num_points`` frames. No
    window crosses one of ``cuts``, the frames before which there is a gap.

    Raises:
        UsageError: the overlap is not at least 0 and below 1.
    """
    if not 0 <= overlap < 1:
        raise UsageError(f"overlap: is a fraction of a window, 0 to below 1 (is {overlap})")
    if num_points < 1 or size < 1:
        raise ValueError(f"num_points {num_points} and size {size} must be at least 1")
    hop = max(1, round(size * (1 - overlap)))
    starts: list[int] = []
    for first, stop in pairwise((0, *cuts, num_points)):
        last = max(stop - size, first)
        starts += dict.fromkeys([*range(first, last, hop), last])
    return Windows(num_points, size, tuple(starts), size - hop, tuple(cuts))


def windows_over(video: FrameTimes, clip: ClipSpec | None, num_points: int, overlap: float) -> Windows:
    """Windows over the ``num_points`` frames of a video that are a stride apart; none crosses a gap."""
    cuts: list[int] = []
    if clip is not None and video.varies:
        cuts = np.cumsum(Steps(video, clip.target_fps).points(clip.stride))[:-1].tolist()
    return plan_windows(num_points, clip.num_frames if clip else 1, overlap=overlap, cuts=cuts)


class Blend:
    """Weighted mean of the scores of a video's overlapping windows.

    A network that is convolutional in time, with a receptive field of at most a quarter of the overlap to
    either side, gives the scores of one pass over the whole video.
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
        num = min(self.windows.size, self.windows.section(window)[1] - start)
        weights = self.windows.weights(window)[:num]
        self._sums[start : start + num] += weights[:, None] * rows[:num]
        self._weights[start : start + num] += weights

    def result(self) -> NDArray[np.float32]:
        """Scores of every frame: float32 (M, K)."""
        return (self._sums / self._weights[:, None]).astype(np.float32)
