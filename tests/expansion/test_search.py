"""Searches on tiny clips, in this process and with the command line in separate processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from saccade.cli import main
from saccade.errors import ConfigError, DataError, SaccadeError, UsageError
from saccade.expansion.candidate import Job, Trial
from saccade.expansion.checks import read_limits
from saccade.expansion.config import Factors, SearchConfig, Target
from saccade.expansion.journal import read_journal
from saccade.expansion.result import SearchResult
from saccade.expansion.search import run_search
from saccade.expansion.worker import run_job
from saccade.models import load_model
from saccade.recipes import get_recipe
from saccade.training import TrainConfig
from saccade.video import write_video

SMALL = Factors(crop=32, width=0.35)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of noise, one brighter: 20 clips to train on, 10 to validate, 12 frames of 48x64 pixels."""
    root = tmp_path_factory.mktemp("clips") / "noise"
    noise = torch.Generator().manual_seed(0)
    for name, low in (("dark", 0), ("bright", 80)):
        for split, count in (("train", 10), ("val", 5)):
            folder = root / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                frames = torch.randint(low, 175 + low, (12, 48, 64, 3), generator=noise, dtype=torch.uint8)
                write_video(folder / f"{number}.mp4", frames, fps=30, options={"preset": "ultrafast"})
    return root


def base_of(clips: Path, **changes: Any) -> TrainConfig:
    config = get_recipe("x2d_expand").replace(data=str(clips), batch_size=4, workers=0, **changes)
    return config.replace(augment=replace(config.augment, short_side=(112, 128)))


def search_of(clips: Path, out: Path, **changes: Any) -> SearchConfig:
    defaults = {
        "base": base_of(clips),
        "epochs": 2,
        "targets": (Target("gmacs", 0.0013),),
        "out": out,
        "axes": ("temporal", "bottleneck"),
        "start": SMALL,
        "latency_runs": 1,
    }
    return SearchConfig(**{**defaults, **changes})


class InProcess:
    """Trains in this process; ``failures`` is the number of attempts that fail, by candidate."""

    def __init__(self, failures: dict[str, int] | None = None) -> None:
        self.failures, self.trained, self.closed = dict(failures or {}), list[str](), 0

    def run(self, jobs: Sequence[Job]) -> Iterator[Trial]:
        for job in jobs:
            if self.failures.get(job.candidate.name, 0) >= job.attempt:
                yield job.failed("broken on purpose")
                continue
            self.trained.append(job.name)
            yield run_job(job)

    def close(self) -> None:
        self.closed += 1


class Interrupted(InProcess):
    """Raises KeyboardInterrupt after the second training."""

    def run(self, jobs: Sequence[Job]) -> Iterator[Trial]:
        for outcome in super().run(jobs):
            yield outcome
            if len(self.trained) == 2:
                raise KeyboardInterrupt


@pytest.fixture(scope="module")
def stopped_and_resumed(clips: Path, tmp_path_factory: pytest.TempPathFactory):
    """A search that was interrupted and resumed, and its result; a candidate fails once."""
    out = tmp_path_factory.mktemp("search") / "search"
    search = search_of(clips, out)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("saccade.training.run._report", lambda trainer: None)  # a page of charts for each run
        with pytest.raises(KeyboardInterrupt):
            run_search(search, Interrupted())
        rest = InProcess({"01-bottleneck": 1})
        result = run_search(search, rest, resume=True)
    return search, result, rest


def test_a_search_trains_candidates_and_writes_the_journal(
    stopped_and_resumed: tuple[SearchConfig, SearchResult, InProcess],
):
    search, result, _ = stopped_and_resumed
    records = read_journal(search.out)
    outcomes = [record for record in records if record["kind"] == "outcome"]
    names = [record["name"] for record in outcomes[:4]]
    assert names == ["00-start", "01-temporal", "01-bottleneck", "01-bottleneck"]
    assert [record["status"] for record in outcomes[:4]] == ["done", "done", "failed", "done"]
    assert all(0 <= record["accuracy"] <= 1 for record in outcomes if record["status"] == "done")
    assert all(record["latency_ms"] > 0 and record["memory_mb"] > 0 for record in outcomes)
    assert result.final.candidate.complexity.gmacs <= 0.0013
    assert [record["kind"] for record in records[-2:]] == ["latencies", "result"]
    assert {one.candidate.name for one in result.path} <= records[-2]["latency_ms"].keys()
    assert records[-1]["latency_ms"] == records[-2]["latency_ms"][records[-1]["name"]]
    assert records[-1]["name"] == result.final.candidate.name


def test_a_search_leaves_a_recipe_and_weights(
    stopped_and_resumed: tuple[SearchConfig, SearchResult, InProcess],
):
    search, result, _ = stopped_and_resumed
    out, factors = search.out, result.final.candidate.factors
    model, _ = load_model(out / "best.safetensors")
    built = {name: getattr(model.config, name) for name in factors.gammas}
    assert built == pytest.approx(factors.gammas)
    assert (out / "best_run" / "metrics.jsonl").is_file()
    recipe = get_recipe(str(out / "recipe.json"))
    assert (recipe.recipe, recipe.epochs) == ("expanded_noise", search.base.epochs)
    assert (recipe.clip.num_frames, recipe.train_crop) == (factors.frames, factors.crop)
    summary = json.loads((out / "search.json").read_text())
    assert summary["trainings"] == len([o for o in result.trials if o.status == "done"])
    assert summary["result"]["name"] == result.final.candidate.name


def test_resume_does_not_repeat_trainings(
    stopped_and_resumed: tuple[SearchConfig, SearchResult, InProcess],
):
    search, result, rest = stopped_and_resumed
    assert not {"00-start-seed0", "01-temporal-seed0"} & set(rest.trained)
    done = [outcome.name for outcome in result.trials if outcome.status == "done"]
    assert len(done) == len(set(done))
    again = InProcess()
    assert run_search(search, again, resume=True).final.candidate == result.final.candidate
    assert again.trained == []
    assert again.closed == 1


def test_a_search_resumes_in_a_copy_of_its_folder(
    stopped_and_resumed: tuple[SearchConfig, SearchResult, InProcess],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    search, result, _ = stopped_and_resumed
    monkeypatch.setattr("saccade.expansion.search._write_report", lambda search: None)
    copy = tmp_path / "copy"
    shutil.copytree(search.out, copy, symlinks=True)
    hidden = search.out.rename(search.out.with_name("hidden"))
    try:
        monkeypatch.chdir(copy)
        engine = InProcess()
        again = run_search(search.replace(out=Path("../copy")), engine, resume=True)
        assert engine.trained == []
        name = f"{result.final.candidate.name}-seed0"
        assert again.final.best.run_dir == str(copy / "candidates" / name)
        assert (copy / "best_run").resolve() == (copy / "candidates" / name).resolve()
        assert (copy / "best.safetensors").read_bytes() == (hidden / "best.safetensors").read_bytes()
        summary = json.loads((copy / "search.json").read_text())
        assert summary["result"]["run_dir"] == f"candidates/{name}"
    finally:
        hidden.rename(search.out)


class Recorder:
    """Records the jobs without training; each candidate scores better than the previous one."""

    def __init__(self) -> None:
        self.jobs = list[Job]()

    def run(self, jobs: Sequence[Job]) -> Iterator[Trial]:
        for job in jobs:
            self.jobs.append(job)
            yield job.done(0.5 + len(self.jobs) / 100, run_dir=job.config.run_dir)

    def close(self) -> None:
        """Nothing to release."""


def test_configs_of_candidates(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("saccade.expansion.search.write_result", lambda search, result: None)
    engine = Recorder()
    larger = (Target("gmacs", 0.002),)
    search = search_of(clips, tmp_path, warm_start=True, seeds=2, axes=("temporal",), targets=larger)
    run_search(search, engine)
    start, other_seed, first = engine.jobs[:3]
    assert start.parent_run == other_seed.parent_run == ""
    assert first.parent_run == start.config.run_dir
    assert [job.config.seed for job in engine.jobs[:4]] == [0, 1, 0, 1]
    assert len({job.config.run_dir for job in engine.jobs}) == len(engine.jobs)
    for job in engine.jobs:
        config = job.config
        assert (config.epochs, config.test_views, config.grid.evals) == (2, "", 0)
        assert config.val_every > 2 * config.epochs
        assert config.optim.warmup_epochs == pytest.approx(0.2)
        assert config.clip.num_frames == job.candidate.factors.frames
        assert config.augment.short_side == (32, 37)  # the recipe's 112 to 128 for a crop of 112


def test_a_first_network_that_fails_twice_ends_the_search(clips: Path, tmp_path: Path):
    with pytest.raises(SaccadeError, match="the first network could not be trained: broken on purpose"):
        run_search(search_of(clips, tmp_path), InProcess({"00-start": 2}))


def test_limits_of_the_data_set(clips: Path):
    limits = read_limits(base_of(clips))
    assert (limits.short_side, limits.num_frames, limits.num_train, limits.num_val) == (48, 12, 20, 10)
    slow = base_of(clips).replace(clip=base_of(clips).clip.replace(target_fps=15))
    assert read_limits(slow).num_frames == 6


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        (
            {"start": Factors()},
            UsageError,
            "start: 112 pixels, but the videos' short side is 48; start smaller",
        ),
        (
            {"axes": ("spatial",), "start": SMALL.replace(crop=48)},
            UsageError,
            "spatial cannot be expanded: it starts at 48",
        ),
        (
            {"axes": ("temporal",), "start": SMALL.replace(frames=12)},
            UsageError,
            "temporal cannot be expanded",
        ),
        (
            {"start": SMALL.replace(frames=5, stride=3)},
            UsageError,
            "5 frames of stride 3 .* 12 frames",
        ),
        ({"epochs": 0.5}, DataError, "0.5 epochs of 20 clips are 2 steps; at least 10 are needed"),
        ({"targets": (Target("params", 1000),)}, UsageError, r"--target-params 1000: out of reach"),
        (
            {"axes": ("spatial", "temporal"), "targets": (Target("params", 1e7),)},
            UsageError,
            r"--target-params 1e\+07: out of reach, at most .* parameters; the largest network of these axes",
        ),
        ({"targets": ()}, UsageError, "no target: .*--target-gmacs"),
    ],
)
def test_invalid_searches_raise_before_anything_is_trained(
    clips: Path, tmp_path: Path, changes: dict[str, Any], error: type[SaccadeError], message: str
):
    with pytest.raises(error, match=message):
        run_search(search_of(clips, tmp_path / "out", **changes), InProcess())
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"batch_size": 40}, DataError, "20 training clips do not fill a batch of 40"),
        ({"model": {"name": "vov3d_m"}}, ConfigError, "model.name: .*got vov3d_m"),
        ({"model": {"weights": "x.pt"}}, ConfigError, "^model.weights: "),
        ({"task": "detection"}, ConfigError, "^task: .*detection"),
    ],
)
def test_recipes_that_cannot_be_searched(
    clips: Path, tmp_path: Path, changes: dict[str, Any], error: type[SaccadeError], message: str
):
    base = base_of(clips)
    if "model" in changes:
        changes = {"model": replace(base.model, **changes["model"])}
    with pytest.raises(error, match=message):
        run_search(search_of(clips, tmp_path, base=base.replace(**changes)), InProcess())


def test_too_few_validation_videos(tmp_path: Path, clips: Path):
    few = tmp_path / "few"
    for split in ("train", "val"):
        for name in ("dark", "bright"):
            (few / split / name).mkdir(parents=True)
            for path in sorted((clips / split / name).iterdir())[: 10 if split == "train" else 2]:
                os.link(path, few / split / name / path.name)
    with pytest.raises(DataError, match=r"4 validation videos, .*25 % of the accuracy; at least 10"):
        run_search(search_of(few, tmp_path / "out"), InProcess())


# ----------------------------------------------------------------------------------------------- the command

TABLE = "figure2"


def test_the_command_replays_a_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = str(tmp_path / "search")
    command = ["expand", "--replay", TABLE, "--target-gmacs", "0.042", "--axes", "bottleneck", "--out", out]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert "result: 01-bottleneck: 1x1 frames, 112 pixels, width 1, bottleneck 2.25, depth 1" in out
    assert main(command) == 2
    assert "already contains a search" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "give --data PATH"),
        (["--data", "x", "--target-gmacs", "1", "--axes", "up"], "'up' is not an axis"),
        (["--data", "x", "--target-gmacs", "1", "--start", "size=3"], "--start 'size=3': must be NAME=VALUE"),
        (["--data", "x", "--target-gmacs", "much"], "invalid float value: 'much'"),
        (["--data", "x", "--target-params", "3.8X"], "--target-params: '3.8X'"),
        (["--data", "x", "--target-gmacs", "1", "--wdith", "1"], "unknown flag --wdith"),
        (["--resume", "--out", "nowhere"], "nowhere: not the folder of a search"),
        (["--resume", "--rate", "3"], "--rate: --resume without --data"),
        (["--data", "nowhere", "--target-gmacs", "1"], "data 'nowhere': no such file or folder"),
        (["--replay", "nothing.csv", "--target-gmacs", "1"], "nothing.csv: no such file"),
    ],
)
def test_errors_of_the_command_are_one_line(
    args: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.chdir(tmp_path)
    assert main(["expand", *args]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_resume_uses_the_device_of_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    out = str(tmp_path / "search")
    command = ["expand", "--replay", TABLE, "--target-gmacs", "0.03", "--axes", "depth", "--out", out]
    assert main([*command, "--device", "cpu"]) == 0
    asked = list[tuple[str, str]]()

    def expand(options: Any, search: SearchConfig) -> SearchResult:
        asked.append((options.device, search.device))
        raise UsageError("enough")

    def pick(name: str) -> torch.device:
        return torch.device("cuda" if name == "auto" else name)  # a machine with a GPU

    monkeypatch.setattr("saccade.cli.expand._expand", expand)
    monkeypatch.setattr("saccade.training.processes.pick_device", pick)
    assert main(["expand", "--resume", "--out", out]) == 2
    assert main(["expand", "--resume", "--out", out, "--device=auto"]) == 2
    assert asked == [("cpu", "cpu"), ("auto", "cuda")]


def test_out_must_be_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "notes.txt"
    out.write_text("mine")
    command = ["expand", "--replay", TABLE, "--target-gmacs", "0.03", "--out", str(out)]
    for flags in ([], ["--overwrite"], ["--resume"]):
        assert main([*command, *flags]) == 2
    assert main(["expand", "--report", "--out", str(out)]) == 2
    assert out.read_text() == "mine"
    errors = capsys.readouterr().err.splitlines()
    assert [str(out) in line for line in errors] == [True, True, False, True]


@pytest.mark.slow
def test_ctrl_c_loses_no_finished_training(clips: Path, tmp_path: Path):
    out = tmp_path / "search"
    flags = [
        "--data",
        str(clips),
        "--target-gmacs",
        "0.0009",
        "--start",
        "crop=32,width=0.35",
        "--epochs",
        "2",
    ]
    flags += ["--axes", "temporal,bottleneck", "--batch-size", "4", "--workers", "0", "--jobs", "1"]
    command = [sys.executable, "-m", "saccade", "expand", "--out", str(out)]
    process = subprocess.Popen([*command, *flags, "--device", "cpu"])
    try:
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline and process.poll() is None and not _done(out):
            time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        assert process.wait(120) == 130
    finally:
        process.kill()
        process.wait()
    before = _done(out)
    assert (
        subprocess.run([*command, "--resume", "--jobs", "1", "--device", "cpu"], check=False).returncode == 0
    )
    after = _done(out)
    assert 1 <= len(before) < len(after)
    assert after[: len(before)] == before
    assert len({(record["name"], record["seed"]) for record in after}) == len(after)
    assert (out / "recipe.json").is_file()


def _done(out: Path) -> list[dict[str, Any]]:
    if not (out / "expansion.jsonl").exists():
        return []
    return [r for r in read_journal(out) if r["kind"] == "outcome" and r["status"] == "done"]
