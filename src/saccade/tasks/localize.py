"""Temporal action localisation: scores at every frame of a video, and two mAP metrics.

    charades-25   the official evaluation (Charades_v1_localize.m): 25 equally spaced points in time per
                  video, the first at its start; average precision of each class over all points; mean over
                  the classes with a positive. On the complete test set these are all 157 classes.
    per-frame     that of X3D-Multigrid: every frame of every video except the exact start and end of actions;
                  classes without a positive count as zero

The two are not comparable. Shape letters: N videos, K classes, M scored frames of a video.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from saccade.clip import ClipSpec
from saccade.data.actions import active_at
from saccade.data.clips import LabelKind
from saccade.data.types import Action, VideoDataset
from saccade.errors import ConfigError, WeightsError
from saccade.files import write_text
from saccade.sampling.plan import PlannedClip, VideoPlan
from saccade.sampling.temporal import frame_grid
from saccade.sampling.timing import FrameTimes, stored_frame_times
from saccade.sampling.views import Views
from saccade.sampling.windows import Blend, Windows, plan_windows, windows_over
from saccade.tasks import metrics
from saccade.tasks.base import Outcome, PlanRequest, Problems, Task, View, option_names
from saccade.tasks.metrics import PrecisionRow
from saccade.tasks.moments import (
    CHARADES_POINTS,
    charades_frames,
    charades_times,
    frame_weights,
    interpolate,
    interpolate_to_frames,
    interpolation_weights,
)
from saccade.tasks.multilabel import format_scores, label_text, precision_table, top1_hits, top_classes
from saccade.tasks.result import ClassTable, Example, Result
from saccade.tasks.scores import check_classes, finite, sigmoid
from saccade.tasks.timeline import Timeline
from saccade.video import VideoReader

WINDOWS = "windows"
"""Name of the view set: windows that cover the video, with one centre crop."""


@dataclass(frozen=True, eq=False, kw_only=True)
class LocalizationResult(Result):
    """Logits at every stride of every video.

    Attributes:
        logits: float32 (sum of M, K), concatenated over the videos.
        num_points: int64 (N,), M of each video.
        num_frames, fps, durations: (N,); durations in seconds, from the data set if it states them.
        actions: float64 (number of actions, 4): video, class, start, end.
        overlap: overlap of neighbouring windows as a fraction of a window.
        timed: bool (N,), the videos with a variable frame rate; empty: none.
        times: float64, the times of the frames of those videos, concatenated.
    """

    task: ClassVar[str] = "localization"

    logits: NDArray[np.float32]
    num_points: NDArray[np.int64]
    num_frames: NDArray[np.int64]
    fps: NDArray[np.float64]
    durations: NDArray[np.float64]
    actions: NDArray[np.float64]
    overlap: float = 0.5
    timed: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, np.bool_))
    times: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    @cached_property
    def videos(self) -> tuple[FrameTimes, ...]:
        """The frame times of each video."""
        return stored_frame_times(self.num_frames, self.fps, self.timed, self.times)

    @property
    def num_views(self) -> float:
        """Mean number of windows per video."""
        pairs = zip(self.num_points.tolist(), self.videos, strict=True)
        counts = [len(windows_over(v, self.clip, num, self.overlap).starts) for num, v in pairs]
        return float(np.mean(counts)) if counts else float("nan")

    @property
    def own_figures(self) -> dict[str, float]:
        return {
            "charades25": self.charades25,
            "per_frame": self.per_frame,
            "map": self.map,
            "repeated_charades25": self.repeated_charades25,
        }

    # ----------------------------------------------------------------------------------------- scores

    def logits_of(self, video: int) -> NDArray[np.float32]:
        """The logits of one video: (M, K)."""
        stop = int(self.num_points[: video + 1].sum())
        return self.logits[stop - int(self.num_points[video]) : stop]

    def at_frames(self, video: int) -> NDArray[np.float64]:
        """The logits of every frame of one video: (num_frames, K)."""
        return interpolate_to_frames(self.logits_of(video), self.videos[video], self.clip)

    def actions_of(self, video: int) -> list[Action]:
        """The annotated actions of a video, given its index in ``paths``."""
        rows = self.actions[self.actions[:, 0] == video]
        return [Action(int(label), float(start), float(end)) for _, label, start, end in rows]

    @cached_property
    def points(self) -> NDArray[np.float32]:
        """Logits at 25 points in time of every video: (N * 25, K)."""
        rows = [self.at_frames(v)[charades_frames(n.num_frames, n)] for v, n in enumerate(self.videos)]
        return np.concatenate(rows).astype(np.float32)

    @cached_property
    def truth(self) -> NDArray[np.bool_]:
        """The classes that are present at those points: (N * 25, K)."""
        num_classes = self.logits.shape[1]
        rows = [
            active_at(self.actions_of(v), charades_times(float(d)), num_classes).T
            for v, d in enumerate(self.durations)
        ]
        return np.concatenate(rows)

    @cached_property
    def video_logits(self) -> NDArray[np.float32]:
        """The maximum logit of each class over the video: (N, K)."""
        starts = np.cumsum(self.num_points) - self.num_points
        return np.maximum.reduceat(self.logits, starts, axis=0)

    @cached_property
    def positives(self) -> NDArray[np.bool_]:
        """The classes of each video: (N, K)."""
        found = np.zeros((self.num_videos, self.logits.shape[1]), np.bool_)
        found[self.actions[:, 0].astype(int), self.actions[:, 1].astype(int)] = True
        return found

    # ---------------------------------------------------------------------------------------- figures

    @cached_property
    def precisions(self) -> NDArray[np.float64]:
        """Average precision of each class over the 25 points: (K,)."""
        return metrics.average_precisions(self.points, self.truth)

    @property
    def charades25(self) -> float:
        """The metric ``charades-25``."""
        return metrics.mean_over_classes(self.precisions)

    def score_of(self, selected: NDArray[np.bool_]) -> float:
        rows = np.repeat(selected, CHARADES_POINTS)
        return metrics.mean_average_precision(self.points[rows], self.truth[rows])

    @cached_property
    def per_frame(self) -> float:
        """The metric ``per-frame``."""
        pairs = zip(self.num_points.tolist(), self.videos, strict=True)
        weights = [frame_weights(num, video, self.clip) for num, video in pairs]
        each = per_frame_precisions(
            self.logits, self.num_points, self.num_frames, self._active_frames, weights
        )
        return metrics.mean_over_classes(each, absent="zero")

    @cached_property
    def map(self) -> float:
        """Mean average precision of the video labels, from the maximum score over time."""
        return metrics.mean_average_precision(self.video_logits, self.positives)

    @cached_property
    def repeated_charades25(self) -> float:
        """Control: ``charades-25`` of the maximum scores of each video, repeated over time."""
        rows = np.repeat(self.video_logits, CHARADES_POINTS, axis=0)
        return metrics.mean_average_precision(rows, self.truth)

    @cached_property
    def pair_accuracy(self) -> float:
        """`saccade.tasks.metrics.pair_preference` at the 25 points; ``nan`` without pairs."""
        return metrics.pair_preference(self.points, self.truth, self.pairs)

    @cached_property
    def losses(self) -> NDArray[np.float64]:
        """Binary cross entropy per video, mean over the 25 points and the classes."""
        logits = self.points.astype(np.float64)
        each = np.logaddexp(0.0, np.where(self.truth, -logits, logits))
        means: NDArray[np.float64] = each.reshape(self.num_videos, -1).mean(axis=1)
        return means

    @property
    def per_class(self) -> list[PrecisionRow]:
        """One row per class, in label order. Positives are counted over the 25 points of every video."""
        counts = self.truth.sum(axis=0)
        return [
            PrecisionRow(label, int(count), float(precision))
            for label, (count, precision) in enumerate(zip(counts, self.precisions, strict=True))
        ]

    def _active_frames(self, label: int) -> NDArray[np.bool_]:
        """The frames of all videos with a class, without the exact start and end of its actions."""
        starts = np.cumsum(self.num_frames) - self.num_frames
        found = np.zeros(int(self.num_frames.sum()), np.bool_)
        for video, _, first, last in self.actions[self.actions[:, 1] == label]:
            v = int(video)
            inside = self.videos[v].seconds(np.arange(self.num_frames[v]))
            found[starts[v] : starts[v] + self.num_frames[v]] |= (first < inside) & (inside < last)
        return found

    # -------------------------------------------------------------------------------------------- show

    def protocol_text(self) -> str:
        clip = self.clip
        if clip is None:
            return super().protocol_text()
        return (
            f"protocol: complete videos in windows of {clip.num_frames} frames x stride {clip.stride} at "
            f"{clip.target_fps:g} fps, overlap {100 * self.overlap:.0f} %, short side {clip.short_side}, "
            f"centre crop {clip.crop}, logits interpolated to frames"
        )

    def class_table(self) -> ClassTable:
        return precision_table(self.per_class, self.class_names, "points")

    def examples(self, num: int, *, hardest: bool) -> list[Example]:
        return [self._example(row) for row in self._rows_by_loss(self.losses, num, hardest)]

    def _example(self, row: int) -> Example:
        path, positives, names = self.paths[row], self.positives[row], self.class_names
        best = top_classes(sigmoid(self.video_logits[row]), positives, names)
        scores = sigmoid(self.at_frames(row).astype(np.float32))
        timeline = Timeline(path, names, scores, float(self.fps[row]), self.videos[row])
        truth, loss = label_text(positives, names), float(self.losses[row])
        return Example(
            path, truth, best[0][2], loss, best, timeline=timeline, actions=tuple(self.actions_of(row))
        )

    # ------------------------------------------------------------------------------------------- files

    @property
    def scored(self) -> tuple[NDArray[Any], NDArray[Any]]:
        return self.points, self.truth

    @property
    def submission_name(self) -> str:
        return "submission_localize.txt"

    def write_submission(self, path: str | os.PathLike[str]) -> None:
        """Write the scores in the format of Charades_v1_localize.m: a line for each of the 25 points of every
        video with the video's id, the number of the point from 1 on, and the scores.
        """
        ids = [Path(name).stem for name in self.paths]
        points = sigmoid(self.points).reshape(len(ids), CHARADES_POINTS, -1)
        lines = [
            f"{video} {number} {format_scores(scores)}\n"
            for video, rows in zip(ids, points, strict=True)
            for number, scores in enumerate(rows, start=1)
        ]
        write_text(path, "".join(lines))

    def _task_summary(self) -> dict[str, Any]:
        return {**self.own_figures, "pair_accuracy": self.pair_accuracy, "overlap": self.overlap}

    def _arrays(self) -> dict[str, Any]:
        names = ["logits", "num_points", "num_frames", "fps", "durations", "actions"]
        names += ["timed", "times"] if self.timed.any() else []
        return {name: getattr(self, name) for name in names}

    @classmethod
    def _task_fields(cls, info: dict[str, Any]) -> dict[str, Any]:
        return {"overlap": info["overlap"]}


def per_frame_precisions(
    logits: ArrayLike,
    num_points: ArrayLike,
    num_frames: ArrayLike,
    active: Callable[[int], NDArray[np.bool_]],
    weights: Sequence[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] | None = None,
) -> NDArray[np.float64]:
    """Average precision of each class over all frames of all videos: (K,), ``nan`` without a positive.

    Processes one class at a time; the frames of the test set of Charades in all classes need a gigabyte.

    Args:
        logits: (sum of M, K), concatenated over the videos.
        num_points, num_frames: (N,), M and the number of frames of each video.
        active: returns the frames with a class over all videos, bool (sum of num_frames,).
        weights: `frame_weights` of each video; default: those of a constant frame rate.
    """
    rows = np.asarray(logits, np.float32)
    counts = list(zip(np.asarray(num_points).tolist(), np.asarray(num_frames).tolist(), strict=True))
    offsets = np.cumsum([0, *(points for points, _ in counts)])
    parts = weights or [interpolation_weights(points, frames) for points, frames in counts]
    below = np.concatenate([part[0] + start for part, start in zip(parts, offsets, strict=False)])
    above = np.concatenate([part[1] + start for part, start in zip(parts, offsets, strict=False)])
    weight = np.concatenate([part[2] for part in parts])

    def precision(label: int) -> float:
        values = rows[:, label].astype(np.float64)
        return metrics.average_precision(
            values[below] + (values[above] - values[below]) * weight, active(label)
        )

    return np.array([precision(label) for label in range(rows.shape[1])])


# ---------------------------------------------------------------------------------------------- the task


@dataclass(frozen=True)
class WindowTag:
    """The window of a view."""

    plan: Windows
    number: int


@dataclass(frozen=True)
class Localize(Task):
    """Temporal localisation: the classes at every time of a video, tested in overlapping windows of a clip.

    Attributes:
        overlap: overlap of neighbouring windows as a fraction of a window.
    """

    name: ClassVar[str] = "localization"
    result_type: ClassVar[Any] = LocalizationResult
    figure: ClassVar[str] = "charades25"
    label_kind: ClassVar[LabelKind] = "moments"
    multi_label: ClassVar[bool] = True
    smooths_labels: ClassVar[bool] = False
    fixed_views: ClassVar[str] = WINDOWS
    tested_at_end: ClassVar[bool] = True
    test_options: ClassVar[frozenset[str]] = frozenset({"overlap"})
    predict_hint: ClassVar[str] = "add --localize"

    overlap: float = 0.5

    def __post_init__(self) -> None:
        plan_windows(1, 1, overlap=self.overlap)  # raises if the overlap is out of range

    @classmethod
    def problems(cls, config: Any) -> Problems:
        yield from super().problems(config)
        if config.temporal_rule != "saccade":
            yield (
                "temporal_rule",
                f"task localization needs saccade, which has frame times (is {config.temporal_rule!r})",
            )
        for name in ("mixup", "cutmix"):
            if getattr(config.augment, name):
                yield f"augment.{name}", "is not supported by task localization; set it to 0"

    @classmethod
    def model_overrides(cls, model_name: str) -> dict[str, Any]:
        if "localization" not in option_names(model_name):
            raise ConfigError(f"task: {model_name} does not support localization")
        return {"localization": True}

    # ---------------------------------------------------------------------------------------- training

    def presence(self, dataset: VideoDataset) -> tuple[Tensor, float]:
        """Seconds that each class is present, float64 (K,), and the total length of the videos."""
        present = torch.zeros(len(dataset.class_names), dtype=torch.float64)
        total = 0.0
        for item in dataset.items:
            duration = item.duration or max((action.end for action in item.actions), default=0.0)
            total += duration
            for action in item.actions:
                present[action.label] += max(0.0, min(action.end, duration) - action.start)
        return present, total

    def loss(
        self,
        logits: Tensor,
        labels: Tensor,
        inside: Tensor | None = None,
        *,
        smoothing: float = 0.0,
        positive_weight: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Mean of two binary cross entropies: of the maximum over time, and of every point in time.

        The loss of X3D-Multigrid (train_x3d_charades_loc.py). Logits (B, K, T) are interpolated to the points
        with labels (B, K, L). Points outside the video are ignored (X3D-Multigrid includes the padding), and
        all clips have equal weight. A clip is correct if the class with the highest logit is present.
        """
        logits_BKL = F.interpolate(logits, labels.shape[2], mode="linear")
        if inside is None:
            inside = torch.ones_like(labels[:, 0], dtype=torch.bool)
        outside_B1L = ~inside[:, None]
        highest_BK = logits_BKL.masked_fill(outside_B1L, -torch.inf).amax(dim=2)
        present_BK = labels.masked_fill(outside_B1L, 0).amax(dim=2)
        video = F.binary_cross_entropy_with_logits(highest_BK, present_BK, pos_weight=positive_weight)
        weight = None if positive_weight is None else positive_weight[:, None]
        each_BKL = F.binary_cross_entropy_with_logits(logits_BKL, labels, pos_weight=weight, reduction="none")
        per_point_BL = each_BKL.mean(dim=1).masked_fill(~inside, 0)
        points = (per_point_BL.sum(dim=1) / inside.sum(dim=1)).mean()
        loss = (video + points) / 2
        return loss, top1_hits(highest_BK, present_BK).to(loss.dtype)

    # -------------------------------------------------------------------------------------- evaluation

    def decode_sizes(self, clip: ClipSpec, sets: Sequence[Views]) -> tuple[int, ...]:
        return (clip.short_side,)

    def plan(self, video: VideoReader, wanted: PlanRequest) -> VideoPlan:
        return self.plan_windows(video, wanted.clip)

    def plan_windows(self, video: VideoReader, clip: ClipSpec) -> VideoPlan:
        """Windows over every stride-th frame."""
        grid = frame_grid(
            len(video), video.fps, stride=clip.stride, target_fps=clip.target_fps, times=video.times
        )
        indices, rows = np.unique(grid, return_inverse=True)  # a frame that is shown for long is there twice
        windows = windows_over(FrameTimes.of(video), clip, len(grid), self.overlap)
        clips = []
        for number in range(len(windows.starts)):
            frames = tuple(rows[windows.frames(number)].tolist())
            tag = WindowTag(windows, number)
            clips.append(PlannedClip(frames, clip.short_side, "pyslowfast", {1: tag}))
        return VideoPlan(indices, tuple(clips))

    def forward(self, model: nn.Module, x: Tensor, views: Sequence[View]) -> Sequence[Any]:
        """Logits of each view, float32 (K, T')."""
        logits = model(x)
        if logits.ndim != 3:
            raise WeightsError(
                f"the model returns {tuple(logits.shape)}; localization needs (views, classes, frames)"
            )
        return list(finite(logits))

    def merge(self, before: Any, output: Any, view: View, sets: Sequence[Views]) -> Any:
        """A `Blend` of the windows; after the last one, the logits of all scored frames, float32 (M, K). The
        scores of permuted frames return to where the frames belong.
        """
        tag: WindowTag = view.tag
        rows = output.T
        if len(rows) != tag.plan.size:  # the network has a temporal stride
            rows = interpolate(rows, tag.plan.size).astype(np.float32)
        ordered = rows
        if view.order is not None:
            ordered = np.empty_like(rows)
            ordered[view.order] = rows
        blend = Blend(tag.plan, rows.shape[1]) if before is None else before
        blend.add(tag.number, ordered.T)
        return blend.result() if tag.number == len(tag.plan.starts) - 1 else blend

    def activation(self, logits: NDArray[Any]) -> NDArray[Any]:
        return sigmoid(logits)

    def results(self, dataset: VideoDataset, outcome: Outcome) -> dict[str, Any]:
        found = [outcome.scores[i] for i in outcome.order]
        check_classes(found[0].shape[1], dataset)
        items = [dataset.items[i] for i in outcome.order]
        videos = [outcome.videos[i] for i in outcome.order]
        common = outcome.protocol(WINDOWS) | {"temporal_rule": "saccade", "clip": outcome.clip}
        result = self.result_type(
            logits=np.concatenate(found),
            num_points=np.array([len(logits) for logits in found], np.int64),
            num_frames=np.array([video.num_frames for video in videos], np.int64),
            fps=np.array([video.fps for video in videos]),
            durations=np.array(
                [item.duration or video.duration for item, video in zip(items, videos, strict=True)]
            ),
            actions=np.array(
                [(row, a.label, a.start, a.end) for row, item in enumerate(items) for a in item.actions],
                np.float64,
            ).reshape(-1, 4),
            overlap=self.overlap,
            timed=np.array([video.times is not None for video in videos], np.bool_),
            times=np.concatenate([np.zeros(0), *(v.times for v in videos if v.times is not None)]),
            **common,
        )
        return {WINDOWS: result}
