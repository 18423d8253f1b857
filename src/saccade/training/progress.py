"""Where a run stands: steps, running means, unreadable files, and which weights are the best so far."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

from saccade.data.types import ReadFailure
from saccade.errors import DataError
from saccade.training.processes import Processes
from saccade.training.schedule import Plateau

_MIN_TOLERATED = 3  # unreadable clips, in epochs too short for max_failures to mean anything
_NUM_LISTED = 3


@dataclass
class Window:
    """Sums over the steps since the last line of metrics.jsonl. Part of the checkpoint: no step is lost."""

    loss: float = 0.0
    correct: float = 0.0
    clips: int = 0
    failures: int = 0

    def add(self, *, loss: float, correct: float, clips: int, failures: int) -> None:
        """Add a step: ``loss`` and ``correct`` are sums over its clips."""
        self.loss += loss
        self.correct += correct
        self.clips += clips
        self.failures += failures

    def record(self, figure: str = "top1") -> dict[str, float | int]:
        """Means per clip; ``figure`` is what the fraction of correct clips is called."""
        clips = max(self.clips, 1)
        return {"loss": self.loss / clips, figure: self.correct / clips, "failures": self.failures}

    def to_dict(self) -> dict[str, float | int]:
        """Plain values for the checkpoint."""
        return asdict(self)


class Stopwatch:
    """Time spent waiting for data and in all, since the last reset."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Start again."""
        self.start, self.waited, self.clips = time.perf_counter(), 0.0, 0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """The time inside counts as waiting for data."""
        start = time.perf_counter()
        yield
        self.waited += time.perf_counter() - start

    def record(self) -> dict[str, float]:
        """Speed and data wait since the last reset, as metrics.jsonl has them."""
        total = max(time.perf_counter() - self.start, 1e-9)
        return {
            "clips_per_s": round(self.clips / total, 3),
            "data_wait": round(self.waited / total, 4),
            "data_seconds": round(self.waited, 4),
            "compute_seconds": round(total - self.waited, 4),
        }


@dataclass
class Progress:
    """Where a run stands. All of it is in the checkpoint.

    ``validation_due`` is true from the step after which a validation belongs until it is done, so that a run
    stopped in a validation begins with it again. ``best_score`` is the best of the figure ``score_name``.
    ``best_is_final``: see `VideoModel.in_final_form`. ``best_is_pause``: see `see_score`.
    """

    step: int = 0
    validation_due: bool = False
    best_score: float = -1.0
    score_name: str = ""
    best_step: int = 0
    best_is_final: bool = False
    best_is_pause: bool = False
    epoch_failures: int = 0
    window: Window = field(default_factory=Window)
    plateau: Plateau = field(default_factory=Plateau)

    def see_score(self, score: float, *, final: bool, pause: bool) -> bool:
        """Whether the weights just validated are the best so far.

        The validation of a pause does not compete, so that a run that pauses ends with the same best weights
        as one that does not: its score counts as the best only until the next regular validation.

        Args:
            score: of the present step; nan, if no video has a label, is less than any.
            final: the model is in its final form.
            pause: the validation is not a regular one, but there because the run pauses.
        """
        if math.isnan(score):
            score = -math.inf
        if pause:
            better = self.best_is_pause or not self.best_step
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
    """Counts the unreadable files of an epoch over all processes and ends the run when they are too many."""

    def __init__(self, fraction: float, clips_per_epoch: int, processes: Processes) -> None:
        self.fraction, self.clips = fraction, clips_per_epoch
        self.limit = max(fraction * clips_per_epoch, _MIN_TOLERATED) if fraction > 0 else 0
        self._processes = processes
        self._first: list[str] = []

    def see(self, failures: Sequence[ReadFailure]) -> None:
        """Remember the first of this process's own failures, for the message."""
        for failure in failures[: _NUM_LISTED - len(self._first)]:
            self._first.append(f"{failure.path} ({failure.cause})")

    def check(self, count: int) -> None:
        """``count`` failures in this epoch so far, over all processes. Every process must call this.

        Raises:
            DataError: above the limit; names fraction, limit and the first files.
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
