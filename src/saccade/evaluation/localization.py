"""What happens when: scores at every moment of a video, and the two metrics by which they are compared.

    charades-25   the official evaluation (Charades_v1_localize.m): 25 equally spaced moments a video, the
                  first at its start; average precision of each class over all of them; mean over the classes
                  with a positive. On the whole test set all 157 have some, so this is the official figure.
    per-frame     X3D-Multigrid's: every frame of every video, moments of start and end left out, classes
                  without a positive counted as zero

The two are not comparable. Shape letters: N videos, K classes, M scored frames of a video.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from saccade.data.actions import active_at
from saccade.data.types import Action
from saccade.evaluation import metrics
from saccade.evaluation.metrics import PrecisionRow
from saccade.evaluation.points import (
    CHARADES_POINTS,
    charades_frames,
    charades_times,
    stretch,
    stretch_weights,
)
from saccade.evaluation.result import Result
from saccade.evaluation.uncertainty import jackknife_error
from saccade.sampling.windows import plan_windows


@dataclass(frozen=True, eq=False, kw_only=True)
class LocalizationResult(Result):
    """Logits at every stride of every video.

    Attributes:
        logits: float32 (sum of M, K), the videos one after the other.
        num_points: int64 (N,), M of each video.
        num_frames, fps, durations: (N,) of the videos; seconds that the data set states, or last.
        actions: float64 (number of actions, 4): video, class, start, end.
        overlap: share of a window that its neighbour has too.
    """

    task: ClassVar[str] = "localization"

    logits: NDArray[np.float32]
    num_points: NDArray[np.int64]
    num_frames: NDArray[np.int64]
    fps: NDArray[np.float64]
    durations: NDArray[np.float64]
    actions: NDArray[np.float64]
    overlap: float = 0.5

    @property
    def num_views(self) -> float:
        """Windows a video, on average."""
        size = self.clip.num_frames if self.clip else 1
        counts = [len(plan_windows(int(m), size, overlap=self.overlap).starts) for m in self.num_points]
        return float(np.mean(counts)) if counts else float("nan")

    @property
    def figures(self) -> dict[str, float]:
        return {
            "charades25": self.charades25,
            "per_frame": self.per_frame,
            "map": self.map,
            "repeated_charades25": self.repeated_charades25,
        }

    # ----------------------------------------------------------------------------------------- scores

    def of(self, video: int) -> NDArray[np.float32]:
        """The logits of one video: (M, K)."""
        stop = int(self.num_points[: video + 1].sum())
        return self.logits[stop - int(self.num_points[video]) : stop]

    def at_frames(self, video: int) -> NDArray[np.float64]:
        """The logits of every frame of one video: (num_frames, K)."""
        return stretch(self.of(video), int(self.num_frames[video]))

    def actions_of(self, video: int) -> list[Action]:
        """The annotated actions of a video, by its number in ``paths``."""
        rows = self.actions[self.actions[:, 0] == video]
        return [Action(int(label), float(start), float(end)) for _, label, start, end in rows]

    @cached_property
    def points(self) -> NDArray[np.float32]:
        """Logits at 25 moments of every video: (N * 25, K)."""
        rows = [self.at_frames(v)[charades_frames(int(n))] for v, n in enumerate(self.num_frames)]
        return np.concatenate(rows).astype(np.float32)

    @cached_property
    def truth(self) -> NDArray[np.bool_]:
        """Which classes are there at those moments: (N * 25, K)."""
        num_classes = self.logits.shape[1]
        rows = [
            active_at(self.actions_of(v), charades_times(float(d)), num_classes).T
            for v, d in enumerate(self.durations)
        ]
        return np.concatenate(rows)

    @cached_property
    def video_logits(self) -> NDArray[np.float32]:
        """Of each class the highest logit over the video: (N, K)."""
        starts = np.cumsum(self.num_points) - self.num_points
        return np.maximum.reduceat(self.logits, starts, axis=0)

    @cached_property
    def positives(self) -> NDArray[np.bool_]:
        """Which classes a video has: (N, K)."""
        found = np.zeros((self.num_videos, self.logits.shape[1]), np.bool_)
        found[self.actions[:, 0].astype(int), self.actions[:, 1].astype(int)] = True
        return found

    # ---------------------------------------------------------------------------------------- figures

    @cached_property
    def precisions(self) -> NDArray[np.float64]:
        """Average precision of each class over the 25 moments: (K,)."""
        return metrics.average_precisions(self.points, self.truth)

    @property
    def charades25(self) -> float:
        """The metric ``charades-25``."""
        return metrics.mean_over_classes(self.precisions)

    @cached_property
    def standard_error(self) -> float:
        """By leaving out a twentieth of the videos at a time."""

        def of(kept: NDArray[np.bool_]) -> float:
            rows = np.repeat(kept, CHARADES_POINTS)
            return metrics.mean_average_precision(self.points[rows], self.truth[rows])

        return jackknife_error(of, self.num_videos)

    @cached_property
    def per_frame(self) -> float:
        """The metric ``per-frame``."""
        each = per_frame_precisions(self.logits, self.num_points, self.num_frames, self._active_frames)
        return metrics.mean_over_classes(each, absent="zero")

    @cached_property
    def map(self) -> float:
        """Mean average precision of whole videos, each with its highest score over time."""
        return metrics.mean_average_precision(self.video_logits, self.positives)

    @cached_property
    def repeated_charades25(self) -> float:
        """Control: ``charades-25`` where a video's highest scores are repeated over all of it."""
        rows = np.repeat(self.video_logits, CHARADES_POINTS, axis=0)
        return metrics.mean_average_precision(rows, self.truth)

    @cached_property
    def pair_accuracy(self) -> float:
        """`saccade.evaluation.metrics.pair_preference` at the 25 moments; ``nan`` without pairs."""
        return metrics.pair_preference(self.points, self.truth, self.pairs)

    @cached_property
    def losses(self) -> NDArray[np.float64]:
        """Binary cross entropy at the 25 moments, mean over them and the classes, per video."""
        logits = self.points.astype(np.float64)
        each = np.logaddexp(0.0, np.where(self.truth, -logits, logits))
        means: NDArray[np.float64] = each.reshape(self.num_videos, -1).mean(axis=1)
        return means

    @property
    def loss(self) -> float:
        """Mean of `losses`."""
        return float(self.losses.mean()) if self.num_videos else float("nan")

    @property
    def per_class(self) -> list[PrecisionRow]:
        """One row per class, in label order; positives are moments of the 25 of every video."""
        counts = self.truth.sum(axis=0)
        return [
            PrecisionRow(label, int(count), float(precision))
            for label, (count, precision) in enumerate(zip(counts, self.precisions, strict=True))
        ]

    def _active_frames(self, label: int) -> NDArray[np.bool_]:
        """The frames of all videos at which a class is there, its first and last moment left out."""
        starts = np.cumsum(self.num_frames) - self.num_frames
        found = np.zeros(int(self.num_frames.sum()), np.bool_)
        for video, _, first, last in self.actions[self.actions[:, 1] == label]:
            v = int(video)
            inside = np.arange(self.num_frames[v]) / self.fps[v]
            found[starts[v] : starts[v] + self.num_frames[v]] |= (first < inside) & (inside < last)
        return found

    # ------------------------------------------------------------------------------------------- files

    def _own_summary(self) -> dict[str, Any]:
        return {**self.figures, "pair_accuracy": self.pair_accuracy, "overlap": self.overlap}

    def _arrays(self) -> dict[str, Any]:
        names = ("logits", "num_points", "num_frames", "fps", "durations", "actions")
        return {name: getattr(self, name) for name in names}

    @classmethod
    def _own_fields(cls, info: dict[str, Any]) -> dict[str, Any]:
        return {"overlap": info["overlap"]}


def per_frame_precisions(
    logits: ArrayLike,
    num_points: ArrayLike,
    num_frames: ArrayLike,
    active: Callable[[int], NDArray[np.bool_]],
) -> NDArray[np.float64]:
    """Average precision of each class over all frames of all videos: (K,), ``nan`` without a positive.

    One class at a time: all frames of Charades' test set in all classes would be a gigabyte.

    Args:
        logits: (sum of M, K), the videos one after the other.
        num_points, num_frames: (N,) M and the number of frames of each video.
        active: the frames of all videos at which a class is there: bool (sum of num_frames,).
    """
    rows = np.asarray(logits, np.float32)
    counts = list(zip(np.asarray(num_points).tolist(), np.asarray(num_frames).tolist(), strict=True))
    offsets = np.cumsum([0, *(points for points, _ in counts)])
    parts = [stretch_weights(points, frames) for points, frames in counts]
    below = np.concatenate([part[0] + start for part, start in zip(parts, offsets, strict=False)])
    above = np.concatenate([part[1] + start for part, start in zip(parts, offsets, strict=False)])
    weight = np.concatenate([part[2] for part in parts])

    def of(label: int) -> float:
        values = rows[:, label].astype(np.float64)
        return metrics.average_precision(
            values[below] + (values[above] - values[below]) * weight, active(label)
        )

    return np.array([of(label) for label in range(rows.shape[1])])
