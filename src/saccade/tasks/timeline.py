"""Scores of one video over time.

Shape letters: N frames, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.sampling.timing import FrameTimes, columns_in_gaps, gaps_dict
from saccade.video.damage import DamagedSpan, damage_dict

THRESHOLD = 0.5


@dataclass(frozen=True)
class Segment:
    """A segment of a video with a class: ``start`` and ``end`` in seconds, its maximum score."""

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
        scores: float32 (N, K), sigmoid.
        fps: frame rate; the usual one if it varies.
        timing: times of the frames; default: ``index / fps``.
        damaged: what cannot be decoded: spans with ``start`` and ``end`` in seconds, and the ``cause``. Its
            frames have no scores, N counts the others.
        clip_seconds: what the clip of the model lasts.
    """

    path: str
    class_names: tuple[str, ...]
    scores: NDArray[np.float32] = field(repr=False)
    fps: float
    timing: FrameTimes | None = None
    damaged: tuple[DamagedSpan, ...] = ()
    clip_seconds: float = 0.0

    @cached_property
    def frames(self) -> FrameTimes:
        """The times of the frames."""
        return self.timing or FrameTimes(len(self.scores), self.fps)

    @property
    def duration(self) -> float:
        """Duration in seconds, damaged spans included."""
        return max(self.frames.duration, self.damaged[-1].end if self.damaged else 0.0)

    @property
    def short(self) -> bool:
        """Whether the video lasts less than half of the clip, so that most frames of the clip repeat."""
        return self.duration < self.clip_seconds / 2

    @property
    def gaps(self) -> tuple[tuple[float, float], ...]:
        """Start and end in seconds of the gaps without frames, damaged ones included."""
        return self.frames.gaps

    def frames_at(self, num_columns: int) -> NDArray[np.int64]:
        """The frames at the middle of each of ``num_columns`` equal parts of the video, or later in it where
        the middle lies in a gap; -1 where all of the part does.
        """
        columns = np.arange(num_columns) + 0.5
        if not self.frames.varies and not self.damaged:
            return (columns * len(self.scores) / num_columns).astype(np.int64)
        gaps = (*self.gaps, (self.frames.duration, self.duration))  # the last: a damaged end
        middles = columns * self.duration / num_columns
        gap = np.array([any(start < time < end for start, end in gaps) for time in middles])
        frames = self.frames.at(np.where(gap, middles + 0.45 * self.duration / num_columns, middles))
        return np.where(columns_in_gaps(gaps, self.duration, num_columns), -1, frames)

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """The ``k`` classes with the highest maximum scores, best first."""
        highest = self.scores.max(axis=0)
        return [(self.class_names[i], float(highest[i])) for i in self.best_labels(k)]

    def best_labels(self, k: int) -> list[int]:
        """The labels of those classes."""
        order: list[int] = np.argsort(-self.scores.max(axis=0), kind="stable")[:k].tolist()
        return order

    def segments(self, threshold: float = THRESHOLD) -> list[Segment]:
        """The segments with a score of at least ``threshold``, by time; a gap ends a segment."""
        found = []
        for label, name in enumerate(self.class_names):
            for first, end in self.frames.sections:
                scores = self.scores[first:end, label]
                inside = np.concatenate([[False], scores >= threshold, [False]])
                changes = np.flatnonzero(np.diff(inside))
                for start, stop in zip(changes[::2].tolist(), changes[1::2].tolist(), strict=True):
                    begin = float(self.frames.seconds(first + start))
                    last = float(self.frames.ends(first + stop - 1))
                    found.append(Segment(name, begin, last, float(scores[start:stop].max())))
        return sorted(found, key=lambda segment: (segment.start, segment.end))

    def to_dict(self, threshold: float = THRESHOLD, k: int = 5) -> dict[str, Any]:
        """Plain values for JSON: the video, gaps and damage, the top ``k`` classes and the segments."""
        return {
            "path": self.path,
            "duration": round(self.duration, 3),
            "fps": round(self.fps, 4),
            **gaps_dict(self.gaps),
            **damage_dict(self.damaged),
            **({"short": True} if self.short else {}),
            "threshold": threshold,
            "top": [{"label": label, "score": round(score, 6)} for label, score in self.top(k)],
            "actions": [segment.to_dict() for segment in self.segments(threshold)],
        }
