"""How certain a figure is: standard errors, intervals, and two models compared on the same videos."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from statistics import stdev
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

_JACKKNIFE_GROUPS = 20
_NORMAL_975 = 1.959963984540054  # of a two-sided interval of 95 %
_SIGNIFICANT = 0.05
_WHOLE_PERCENT = 1000  # videos below which a tenth of a percent is no information


def proportion_error(fraction: float, num: int) -> float:
    """Standard error of a fraction of ``num`` independent videos."""
    return math.sqrt(fraction * (1 - fraction) / num) if num else math.nan


def jackknife_error(figure: Callable[[NDArray[np.bool_]], float], num_videos: int) -> float:
    """Standard error of a figure without a closed formula, such as mAP.

    The delete-a-group jackknife (Shao and Wu, 1989) with 20 groups. A group has every 20th video, so that it
    contains all classes of a sorted list.

    Args:
        figure: computes the figure of the selected videos, bool (num_videos,); may be ``nan``.

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


def paired_error(differences: ArrayLike) -> float:
    """Standard error of the mean of differences, (num_videos,); ``nan`` of fewer than two."""
    values = np.asarray(differences, np.float64).tolist()
    return stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan


def wilson_interval(num_right: int, num: int) -> tuple[float, float]:
    """The 95 % interval of a fraction by Wilson's score (1927), without continuity correction.

    >>> [round(end, 4) for end in wilson_interval(17, 20)]
    [0.6396, 0.9476]
    """
    if not num:
        return math.nan, math.nan
    fraction, z2 = num_right / num, _NORMAL_975**2
    centre = (fraction + z2 / (2 * num)) / (1 + z2 / num)
    half = math.sqrt(z2 * (fraction * (1 - fraction) / num + z2 / (4 * num * num))) / (1 + z2 / num)
    return (0.0 if not num_right else centre - half), (1.0 if num_right == num else centre + half)


def mcnemar(num_first: int, num_second: int) -> float:
    """The exact p-value of McNemar's test (1947), two-sided, that two models are right equally often.

    Args:
        num_first, num_second: videos that only the first and only the second model is right about.
    """
    num, fewer = num_first + num_second, min(num_first, num_second)
    tail = sum(math.comb(num, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / 2**num)  # whole numbers until the division: exact for any number of videos


def normal_p_value(differences: ArrayLike) -> float:
    """The two-sided p-value that differences of each video, (num_videos,), have a mean of 0, by the normal
    distribution.
    """
    values, error = np.asarray(differences, np.float64), paired_error(differences)
    if not error > 0:
        return 0.0 if error == 0 and values.any() else 1.0
    return math.erfc(abs(float(values.mean())) / error / math.sqrt(2))


@dataclass(frozen=True)
class Accuracy:
    """The number of videos a model is right about, and that which it would be right about without looking.

    Attributes:
        chance: the larger of one over the number of classes and the share of the most frequent class.
        balanced: whether all classes have the same number of videos.
    """

    num_right: int
    num_videos: int
    chance: float
    balanced: bool

    @classmethod
    def of(cls, predictions: ArrayLike, labels: ArrayLike, num_classes: int) -> Self:
        """The accuracy of predicted classes (num_videos,)."""
        truth = np.asarray(labels, np.int64)
        counts = np.bincount(truth, minlength=num_classes)
        num_right = int((np.asarray(predictions, np.int64) == truth).sum())
        chance = counts.max() / len(truth) if len(truth) else math.nan
        return cls(num_right, len(truth), float(chance), bool((counts == counts[0]).all()))

    @classmethod
    def from_dict(cls, summary: Mapping[str, Any]) -> Self:
        """The accuracy that the summary of a result holds."""
        return cls(*(summary[name] for name in ("num_right", "num_videos", "chance", "balanced")))

    @property
    def fraction(self) -> float:
        """Right videos as a fraction of all."""
        return self.num_right / self.num_videos if self.num_videos else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the fraction, `wilson_interval`."""
        return wilson_interval(self.num_right, self.num_videos)

    @property
    def is_chance(self) -> bool:
        """Whether the interval reaches down to chance."""
        return not self.interval[0] > self.chance

    def __str__(self) -> str:
        """``17 of 20 right, 85 %, 95 % interval 64 to 95 %, chance 50 %``."""
        low, high = (self._percent(end) for end in self.interval)
        name = "chance" if self.balanced else "most frequent class"
        return (
            f"{self.num_right} of {self.num_videos} right, {self._percent(self.fraction)} %, "
            f"95 % interval {low} to {high} %, {name} {self._percent(self.chance)} %"
        )

    def _percent(self, fraction: float) -> str:
        return f"{100 * fraction:.{int(self.num_videos >= _WHOLE_PERCENT)}f}"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "num_right": self.num_right,
            "interval": list(self.interval),
            "chance": self.chance,
            "balanced": self.balanced,
        }


@dataclass(frozen=True)
class PairedComparison:
    """Two models on the same videos.

    Attributes:
        num_both, num_first, num_second, num_neither: videos that both models, only the first, only the second
            and neither is right about.
    """

    num_both: int
    num_first: int
    num_second: int
    num_neither: int

    @classmethod
    def of(cls, first: ArrayLike, second: ArrayLike) -> Self:
        """Compare by whether each model is right about each video, bool (num_videos,)."""
        a, b = np.asarray(first, bool), np.asarray(second, bool)
        return cls(*(int(both.sum()) for both in (a & b, a & ~b, ~a & b, ~a & ~b)))

    @property
    def num_videos(self) -> int:
        """The number of all videos."""
        return self.num_both + self.num_first + self.num_second + self.num_neither

    @property
    def difference(self) -> float:
        """Accuracy of the first model minus that of the second."""
        return (self.num_first - self.num_second) / self.num_videos if self.num_videos else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the difference, for paired videos (Bonett and Price, 2012)."""
        if not self.num_videos:
            return math.nan, math.nan
        num = self.num_videos + 2
        first, second = (self.num_first + 1) / num, (self.num_second + 1) / num
        half = _NORMAL_975 * math.sqrt((first + second - (first - second) ** 2) / num)
        return max(-1.0, first - second - half), min(1.0, first - second + half)

    @property
    def p_value(self) -> float:
        """`mcnemar`."""
        return mcnemar(self.num_first, self.num_second)

    @property
    def differs(self) -> bool:
        """Whether the p-value is below 0.05."""
        return self.p_value < _SIGNIFICANT

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        derived = ("num_videos", "difference", "p_value", "differs")
        return {
            **asdict(self),
            **{name: getattr(self, name) for name in derived},
            "interval": list(self.interval),
        }
