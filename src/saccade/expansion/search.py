"""The search: forward expansion step by step, then backward contraction to the target.

Paper: X3D (arXiv 2004.04730), section 3.2. The search is a coordinate descent: each step expands each axis
separately, trains the resulting six networks of about equal cost, and continues from the best.
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
from saccade.expansion.axes import Limits, axis_values, contract, expand, usable_axes
from saccade.expansion.candidate import Candidate, Engine, Job, Trial, candidate_config, check_base
from saccade.expansion.checks import check_axes, check_data, check_targets, initial_duration, read_limits
from saccade.expansion.config import Axis, Complexity, Factors, SearchConfig
from saccade.expansion.counting import Latencies, Meter, is_cheap_to_measure, time_in_turns
from saccade.expansion.criterion import Choice, Scored, choose, score_all, score_finished
from saccade.expansion.halving import halve, train_all
from saccade.expansion.journal import (
    CANDIDATES,
    JOURNAL,
    FolderLock,
    Journal,
    candidate_record,
    latencies_in,
    settings_in,
    steps_in,
)
from saccade.expansion.progress import Progress
from saccade.expansion.result import SearchResult, remove_search, write_result
from saccade.models import create_model
from saccade.models.x3d import X3D
from saccade.training.network import model_options

logger = logging.getLogger(__name__)

Strategy = Callable[..., list[Trial]]
"""Trains the candidates of a step: `train_all` or `halve`."""


def run_search(
    search: SearchConfig, engine: Engine, *, resume: bool = False, overwrite: bool = False
) -> SearchResult:
    """Search a network for the data set of ``search.base``, and write the results to ``search.out``.

    Args:
        resume: continue the search in ``search.out`` without repeating the trainings in its journal.
        overwrite: replace the search in ``search.out``.

    Raises:
        UsageError: a target cannot be met, or the folder already contains a search.
        DataError: the data set is invalid or too small.
        SaccadeError: the first network failed.
    """
    check_base(search.base)
    limits = read_limits(search.base)
    meter = create_meter(search, limits)
    check_data(search, limits)
    check_axes(search, limits)
    if not resume:  # a resumed search passed this check, maybe with other measured latencies
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
    except Exception as error:  # the result is already written; the search has succeeded
        logger.warning(f"the report could not be written: {error!r}")


def create_meter(search: SearchConfig, limits: Limits) -> Meter:
    """The meter for the candidates of a search."""

    def build(factors: Factors) -> X3D:
        config = candidate_config(search, factors, name="x2d", seed=0, out=search.out)
        model = create_model("x2d", limits.num_classes, **model_options(config))
        assert isinstance(model, X3D)
        return model

    return Meter(build, device=search.device, runtime=search.runtime, runs=search.latency_runs)


class Driver:
    """Runs one search step by step.

    Args:
        log: called with each line of progress; default: the logger of the module.
    """

    def __init__(
        self,
        search: SearchConfig,
        engine: Engine,
        *,
        meter: Meter,
        limits: Limits,
        log: Callable[[str], None] | None = None,
    ) -> None:
        self.search, self.engine, self.meter, self.limits = search, engine, meter, limits
        self.duration = initial_duration(search, limits)
        self.progress = Progress(search, log)
        self.notes: list[str] = []
        self.path: list[Scored] = []
        self._lock: FolderLock | None = None

    def open(self, *, resume: bool, overwrite: bool) -> None:
        """Create or reopen the journal, and lock the folder until `close`.

        Raises:
            UsageError: there is a journal but neither ``resume`` nor ``overwrite``, there is no journal to
                resume, or another process uses the folder.
            ConfigError: the search was begun with other settings.
        """
        search, out = self.search, self.search.out
        self._check_folder(resume=resume, overwrite=overwrite)
        self._lock = FolderLock(out)
        self._check_folder(resume=resume, overwrite=overwrite)  # again, now that no other process can write
        if overwrite:
            remove_search(out)
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
                f"{out}: already contains a search; continue it with --resume, replace it with --overwrite, "
                "or choose another folder with --out"
            )
        if resume and not present:
            raise UsageError(f"{out}: {JOURNAL} is missing, nothing to resume; start without --resume")

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
            if not self.journal.candidates(step) and not self._can_grow(parent.candidate):
                break
            candidates = self._make_candidates(step, partial(self._expansions, parent.candidate))
            if not candidates:
                self._note(f"step {step}: no axis can be expanded any further")
                break
            best = self._select(candidates, strategy)
            if best is None:
                self._note(f"step {step}: all candidates failed: {self._last_error()}")
                break
            self.path.append(best)
            if not self._meets_targets(best.candidate.complexity):
                self._contract(parent, best)
                break
        else:
            self._note(f"stopped after {search.max_steps} steps below the target (--max-steps)")
        return self._result()

    # ------------------------------------------------------------------------------------------------- steps

    def _expansions(self, parent: Candidate) -> list[tuple[Axis, Factors]]:
        """(axis, factors) of a step's candidates, one for each axis that can be expanded."""
        cost = self.meter.cost_function(self.search.cost)
        expansions: list[tuple[Axis, Factors]] = []
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
                self._note(f"step {parent.step + 1}: {axis} cannot be expanded any further")
            elif all(factors != other for _, other in expansions):
                expansions.append((axis, factors))
        return expansions

    def _make_candidates(
        self,
        step: int,
        expansions: Callable[[], Sequence[tuple[Any, Factors]]],
        *,
        contracted: bool = False,
    ) -> list[Candidate]:
        """The candidates of a step, from the journal or newly measured and added to the journal."""
        known = self.journal.candidates(step, contracted=contracted)
        if known:
            for candidate in known:
                self.meter.remember(candidate.factors, candidate.complexity)
            return known
        axes_and_factors = expansions()
        costs = self.meter.measure([factors for _, factors in axes_and_factors])
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
            for (axis, factors), complexity in zip(axes_and_factors, costs, strict=True)
        ]
        self.journal.add_candidates(candidates)
        return candidates

    def _select(self, candidates: Sequence[Candidate], strategy: Strategy) -> Scored | None:
        """Train the candidates and select the best; None if all failed."""
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
        if self.journal.has_choice(first.step, contracted=first.contracted):
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
        """Replace ``best`` on the path by the largest expansion along its axis that meets the targets."""
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
                fits=self._point_meets_targets,
                limits=self.limits,
                duration=self.duration,
            )
        )
        if factors is None:
            self._note(f"contraction: no value of {axis} between the last two steps meets the target")
            return
        candidates = self._make_candidates(step, lambda: [(axis, factors)], contracted=True)
        contracted = self._select(candidates, train_all)
        if contracted is None:
            self._note(
                f"contraction: {candidates[0].name} failed: {self._last_error()}; the largest network that "
                f"meets the target is {parent.candidate.name}, the one before it"
            )
            return
        self.path.append(contracted)

    def _point_meets_targets(self, point: Factors) -> bool:
        return all(
            self.meter.cost_function(target.kind)(point) <= target.value for target in self.search.targets
        )

    def _meets_targets(self, complexity: Complexity) -> bool:
        return all(target.met(complexity) for target in self.search.targets)

    def _can_grow(self, parent: Candidate) -> bool:
        """Whether the smallest expansion of any axis meets the targets."""
        for axis in usable_axes(parent.factors, self.search.axes, self.limits):
            options = axis_values(axis, parent.factors, limits=self.limits, duration=self.duration)
            smallest = next(options, None)
            if smallest is not None and self._point_meets_targets(smallest):
                return True
        return False

    def _steps_left(self, candidate: Candidate) -> float:
        """Estimated number of steps to the first target, if each step multiplies its cost by the rate."""
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
        """Run folder for a warm start: the parent's training with the same seed, otherwise its best one."""
        if not self.path:
            return ""
        parent = self.path[-1]
        return next((trial.run_dir for trial in parent.trials if trial.seed == seed), parent.best.run_dir)

    def _run(self, jobs: Sequence[Job]) -> list[Trial]:
        """Run the jobs that are not in the journal. A failed job is retried once."""
        final = {trial.name: trial for trial in self.journal.trials() if self._is_final(trial)}
        trials = {job.name: final[job.name] for job in jobs if job.name in final}
        waiting = [job for job in jobs if job.name not in trials]
        self.progress.begin_jobs(len(waiting), num_done=len(trials))
        for attempt in (1, 2):
            if not waiting:
                break
            batch = [replace(job, attempt=attempt) for job in waiting]
            with closing(self.engine.run(batch)) as finished:  # type: ignore[type-var]
                for trial in finished:
                    trial = replace(trial, num_val=trial.num_val or self.limits.num_val)
                    self.journal.add_trial(trial)
                    trials[trial.name] = trial
                    self.progress.end_job(trial, will_retry=attempt == 1)
            waiting = [job for job in waiting if trials[job.name].status == "failed"]
        return [trials[job.name] for job in jobs]

    def _is_final(self, trial: Trial) -> bool:
        """Whether a trial in the journal is not to be repeated: it succeeded, or its step made its choice."""
        candidate = trial.candidate
        return trial.status == "done" or self.journal.has_choice(
            candidate.step, contracted=candidate.contracted
        )

    # ------------------------------------------------------------------------------------------------ result

    def _result(self) -> SearchResult:
        latencies = self._measure_latencies()
        within_targets = self._within_targets(latencies)
        final = max(within_targets, key=lambda one: (one.accuracy, -one.candidate.complexity.gmacs))
        last = within_targets[-1]
        if final is not last:
            self._note(
                f"{final.candidate.name} scored {final}, the larger {last.candidate.name} {last}: "
                "the smaller is the result"
            )
        if latencies:
            self.path = [replace(one, candidate=latencies.apply_to(one.candidate)) for one in self.path]
            final = next(one for one in self.path if one.candidate.name == final.candidate.name)
        self.journal.append(
            {"kind": "result", **candidate_record(final.candidate), "accuracy": final.accuracy}
        )
        return SearchResult(
            path=tuple(self.path),
            final=final,
            trials=tuple(self.journal.trials()),
            notes=tuple(self.notes),
            latencies=latencies,
        )

    def _within_targets(self, latencies: Latencies | None) -> list[Scored]:
        """The networks of the path that meet the targets. The latencies measured at the end, if any, overrule
        those of the steps, which were measured at different times.
        """
        networks = [one for one in self.path if self._meets_targets(one.candidate.complexity)]
        limit = next((t.value for t in self.search.targets if t.kind == "latency_ms"), None)
        if latencies is None or limit is None:
            return networks
        over = [name for one in networks if latencies.low_ms[name := one.candidate.name] > limit]
        times = ", ".join(f"{name} takes {latencies.latency_ms[name]:.3g} ms" for name in over)
        if len(over) == len(networks):
            self._note(
                f"timed in turns at the end, no network meets the target of {limit:g} ms ({times}); is the "
                "machine busy? Using the latencies measured in the steps instead"
            )
            return networks
        if over:
            self._note(f"timed in turns at the end, {times}: over the target of {limit:g} ms, excluded")
        return [one for one in networks if one.candidate.name not in over]

    def _measure_latencies(self) -> Latencies | None:
        """The latencies of the path and, if that is cheap, of all networks that trained to the end, from the
        journal or measured now.
        """
        known = latencies_in(self.journal.records)
        if known or not self.meter.runs:
            return known
        path = {one.candidate.name: one.candidate for one in self.path}
        finished = score_finished(self.journal.trials(), self.search.epochs)
        candidates = list((path | {one.candidate.name: one.candidate for one in finished}).values())
        if not is_cheap_to_measure(self.meter, [candidate.complexity for candidate in candidates]):
            candidates = list(path.values())
        self.progress.log(f"timing {len(candidates)} networks in turns")
        latencies = time_in_turns(self.meter, candidates)
        self.journal.add_latencies(latencies)
        return latencies

    def _note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)
            self.progress.log(text)

    def _last_error(self) -> str:
        return next((trial.error for trial in reversed(self.journal.trials()) if trial.error), "no accuracy")
