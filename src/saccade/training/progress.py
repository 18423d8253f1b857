"""The progress of a run: step, running means, unreadable files, best score."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from types import MappingProxyType
from typing import Any

from saccade.data.types import ReadFailure
from saccade.errors import DataError
from saccade.training.processes import Processes
from saccade.training.schedule import Plateau

_MIN_TOLERATED = 3  # unreadable clips that are always tolerated, for short epochs
_NUM_LISTED = 3


@dataclass
class Window:
    """Sums over the steps since the last line of metrics.jsonl. Part of the checkpoint."""

    loss: float = 0.0
    correct: float = 0.0
    clips: int = 0
    failures: int = 0
    terms: dict[str, float] = field(default_factory=dict)

    def add(
        self,
        *,
        loss: float,
        correct: float,
        clips: int,
        failures: int,
        terms: Mapping[str, float] = MappingProxyType({}),
    ) -> None:
        """Add a step: ``loss``, ``correct`` and the parts of the loss are sums over its clips."""
        self.loss += loss
        self.correct += correct
        self.clips += clips
        self.failures += failures
        for name, value in terms.items():
            self.terms[name] = self.terms.get(name, 0.0) + value

    def record(self, figure: str = "top1") -> dict[str, float | int]:
        """Means per clip; ``figure`` is the name of the fraction of correct clips."""
        clips = max(self.clips, 1)
        terms = {name: value / clips for name, value in self.terms.items()}
        return {"loss": self.loss / clips, figure: self.correct / clips, "failures": self.failures, **terms}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the checkpoint."""
        return asdict(self)


class Stopwatch:
    """Total time and time spent waiting for data since the last reset."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Restart."""
        self.start, self.waited, self.clips = time.perf_counter(), 0.0, 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time inside as waiting for data."""
        start = time.perf_counter()
        yield
        self.waited += time.perf_counter() - start

    def record(self) -> dict[str, float]:
        """Speed and data wait since the last reset, as in metrics.jsonl."""
        total = max(time.perf_counter() - self.start, 1e-9)
        return {
            "clips_per_s": round(self.clips / total, 3),
            "data_wait": round(self.waited / total, 4),
            "data_seconds": round(self.waited, 4),
            "compute_seconds": round(total - self.waited, 4),
        }


@dataclass
class Progress:
    """The progress of a run; part of the checkpoint.

    ``validation_due`` is true from a step with a validation until the validation is done, so a run that was
    stopped during a validation repeats it. ``best_score`` is the best value of the metric ``score_name``.
    ``best_is_final``: see `VideoModel.in_final_form`. ``best_is_pause``: see `see_score`. ``head_fitted``:
    the classifier was fitted before the first step (`model.head_clips`), so the best step may be 0.
    ``total_steps``, ``seconds``: steps that a run with a time limit has planned, and its time so far.
    """

    step: int = 0
    validation_due: bool = False
    best_score: float = -1.0
    score_name: str = ""
    best_step: int = 0
    best_is_final: bool = False
    best_is_pause: bool = False
    head_fitted: bool = False
    total_steps: int = 0
    seconds: float = 0.0
    epoch_failures: int = 0
    window: Window = field(default_factory=Window)
    plateau: Plateau = field(default_factory=Plateau)

    def see_score(self, score: float, *, final: bool, pause: bool) -> bool:
        """Record a validation score; returns whether the weights are the best so far.

        The score of a pause is the best only until the next regular validation, so a run with a pause ends
        with the same best weights as one without.

        Args:
            score: of the current step; nan (no video has a label) is less than any other score.
            final: the model is in its final form.
            pause: the validation takes place only because the run pauses.
        """
        if math.isnan(score):
            score = -math.inf
        if pause:
            better = self.best_is_pause or not (self.best_step or self.score_name)
        else:
            better = self.best_is_pause or score > self.best_score or (final and not self.best_is_final)
        if better:
            self.best_score, self.best_step = score, self.step
            self.best_is_final, self.best_is_pause = final, pause
        return better

    def to_dict(self) -> dict[str, Any]:
        """Plain values for the checkpoint."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Progress:
        """From what `to_dict` gave."""
        parts = {"window": Window(**values["window"]), "plateau": Plateau(**values["plateau"])}
        return cls(**{**values, **parts})


class FailureLimit:
    """Stops the run if too many files of an epoch are unreadable, over all processes."""

    def __init__(self, fraction: float, clips_per_epoch: int, processes: Processes) -> None:
        self.fraction, self.clips = fraction, clips_per_epoch
        self.limit = max(fraction * clips_per_epoch, _MIN_TOLERATED) if fraction > 0 else 0
        self._processes = processes
        self._first: list[str] = []

    def see(self, failures: Sequence[ReadFailure]) -> None:
        """Remember the first failures of this process for the error message."""
        for failure in failures[: _NUM_LISTED - len(self._first)]:
            self._first.append(f"{failure.path} ({failure.cause})")

    def check(self, count: int) -> None:
        """Check the number of failures in this epoch over all processes. Every process must call this.

        Raises:
            DataError: there are more than the limit.
        """
        if count <= self.limit:
            return
        files = [file for part in self._processes.gather(self._first) for file in part][:_NUM_LISTED]
        raise DataError(
            f"{count} of {self.clips} clips of the epoch could not be read "
            f"({count / self.clips:.1%}; max_failures allows {self.fraction:.1%}): {'; '.join(files)}"
            f"{'; ...' if count > len(files) else ''}. Run `saccade data check` on the data set, "
            "or raise --max-failures"
        )
