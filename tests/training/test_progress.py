from __future__ import annotations

import json
import logging
import math
import sys
import types
from pathlib import Path

import pytest
import torch

from saccade.cli.train import ProgressBar
from saccade.data.types import ClipBatch, ReadFailure
from saccade.errors import DataError
from saccade.recipes import get_recipe
from saccade.training import train
from saccade.training.processes import Processes, pick_device
from saccade.training.progress import FailureLimit, Progress, Window
from saccade.training.reporting import Callback, MetricsFile, Reporter, format_seconds
from saccade.training.step import TrainingError, explained_memory, split_batch, step_seed

ALONE = Processes(0, 1, torch.device("cpu"))


def test_window_is_a_mean_over_clips():
    window = Window()
    window.add(loss=8.0, correct=3, clips=4, failures=0)
    window.add(loss=1.0, correct=2, clips=2, failures=1)
    assert window.record() == {"loss": 1.5, "top1": pytest.approx(5 / 6), "failures": 1}


def test_metrics_are_cut_where_a_resumed_run_begins(tmp_path: Path):
    file = MetricsFile(tmp_path / "metrics.jsonl")
    first, second, validation, third = (
        {"epoch": 0.5, **record}
        for record in (
            {"step": 1, "loss": 1},
            {"step": 2, "loss": 2},
            {"step": 2, "val_top1": 0.5},
            {"step": 3},
        )
    )
    for record in (first, second, validation, third):
        file.write(record)
    with file.path.open("a") as stream:
        stream.write('{"step": 4, "lo')  # the process died while writing

    def kept() -> list[dict]:
        return [json.loads(line) for line in file.path.read_text().splitlines()]

    file.cut(step=2, validation_due=False)
    assert kept() == [first, second, validation]
    file.cut(step=2, validation_due=True)
    assert kept() == [first, second]


def test_tensorboard_gets_every_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    written = []

    class SummaryWriter:
        def __init__(self, folder: str) -> None:
            self.folder = folder

        def add_scalar(self, name: str, value: float, step: int) -> None:
            written.append((self.folder, name, value, step))

        def close(self) -> None:
            written.append("closed")

    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = SummaryWriter  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    file = MetricsFile(tmp_path / "metrics.jsonl", tensorboard=True)
    file.write({"step": 7, "epoch": 0.5, "loss": 1.5, "lr": 0.1})
    file.close()
    folder = str(tmp_path / "tensorboard")
    assert written == [(folder, "loss", 1.5, 7), (folder, "lr", 0.1, 7), "closed"]


def test_many_failures_are_all_in_the_file_but_not_all_warnings(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    reporter = Reporter(tmp_path / "log.txt", total_steps=10, epochs=1, active=True)
    for number in range(40):
        reporter.failure(f"clip{number}.mp4", "no frames", "other.mp4")
    assert (tmp_path / "log.txt").read_text().count("unreadable: clip") == 40
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert sum("unreadable: clip" in message for message in warnings) == 5
    assert any("log.txt" in message for message in warnings)


class Recorder(Callback):
    """Keeps what it is called with."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict]] = []

    def on_start(self, record):
        self.calls.append(("start", dict(record)))

    def on_step(self, record):
        self.calls.append(("step", dict(record)))

    def on_validation(self, record):
        self.calls.append(("validation", dict(record)))

    def on_end(self, record):
        self.calls.append(("end", dict(record)))


def test_only_the_first_process_reports(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    recorder = Recorder()
    reporter = Reporter(tmp_path / "log.txt", total_steps=10, epochs=1, active=False, callbacks=[recorder])
    with caplog.at_level("INFO", logger="saccade"):
        reporter.say("hello")
    reporter.start(0, {})
    reporter.step({"step": 1})
    assert not caplog.records
    assert not recorder.calls
    assert not (tmp_path / "log.txt").exists()


def test_a_run_is_quiet_and_calls_back(
    tiny_config, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(logging.getLogger("saccade"), "handlers", [logging.NullHandler()])
    recorder = Recorder()
    run = train(tiny_config("run", "--epochs", "2"), callbacks=[recorder])
    assert capfd.readouterr() == ("", "")
    kinds = [kind for kind, _ in recorder.calls]
    assert kinds == ["start", *["step"] * 5, "validation", *["step"] * 5, "validation", "end"]
    first, last = recorder.calls[0][1], recorder.calls[-1][1]
    assert (first["step"], first["total_steps"], first["run_dir"]) == (0, 10, str(run.folder))
    assert first["config"]["epochs"] == 2
    steps = [record for kind, record in recorder.calls if kind == "step"]
    assert [record["step"] for record in steps] == list(range(1, 11))
    assert {"epoch", "loss", "top1", "lr", "clips_per_s"} <= steps[0].keys()
    validations = [record for kind, record in recorder.calls if kind == "validation"]
    assert validations[0]["is_best"]
    assert max(record["val_top1"] for record in validations) == last["best_score"] == run.best_score
    assert last["best_epoch"] == run.best_epoch
    assert not last["paused"]


def test_an_exception_of_a_callback_ends_the_run(tiny_config):
    class Stop(Callback):
        def on_step(self, record):
            if record["step"] == 2:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train(tiny_config("run"), callbacks=[Stop()])


def test_without_a_terminal_the_bar_is_a_line_now_and_then(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("saccade.cli.train._LINE_SECONDS", 0.0)
    with ProgressBar() as bar:
        bar.on_start({"step": 0, "total_steps": 10, "epochs": 1})
        bar.on_step(
            {"step": 1, "epoch": 0.1, "loss": 1, "top1": 0, "clips_per_s": 1, "data_wait": 0, "lr": 1}
        )
        bar.on_end({})
    assert "step 1/10" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("share", "clips", "tolerated"), [(0.01, 1000, 10), (0.01, 20, 3), (0.5, 20, 10), (0.0, 1000, 0)]
)
def test_the_failure_limit(share: float, clips: int, tolerated: int):
    limit = FailureLimit(share, clips, ALONE)
    limit.see([ReadFailure(f"{i}.mp4", "broken", "x.mp4") for i in range(5)])
    limit.check(tolerated)
    with pytest.raises(DataError, match=r"0\.mp4 \(broken\); 1\.mp4 \(broken\); 2\.mp4 \(broken\)") as error:
        limit.check(tolerated + 1)
    assert f"{tolerated + 1} of {clips} clips" in str(error.value)
    assert "3.mp4" not in str(error.value)


def test_times_are_read_at_a_glance():
    assert [format_seconds(s) for s in (3.2, 59.6, 725, 12000)] == [
        "3 s",
        "1 min 00 s",
        "12 min 05 s",
        "3 h 20 min",
    ]


def batch(size: int) -> ClipBatch:
    clips = [torch.full((2, 4, 4, 3), i, dtype=torch.uint8) for i in range(size)]
    return ClipBatch(clips, torch.arange(size), tuple(range(size)), tuple(range(size)), crop=4)


def test_a_batch_is_cut_into_equal_parts():
    parts = split_batch(batch(6), 3)
    assert [part.labels.tolist() for part in parts] == [[0, 1], [2, 3], [4, 5]]
    assert [part.seeds for part in parts] == [(0, 1), (2, 3), (4, 5)]
    assert [int(clip[0, 0, 0, 0]) for clip in parts[1].clips] == [2, 3]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ],
    ids=["cuda", "cpu"],
)
def test_out_of_memory_says_what_helps(error: Exception):
    message = r"\(6, 3, .*--accumulate \(now 1\).*--batch-size.*bfloat16"
    config = get_recipe("x3d_ucf10")
    with pytest.raises(TrainingError, match=message), explained_memory(batch(6), config):
        raise error


def test_other_errors_pass_unchanged():
    config = get_recipe("x3d_ucf10")
    with pytest.raises(RuntimeError, match=r"^shapes$"), explained_memory(batch(2), config):
        raise RuntimeError("shapes")


def test_step_seeds_differ_and_are_known():
    seeds = {step_seed(seed, step, rank) for seed in range(3) for step in range(50) for rank in range(3)}
    assert len(seeds) == 450
    assert step_seed(1, 2, 0) == step_seed(1, 2, 0)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_devices():
    from saccade.errors import ConfigError

    assert pick_device("cpu") == torch.device("cpu")
    with pytest.raises(ConfigError, match=r"^device: 'gpu'"):
        pick_device("gpu")
    if not torch.cuda.is_available():
        assert pick_device("auto").type == "cpu"
        with pytest.raises(ConfigError, match=r"^device: cuda, .* no CUDA device"):
            pick_device("cuda")


def test_a_pause_stands_in_for_the_best_and_does_not_compete():
    progress = Progress()

    def see(step: int, score: float, *, pause: bool = False) -> bool:
        progress.step = step
        return progress.see_score(score, final=True, pause=pause)

    assert [see(1, 0.9, pause=True), see(2, 0.8, pause=True), see(3, 0.3)] == [True, True, True]
    assert (progress.best_step, progress.best_score, progress.best_is_pause) == (3, 0.3, False)
    assert [see(4, 0.9, pause=True), see(5, 0.3), see(6, 0.4)] == [False, False, True]
    assert Progress.from_dict(progress.to_dict()) == progress


def test_no_figure_is_never_the_best():
    progress = Progress()
    seen = []
    for step, score in enumerate((math.nan, math.nan, 0.0, math.nan, 0.1), start=1):
        progress.step = step
        seen.append(progress.see_score(score, final=True, pause=False))
    assert seen == [True, False, True, False, True]  # the first weights are kept until there are better ones
    assert (progress.best_step, progress.best_score) == (5, 0.1)
