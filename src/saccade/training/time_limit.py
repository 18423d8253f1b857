"""The time limit of a run: how many steps fit into it, from the time that steps and validations take."""

from __future__ import annotations

import time

_SETTLED = 0.02  # fraction of the limit between two plans
_SMOOTH = 0.7  # weight of the earlier estimate


class TimeLimit:
    """Plans the number of steps of a run that must end after ``minutes``.

    Args:
        minutes: of the whole run, those before a resumed run included.
        seconds_before: time that the run took before it was resumed.
    """

    def __init__(self, minutes: float, *, seconds_before: float = 0.0) -> None:
        self.limit = 60 * minutes
        self._before, self._start = seconds_before, time.perf_counter()
        self._planned_at = self._mark = self._start
        self._steps_at_mark: int | None = None
        self._step_seconds = 0.0
        self._validation_seconds = 0.0

    @property
    def seconds(self) -> float:
        """Time since the beginning of the run, without that between a stop and the resumption."""
        return self._before + time.perf_counter() - self._start

    def after_validation(self, seconds: float) -> None:
        """Note a validation of so many seconds; the next steps are timed from now on."""
        self._validation_seconds, self._steps_at_mark = seconds, None

    def plan(self, step: int, total_steps: int, *, steps_between_validations: float) -> int:
        """The number of steps of the run as planned after ``step`` steps: ``total_steps`` unless steps have
        been timed since the last plan.
        """
        now = time.perf_counter()
        if self._steps_at_mark is None:
            self._mark, self._steps_at_mark = now, step
        timed = step - self._steps_at_mark
        if self.seconds >= self.limit:
            return step
        if not timed or now - self._planned_at < _SETTLED * self.limit:
            return total_steps
        measured = (now - self._mark) / timed
        old = self._step_seconds
        self._step_seconds = _SMOOTH * old + (1 - _SMOOTH) * measured if old else measured
        self._planned_at = self._mark = now
        self._steps_at_mark = step
        each = self._step_seconds + self._validation_seconds / max(steps_between_validations, 1)
        left = self.limit - self.seconds - self._validation_seconds  # which comes last
        return step + max(1, int(left / each)) if left > 0 else step
