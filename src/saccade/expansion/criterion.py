"""Which of a step's candidates is kept, and how sure that is."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, variance

from saccade.errors import SaccadeError
from saccade.expansion.types import Candidate, Cost, Criterion, Outcome
from saccade.tasks.metrics import share_error

SURE = 2.0
"""Standard errors that a difference must have to be more than noise."""

CRITERIA: dict[Criterion, str] = {
    "accuracy": "the best accuracy: all cost about the same (the paper)",
    "gain": "accuracy gained over the parent for each doubling of the cost",
    "ratio": "accuracy divided by cost",
}


@dataclass(frozen=True)
class Score:
    """What the trainings of one candidate say of it.

    Attributes:
        mean: accuracy, mean over the seeds, 0..1.
        error: standard error of that mean, from how far seeds lie apart and how many videos there were.
        seeds: number of trainings.
    """

    candidate: Candidate
    mean: float
    error: float
    seeds: int

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f} ± {100 * self.error:.1f} %"


@dataclass(frozen=True)
class Choice:
    """The candidate that a step keeps.

    Attributes:
        ranking: all that have a score, the best first; the first is kept.
        merits: what the criterion gives each.
        in_noise: names of those that may be as good.
        note: one sentence for people.
    """

    ranking: tuple[Score, ...]
    merits: tuple[float, ...]
    in_noise: tuple[str, ...]
    note: str

    @property
    def best(self) -> Score:
        return self.ranking[0]


def score_all(outcomes: Sequence[Outcome]) -> list[Score]:
    """One score for each candidate of which any training succeeded, in the order of the outcomes.

    The variance between seeds is pooled over the candidates, because a handful of seeds say little of one.
    With a single seed it is unknown: the error is then that of the number of videos alone, a lower bound.
    """
    trained: dict[str, list[Outcome]] = defaultdict(list)
    values: dict[str, list[float]] = defaultdict(list)
    for outcome in outcomes:
        if outcome.accuracy is not None and outcome.status == "done":
            trained[outcome.candidate.name].append(outcome)
            values[outcome.candidate.name].append(outcome.accuracy)
    repeated = [accuracies for accuracies in values.values() if len(accuracies) > 1]
    freedom = sum(len(accuracies) - 1 for accuracies in repeated)
    pooled = sum(variance(a) * (len(a) - 1) for a in repeated) / freedom if freedom else 0.0
    scores = []
    for name, accuracies in values.items():
        of_videos = fmean(map(_variance_of_videos, trained[name]))  # all seeds are judged on the same videos
        error = math.sqrt(pooled / len(accuracies) + of_videos)
        scores.append(Score(trained[name][0].candidate, fmean(accuracies), error, len(accuracies)))
    return scores


def is_finished(epochs: float, budget: float) -> bool:
    """Whether a training of so many epochs is a whole one, and not a round of successive halving."""
    return epochs >= budget * (1 - 1e-6)


def score_finished(outcomes: Sequence[Outcome], budget: float) -> list[Score]:
    """`score_all` of the networks that trained to the end; what was dropped before has no score.

    Args:
        budget: epochs of a whole training.
    """
    return score_all([outcome for outcome in outcomes if is_finished(outcome.epochs, budget)])


def _variance_of_videos(outcome: Outcome) -> float:
    """Of one accuracy, for the number of videos it was taken on; 0 if that is not known."""
    if outcome.noise is not None:
        return outcome.noise**2
    return share_error(outcome.accuracy or 0.0, outcome.num_val) ** 2 if outcome.num_val else 0.0


def choose(
    scores: Sequence[Score], *, parent: Score, criterion: Criterion = "accuracy", cost: Cost = "gmacs"
) -> Choice:
    """The best of a step's candidates; equal ones in favour of the cheaper.

    Raises:
        SaccadeError: there is none.
    """
    if not scores:
        raise SaccadeError("no candidate of the step has a score")
    merits = [merit(score, parent=parent, criterion=criterion, cost=cost) for score in scores]
    order = sorted(range(len(scores)), key=lambda i: (-merits[i], scores[i].candidate.complexity.cost(cost)))
    ranking = tuple(scores[i] for i in order)
    best, others = ranking[0], ranking[1:]
    close = tuple(score.candidate.name for score in others if not apart(best, score))
    return Choice(ranking, tuple(merits[i] for i in order), close, _note(best, others, close, parent))


def merit(score: Score, *, parent: Score, criterion: Criterion, cost: Cost) -> float:
    """What ``criterion`` gives a candidate."""
    own, before = score.candidate.complexity.cost(cost), parent.candidate.complexity.cost(cost)
    if criterion == "ratio":
        return score.mean / own
    if criterion == "gain":
        doublings = math.log2(own / before)
        gained = score.mean - parent.mean
        return gained / doublings if doublings > 0 else math.copysign(math.inf, gained)
    return score.mean


def apart(one: Score, other: Score) -> bool:
    """Whether two accuracies differ by more than noise."""
    return abs(one.mean - other.mean) > SURE * math.hypot(one.error, other.error)


def _note(best: Score, others: Sequence[Score], close: Sequence[str], parent: Score) -> str:
    name = best.candidate.axis
    text = f"{name} {best}"
    if others:
        text += f", then {others[0].candidate.axis} {others[0]}"
    if close:
        axes = [score.candidate.axis for score in others if score.candidate.name in close]
        text += f"; the difference to {', '.join(axes)} is within noise"
        if best.seeds == 1:
            text += " (one seed: how far seeds lie apart is not known; --seeds 3 tells)"
    if best.mean < parent.mean:
        text += f"; no expansion scored as well as its parent ({parent})"
    return text
