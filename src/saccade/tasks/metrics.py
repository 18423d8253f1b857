"""Metrics of score matrices, in numpy.

Scores have shape (num_videos, num_classes), labels (num_videos,) with values 0..num_classes-1. Of classes
with equal scores the one with the lower index is first, as in ``argmax``. Fractions are in 0..1, and ``nan``
without videos.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]
Absent = Literal["left out", "zero"]


@dataclass(frozen=True)
class ClassRow:
    """The results of one class.

    Attributes:
        confused_with: the most frequent wrong prediction for its clips, -1 if there is none.
        num_confused: the number of these clips.
    """

    label: int
    num_clips: int
    num_correct: int
    recall: float
    precision: float
    confused_with: int
    num_confused: int


@dataclass(frozen=True)
class PrecisionRow:
    """The results of one class of a multi-label task."""

    label: int
    num_positives: int
    average_precision: float


def ranks(scores: ArrayLike, labels: ArrayLike) -> NDArray[np.int64]:
    """The rank of the true class of each video, from 0: (num_videos,)."""
    values, truth = _checked(scores, labels)
    true_scores = values[np.arange(len(truth)), truth][:, None]
    ties_before = (np.arange(values.shape[1])[None] < truth[:, None]) & (values == true_scores)
    return ((values > true_scores) | ties_before).sum(axis=1)


def top_k(scores: ArrayLike, labels: ArrayLike, k: int = 1) -> float:
    """Top-k accuracy."""
    hits = ranks(scores, labels) < k
    return float(hits.mean()) if len(hits) else float("nan")


def confusion_matrix(scores: ArrayLike, labels: ArrayLike) -> NDArray[np.int64]:
    """Confusion matrix (num_classes, num_classes): rows are true classes, columns predicted ones."""
    values, truth = _checked(scores, labels)
    num_classes = values.shape[1]
    cells = truth * num_classes + values.argmax(axis=1) if len(truth) else truth
    return np.bincount(cells, minlength=num_classes * num_classes).reshape(num_classes, num_classes)


def mean_class_accuracy(scores: ArrayLike, labels: ArrayLike) -> float:
    """Mean recall of the classes that have clips."""
    table = confusion_matrix(scores, labels)
    totals = table.sum(axis=1)
    present = totals > 0
    if not present.any():
        return float("nan")
    return float((table.diagonal()[present] / totals[present]).mean())


def per_class(scores: ArrayLike, labels: ArrayLike) -> list[ClassRow]:
    """One row per class, in label order, including classes without clips (recall ``nan``)."""
    table = confusion_matrix(scores, labels)
    num_predicted = table.sum(axis=0)
    rows = []
    for label, counts in enumerate(table):
        total, correct = int(counts.sum()), int(counts[label])
        missed = counts.copy()
        missed[label] = 0
        worst = int(missed.argmax())
        rows.append(
            ClassRow(
                label=label,
                num_clips=total,
                num_correct=correct,
                recall=correct / total if total else float("nan"),
                precision=correct / int(num_predicted[label]) if num_predicted[label] else float("nan"),
                confused_with=worst if missed[worst] else -1,
                num_confused=int(missed[worst]),
            )
        )
    return rows


def most_confused(table: ArrayLike, num: int = 10) -> list[tuple[int, int, int]]:
    """The ``num`` largest cells off the diagonal as (true, predicted, count), largest first."""
    counts = np.array(table, copy=True)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:num]
    cells = [(int(cell // counts.shape[1]), int(cell % counts.shape[1])) for cell in order]
    return [(*cell, int(counts[cell])) for cell in cells if counts[cell]]


def average_precision(scores: ArrayLike, positives: ArrayLike) -> float:
    """Average precision of one class without interpolation, as in scikit-learn.

    ``scores`` and ``positives`` have shape (num_videos,). Clips with equal scores share a threshold. ``nan``
    without a positive.
    """
    values, truth = np.asarray(scores, np.float64), np.asarray(positives, bool)
    if values.shape != truth.shape or values.ndim != 1:
        raise ValueError(
            f"average_precision needs two vectors of equal length, got {values.shape} and {truth.shape}"
        )
    if np.isnan(values).any():
        raise ValueError("scores hold nan")
    num_positives = int(truth.sum())
    if num_positives == 0:
        return float("nan")
    order = np.argsort(-values, kind="stable")
    values, truth = values[order], truth[order]
    ends = np.r_[np.flatnonzero(np.diff(values)), len(values) - 1]  # last clip of every group of equal scores
    hits = np.cumsum(truth)[ends]
    precision = hits / (ends + 1)
    recall_steps = np.diff(np.r_[0, hits]) / num_positives
    return float((precision * recall_steps).sum())


def mean_average_precision(scores: ArrayLike, positives: ArrayLike, *, absent: Absent = "left out") -> float:
    """Mean average precision (mAP); both arguments have shape (num_videos, num_classes).

    Classes without a positive are excluded from the mean, as in PySlowFast for Charades, or count as zero, as
    in X3D-Multigrid.
    """
    return mean_over_classes(average_precisions(scores, positives), absent=absent)


def average_precisions(scores: ArrayLike, positives: ArrayLike) -> Float:
    """Average precision of each class (num_classes,), ``nan`` without a positive."""
    values, truth = np.asarray(scores, np.float64), np.asarray(positives, bool)
    if values.shape != truth.shape or values.ndim != 2:
        raise ValueError(f"mAP needs two matrices of equal shape, got {values.shape} and {truth.shape}")
    return np.array([average_precision(values[:, c], truth[:, c]) for c in range(values.shape[1])])


def mean_over_classes(each: ArrayLike, *, absent: Absent = "left out") -> float:
    """The mean of average precisions (num_classes,), which are ``nan`` for absent classes."""
    values = np.asarray(each, np.float64)
    values = np.nan_to_num(values) if absent == "zero" else values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")


def pair_preference(scores: ArrayLike, positives: ArrayLike, pairs: Sequence[tuple[int, int]]) -> float:
    """Multi-label `pair_accuracy`: the fraction of correct preferences among the rows with exactly one class
    of a pair. Both arguments have shape (num_rows, num_classes).
    """
    values, truth = np.asarray(scores, np.float64), np.asarray(positives, bool)
    correct, total = 0.0, 0
    for pair in pairs:
        for label, other in (pair, pair[::-1]):
            rows = truth[:, label] & ~truth[:, other]
            total += int(rows.sum())
            correct += float((values[rows, label] > values[rows, other]).sum())
            correct += 0.5 * float((values[rows, label] == values[rows, other]).sum())
    return correct / total if total else float("nan")


def pair_accuracy(scores: ArrayLike, labels: ArrayLike, pairs: Sequence[tuple[int, int]]) -> float:
    """Fraction of clips with a higher score for their class than for its partner, over the classes in
    ``pairs``.

    The classes of a pair differ in one respect only (the direction of time in `motion`), so 0.5 is chance for
    a model that ignores it. Equal scores count half.
    """
    values, truth = _checked(scores, labels)
    partner = np.full(values.shape[1], -1)
    for first, second in pairs:
        for label, other in ((first, second), (second, first)):
            if not 0 <= label < values.shape[1]:
                raise ValueError(f"pair ({first}, {second}) names a class outside 0..{values.shape[1] - 1}")
            if partner[label] not in (-1, other):
                raise ValueError(f"class {label} is in two pairs")
            partner[label] = other
    inside = np.flatnonzero(partner[truth] >= 0)
    if not len(inside):
        return float("nan")
    true_score, other_score = values[inside, truth[inside]], values[inside, partner[truth[inside]]]
    return float(((true_score > other_score) + 0.5 * (true_score == other_score)).mean())


def roc_auc(scores: ArrayLike, positives: ArrayLike) -> float:
    """Area under the ROC curve: how often a positive has a higher score than a negative; equal scores count
    half. Both arguments have shape (num_videos,). ``nan`` without a positive or a negative.
    """
    values, truth = np.asarray(scores, np.float64), np.asarray(positives, bool)
    num_positives, num_negatives = int(truth.sum()), int((~truth).sum())
    if not num_positives or not num_negatives:
        return float("nan")
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2  # mean rank of each value, from 1
    wins = ranks[inverse][truth].sum() - num_positives * (num_positives + 1) / 2
    return float(wins / (num_positives * num_negatives))


@dataclass(frozen=True)
class OperatingPoint:
    """What a threshold on the score of one class does to the tested videos.

    Attributes:
        threshold: a video is of the class if its score is at least this.
        false_alarms: fraction of the other videos that the threshold takes for the class.
        recall, precision, f1: of the class; ``nan`` if undefined.
    """

    threshold: float
    false_alarms: float
    recall: float
    precision: float
    f1: float

    @classmethod
    def at(cls, threshold: float, scores: ArrayLike, positives: ArrayLike) -> Self:
        """The operating point of a threshold. Scores and positives have shape (num_videos,)."""
        found, truth = np.asarray(scores, np.float64) >= threshold, np.asarray(positives, bool)
        hits, alarms, missed = (int(x.sum()) for x in (found & truth, found & ~truth, ~found & truth))
        num_negatives = int((~truth).sum())

        def fraction(part: float, whole: float) -> float:
            return part / whole if whole else float("nan")

        return cls(
            float(threshold),
            fraction(alarms, num_negatives),
            fraction(hits, hits + missed),
            fraction(hits, hits + alarms),
            fraction(2 * hits, 2 * hits + alarms + missed),
        )

    @classmethod
    def for_false_alarms(cls, rate: float, scores: ArrayLike, positives: ArrayLike) -> Self:
        """The lowest threshold with at most this fraction of false alarms, 0..1, on the tested videos."""
        values, truth = np.asarray(scores, np.float64), np.asarray(positives, bool)
        negatives = np.sort(values[~truth])[::-1]
        allowed = int(rate * len(negatives) + 1e-9)
        if allowed >= len(negatives):
            return cls.at(values.min(initial=np.inf), values, truth)
        above = values[values > negatives[allowed]]
        lowest = above.min() if len(above) else np.nextafter(negatives[allowed], np.inf)
        return cls.at(float(lowest), values, truth)


@dataclass(frozen=True)
class ConfidenceBin:
    """The videos whose highest score lies in one range.

    Attributes:
        confidence: their mean highest score.
        accuracy: the fraction of them that the model is right about.
    """

    num_videos: int
    confidence: float
    accuracy: float


def confidence_bins(scores: ArrayLike, labels: ArrayLike, *, num_bins: int = 15) -> list[ConfidenceBin]:
    """The videos in bins of equal width by their highest score, lowest first, without empty bins."""
    values, truth = _checked(scores, labels)
    confidence, right = values.max(axis=1), values.argmax(axis=1) == truth
    bins = np.clip(np.ceil(confidence * num_bins).astype(int) - 1, 0, num_bins - 1)
    members = (bins == number for number in range(num_bins))
    return [
        ConfidenceBin(int(rows.sum()), float(confidence[rows].mean()), float(right[rows].mean()))
        for rows in members
        if rows.any()
    ]


def calibration_error(bins: Sequence[ConfidenceBin]) -> float:
    """Expected calibration error (ECE; Guo et al., ICML 2017): the mean difference of confidence and accuracy
    of the bins, weighted by their videos; ``nan`` without videos.
    """
    total = sum(each.num_videos for each in bins)
    if not total:
        return float("nan")
    return sum(each.num_videos * abs(each.confidence - each.accuracy) for each in bins) / total


def _checked(scores: ArrayLike, labels: ArrayLike) -> tuple[Float, NDArray[np.int64]]:
    values = np.asarray(scores, np.float64)
    truth = np.asarray(labels, np.int64)
    if values.ndim != 2 or truth.shape != (len(values),):
        raise ValueError(
            f"scores must be (num_videos, num_classes), labels (num_videos,): {values.shape}, {truth.shape}"
        )
    if np.isnan(values).any():
        raise ValueError("scores hold nan")
    if len(truth) and not (truth.min() >= 0 and truth.max() < values.shape[1]):
        raise ValueError(f"labels must lie in 0..{values.shape[1] - 1}, got {truth.min()}..{truth.max()}")
    return values, truth
