"""Searches begun by an earlier version resume and are reported.

The journals were written by commit d3891ba: one by ``saccade expand --replay figure2_like.csv --epochs 1
--recipe x3d_ucf10 --latency-runs 0 --device cpu --target-gmacs 0.3 --criterion gain --rate
1.7``, the other by a search that trained tiny networks with ``--warm-start --halving 2 --seeds 2``.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from saccade.expansion.config import SearchConfig
from saccade.expansion.history import read_history
from saccade.expansion.journal import JOURNAL, read_journal, settings_in
from saccade.expansion.replay import FIGURE_2, read_table, replay
from saccade.expansion.report import write_report

HERE = Path(__file__).parent


def lines_of(folder: Path) -> list[dict[str, Any]]:
    """A journal's lines without the time, and without the folder of the search."""
    lines = []
    for record in read_journal(folder):
        line = {key: value for key, value in record.items() if key != "time"}
        if record["kind"] == "search":
            line["settings"] = {key: value for key, value in record["settings"].items() if key != "out"}
        lines.append(line)
    return lines


@pytest.mark.parametrize("cut", [43, 59])
def test_a_truncated_journal_is_completed_with_the_same_lines(tmp_path: Path, cut: int):
    whole = (HERE / "journals" / "replayed.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    old, new = tmp_path / "old", tmp_path / "new"
    for folder, text in ((old, "".join(whole)), (new, "".join(whole[:cut]) + whole[cut][:30])):
        folder.mkdir()
        (folder / JOURNAL).write_text(text, encoding="utf-8")
    settings = settings_in(read_journal(new))
    assert settings is not None
    search = SearchConfig.from_dict(settings).replace(out=new)
    result = replay(search, read_table(FIGURE_2), resume=True, log=lambda _: None)
    assert lines_of(new) == lines_of(old)
    assert result.final.candidate.name == read_history(old).result["name"]  # type: ignore[index]


def test_report_of_an_old_search(tmp_path: Path):
    shutil.copy(HERE / "journals" / "trained.jsonl", tmp_path / JOURNAL)
    history = read_history(tmp_path)
    assert history.final is not None
    assert history.result is not None
    assert (history.final.accuracy, history.final.seeds) == (history.result["accuracy"], 2)
    every = [entry for step in history.steps for entry in step]
    assert {entry.status for entry in every} >= {"selected", "dropped"}
    assert all(entry.candidate.name in {t.candidate.name for t in history.trials} for entry in every)
    page = write_report(tmp_path).read_text(encoding="utf-8")
    assert "successive halving by 2, warm start" in page
    assert json.dumps("data/noise") in json.dumps(history.settings)
