from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from saccade.cli import main
from saccade.errors import DataError, UsageError
from saccade.models import create_model, save_weights
from saccade.tasks import MultiLabelResult, TestResult
from saccade.visualize.pareto import compare_runs, to_rows, with_latency

NUM = 20


def result(right: int, *, views: str = "3x1", num: int = NUM, **fields: Any) -> TestResult:
    """A test in which the first ``right`` of ``num`` videos are right."""
    labels = np.arange(num) % 2
    taken = np.where(np.arange(num) < right, labels, 1 - labels)
    options = {
        "class_names": ("left", "right"),
        "paths": tuple(f"/data/val/c{label}/{i}.mp4" for i, label in enumerate(labels)),
        "gmacs_per_view": 0.5,
        "num_params": 1_000_000,
    }
    scores = np.eye(2, dtype=np.float32)[taken]
    return TestResult(scores=scores, labels=labels, views=views, **{**options, **fields})


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    def make(
        name: str, *tests: TestResult, model: str = "x2d", val: TestResult | None = None, **config: Any
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        clip = {"num_frames": 2, "crop": 32}
        settings = {"recipe": "tiny", "model": {"name": model}, "clip": clip, "seed": 0, "lr": len(name)}
        (folder / "config.json").write_text(json.dumps({"config": settings | config}))
        for test in tests:
            test.save(folder / f"test_scores_{test.views}.npz")
        if val:
            val.save(folder / "val_scores.npz")
        return folder

    return make


def test_runs_are_compared_by_the_largest_common_view_set(make_run: Callable[..., Path]) -> None:
    a = make_run("a", result(15), result(16, views="10x1"), model="rubiksnet_tiny")
    b = make_run("b", result(10), result(9, views="10x3"), val=result(8, views="1x1"))
    comparison = compare_runs([a, b])
    assert comparison.protocol == "3x1"
    assert [(e.name, e.accuracy, e.family) for e in comparison.entries] == [
        ("a", 0.75, "RubiksNet"),
        ("b", 0.5, "X3D"),
    ]
    assert comparison.entries[0].spread == pytest.approx((0.75 * 0.25 / NUM) ** 0.5)
    assert compare_runs([a, a], views="10x1").entries[0].accuracy == 0.8
    assert compare_runs([b], views="validation").protocol == "validation 1x1"
    with pytest.raises(UsageError, match=r"tested with validation \(.*a: 10x1, 3x1; .*b: .*validation 1x1\)"):
        compare_runs([a, b], views="validation")
    with pytest.raises(UsageError, match=r"not all runs were tested with the same views"):
        compare_runs([a, make_run("c", result(9, views="2x1"))])


def test_results_of_the_test_command_are_found(make_run: Callable[..., Path]) -> None:
    a, b = make_run("a", result(15)), make_run("bb", val=result(8))
    for run in (a, b):
        result(12).save(run / "test" / "val_scores_3x1.npz")
        result(11, views="10x1").save(run / "test" / "test_scores_10x1.npz")
        result(2, views="10x3", shuffled=True).save(run / "test" / "val_shuffled_scores_10x3.npz")
    assert compare_runs([a, b]).protocol == "10x1 of test"
    assert [entry.accuracy for entry in compare_runs([a, b], views="3x1").entries] == [0.6, 0.6]


def test_seeds_of_one_network_are_one_entry(make_run: Callable[..., Path]) -> None:
    runs = [make_run(f"x-s{seed}", result(12 + seed), seed=seed, lr=1, out=f"x{seed}") for seed in range(3)]
    other = make_run("other", result(11))
    first, second = compare_runs([*runs, other]).entries
    assert (first.name, second.name) == ("tiny (3 seeds)", "other")
    assert first.accuracy == pytest.approx(13 / 20)
    assert first.spread == pytest.approx((0.05**2 / 3 + 0.65 * 0.35 / NUM) ** 0.5)
    assert first.folders == tuple(runs)


def test_networks_are_compared_with_the_best_on_the_same_videos(
    make_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [make_run(name, result(right)) for name, right in (("a", 19), ("bb", 15), ("ccc", 11))]
    found = {entry.name: entry for entry in compare_runs(runs).entries}
    assert [found[name].best_p_value for name in ("a", "bb", "ccc")] == [None, 0.125, 2 / 2**8]
    assert [found[name].like_best for name in ("a", "bb", "ccc")] == [False, True, False]
    assert [found[name].at_chance for name in ("a", "bb", "ccc")] == [False, False, True]
    assert main(["pareto", *map(str, runs), "--out", str(tmp_path / "p.png")]) == 0
    words = capsys.readouterr().out
    for expected in ("ccc (at chance)", "0.12  same", "0.0078", "best", "McNemar"):
        assert expected in words, expected
    dots = {dot.name: dot.ringed for dot in compare_runs(runs).dots("gmacs")}
    assert dots == {"a": False, "bb": True, "ccc (chance)": False}


def test_seeds_are_compared_by_the_videos_that_they_are_right_about(make_run: Callable[..., Path]) -> None:
    runs = [make_run(f"x-s{seed}", result(14 + seed), seed=seed, lr=1, out=f"x{seed}") for seed in range(3)]
    runs.append(make_run("other", result(11)))
    best, other = compare_runs(runs).entries
    each = np.array([0] * 11 + [1, 1, 1] + [2 / 3, 1 / 3] + [0] * 4)
    z = each.mean() / (each.std(ddof=1) / NUM**0.5)
    assert best.best_p_value is None
    assert other.best_p_value == pytest.approx(2 * norm.sf(z))


def test_the_validation_is_that_of_the_weights_that_are_kept(
    make_run: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"step": step, "epoch": step, "val_loss": 1.0} for step in (1, 2, 3)]
    kept = make_run("kept", val=result(9))
    (kept / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    result(16).save(kept / "best_val_scores.npz")
    comparison = compare_runs([kept])
    assert comparison.entries[0].accuracy == 0.8
    assert comparison.selected == (kept,)
    assert not caplog.records
    (kept / "best_val_scores.npz").unlink()  # as older versions left it
    model = create_model("x2d", num_classes=2, gamma_w=0.25, head_width=32)
    save_weights(model, kept / "best.safetensors", {"class_names": ["a", "b"], "metrics": {"step": 2}})
    assert compare_runs([kept]).entries[0].accuracy == 0.45
    assert "last validation" in caplog.text


def test_the_same_seed_twice_counts_once(
    make_run: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    runs = {name: make_run(name, result(12), seed=seed) for name, seed in (("a", 0), ("b", 0), ("c", 1))}
    (entry,) = compare_runs(list(runs.values())).entries
    assert entry.folders == (runs["a"], runs["c"])
    assert entry.name.endswith("(2 seeds)")
    assert str(runs["b"]) in caplog.text


def test_links_to_one_run_are_not_two_seeds(make_run: Callable[..., Path], tmp_path: Path) -> None:
    found = make_run("search/candidates/s1", result(12))
    (tmp_path / "search" / "best_run").symlink_to(found, target_is_directory=True)
    links = [tmp_path / "search" / "best_run", found, tmp_path / "search" / ".." / "search" / "best_run"]
    (entry,) = compare_runs(links).entries
    assert entry.folders == (tmp_path / "search" / "best_run",)
    assert entry.spread == pytest.approx((0.6 * 0.4 / NUM) ** 0.5)


def test_the_folder_of_a_search_is_replaced_by_its_best_run(
    make_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make_run("runs/plain", result(10))
    (tmp_path / "runs" / "expand").mkdir()
    (tmp_path / "runs" / "expand" / "recipe.json").write_text("{}")
    found = make_run("runs/expand/candidates/s1", result(12))
    (tmp_path / "runs" / "expand" / "best_run").symlink_to(found, target_is_directory=True)
    (tmp_path / "runs" / "plain_plan.png").write_bytes(b"")
    (tmp_path / "runs" / "begun").mkdir()
    everything = sorted(map(str, (tmp_path / "runs").iterdir()))
    args = ["pareto", *everything, "--out", str(tmp_path / "p.png"), "--json"]
    assert main(args) == 0
    captured = capsys.readouterr()
    assert {row["name"]: row["accuracy"] for row in json.loads(captured.out)["models"]} == {
        "expand": 0.6,
        "plain": 0.5,
    }
    assert (
        captured.err == f"saccade: skipped paths that are not run folders: {everything[0]}, {everything[3]}\n"
    )
    assert main(["pareto", everything[0], everything[3]]) == 2
    assert "not a run folder (config.json is missing)" in capsys.readouterr().err


def test_mean_average_precision_has_a_standard_error(make_run: Callable[..., Path]) -> None:
    rng = np.random.default_rng(0)
    positives = rng.random((60, 3)) < 0.4
    common: dict[str, Any] = {"views": "3x1", "class_names": ("a", "b", "c"), "gmacs_per_view": 0.5}
    results = [
        MultiLabelResult(
            scores=(0.4 * positives + 0.6 * rng.random((60, 3))).astype(np.float32),
            positives=positives,
            truth=np.zeros((60, 0, 3), bool),
            paths=tuple(f"/data/{i}.mp4" for i in range(60)),
            num_params=1,
            **common,
        )
        for _ in range(2)
    ]
    one = make_run("one", results[0], seed=0, lr=1)
    (entry,) = compare_runs([one]).entries
    assert entry.spread == pytest.approx(results[0].standard_error)
    assert 0.01 < entry.spread < 0.1
    (both,) = compare_runs([one, make_run("two", results[1], seed=1, lr=1)]).entries
    of_seeds = (results[0].map - results[1].map) ** 2 / 2 / 2
    of_videos = (results[0].standard_error ** 2 + results[1].standard_error ** 2) / 2
    assert both.spread == pytest.approx((of_seeds + of_videos) ** 0.5)


def test_names_are_unique(make_run: Callable[..., Path]) -> None:
    pair = [make_run("one/run", result(5)), make_run("two22/run", result(6))]
    assert [entry.name for entry in compare_runs(pair).entries] == ["one/run", "two22/run"]


def test_runs_that_cannot_be_compared_are_refused(make_run: Callable[..., Path], tmp_path: Path) -> None:
    a = make_run("a", result(10))
    bad = {
        "classes": (make_run("b", result(10, class_names=("up", "down"))), "b has other classes than"),
        "number": (make_run("c", result(10, num=30)), "tested on 30 videos, .* on 20"),
        "videos": (
            make_run("d", result(10, paths=tuple(f"v/{i}.avi" for i in range(NUM)))),
            "d was tested on other videos",
        ),
    }
    for folder, message in bad.values():
        with pytest.raises(DataError, match=f"cannot be compared: .*{message}"):
            compare_runs([a, folder])
    elsewhere = tuple(path.replace("/data", "/mnt") for path in result(3).paths)
    assert len(compare_runs([a, make_run("moved", result(10, paths=elsewhere))]).entries) == 2
    with pytest.raises(UsageError, match="e: was neither validated nor tested"):
        compare_runs([make_run("e", result(9, shuffled=True))])
    with pytest.raises(UsageError, match="no such run folder"):
        compare_runs([tmp_path / "nothing"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"is not a run folder \(config.json is missing\)"):
        compare_runs([tmp_path / "empty"])
    (tmp_path / "empty" / "config.json").write_text('{"config": {"model": 3}}')
    with pytest.raises(DataError, match=r"config\.json: invalid config"):
        compare_runs([tmp_path / "empty"])


def test_front_and_unknown_costs(make_run: Callable[..., Path]) -> None:
    runs = [
        make_run("small", result(10, gmacs_per_view=0.1)),
        make_run("beaten", result(9, gmacs_per_view=0.2, num_params=10)),
        make_run("uncounted", result(15, gmacs_per_view=float("nan"))),
    ]
    comparison = compare_runs(runs)
    assert {row["name"]: row["front"] for row in to_rows(comparison)} == {
        "small": ["gmacs"],
        "beaten": ["params"],
        "uncounted": ["params"],
    }
    assert [(cost, len(dots)) for cost, dots in comparison.panels()] == [("gmacs", 2), ("params", 3)]


def test_latency_is_measured(make_run: Callable[..., Path]) -> None:
    folder = make_run("a", result(10))
    with pytest.raises(UsageError, match=r"a: best\.safetensors is missing"):
        with_latency(compare_runs([folder]))
    save_weights(create_model("x2d", 2, gamma_w=0.3, head_width=16), folder / "best.safetensors")
    (entry,) = with_latency(compare_runs([folder]), runs=2).entries
    assert entry.latency_ms is not None
    assert 0.01 < entry.latency_ms < 10_000


def test_command(make_run: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(make_run("a", result(15))), str(make_run("bb", result(10, gmacs_per_view=0.25)))]
    out = tmp_path / "front.svg"
    assert main(["pareto", *runs, "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "75.0" in printed
    assert "3x1, 20 videos" in printed
    assert f"chart: {out}" in printed
    assert out.read_text().startswith("<?xml")
    assert main(["pareto", *runs, "--out", str(out), "--json"]) == 0
    captured = json.loads(capsys.readouterr().out)
    assert (captured["protocol"], captured["latency"]) == ("3x1", None)
    assert captured["models"][1]["front"] == ["gmacs"]
    assert main(["pareto", *runs, "--out", "front.gif"]) == 2
    assert "must end in one of .png, .svg, .pdf" in capsys.readouterr().err
    assert main(["pareto", *runs, "--threads", "0"]) == 2
    assert "--threads: must be at least 1" in capsys.readouterr().err
