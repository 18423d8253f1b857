"""When the frames of a file are shown: the times it states, mended, and the rate that describes them."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Seconds = NDArray[np.float64]

_RESTART = 16
"""Frame intervals. A time that falls by more is a clock that began again (a joined stream), one that falls by
less a wrong stamp: decoders reorder up to 16 frames."""

_LONGEST = 86_400.0
"""Seconds. A file whose frames are usually further apart does not state times."""


def presentation_times(stamps: ArrayLike, fps: float) -> Seconds:
    """Time of each frame in seconds, float64 (N,), rising.

    Args:
        stamps: (N,) what the file states for the frames in order of presentation; NaN where it states none.
        fps: for a file that states a time for fewer than half of its frames, or times that are days apart,
            where the times are ``index / fps``.

    A frame with no time, with the time of an earlier frame, or with one that lies far beyond the frames after
    it, is put on the line between its neighbours. After a clock that begins again the times go on where they
    were.
    """
    stated = np.asarray(stamps, np.float64)
    num = len(stated)
    rows = np.flatnonzero(np.isfinite(stated))
    forward = np.diff(stated[rows]) / np.diff(rows)
    forward = forward[forward > 0]
    interval = lower_median(forward) if len(forward) else 1.0 / fps
    if interval > _LONGEST or len(rows) < min(num, max(2, num / 2)):
        return np.arange(num) / fps
    if len(rows) == num and len(forward) == num - 1:
        return stated
    before, here, after = stated[rows[:-2]], stated[rows[1:-1]], stated[rows[2:]]
    outliers = (before < after) & (here > after + _RESTART * interval)
    rows = np.delete(rows, 1 + np.flatnonzero(outliers))
    known = stated[rows]
    between, counts = np.diff(known), np.diff(rows)
    restarts = between < -_RESTART * interval
    known = known + np.concatenate([[0.0], np.cumsum(np.where(restarts, interval * counts - between, 0.0))])
    highest = np.maximum.accumulate(known)
    new = np.concatenate([[True], known[1:] > highest[:-1]])
    rows, known = rows[new], known[new]
    index = np.arange(num)
    times = np.interp(index, rows, known)
    times += np.minimum(index - rows[0], 0) * interval + np.maximum(index - rows[-1], 0) * interval
    if not (np.diff(times) > 0).all():  # stamps so far apart that float64 cannot tell what lies between them
        return np.arange(num) / fps
    return times


def is_steady(times: Seconds) -> bool:
    """Whether one rate describes the times: every frame lies within half a frame of the line from the first
    to the last.
    """
    if len(times) < 3:
        return True
    interval = (times[-1] - times[0]) / (len(times) - 1)
    line = times[0] + np.arange(len(times)) * interval
    return bool((np.abs(times - line) <= 0.5 * interval).all())


def usual_rate(stamps: ArrayLike, stated: float) -> float:
    """Frames per second: the header's rate if the times agree with it within 2 %, else theirs, because
    headers can be wrong; where the rate varies, the rate of the median interval.

    Containers round times, many to milliseconds, so this is the mean of the intervals that differ from the
    median by a quarter at most.

    Args:
        stamps: (N,) times in seconds as the file states them; NaN where it states none.
        stated: the rate of the header; 0: none.
    """
    times = presentation_times(stamps, stated or 30.0)
    if len(times) < 2:
        return stated or 30.0
    if is_steady(times):
        measured = mean_rate(times)
        return measured if not stated or abs(stated / measured - 1) > 0.02 else stated
    intervals = np.diff(times)
    median = lower_median(intervals)
    return round(1.0 / float(intervals[np.abs(intervals - median) <= median / 4].mean()), 6)


def mean_rate(times: Seconds) -> float:
    """Frames per second from the first frame to the last."""
    return float((len(times) - 1) / (times[-1] - times[0]))


def lower_median(values: Seconds) -> float:
    """The median; of two values in the middle the smaller, so that it is one of the values."""
    return float(np.sort(values)[(len(values) - 1) // 2])
