"""`TimeUse`: what the order of frames is worth to a model, from controls on the same videos."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from saccade.tasks.result import Result

CONTROLS = {
    "shuffle": "frames shuffled",
    "repeat": "one frame repeated",
    "reverse": "frames reversed",
}
"""The controls by name. ``repeat`` shows the middle frame of each clip in the place of all its frames."""


@dataclass(frozen=True)
class ControlFigure:
    """The figure of the same videos with their frames rearranged.

    Attributes:
        name: one of `CONTROLS`.
        num_passes: number of shuffles with different seeds, of which the figures are the mean.
        figure: the main figure of the task, 0..1.
        worth: the figure of the ordered frames minus this one; error: its standard error, paired over the
            videos; ``nan`` if the task defines none.
        pair_accuracy: see `saccade.tasks.metrics.pair_accuracy`; ``nan`` without pairs.
    """

    name: str
    num_passes: int
    figure: float
    worth: float
    error: float
    pair_accuracy: float = math.nan


@dataclass(frozen=True)
class TimeUse:
    """The figure of a model on ordered frames, and on the same frames rearranged.

    Attributes:
        figure_name: name of the main figure, e.g. ``top1``.
        views: views of each video, usually one.
        num_videos: videos that the controls were made on; num_tested: videos of the whole test.
        figure, pair_accuracy: of the ordered frames of these videos and views.
    """

    figure_name: str
    views: str
    num_videos: int
    num_tested: int
    figure: float
    controls: tuple[ControlFigure, ...]
    pair_accuracy: float = math.nan

    @classmethod
    def of(cls, ordered: Result, controls: Mapping[str, Sequence[Result]], *, num_tested: int) -> Self:
        """Compare results on the same videos.

        Args:
            controls: by the names of `CONTROLS`, one result for each pass.
        """
        figures = []
        for name, results in controls.items():
            worth, error = ordered.minus(results)
            figures.append(
                ControlFigure(
                    name,
                    len(results),
                    fmean(result.score for result in results),
                    worth,
                    error,
                    fmean(map(_pair_accuracy, results)),
                )
            )
        return cls(
            ordered.score_name,
            ordered.views,
            ordered.num_videos,
            num_tested,
            ordered.score,
            tuple(figures),
            _pair_accuracy(ordered),
        )

    @property
    def main(self) -> ControlFigure:
        """The control that tells what time is worth: ``shuffle``, else the first one."""
        return next((each for each in self.controls if each.name == "shuffle"), self.controls[0])

    def __str__(self) -> str:
        """``time is worth 3.1 ± 2.0 points here (85.0 % in order, 81.9 % with frames shuffled)``."""
        main = self.main
        figures = f"{100 * self.figure:.1f} % in order, {100 * main.figure:.1f} % with {CONTROLS[main.name]}"
        text = f"time is worth {points(main.worth, main.error)} points here ({figures})"
        if math.isfinite(main.error) and main.worth <= 2 * main.error:
            text += ": no sign that the model uses the order of frames"
        return text

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; undefined figures are None."""
        return {
            **_without_nan(asdict(self)),
            "controls": [_without_nan(asdict(each)) for each in self.controls],
            "sentence": str(self),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What `to_dict` returned."""
        known = {name: _number(value) for name, value in values.items() if name != "sentence"}
        controls = ({name: _number(value) for name, value in each.items()} for each in values["controls"])
        return cls(**{**known, "controls": tuple(ControlFigure(**each) for each in controls)})


def points(value: float, error: float) -> str:
    """A difference of two fractions in percentage points with its error: ``3.1 ± 2.0``."""
    text = f"{100 * value + 0.0:.1f}"  # + 0.0: no minus sign on zero
    return f"{text} ± {100 * error:.1f}" if math.isfinite(error) else text


def _pair_accuracy(result: Result) -> float:
    return float(getattr(result, "pair_accuracy", math.nan))


def _without_nan(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in values.items()
    }


def _number(value: Any) -> Any:
    return math.nan if value is None else value
