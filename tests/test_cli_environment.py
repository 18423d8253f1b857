"""Commands in poor environments: another locale, no home, no terminal, stdout that is full."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from saccade.cli import main
from saccade.files import json_text
from saccade.models import create_model, save_weights
from saccade.video import write_video

NAMES = ["où", "日本"]
ENVIRONMENT = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("poor")
    model = create_model("x2d", num_classes=2, gamma_w=0.25, head_width=32)
    save_weights(model, place / "w.safetensors", {"class_names": NAMES})
    frames = torch.randint(0, 255, (12, 32, 40, 3), generator=torch.Generator().manual_seed(0))
    write_video(place / "clip.mp4", frames.to(torch.uint8), fps=30)
    os.link(place / "clip.mp4", os.fsencode(place) + b"/caf\xe9.mp4")  # a name that is no UTF-8
    os.link(place / "clip.mp4", place / "-clip.mp4")
    return place


def saccade(args: list[str | bytes], place: Path, **variables: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "saccade", *args],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        cwd=place,
        env=ENVIRONMENT | variables,
        check=False,
    )


def test_names_that_the_output_cannot_show(place: Path):
    poor = {"PYTHONIOENCODING": "ascii", "HOME": "/nonexistent", "TMPDIR": "/nonexistent"}
    args = ["predict", "clip.mp4", b"caf\xe9.mp4", "--weights", "w.safetensors", "--workers", "0"]
    done = saccade([*args, "--json", "--jsonl", "out.jsonl"], place, **poor)
    assert (done.returncode, done.stderr) == (0, b"")
    records = json.loads(done.stdout.decode("ascii"))
    assert [record["path"] for record in records] == ["clip.mp4", "caf\udce9.mp4"]
    assert {entry["label"] for entry in records[0]["top"]} == set(NAMES)
    lines = (place / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == records
    assert NAMES[0] in lines[0]
    done = saccade(args, place, **poor)
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"o?" in done.stdout


@pytest.mark.parametrize("args", [["models", "x3d_xs"], ["models", "x3d_xs", "--json"]], ids=str)
def test_a_full_stdout_is_one_line(place: Path, args: list[str]):
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "saccade", *args],
            stdout=full,
            stderr=subprocess.PIPE,
            env=ENVIRONMENT,
            check=False,
        )
    assert done.returncode == 3
    assert done.stderr.splitlines() == [b"saccade: error: stdout: No space left on device"]


def test_a_path_that_begins_with_a_dash(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(place)
    assert main(["predict", "-clip.mp4", "--weights", "w.safetensors"]) == 2
    assert "./-clip.mp4" in capsys.readouterr().err
    assert main(["train", "x3d_ucf10", "--data", "-clip.mp4"]) == 2
    assert "./-clip.mp4" in capsys.readouterr().err
    assert main(["predict", "./-clip.mp4", "--weights", "w.safetensors", "--workers", "0"]) == 0


def test_json_is_escaped_only_where_it_must_be():
    assert json_text({"a": "où"}) == '{"a": "où"}'
    assert json_text({"a": "où"}, encoding="ascii") == '{"a": "o\\u00f9"}'
    assert json_text({"a": "\udce9"}) == '{"a": "\\udce9"}'


@pytest.mark.parametrize("args", [
    ["predict", "clip.mp4", "--weights", "w.safetensors", "--workers", "0"],
    ["test", "w.safetensors", "--data", "nowhere"],
    ["data", "check", "nowhere"],
    ["visualize", "embedding", "w.safetensors", "--data", "nowhere"],
    ["bench", "--info"],
    ["pareto", "nowhere"],
    ["convert", "nowhere", "out.safetensors"],
    ["visualize", "shifts", "nowhere"],
], ids=lambda args: args[0])  # fmt: skip
def test_threads_mean_the_same_in_every_command(
    place: Path, args: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    monkeypatch.chdir(place)
    main([*args, "--threads", "3"])
    assert 3 in asked
    assert main([*args, "--threads", "0"]) == 2
    assert "--threads" in capsys.readouterr().err


def test_an_internal_error_says_that_it_is_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def broken(*_: object) -> None:
        raise IndexError("list index out of range")

    monkeypatch.setattr("saccade.cli._dispatch", broken)
    assert main(["models"]) == 70
    lines = capsys.readouterr().err.splitlines()
    assert lines[0].startswith("Traceback")
    assert lines[-1].startswith("saccade: error: internal error: IndexError: list index out of range; ")
    assert "report it" in lines[-1]
