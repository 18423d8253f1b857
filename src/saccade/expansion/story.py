"""What the journal of a search tells, in the order of its steps; for the report and for comparisons."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from saccade.errors import SaccadeError
from saccade.expansion.criterion import is_finished, score_all
from saccade.expansion.halving import Savings, multigrid_share, savings
from saccade.expansion.journal import candidate_of, outcome_of, read_journal, result_in, settings_in
from saccade.expansion.timing import Timed, timed_in
from saccade.expansion.types import Candidate, Complexity, Outcome
from saccade.runs import Run

Fate = Literal["kept", "left", "rejected", "dropped", "failed", "open"]
"""kept: on the way of the search. left: chosen, but over the target, and so taken back. rejected: trained to
the end, another was chosen. dropped: by successive halving, before the end. failed: no training succeeded.
open: not decided yet."""


@dataclass(frozen=True)
class Tried:
    """One candidate and what became of it.

    Attributes:
        mean, error: accuracy over its seeds after the longest training, and its standard error; None: none.
        seeds: trainings that succeeded.
        share: of the training that it had, 0..1.
        seconds: in all its trainings.
        in_noise: it was not chosen, and may be as good as what was.
        reason: why it failed.
    """

    candidate: Candidate
    fate: Fate
    mean: float | None
    error: float
    seeds: int
    share: float
    seconds: float
    in_noise: bool = False
    reason: str = ""


@dataclass(frozen=True)
class Story:
    """A search as its journal has it, finished or not.

    Attributes:
        timed: latencies taken in turns at the end; the candidates of ``steps`` have these and no others.
            None: each has that of its own step.
    """

    folder: Path
    settings: dict[str, Any]
    steps: tuple[tuple[Tried, ...], ...]
    notes: tuple[str, ...]
    result: dict[str, Any] | None
    outcomes: tuple[Outcome, ...]
    timed: Timed | None = None

    @cached_property
    def way(self) -> list[Tried]:
        """The networks that were kept, in order."""
        return [tried for step in self.steps for tried in step if tried.fate == "kept"]

    @property
    def finished(self) -> list[Tried]:
        """The networks that trained to the end, in order."""
        return [t for step in self.steps for t in step if t.mean is not None and is_finished(t.share, 1.0)]

    @property
    def final(self) -> Tried | None:
        """The network the search ended with; None while it has not."""
        name = self.result["name"] if self.result else ""
        return next((tried for tried in self.way if tried.candidate.name == name), None)

    @property
    def target(self) -> float | None:
        """The ceiling of what steps multiply, if there is one."""
        cost = self.settings.get("cost")
        return next((t["value"] for t in self.settings.get("targets", ()) if t["kind"] == cost), None)

    @property
    def seconds(self) -> float:
        """Spent in trainings, one after another."""
        return sum(outcome.seconds for outcome in self.outcomes)

    @property
    def savings(self) -> Savings:
        return savings(self.outcomes, float(self.settings["epochs"]))


def read_story(folder: Path) -> Story:
    """Read the journal of a search.

    Raises:
        UsageError: there is none.
        DataError: it is damaged.
    """
    records = read_journal(folder)
    settings = settings_in(records) or {"epochs": 0.0}
    choices = {(r["step"], r["contracted"]): r for r in records if r["kind"] == "choice"}
    result = result_in(records)
    outcomes = tuple(outcome_of(r, folder) for r in records if r["kind"] == "outcome")
    by_name: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        by_name[outcome.candidate.name].append(outcome)
    laid_out: dict[tuple[int, bool], list[Candidate]] = defaultdict(list)
    for record in records:
        if record["kind"] == "candidate":
            candidate = candidate_of(record)
            group = laid_out[candidate.step, candidate.contracted]
            if candidate not in group:
                group.append(candidate)
    left = _taken_back(settings, choices, laid_out, finished=result is not None)
    steps = tuple(
        tuple(_tried(c, by_name[c.name], choices.get(key), settings, left=left) for c in group)
        for key, group in sorted(laid_out.items())
    )
    timed = timed_in(records)
    if timed:
        steps = tuple(tuple(replace(t, candidate=timed.of(t.candidate)) for t in step) for step in steps)
    notes = tuple(
        f"{'contraction' if contracted else f'step {step}'}: {choice['note']}"
        for (step, contracted), choice in sorted(choices.items())
        if choice.get("note")
    )
    return Story(folder, settings, steps, notes, result, outcomes, timed)


def _taken_back(
    settings: dict[str, Any],
    choices: dict[tuple[int, bool], dict[str, Any]],
    laid_out: dict[tuple[int, bool], list[Candidate]],
    *,
    finished: bool,
) -> str:
    """Name of the choice that was contracted, or given up because no contraction met the target."""
    last = max((step for step, _ in choices), default=0)
    choice = choices.get((last, False))
    if choice is None or not last:
        return ""
    chosen = next(c for c in laid_out[last, False] if c.name == choice["name"])
    over = any(chosen.complexity.cost(t["kind"]) > t["value"] for t in settings.get("targets", ()))
    return chosen.name if over and (finished or (last, True) in choices) else ""


def _tried(
    candidate: Candidate,
    outcomes: Sequence[Outcome],
    choice: dict[str, Any] | None,
    settings: dict[str, Any],
    *,
    left: str,
) -> Tried:
    done = [outcome for outcome in outcomes if outcome.status == "done"]
    longest = max((outcome.epochs for outcome in done), default=0.0)
    share = longest / settings["epochs"] if settings["epochs"] else 1.0
    scores = score_all([outcome for outcome in done if is_finished(outcome.epochs, longest)])
    mean, error, seeds = (scores[0].mean, scores[0].error, scores[0].seeds) if scores else (None, 0.0, 0)
    if choice and candidate.name in choice.get("scores", {}):  # as it was judged, seeds of all pooled
        mean, error = choice["scores"][candidate.name], choice["errors"][candidate.name]
    fate: Fate
    if choice is not None and choice["name"] == candidate.name:
        fate = "left" if candidate.name == left else "kept"
    elif not done:
        fate = "failed" if any(outcome.attempt > 1 for outcome in outcomes) or choice else "open"
    elif not is_finished(share, 1.0):
        fate = "dropped" if choice else "open"
    else:
        fate = "rejected" if choice else "open"
    return Tried(
        candidate=candidate,
        fate=fate,
        mean=mean,
        error=error,
        seeds=seeds,
        share=min(share, 1.0),
        seconds=sum(outcome.seconds for outcome in outcomes),
        in_noise=bool(choice) and candidate.name in (choice or {}).get("in_noise", ()),
        reason=next((outcome.error for outcome in reversed(outcomes) if outcome.error), ""),
    )


# ------------------------------------------------------------------------------------------- cheaper searches


def options_text(settings: dict[str, Any]) -> str:
    """What a search did to be cheap, in words."""
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


def multigrid_shares(story: Story) -> list[float]:
    """`multigrid_share` of each training whose run folder is still there; empty without multigrid."""
    if story.settings.get("base", {}).get("multigrid", "off") == "off":
        return []
    shares = []
    for outcome in story.outcomes:
        num_clips = _num_clips(Run(outcome.run_dir)) if outcome.status == "done" else 0
        if num_clips:
            try:
                shares.append(multigrid_share(Run(outcome.run_dir).config, num_clips))
            except SaccadeError:
                continue
    return shares


def _num_clips(run: Run) -> int:
    """Training clips of a run, from how many it had drawn after how many epochs; 0 if it does not tell."""
    rows = run.metrics()[0]
    return next((round(row["clips"] / row["epoch"]) for row in reversed(rows) if row.get("clips")), 0)


@dataclass(frozen=True)
class Rival:
    """A search beside the one it is compared with, as far as both went.

    Attributes:
        saved: share of the seconds of the first that it did without, in the steps that both made; negative:
            it took longer.
        same: steps, from the first on, in which both chose the same axis.
        shared: steps that both made.
        whole: whether both ended after these.
    """

    story: Story
    saved: float
    same: int
    shared: int
    whole: bool


def compare_stories(first: Story, others: Sequence[Story]) -> list[Rival]:
    """What cheaper searches saved, and whether they chose the same."""
    own = path_of(first)
    rivals = []
    for story in others:
        path = path_of(story)
        shared = min(len(own), len(path))
        same = next((i for i in range(shared) if own[i] != path[i]), shared)
        last = min(_last_step(first), _last_step(story))
        before, after = _seconds_until(first, last), _seconds_until(story, last)
        saved = 1 - after / before if before else 0.0
        rivals.append(Rival(story, saved, same, shared, len(own) == len(path)))
    return rivals


def _last_step(story: Story) -> int:
    return max((outcome.candidate.step for outcome in story.outcomes), default=0)


def _seconds_until(story: Story, step: int) -> float:
    return sum(outcome.seconds for outcome in story.outcomes if outcome.candidate.step <= step)


def path_of(story: Story) -> list[str]:
    """The axes that were expanded."""
    return [tried.candidate.axis for tried in story.way if tried.candidate.step]


def cost_of(complexity: Complexity, kind: str) -> float | None:
    """In the unit of `saccade.visualize.frontier.COST_LABELS`; None if it was not measured."""
    value = getattr(complexity, kind)
    return None if value is None else value / 1e6 if kind == "params" else float(value)
