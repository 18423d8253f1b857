"""What a task is: everything that differs between tasks, behind one interface.

`Task` is what training, testing, prediction and reports ask; a task of your own derives from it, or from one
of those here, and is made known with `saccade.tasks.register_task`.

Shape letters: B clips, K classes, L points in time that have labels, T frames of a clip.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self

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
from saccade.tasks.scores import finite
from saccade.transforms import Mixing, TrainTransform
from saccade.video import VideoReader

Problems = Iterator[tuple[str, str]]
"""Fields of a config that cannot work, and why."""

_MAX_POSITIVE_WEIGHT = 100.0


class Step(Protocol):
    """What a loss may use of a training step (`saccade.training.step.GradientStep`)."""

    config: Any
    model: nn.Module
    network: Callable[..., Tensor]
    transform: TrainTransform
    processes: Any

    def inputs(self, batch: ClipBatch) -> tuple[Tensor, Tensor]:
        """Clips (B, 3, T, H, W) after all transforms, and their labels."""
        ...

    def autocast(self) -> AbstractContextManager[None]:
        """The precision that the network runs in."""
        ...


class Objective(ABC):
    """The loss of a training run."""

    def begin(self, step: Step, batch: ClipBatch) -> None:  # noqa: B027  # mostly there is nothing to do
        """Called with each whole batch before it is split."""

    @abstractmethod
    def __call__(self, step: Step, part: ClipBatch) -> tuple[Tensor, Tensor]:
        """The mean loss of the clips of a part of the batch, and how many of them are correct."""


@dataclass(frozen=True)
class ClipObjective(Objective):
    """The loss of logits of clips.

    Args:
        loss: (logits, labels, which points lie inside the video) -> (mean loss over the clips, number of
            correct clips).
    """

    loss: Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]

    def __call__(self, step: Step, part: ClipBatch) -> tuple[Tensor, Tensor]:
        x_BCTHW, labels = step.inputs(part)
        with step.autocast():
            logits = step.network(x_BCTHW)
        inside_BL = None if part.inside is None else part.inside.to(logits.device)
        return self.loss(logits.float(), labels, inside_BL)


@dataclass(frozen=True)
class View:
    """One view on its way through the model.

    Attributes:
        position: of its item in the data set; ``number``: of the view in the item.
        tag: what the plan says of it, see `Task.plan`.
        pixels: uint8 (T, H, W, 3), or a float clip (3, T, H, W) that is ready for the model.
    """

    position: int
    number: int
    tag: Any
    pixels: Tensor


@dataclass(frozen=True)
class PlanRequest:
    """What a test wants of one video, for `Task.plan`.

    Attributes:
        dataset, position: the item that the video belongs to.
        clip, sets: the clip of the test, and its view sets.
        size: the short side that the video is decoded at.
        rule: temporal rule of the view sets that do not bring their own.
        shuffle_seed: the frames of every clip are permuted by it; None keeps their order.
    """

    dataset: VideoDataset
    position: int
    clip: ClipSpec
    sets: Sequence[Views]
    size: int
    rule: str = "saccade"
    shuffle_seed: tuple[int, int] | None = None


@dataclass(frozen=True)
class Outcome:
    """What a pass over a data set found.

    Attributes:
        scores: of every item that could be read, what `Task.merge` made of its views, by position.
        videos: the frames of those videos in time; empty for clips that are tensors.
        sets: the view sets by name.
        common: fields that every `Result` has.
        clip, rule: of the test.
    """

    scores: Mapping[int, Any]
    videos: Mapping[int, FrameTimes]
    sets: Mapping[str, Views]
    common: Mapping[str, Any]
    clip: ClipSpec
    rule: str

    @property
    def order(self) -> list[int]:
        """Positions of the items that could be read."""
        return sorted(self.scores)

    def protocol(self, name: str) -> dict[str, Any]:
        """The fields of the `Result` of one view set that say what was tested and how."""
        views = self.sets[name]
        size = views.decode_size(self.clip.short_side, self.clip.crop)
        return dict(self.common) | {
            "views": name,
            "clip": self.clip.replace(short_side=size),
            "temporal_rule": views.rule or self.rule,
        }


@dataclass(frozen=True)
class Preview:
    """A part of a training batch for people to look at: clips (B, 3, T, S, S), of each the labels, and boxes
    of people in pixels where the task has them.
    """

    clips: Tensor
    labels: list[Tensor]
    boxes: list[Tensor] | None = None


@dataclass(frozen=True)
class Task(ABC):
    """Everything that differs between tasks. Fields of a derived class are options of its test.

    Attributes:
        name: as in configs, run folders and commands.
        result_type: what a test yields.
        figure: the figure that models are chosen by, one of `Result.figures`.
        train_figure: what the fraction of correct clips is called in metrics.jsonl.
        label_kind: which labels training clips come with, see `saccade.data.clips.ClipSettings`.
        multi_label: whether an item of the data set has any number of labels.
        smooths_labels: whether label smoothing has a meaning.
        fixed_views: what is tested in place of view sets, e.g. ``windows``; empty: CLIPSxCROPS.
        tested_at_end: whether a training run ends with a test even if no ``test_views`` are given.
        has_classes: whether it can be tested by ``saccade test`` and predict labels.
        test_options: flags of ``saccade test`` that have a meaning for it.
        predict_hint: what to do where a `Predictor` is given a model of this task.
        searchable: whether ``saccade expand`` can compare networks by it.
        default_batch: views per forward pass; None: by memory.
        channels_last: memory format of the views; None: that of the model's weights.
    """

    name: ClassVar[str]
    result_type: ClassVar[Any]  # a subclass of Result
    figure: ClassVar[str] = "top1"
    train_figure: ClassVar[str] = "top1"
    label_kind: ClassVar[LabelKind] = "class"
    multi_label: ClassVar[bool] = False
    smooths_labels: ClassVar[bool] = True
    fixed_views: ClassVar[str] = ""
    tested_at_end: ClassVar[bool] = False
    has_classes: ClassVar[bool] = True
    test_options: ClassVar[frozenset[str]] = frozenset({"views", "temporal_rule"})
    predict_hint: ClassVar[str] = ""
    searchable: ClassVar[bool] = True
    default_batch: ClassVar[int | None] = None
    channels_last: ClassVar[bool | None] = None

    # ------------------------------------------------------------------------------------------ config

    @classmethod
    def from_config(cls, config: Any) -> Self:
        """The task with the options that a `TrainConfig` has for it."""
        return cls()

    def for_test(self, config: Any, model: nn.Module) -> Self:
        """The task with what a test during training needs of the config and the model."""
        return self

    @classmethod
    def problems(cls, config: Any) -> Problems:
        """Fields of a `TrainConfig` that cannot work with this task."""
        if config.label_smoothing and not cls.smooths_labels:
            yield "label_smoothing", f"is for labels of clips; leave it at 0 for task {config.task}"

    @classmethod
    def model_overrides(cls, model_name: str) -> dict[str, Any]:
        """The options of `saccade.create_model` with which the head of a model suits the task.

        Raises:
            ConfigError: the model cannot do it.
        """
        if "target_kind" in option_names(model_name):
            raise ConfigError(
                f"task: {model_name} has no classes, it is pre-trained with --task masked alone"
            )
        return {}

    @classmethod  # noqa: B027
    def check_model(  # mostly any will do
        cls, config: Any, model: nn.Module, sizes: Iterable[tuple[int, int]]
    ) -> None:
        """Raise `ConfigError` if the model cannot learn the task from clips of these (frames, pixels)."""

    @classmethod
    def clip_multiple(cls, config: Any, multiple: tuple[int, int]) -> tuple[int, int]:
        """What frames and pixels of a clip must be a multiple of, given what the model says."""
        return multiple

    # -------------------------------------------------------------------------------------------- data

    @classmethod
    def data_options(cls, config: Any, split: str) -> dict[str, Any]:
        """The options of `load_split` for a training run."""
        return {
            "val_fraction": config.val_fraction,
            "allow_missing": config.allow_missing,
            "root": config.root or None,
            "class_names": config.class_names or None,
        }

    def load_split(self, path: str, split: str, **options: Any) -> VideoDataset:
        """One split of a data set. Options as for `saccade.load_dataset`."""
        from saccade.data.datasets import load_dataset

        return load_dataset(path, split, **options)  # type: ignore[arg-type]

    def load_test_split(
        self, path: str, split: str, given: Mapping[str, Any], *, class_names: Sequence[str] | None
    ) -> VideoDataset:
        """The split that ``saccade test`` tests.

        Args:
            given: ``root``, ``val_fraction``, ``allow_missing``, and of people ``detected``, ``min_score``.
        """
        options = {name: given[name] for name in ("root", "val_fraction", "allow_missing")}
        return self.load_split(path, split, class_names=class_names, **options)

    def load_data(self, config: Any) -> tuple[VideoDataset, VideoDataset | None]:
        """The videos to train on, and those to validate on unless `val_every` is 0."""
        train_set = self.load_split(config.data, "train", **self.data_options(config, "train"))
        self.check_dataset(train_set, source=config.data, error=ConfigError)
        if not config.val_every:
            return train_set, None
        val_set = self.load_split(config.data, "val", **self.data_options(config, "val"))
        self.check_validation(val_set, source=config.data)
        return train_set, val_set

    def check_dataset(
        self, dataset: VideoDataset, *, source: str = "", error: type[Exception] = DataError
    ) -> None:
        """Raise unless the labels of the data set are those that the task needs.

        Args:
            source: what the message calls the data set; default: its root.
            error: raised where another task would do.
        """
        where = source or dataset.root
        if dataset.keyframes:
            raise error(
                f"{'task: ' if error is ConfigError else ''}{where}: data set has people at keyframes; "
                "use the task detection"
            )
        if dataset.multi_label and not self.multi_label:
            raise error(
                f"{'task: ' if error is ConfigError else ''}{where}: data set is multi-label; use the task "
                "multi-label (which actions) or localization (which and when)"
            )
        if not dataset.multi_label and self.multi_label:
            raise DataError(
                f"{where}: has one label a video, but the task {self.name} needs actions with times, as "
                "Charades has them"
            )

    def check_validation(self, dataset: VideoDataset, *, source: str) -> None:
        """Raise `DataError` if no model could be chosen by a test on ``dataset``."""
        if self.multi_label and not any(item.actions for item in dataset.items):
            raise DataError(
                f"{source}: none of the {len(dataset)} videos of split {dataset.split} has an action, so "
                f"task {self.name} cannot be validated on them; give a split with actions, or --val-every 0"
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
        """The mean loss of the clips of a batch, and how many of them are correct.

        Args:
            logits: float32, what the model gives.
            labels: of the clips, see `label_kind`; mixed clips have fractions of the classes (B, K).
            inside: bool (B, L), which points in time lie inside the video, where the labels have some.
            smoothing: label smoothing, 0 to below 1.
            positive_weight: (K,) of a binary cross entropy.
        """
        raise NotImplementedError(f"task {self.name} has no loss of logits")

    def positive_weights(self, config: Any, dataset: VideoDataset) -> Tensor | None:
        """Positive weight of the binary cross entropy for each class: (K,), or None for 1.

        With ``positive_weight`` 0 it is, for each class, how many times more often it is absent than present
        (`presence`). At most 100; a class that never occurs has 1.
        """
        if not self.multi_label or config.positive_weight == 1:
            return None
        if config.positive_weight:
            return torch.full((len(dataset.class_names),), float(config.positive_weight))
        present, total = self.presence(dataset)
        weights = (total - present).clamp(min=0) / present
        return weights.where(present > 0, 1.0).clamp(max=_MAX_POSITIVE_WEIGHT).to(torch.float32)

    def presence(self, dataset: VideoDataset) -> tuple[Tensor, float]:
        """How often each class is present, float64 (K,), and the total: counted in videos."""
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
        """A part of a batch as the network sees it in training."""
        x, labels = transform.with_labels(part)
        if mixing:
            x, labels = mixing(x, labels, part.seeds)
        # with labels at several moments, every class that occurs
        return Preview(x, list(labels.amax(2) if labels.ndim == 3 else labels))

    def data_text(self, num_classes: int) -> str:
        """What the first line of a run says of the labels."""
        return f"{num_classes} classes"

    # -------------------------------------------------------------------------------------- evaluation

    def view_sets(self, views: str | Sequence[str]) -> dict[str, Views]:
        """The view sets of a test by name.

        Raises:
            UsageError: they cannot be read, or do not suit the task.
        """
        if self.fixed_views:
            return {self.fixed_views: Views(1, 1)}
        texts = views.split(",") if isinstance(views, str) else list(views)
        parsed = [parse_views(text) for text in texts]
        if not parsed:
            raise UsageError("no views given; 10x3 means 10 clips of 3 crops")
        return {str(one): one for one in parsed}

    def decode_sizes(self, clip: ClipSpec, sets: Sequence[Views]) -> tuple[int, ...]:
        """The short sides at which a video is decoded, each once."""
        return decode_sizes(clip, sets)

    def plan(self, video: VideoReader, wanted: PlanRequest) -> VideoPlan:
        """Which frames of a video are decoded, and the views made of them. The tag of each view reaches
        `forward` and `merge`; here: how often each view set has the view.
        """
        return plan_video(
            len(video),
            video.fps,
            wanted.clip,
            wanted.sets,
            decode_size=wanted.size,
            rule=wanted.rule,
            shuffle_seed=wanted.shuffle_seed,
            times=video.times,
        )

    def forward(self, model: nn.Module, x: Tensor, views: Sequence[View]) -> Sequence[Any]:
        """What the model gives for each view: here logits, float32 (K,).

        Args:
            x: (B, 3, T, H, W), the views normalised.

        Raises:
            WeightsError: the output has another shape or is not finite.
        """
        logits = model(x)
        if logits.ndim != 2:
            raise WeightsError(
                f"the model gives {tuple(logits.shape)}, but (views, classes) is needed to classify"
            )
        return list(finite(logits))

    @abstractmethod
    def merge(self, before: Any, output: Any, view: View, sets: Sequence[Views]) -> Any:
        """What the views of an item come to: ``before``, None for its first view, with one more output."""

    @abstractmethod
    def results(self, dataset: VideoDataset, outcome: Outcome) -> dict[str, Any]:
        """The result of each view set."""

    def items_of(self, labels: Sequence[Any]) -> tuple[VideoItem, ...]:
        """The items of a data set of tensors with these labels.

        Raises:
            UsageError: such a data set cannot have the labels of the task.
        """
        raise UsageError(f"task {self.name} cannot be tested on clips that are tensors; give videos")

    @abstractmethod
    def activation(self, logits: NDArray[Any]) -> NDArray[Any]:
        """Scores 0..1 of logits (..., K)."""

    def join(self, scores: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
        """What the scores of several views, made by `activation`, come to in a prediction."""
        joined: NDArray[np.float32] = scores.mean(axis=axis)
        return joined


def option_names(model_name: str) -> tuple[str, ...]:
    """The overrides that `saccade.create_model` takes for a model.

    Raises:
        UsageError: there is no such model.
    """
    from saccade.models import registry

    return registry.option_names(model_name)
