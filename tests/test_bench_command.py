"""`saccade bench`, and the stopwatch under it."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from saccade.cli import main
from saccade.evaluation.speed import Stopwatch, random_clips, take_turns


def test_info_lists_the_backends(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SACCADE_OPS", "torch")
    assert main(["bench", "--info", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["override"] == "torch"
    assert report["torch"] == torch.__version__
    assert report["cpu"]["shift3d"] == "torch"
    assert main(["bench", "--info"]) == 0
    text = capsys.readouterr().out
    assert "native isa" in text
    assert "None" not in text


def test_each_backend_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    small = ["--frames", "2", "--crop", "32", "--runs", "1", "--threads", str(torch.get_num_threads())]
    assert main(["bench", "x2d", "--backends", "torch,naive", *small, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["mode"], row["backend"]) for row in rows] == [
        ("forward", "torch"),
        ("forward", "naive"),
        ("train", "torch"),
        ("train", "naive"),
    ]
    assert all(row["ms"] > 0 and row["clip"] == "2x32" for row in rows)
    assert main(["bench", "x2d", *small]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == ["model", "mode", "clip", "batch", "backend", "ms", "clips/s"]
    assert table[1].split()[:5] == ["x2d", "forward", "2x32", "1", "auto"]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--batch", "0"], "--batch: must be at least 1, got 0"),
        (["--backends", "fast"], "no backend 'fast'; there are naive, native, triton, torch"),
        (["x3d_z"], "unknown model 'x3d_z'"),
    ],
)
def test_usage_errors(args: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *args]) == 2
    assert message in capsys.readouterr().err


def test_stopwatches_are_timed_in_turns_and_leave_no_gradients() -> None:
    order: list[str] = []
    clips = random_clips(2, 2, 4, "cpu")
    assert clips.is_contiguous(memory_format=torch.channels_last_3d)
    models = {name: nn.Sequential(nn.Flatten(), nn.Linear(3 * 2 * 4 * 4, 5)) for name in ("a", "b")}
    for name, model in models.items():
        model.register_forward_hook(lambda *_, name=name: order.append(name))
    speeds = take_turns([Stopwatch(models["a"], clips, "train"), Stopwatch(models["b"], clips, "forward")], 3)
    assert order == ["a", "b", "a", "b", "a", "b", "a", "b"]
    assert [speed.mode for speed in speeds] == ["train", "forward"]
    assert all(len(speed.seconds) == 3 and speed.clips_per_second > 0 for speed in speeds)
    assert models["a"][1].weight.grad is None
