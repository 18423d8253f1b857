"""The history of a search, read from its journal, for the report and for comparisons."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from saccade.errors import SaccadeError
from saccade.expansion.candidate import Candidate, Trial
from saccade.expansion.counting import Latencies
from saccade.expansion.criterion import is_finished, score_all
from saccade.expansion.journal import (
    Record,
    latencies_in,
    parse_candidate,
    parse_trial,
    read_journal,
    result_in,
    settings_in,
)
from saccade.runs import Run
from saccade.training.config import TrainConfig
from saccade.training.multigrid import make_plan

Status = Literal["selected", "over target", "rejected", "dropped", "failed", "undecided"]
"""selected: on the path of the search. over target: best of its step, but above the target, so contracted.
rejected: trained to the end, not selected. dropped: by successive halving. failed: no training succeeded.
undecided: the step has not ended."""
Step = tuple[int, bool]
"""(step number, whether it is the contraction)."""


@dataclass(frozen=True)
class Entry:
    """A candidate and its outcome.

    Attributes:
        accuracy, error: mean over the seeds after the longest training, and its standard error. None: no
            training succeeded.
        seeds: number of successful trainings.
        fraction: completed fraction of the training, 0..1.
        seconds: total training time.
        in_noise: its difference to the selected candidate is not significant.
        reason: why it failed.
    """

    candidate: Candidate
    status: Status
    accuracy: float | None
    error: float
    seeds: int
    fraction: float
    seconds: float
    in_noise: bool = False
    reason: str = ""


@dataclass(frozen=True)
class History:
    """A search as recorded in its journal, finished or not.

    Attributes:
        latencies: measured at the end of the search; the candidates of ``steps`` have these and no others.
            None: each candidate has the latency measured before its step.
    """

    folder: Path
    settings: dict[str, Any]
    steps: tuple[tuple[Entry, ...], ...]
    notes: tuple[str, ...]
    result: Record | None
    trials: tuple[Trial, ...]
    latencies: Latencies | None = None

    @cached_property
    def path(self) -> list[Entry]:
        """The selected networks, in order."""
        return [entry for step in self.steps for entry in step if entry.status == "selected"]

    @property
    def axes(self) -> list[str]:
        """The expanded axes, in order."""
        return [entry.candidate.axis for entry in self.path if entry.candidate.step]

    @property
    def finished(self) -> list[Entry]:
        """The networks that trained to the end, in order."""
        every = [entry for step in self.steps for entry in step]
        return [e for e in every if e.accuracy is not None and is_finished(e.fraction, 1.0)]

    @property
    def final(self) -> Entry | None:
        """The result of the search; None if it has not ended."""
        name = self.result["name"] if self.result else ""
        return next((entry for entry in self.path if entry.candidate.name == name), None)

    @property
    def target(self) -> float | None:
        """The target for the cost that the steps multiply, if there is one."""
        cost = self.settings.get("cost")
        return next((t["value"] for t in self.settings.get("targets", ()) if t["kind"] == cost), None)

    @property
    def seconds(self) -> float:
        """Total time of all trainings."""
        return sum(trial.seconds for trial in self.trials)

    def seconds_until(self, step: int) -> float:
        """Total time of the trainings up to and including ``step``."""
        return sum(trial.seconds for trial in self.trials if trial.candidate.step <= step)

    @property
    def last_step(self) -> int:
        """Number of the last step with a trial."""
        return max((trial.candidate.step for trial in self.trials), default=0)


def read_history(folder: Path) -> History:
    """Read the journal of a search.

    Raises:
        UsageError: there is no journal.
        DataError: the journal is damaged.
    """
    records = read_journal(folder)
    settings = settings_in(records) or {"epochs": 0.0}
    choices = {(r["step"], r["contracted"]): r for r in records if r["kind"] == "choice"}
    result, latencies = result_in(records), latencies_in(records)
    trials = tuple(parse_trial(r, folder) for r in records if r["kind"] == "outcome")
    by_name: dict[str, list[Trial]] = defaultdict(list)
    for trial in trials:
        by_name[trial.candidate.name].append(trial)
    groups = _candidates(records)
    over = _over_target(settings, choices, groups, finished=result is not None)
    steps = tuple(
        tuple(_entry(c, by_name[c.name], choices.get(step), settings, over=over) for c in group)
        for step, group in sorted(groups.items())
    )
    if latencies:
        steps = tuple(
            tuple(replace(e, candidate=latencies.apply_to(e.candidate)) for e in step) for step in steps
        )
    notes = tuple(
        f"{'contraction' if contracted else f'step {number}'}: {choice['note']}"
        for (number, contracted), choice in sorted(choices.items())
        if choice.get("note")
    )
    return History(folder, settings, steps, notes, result, trials, latencies)


def _candidates(records: Sequence[Record]) -> dict[Step, list[Candidate]]:
    """The candidates of each step, without duplicates."""
    groups: dict[Step, list[Candidate]] = defaultdict(list)
    for record in records:
        if record["kind"] == "candidate":
            candidate = parse_candidate(record)
            group = groups[candidate.step, candidate.contracted]
            if candidate not in group:
                group.append(candidate)
    return groups


def _over_target(
    settings: Record, choices: dict[Step, Record], groups: dict[Step, list[Candidate]], *, finished: bool
) -> str:
    """Name of the selected candidate that exceeded a target and was contracted; empty if none."""
    last = max((number for number, _ in choices), default=0)
    choice = choices.get((last, False))
    if choice is None or not last:
        return ""
    chosen = next(c for c in groups[last, False] if c.name == choice["name"])
    over = any(chosen.complexity.cost(t["kind"]) > t["value"] for t in settings.get("targets", ()))
    return chosen.name if over and (finished or (last, True) in choices) else ""


def _entry(
    candidate: Candidate, trials: Sequence[Trial], choice: Record | None, settings: Record, *, over: str
) -> Entry:
    done = [trial for trial in trials if trial.status == "done"]
    longest = max((trial.epochs for trial in done), default=0.0)
    fraction = longest / settings["epochs"] if settings["epochs"] else 1.0
    scored = score_all([trial for trial in done if is_finished(trial.epochs, longest)])
    accuracy, error = (scored[0].accuracy, scored[0].error) if scored else (None, 0.0)
    if choice and candidate.name in choice.get("scores", {}):  # with the variance pooled over the candidates
        accuracy, error = choice["scores"][candidate.name], choice["errors"][candidate.name]
    status: Status = "undecided"
    if choice is not None and choice["name"] == candidate.name:
        status = "over target" if candidate.name == over else "selected"
    elif not done and (choice or any(trial.attempt > 1 for trial in trials)):
        status = "failed"
    elif done and choice:
        status = "rejected" if is_finished(fraction, 1.0) else "dropped"
    return Entry(
        candidate=candidate,
        status=status,
        accuracy=accuracy,
        error=error,
        seeds=len(scored[0].trials) if scored else 0,
        fraction=min(fraction, 1.0),
        seconds=sum(trial.seconds for trial in trials),
        in_noise=choice is not None and candidate.name in choice.get("in_noise", ()),
        reason=next((trial.error for trial in reversed(trials) if trial.error), ""),
    )


# ------------------------------------------------------------------------------------------------ comparisons


@dataclass(frozen=True)
class Comparison:
    """A comparison of two searches over the steps that both made.

    Attributes:
        saved: fraction of the first search's training time that the other saved; negative: it took longer.
        num_same: number of leading steps in which both selected the same axis.
        num_common: number of steps that both made.
        same_length: whether both made the same number of steps.
    """

    other: History
    saved: float
    num_same: int
    num_common: int
    same_length: bool


def compare(first: History, other: History) -> Comparison:
    """Compare the training time and the selected axes of two searches."""
    num_common = min(len(first.axes), len(other.axes))
    num_same = next((i for i in range(num_common) if first.axes[i] != other.axes[i]), num_common)
    last = min(first.last_step, other.last_step)
    first_seconds, other_seconds = first.seconds_until(last), other.seconds_until(last)
    saved = 1 - other_seconds / first_seconds if first_seconds else 0.0
    return Comparison(other, saved, num_same, num_common, len(first.axes) == len(other.axes))


def options_text(settings: dict[str, Any]) -> str:
    """The epochs of a search and the options that make it cheaper, as text."""
    parts = [f"{settings['epochs']:g} epochs"]
    if settings.get("seeds", 1) > 1:
        parts.append(f"{settings['seeds']} seeds")
    if settings.get("halving"):
        parts.append(f"successive halving by {settings['halving']}")
    if settings.get("warm_start"):
        parts.append("warm start")
    multigrid = settings.get("base", {}).get("multigrid", "off")
    if multigrid != "off":
        parts.append(f"multigrid {multigrid}")
    return ", ".join(parts)


def multigrid_fractions(history: History) -> list[float]:
    """`multigrid_fraction` of each training whose run folder exists; empty without multigrid."""
    if history.settings.get("base", {}).get("multigrid", "off") == "off":
        return []
    fractions = []
    for trial in history.trials:
        run = Run(trial.run_dir)
        num_clips = _num_clips(run) if trial.status == "done" else 0
        if num_clips:
            try:
                fractions.append(multigrid_fraction(run.config, num_clips))
            except SaccadeError:
                continue
    return fractions


def multigrid_fraction(config: TrainConfig, num_clips: int) -> float:
    """Frames x pixels of a training with ``config.multigrid`` relative to the same training without it. This
    bounds the time that multigrid can save.
    """
    return 1.0 if config.multigrid == "off" else make_plan(config, num_clips).cost


def _num_clips(run: Run) -> int:
    """Number of training clips per epoch of a run; 0 if unknown."""
    rows = run.metrics()[0]
    return next((round(row["clips"] / row["epoch"]) for row in reversed(rows) if row.get("clips")), 0)
