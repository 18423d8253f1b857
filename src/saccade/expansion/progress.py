"""What a search prints while it runs: step, candidate, accuracy, time left."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from statistics import fmean

from saccade.expansion.candidate import Candidate, Trial
from saccade.expansion.config import SearchConfig
from saccade.training.reporting import format_seconds

logger = logging.getLogger(__name__)


class Progress:
    """Says what a search does, one line at a time.

    Args:
        say: is given the lines; default: the log.
    """

    def __init__(self, search: SearchConfig, say: Callable[[str], None] | None = None) -> None:
        self.search = search
        self.say = say or logger.info
        self._total = self._done = 0
        self._start = time.monotonic()
        self._seconds: list[float] = []
        self._before: float | None = None  # seconds of a training in the previous step
        self._steps_left = 0.0

    def begin_step(self, candidates: Sequence[Candidate], steps_left: float) -> None:
        """A step's candidates are about to be trained; ``steps_left`` follow, about."""
        self._before = fmean(self._seconds) if self._seconds else None
        self._seconds, self._steps_left = [], steps_left
        first = candidates[0]
        what = "contraction" if first.contracted else f"step {first.step}" if first.step else "start"
        for candidate in candidates:
            cost = candidate.complexity
            axis = "" if candidate.axis == "start" else f"{candidate.axis}: "
            latency = "" if cost.latency_ms is None else f", {cost.latency_ms:.1f} ms"
            self.say(
                f"{what}: {axis}{candidate.factors}; {cost.gmacs:.3g} GMACs, "
                f"{cost.params / 1e6:.2f} M parameters{latency}"
            )

    def begin_jobs(self, waiting: int, *, done: Sequence[Trial]) -> None:
        """So many trainings are about to start; ``done`` ones are in the journal."""
        self._total, self._done = waiting + len(done), len(done)
        self._start = time.monotonic()
        if done:
            self.say(f"{len(done)} of {self._total} trainings are in the journal")

    def finished(self, trial: Trial, *, again: bool) -> None:
        """One training has ended; ``again``: it is retried if it failed."""
        name = f"{trial.candidate.name} seed {trial.seed}"
        if trial.status == "failed":
            then = "trying once more" if again else "skipped"
            self.say(f"  {name} FAILED after {format_seconds(trial.seconds)} ({trial.error}); {then}")
            if again:
                return
        self._done += 1
        if trial.accuracy is not None:
            self._seconds.append(trial.seconds)
            self.say(
                f"  [{self._done}/{self._total}] {name}: {100 * trial.accuracy:.1f} % in "
                f"{format_seconds(trial.seconds)}{self._left()}"
            )

    def _left(self) -> str:
        """Time left, if the trainings of each step take longer than those of the step before by the same
        factor as in this step; in the first step that factor is ``rate``.
        """
        elapsed = time.monotonic() - self._start
        side_by_side = min(max(sum(self._seconds) / max(elapsed, 1e-3), 1.0), len(self._seconds))
        each = fmean(self._seconds) / side_by_side
        in_step = each * (self._total - self._done)
        rate, per_step = self.search.rate, len(self.search.axes) * self.search.seeds
        if self._before:
            rate = min(max(fmean(self._seconds) / self._before, 1.0), rate)
        steps = math.ceil(self._steps_left)  # the last is contracted
        later = sum(each * rate**i * per_step for i in range(1, steps + 1))
        return (
            f" (about {format_seconds(in_step)} left in this step, {format_seconds(in_step + later)} in all)"
        )
