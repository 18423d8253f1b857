"""The quickstart, from no files to a report, on a handful of clips."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.cli import main


def test_quickstart_goes_through_every_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    assert main(["quickstart", "--epochs", "1", "--clips-per-class", "2", "--val-per-class", "1"]) == 0
    captured = capsys.readouterr()
    assert "12 held-out clips, 3x1 views" in captured.out
    assert "shuffled (mean of 6)" in captured.out
    for step in range(1, 6):
        assert f"{step}/5" in captured.err
    assert len(list((tmp_path / "data" / "motion").rglob("*.mp4"))) == 36
    assert {"best.safetensors", "last.pt", "metrics.jsonl", "config.json", "report.html"} <= {
        path.name for path in (tmp_path / "runs" / "quickstart").iterdir()
    }
