"""Cheaper steps: successive halving among the candidates, and what that and multigrid save.

Successive halving (Jamieson and Talwalkar, AISTATS 2016, arXiv 1502.07943): all candidates train for a
fraction of the budget, the worse part is dropped, the others go on. They go on in the same run under the same
schedules, so that the survivors end bit for bit as they would have without.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

from saccade.errors import ConfigError
from saccade.expansion.types import Candidate, JobMaker, Outcome, Runner, SearchConfig
from saccade.training.config import TrainConfig

FINALISTS = 2
"""So many candidates train to the end: the winner is never chosen unopposed."""


@dataclass(frozen=True)
class Rung:
    """One round: how many candidates are in it and what share of the training they have behind them after."""

    num_candidates: int
    share: float


def rungs(num_candidates: int, factor: int) -> list[Rung]:
    """The rounds of successive halving: 6 candidates by 2 are 6 to a quarter, 3 to a half, 2 to the end.

    Args:
        factor: one in so many goes on, rounded up; the share trained grows by the same factor. 2 halves.

    Raises:
        ConfigError: the factor is less than 2.
    """
    if factor < 2:
        raise ConfigError(f"halving: one in {factor} cannot go on; choose 2 or more, or 0 for no halving")
    sizes = [num_candidates]
    while sizes[-1] > FINALISTS:
        sizes.append(max(FINALISTS, math.ceil(sizes[-1] / factor)))
    last = len(sizes) - 1
    return [Rung(size, factor ** float(place - last)) for place, size in enumerate(sizes)]


def halve(
    candidates: Sequence[Candidate], *, make_job: JobMaker, run: Runner, search: SearchConfig
) -> list[Outcome]:
    """Train the candidates of a step by successive halving; a `Strategy`.

    A round ranks candidates by their mean accuracy over the seeds, the cheaper first where it is the same.
    A candidate of which no seed succeeds is dropped like the worst. The outcomes returned are those of the
    finalists, or of the round in which the last candidate failed; those of all rounds are in the journal.
    """
    alive, outcomes = list(candidates), list[Outcome]()
    for number, rung in enumerate(rungs(len(candidates), search.halving)):
        alive = alive[: rung.num_candidates]
        jobs = [make_job(candidate, seed) for candidate in alive for seed in range(search.seeds)]
        outcomes = run([replace(job, rung=number, share=rung.share) for job in jobs])
        alive = ranked(alive, outcomes, search)
        if not alive:
            break
    return outcomes


def ranked(
    candidates: Sequence[Candidate], outcomes: Iterable[Outcome], search: SearchConfig
) -> list[Candidate]:
    """The candidates with an accuracy, best first."""
    accuracies: dict[str, list[float]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.status == "done" and outcome.accuracy is not None:
            accuracies[outcome.candidate.name].append(outcome.accuracy)
    alive = [candidate for candidate in candidates if candidate.name in accuracies]
    return sorted(
        alive, key=lambda one: (-fmean(accuracies[one.name]), one.complexity.cost(search.cost), one.name)
    )


# --------------------------------------------------------------------------------------------------- savings


@dataclass(frozen=True, kw_only=True)
class Savings:
    """What successive halving saved.

    Attributes:
        seconds: spent in all trainings, measured; failed attempts included.
        seconds_without: what training every candidate to the end would have taken: measured for those that
            did, estimated for the dropped from their own speed.
        dropped: trainings that were not finished.
    """

    seconds: float
    seconds_without: float
    dropped: int

    @property
    def share(self) -> float:
        """Saved, as a share of the seconds without."""
        return 1 - self.seconds / self.seconds_without if self.seconds_without else 0.0

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "share": self.share}


def savings(outcomes: Iterable[Outcome], epochs: float) -> Savings:
    """What the outcomes of a search say of successive halving; nothing is saved where all trained to the end.

    Args:
        epochs: of a whole training.
    """
    trainings: dict[tuple[str, int], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        trainings[outcome.candidate.name, outcome.seed].append(outcome)
    spent = full = 0.0
    dropped = 0
    for rounds in trainings.values():
        own = sum(outcome.seconds for outcome in rounds)
        done = max((outcome.epochs for outcome in rounds if outcome.status == "done"), default=0.0)
        unfinished = 0 < done < epochs * (1 - 1e-6)
        spent += own
        full += own * epochs / done if unfinished else own
        dropped += unfinished
    return Savings(seconds=spent, seconds_without=full, dropped=dropped)


def multigrid_share(config: TrainConfig, num_clips: int) -> float:
    """Frames times pixels that a training with ``config.multigrid`` computes, as a share of those of the same
    training without: what it can save at most, counted, not measured.
    """
    from saccade.training.multigrid import make_plan

    if config.multigrid == "off":
        return 1.0
    return make_plan(config, num_clips).cost
