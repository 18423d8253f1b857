"""Successive halving among the candidates of a step, and what it saves.

Successive halving (Jamieson and Talwalkar, AISTATS 2016, arXiv 1502.07943): all candidates train for a
fraction of the budget, the worse part is dropped, the others continue. They continue in the same run with the
same schedules, so that they end bit for bit as they would have without halving.
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

FINALISTS = 2
"""How many candidates train to the end: the best is never selected unopposed."""

JobMaker = Callable[[Candidate, int], Job]
"""The job of a whole training, for a candidate and a seed."""
Runner = Callable[[Sequence[Job]], list[Trial]]
"""Runs jobs, or takes their trials from the journal."""


def train_all(
    candidates: Sequence[Candidate], *, make_job: JobMaker, run: Runner, search: SearchConfig
) -> list[Trial]:
    """Train all candidates, with all seeds, to the end."""
    return run([make_job(candidate, seed) for candidate in candidates for seed in range(search.seeds)])


def rungs(num_candidates: int, factor: int) -> list[tuple[int, float]]:
    """The rounds of successive halving: candidates in it, and the fraction of the training done after it.

    Six candidates by 2: six to a quarter, three to a half, two to the end.

    Args:
        factor: 1 / factor of the candidates go on, rounded up; the fraction trained grows by it. 2 halves.
    """
    sizes = [num_candidates]
    while sizes[-1] > FINALISTS:
        sizes.append(max(FINALISTS, math.ceil(sizes[-1] / factor)))
    last = len(sizes) - 1
    return [(size, factor ** float(number - last)) for number, size in enumerate(sizes)]


def halve(
    candidates: Sequence[Candidate], *, make_job: JobMaker, run: Runner, search: SearchConfig
) -> list[Trial]:
    """Train the candidates of a step by successive halving.

    A round ranks candidates by their mean accuracy over the seeds, then by cost. A candidate without a
    successful trial is dropped. Returns the trials of the finalists, or of the round in which the last
    candidate failed; those of all rounds are in the journal.
    """
    alive, trials = list(candidates), list[Trial]()
    for number, (size, fraction) in enumerate(rungs(len(candidates), search.halving)):
        alive = alive[:size]
        jobs = [make_job(candidate, seed) for candidate in alive for seed in range(search.seeds)]
        trials = run([replace(job, rung=number, fraction=fraction) for job in jobs])
        alive = _ranked(alive, trials, search)
        if not alive:
            break
    return trials


def _ranked(
    candidates: Sequence[Candidate], trials: Iterable[Trial], search: SearchConfig
) -> list[Candidate]:
    """The candidates with an accuracy, best first."""
    accuracies: dict[str, list[float]] = defaultdict(list)
    for trial in trials:
        if trial.status == "done" and trial.accuracy is not None:
            accuracies[trial.candidate.name].append(trial.accuracy)
    alive = [candidate for candidate in candidates if candidate.name in accuracies]
    return sorted(
        alive, key=lambda one: (-fmean(accuracies[one.name]), one.complexity.cost(search.cost), one.name)
    )


def savings(trials: Iterable[Trial], epochs: float) -> dict[str, Any]:
    """What successive halving saved, measured and estimated.

    Args:
        epochs: of a whole training.

    Returns:
        ``seconds`` spent in all trainings, failed attempts included; ``seconds_without``, what training every
        candidate to the end would have taken: for the dropped ones estimated from their own speed;
        ``dropped``, the number of trainings that were ended early; ``share``, the saved fraction.
    """
    rounds: dict[tuple[str, int], list[Trial]] = defaultdict(list)
    for trial in trials:
        rounds[trial.candidate.name, trial.seed].append(trial)
    spent = whole = 0.0
    dropped = 0
    for own in rounds.values():
        seconds = sum(trial.seconds for trial in own)
        done = max((trial.epochs for trial in own if trial.status == "done"), default=0.0)
        unfinished = done > 0 and not is_finished(done, epochs)
        spent += seconds
        whole += seconds * epochs / done if unfinished else seconds
        dropped += unfinished
    share = 1 - spent / whole if whole else 0.0
    return {"seconds": spent, "seconds_without": whole, "dropped": dropped, "share": share}
