"""`Task`, the interface to everything that differs between tasks.

A user's task derives from `Task` or from one of its subclasses and is registered with
`saccade.tasks.register_task`.

Shape letters: B clips, K classes, L points in time that have labels, T frames of a clip.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from saccade.clip import ClipSpec
from saccade.data.clips import LabelKind
from saccade.data.types import ClipBatch, VideoDataset, VideoItem
from saccade.errors import ConfigError, DataError, UsageError, WeightsError
from saccade.sampling.plan import VideoPlan, decode_sizes, plan_video
from saccade.sampling.timing import FrameTimes
from saccade.sampling.views import Views, parse_views
from saccade.tasks.objective import ClipObjective, Objective
from saccade.tasks.scores import finite
from saccade.transforms import Mixing, TrainTransform
from saccade.video import VideoReader

Problems = Iterator[tuple[str, str]]
"""Pairs (field, problem) of a config."""

_MAX_POSITIVE_WEIGHT = 100.0


@dataclass(frozen=True)
class View:
    """One view of an item.

    Attributes:
        position: index of the item in the data set; ``number``: index of the view in the item.
        tag: from the plan, see `Task.plan`.
        pixels: uint8 (T, H, W, 3), or the model input as floats (3, T, H, W).
        frames: index in the video of each frame; empty for clips given as tensors.
        order: how a control permuted the frames, int (T,): ``pixels[i]`` is frame ``order[i]`` of the clip;
            None if they are in order.
    """

    position: int
    number: int
    tag: Any
    pixels: Tensor
    frames: tuple[int, ...] = ()
    order: NDArray[np.int64] | None = None


@dataclass(frozen=True)
class PlanRequest:
    """The argument of `Task.plan`: how to test one video.

    Attributes:
        dataset, position: data set and index of the item.
        clip, sets: the clip of the test, and its view sets.
        size: short side at which the video is decoded.
        rule: temporal rule of the view sets that do not name one.
    """

    dataset: VideoDataset
    position: int
    clip: ClipSpec
    sets: Sequence[Views]
    size: int
    rule: str = "saccade"


@dataclass(frozen=True)
class Outcome:
    """The merged scores of all items of a data set.

    Attributes:
        scores: output of `Task.merge` by position, without unreadable items.
        videos: frame times of those videos by position; empty for clips given as tensors.
        sets: the view sets by name.
        common: values of the fields that every `Result` has.
        clip, rule: clip and temporal rule of the test.
    """

    scores: Mapping[int, Any]
    videos: Mapping[int, FrameTimes]
    sets: Mapping[str, Views]
    common: Mapping[str, Any]
    clip: ClipSpec
    rule: str

    @property
    def order(self) -> list[int]:
        """Positions of the readable items."""
        return sorted(self.scores)

    def protocol(self, name: str) -> dict[str, Any]:
        """The fields of `Result` with the protocol of one view set."""
        views = self.sets[name]
        size = views.decode_size(self.clip.short_side, self.clip.crop)
        return dict(self.common) | {
            "views": name,
            "clip": self.clip.replace(short_side=size),
            "temporal_rule": views.rule or self.rule,
        }


@dataclass(frozen=True)
class Preview:
    """A part of a training batch for display: clips (B, 3, T, S, S), labels of each, and person boxes in
    pixels (detection only).
    """

    clips: Tensor
    labels: list[Tensor]
    boxes: list[Tensor] | None = None


@dataclass(frozen=True)
class Task(ABC):
    """Base class of tasks. Fields of a subclass are options of its test.

    Attributes:
        name: name in configs, run folders and commands.
        result_type: subclass of `Result` that a test returns.
        figure: the metric that selects the best weights, one of `Result.figures`.
        train_figure: name of the fraction of correct clips in metrics.jsonl.
        label_kind: kind of labels of training clips, see `saccade.data.clips.ClipSettings`.
        multi_label: whether an item may have several labels.
        smooths_labels: whether label smoothing is supported.
        soft_loss: (logits, logits of a teacher, temperature) -> loss of each clip (B,); None: the task cannot
            be distilled.
        fixed_views: name of the views of a task without view sets, e.g. ``windows``; empty: CLIPSxCROPS.
        tested_at_end: whether a training run ends with a test even without ``test_views``.
        has_classes: whether it predicts labels and ``saccade test`` supports it.
        test_options: flags of ``saccade test`` that it supports.
        predict_hint: hint in the error of a `Predictor` that is given a model of this task.
        searchable: whether ``saccade expand`` supports it.
        tests_time_use: whether tests make the controls of `saccade.evaluation.Controls` by default.
        default_batch: views per forward pass; None: depends on memory.
        channels_last: memory format of the views; None: that of the model's weights.
    """

    name: ClassVar[str]
    result_type: ClassVar[Any]  # a subclass of Result
    figure: ClassVar[str] = "top1"
    train_figure: ClassVar[str] = "top1"
    label_kind: ClassVar[LabelKind] = "class"
    multi_label: ClassVar[bool] = False
    smooths_labels: ClassVar[bool] = True
    soft_loss: ClassVar[Callable[[Tensor, Tensor, float], Tensor] | None] = None
    fixed_views: ClassVar[str] = ""
    tested_at_end: ClassVar[bool] = False
    has_classes: ClassVar[bool] = True
    test_options: ClassVar[frozenset[str]] = frozenset({"views", "temporal_rule"})
    predict_hint: ClassVar[str] = ""
    searchable: ClassVar[bool] = True
    tests_time_use: ClassVar[bool] = False
    default_batch: ClassVar[int | None] = None
    channels_last: ClassVar[bool | None] = None

    # ------------------------------------------------------------------------------------------ config

    @classmethod
    def from_config(cls, config: Any) -> Self:
        """The task with its options from a `TrainConfig`."""
        return cls()

    def for_test(self, config: Any, model: nn.Module) -> Self:
        """The task with the options of a test during training."""
        return self

    @classmethod
    def problems(cls, config: Any) -> Problems:
        """Fields of a `TrainConfig` that are invalid for this task."""
        if config.label_smoothing and not cls.smooths_labels:
            yield "label_smoothing", f"is not supported by task {config.task}; set it to 0"

    @classmethod
    def model_overrides(cls, model_name: str) -> dict[str, Any]:
        """The options of `saccade.create_model` for the head of this task.

        Raises:
            ConfigError: the model does not support the task.
        """
        if "target_kind" in option_names(model_name):
            raise ConfigError(f"task: {model_name} has no classes and supports only --task masked")
        return {}

    @classmethod  # noqa: B027
    def check_model(  # optional
        cls, config: Any, model: nn.Module, sizes: Iterable[tuple[int, int]]
    ) -> None:
        """Raise `ConfigError` if the model does not support the task or clips of these (frames, pixels)."""

    @classmethod
    def clip_multiple(cls, config: Any, multiple: tuple[int, int]) -> tuple[int, int]:
        """(frames, pixels) that the size of a clip must be a multiple of, given that of the model."""
        return multiple

    # -------------------------------------------------------------------------------------------- data

    @classmethod
    def data_options(cls, config: Any, split: str) -> dict[str, Any]:
        """The options of `load_split` in a training run."""
        return {
            "val_fraction": config.val_fraction,
            "allow_missing": config.allow_missing,
            "root": config.root or None,
            "class_names": config.class_names or None,
            **({"group": config.group} if config.group else {}),
        }

    def load_split(self, path: str, split: str, **options: Any) -> VideoDataset:
        """Load one split of a data set. Options as in `saccade.load_dataset`."""
        from saccade.data.datasets import load_dataset

        return load_dataset(path, split, **options)  # type: ignore[arg-type]

    def load_test_split(
        self, path: str, split: str, given: Mapping[str, Any], *, class_names: Sequence[str] | None
    ) -> VideoDataset:
        """Load the split for ``saccade test``.

        Args:
            given: ``root``, ``val_fraction``, ``group``, ``allow_missing``, and for detection ``detected``,
                ``min_score``.
        """
        options = {name: given[name] for name in ("root", "val_fraction", "allow_missing")}
        options |= {"group": given["group"]} if given.get("group") else {}
        return self.load_split(path, split, class_names=class_names, **options)

    def load_data(self, config: Any) -> tuple[VideoDataset, VideoDataset | None]:
        """Load the training set, and the validation set unless `val_every` is 0.

        With `val_data` nothing is held out of `data`, and the classes of `val_data` are those of `data`.

        Raises:
            DataError: a data set cannot be used, or validation videos are in the training set.
        """
        from saccade.tasks.data import load_splits

        return load_splits(self, config)

    def states_validation(self, path: str, root: str) -> bool:
        """Whether the data set at ``path`` has a validation or test split of its own."""
        from saccade.data.datasets import evaluation_split

        return evaluation_split(path, root=root or None, labelled=self.has_classes) == "val"

    def check_dataset(
        self, dataset: VideoDataset, *, source: str = "", error: type[Exception] = DataError
    ) -> None:
        """Check that the data set has the labels that the task needs.

        Args:
            source: name of the data set in the error message; default: its root.
            error: type of the error if another task supports the data set.
        """
        where = source or dataset.root
        if dataset.keyframes:
            raise error(
                f"{'task: ' if error is ConfigError else ''}{where}: data set has person boxes at keyframes; "
                "use the task detection"
            )
        if dataset.multi_label and not self.multi_label:
            raise error(
                f"{'task: ' if error is ConfigError else ''}{where}: data set is multi-label; use the task "
                "multi-label or localization"
            )
        if not dataset.multi_label and self.multi_label:
            raise DataError(
                f"{where}: data set is single-label, but task {self.name} needs actions with times (Charades)"
            )

    def check_training(self, dataset: VideoDataset, *, source: str = "") -> None:
        """Raise `DataError` if nothing can be learned from ``dataset``. Other tasks: nothing to check."""
        return None

    def check_validation(self, dataset: VideoDataset, *, source: str) -> None:
        """Raise `DataError` if a test on ``dataset`` gives no score."""
        if self.multi_label and not any(item.actions for item in dataset.items):
            raise DataError(
                f"{source}: none of the {len(dataset)} videos of split {dataset.split} has an action, which "
                f"validation of task {self.name} needs; use a split with actions, or --val-every 0"
            )

    # ---------------------------------------------------------------------------------------- training

    def objective(self, config: Any, model: nn.Module, dataset: VideoDataset) -> Objective:
        """The loss of a training run on ``dataset``."""
        weight = self.positive_weights(config, dataset)
        device = next((p.device for p in model.parameters()), torch.device("cpu"))
        weight = None if weight is None else weight.to(device)

        def loss(logits: Tensor, labels: Tensor, inside: Tensor | None) -> tuple[Tensor, Tensor]:
            return self.loss(logits, labels, inside, smoothing=config.label_smoothing, positive_weight=weight)

        return ClipObjective(loss)

    def loss(
        self,
        logits: Tensor,
        labels: Tensor,
        inside: Tensor | None = None,
        *,
        smoothing: float = 0.0,
        positive_weight: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The mean loss of the clips of a batch, and the number of correct clips.

        Args:
            logits: float32, output of the model.
            labels: see `label_kind`; fractions of the classes (B, K) for mixed clips.
            inside: bool (B, L), the points in time inside the video, for labels with points in time.
            smoothing: label smoothing, in [0, 1).
            positive_weight: (K,), for a binary cross entropy.
        """
        raise NotImplementedError(f"task {self.name} does not define loss()")

    def positive_weights(self, config: Any, dataset: VideoDataset) -> Tensor | None:
        """Positive weight of the binary cross entropy for each class: (K,), or None for 1.

        With ``positive_weight`` 0 it is the ratio of negatives to positives (`presence`), at most 100; 1 for
        a class without positives.
        """
        if not self.multi_label or config.positive_weight == 1:
            return None
        if config.positive_weight:
            return torch.full((len(dataset.class_names),), float(config.positive_weight))
        present, total = self.presence(dataset)
        weights = (total - present).clamp(min=0) / present
        return weights.where(present > 0, 1.0).clamp(max=_MAX_POSITIVE_WEIGHT).to(torch.float32)

    def presence(self, dataset: VideoDataset) -> tuple[Tensor, float]:
        """Number of videos with each class, float64 (K,), and of all videos."""
        present = torch.zeros(len(dataset.class_names), dtype=torch.float64)
        for item in dataset.items:
            for label in {action.label for action in item.actions}:
                present[label] += 1
        return present, float(len(dataset))

    def preview(
        self,
        config: Any,
        part: ClipBatch,
        transform: TrainTransform,
        mixing: Mixing | None,
        model_options: dict[str, Any],
    ) -> Preview:
        """The network input and labels of a part of a training batch."""
        x, labels = transform.with_labels(part)
        if mixing:
            x, labels = mixing(x, labels, part.seeds)
        # of labels at several points in time, all classes that occur
        return Preview(x, list(labels.amax(2) if labels.ndim == 3 else labels))

    def data_text(self, num_classes: int) -> str:
        """Text about the labels in the first line of the log."""
        return f"{num_classes} classes"

    # -------------------------------------------------------------------------------------- evaluation

    def view_sets(self, views: str | Sequence[str]) -> dict[str, Views]:
        """The view sets of a test by name.

        Raises:
            UsageError: they are invalid, or the task does not support them.
        """
        if self.fixed_views:
            return {self.fixed_views: Views(1, 1)}
        texts = views.split(",") if isinstance(views, str) else list(views)
        parsed = [parse_views(text) for text in texts]
        if not parsed:
            raise UsageError("no views given; 10x3 means 10 clips of 3 crops")
        return {str(each): each for each in parsed}

    def decode_sizes(self, clip: ClipSpec, sets: Sequence[Views]) -> tuple[int, ...]:
        """The different short sides at which a video is decoded."""
        return decode_sizes(clip, sets)

    def plan(self, video: VideoReader, wanted: PlanRequest) -> VideoPlan:
        """The frames of a video to decode, and the views of them. Each view has a tag for `forward` and
        `merge`; here, the number of times that each view set contains the view.
        """
        return plan_video(
            len(video),
            video.fps,
            wanted.clip,
            wanted.sets,
            decode_size=wanted.size,
            rule=wanted.rule,
            times=video.times,
        )

    def forward(self, model: nn.Module, x: Tensor, views: Sequence[View]) -> Sequence[Any]:
        """The output of the model for each view; here logits, float32 (K,).

        Args:
            x: (B, 3, T, H, W), the normalised views.

        Raises:
            WeightsError: the output has another shape or is not finite.
        """
        logits = model(x)
        if logits.ndim != 2:
            raise WeightsError(
                f"the model returns {tuple(logits.shape)}; classification needs (views, classes)"
            )
        return list(finite(logits))

    @abstractmethod
    def merge(self, before: Any, output: Any, view: View, sets: Sequence[Views]) -> Any:
        """Add the output of a view to the merged outputs ``before`` of an item, None at its first view."""

    @abstractmethod
    def results(self, dataset: VideoDataset, outcome: Outcome) -> dict[str, Any]:
        """The result of each view set by name."""

    def items_of(self, labels: Sequence[Any]) -> tuple[VideoItem, ...]:
        """The items of a data set of tensors with these labels.

        Raises:
            UsageError: the task does not support tensors.
        """
        raise UsageError(f"task {self.name} needs videos and cannot be tested on tensors")

    @abstractmethod
    def activation(self, logits: NDArray[Any]) -> NDArray[Any]:
        """Scores 0..1 of logits (..., K)."""

    def join(self, scores: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
        """Combine the scores (outputs of `activation`) of several views in a prediction."""
        joined: NDArray[np.float32] = scores.mean(axis=axis)
        return joined


def option_names(model_name: str) -> tuple[str, ...]:
    """The overrides that `saccade.create_model` takes for a model.

    Raises:
        UsageError: there is no such model.
    """
    from saccade.models import registry

    return registry.option_names(model_name)
