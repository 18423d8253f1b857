"""Folders of videos without labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.data.types import VideoDataset, VideoItem
from saccade.data.unlabelled import is_plain_folder, load_videos, with_unlabelled
from saccade.errors import DataError, UsageError


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


def labelled(*paths: str) -> VideoDataset:
    items = tuple(VideoItem(path, number % 2) for number, path in enumerate(paths))
    return VideoDataset(items, ("a", "b"), "train", "clips")


def test_unlabelled_videos_follow_the_labelled_ones(tmp_path: Path):
    train = labelled("x.mp4", "y.mp4")
    root = touch(tmp_path, "one.mp4", "deep/two.mp4")
    both = with_unlabelled(train, root)
    assert [item.path for item in both.items] == [
        "x.mp4",
        "y.mp4",
        str(root / "deep/two.mp4"),
        str(root / "one.mp4"),
    ]
    assert [item.label for item in both.items] == [0, 1, -1, -1]
    assert (both.num_labelled, both.num_unlabelled, both.class_names) == (2, 2, ("a", "b"))
    assert both.labelled == train
    assert both.fingerprint() != train.fingerprint()


def test_of_a_data_set_with_splits_the_training_split_is_used(tmp_path: Path):
    root = touch(tmp_path, "train/jump/a.mp4", "train/run/b.mp4", "val/jump/c.mp4", "val/run/d.mp4")
    both = with_unlabelled(labelled("x.mp4"), root)
    assert [Path(item.path).name for item in both.items[1:]] == ["a.mp4", "b.mp4"]


def test_validation_videos_are_not_unlabelled_ones(tmp_path: Path):
    root = touch(tmp_path, "one.mp4", "two.mp4")
    with pytest.raises(DataError, match=rf"^unlabelled: {root}: .*1 of 2 .*two\.mp4"):
        with_unlabelled(labelled("x.mp4"), root, val=labelled("y.mp4", str(root / "two.mp4")))
    with pytest.raises(UsageError, match=r"^unlabelled: .*nowhere"):
        with_unlabelled(labelled("x.mp4"), tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"^unlabelled: .*empty"):
        with_unlabelled(labelled("x.mp4"), tmp_path / "empty")
