"""The quickstart, from no files to a report, on a handful of clips."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from saccade.cli import main
from saccade.cli.quickstart import MARK, _check_run_folder
from saccade.errors import UsageError
from saccade.recipes import get_recipe


def test_quickstart_runs_all_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    assert main(["quickstart", "--epochs", "1", "--clips-per-class", "2", "--val-per-class", "1"]) == 0
    captured = capsys.readouterr()
    assert "12 validation clips, 3x1 views" in captured.out
    assert "shuffled (mean of 6)" in captured.out
    for step in range(1, 6):
        assert f"{step}/5" in captured.err
    assert len(list((tmp_path / "data" / "motion").rglob("*.mp4"))) == 36
    run = tmp_path / "runs" / "quickstart"
    assert {"best.safetensors", "last.pt", "metrics.jsonl", "config.json", "report.html", MARK} <= {
        path.name for path in run.iterdir()
    }
    _check_run_folder(run)  # can be repeated


def test_quickstart_does_not_overwrite_other_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    for name in ("run", "notes"):
        (tmp_path / name).mkdir()
    (tmp_path / "run" / "config.json").write_text('{"config": {"recipe": "x3d_motion"}}')
    (tmp_path / "run" / "best.safetensors").write_text("weeks of training")
    (tmp_path / "notes" / "ideas.txt").write_text("mine")
    for folder in ("run", "notes"):
        before = {path: path.read_text() for path in (tmp_path / folder).iterdir()}
        assert main(["quickstart", "--out", folder]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"saccade: error: --out {folder}: ")
        assert len(error.splitlines()) == 1
        assert {path: path.read_text() for path in (tmp_path / folder).iterdir()} == before
    assert not (tmp_path / "data").exists()


def test_quickstart_overwrites_its_earlier_runs(tmp_path: Path):
    settings = get_recipe("x3d_motion").replace(data="data/motion", out="runs/quickstart").to_dict()
    (tmp_path / MARK).write_text(json.dumps(settings))
    _check_run_folder(tmp_path)  # stopped before training began
    (tmp_path / "config.json").write_text(json.dumps({"config": settings}))
    _check_run_folder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"config": settings | {"epochs": 100}}))
    with pytest.raises(UsageError, match="--out"):  # another run replaced it
        _check_run_folder(tmp_path)
    _check_run_folder(tmp_path / "new")
