"""The report of a search, from journals written by the tests."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from saccade.cli import main
from saccade.errors import UsageError
from saccade.evaluation.pareto import pareto_front
from saccade.expansion import report
from saccade.expansion.candidate import Candidate, Trial
from saccade.expansion.config import Complexity, Factors, SearchConfig, Target
from saccade.expansion.counting import Latencies
from saccade.expansion.criterion import score_all
from saccade.expansion.halving import savings
from saccade.expansion.history import compare, options_text, read_history
from saccade.expansion.journal import Journal, candidate_record, settings_in
from saccade.expansion.report import front_chart, path_chart, write_report
from saccade.expansion.result import SearchResult, summary
from saccade.recipes import get_recipe
from saccade.visualize.frontier import Dot

Accuracies = dict[str, float | None]
STEPS: list[Accuracies] = [
    {"start": 0.5},
    {"depth": 0.6, "fast": 0.55, "width": None},
    {"fast": 0.7, "spatial": 0.69},
    {"width": 0.8, "depth": 0.78},
]


def candidate(step: int, axis: Any, gmacs: float, parent: str, *, contracted: bool = False) -> Candidate:
    return Candidate(
        step=step,
        axis=axis,
        factors=Factors(frames=1 + step, crop=112 + 8 * step),
        complexity=Complexity(gmacs=gmacs, params=int(1e6 * gmacs), memory_mb=5.0, latency_ms=10 * gmacs),
        contracted=contracted,
        parent=parent,
    )


def write_search(
    out: Path,
    steps: list[Accuracies] = STEPS,
    *,
    contraction: float | None = 0.77,
    finished: bool = True,
    seconds: float = 100.0,
    dropped: tuple[str, ...] = (),
    **settings: Any,
) -> Path:
    """Write a journal; each step selects its first candidate, and the last exceeds 7.5 GMACs, the target."""
    base = get_recipe("x3d_motion").replace(data="data/clips")
    search = SearchConfig(base=base, epochs=8, targets=(Target("gmacs", 7.5),), out=out).replace(**settings)
    journal = Journal(out)
    journal.append({"kind": "search", "settings": search.to_dict()})
    parent = ""
    for number, accuracies in enumerate(steps):
        tried = [candidate(number, axis, 2.0**number, parent) for axis in accuracies]
        train(journal, tried, list(accuracies.values()), seconds=seconds, dropped=dropped)
        before, parent = parent, tried[0].name
    if contraction is not None:
        last = candidate(len(steps) - 1, tried[0].axis, 7.0, before, contracted=True)
        train(journal, [last], [contraction], seconds=seconds, dropped=())
        parent = last.name
    if finished:
        found = last if contraction is not None else tried[0]
        journal.append({"kind": "result", **candidate_record(found), "accuracy": contraction})
    return out


def train(
    journal: Journal,
    tried: list[Candidate],
    accuracies: list[float | None],
    *,
    seconds: float,
    dropped: tuple[str, ...],
) -> None:
    journal.add_candidates(tried)
    scores = {}
    for one, accuracy in zip(tried, accuracies, strict=True):
        fraction = 0.25 if one.axis in dropped else 1.0
        outcome = Trial(
            candidate=one, seed=0, status="done", accuracy=accuracy, num_val=100, seconds=seconds * fraction,
            epochs=8 * fraction, run_dir=str(journal.path.parent / one.name),
        )  # fmt: skip
        if accuracy is None:
            failed = replace(outcome, status="failed", error="out of memory", epochs=8.0)
            journal.add_trial(failed)
            journal.add_trial(replace(failed, attempt=2))
            continue
        journal.add_trial(outcome)
        if fraction == 1:
            scores[one.name] = accuracy
    close = [name for name, value in scores.items() if 0 < max(scores.values()) - value < 0.015]
    journal.append(
        {
            "kind": "choice",
            "step": tried[0].step,
            "contracted": tried[0].contracted,
            "name": tried[0].name,
            "axis": tried[0].axis,
            "scores": scores,
            "errors": dict.fromkeys(scores, 0.02),
            "in_noise": close,
            "note": f"{tried[0].axis} it is",
        }
    )


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_search(tmp_path_factory.mktemp("searches") / "plain")


def test_history_has_the_status_of_each_candidate(search: Path) -> None:
    history = read_history(search)
    statuses = {tried.candidate.name: tried.status for step in history.steps for tried in step}
    assert statuses == {
        "00-start": "selected",
        "01-depth": "selected",
        "01-fast": "rejected",
        "01-width": "failed",
        "02-fast": "selected",
        "02-spatial": "rejected",
        "03-width": "over target",
        "03-depth": "rejected",
        "03-width-contracted": "selected",
    }
    assert history.axes == ["depth", "fast", "width"]
    assert history.final is not None
    assert history.final.candidate.name == "03-width-contracted"
    assert history.target == 7.5
    failed = next(t for t in history.steps[1] if t.status == "failed")
    assert (failed.reason, failed.accuracy, failed.seconds) == ("out of memory", None, 200)
    assert [t.in_noise for t in history.steps[2]] == [False, True]
    assert history.notes[-1] == "contraction: width it is"


def test_the_path_excludes_a_step_that_could_not_be_contracted(tmp_path: Path) -> None:
    history = read_history(write_search(tmp_path / "s", contraction=None))
    assert history.axes == ["depth", "fast"]
    assert [t.status for t in history.steps[3]] == ["over target", "rejected"]
    unfinished = read_history(write_search(tmp_path / "u", contraction=None, finished=False))
    assert unfinished.axes == ["depth", "fast", "width"], "the contraction is still to come"
    assert unfinished.final is None


def test_picture(search: Path) -> None:
    figure = path_chart(read_history(search))
    assert figure is not None
    (axes,) = figure.axes
    names = [text.get_text() for text in axes.texts if text.get_text() != "target"]
    assert names == ["X2D", "1 depth", "2 fast*", "3 width, contracted"]
    assert list(axes.lines[0].get_xdata()) == [1, 2, 4, 7]
    ring = [line for line in axes.lines if line.get_markersize() == 15]
    assert [list(line.get_xdata()) for line in ring] == [[7.0]]
    faint = {
        (line.get_xdata()[0], round(float(line.get_ydata()[0]), 6))
        for line in axes.lines
        if line.get_alpha() == 0.45 and line.get_linestyle() == "None"
    }
    assert faint == {(2, 55), (4, 69), (8, 80), (8, 78)}


def test_page(search: Path) -> None:
    path = write_report(search)
    page = path.read_text(encoding="utf-8")
    for file in ("expansion.svg", "expansion.png", "pareto.svg", "pareto.png"):
        assert (search / file).stat().st_size > 3000
    for text in (
        "Expansion on clips", "77.0 %", "result of the search", "at most 7.5 GMACs", "depth → fast → width",
        "failed: out of memory", "over the target, contracted", "rejected, within noise of the selected one",
        "contraction: width it is", "16 min 40 s", "sum over 9 trainings", "measured, cpu",
    ):  # fmt: skip
        assert text in page, text
    assert page.count("<svg") == 2
    assert "http" not in page.replace("http://www.w3.org", "").replace("https://www.w3.org", "")
    assert "{{" not in page


def test_latencies_of_the_steps_and_of_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_search(tmp_path / "s", cost="latency_ms", device="cuda")
    drawn = list[tuple[str, list[Dot]]]()
    monkeypatch.setattr(report, "pareto_chart", lambda panels, **_: drawn.extend(panels))
    different_steps = "latency (ms), measured in different steps"
    front_chart(read_history(folder))
    assert [(label, len(dots)) for label, dots in drawn] == [
        ("gmacs", 8),
        (different_steps, 8),
        ("params", 8),
    ]
    figure = path_chart(read_history(folder))
    assert figure is not None
    assert figure.axes[0].get_xlabel() == f"{different_steps}, log scale"
    monkeypatch.setattr(report, "path_chart", lambda history: None)
    page = write_report(folder).read_text()
    assert "one clip, measured, cuda, saccade" in page
    assert "measured before each step" in page

    latencies = {"00-start": 3.0, "01-depth": 4.0, "02-fast": 5.0, "03-width-contracted": 6.5, "01-fast": 4.5}
    timed = Latencies(device="cpu", runtime="torch", latency_ms=latencies, low_ms=latencies)
    journal = Journal(folder)
    last = journal.records[-1]
    journal.add_latencies(timed)
    journal.append(last)
    drawn.clear()
    front_chart(read_history(folder))
    assert [(label, len(dots)) for label, dots in drawn] == [("gmacs", 8), ("latency_ms", 5), ("params", 8)]
    assert {dot.name: dot.cost for dot in drawn[1][1]} == latencies
    monkeypatch.undo()
    figure = path_chart(read_history(folder))
    assert figure is not None
    assert list(figure.axes[0].lines[0].get_xdata()) == [3.0, 4.0, 5.0, 6.5]
    assert figure.axes[0].get_xlabel() == "latency (ms), log scale"
    monkeypatch.setattr(report, "path_chart", lambda history: None)
    monkeypatch.setattr(report, "front_chart", lambda history: None)
    page = write_report(folder).read_text()
    assert "one clip, timed in turns with the others, cpu, torch" in page
    assert "timed in turns at the end of the search" in page
    journal.add_candidates([candidate(4, "depth", 16.0, "03-width")])
    assert read_history(folder).latencies is None, "the search was resumed"


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the charts, which are slow; `test_page` draws them."""
    monkeypatch.setattr("saccade.expansion.report.path_chart", lambda history: None)
    monkeypatch.setattr("saccade.expansion.report.front_chart", lambda history: None)


@pytest.mark.usefixtures("no_pictures")
def test_page_of_an_unfinished_search(tmp_path: Path) -> None:
    page = write_report(write_search(tmp_path / "s", STEPS[:2], contraction=None, finished=False))
    assert "the search has not ended" in page.read_text()
    journal = Journal(tmp_path / "new")
    base = get_recipe("x3d_motion")
    settings = SearchConfig(base=base, epochs=8, targets=(Target("gmacs", 1.0),), out=tmp_path / "new")
    journal.append({"kind": "search", "settings": settings.to_dict()})
    assert "No network of this search has been trained yet" in write_report(tmp_path / "new").read_text()
    with pytest.raises(UsageError, match=r"not the folder of a search"):
        write_report(tmp_path)


@pytest.mark.usefixtures("no_pictures")
def test_successive_halving_in_the_report(tmp_path: Path) -> None:
    folder = write_search(tmp_path / "halved", dropped=("spatial",), halving=2)
    history = read_history(folder)
    spatial = next(t for t in history.steps[2] if t.candidate.axis == "spatial")
    assert (spatial.status, spatial.fraction, spatial.accuracy) == ("dropped", 0.25, 0.69)
    saved = savings(history.trials, 8)
    assert (saved["dropped"], saved["seconds"], saved["seconds_without"]) == (1, 925, 1000)
    page = write_report(folder).read_text()
    assert "dropped after 25 % of the training" in page
    assert "1 training early: 15 min 25 s instead of about 16 min 40 s (extrapolated), 7.5 % less" in page


def test_summary_and_report_have_the_same_pareto_front(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_search(tmp_path / "s", dropped=("spatial",), halving=2)
    journal = Journal(folder)
    width = next(one for one in journal.trials() if one.candidate.name == "03-width")
    for seed, accuracy in ((1, 0.9), (2, 0.4)):  # mean 0.7, with the 0.8 of the first
        journal.add_trial(replace(width, seed=seed, accuracy=accuracy))
    choice = next(r for r in journal.records if r["kind"] == "choice" and r["name"] == "03-width")
    journal.append({**choice, "scores": {**choice["scores"], "03-width": 0.7}})
    lucky = next(one for one in journal.trials() if one.candidate.name == "02-spatial")
    journal.add_trial(replace(lucky, accuracy=0.99, seed=1))  # the best of all, had it not been dropped
    outcomes = tuple(journal.trials())
    final = next(one for one in outcomes if one.candidate.contracted)
    [scored] = score_all([final])
    settings = settings_in(journal.records)
    assert settings is not None
    result = SearchResult(path=(scored,), final=scored, trials=outcomes, notes=())
    front_rows = summary(SearchConfig.from_dict(settings), result)["pareto_front"]
    drawn = list[tuple[str, list[Dot]]]()
    monkeypatch.setattr(report, "pareto_chart", lambda panels, **_: drawn.extend(panels))
    front_chart(read_history(folder))
    dots = drawn[0][1]
    front = [dots[i].name for i in pareto_front([d.cost for d in dots], [d.accuracy for d in dots])]
    assert [entry["name"] for entry in front_rows] == front
    assert front == ["00-start", "01-depth", "02-fast", "03-width-contracted", "03-depth"]
    assert {entry["seeds"] for entry in front_rows} == {1}


@pytest.mark.usefixtures("no_pictures")
def test_cheaper_searches_are_compared(search: Path, tmp_path: Path) -> None:
    same = write_search(tmp_path / "same", seconds=40.0, warm_start=True)
    other_steps = [STEPS[0], STEPS[1], {"bottleneck": 0.9, "fast": 0.7}, STEPS[3]]
    other = write_search(tmp_path / "other", other_steps, seconds=110.0, seeds=2)
    first, *rest = (read_history(folder) for folder in (search, same, other))
    comparisons = [compare(first, other) for other in rest]
    assert [
        (comparison.num_same, comparison.num_common, comparison.same_length) for comparison in comparisons
    ] == [(3, 3, True), (1, 3, True)]
    assert [round(comparison.saved, 6) for comparison in comparisons] == [0.6, -0.1]
    assert options_text(rest[0].settings) == "8 epochs, warm start"
    assert options_text(rest[1].settings) == "8 epochs, 2 seeds"
    page = write_report(search, against=[same, other]).read_text()
    for text in ("same path", "same first 1 step, then different", "none, 10 % more", "60 %"):
        assert text in page, text


@pytest.mark.usefixtures("no_pictures")
def test_a_shorter_search_is_compared_over_the_common_steps(search: Path, tmp_path: Path) -> None:
    shorter = write_search(tmp_path / "shorter", STEPS[:3], contraction=None, finished=False, seconds=50.0)
    comparison = compare(read_history(search), read_history(shorter))
    assert (comparison.num_same, comparison.num_common, comparison.same_length) == (2, 2, False)
    assert comparison.saved == pytest.approx(0.5)  # of the steps that both made, though the first made more
    assert "same in the 2 steps that both made" in write_report(search, against=[shorter]).read_text()


@pytest.mark.usefixtures("no_pictures")
def test_savings_of_multigrid_and_warm_start_are_read_from_the_runs(tmp_path: Path) -> None:
    base = get_recipe("x3d_motion").replace(multigrid="both", batch_size=4)
    folder = write_search(tmp_path / "s", STEPS[:2], contraction=None, finished=False, base=base)
    run = folder / "01-depth"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({"config": base.to_dict()}))
    rows = ({"clips": 1200}, {"val_top1": 0.5})
    lines = [json.dumps({"step": 300, "epoch": 2.0, **row}) for row in rows]
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (run / "warm_start.json").write_text('{"exact": true}')
    page = write_report(folder).read_text()
    assert "29 % of the frames x pixels" in page
    assert (
        "1 training started from the parent&#39;s weights, 1 of them with exactly the parent&#39;s outputs"
        in page
    )


@pytest.mark.usefixtures("no_pictures")
def test_command_rewrites_the_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = (write_search(tmp_path / name, STEPS[:2], finished=False) for name in ("a", "b"))
    assert main(["expand", "--report", "--out", str(first), "--against", str(second)]) == 0
    assert capsys.readouterr().out.strip() == str(first / "report.html")
    assert "same path" in (first / "report.html").read_text()
    assert main(["expand", "--report", "--out", str(tmp_path / "none")]) == 2
    assert "not the folder of a search" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--bogus"], ["--bogus=3"], ["--batch-size", "4"]])
def test_report_refuses_other_flags(
    flags: list[str], search: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["expand", "--report", *flags, "--out", str(search)]) == 2
    error = capsys.readouterr().err
    assert f"unknown flag {flags[0].split('=')[0]}; --report takes only --out and --against" in error
    assert error.count("\n") == 1
