"""Single-label classification: cross entropy, top-1.

Shape letters: B clips, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from statistics import fmean
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from saccade.data.types import VideoDataset, VideoItem
from saccade.errors import DataError
from saccade.sampling.views import Average, Views, parse_views
from saccade.tasks import metrics
from saccade.tasks.base import Outcome, Problems, Task, View
from saccade.tasks.result import ClassErrors, ClassTable, Example, Result, Suspect
from saccade.tasks.scores import check_classes, check_labels, softmax, summed
from saccade.tasks.statistics import Accuracy, paired_error, proportion_error

_UNLIKELY, _LIKELY = 0.1, 0.9  # scores of the label and of another class that make the label suspect


@dataclass(frozen=True, eq=False, kw_only=True)
class TestResult(Result):
    """Scores of one view set on a single-label data set.

    Attributes:
        scores: float32 (num_videos, num_classes), mean of the views' softmax, or softmax of their mean logits
            (see `average`); rows sum to 1.
        labels: int64 (num_videos,).
    """

    __test__ = False  # not a test class of pytest
    task: ClassVar[str] = "single-label"

    scores: NDArray[np.float32]
    labels: NDArray[np.int64]

    @property
    def own_figures(self) -> dict[str, float]:
        return {"top1": self.top1, "top5": self.top5, "mean_class": self.mean_class_accuracy}

    @property
    def average(self) -> Average:
        """What the protocol averages over the views: ``softmax`` or ``logits``."""
        return parse_views(self.views).average

    @cached_property
    def top1(self) -> float:
        """Top-1 accuracy in 0..1."""
        return metrics.top_k(self.scores, self.labels, 1)

    @cached_property
    def right(self) -> NDArray[np.bool_]:
        """Whether the class with the highest score is the true one, (num_videos,)."""
        return self.scores.argmax(axis=1) == self.labels

    @cached_property
    def accuracy(self) -> Accuracy:
        """`top1` as a count, with its interval and chance."""
        return Accuracy.of(self.scores.argmax(axis=1), self.labels, len(self.class_names))

    @cached_property
    def confidence_bins(self) -> list[metrics.ConfidenceBin]:
        """See `saccade.tasks.metrics.confidence_bins`."""
        return metrics.confidence_bins(self.scores, self.labels)

    def two_class(self, positive: int = 1, false_alarms: float | None = None) -> dict[str, Any]:
        """Metrics of two classes: the name of the ``positive`` one, ``auc``, ``f1`` where the class with the
        higher score is predicted, and with a rate of ``false_alarms`` in 0..1 the
        `saccade.tasks.metrics.OperatingPoint` for it.
        """
        scores, positives = self.scores[:, positive], self.labels == positive
        return {
            "positive": self.class_names[positive],
            "num_positives": int(positives.sum()),
            "num_negatives": int((~positives).sum()),
            "auc": metrics.roc_auc(scores, positives),
            "f1": metrics.OperatingPoint.at(0.5, scores, positives).f1,
            "wanted_false_alarms": false_alarms,
            "operating_point": None
            if false_alarms is None
            else asdict(metrics.OperatingPoint.for_false_alarms(false_alarms, scores, positives)),
        }

    def class_errors(self, num: int) -> list[ClassErrors]:
        found = []
        for row in sorted(self.per_class, key=lambda row: row.num_correct - row.num_clips):
            wrong = np.flatnonzero((self.labels == row.label) & ~self.right)
            worst = wrong[np.argsort(-self.losses[wrong], kind="stable")][:num].tolist()
            if worst:
                name = self.class_names[row.label]
                examples = tuple(self._example(index) for index in worst)
                found.append(ClassErrors(name, len(wrong), row.num_clips, examples))
        return found

    def suspects(self) -> list[Suspect]:
        own, best = self.scores[np.arange(self.num_videos), self.labels], self.scores.max(axis=1)
        rows = np.flatnonzero((own <= _UNLIKELY) & (best >= _LIKELY))
        names, order = self.class_names, rows[np.argsort(own[rows] - best[rows], kind="stable")]
        return [
            Suspect(
                self.paths[row],
                names[self.labels[row]],
                names[self.scores[row].argmax()],
                float(own[row]),
                float(best[row]),
            )
            for row in order.tolist()
        ]

    def score_of(self, selected: NDArray[np.bool_]) -> float:
        return float(self.right[selected].mean()) if selected.any() else float("nan")

    @cached_property
    def standard_error(self) -> float:
        """Standard error of `top1`."""
        return proportion_error(self.top1, self.num_videos)

    @classmethod
    def error_of_mean(cls, results: Sequence[Self]) -> float:
        return proportion_error(fmean(result.score for result in results), results[0].num_videos)

    def minus(self, others: Sequence[Self]) -> tuple[float, float]:
        each = self.right - np.mean([other.right for other in others], axis=0)
        return float(each.mean()), paired_error(each)

    def _score_text(self) -> str:
        return str(self.accuracy)

    @cached_property
    def top5(self) -> float:
        """Top-5 accuracy in 0..1."""
        return metrics.top_k(self.scores, self.labels, 5)

    @cached_property
    def mean_class_accuracy(self) -> float:
        """Mean of the recall of all classes."""
        return metrics.mean_class_accuracy(self.scores, self.labels)

    @cached_property
    def per_class(self) -> list[metrics.ClassRow]:
        """See `saccade.tasks.metrics.per_class`."""
        return metrics.per_class(self.scores, self.labels)

    @cached_property
    def confusion(self) -> NDArray[np.int64]:
        """Confusion matrix (num_classes, num_classes): rows are true classes, columns predicted ones."""
        return metrics.confusion_matrix(self.scores, self.labels)

    @cached_property
    def pair_accuracy(self) -> float:
        """See `saccade.tasks.metrics.pair_accuracy`; ``nan`` without pairs."""
        return metrics.pair_accuracy(self.scores, self.labels, self.pairs)

    @cached_property
    def losses(self) -> NDArray[np.float64]:
        """Negative log likelihood of the true class, per video."""
        true_scores = self.scores[np.arange(self.num_videos), self.labels].astype(np.float64)
        return -np.log(np.maximum(true_scores, 1e-12))

    @property
    def combination_text(self) -> str:
        return (
            "softmax of the mean of the views' logits"
            if self.average == "logits"
            else super().combination_text
        )

    def class_table(self) -> ClassTable:
        names = self.class_names
        rows = sorted(
            (row for row in self.per_class if row.num_clips), key=lambda row: (row.recall, row.precision)
        )
        return ClassTable(
            "recall",
            ("clips", "precision", "most confused with"),
            tuple(
                (
                    names[row.label],
                    row.recall,
                    (
                        str(row.num_clips),
                        "-" if np.isnan(row.precision) else f"{100 * row.precision:.1f} %",
                        f"{names[row.confused_with]} ({row.num_confused})" if row.num_confused else "",
                    ),
                )
                for row in rows
            ),
            self.confusion,
        )

    def examples(self, num: int, *, hardest: bool) -> list[Example]:
        return [self._example(index) for index in self._rows_by_loss(self.losses, num, hardest)]

    def _example(self, index: int) -> Example:
        scores, label = self.scores[index], int(self.labels[index])
        best = scores.argsort()[::-1][:3].tolist()
        return Example(
            path=self.paths[index],
            truth=self.class_names[label],
            is_correct=best[0] == label,
            loss=float(self.losses[index]),
            best=tuple((self.class_names[i], float(scores[i]), i == label) for i in best),
            true_score=float(scores[label]),
        )

    @property
    def scored(self) -> tuple[NDArray[Any], NDArray[Any]]:
        return self.scores, self.labels

    def _task_summary(self) -> dict[str, Any]:
        return {
            "average": self.average,
            "top1": self.top1,
            **self.accuracy.to_dict(),
            "calibration_error": self.calibration_error,
            "two_class": self.two_class() if len(self.class_names) == 2 else None,
            "top5": self.top5,
            "mean_class_accuracy": self.mean_class_accuracy,
            "pair_accuracy": self.pair_accuracy,
        }

    def _arrays(self) -> dict[str, Any]:
        return {"scores": self.scores, "labels": self.labels}


def class_weights(dataset: VideoDataset, balance: float) -> Tensor | None:
    """Weights of the classes in the cross entropy, float32 (K,), with a mean of 1 over the videos: each is in
    proportion to 1 / (number of its videos) ** balance. None: all are 1.
    """
    labels = [item.label for item in dataset.items] or dataset.fingerprint()["labels"]
    if not balance or not labels:
        return None
    counts = torch.zeros(len(dataset.class_names), dtype=torch.float64)
    for label in labels:
        counts[label] += 1
    weights = counts.clamp(min=1) ** -balance
    return (weights * (counts.sum() / (weights * counts).sum())).float()


@dataclass(frozen=True)
class Classify(Task):
    """Single-label classification. Softmax of each view, then the mean over the views, as in PySlowFast; some
    protocols average logits instead.
    """

    name: ClassVar[str] = "single-label"
    result_type: ClassVar[Any] = TestResult
    tests_time_use: ClassVar[bool] = True

    @staticmethod
    def soft_loss(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:  # type: ignore[override]
        """Kullback-Leibler divergence of the softmax at ``temperature`` from the teacher's, times its square,
        which keeps the size of the gradients (Hinton et al. 2015, arXiv 1503.02531, section 2).
        """
        log_p, log_q = ((values / temperature).log_softmax(1) for values in (logits, teacher))
        return temperature**2 * F.kl_div(log_p, log_q, reduction="none", log_target=True).sum(1)

    @classmethod
    def problems(cls, config: Any) -> Problems:
        yield from super().problems(config)
        if config.positive_weight != 1:
            yield "positive_weight", "is for the binary cross entropy; set it to 1 for task single-label"

    def check_training(self, dataset: VideoDataset, *, source: str = "") -> None:
        present = sorted({item.label for item in dataset.items})
        if len(present) < 2:
            name = dataset.class_names[present[0]] if dataset.class_names else str(present[0])
            raise DataError(
                f"{source or dataset.root}: all {len(dataset)} training videos are of one class, {name!r}; a "
                "classifier needs two or more (folders of classes directly under the data set or its split)"
            )

    def positive_weights(self, config: Any, dataset: VideoDataset) -> Tensor | None:
        """The weights of the classes, see `class_weights`."""
        return class_weights(dataset, config.class_balance)

    def loss(
        self,
        logits: Tensor,
        labels: Tensor,
        inside: Tensor | None = None,
        *,
        smoothing: float = 0.0,
        positive_weight: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Cross entropy of logits (B, K) and labels, int64 (B,) or fractions of the classes (B, K);
        ``positive_weight`` (K,) are the weights of the classes.
        """
        loss = F.cross_entropy(logits, labels, weight=positive_weight, label_smoothing=smoothing)
        expected_B = (
            labels if labels.ndim == 1 else labels.argmax(dim=1)
        )  # of a mixed clip, the larger fraction
        num_correct = (logits.detach().argmax(dim=1) == expected_B).sum().to(loss.dtype)
        return loss, num_correct

    def items_of(self, labels: Sequence[Any]) -> tuple[VideoItem, ...]:
        return tuple(VideoItem(str(number), int(label)) for number, label in enumerate(labels))

    def activation(self, logits: NDArray[Any]) -> NDArray[Any]:
        return softmax(logits)

    def merge(self, before: Any, output: Any, view: View, sets: Sequence[Views]) -> Any:
        each = np.stack([output if views.average == "logits" else softmax(output) for views in sets])
        return summed(before, each, view.tag)

    def results(self, dataset: VideoDataset, outcome: Outcome) -> dict[str, Any]:
        check_classes(outcome.scores[outcome.order[0]].shape[1], dataset)
        labels = np.array([dataset.items[i].label for i in outcome.order], np.int64)
        check_labels(labels, dataset)
        results = {}
        for number, (name, views) in enumerate(outcome.sets.items()):
            scores = np.stack([outcome.scores[i][number] for i in outcome.order]) / len(views)
            if views.average == "logits":
                scores = softmax(scores)
            results[name] = self.result_type(
                scores=scores.astype(np.float32), labels=labels, **outcome.protocol(name)
            )
        return results
