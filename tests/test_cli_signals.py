"""Commands that are told to stop: results so far are complete, one line says so, the exit code is 130."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from saccade.cli import main
from saccade.cli.signals import delayed, stopped_by_signals
from saccade.models import create_model, save_weights
from saccade.video import write_video

NAMES, COPIES = ("a", "b"), 400


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, and so many clips that no command is done with them soon."""
    place = tmp_path_factory.mktemp("stop")
    model = create_model("x2d", num_classes=2, gamma_w=0.25, head_width=32)
    save_weights(model, place / "w.safetensors", {"class_names": list(NAMES)})
    frames = torch.randint(0, 255, (12, 32, 40, 3), generator=torch.Generator().manual_seed(0))
    write_video(place / "clip.mp4", frames.to(torch.uint8), fps=30)
    for name in NAMES:
        folder = place / "clips" / "val" / name
        folder.mkdir(parents=True)
        for number in range(COPIES // 2):
            os.link(place / "clip.mp4", folder / f"{number}.mp4")
    return place


def heed_signals() -> None:
    """What the tests themselves may ignore, started with nohup or in the background, ends their commands."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def stop(args: list[str], place: Path, ready: Callable[[], bool], number: int = signal.SIGTERM) -> str:
    """Start a command, send a signal once it is under way; its stderr."""
    process = subprocess.Popen(
        [sys.executable, "-m", "saccade", *args],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=place,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        preexec_fn=heed_signals,
    )
    deadline = time.monotonic() + 120
    while not ready() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    (place / "stdout").write_text(out)
    return err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP], ids=lambda n: n.name)
def test_predict_leaves_whole_lines(place: Path, number: signal.Signals):
    lines = place / f"{number.name}.jsonl"
    args = [
        "predict",
        "clips",
        "--weights",
        "w.safetensors",
        "--jsonl",
        lines.name,
        "--json",
        "--threads",
        "1",
    ]
    err = stop(args, place, lambda: lines.is_file() and lines.read_bytes().count(b"\n") > 2, number)
    text = lines.read_text()
    records = [json.loads(line) for line in text.splitlines()]
    assert text.endswith("\n")
    assert 3 <= len(records) < COPIES
    assert json.loads((place / "stdout").read_text()) == records
    said = [line for line in err.splitlines() if line.startswith("saccade: ")]
    assert len(said) == 1
    assert f"after {len(records)} of {COPIES} videos" in said[0]


def test_test_writes_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def evaluate(*args: object, progress: Callable[[int, int], None], **options: object) -> None:
        progress(3, COPIES)
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("saccade.evaluation.evaluate", evaluate)
    monkeypatch.chdir(place)
    assert main(["test", "w.safetensors", "--data", "clips", "--split", "val", "--out", "figures"]) == 130
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == f"saccade: stopped by SIGTERM after 3 of {COPIES} videos; no figures were written"
    assert not Path("figures").exists()


@pytest.mark.parametrize("workers", ["0", "2"])
def test_data_check_stops(
    place: Path, workers: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    from saccade.data import check

    examine_all = check._examine_all

    def some(*args: Any) -> Iterator[check.FileFacts]:
        for number, file in enumerate(examine_all(*args)):
            yield file
            if number == 2:
                signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(check, "_examine_all", some)
    assert main(["data", "check", str(place / "clips"), "--workers", workers]) == 130
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == f"saccade: stopped by SIGTERM after 3 of {COPIES} files; there is no report"


def test_expand_says_how_to_go_on(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def run_search(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("saccade.expansion.search.run_search", run_search)
    out = tmp_path / "search"
    args = ["--data", str(place / "clips"), "--target-gmacs", "0.1", "--out", str(out), "--device", "cpu"]
    assert main(["expand", *args]) == 130
    said = capsys.readouterr().err.splitlines()
    assert said[-1] == f"saccade: stopped by SIGTERM; go on with: saccade expand --out {out} --resume"


def two_steps(done: list[str], *numbers: int) -> None:
    with stopped_by_signals(), delayed():
        for number in numbers:
            signal.raise_signal(number)
        done.append("the line")


def test_a_signal_waits_for_a_whole_line_and_a_second_does_not():
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        two_steps(done, signal.SIGTERM)
    assert done == ["the line"]
    with pytest.raises(KeyboardInterrupt, match="SIGTERM"):
        two_steps(done, signal.SIGTERM, signal.SIGTERM)
    assert done == ["the line"]


def test_handlers_are_put_back_and_nohup_is_respected():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stopped_by_signals():
            assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
