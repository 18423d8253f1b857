"""A reader never sees half a file."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from saccade.files import atomic_path, write_json


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path: Path):
    target = tmp_path / "report.html"
    target.write_text("old")

    def write() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError):
        write()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_errors_name_the_file_that_was_to_be_written(tmp_path: Path):
    (tmp_path / "file").write_text("")
    for target in (tmp_path / "file" / "a.txt", tmp_path / "file" / "deep" / "a.txt"):
        with pytest.raises(NotADirectoryError) as found:
            write_json(target, {})
        assert str(found.value.filename).startswith(str(tmp_path / "file"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError) as refused:
        write_json(tmp_path / "folder", {})
    assert refused.value.filename == str(tmp_path / "folder")

    def fill() -> None:
        with atomic_path(tmp_path / "scores.npz"):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"scores\.npz") as full:
        fill()
    assert full.value.filename == str(tmp_path / "scores.npz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_write_replaces_the_file_and_keeps_the_suffix(tmp_path: Path):
    target = tmp_path / "deep" / "clip.mp4"
    with atomic_path(target) as temporary:
        assert temporary.suffix == ".mp4"
        assert temporary.parent == target.parent
        temporary.write_bytes(b"new")
        assert not target.exists()
    assert target.read_bytes() == b"new"
    assert list(target.parent.iterdir()) == [target]


def test_json_is_readable_utf8(tmp_path: Path):
    write_json(tmp_path / "a.json", {"name": "Übung", "values": [1, 2]})
    assert "Übung" in (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {
        "name": "Übung",
        "values": [1, 2],
    }
