"""Exact metrics on score matrices, in numpy.

Scores have shape (num_videos, num_classes), labels (num_videos,) with values 0..num_classes-1. Where two
classes have the same score the one with the lower index wins, as in ``argmax``. Every fraction lies in 0..1;
a fraction of nothing is ``nan``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]
Absent = Literal["left out", "zero"]


@dataclass(frozen=True)
class ClassRow:
    """The results of one class.

    Attributes:
        recall: fraction of its clips that were recognised.
        precision: fraction of the clips predicted as it that are of it.
        confused_with: the class most of its missed clips were predicted as, -1 if there is none.
        num_confused: how many those are.
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
    """The results of one class of several: how many rows have it, and its average precision."""

    label: int
    num_positives: int
    average_precision: float


def ranks(scores: ArrayLike, labels: ArrayLike) -> NDArray[np.int64]:
    """How many classes stand before the true one, per clip: 0 is a top-1 hit. Shape (num_videos,)."""
    values, truth = _checked(scores, labels)
    own = values[np.arange(len(truth)), truth][:, None]
    before = (np.arange(values.shape[1])[None] < truth[:, None]) & (values == own)
    return ((values > own) | before).sum(axis=1)


def top_k(scores: ArrayLike, labels: ArrayLike, k: int = 1) -> float:
    """Fraction of clips whose true class is among the ``k`` highest scores."""
    hits = ranks(scores, labels) < k
    return float(hits.mean()) if len(hits) else float("nan")


def confusion_matrix(scores: ArrayLike, labels: ArrayLike) -> NDArray[np.int64]:
    """Counts of shape (num_classes, num_classes): row is the true class, column the predicted one."""
    values, truth = _checked(scores, labels)
    num_classes = values.shape[1]
    cells = truth * num_classes + values.argmax(axis=1) if len(truth) else truth
    return np.bincount(cells, minlength=num_classes * num_classes).reshape(num_classes, num_classes)


def mean_class_accuracy(scores: ArrayLike, labels: ArrayLike) -> float:
    """Mean over classes of the fraction of their clips recognised. Classes without a clip are left out."""
    table = confusion_matrix(scores, labels)
    totals = table.sum(axis=1)
    present = totals > 0
    if not present.any():
        return float("nan")
    return float((table.diagonal()[present] / totals[present]).mean())


def per_class(scores: ArrayLike, labels: ArrayLike) -> list[ClassRow]:
    """One row per class, in label order, classes without a clip included (their recall is ``nan``)."""
    table = confusion_matrix(scores, labels)
    called = table.sum(axis=0)
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
                precision=correct / int(called[label]) if called[label] else float("nan"),
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
    """Area under the precision-recall steps of one class, not interpolated (as scikit-learn).

    ``scores`` and ``positives`` have shape (num_videos,). Clips with equal scores enter together. ``nan``
    when there is no positive.
    """
    values, truth = np.asarray(scores, np.float64), np.asarray(positives, bool)
    if values.shape != truth.shape or values.ndim != 1:
        raise ValueError(
            f"average_precision needs two vectors of one length, got {values.shape} and {truth.shape}"
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
    """Mean of the classes' average precision (mAP), both arguments (num_videos, num_classes).

    Classes without a positive are left out of the mean, as PySlowFast does for Charades, or count as zero, as
    in X3D-Multigrid, which lowers the figure.
    """
    return mean_over_classes(average_precisions(scores, positives), absent=absent)


def average_precisions(scores: ArrayLike, positives: ArrayLike) -> Float:
    """Average precision of each class, ``nan`` of one without a positive: (num_classes,)."""
    values, truth = np.asarray(scores, np.float64), np.asarray(positives, bool)
    if values.shape != truth.shape or values.ndim != 2:
        raise ValueError(f"mAP needs two matrices of one shape, got {values.shape} and {truth.shape}")
    return np.array([average_precision(values[:, c], truth[:, c]) for c in range(values.shape[1])])


def mean_over_classes(each: ArrayLike, *, absent: Absent = "left out") -> float:
    """The mean of average precisions (num_classes,), of which those of absent classes are ``nan``."""
    values = np.asarray(each, np.float64)
    kept = np.nan_to_num(values) if absent == "zero" else values[~np.isnan(values)]
    return float(kept.mean()) if len(kept) else float("nan")


def pair_preference(scores: ArrayLike, positives: ArrayLike, pairs: Sequence[tuple[int, int]]) -> float:
    """`pair_accuracy` where there may be several labels: among the rows that are of one class of a pair and
    not of the other, the fraction that prefers the right one. Both arguments (num_rows, num_classes).
    """
    values, truth = np.asarray(scores, np.float64), np.asarray(positives, bool)
    right, total = 0.0, 0
    for first, second in pairs:
        for own, other in ((first, second), (second, first)):
            rows = truth[:, own] & ~truth[:, other]
            total += int(rows.sum())
            right += float((values[rows, own] > values[rows, other]).sum())
            right += 0.5 * float((values[rows, own] == values[rows, other]).sum())
    return right / total if total else float("nan")


def pair_accuracy(scores: ArrayLike, labels: ArrayLike, pairs: Sequence[tuple[int, int]]) -> float:
    """Fraction of clips that prefer their class to its partner, among the clips of classes in ``pairs``.

    Each pair holds two classes that differ in one thing alone (the direction of time, in `motion`), so that
    0.5 is chance whatever else a model has learnt. Equal scores count half.
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
    own, other_score = values[inside, truth[inside]], values[inside, partner[truth[inside]]]
    return float(((own > other_score) + 0.5 * (own == other_score)).mean())


_JACKKNIFE_GROUPS = 20


def share_error(fraction: float, num: int) -> float:
    """Standard error of a fraction of ``num`` independent videos."""
    return math.sqrt(fraction * (1 - fraction) / num) if num else math.nan


def jackknife_error(figure: Callable[[NDArray[np.bool_]], float], num_videos: int) -> float:
    """Standard error of any figure, by leaving out a twentieth of the videos at a time.

    The delete-a-group jackknife (Shao and Wu, 1989): the mean average precision has no formula for it. Every
    twentieth video is left out together, so that a list sorted by class loses some of each.

    Args:
        figure: the figure of the videos where its argument, bool (num_videos,), is true; ``nan`` where those
            have none.

    Returns:
        The standard error; ``nan`` with fewer than two videos.
    """
    groups = min(_JACKKNIFE_GROUPS, num_videos)
    member = np.arange(num_videos) % groups if groups else np.zeros(0, int)
    figures = np.array([figure(member != group) for group in range(groups)])
    figures = figures[np.isfinite(figures)]
    if len(figures) < 2:
        return math.nan
    return float(math.sqrt((len(figures) - 1) * figures.var()))


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
