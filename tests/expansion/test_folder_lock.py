"""One search at a time in a folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from saccade.cli import main
from saccade.errors import UsageError
from saccade.expansion.journal import LOCK, FolderLock

HOLD = """
import sys
from pathlib import Path
from saccade.expansion.journal import FolderLock
lock = FolderLock(Path(sys.argv[1]))
print("taken", flush=True)
sys.stdin.read()
"""
TABLE = "figure2"


def test_a_folder_is_locked_until_release(tmp_path: Path):
    folder = tmp_path / "search"
    lock = FolderLock(folder)
    with pytest.raises(UsageError, match=r"search: another search is running there \(process \d+\)"):
        FolderLock(folder)
    lock.release()
    assert not list(folder.iterdir())
    FolderLock(folder).release()


def test_a_lock_file_removed_while_opening_is_opened_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    first = FolderLock(tmp_path)
    real, tried = FolderLock._is_current, list[bool]()

    def is_current(self: FolderLock, descriptor: int) -> bool:
        if not tried:  # another process ended its search just before
            self.path.unlink()
        tried.append(real(self, descriptor))
        return tried[-1]

    first.release()
    monkeypatch.setattr(FolderLock, "_is_current", is_current)
    lock = FolderLock(tmp_path)
    assert tried == [False, True]
    with pytest.raises(UsageError, match="another search"):
        FolderLock(tmp_path)
    lock.release()


def test_a_second_search_fails_and_a_killed_one_does_not_block(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    command = ["expand", "--replay", TABLE, "--target-gmacs", "0.03", "--axes", "depth"]
    command += ["--out", str(tmp_path), "--latency-runs", "0"]
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"taken\n"
        for flags in ([], ["--overwrite"]):
            assert main([*command, *flags]) == 2
            error = capsys.readouterr().err
            assert f"another search is running there (process {holder.pid}); wait for it" in error
            assert error.count("\n") == 1
        assert [path.name for path in tmp_path.iterdir()] == [LOCK]
    finally:
        holder.kill()
        holder.communicate()
    assert main(command) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["expansion.jsonl"]
