"""Which of a step's candidates is selected, and how certain that is."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from saccade.errors import SaccadeError
from saccade.expansion.candidate import Candidate, Trial
from saccade.expansion.config import Cost, Criterion
from saccade.tasks.metrics import share_error

SURE = 2.0
"""Standard errors by which two accuracies must differ to be more than noise apart."""


@dataclass(frozen=True)
class Scored:
    """A candidate and what its trials say of it.

    Attributes:
        accuracy: mean over the trials, 0..1.
        error: standard error of that mean, from the variance between seeds and the number of videos.
        trials: its successful trainings, one a seed.
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
    """The candidate that a step selects.

    Attributes:
        ranking: all candidates with an accuracy, the best first; the first is selected.
        in_noise: names of those that may be as good.
        note: one sentence for the log.
    """

    ranking: tuple[Scored, ...]
    in_noise: tuple[str, ...]
    note: str

    @property
    def best(self) -> Scored:
        return self.ranking[0]


def score_all(trials: Sequence[Trial]) -> list[Scored]:
    """Each candidate with a successful trial, in the order of the trials.

    The variance between seeds is pooled over the candidates, because a few seeds say little of one. With a
    single seed it is unknown: the error is then that of the number of videos alone, a lower bound.
    """
    done: dict[str, list[Trial]] = defaultdict(list)
    values: dict[str, list[float]] = defaultdict(list)
    for trial in trials:
        if trial.accuracy is not None and trial.status == "done":
            done[trial.candidate.name].append(trial)
            values[trial.candidate.name].append(trial.accuracy)
    repeated = [accuracies for accuracies in values.values() if len(accuracies) > 1]
    freedom = sum(len(accuracies) - 1 for accuracies in repeated)
    pooled = sum(variance(a) * (len(a) - 1) for a in repeated) / freedom if freedom else 0.0
    scored = []
    for name, accuracies in values.items():
        of_videos = fmean(map(_variance_of_videos, done[name]))  # all seeds are judged on the same videos
        error = math.sqrt(pooled / len(accuracies) + of_videos)
        scored.append(Scored(done[name][0].candidate, fmean(accuracies), error, tuple(done[name])))
    return scored


def is_finished(epochs: float, budget: float) -> bool:
    """Whether ``epochs`` are a whole training, not a round of successive halving."""
    return epochs >= budget * (1 - 1e-6)


def score_finished(trials: Sequence[Trial], budget: float) -> list[Scored]:
    """`score_all` of the networks that were trained to the end.

    Args:
        budget: epochs of a whole training.
    """
    return score_all([trial for trial in trials if is_finished(trial.epochs, budget)])


def _variance_of_videos(trial: Trial) -> float:
    """Of one accuracy, for the number of videos it was measured on; 0 if that is unknown."""
    if trial.noise is not None:
        return trial.noise**2
    return share_error(trial.accuracy or 0.0, trial.num_val) ** 2 if trial.num_val else 0.0


def choose(
    scored: Sequence[Scored], *, parent: Scored, criterion: Criterion = "accuracy", cost: Cost = "gmacs"
) -> Choice:
    """The best of a step's candidates; of equal ones the cheaper.

    Raises:
        SaccadeError: there is none.
    """
    if not scored:
        raise SaccadeError("no candidate of the step has an accuracy")
    merits = [_merit(one, parent=parent, criterion=criterion, cost=cost) for one in scored]
    order = sorted(range(len(scored)), key=lambda i: (-merits[i], scored[i].candidate.complexity.cost(cost)))
    best, *others = ranking = tuple(scored[i] for i in order)
    close = tuple(one.candidate.name for one in others if not apart(best, one))
    return Choice(ranking, close, _note(best, others, close, parent))


def _merit(one: Scored, *, parent: Scored, criterion: Criterion, cost: Cost) -> float:
    """What the criterion maximises: the accuracy (as all candidates of a step cost about the same), the gain
    over the parent for each doubling of the cost, or accuracy / cost.
    """
    own, before = one.candidate.complexity.cost(cost), parent.candidate.complexity.cost(cost)
    if criterion == "ratio":
        return one.accuracy / own
    if criterion == "gain":
        doublings = math.log2(own / before)
        gained = one.accuracy - parent.accuracy
        return gained / doublings if doublings > 0 else math.copysign(math.inf, gained)
    return one.accuracy


def apart(one: Scored, other: Scored) -> bool:
    """Whether two accuracies differ by more than noise."""
    return abs(one.accuracy - other.accuracy) > SURE * math.hypot(one.error, other.error)


def _note(best: Scored, others: Sequence[Scored], close: Sequence[str], parent: Scored) -> str:
    text = f"{best.candidate.axis} {best}"
    if others:
        text += f", then {others[0].candidate.axis} {others[0]}"
    if close:
        axes = [one.candidate.axis for one in others if one.candidate.name in close]
        text += f"; the difference to {', '.join(axes)} is within noise"
        if len(best.trials) == 1:
            text += " (one seed: the spread between seeds is unknown; use --seeds 3)"
    if best.accuracy < parent.accuracy:
        text += f"; no expansion scored as well as its parent ({parent})"
    return text
