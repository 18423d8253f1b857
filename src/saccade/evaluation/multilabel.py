"""Several labels a video: scores of each class on its own, mean average precision.

Shape letters: N videos, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from saccade.evaluation import metrics
from saccade.evaluation.metrics import PrecisionRow
from saccade.evaluation.points import CHARADES_POINTS
from saccade.evaluation.result import Result
from saccade.evaluation.uncertainty import jackknife_error

Ensemble = Literal["max", "mean"]


@dataclass(frozen=True, eq=False, kw_only=True)
class MultiLabelResult(Result):
    """Scores of one view set over a data set where a video has any number of labels.

    Attributes:
        scores: float32 (N, K) in 0..1: of each class the largest sigmoid over the views, as PySlowFast and
            X3D-Multigrid, or the mean.
        positives: bool (N, K).
        truth: bool (N, 25, K), which classes are there at 25 equally spaced moments; (N, 0, K) where the
            actions of the data set have no times.
        ensemble: what was made of a class's scores in the views.
    """

    task: ClassVar[str] = "multi-label"

    scores: NDArray[np.float32]
    positives: NDArray[np.bool_]
    truth: NDArray[np.bool_]
    ensemble: Ensemble = "max"

    @property
    def figures(self) -> dict[str, float]:
        return {"map": self.map, "repeated_charades25": self.repeated_charades25}

    @cached_property
    def precisions(self) -> NDArray[np.float64]:
        """Average precision of each class, ``nan`` where it has no positive: (K,)."""
        return metrics.average_precisions(self.scores, self.positives)

    @property
    def map(self) -> float:
        """Mean average precision over the classes with a positive, as PySlowFast and scikit-learn."""
        return metrics.mean_over_classes(self.precisions)

    @cached_property
    def standard_error(self) -> float:
        """By leaving out a twentieth of the videos at a time."""
        return jackknife_error(
            lambda kept: metrics.mean_average_precision(self.scores[kept], self.positives[kept]),
            self.num_videos,
        )

    @cached_property
    def repeated_charades25(self) -> float:
        """Control: the localisation metric ``charades-25`` of these scores repeated over the whole video."""
        if not self.truth.size:
            return float("nan")
        rows = np.repeat(self.scores, CHARADES_POINTS, axis=0)
        return metrics.mean_average_precision(rows, self.truth.reshape(len(rows), -1))

    @cached_property
    def pair_accuracy(self) -> float:
        """See `saccade.evaluation.metrics.pair_preference`; ``nan`` where the data set has no pairs."""
        return metrics.pair_preference(self.scores, self.positives, self.pairs)

    @cached_property
    def losses(self) -> NDArray[np.float64]:
        """Binary cross entropy of the scores, mean over the classes, per video."""
        scores = self.scores.astype(np.float64).clip(1e-12, 1 - 1e-12)
        return -np.where(self.positives, np.log(scores), np.log1p(-scores)).mean(axis=1)

    @property
    def loss(self) -> float:
        """Mean of `losses`; NaN without videos."""
        return float(self.losses.mean()) if self.num_videos else float("nan")

    @property
    def per_class(self) -> list[PrecisionRow]:
        """One row per class, in label order, classes without a positive included."""
        counts = self.positives.sum(axis=0)
        return [
            PrecisionRow(label, int(count), float(precision))
            for label, (count, precision) in enumerate(zip(counts, self.precisions, strict=True))
        ]

    def _own_summary(self) -> dict[str, Any]:
        return {
            "ensemble": self.ensemble,
            "map": self.map,
            "repeated_charades25": self.repeated_charades25,
            "pair_accuracy": self.pair_accuracy,
        }

    def _arrays(self) -> dict[str, Any]:
        return {"scores": self.scores, "positives": self.positives, "truth": self.truth}

    @classmethod
    def _own_fields(cls, info: dict[str, Any]) -> dict[str, Any]:
        return {"ensemble": info["ensemble"]}
