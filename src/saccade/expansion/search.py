"""The search itself: forward expansion step by step, and at the end backward contraction to the target.

Paper: X3D (arXiv 2004.04730), section 3.2. It is coordinate descent: each step expands one axis at a time,
trains the six networks of about equal cost, and goes on from the best.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from saccade.errors import SaccadeError, UsageError
from saccade.expansion.axes import Room, contract, expand, usable_axes, values
from saccade.expansion.candidate import candidate_config, check_base
from saccade.expansion.checks import check_axes, check_data, check_fields, check_targets, first_duration
from saccade.expansion.counting import Meter
from saccade.expansion.criterion import Choice, Score, choose, score_all, score_finished
from saccade.expansion.journal import CANDIDATES, JOURNAL, Journal, flat
from saccade.expansion.lock import FolderLock
from saccade.expansion.progress import Progress
from saccade.expansion.room import DataFacts, read_facts
from saccade.expansion.settings import check_same, check_steps, plain_settings, search_of
from saccade.expansion.timing import Timed, is_cheap, time_in_turns, timed_in
from saccade.expansion.types import (
    Axis,
    Candidate,
    Complexity,
    Engine,
    Factors,
    Job,
    JobMaker,
    Outcome,
    Runner,
    SearchConfig,
    Strategy,
)
from saccade.models import create_model
from saccade.models.x3d import X3D
from saccade.training.network import model_options


@dataclass(frozen=True)
class Kept:
    """A network on the way of the search.

    Attributes:
        outcomes: its successful trainings.
    """

    candidate: Candidate
    score: Score
    outcomes: tuple[Outcome, ...]

    @property
    def best(self) -> Outcome:
        """The training that ended best."""
        return max(self.outcomes, key=lambda outcome: outcome.accuracy or 0.0)


@dataclass(frozen=True, kw_only=True)
class SearchResult:
    """What a search found.

    Attributes:
        way: the networks that were kept, from the first to the last; the last may be a contracted one.
        final: the one of the way that meets the targets and is the most accurate, nearly always the last.
        outcomes: all trainings, failed ones included.
        notes: what people should know of the choices.
        timed: the latencies of ``way`` and ``final``, timed in turns at the end; None: nothing was timed.
    """

    way: tuple[Kept, ...]
    final: Kept
    outcomes: tuple[Outcome, ...]
    notes: tuple[str, ...]
    timed: Timed | None = None


def run_search(
    search: SearchConfig, engine: Engine, *, resume: bool = False, overwrite: bool = False
) -> SearchResult:
    """Search the data set of ``search.base``; leave journal, runs, recipe, weights and report in its folder.

    Args:
        resume: go on with the search in that folder. What its journal holds is not trained again.
        overwrite: replace the search in that folder.

    Raises:
        UsageError: a field or target that cannot work, or the folder holds a search already.
        DataError: the data set cannot be used or is too small.
        SaccadeError: the first network, or all candidates of the first step, failed.
    """
    from saccade.expansion.output import write_result

    check_fields(search)
    check_base(search.base)
    facts = read_facts(search.base)
    meter = meter_of(search, facts)
    check_data(search, facts)
    check_axes(search, facts.room)
    if not resume:  # the network the search began with was within the target, as it was measured then
        check_targets(search, meter, facts.room)
    driver = Driver(search, engine, meter=meter, room=facts.room, num_val=facts.num_val)
    with closing(driver):
        with closing(engine):
            driver.open(resume=resume, overwrite=overwrite)
            result = driver.run()
        write_result(search, result)
    return result


def meter_of(search: SearchConfig, facts: DataFacts) -> Meter:
    """Counts and measures the candidates of a search."""

    def build(factors: Factors) -> X3D:
        config = candidate_config(search, factors, name="x2d", seed=0, out=search.out)
        model = create_model("x2d", facts.num_classes, **model_options(config))
        assert isinstance(model, X3D)
        return model

    return Meter(build, device=search.device, runtime=search.runtime, runs=search.latency_runs)


class Driver:
    """Takes the steps of one search."""

    def __init__(
        self,
        search: SearchConfig,
        engine: Engine,
        *,
        meter: Meter,
        room: Room,
        num_val: int = 0,
        strategy: Strategy | None = None,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.search, self.engine, self.meter, self.room, self.num_val = search, engine, meter, room, num_val
        self.duration = first_duration(search, room)
        self.strategy = strategy or _strategy(search)
        self.progress = Progress(search, say)
        self.notes: list[str] = []
        self.way: list[Kept] = []
        self._lock: FolderLock | None = None

    def open(self, *, resume: bool, overwrite: bool) -> None:
        """Begin the journal, or go on with it; the folder is this search's until `close`.

        Raises:
            UsageError: there is one and nothing was said of it, none to resume, or one with other settings;
                or another process is searching in the folder.
        """
        from saccade.expansion.output import clear

        out = self.search.out
        self._check_folder(resume=resume, overwrite=overwrite)
        self._lock = FolderLock(out)
        self._check_folder(resume=resume, overwrite=overwrite)  # as it is now that nobody else writes there
        if overwrite:
            clear(out)
        self.journal = Journal(out)
        settings = plain_settings(self.search)
        before = self.journal.settings()
        if before is None:
            self.journal.append({"kind": "search", "settings": settings})
            return
        before = plain_settings(search_of(before))  # with the fields that its version did not have
        check_same(before, settings, out)
        check_steps(self.search, self.journal.steps_made())
        if settings | {"out": ""} != before | {"out": ""}:
            self.journal.append({"kind": "search", "settings": settings})

    def close(self) -> None:
        """Let others search in the folder."""
        if self._lock:
            self._lock.release()
        self._lock = None

    def _check_folder(self, *, resume: bool, overwrite: bool) -> None:
        out = self.search.out
        if resume and overwrite:
            raise UsageError("--resume continues a search and --overwrite deletes it; give one of them")
        present = (out / JOURNAL).exists()
        if present and not (resume or overwrite):
            raise UsageError(
                f"{out}: holds a search already; continue it with --resume, keep it and choose another "
                "folder with --out, or replace it with --overwrite"
            )
        if resume and not present:
            raise UsageError(f"{out}: has no {JOURNAL} to resume; start without --resume")

    def run(self) -> SearchResult:
        """Expand until a target is exceeded, contract, and choose."""
        search = self.search
        [start] = self._lay_out(0, lambda: [("start", search.start)])
        kept = self._keep([start], train_all)
        if kept is None:
            raise SaccadeError(f"the first network could not be trained: {self._first_error()}")
        self.way.append(kept)
        for step in range(1, search.max_steps + 1):
            parent = self.way[-1]
            if not self.journal.candidates(step) and not self._may_grow(parent.candidate):
                break
            candidates = self._lay_out(step, partial(self._expansions, parent.candidate))
            if not candidates:
                self._note(f"step {step}: no axis has room for a step any more")
                break
            best = self._keep(candidates, self.strategy)
            if best is None:
                self._note(f"step {step}: all candidates failed: {self._first_error()}")
                break
            self.way.append(best)
            if not self._fits(best.candidate.complexity):
                self._contract(parent, best)
                break
        else:
            self._note(f"stopped after {search.max_steps} steps below the target (--max-steps)")
        return self._result()

    # ------------------------------------------------------------------------------------------------- steps

    def _expansions(self, parent: Candidate) -> list[tuple[Axis, Factors]]:
        cost = self.meter.cost(self.search.cost)
        found: list[tuple[Axis, Factors]] = []
        for axis in usable_axes(parent.factors, self.search.axes, self.room):
            factors = expand(
                axis,
                parent.factors,
                rate=self.search.rate,
                cost=cost,
                room=self.room,
                duration=self.duration,
            )
            if factors is None:
                self._note(f"step {parent.step + 1}: {axis} has no room for a step")
            elif all(factors != other for _, other in found):
                found.append((axis, factors))
        return found

    def _lay_out(
        self,
        step: int,
        points: Callable[[], Sequence[tuple[Any, Factors]]],
        *,
        contracted: bool = False,
    ) -> list[Candidate]:
        """The candidates of a step, from the journal or counted, measured and written there."""
        known = self.journal.candidates(step, contracted=contracted)
        if known:
            for candidate in known:
                self.meter.remember(candidate.factors, candidate.complexity)
            return known
        found = points()
        costs = self.meter.measure([factors for _, factors in found])
        parent = self.way[-1].candidate.name if self.way else ""
        candidates = [
            Candidate(
                step=step,
                axis=axis,
                factors=factors,
                complexity=complexity,
                contracted=contracted,
                parent=parent,
            )
            for (axis, factors), complexity in zip(found, costs, strict=True)
        ]
        self.journal.lay_out(candidates)
        return candidates

    def _keep(self, candidates: Sequence[Candidate], strategy: Strategy) -> Kept | None:
        """Train the candidates and choose; None if all failed."""
        first = candidates[0]
        self.progress.begin_step(candidates, self._steps_left(first))
        outcomes = strategy(candidates, make_job=self._job, run=self._run, search=self.search)
        scores = score_all(outcomes)
        if not scores:
            return None
        parent = self.way[-1].score if self.way else scores[0]
        choice = choose(scores, parent=parent, criterion=self.search.criterion, cost=self.search.cost)
        self._write_choice(first, choice)
        best = choice.best
        own = [o for o in outcomes if o.candidate == best.candidate and o.status == "done"]
        return Kept(best.candidate, best, tuple(own))

    def _write_choice(self, first: Candidate, choice: Choice) -> None:
        label = "contraction" if first.contracted else f"step {first.step}"
        self._note(f"{label}: {choice.note}")
        if self.journal.chosen(first.step, contracted=first.contracted):
            return
        self.journal.append(
            {
                "kind": "choice",
                "step": first.step,
                "contracted": first.contracted,
                "name": choice.best.candidate.name,
                "axis": choice.best.candidate.axis,
                "scores": {score.candidate.name: score.mean for score in choice.ranking},
                "errors": {score.candidate.name: score.error for score in choice.ranking},
                "in_noise": list(choice.in_noise),
                "note": choice.note,
            }
        )

    def _contract(self, parent: Kept, best: Kept) -> None:
        """Take the last expansion back as far as the targets ask; ``best`` leaves the way."""
        axis = best.candidate.axis
        assert axis != "start"
        self.way.pop()
        known = self.journal.candidates(best.candidate.step, contracted=True)
        factors = (
            known[0].factors
            if known
            else contract(
                axis,
                parent.candidate.factors,
                best.candidate.factors,
                fits=self._fits_point,
                room=self.room,
                duration=self.duration,
            )
        )
        if factors is None:
            self._note(
                f"contraction: no value of {axis} lies between the last two steps and meets the target"
            )
            return
        point = factors
        candidates = self._lay_out(best.candidate.step, lambda: [(axis, point)], contracted=True)
        kept = self._keep(candidates, train_all)
        if kept is None:
            self._note(
                f"contraction: {candidates[0].name} failed: {self._first_error()}; "
                f"{parent.candidate.name}, the network before it, is the largest that meets the target"
            )
            return
        self.way.append(kept)

    def _fits_point(self, point: Factors) -> bool:
        return all(self.meter.cost(target.kind)(point) <= target.value for target in self.search.targets)

    def _fits(self, complexity: Complexity) -> bool:
        return all(target.met(complexity) for target in self.search.targets)

    def _may_grow(self, parent: Candidate) -> bool:
        """Whether the next usable value of any axis still meets the targets; if none does this is the end."""
        for axis in usable_axes(parent.factors, self.search.axes, self.room):
            options = values(axis, parent.factors, room=self.room, duration=self.duration)
            smallest = next(options, None)
            if smallest is not None and self._fits_point(smallest):
                return True
        return False

    def _steps_left(self, candidate: Candidate) -> float:
        """Steps after this one until the first target is reached, if it doubles as the cost does."""
        factors = [t.value / candidate.complexity.cost(t.kind) for t in self.search.targets]
        return max(0.0, math.log(min(factors), self.search.rate)) if min(factors) > 0 else 0.0

    # -------------------------------------------------------------------------------------------------- jobs

    def _job(self, candidate: Candidate, seed: int) -> Job:
        out = self.search.out / CANDIDATES / f"{candidate.name}-seed{seed}"
        return Job(
            candidate=candidate,
            seed=seed,
            config=candidate_config(self.search, candidate.factors, name=candidate.name, seed=seed, out=out),
            parent_run=self._parent_run(seed) if self.search.warm_start else "",
        )

    def _parent_run(self, seed: int) -> str:
        """Where a warm start takes its weights from: the parent's training with the same seed."""
        if not self.way:
            return ""
        kept = self.way[-1]
        return next((o.run_dir for o in kept.outcomes if o.seed == seed), kept.best.run_dir)

    def _run(self, jobs: Sequence[Job]) -> list[Outcome]:
        """Train what the journal does not have; try what fails a second time."""
        settled = {o.job_name: o for o in self.journal.outcomes() if self._is_settled(o)}
        outcomes = {job.name: settled[job.name] for job in jobs if job.name in settled}
        waiting = [job for job in jobs if job.name not in outcomes]
        self.progress.begin_jobs(len(waiting), done=list(outcomes.values()))
        for attempt in (1, 2):
            if not waiting:
                break
            batch = {job.name: replace(job, attempt=attempt) for job in waiting}
            with closing(self.engine.run(list(batch.values()))) as finished:  # type: ignore[type-var]
                for outcome in finished:
                    outcome = replace(outcome, num_val=outcome.num_val or self.num_val)
                    self.journal.add(outcome)
                    outcomes[outcome.job_name] = outcome
                    self.progress.finished(outcome, again=attempt == 1)
            waiting = [job for job in waiting if outcomes[job.name].status == "failed"]
        return [outcomes[job.name] for job in jobs]

    def _is_settled(self, outcome: Outcome) -> bool:
        """Whether a training of the journal counts: it succeeded, or its step has chosen without it."""
        candidate = outcome.candidate
        return outcome.status == "done" or self.journal.chosen(
            candidate.step, contracted=candidate.contracted
        )

    # ------------------------------------------------------------------------------------------------ result

    def _result(self) -> SearchResult:
        timed = self._time_in_turns()
        meeting = self._meeting(timed)
        final = max(meeting, key=lambda kept: (kept.score.mean, -kept.candidate.complexity.gmacs))
        last = meeting[-1]
        if final is not last:
            self._note(
                f"{final.candidate.name} scored {final.score}, the larger {last.candidate.name} "
                f"{last.score}: the smaller is the result"
            )
        if timed:
            self.way = [replace(kept, candidate=timed.of(kept.candidate)) for kept in self.way]
            final = next(kept for kept in self.way if kept.candidate.name == final.candidate.name)
        self.journal.append({"kind": "result", **flat(final.candidate), "accuracy": final.score.mean})
        return SearchResult(
            way=tuple(self.way),
            final=final,
            outcomes=tuple(self.journal.outcomes()),
            notes=tuple(self.notes),
            timed=timed,
        )

    def _meeting(self, timed: Timed | None) -> list[Kept]:
        """The networks of the way that meet the targets, by the latencies timed at the end where there are
        some: those of the steps are of different times.
        """
        before = [kept for kept in self.way if self._fits(kept.candidate.complexity)]
        limit = next((t.value for t in self.search.targets if t.kind == "latency_ms"), None)
        if timed is None or limit is None:
            return before
        over = [name for kept in before if timed.low_ms[name := kept.candidate.name] > limit]
        told = ", ".join(f"{name} takes {timed.latency_ms[name]:.3g} ms" for name in over)
        if len(over) == len(before):
            self._note(
                f"timed in turns at the end, no network keeps the target of {limit:g} ms ({told}): is the "
                "machine busy? The result is by the latencies of the steps"
            )
            return before
        if over:
            self._note(f"timed in turns at the end, {told}: over the target of {limit:g} ms, left out")
        return [kept for kept in before if kept.candidate.name not in over]

    def _time_in_turns(self) -> Timed | None:
        """The latencies of the way and, if it is cheap, of all networks that trained to the end; from the
        journal if they are there.
        """
        known = timed_in(self.journal.records)
        if known or not self.meter.runs:
            return known
        own = {kept.candidate.name: kept.candidate for kept in self.way}
        scores = score_finished(self.journal.outcomes(), self.search.epochs)
        every = own | {score.candidate.name: score.candidate for score in scores}
        candidates = list(every.values())
        if not is_cheap(self.meter, [candidate.complexity for candidate in candidates]):
            candidates = list(own.values())
        self.progress.say(f"timing {len(candidates)} networks in turns")
        timed = time_in_turns(self.meter, candidates)
        self.journal.append(timed.record())
        return timed

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
            self.progress.say(text)

    def _first_error(self) -> str:
        return next((o.error for o in reversed(self.journal.outcomes()) if o.error), "no score")


def train_all(
    candidates: Sequence[Candidate], *, make_job: JobMaker, run: Runner, search: SearchConfig
) -> list[Outcome]:
    """All candidates, all seeds, to the end; a `Strategy`."""
    return run([make_job(candidate, seed) for candidate in candidates for seed in range(search.seeds)])


def _strategy(search: SearchConfig) -> Strategy:
    if not search.halving:
        return train_all
    from saccade.expansion.halving import halve

    return halve
