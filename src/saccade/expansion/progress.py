"""The progress lines of a search: step, candidate, accuracy, time left."""

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
    """Logs the progress of a search.

    Args:
        log: called with each line of progress; default: the logger of the module.
    """

    def __init__(self, search: SearchConfig, log: Callable[[str], None] | None = None) -> None:
        self.search = search
        self.log = log or logger.info
        self._total = self._done = 0
        self._start = time.monotonic()
        self._seconds: list[float] = []
        self._previous: float | None = None  # mean seconds per training in the previous step
        self._steps_left = 0.0

    def begin_step(self, candidates: Sequence[Candidate], steps_left: float) -> None:
        """Call before a step's candidates train. ``steps_left`` is the estimated number of later steps."""
        self._previous = fmean(self._seconds) if self._seconds else None
        self._seconds, self._steps_left = [], steps_left
        first = candidates[0]
        label = "contraction" if first.contracted else f"step {first.step}" if first.step else "start"
        for candidate in candidates:
            cost = candidate.complexity
            axis = "" if candidate.axis == "start" else f"{candidate.axis}: "
            latency = "" if cost.latency_ms is None else f", {cost.latency_ms:.1f} ms"
            self.log(
                f"{label}: {axis}{candidate.factors}; {cost.gmacs:.3g} GMACs, "
                f"{cost.params / 1e6:.2f} M parameters{latency}"
            )

    def begin_jobs(self, num_jobs: int, *, num_done: int) -> None:
        """Call before ``num_jobs`` trainings start. ``num_done`` more are already in the journal."""
        self._total, self._done = num_jobs + num_done, num_done
        self._start = time.monotonic()
        if num_done:
            self.log(f"{num_done} of {self._total} trainings are already in the journal")

    def end_job(self, trial: Trial, *, will_retry: bool) -> None:
        """Call after a training. ``will_retry``: it runs again if it failed."""
        name = f"{trial.candidate.name} seed {trial.seed}"
        if trial.status == "failed":
            next_action = "retrying" if will_retry else "skipped"
            self.log(f"  {name} FAILED after {format_seconds(trial.seconds)} ({trial.error}); {next_action}")
            if will_retry:
                return
        self._done += 1
        if trial.accuracy is not None:
            self._seconds.append(trial.seconds)
            self.log(
                f"  [{self._done}/{self._total}] {name}: {100 * trial.accuracy:.1f} % in "
                f"{format_seconds(trial.seconds)}{self._time_left()}"
            )

    def _time_left(self) -> str:
        """Time left, assuming that training time grows by the same factor from step to step as it did to this
        step (in the first step: by ``rate``).
        """
        elapsed = time.monotonic() - self._start
        num_parallel = min(max(sum(self._seconds) / max(elapsed, 1e-3), 1.0), len(self._seconds))
        each = fmean(self._seconds) / num_parallel
        in_step = each * (self._total - self._done)
        rate, per_step = self.search.rate, len(self.search.axes) * self.search.seeds
        if self._previous:
            rate = min(max(fmean(self._seconds) / self._previous, 1.0), rate)
        steps = math.ceil(self._steps_left)
        later = sum(each * rate**i * per_step for i in range(1, steps + 1))
        return (
            f" (about {format_seconds(in_step)} left in this step, {format_seconds(in_step + later)} in all)"
        )
