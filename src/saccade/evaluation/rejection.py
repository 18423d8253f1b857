"""Rejection: whether a clip shows any of the classes, by a score of its logits and a threshold.

Scores need nothing but the logits, so that they go wherever a model goes (files of weights, exported graphs).
Measured on ImageNet features of ten UCF-101 classes with a linear classifier, 95 % of the validation clips
accepted; AUROC against clips of unseen classes: energy 0.885, maximum logit 0.872, softmax 0.839; of scores
that need the features: cosine to the nearest class mean 0.859, five nearest neighbours 0.834, Mahalanobis
distance 0.804.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from saccade.errors import DataError, UsageError
from saccade.tasks.statistics import wilson_interval

Score = Literal["energy", "max-logit", "softmax"]

FORMAT = 1
"""Version of the plain values of a `Rejection`."""
NONE_OF_THESE = "none of these"
"""The label of a rejected video."""
ACCEPT = 0.95
"""Fraction of the validation clips that a threshold accepts."""

# The first is used unless another separates the negatives better by this much AUROC.
_CANDIDATES: tuple[tuple[Score, float], ...] = (
    ("energy", 1.0),
    ("max-logit", 1.0),
    ("softmax", 1.0),
    ("softmax", 5.0),
)
_MIN_GAIN = 0.02


@dataclass(frozen=True, kw_only=True)
class Rejection:
    """When a video shows none of the classes: its score is below the threshold.

    The score of a video is the mean of those of its clips.

    Attributes:
        score: ``energy``: temperature * logsumexp(logits / temperature) (Liu et al., NeurIPS 2020);
            ``max-logit``: the largest logit; ``softmax``: the largest softmax of logits / temperature.
        threshold: scores below it are rejected.
        temperature: see ``score``.
        accept: fraction of the validation clips to accept, from which the threshold follows.
        num_val, num_accepted: validation clips, and those of them that are accepted.
        negatives: what the clips without any class were; empty without any.
        num_negatives, num_rejected: their number, and that of those that are rejected.
        auroc: area under the ROC curve of validation clips against negatives; None without negatives.
        step: optimiser step of the weights it belongs to; None if they do not state it.
    """

    score: Score
    threshold: float
    temperature: float = 1.0
    accept: float = ACCEPT
    num_val: int = 0
    num_accepted: int = 0
    negatives: str = ""
    num_negatives: int = 0
    num_rejected: int = 0
    auroc: float | None = None
    step: int | None = None

    def scores(self, logits: NDArray[Any]) -> NDArray[np.float64]:
        """The scores (...) of logits (..., K)."""
        return logit_scores(logits, self.score, self.temperature)

    def rejects(self, score: float) -> bool:
        """Whether a score is below the threshold."""
        return not score >= self.threshold

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, with the version of their format."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The rejection that `to_dict` gave.

        Raises:
            DataError: it is damaged, or a newer version of Saccade wrote it.
        """
        found_format = values.get("format")
        if not isinstance(found_format, int) or found_format > FORMAT:
            raise DataError(f"not a rejection of format {FORMAT} or before (is {found_format!r})")
        known = {entry.name for entry in fields(cls)}
        try:
            found = cls(**{name: value for name, value in values.items() if name in known})
            if found.score not in get_args(Score):
                raise ValueError(f"score {found.score!r} is unknown")
            if not (np.isfinite(found.threshold) and found.temperature > 0):
                raise ValueError("threshold or temperature is not a number")
        except (TypeError, ValueError) as error:
            raise DataError(f"not a rejection: {error}") from error
        return found

    def __str__(self) -> str:
        """What was measured, in one sentence."""
        text = f"accepts {_part(self.num_accepted, self.num_val)} validation clips"
        if self.num_negatives:
            low, high = (f"{100 * end:.0f}" for end in self.rejected_interval)
            text += f", rejects {_part(self.num_rejected, self.num_negatives)} clips without any class "
            text += f"({self.negatives}; 95 % interval {low} to {high} %), AUROC {self.auroc:.3f}"
        return text

    @property
    def rejected_interval(self) -> tuple[float, float]:
        """The 95 % interval of the fraction of clips without any class that are rejected."""
        return wilson_interval(self.num_rejected, self.num_negatives)


def _part(count: int, total: int) -> str:
    return f"{count} of {total} ({100 * count / max(1, total):.0f} %)"


def logit_scores(logits: NDArray[Any], score: Score, temperature: float = 1.0) -> NDArray[np.float64]:
    """The scores (...) of logits (..., K), see `Rejection`; high for clips that show a class."""
    values = np.asarray(logits, np.float64)
    top = values.max(-1)
    if score == "max-logit":
        return np.asarray(top)
    total = np.exp((values - top[..., None]) / temperature).sum(-1)
    return np.asarray(1 / total if score == "softmax" else top + temperature * np.log(total))


def choose_rejection(
    known: Sequence[NDArray[Any]],
    unknown: Sequence[NDArray[Any]] = (),
    *,
    accept: float = ACCEPT,
    negatives: str = "",
    step: int | None = None,
) -> Rejection:
    """Choose the score by its AUROC, and the threshold by the fraction of known videos to accept.

    Args:
        known: logits (num_clips, K) of each video that shows a class and was not trained on.
        unknown: the same of videos that show none.
        negatives: what ``unknown`` is, in words.

    Raises:
        UsageError: ``accept`` is not in (0, 1].
        DataError: there are no known videos.
    """
    if not 0 < accept <= 1:
        raise UsageError(f"accept: must be in (0, 1] (is {accept})")
    if not known:
        raise DataError("rejection: no validation clips, which the threshold is calibrated on")
    best: tuple[float, Score, float] | None = None
    for name, temperature in _CANDIDATES:
        area = roc_auc(
            *([logit_scores(each, name, temperature).mean() for each in side] for side in (known, unknown))
        )
        if best is None or area > best[0] + _MIN_GAIN:
            best = (area, name, temperature)
    assert best is not None
    area, name, temperature = best
    inside, outside = (
        np.array([logit_scores(each, name, temperature).mean() for each in side]) for side in (known, unknown)
    )
    threshold = accepting_threshold(inside, accept)
    return Rejection(
        score=name,
        threshold=threshold,
        temperature=temperature,
        accept=accept,
        num_val=len(inside),
        num_accepted=int((inside >= threshold).sum()),
        negatives=negatives if len(outside) else "",
        num_negatives=len(outside),
        num_rejected=int((outside < threshold).sum()),
        auroc=area if len(outside) else None,
        step=step,
    )


def accepting_threshold(scores: ArrayLike, accept: float) -> float:
    """The highest threshold at which at least the fraction ``accept`` of the scores is not below it."""
    ordered = np.sort(np.asarray(scores, np.float64))
    num_rejected = int((1 - accept) * len(ordered) + 1e-9)
    return float(ordered[min(num_rejected, len(ordered) - 1)])


def roc_auc(positives: ArrayLike, negatives: ArrayLike) -> float:
    """The fraction of pairs in which the positive has the higher score; equal scores count half. ``nan`` if
    either is empty.
    """
    high, low = np.asarray(positives, np.float64), np.sort(np.asarray(negatives, np.float64))
    if not len(high) or not len(low):
        return float("nan")
    below, not_above = np.searchsorted(low, high, "left"), np.searchsorted(low, high, "right")
    return float((below + not_above).mean() / (2 * len(low)))
