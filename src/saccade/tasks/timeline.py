"""What a model that localises has to say of one video.

Shape letters: N frames, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
        fps: frames per second.
    """

    path: str
    class_names: tuple[str, ...]
    scores: NDArray[np.float32] = field(repr=False)
    fps: float

    @property
    def duration(self) -> float:
        """Seconds."""
        return len(self.scores) / self.fps

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """The ``k`` classes with the highest scores anywhere in the video, best first."""
        highest = self.scores.max(axis=0)
        return [(self.class_names[i], float(highest[i])) for i in self.best_labels(k)]

    def best_labels(self, k: int) -> list[int]:
        """Those classes by number."""
        order: list[int] = np.argsort(-self.scores.max(axis=0), kind="stable")[:k].tolist()
        return order

    def segments(self, threshold: float = THRESHOLD) -> list[Segment]:
        """Where a class scores at least ``threshold``, in order of time."""
        found = []
        for label, name in enumerate(self.class_names):
            scores = self.scores[:, label]
            inside = np.concatenate([[False], scores >= threshold, [False]])
            changes = np.flatnonzero(np.diff(inside))
            for start, stop in zip(changes[::2].tolist(), changes[1::2].tolist(), strict=True):
                best = float(scores[start:stop].max())
                found.append(Segment(name, start / self.fps, stop / self.fps, best))
        return sorted(found, key=lambda segment: (segment.start, segment.end))

    def to_dict(self, threshold: float = THRESHOLD, k: int = 5) -> dict[str, Any]:
        """Plain values for JSON: the video, the top ``k`` classes and the segments."""
        return {
            "path": self.path,
            "duration": round(self.duration, 3),
            "fps": round(self.fps, 4),
            "threshold": threshold,
            "top": [{"label": label, "score": round(score, 6)} for label, score in self.top(k)],
            "actions": [segment.to_dict() for segment in self.segments(threshold)],
        }
