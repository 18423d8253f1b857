"""The search: forward expansion step by step, and at the end backward contraction to the target.

Paper: X3D (arXiv 2004.04730), section 3.2. It is coordinate descent: each step expands one axis at a time,
trains the six networks of about equal cost, and goes on from the best.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from typing import Any

from saccade.errors import SaccadeError, UsageError
from saccade.expansion.axes import Limits, contract, expand, usable_axes, values
from saccade.expansion.candidate import Candidate, Engine, Job, Trial, candidate_config, check_base
from saccade.expansion.checks import check_axes, check_data, check_targets, first_duration, read_limits
from saccade.expansion.config import Axis, Complexity, Factors, SearchConfig
from saccade.expansion.counting import Latencies, Meter, is_cheap_to_time, time_in_turns
from saccade.expansion.criterion import Choice, Scored, choose, score_all, score_finished
from saccade.expansion.halving import halve, train_all
from saccade.expansion.journal import (
    CANDIDATES,
    JOURNAL,
    FolderLock,
    Journal,
    flat,
    latencies_in,
    settings_in,
    steps_in,
)
from saccade.expansion.progress import Progress
from saccade.expansion.result import SearchResult, clear, write_result
from saccade.models import create_model
from saccade.models.x3d import X3D
from saccade.training.network import model_options

logger = logging.getLogger(__name__)

Strategy = Callable[..., list[Trial]]
"""How the candidates of a step are trained: `train_all` or `halve`."""


def run_search(
    search: SearchConfig, engine: Engine, *, resume: bool = False, overwrite: bool = False
) -> SearchResult:
    """Search the data set of ``search.base``; write journal, runs, recipe, weights and report to its folder.

    Args:
        resume: continue the search in that folder. Trainings in its journal are not repeated.
        overwrite: replace the search in that folder.

    Raises:
        UsageError: a target that cannot be met, or the folder holds a search already.
        DataError: the data set cannot be used or is too small.
        SaccadeError: the first network, or all candidates of the first step, failed.
    """
    check_base(search.base)
    limits = read_limits(search.base)
    meter = meter_of(search, limits)
    check_data(search, limits)
    check_axes(search, limits)
    if not resume:  # when it was begun the first network was within the target, as measured then
        check_targets(search, meter, limits)
    driver = Driver(search, engine, meter=meter, limits=limits)
    with closing(driver):
        with closing(engine):
            driver.open(resume=resume, overwrite=overwrite)
            result = driver.run()
        write_result(search, result)
        _write_report(search)
    return result


def _write_report(search: SearchConfig) -> None:
    from saccade.expansion.report import write_report

    try:
        write_report(search.out)
    except Exception as error:  # the result is written; a failing report must not fail the search
        logger.warning(f"no report could be written: {error!r}")


def meter_of(search: SearchConfig, limits: Limits) -> Meter:
    """Counts and times the candidates of a search."""

    def build(factors: Factors) -> X3D:
        config = candidate_config(search, factors, name="x2d", seed=0, out=search.out)
        model = create_model("x2d", limits.num_classes, **model_options(config))
        assert isinstance(model, X3D)
        return model

    return Meter(build, device=search.device, runtime=search.runtime, runs=search.latency_runs)


class Driver:
    """Takes the steps of one search.

    Args:
        say: is given the lines about progress; default: the log.
    """

    def __init__(
        self,
        search: SearchConfig,
        engine: Engine,
        *,
        meter: Meter,
        limits: Limits,
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.search, self.engine, self.meter, self.limits = search, engine, meter, limits
        self.duration = first_duration(search, limits)
        self.progress = Progress(search, say)
        self.notes: list[str] = []
        self.path: list[Scored] = []
        self._lock: FolderLock | None = None

    def open(self, *, resume: bool, overwrite: bool) -> None:
        """Begin the journal, or continue it; the folder is locked until `close`.

        Raises:
            UsageError: there is a journal and neither ``resume`` nor ``overwrite``, or none to resume, or
                another process is searching in the folder.
            ConfigError: a search with other settings cannot be resumed.
        """
        search, out = self.search, self.search.out
        self._check_folder(resume=resume, overwrite=overwrite)
        self._lock = FolderLock(out)
        self._check_folder(resume=resume, overwrite=overwrite)  # now that nobody else writes there
        if overwrite:
            clear(out)
        self.journal = Journal(out)
        settings = settings_in(self.journal.records)
        if settings is not None:
            before = SearchConfig.from_dict(settings)
            search.check_continues(before, steps_in(self.journal.records))
            if search.replace(out=out) == before.replace(out=out):
                return
        self.journal.append({"kind": "search", "settings": search.to_dict()})

    def close(self) -> None:
        """Unlock the folder."""
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
        """Expand until a target is exceeded, contract, and select the result."""
        search = self.search
        strategy = halve if search.halving else train_all
        [start] = self._make_candidates(0, lambda: [("start", search.start)])
        first = self._select([start], train_all)
        if first is None:
            raise SaccadeError(f"the first network could not be trained: {self._last_error()}")
        self.path.append(first)
        for step in range(1, search.max_steps + 1):
            parent = self.path[-1]
            if not self.journal.candidates(step) and not self._may_grow(parent.candidate):
                break
            candidates = self._make_candidates(step, partial(self._expansions, parent.candidate))
            if not candidates:
                self._note(f"step {step}: no axis can be expanded by a step")
                break
            best = self._select(candidates, strategy)
            if best is None:
                self._note(f"step {step}: all candidates failed: {self._last_error()}")
                break
            self.path.append(best)
            if not self._fits(best.candidate.complexity):
                self._contract(parent, best)
                break
        else:
            self._note(f"stopped after {search.max_steps} steps below the target (--max-steps)")
        return self._result()

    # ------------------------------------------------------------------------------------------------- steps

    def _expansions(self, parent: Candidate) -> list[tuple[Axis, Factors]]:
        """The factors of a step's candidates, one for each axis that can be expanded."""
        cost = self.meter.cost(self.search.cost)
        found: list[tuple[Axis, Factors]] = []
        for axis in usable_axes(parent.factors, self.search.axes, self.limits):
            factors = expand(
                axis,
                parent.factors,
                rate=self.search.rate,
                cost=cost,
                limits=self.limits,
                duration=self.duration,
            )
            if factors is None:
                self._note(f"step {parent.step + 1}: {axis} cannot be expanded by a step")
            elif all(factors != other for _, other in found):
                found.append((axis, factors))
        return found

    def _make_candidates(
        self,
        step: int,
        points: Callable[[], Sequence[tuple[Any, Factors]]],
        *,
        contracted: bool = False,
    ) -> list[Candidate]:
        """The candidates of a step, from the journal, or else counted, timed and written there."""
        known = self.journal.candidates(step, contracted=contracted)
        if known:
            for candidate in known:
                self.meter.remember(candidate.factors, candidate.complexity)
            return known
        found = points()
        costs = self.meter.measure([factors for _, factors in found])
        parent = self.path[-1].candidate.name if self.path else ""
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
        self.journal.add_candidates(candidates)
        return candidates

    def _select(self, candidates: Sequence[Candidate], strategy: Strategy) -> Scored | None:
        """Train the candidates and select one; None if all failed."""
        first = candidates[0]
        self.progress.begin_step(candidates, self._steps_left(first))
        trials = strategy(candidates, make_job=self._job, run=self._run, search=self.search)
        scored = score_all(trials)
        if not scored:
            return None
        parent = self.path[-1] if self.path else scored[0]
        choice = choose(scored, parent=parent, criterion=self.search.criterion, cost=self.search.cost)
        self._write_choice(first, choice)
        return choice.best

    def _write_choice(self, first: Candidate, choice: Choice) -> None:
        label = "contraction" if first.contracted else f"step {first.step}"
        self._note(f"{label}: {choice.note}")
        if self.journal.has_chosen(first.step, contracted=first.contracted):
            return
        self.journal.append(
            {
                "kind": "choice",
                "step": first.step,
                "contracted": first.contracted,
                "name": choice.best.candidate.name,
                "axis": choice.best.candidate.axis,
                "scores": {one.candidate.name: one.accuracy for one in choice.ranking},
                "errors": {one.candidate.name: one.error for one in choice.ranking},
                "in_noise": list(choice.in_noise),
                "note": choice.note,
            }
        )

    def _contract(self, parent: Scored, best: Scored) -> None:
        """Take back as much of the last expansion as the targets require; ``best`` leaves the path."""
        axis, step = best.candidate.axis, best.candidate.step
        assert axis != "start"
        self.path.pop()
        known = self.journal.candidates(step, contracted=True)
        factors = (
            known[0].factors
            if known
            else contract(
                axis,
                parent.candidate.factors,
                best.candidate.factors,
                fits=self._fits_point,
                limits=self.limits,
                duration=self.duration,
            )
        )
        if factors is None:
            self._note(
                f"contraction: no value of {axis} lies between the last two steps and meets the target"
            )
            return
        candidates = self._make_candidates(step, lambda: [(axis, factors)], contracted=True)
        contracted = self._select(candidates, train_all)
        if contracted is None:
            self._note(
                f"contraction: {candidates[0].name} failed: {self._last_error()}; "
                f"{parent.candidate.name}, the network before it, is the largest that meets the target"
            )
            return
        self.path.append(contracted)

    def _fits_point(self, point: Factors) -> bool:
        return all(self.meter.cost(target.kind)(point) <= target.value for target in self.search.targets)

    def _fits(self, complexity: Complexity) -> bool:
        return all(target.met(complexity) for target in self.search.targets)

    def _may_grow(self, parent: Candidate) -> bool:
        """Whether the next usable value of any axis still meets the targets; if none does the search ends."""
        for axis in usable_axes(parent.factors, self.search.axes, self.limits):
            options = values(axis, parent.factors, limits=self.limits, duration=self.duration)
            smallest = next(options, None)
            if smallest is not None and self._fits_point(smallest):
                return True
        return False

    def _steps_left(self, candidate: Candidate) -> float:
        """Steps from here to the first target, if what it limits grows as the cost does."""
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
        if not self.path:
            return ""
        parent = self.path[-1]
        return next((trial.run_dir for trial in parent.trials if trial.seed == seed), parent.best.run_dir)

    def _run(self, jobs: Sequence[Job]) -> list[Trial]:
        """Train what the journal does not have; what fails is tried a second time."""
        settled = {trial.name: trial for trial in self.journal.trials() if self._is_settled(trial)}
        trials = {job.name: settled[job.name] for job in jobs if job.name in settled}
        waiting = [job for job in jobs if job.name not in trials]
        self.progress.begin_jobs(len(waiting), done=list(trials.values()))
        for attempt in (1, 2):
            if not waiting:
                break
            batch = {job.name: replace(job, attempt=attempt) for job in waiting}
            with closing(self.engine.run(list(batch.values()))) as finished:  # type: ignore[type-var]
                for trial in finished:
                    trial = replace(trial, num_val=trial.num_val or self.limits.num_val)
                    self.journal.add_trial(trial)
                    trials[trial.name] = trial
                    self.progress.finished(trial, again=attempt == 1)
            waiting = [job for job in waiting if trials[job.name].status == "failed"]
        return [trials[job.name] for job in jobs]

    def _is_settled(self, trial: Trial) -> bool:
        """Whether a trial of the journal is final: it succeeded, or its step has selected without it."""
        candidate = trial.candidate
        chosen = self.journal.has_chosen(candidate.step, contracted=candidate.contracted)
        return trial.status == "done" or chosen

    # ------------------------------------------------------------------------------------------------ result

    def _result(self) -> SearchResult:
        latencies = self._time_in_turns()
        meeting = self._meeting(latencies)
        final = max(meeting, key=lambda one: (one.accuracy, -one.candidate.complexity.gmacs))
        last = meeting[-1]
        if final is not last:
            self._note(
                f"{final.candidate.name} scored {final}, the larger {last.candidate.name} {last}: "
                "the smaller is the result"
            )
        if latencies:
            self.path = [replace(one, candidate=latencies.of(one.candidate)) for one in self.path]
            final = next(one for one in self.path if one.candidate.name == final.candidate.name)
        self.journal.append({"kind": "result", **flat(final.candidate), "accuracy": final.accuracy})
        return SearchResult(
            path=tuple(self.path),
            final=final,
            trials=tuple(self.journal.trials()),
            notes=tuple(self.notes),
            latencies=latencies,
        )

    def _meeting(self, latencies: Latencies | None) -> list[Scored]:
        """The networks of the path that meet the targets, by the latencies timed at the end if there are any:
        those of the steps were taken at different times.
        """
        before = [one for one in self.path if self._fits(one.candidate.complexity)]
        limit = next((t.value for t in self.search.targets if t.kind == "latency_ms"), None)
        if latencies is None or limit is None:
            return before
        over = [name for one in before if latencies.low_ms[name := one.candidate.name] > limit]
        times = ", ".join(f"{name} takes {latencies.latency_ms[name]:.3g} ms" for name in over)
        if len(over) == len(before):
            self._note(
                f"timed in turns at the end, no network meets the target of {limit:g} ms ({times}): is the "
                "machine busy? The result is by the latencies of the steps"
            )
            return before
        if over:
            self._note(f"timed in turns at the end, {times}: over the target of {limit:g} ms, excluded")
        return [one for one in before if one.candidate.name not in over]

    def _time_in_turns(self) -> Latencies | None:
        """The latencies of the path and, if it is cheap, of all networks that trained to the end; from the
        journal if they are there.
        """
        known = latencies_in(self.journal.records)
        if known or not self.meter.runs:
            return known
        own = {one.candidate.name: one.candidate for one in self.path}
        finished = score_finished(self.journal.trials(), self.search.epochs)
        every = own | {one.candidate.name: one.candidate for one in finished}
        candidates = list(every.values())
        if not is_cheap_to_time(self.meter, [candidate.complexity for candidate in candidates]):
            candidates = list(own.values())
        self.progress.say(f"timing {len(candidates)} networks in turns")
        latencies = time_in_turns(self.meter, candidates)
        self.journal.add_latencies(latencies)
        return latencies

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
            self.progress.say(text)

    def _last_error(self) -> str:
        return next((trial.error for trial in reversed(self.journal.trials()) if trial.error), "no accuracy")
