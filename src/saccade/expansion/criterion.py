"""Selection of a step's best candidate, and the statistical certainty of that choice."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from saccade.errors import SaccadeError
from saccade.expansion.candidate import Candidate, Trial
from saccade.expansion.config import Cost, Criterion
from saccade.tasks.statistics import proportion_error

SIGNIFICANT_ERRORS = 2.0
"""Two accuracies differ significantly if they are more than this many standard errors apart."""


@dataclass(frozen=True)
class Scored:
    """A candidate with the mean accuracy of its trials.

    Attributes:
        accuracy: mean over the trials, 0..1.
        error: standard error of that mean, from the variance between seeds and the number of videos.
        trials: its successful trainings, one per seed.
    """

    candidate: Candidate
    accuracy: float
    error: float
    trials: tuple[Trial, ...]

    @property
    def best(self) -> Trial:
        """The most accurate trial."""
        return max(self.trials, key=lambda trial: trial.accuracy or 0.0)

    def __str__(self) -> str:
        return f"{100 * self.accuracy:.1f} ± {100 * self.error:.1f} %"


@dataclass(frozen=True)
class Choice:
    """The ranking of a step's candidates.

    Attributes:
        ranking: all candidates with an accuracy, best first; the first is selected.
        in_noise: names of candidates whose difference to the best is not significant.
        note: summary for the log.
    """

    ranking: tuple[Scored, ...]
    in_noise: tuple[str, ...]
    note: str

    @property
    def best(self) -> Scored:
        return self.ranking[0]


def score_all(trials: Sequence[Trial]) -> list[Scored]:
    """Score each candidate that has a successful trial, in the order of the trials.

    The variance between seeds is pooled over the candidates, since each has only a few seeds. With a single
    seed that variance is unknown; the error then only covers the number of videos and is a lower bound.
    """
    done: dict[str, list[Trial]] = defaultdict(list)
    values: dict[str, list[float]] = defaultdict(list)
    for trial in trials:
        if trial.accuracy is not None and trial.status == "done":
            done[trial.candidate.name].append(trial)
            values[trial.candidate.name].append(trial.accuracy)
    repeated = [accuracies for accuracies in values.values() if len(accuracies) > 1]
    degrees_of_freedom = sum(len(accuracies) - 1 for accuracies in repeated)
    pooled = sum(variance(a) * (len(a) - 1) for a in repeated) / (degrees_of_freedom or 1)
    scored = []
    for name, accuracies in values.items():
        sampling = fmean(map(_sampling_variance, done[name]))  # not divided: all seeds share the videos
        error = math.sqrt(pooled / len(accuracies) + sampling)
        scored.append(Scored(done[name][0].candidate, fmean(accuracies), error, tuple(done[name])))
    return scored


def is_finished(epochs: float, total: float) -> bool:
    """Whether ``epochs`` are the full training of ``total`` epochs, not a rung of successive halving."""
    return epochs >= total * (1 - 1e-6)


def score_finished(trials: Sequence[Trial], total: float) -> list[Scored]:
    """`score_all` of the candidates that were trained for all ``total`` epochs."""
    return score_all([trial for trial in trials if is_finished(trial.epochs, total)])


def _sampling_variance(trial: Trial) -> float:
    """Variance of a trial's accuracy due to the number of validation videos; 0 if that is unknown."""
    if trial.noise is not None:
        return trial.noise**2
    return proportion_error(trial.accuracy or 0.0, trial.num_val) ** 2 if trial.num_val else 0.0


def choose(
    scored: Sequence[Scored], *, parent: Scored, criterion: Criterion = "accuracy", cost: Cost = "gmacs"
) -> Choice:
    """Rank a step's candidates by the criterion; the cheaper wins a tie.

    Raises:
        SaccadeError: there are no candidates.
    """
    if not scored:
        raise SaccadeError("no candidate of the step has an accuracy")

    def rank(one: Scored) -> tuple[float, float]:
        objective = _objective(one, parent=parent, criterion=criterion, cost=cost)
        return -objective, one.candidate.complexity.cost(cost)

    best, *others = ranking = tuple(sorted(scored, key=rank))
    in_noise = tuple(one.candidate.name for one in others if not differ_significantly(best, one))
    return Choice(ranking, in_noise, _note(best, others, in_noise, parent))


def _objective(one: Scored, *, parent: Scored, criterion: Criterion, cost: Cost) -> float:
    """The value that the criterion maximises: accuracy (all candidates of a step cost about the same), gain
    over the parent per doubling of the cost, or accuracy / cost.
    """
    own_cost, parent_cost = one.candidate.complexity.cost(cost), parent.candidate.complexity.cost(cost)
    if criterion == "ratio":
        return one.accuracy / own_cost
    if criterion == "gain":
        doublings = math.log2(own_cost / parent_cost)
        gain = one.accuracy - parent.accuracy
        return gain / doublings if doublings > 0 else math.copysign(math.inf, gain)
    return one.accuracy


def differ_significantly(one: Scored, other: Scored) -> bool:
    """Whether two accuracies are more than `SIGNIFICANT_ERRORS` standard errors apart."""
    return abs(one.accuracy - other.accuracy) > SIGNIFICANT_ERRORS * math.hypot(one.error, other.error)


def _note(best: Scored, others: Sequence[Scored], in_noise: Sequence[str], parent: Scored) -> str:
    text = f"{best.candidate.axis} {best}"
    if others:
        text += f", then {others[0].candidate.axis} {others[0]}"
    if in_noise:
        axes = [one.candidate.axis for one in others if one.candidate.name in in_noise]
        text += f"; the difference to {', '.join(axes)} is within noise"
        if len(best.trials) == 1:
            text += " (one seed: the spread between seeds is unknown; use --seeds 3)"
    if best.accuracy < parent.accuracy:
        text += f"; no expansion scored as well as its parent ({parent})"
    return text
