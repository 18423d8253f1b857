"""Successive halving among the candidates of a step (Jamieson and Talwalkar, AISTATS 2016, arXiv 1502.07943).

All candidates train for a fraction of the epochs, the worse ones are dropped, the others continue in the same
runs with the same schedules. Their results are therefore bit for bit those of a search without halving.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from saccade.expansion.candidate import Candidate, Job, Trial
from saccade.expansion.config import SearchConfig
from saccade.expansion.criterion import is_finished

MIN_FINALISTS = 2
"""At least this many candidates train to the end."""

MakeJob = Callable[[Candidate, int], Job]
"""Returns the job of the full training of a candidate with a seed."""
RunJobs = Callable[[Sequence[Job]], list[Trial]]
"""Runs jobs, or reads their trials from the journal."""


def train_all(
    candidates: Sequence[Candidate], *, make_job: MakeJob, run: RunJobs, search: SearchConfig
) -> list[Trial]:
    """Train all candidates with all seeds to the end."""
    return run([make_job(candidate, seed) for candidate in candidates for seed in range(search.seeds)])


def plan_rungs(num_candidates: int, factor: int) -> list[tuple[int, float]]:
    """The rungs of successive halving as (number of candidates, fraction of the training done after it).

    6 candidates with factor 2: 6 train to 0.25, 3 to 0.5, 2 to 1.

    Args:
        factor: 1 / factor of the candidates, rounded up, continue after each rung.
    """
    sizes = [num_candidates]
    while sizes[-1] > MIN_FINALISTS:
        sizes.append(max(MIN_FINALISTS, math.ceil(sizes[-1] / factor)))
    last = len(sizes) - 1
    return [(size, factor ** float(number - last)) for number, size in enumerate(sizes)]


def halve(
    candidates: Sequence[Candidate], *, make_job: MakeJob, run: RunJobs, search: SearchConfig
) -> list[Trial]:
    """Train the candidates of a step by successive halving.

    Each rung ranks candidates by mean accuracy over the seeds, then by cost, and drops those without a
    successful trial. Returns the trials of the last rung; the journal has those of all rungs.
    """
    remaining, trials = list(candidates), list[Trial]()
    for number, (size, fraction) in enumerate(plan_rungs(len(candidates), search.halving)):
        jobs = [make_job(candidate, seed) for candidate in remaining[:size] for seed in range(search.seeds)]
        trials = run([replace(job, rung=number, fraction=fraction) for job in jobs])
        remaining = _ranked(remaining[:size], trials, search)
        if not remaining:
            break
    return trials


def _ranked(
    candidates: Sequence[Candidate], trials: Iterable[Trial], search: SearchConfig
) -> list[Candidate]:
    """The candidates that have an accuracy, best first."""
    accuracies: dict[str, list[float]] = defaultdict(list)
    for trial in trials:
        if trial.status == "done" and trial.accuracy is not None:
            accuracies[trial.candidate.name].append(trial.accuracy)
    return sorted(
        (candidate for candidate in candidates if candidate.name in accuracies),
        key=lambda one: (-fmean(accuracies[one.name]), one.complexity.cost(search.cost), one.name),
    )


def savings(trials: Iterable[Trial], epochs: float) -> dict[str, Any]:
    """Training time saved by successive halving.

    Args:
        epochs: epochs of a full training.

    Returns:
        ``seconds``: time of all trainings, including failed attempts. ``seconds_without``: time without
        halving, extrapolating each dropped training from its speed. ``dropped``: number of trainings stopped
        early. ``share``: saved fraction of the time.
    """
    runs: dict[tuple[str, int], list[Trial]] = defaultdict(list)
    for trial in trials:
        runs[trial.candidate.name, trial.seed].append(trial)
    seconds = seconds_without = 0.0
    dropped = 0
    for run in runs.values():
        spent = sum(trial.seconds for trial in run)
        done = max((trial.epochs for trial in run if trial.status == "done"), default=0.0)
        unfinished = done > 0 and not is_finished(done, epochs)
        seconds += spent
        seconds_without += spent * epochs / done if unfinished else spent
        dropped += unfinished
    saved = 1 - seconds / seconds_without if seconds_without else 0.0
    return {"seconds": seconds, "seconds_without": seconds_without, "dropped": dropped, "share": saved}
