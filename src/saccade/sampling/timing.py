"""When the frames of a video are shown, and where nothing was recorded.

The rules of `saccade.sampling.temporal` count frames. Where the rate of a video varies they count steps of
equal length instead, laid over each section of the recording, and a step shows what a player would: the last
frame at or before it (docs/sampling.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import ceil
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from saccade.video.reader import VideoReader
from saccade.video.times import is_steady, mean_rate, presentation_times

Indices = NDArray[np.int64]
Seconds = NDArray[np.float64]

GAP_SECONDS, GAP_INTERVALS = 1.0, 8
"""A gap is an interval between frames that is longer than both: so many seconds, and so many intervals at the
usual rate. docs/sampling.md says why."""

_ROUNDING = 1e-3  # seconds: containers round times to milliseconds


@dataclass(frozen=True, eq=False)
class FrameTimes:
    """The frames of a video in time. Seconds count from the first frame.

    Attributes:
        num_frames: frames of the video, N.
        fps: frames per second; where the rate varies the usual one.
        times: presentation time of each frame, float64 (N,), given as `VideoReader.times`; None where it is
            ``index / fps`` within half a frame.
    """

    num_frames: int
    fps: float
    times: Seconds | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.times is None:
            return
        if len(self.times) != self.num_frames:
            raise ValueError(f"{len(self.times)} times for {self.num_frames} frames")
        times = presentation_times(self.times, self.fps)
        times = times - times[0]
        even = np.abs(times - np.arange(self.num_frames) / self.fps) <= 0.5 / self.fps
        object.__setattr__(self, "times", None if even.all() else times)

    @classmethod
    def of(cls, video: VideoReader) -> Self:
        """Those of an open video."""
        return cls(len(video), video.fps, video.times)

    @cached_property
    def varies(self) -> bool:
        """Whether no one rate describes the times, so that clips are taken by time."""
        times = self.times
        return times is not None and not (is_steady(times) and abs(self.fps / mean_rate(times) - 1) <= 0.02)

    @property
    def duration(self) -> float:
        """Seconds, gaps included."""
        return self.num_frames / self.fps if self.times is None else float(self.ends(self.num_frames - 1))

    @cached_property
    def sections(self) -> tuple[tuple[int, int], ...]:
        """First frame of each stretch without a gap, and the one after its last. A single frame between two
        gaps, or between one and an end of the video, belongs to the gap.
        """
        if self.times is None or not self.varies:
            return ((0, self.num_frames),)
        cuts = (np.flatnonzero(np.diff(self.times) > self._longest_interval) + 1).tolist()
        every = tuple(zip([0, *cuts], [*cuts, self.num_frames], strict=True))
        return tuple(part for part in every if part[1] - part[0] > 1) or every

    @cached_property
    def gaps(self) -> tuple[tuple[float, float], ...]:
        """Start and end in seconds of the stretches in which nothing was recorded."""
        starts = [0.0, *(float(self.ends(stop - 1)) for _, stop in self.sections)]
        ends = [*(float(self.seconds(first)) for first, _ in self.sections), self.duration]
        return tuple((start, end) for start, end in zip(starts, ends, strict=True) if end > start)

    @property
    def longest_section(self) -> float:
        """Length of the longest section, in frames at ``fps``."""
        if not self.varies:
            return float(self.num_frames)
        return max(Steps(self, self.fps).lengths) * self.fps

    def section_end(self, frame: int) -> float:
        """When the section of a frame ends."""
        stops = [stop for _, stop in self.sections]
        return float(
            self.ends(stops[min(int(np.searchsorted(stops, frame, side="right")), len(stops) - 1)] - 1)
        )

    def section_nearest(self, seconds: float) -> tuple[int, int]:
        """The one of `sections` that is recorded at a time, or nearest to it."""
        return min(
            self.sections,
            key=lambda part: max(self.seconds(part[0]) - seconds, seconds - self.ends(part[1] - 1), 0.0),
        )

    def seconds(self, frames: ArrayLike) -> Seconds:
        """When frames are shown."""
        index = np.asarray(frames)
        return index / self.fps if self.times is None else self.times[index]

    def ends(self, frames: ArrayLike) -> Seconds:
        """When frames end: when the next is shown; before a gap, and at the end, after a usual interval."""
        index = np.asarray(frames)
        return (index + 1) / self.fps if self.times is None else self._ends[index]

    @cached_property
    def _ends(self) -> Seconds:
        assert self.times is not None
        after = np.append(self.times[1:], np.inf)
        return np.where(after - self.times > self._longest_interval, self.times + 1.0 / self.fps, after)

    def at(self, seconds: ArrayLike) -> Indices:
        """The frames shown at these times: the last at or before each, the first before the video begins."""
        if self.times is None:
            found = np.floor((np.asarray(seconds) + self._slack) * self.fps).astype(np.int64)
        else:
            found = np.searchsorted(self.times, np.asarray(seconds) + self._slack, side="right") - 1
        return np.clip(found, 0, self.num_frames - 1)

    @property
    def _longest_interval(self) -> float:
        return max(GAP_SECONDS, GAP_INTERVALS / self.fps)

    @property
    def _slack(self) -> float:
        return min(_ROUNDING, 0.25 / self.fps)


def stored_frame_times(
    num_frames: ArrayLike, fps: ArrayLike, timed: NDArray[np.bool_], times: Seconds
) -> tuple[FrameTimes, ...]:
    """The frame times of videos from arrays of a file.

    Args:
        num_frames, fps: (N,) of each video.
        timed: (N,) the videos that have `FrameTimes.times`; empty: none.
        times: those of them, one after the other.
    """
    counts, rates = np.asarray(num_frames), np.asarray(fps)
    has_times = timed if len(timed) else np.zeros(len(counts), np.bool_)
    parts = iter(np.split(times, np.cumsum(counts[has_times])))
    return tuple(
        FrameTimes(int(num), float(rate), next(parts) if has else None)
        for num, rate, has in zip(counts, rates, has_times, strict=True)
    )


def columns_in_gaps(gaps: Sequence[tuple[float, float]], duration: float, num: int) -> NDArray[np.bool_]:
    """In which of ``num`` equal parts of a video nothing was recorded, for a picture of it."""
    width = duration / num
    starts = np.arange(num) * width
    found = np.zeros(num, np.bool_)
    for first, last in gaps:
        found |= (first <= starts + 0.05 * width) & (starts + 0.95 * width <= last)
    return found


def gaps_dict(gaps: Sequence[tuple[float, float]]) -> dict[str, Any]:
    """``{"gaps": [...]}`` for JSON, times in seconds; empty where there are none."""
    listed = [{"start": round(start, 3), "end": round(end, 3)} for start, end in gaps]
    return {"gaps": listed} if listed else {}


@dataclass(frozen=True)
class Steps:
    """Steps of equal length over the sections of a video whose rate varies. The frames of a clip are given as
    numbers of steps, so that the rules that count frames can count these.

    Attributes:
        rate: steps per second.
    """

    video: FrameTimes
    rate: float

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Steps in each section."""
        return tuple(max(1, ceil(length * self.rate - 0.1)) for length in self.lengths)

    def points(self, stride: int) -> tuple[int, ...]:
        """How many steps a ``stride`` apart each section has."""
        return tuple(-(-count // stride) for count in self.counts)

    @cached_property
    def lengths(self) -> tuple[float, ...]:
        """Seconds of each section."""
        video = self.video
        return tuple(float(video.ends(stop - 1) - video.seconds(first)) for first, stop in video.sections)

    def frames(self, section: int, steps: ArrayLike) -> Indices:
        """The frames shown at steps of a section; beyond its ends, its first or last frame."""
        first, stop = self.video.sections[section]
        times = self.video.seconds(first) + np.asarray(steps) / self.rate
        return np.clip(self.video.at(times), first, stop - 1)

    def joined_frames(self, steps: Indices) -> Indices:
        """The frames at steps of all sections, counted without the gaps."""
        ends = np.cumsum(self.counts)
        found = np.empty_like(steps)
        sections = np.minimum(np.searchsorted(ends, steps, side="right"), len(ends) - 1)
        for section in np.unique(sections).tolist():
            rows = sections == section
            found[rows] = self.frames(section, steps[rows] - (ends[section] - self.counts[section]))
        return found

    @property
    def longest(self) -> int:
        """The section with the most steps, the first of several."""
        return int(np.argmax(self.counts))

    def placed(self, span: int, clips: Callable[[int], Indices]) -> Indices | None:
        """Clips drawn or spread over all starts of the sections that hold one, or None if none does.

        Args:
            span: steps that a clip takes.
            clips: gives the clips (..., T) of a video of so many steps.
        """
        starts = np.array([max(0, count - span + 1) for count in self.counts])
        if not starts.any():
            return None
        ends = np.cumsum(starts)
        found = clips(int(ends[-1]) - 1 + span)
        rows = []
        for clip in np.atleast_2d(found):
            start = int(np.clip(clip.min(), 0, ends[-1] - 1))
            section = int(np.searchsorted(ends, start, side="right"))
            rows.append(self.frames(section, clip - (ends[section] - starts[section])))
        return np.stack(rows).reshape(found.shape)
