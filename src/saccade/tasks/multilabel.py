"""Multi-label classification: binary cross entropy, mean average precision.

Shape letters: N videos, K classes.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Self, get_args

import numpy as np
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from saccade.data.actions import active_at
from saccade.data.clips import LabelKind
from saccade.data.types import Action, VideoDataset, VideoItem
from saccade.errors import UsageError
from saccade.files import write_text
from saccade.sampling.views import Views
from saccade.tasks import metrics
from saccade.tasks.base import Outcome, Task, View, option_names
from saccade.tasks.metrics import PrecisionRow
from saccade.tasks.moments import CHARADES_POINTS, charades_times
from saccade.tasks.result import ClassTable, Example, Result
from saccade.tasks.scores import binary_cross_entropy, check_classes, check_labels, sigmoid, summed

Ensemble = Literal["max", "mean"]


@dataclass(frozen=True, eq=False, kw_only=True)
class MultiLabelResult(Result):
    """Scores of one view set on a multi-label data set.

    Attributes:
        scores: float32 (N, K) in 0..1: maximum of the sigmoid over the views (PySlowFast, X3D-Multigrid), or
            the mean.
        positives: bool (N, K).
        truth: bool (N, 25, K), the classes at 25 equally spaced points in time; (N, 0, K) if the actions of
            the data set have no times.
        ensemble: how the scores of the views were combined.
    """

    task: ClassVar[str] = "multi-label"

    scores: NDArray[np.float32]
    positives: NDArray[np.bool_]
    truth: NDArray[np.bool_]
    ensemble: Ensemble = "max"

    @property
    def own_figures(self) -> dict[str, float]:
        return {"map": self.map, "repeated_charades25": self.repeated_charades25}

    @cached_property
    def precisions(self) -> NDArray[np.float64]:
        """Average precision of each class, ``nan`` without a positive: (K,)."""
        return metrics.average_precisions(self.scores, self.positives)

    @property
    def map(self) -> float:
        """Mean average precision over the classes with a positive, as in PySlowFast and scikit-learn."""
        return metrics.mean_over_classes(self.precisions)

    def score_of(self, selected: NDArray[np.bool_]) -> float:
        return metrics.mean_average_precision(self.scores[selected], self.positives[selected])

    @cached_property
    def repeated_charades25(self) -> float:
        """Control: the localisation metric ``charades-25`` of these scores, repeated over time."""
        if not self.truth.size:
            return float("nan")
        rows = np.repeat(self.scores, CHARADES_POINTS, axis=0)
        return metrics.mean_average_precision(rows, self.truth.reshape(len(rows), -1))

    @cached_property
    def pair_accuracy(self) -> float:
        """See `saccade.tasks.metrics.pair_preference`; ``nan`` without pairs."""
        return metrics.pair_preference(self.scores, self.positives, self.pairs)

    @cached_property
    def losses(self) -> NDArray[np.float64]:
        """Binary cross entropy per video, mean over the classes."""
        return binary_cross_entropy(self.scores, self.positives).mean(axis=1)

    @property
    def per_class(self) -> list[PrecisionRow]:
        """One row per class, in label order, including classes without a positive."""
        counts = self.positives.sum(axis=0)
        return [
            PrecisionRow(label, int(count), float(precision))
            for label, (count, precision) in enumerate(zip(counts, self.precisions, strict=True))
        ]

    @property
    def combination_text(self) -> str:
        return f"{'maximum' if self.ensemble == 'max' else 'mean'} of the views' sigmoid"

    def class_table(self) -> ClassTable:
        return precision_table(self.per_class, self.class_names, "videos")

    def examples(self, num: int, *, hardest: bool) -> list[Example]:
        return [self._example(index) for index in self._rows_by_loss(self.losses, num, hardest)]

    def _example(self, index: int) -> Example:
        best = top_classes(self.scores[index], self.positives[index], self.class_names)
        truth = label_text(self.positives[index], self.class_names)
        return Example(self.paths[index], truth, best[0][2], float(self.losses[index]), best)

    @property
    def scored(self) -> tuple[NDArray[Any], NDArray[Any]]:
        return self.scores, self.positives

    @property
    def submission_name(self) -> str:
        return f"submission_classify_{self.views}.txt"

    def write_submission(self, path: str | os.PathLike[str]) -> None:
        """Write the scores in the format of Charades_v1_classify.m: a line for every video with its id and
        the score of each class.
        """
        ids = [Path(name).stem for name in self.paths]
        write_text(
            path,
            "".join(f"{video} {format_scores(row)}\n" for video, row in zip(ids, self.scores, strict=True)),
        )

    def _task_summary(self) -> dict[str, Any]:
        return {
            "ensemble": self.ensemble,
            "map": self.map,
            "repeated_charades25": self.repeated_charades25,
            "pair_accuracy": self.pair_accuracy,
        }

    def _arrays(self) -> dict[str, Any]:
        return {"scores": self.scores, "positives": self.positives, "truth": self.truth}

    @classmethod
    def _task_fields(cls, info: dict[str, Any]) -> dict[str, Any]:
        return {"ensemble": info["ensemble"]}


def precision_table(rows: Sequence[PrecisionRow], names: Sequence[str], count: str) -> ClassTable:
    """The classes with a positive by average precision; ``count`` is the heading of their number."""
    found = sorted(
        (row for row in rows if row.num_positives), key=lambda row: (row.average_precision, row.label)
    )
    return ClassTable(
        "AP",
        (count,),
        tuple((names[row.label], row.average_precision, (str(row.num_positives),)) for row in found),
    )


def top_classes(
    scores: NDArray[Any], positives: NDArray[np.bool_], names: Sequence[str]
) -> tuple[tuple[str, float, bool], ...]:
    """The three classes with the highest scores, for `Example.best`."""
    best = np.argsort(-scores, kind="stable")[:3].tolist()
    return tuple((names[i], float(scores[i]), bool(positives[i])) for i in best)


def label_text(positives: NDArray[np.bool_], names: Sequence[str]) -> str:
    """The classes of a video."""
    return ", ".join(names[label] for label in np.flatnonzero(positives).tolist()) or "none of the classes"


def format_scores(scores: NDArray[np.float32]) -> str:
    """Scores in the format of the official evaluation of Charades."""
    return " ".join(f"{score:.6g}" for score in scores.tolist())


@dataclass(frozen=True)
class MultiLabel(Task):
    """Multi-label classification. Sigmoid of each view, then the maximum over the views (``max``, PySlowFast
    on Charades) or the mean.
    """

    name: ClassVar[str] = "multi-label"
    result_type: ClassVar[Any] = MultiLabelResult
    figure: ClassVar[str] = "map"
    label_kind: ClassVar[LabelKind] = "actions"
    multi_label: ClassVar[bool] = True
    test_options: ClassVar[frozenset[str]] = Task.test_options | {"ensemble"}

    ensemble: Ensemble = "max"

    @staticmethod
    def soft_loss(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:  # type: ignore[override]
        """Binary cross entropy with the teacher's sigmoid at ``temperature``, mean over the classes, minus
        its minimum, times the square of the temperature.
        """
        student, soft = logits / temperature, (teacher / temperature).sigmoid()
        cross = F.binary_cross_entropy_with_logits(student, soft, reduction="none")
        least = F.binary_cross_entropy_with_logits(teacher / temperature, soft, reduction="none")
        return temperature**2 * (cross - least).mean(1)

    def __post_init__(self) -> None:
        if self.ensemble not in get_args(Ensemble):
            raise UsageError(
                f"ensemble: must be one of {', '.join(get_args(Ensemble))} (is {self.ensemble!r})"
            )

    @classmethod
    def from_config(cls, config: Any) -> Self:
        return cls(config.ensemble)

    @classmethod
    def model_overrides(cls, model_name: str) -> dict[str, Any]:
        super().model_overrides(model_name)
        return {"head_scores": "sigmoid"} if "head_scores" in option_names(model_name) else {}

    def loss(
        self,
        logits: Tensor,
        labels: Tensor,
        inside: Tensor | None = None,
        *,
        smoothing: float = 0.0,
        positive_weight: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Binary cross entropy of logits and labels (B, K), mean over clips and classes. A clip is correct if
        the class with the highest logit is among its labels.
        """
        expected_BK = labels * (1 - smoothing) + smoothing / 2
        loss = F.binary_cross_entropy_with_logits(logits, expected_BK, pos_weight=positive_weight)
        return loss, top1_hits(logits, labels).to(loss.dtype)

    def view_sets(self, views: str | Sequence[str]) -> dict[str, Views]:
        sets = super().view_sets(views)
        wrong = next((views for views in sets.values() if views.average == "logits"), None)
        if wrong is not None:
            raise UsageError(f"views {wrong}: this protocol is single-label; give CLIPSxCROPS")
        return sets

    def items_of(self, labels: Sequence[Any]) -> tuple[VideoItem, ...]:
        if any(len(np.shape(present)) != 1 for present in labels):
            raise ValueError("each label must be a vector (num_classes,) of 0 and 1")
        return tuple(
            VideoItem(
                str(number),
                -1,
                actions=tuple(Action(int(k), 0.0, 0.0) for k in np.flatnonzero(np.asarray(present))),
            )
            for number, present in enumerate(labels)
        )

    def activation(self, logits: NDArray[Any]) -> NDArray[Any]:
        return sigmoid(logits)

    def join(self, scores: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
        joined: NDArray[np.float32] = (
            scores.max(axis=axis) if self.ensemble == "max" else scores.mean(axis=axis)
        )
        return joined

    def merge(self, before: Any, output: Any, view: View, sets: Sequence[Views]) -> Any:
        scores = sigmoid(output)
        if self.ensemble == "mean":
            return summed(before, np.stack([scores] * len(sets)), view.tag)
        in_set = np.asarray(view.tag)[:, None] > 0
        current = np.where(in_set, scores.astype(np.float64), -np.inf)
        return current if before is None else np.maximum(before, current)

    def results(self, dataset: VideoDataset, outcome: Outcome) -> dict[str, Any]:
        check_classes(outcome.scores[outcome.order[0]].shape[1], dataset)
        num_classes = len(dataset.class_names)
        items = [dataset.items[i] for i in outcome.order]
        check_labels(np.array([a.label for item in items for a in item.actions], np.int64), dataset)
        positives = np.zeros((len(items), num_classes), np.bool_)
        for row, item in zip(positives, items, strict=True):
            row[[action.label for action in item.actions]] = True
        truth = np.zeros((len(items), 0, num_classes), np.bool_)
        if outcome.videos:
            durations = [
                item.duration or outcome.videos[i].duration
                for i, item in zip(outcome.order, items, strict=True)
            ]
            truth = np.stack(
                [
                    active_at(item.actions, charades_times(duration), num_classes).T
                    for item, duration in zip(items, durations, strict=True)
                ]
            )
        results = {}
        for number, (name, views) in enumerate(outcome.sets.items()):
            scores = np.stack([outcome.scores[i][number] for i in outcome.order])
            results[name] = self.result_type(
                scores=(scores / (1 if self.ensemble == "max" else len(views))).astype(np.float32),
                positives=positives,
                truth=truth,
                ensemble=self.ensemble,
                **outcome.protocol(name),
            )
        return results


def top1_hits(logits_BK: Tensor, labels_BK: Tensor) -> Tensor:
    """The number of clips whose class with the highest logit is among their labels."""
    best_B1 = logits_BK.detach().argmax(dim=1, keepdim=True)
    return (labels_BK.gather(1, best_B1) > 0).sum()
