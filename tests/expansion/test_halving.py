from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from saccade.expansion.candidate import Candidate, Job, Trial
from saccade.expansion.config import AXES, Complexity, Factors, SearchConfig, Target
from saccade.expansion.criterion import score_all
from saccade.expansion.halving import halve, plan_rungs, savings
from saccade.expansion.history import multigrid_fraction
from saccade.expansion.result import SearchResult, summary
from saccade.recipes import get_recipe

ACCURACY = {"fast": 0.3, "temporal": 0.5, "spatial": 0.2, "depth": 0.6, "width": 0.5, "bottleneck": 0.1}


def candidates(axes: Sequence[str] = AXES) -> list[Candidate]:
    return [
        Candidate(
            step=3,
            axis=axis,
            factors=Factors(),
            complexity=Complexity(gmacs=1.0 + 0.1 * (axis == "width"), params=10, memory_mb=1.0),
        )
        for axis in axes
    ]


class Trainings:
    """Fake ``make_job`` and ``run``; the accuracy grows with the trained fraction."""

    def __init__(self, failing: Sequence[str] = (), late: Sequence[str] = ()) -> None:
        self.jobs: list[Job] = []
        self.failing, self.late = failing, late

    def make_job(self, candidate: Candidate, seed: int) -> Job:
        return Job(candidate=candidate, seed=seed, config=get_recipe("x3d_motion").replace(epochs=8))

    def run(self, jobs: Sequence[Job]) -> list[Trial]:
        self.jobs += jobs
        return [self.outcome(job) for job in jobs]

    def outcome(self, job: Job) -> Trial:
        axis = job.candidate.axis
        if axis in self.failing or (axis in self.late and job.rung > 0):
            return job.failed("no luck", seconds=1.0)
        before = [j.fraction for j in self.jobs if j.name != job.name and j.candidate == job.candidate]
        return Trial(
            candidate=job.candidate,
            seed=job.seed,
            status="done",
            rung=job.rung,
            accuracy=ACCURACY[axis] * job.fraction + 0.01 * job.seed,
            seconds=80 * (job.fraction - max((s for s in before if s < job.fraction), default=0.0)),
            epochs=8 * job.fraction,
        )


def search(**changes: object) -> SearchConfig:
    base = get_recipe("x3d_motion")
    config = SearchConfig(base=base, epochs=8, targets=(Target("gmacs", 1.0),), out=Path("out"), halving=2)
    return config.replace(**changes)


def test_rungs() -> None:
    assert plan_rungs(6, 2) == [(6, 0.25), (3, 0.5), (2, 1.0)]
    assert plan_rungs(6, 3) == [(6, pytest.approx(1 / 3)), (2, 1.0)]
    assert plan_rungs(5, 2) == [(5, 0.25), (3, 0.5), (2, 1.0)]
    assert plan_rungs(2, 2) == [(2, 1.0)]
    assert plan_rungs(1, 4) == [(1, 1.0)]


def test_the_worse_half_is_dropped_and_the_rest_continue_in_the_same_runs() -> None:
    trainings = Trainings()
    outcomes = halve(candidates(), make_job=trainings.make_job, run=trainings.run, search=search(seeds=2))
    by_rung = {
        rung: [job.candidate.axis for job in trainings.jobs if job.rung == rung and job.seed == 1]
        for rung in range(3)
    }
    assert by_rung == {0: list(AXES), 1: ["depth", "temporal", "width"], 2: ["depth", "temporal"]}
    assert {job.fraction for job in trainings.jobs if job.rung == 1} == {0.5}
    assert {(o.candidate.axis, o.seed, o.epochs) for o in outcomes} == {
        (axis, seed, 8.0) for axis in ("depth", "temporal") for seed in (0, 1)
    }
    folders = {job.config.run_dir for job in trainings.jobs}
    assert len(folders) == 1, "the config of a candidate does not depend on the rung"


def test_failed_candidates_are_dropped() -> None:
    trainings = Trainings(failing=["depth"], late=["temporal"])
    outcomes = halve(candidates(), make_job=trainings.make_job, run=trainings.run, search=search())
    assert [o.candidate.axis for o in outcomes] == ["width", "fast"]
    trainings = Trainings(failing=AXES)
    outcomes = halve(candidates(), make_job=trainings.make_job, run=trainings.run, search=search())
    assert [o.status for o in outcomes] == ["failed"] * 6


def test_savings_extrapolate_each_training() -> None:
    trainings = Trainings()
    halve(candidates(), make_job=trainings.make_job, run=trainings.run, search=search())
    every = [Trainings.outcome(trainings, job) for job in trainings.jobs]
    saved = savings(every, 8)
    # 6 train to 1/4, 3 to 1/2, 2 to the end, at 80 seconds for a full training
    assert saved["seconds"] == pytest.approx(80 * (6 * 0.25 + 3 * 0.25 + 2 * 0.5))
    assert saved["seconds_without"] == pytest.approx(6 * 80)
    assert saved["dropped"] == 4
    assert saved["share"] == pytest.approx(1 - 3.25 / 6)
    whole = [replace(outcome, epochs=8.0) for outcome in every[:1]]
    assert savings(whole, 8)["share"] == 0
    assert savings([], 8) == {"seconds": 0, "seconds_without": 0, "dropped": 0, "share": 0}


def test_the_summary_of_a_search_has_the_savings() -> None:
    trainings, config = Trainings(), search()
    outcomes = halve(candidates(), make_job=trainings.make_job, run=trainings.run, search=config)
    best = candidates(["depth"])[0]
    trials = [outcome for outcome in outcomes if outcome.candidate == best]
    [scored] = score_all(trials)
    every = tuple(trainings.outcome(job) for job in trainings.jobs)
    saved = summary(config, SearchResult(path=(scored,), final=scored, trials=every, notes=()))
    assert saved["halving"]["share"] == pytest.approx(1 - 3.25 / 6)
    saved = summary(
        config.replace(halving=0), SearchResult(path=(scored,), final=scored, trials=every, notes=())
    )
    assert "halving" not in saved


def test_multigrid_is_counted() -> None:
    recipe = get_recipe("x3d_motion")
    assert multigrid_fraction(recipe, 600) == 1.0
    assert 0.2 < multigrid_fraction(recipe.replace(multigrid="both"), 600) < 0.5
