"""`Result`, the scores and metrics of a test, and its file."""

from __future__ import annotations

import json
import math
import os
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from statistics import fmean
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from saccade.clip import ClipSpec
from saccade.errors import DataError
from saccade.files import atomic_path
from saccade.sampling.segments import SEGMENT_RULES
from saccade.sampling.views import parse_views
from saccade.tasks.metrics import ConfidenceBin, calibration_error
from saccade.tasks.statistics import Accuracy, jackknife_error
from saccade.tasks.time_use import TimeUse

_FIGURE_NAMES = {
    "top1": "top-1",
    "top5": "top-5",
    "mean_class": "class mean",
    "map": "mAP",
    "charades25": "charades-25",
    "per_frame": "per-frame",
    "frame_map": "frame-mAP",
    "explained": "explained variance",
    "repeated_charades25": "charades-25 repeated",
}


def figure_name(name: str) -> str:
    """The display name of a figure of `Result.figures`. "Repeated" is a control in which the scores of a
    video are repeated at all of its frames.
    """
    return _FIGURE_NAMES.get(name, name)


def is_figure(name: str) -> bool:
    """Whether a built-in task has a figure of this name."""
    return name in _FIGURE_NAMES


UNREADABLE = (
    *(OSError, EOFError, KeyError, ValueError, TypeError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error),
)
"""Exceptions that a damaged or foreign file of scores may raise."""


_FIGURE_NOTES = {
    "mean_class": "every class has the same weight",
    "map": "mean over the classes with a positive, as in scikit-learn",
    "explained": "of the masked tokens; a constant prediction would be 0 %",
    "charades25": "25 points in time per video, as in the official evaluation of Charades",
    "per_frame": "all frames, absent classes as zero, as in X3D-Multigrid",
    "repeated_charades25": "control: the scores of a video repeated over time",
    "frame_map": "detections at IoU 0.5, as in the official evaluation of AVA",
}


def figure_note(name: str) -> str:
    """A note on the definition of a figure, possibly empty."""
    return _FIGURE_NOTES.get(name, "")


@dataclass(frozen=True)
class ClassTable:
    """Results per class, for tables and reports.

    Attributes:
        value: heading of the value of each class, 0..1.
        columns: headings of the other cells.
        rows: (class, value, cells), worst first.
        confusion: confusion matrix (K, K), rows are true classes; single-label only.
    """

    value: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, float, tuple[str, ...]], ...]
    confusion: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class Example:
    """A video of a test with its prediction.

    Attributes:
        truth: its classes; true_score: the score of its class, None for multi-label tasks.
        is_correct: whether the class with the highest score is correct.
        best: the classes with the highest scores: name, score 0..1, whether it is correct.
        timeline: scores over time, a `saccade.tasks.timeline.Timeline`; actions: the annotated actions.
    """

    path: str
    truth: str
    is_correct: bool
    loss: float
    best: tuple[tuple[str, float, bool], ...]
    true_score: float | None = None
    timeline: Any = None
    actions: tuple[Any, ...] = ()


@dataclass(frozen=True)
class ClassErrors:
    """The videos of a class that the model is wrong about: how many of how many, and the worst of them."""

    name: str
    num_wrong: int
    num_videos: int
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class Suspect:
    """A video whose label may be wrong: the scores of its label, and of the class that the model says."""

    path: str
    label: str
    predicted: str
    label_score: float
    predicted_score: float


@dataclass(frozen=True)
class Failure:
    """An unreadable video, which the figures do not include."""

    path: str
    cause: str

    def to_dict(self) -> dict[str, str]:
        """Plain values for JSON."""
        return {"path": self.path, "error": self.cause}


@dataclass(frozen=True, eq=False, kw_only=True)
class Result(ABC):
    """Base class of test results: protocol and cost.

    Attributes:
        task: name of the task.
        paths: the file of each row.
        class_names: in label order.
        views: ``CLIPSxCROPS``, the name of a protocol, or ``windows``.
        clip, temporal_rule, shuffled: the rest of the protocol.
        failures: unreadable videos, which have no rows.
        pairs: pairs of classes that differ in one respect only, see `saccade.tasks.metrics.pair_accuracy`.
        gmacs_per_view: multiply-adds of the forward pass of a view, in 1e9.
        num_params: number of parameters of the model.
        seconds: wall time of the test with all its view sets.
        clips_per_second: views per second of that time.
        data_wait: fraction of the time spent waiting for decoded video, 0..1.
        model_clips_per_second: views per second of the model alone; ``nan`` if not measured.
        metrics: registered metrics, see `saccade.tasks.register_metric`.
        time_use: the controls of the test: frames shuffled, repeated, reversed; None without controls.
        num_validations: validations on these videos, of which the best chose the weights; 0: none did.
    """

    task: ClassVar[str]

    paths: tuple[str, ...]
    class_names: tuple[str, ...]
    views: str
    clip: ClipSpec | None = None
    temporal_rule: str = "saccade"
    shuffled: bool = False
    failures: tuple[Failure, ...] = ()
    pairs: tuple[tuple[int, int], ...] = ()
    gmacs_per_view: float = float("nan")
    num_params: int = 0
    seconds: float = float("nan")
    clips_per_second: float = float("nan")
    data_wait: float = float("nan")
    model_clips_per_second: float = float("nan")
    metrics: Mapping[str, float] = field(default_factory=dict)
    time_use: TimeUse | None = None
    num_validations: int = 0

    @property
    def num_videos(self) -> int:
        """Number of videos without failures."""
        return len(self.paths)

    @property
    def num_views(self) -> float:
        """Number of forward passes per video."""
        return len(parse_views(self.views))

    @property
    def gmacs_per_video(self) -> float:
        """Multiply-adds of all views of a video, in 1e9."""
        return self.gmacs_per_view * self.num_views

    @property
    def figures(self) -> dict[str, float]:
        """The metrics by name, ``nan`` if undefined. The first one selects the best weights."""
        figures = self.own_figures
        return figures | {name: value for name, value in self.metrics.items() if name not in figures}

    @property
    @abstractmethod
    def own_figures(self) -> dict[str, float]:
        """The figures of the task, without `metrics`."""

    @property
    def scored(self) -> tuple[NDArray[Any], NDArray[Any]] | None:
        """Scores (rows, K) and labels, int (rows,) or bool (rows, K), for `metrics`; None without classes."""
        return None

    @property
    def losses(self) -> NDArray[np.float64]:
        """The loss of each video, without label smoothing; empty if the task only defines `loss`."""
        return np.empty(0)

    @property
    def loss(self) -> float:
        """The mean of `losses`; NaN without videos."""
        return float(self.losses.mean()) if len(self.losses) else math.nan

    def protocol_text(self) -> str:
        """The protocol in one line."""
        views, clip = parse_views(self.views), self.clip
        if clip is None:
            return f"protocol: {self.views} views"
        if self.temporal_rule in SEGMENT_RULES:
            frames = f"{clip.num_frames} frames, one from each of {clip.num_frames} segments of the video"
        else:
            frames = f"{clip.num_frames} frames x stride {clip.stride} at {clip.target_fps:g} fps"
        if views.protocol:
            frames += f", {_count(views.num_clips, 'clip')} x {_count(views.num_crops, 'crop')}"
        return (
            f"{' '.join(filter(None, ('protocol', views.protocol)))}: clips of {frames}, "
            f"short side {clip.short_side}, crop {clip.crop}, temporal rule {self.temporal_rule}, "
            f"{self.combination_text}"
        )

    @property
    def combination_text(self) -> str:
        """How the scores of the views were combined."""
        return "mean of the views' softmax"

    def class_table(self) -> ClassTable | None:
        """Results per class; None for tasks without classes."""
        return None

    def examples(self, num: int, *, hardest: bool) -> list[Example]:
        """The videos with the highest or lowest loss; empty if the task has no examples."""
        return []

    @property
    def right(self) -> NDArray[np.bool_] | None:
        """Whether the model is right about each video, (num_videos,); None of multi-label tasks."""
        return None

    @property
    def accuracy(self) -> Accuracy | None:
        """The number of right videos with its interval and chance; None if videos are not right or wrong."""
        return None

    @property
    def confidence_bins(self) -> list[ConfidenceBin]:
        """See `saccade.tasks.metrics.confidence_bins`; empty if videos are not right or wrong."""
        return []

    @property
    def calibration_error(self) -> float:
        """See `saccade.tasks.metrics.calibration_error`; ``nan`` if videos are not right or wrong."""
        return calibration_error(self.confidence_bins)

    def class_errors(self, num: int) -> list[ClassErrors]:
        """The classes with errors, most errors first, with up to ``num`` examples of the highest loss."""
        return []

    def suspects(self) -> list[Suspect]:
        """Videos whose label may be wrong: its score is at most 0.1, and that of another class at least 0.9.
        The surest first. Only the scores of held-out videos say anything.
        """
        return []

    def _rows_by_loss(self, losses: NDArray[np.float64], num: int, hardest: bool) -> list[int]:
        """The rows with the highest or lowest loss."""
        order = losses.argsort()
        return (order[::-1] if hardest else order)[:num].tolist()

    @property
    def submission_name(self) -> str:
        """End of the file name for `write_submission`; empty if the task has no such format."""
        return ""

    def write_submission(self, path: str | os.PathLike[str]) -> None:
        """Write the scores in the format of the task's official evaluation."""
        raise NotImplementedError(f"task {self.task} has no submission format")

    @property
    def score_name(self) -> str:
        """The name of the main figure, which selects the best weights."""
        return next(iter(self.figures))

    @property
    def score(self) -> float:
        """The main figure, 0..1."""
        return self.figures[self.score_name]

    def score_of(self, selected: NDArray[np.bool_]) -> float:
        """The main figure of the selected videos, bool (num_videos,); ``nan`` if the task defines none."""
        return math.nan

    @cached_property
    def standard_error(self) -> float:
        """Standard error of the main figure over the videos, from the jackknife; ``nan`` if the task does not
        define `score_of`.
        """
        return jackknife_error(self.score_of, self.num_videos)

    def minus(self, others: Sequence[Self]) -> tuple[float, float]:
        """The main figure minus the mean of others on the same videos, and its standard error, paired over
        the videos.
        """

        def difference(selected: NDArray[np.bool_]) -> float:
            return self.score_of(selected) - fmean(other.score_of(selected) for other in others)

        value = self.score - fmean(other.score for other in others)
        return value, jackknife_error(difference, self.num_videos)

    @property
    def score_text(self) -> str:
        """The main figure with its error, and whether these videos chose the weights."""
        return "; ".join(filter(None, (self._score_text(), self.selection_text)))

    def _score_text(self) -> str:
        error = f" ± {100 * self.standard_error:.1f}" if math.isfinite(self.standard_error) else ""
        return f"{figure_name(self.score_name)} {100 * self.score:.1f}{error} %"

    @property
    def selection_text(self) -> str:
        """Whether these videos chose the weights; empty if they did not."""
        if self.num_validations < 2:
            return ""
        return f"these clips chose these weights (the best of {self.num_validations} validations)"

    @classmethod
    def error_of_mean(cls, results: Sequence[Self]) -> float:
        """Standard error over the videos of the mean score of several results on the same videos."""
        return math.sqrt(fmean(result.standard_error**2 for result in results))

    def summary(self) -> dict[str, Any]:
        """Figures and protocol as plain values for JSON; undefined figures are None."""
        values = {
            "task": self.task,
            "views": self.views,
            **self._task_summary(),
            **({"metrics": dict(self.metrics)} if self.metrics else {}),
            "loss": self.loss,
            "num_videos": self.num_videos,
            "num_failures": len(self.failures),
            "failures": [asdict(failure) for failure in self.failures],
            "gmacs_per_view": self.gmacs_per_view,
            "gmacs_per_video": self.gmacs_per_video,
            "num_params": self.num_params,
            "clips_per_second": self.clips_per_second,
            "model_clips_per_second": self.model_clips_per_second,
            "data_wait": self.data_wait,
            "seconds": self.seconds,
            "clip": asdict(self.clip) if self.clip else None,
            "temporal_rule": self.temporal_rule,
            "shuffled_frames": self.shuffled,
            "controls": self.time_use.to_dict() if self.time_use else None,
            "num_validations": self.num_validations,
        }
        return {key: None if _is_nan(value) else value for key, value in values.items()}

    @abstractmethod
    def _task_summary(self) -> dict[str, Any]:
        """The entries of `summary` of this task."""

    @abstractmethod
    def _arrays(self) -> dict[str, Any]:
        """The arrays of this task for `save`."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an .npz file with paths, class names, views, the arrays of the task, and `summary` as JSON
        under ``info``.
        """
        info = {**self.summary(), "pairs": [list(pair) for pair in self.pairs]}
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(
                stream,
                paths=_text(self.paths),
                class_names=_text(self.class_names),
                views=np.array(self.views),
                info=np.array(json.dumps(info)),
                **self._arrays(),
            )

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Load a file that `save` wrote.

        Raises:
            DataError: the file does not exist, is not such a file, or has another task.
        """
        try:
            with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as stored:
                data = {name: stored[name] for name in stored.files}
            info = json.loads(str(data.pop("info"))) if "info" in data else {}
            if info.get("task", "single-label") != cls.task:
                raise KeyError(f"of task {info['task']}, not {cls.task}")
            return cls(
                paths=tuple(map(str, data.pop("paths"))),
                class_names=tuple(map(str, data.pop("class_names"))),
                views=str(data.pop("views")),
                **data,
                **_fields(info),
                **cls._task_fields(info),
            )
        except UNREADABLE as error:
            raise DataError(
                f"{os.fspath(path)}: not a file of scores written by saccade test ({error})"
            ) from error

    @classmethod
    def _task_fields(cls, info: dict[str, Any]) -> dict[str, Any]:
        """The fields of this task that are not arrays, from the `summary`."""
        return {}


def clip_from_dict(fields: Mapping[str, Any]) -> ClipSpec:
    """A `ClipSpec` from the plain values of a file's metadata."""
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
    }
    try:
        return ClipSpec(**values)
    except TypeError as error:
        raise DataError(f"the clip in the metadata is invalid in this version: {error}") from error


_NUMBERS: tuple[str, ...] = (
    "gmacs_per_view",
    "num_params",
    "seconds",
    "clips_per_second",
    "model_clips_per_second",
)
_NUMBERS += ("data_wait",)


def _fields(info: dict[str, Any]) -> dict[str, Any]:
    clip = info.get("clip")
    return {
        "clip": clip_from_dict(clip) if clip else None,
        "temporal_rule": info.get("temporal_rule", "saccade"),
        "shuffled": info.get("shuffled_frames", False),
        "failures": tuple(Failure(**failure) for failure in info.get("failures", ())),
        "pairs": tuple((int(a), int(b)) for a, b in info.get("pairs", ())),
        "metrics": info.get("metrics", {}),
        "time_use": TimeUse.from_dict(controls) if (controls := info.get("controls")) else None,
        "num_validations": info.get("num_validations", 0),
        **{name: value for name in _NUMBERS if (value := info.get(name)) is not None},
    }


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'s' * (number != 1)}"


def _text(values: Sequence[str]) -> NDArray[np.str_]:
    return np.array(values, dtype=np.str_) if values else np.array([], dtype="<U1")


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and not np.isfinite(value)
