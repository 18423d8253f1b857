"""What a model that localises gives for one video.

Shape letters: N frames, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.sampling.timing import FrameTimes, gaps_dict

THRESHOLD = 0.5


@dataclass(frozen=True)
class Segment:
    """A stretch of a video in which a class is there: ``start`` and ``end`` in seconds, its highest score."""

    label: str
    start: float
    end: float
    score: float

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, times in seconds."""
        return {
            "label": self.label,
            "start": round(self.start, 3),
            "end": round(self.end, 3),
            "score": round(self.score, 6),
        }


@dataclass(frozen=True, eq=False)
class Timeline:
    """Scores of every class at every frame of a video.

    Attributes:
        path: the video.
        class_names: in label order.
        scores: float32 (N, K), each in 0..1 by itself.
        fps: frames per second, where the rate varies the usual one.
        timing: the frames in time; default: ``index / fps``.
    """

    path: str
    class_names: tuple[str, ...]
    scores: NDArray[np.float32] = field(repr=False)
    fps: float
    timing: FrameTimes | None = None

    @cached_property
    def frames(self) -> FrameTimes:
        """The frames in time."""
        return self.timing or FrameTimes(len(self.scores), self.fps)

    @property
    def duration(self) -> float:
        """Seconds."""
        return self.frames.duration

    @property
    def gaps(self) -> tuple[tuple[float, float], ...]:
        """Start and end in seconds of the stretches in which nothing was recorded."""
        return self.frames.gaps

    def frames_at(self, num_columns: int) -> NDArray[np.int64]:
        """The frames shown in the middle of each of ``num_columns`` equal parts of the video; -1 in a gap."""
        columns = np.arange(num_columns) + 0.5
        if not self.frames.varies:
            return (columns * len(self.scores) / num_columns).astype(np.int64)
        times = columns * self.duration / num_columns
        outside = np.array([any(start < time < end for start, end in self.gaps) for time in times])
        return np.where(outside, -1, self.frames.at(times))

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """The ``k`` classes with the highest scores anywhere in the video, best first."""
        highest = self.scores.max(axis=0)
        return [(self.class_names[i], float(highest[i])) for i in self.best_labels(k)]

    def best_labels(self, k: int) -> list[int]:
        """Those classes by number."""
        order: list[int] = np.argsort(-self.scores.max(axis=0), kind="stable")[:k].tolist()
        return order

    def segments(self, threshold: float = THRESHOLD) -> list[Segment]:
        """Where a class scores at least ``threshold``, in order of time; none lasts through a gap."""
        found = []
        for label, name in enumerate(self.class_names):
            for first, end in self.frames.segments:
                scores = self.scores[first:end, label]
                inside = np.concatenate([[False], scores >= threshold, [False]])
                changes = np.flatnonzero(np.diff(inside))
                for start, stop in zip(changes[::2].tolist(), changes[1::2].tolist(), strict=True):
                    begin = float(self.frames.seconds(first + start))
                    last = float(self.frames.ends(first + stop - 1))
                    found.append(Segment(name, begin, last, float(scores[start:stop].max())))
        return sorted(found, key=lambda segment: (segment.start, segment.end))

    def to_dict(self, threshold: float = THRESHOLD, k: int = 5) -> dict[str, Any]:
        """Plain values for JSON: the video, its gaps if any, the top ``k`` classes and the segments."""
        return {
            "path": self.path,
            "duration": round(self.duration, 3),
            "fps": round(self.fps, 4),
            **gaps_dict(self.gaps),
            "threshold": threshold,
            "top": [{"label": label, "score": round(score, 6)} for label, score in self.top(k)],
            "actions": [segment.to_dict() for segment in self.segments(threshold)],
        }
