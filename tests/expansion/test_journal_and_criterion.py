"""The journal of a search, and the selection of candidates."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from saccade.errors import DataError, SaccadeError, UsageError
from saccade.expansion.candidate import Candidate, Trial
from saccade.expansion.config import Axis, Complexity, Factors
from saccade.expansion.criterion import Scored, choose, differ_significantly, score_all
from saccade.expansion.journal import (
    JOURNAL,
    Journal,
    absolute_run_dir,
    parse_trial,
    read_journal,
    relative_run_dir,
)


def candidate(axis: Axis = "spatial", *, step: int = 1, gmacs: float = 0.04) -> Candidate:
    cost = Complexity(gmacs=gmacs, params=1000, memory_mb=2.5, latency_ms=3.25)
    return Candidate(step=step, axis=axis, factors=Factors(crop=160), complexity=cost, parent="00-start")


def outcome(axis: Axis, accuracy: float, seed: int = 0, num_val: int = 0) -> Trial:
    return Trial(
        candidate=candidate(axis), seed=seed, status="done", accuracy=accuracy, num_val=num_val, seconds=1.5
    )


def score(axis: Axis, mean: float, error: float = 0.0, gmacs: float = 0.04) -> Scored:
    one = candidate(axis, gmacs=gmacs)
    return Scored(one, mean, error, (Trial(candidate=one, seed=0, status="done", accuracy=mean),))


PARENT = score("depth", 0.4, gmacs=0.02)


# -------------------------------------------------------------------------------------------------- journal


def test_a_trial_round_trips_through_the_journal(tmp_path: Path):
    written = replace(outcome("depth", 0.5, seed=2), run_dir=str(tmp_path / "candidates" / "x"), rung=1)
    Journal(tmp_path).add_trial(written)
    [record] = read_journal(tmp_path)
    assert parse_trial(record, tmp_path) == written
    assert record["run_dir"] == "candidates/x"
    assert {"step", "axis", "frames", "crop", "params", "gmacs", "latency_ms", "memory_mb"} <= set(record)
    assert (record["accuracy"], record["seconds"], record["seed"], record["status"]) == (0.5, 1.5, 2, "done")
    assert record["time"].startswith("20")


def test_the_folder_of_a_search_can_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    old, new, elsewhere = tmp_path / "old", tmp_path / "new", tmp_path / "elsewhere"
    (old / "candidates" / "01-depth-seed0").mkdir(parents=True)
    (elsewhere / "run").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    Journal(Path("old")).add_trial(replace(outcome("depth", 0.5), run_dir="old/candidates/01-depth-seed0"))
    Journal(Path("old")).add_trial(replace(outcome("width", 0.5), run_dir="elsewhere/run"))
    old.rename(new)
    monkeypatch.chdir(new)
    for folder in (Path(), new, Path("../new")):
        found = [one.run_dir for one in Journal(folder).trials()]
        assert found == [str(new / "candidates" / "01-depth-seed0"), str(elsewhere / "run")]


@pytest.mark.parametrize("stated", ["runs/old/candidates/01-depth-seed0", "/old/candidates/01-depth-seed0"])
def test_runs_of_older_journals_are_found_next_to_the_journal(tmp_path: Path, stated: str):
    run = tmp_path / "candidates" / "01-depth-seed0"
    run.mkdir(parents=True)
    assert absolute_run_dir(stated, tmp_path) == str(run)
    assert absolute_run_dir(str(tmp_path / "gone"), tmp_path) == str(tmp_path / "gone")
    assert (absolute_run_dir("", tmp_path), relative_run_dir("", tmp_path)) == ("", "")


def test_an_incomplete_last_line_is_removed(tmp_path: Path):
    Journal(tmp_path).add_trial(outcome("depth", 0.5))
    Journal(tmp_path).add_trial(outcome("width", 0.6))
    path = tmp_path / JOURNAL
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:40])
    assert len(read_journal(tmp_path)) == 2
    journal = Journal(tmp_path)
    assert path.read_bytes() == whole
    journal.add_trial(outcome("fast", 0.7))
    assert [entry.accuracy for entry in Journal(tmp_path).trials()] == [0.5, 0.6, 0.7]


def test_a_damaged_line_in_the_middle_is_named(tmp_path: Path):
    Journal(tmp_path).add_trial(outcome("depth", 0.5))
    path = tmp_path / JOURNAL
    path.write_bytes(b'{"half": \n' + path.read_bytes())
    with pytest.raises(DataError, match=r"expansion\.jsonl:1: "):
        Journal(tmp_path)
    with pytest.raises(UsageError, match=r"elsewhere: .*expansion.jsonl is missing"):
        read_journal(tmp_path / "elsewhere")


def test_a_step_with_missing_candidates_is_recreated(tmp_path: Path):
    journal = Journal(tmp_path)
    journal.add_candidates([candidate("spatial"), candidate("depth")])
    assert [c.axis for c in Journal(tmp_path).candidates(1)] == ["spatial", "depth"]
    path = tmp_path / JOURNAL
    path.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    again = Journal(tmp_path)
    assert again.candidates(1) == []
    again.add_candidates([candidate("spatial"), candidate("depth")])
    assert [c.axis for c in again.candidates(1)] == ["spatial", "depth"]
    assert again.candidates(2) == []


# ------------------------------------------------------------------------------------------------ criterion


def test_a_score_is_the_mean_over_seeds_with_a_pooled_error():
    scores = score_all([outcome("depth", a, s) for s, a in enumerate((0.5, 0.7))] + [outcome("width", 0.6)])
    depth, width = scores
    assert (depth.accuracy, len(depth.trials), len(width.trials)) == (pytest.approx(0.6), 2, 1)
    assert depth.error == pytest.approx((0.02 / 2) ** 0.5)  # variance 0.02 of the two seeds
    assert width.error == pytest.approx(0.02**0.5)


def test_few_videos_make_a_score_uncertain():
    [one] = score_all([outcome("depth", 0.5, num_val=100)])
    assert one.error == pytest.approx(0.05)
    [unknown_number] = score_all([outcome("depth", 0.5)])
    assert unknown_number.error == 0


def test_the_noise_of_a_trial_replaces_the_error_of_a_proportion():
    trials = [replace(outcome("depth", 0.5, seed, num_val=100), noise=0.01) for seed in range(2)]
    [score] = score_all(trials)
    assert score.error == pytest.approx(0.01)  # equal seeds, validated on the same videos


def test_failed_trainings_have_no_score():
    failed = Trial(candidate=candidate("width"), seed=0, status="failed", error="no memory")
    assert [s.candidate.axis for s in score_all([failed, outcome("depth", 0.5)])] == ["depth"]
    with pytest.raises(SaccadeError, match="no candidate of the step"):
        choose(score_all([failed]), parent=PARENT)


def test_the_most_accurate_is_selected_and_noise_is_reported():
    scores = [score("spatial", 0.50, 0.01), score("depth", 0.51, 0.01), score("width", 0.4, 0.01)]
    choice = choose(scores, parent=PARENT)
    assert choice.best.candidate.axis == "depth"
    assert choice.in_noise == ("01-spatial",)
    assert choice.note == (
        "depth 51.0 ± 1.0 %, then spatial 50.0 ± 1.0 %; the difference to spatial is within noise "
        "(one seed: the spread between seeds is unknown; use --seeds 3)"
    )
    assert differ_significantly(scores[1], scores[2])


def test_a_choice_below_its_parent_is_reported():
    choice = choose([score("spatial", 0.35), score("depth", 0.3)], parent=PARENT)
    assert choice.in_noise == ()
    assert choice.note.endswith("no expansion scored as well as its parent (40.0 ± 0.0 %)")


def test_equal_scores_go_to_the_cheaper():
    choice = choose([score("spatial", 0.5, gmacs=0.05), score("depth", 0.5, gmacs=0.04)], parent=PARENT)
    assert choice.best.candidate.axis == "depth"


def test_gain_and_ratio_consider_the_cost():
    scores = [
        score("spatial", 0.60, gmacs=0.08),
        score("depth", 0.52, gmacs=0.04),
        score("width", 0.45, gmacs=0.03),
    ]
    assert choose(scores, parent=PARENT, criterion="accuracy").best.candidate.axis == "spatial"
    assert (
        choose(scores, parent=PARENT, criterion="gain").best.candidate.axis == "depth"
    )  # 10 and 12 % a doubling
    assert choose(scores, parent=PARENT, criterion="ratio").best.candidate.axis == "width"
