"""Folders of videos without labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.data.unlabelled import is_plain_folder, load_videos
from saccade.errors import DataError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")
    return root


def names(root: Path, split: str, **options: float) -> list[str]:
    dataset = load_videos(root, split, **options)  # type: ignore[arg-type]
    assert dataset.class_names == ()
    assert all(item.label == -1 for item in dataset.items)
    return [str(Path(item.path).relative_to(root)) for item in dataset.items]


def test_what_is_a_plain_folder(tmp_path: Path):
    assert is_plain_folder(touch(tmp_path / "a", "one.mp4", "sub/two.mp4"))
    assert is_plain_folder(touch(tmp_path / "b", "train/one.mp4", "val/two.mp4"))
    assert not is_plain_folder(touch(tmp_path / "c", "jump/one.mp4"))
    assert not is_plain_folder(touch(tmp_path / "d", "one.mp4", "clips.csv"))
    assert not is_plain_folder(tmp_path / "nothing")


def test_videos_at_any_depth_some_held_out_whole_sources_at_a_time(tmp_path: Path):
    files = [f"v_x_g{g:02}_c{c:02}.mp4" for g in range(5) for c in range(2)]
    root = touch(tmp_path, *files[:4], *(f"deep/er/{name}" for name in files[4:]), ".hidden.mp4", "text.md")
    train, val = names(root, "train"), names(root, "val")
    assert len(train) == 8
    assert len(val) == 2
    assert len({name[-11:-8] for name in val}) == 1
    assert sorted(train + val) == sorted(names(root, "all"))
    assert names(root, "val") == val


def test_folders_named_for_splits(tmp_path: Path):
    root = touch(tmp_path, "train/a.mp4", "train/x/b.mp4", "test/c.mp4")
    assert names(root, "train") == ["train/a.mp4", "train/x/b.mp4"]
    assert names(root, "val") == ["test/c.mp4"]


def test_a_single_source_cannot_be_held_out(tmp_path: Path):
    root = touch(tmp_path, "a.mp4")
    assert names(root, "train") == ["a.mp4"]
    with pytest.raises(DataError, match="a single source video"):
        load_videos(root, "val")
