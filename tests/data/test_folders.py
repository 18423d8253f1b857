"""Class folders as people have them: nested, with other files, under split folders of any usual name."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import av
import pytest
from PIL import Image

from saccade.data.datasets import load_dataset
from saccade.data.folders import split_folders
from saccade.errors import DataError
from saccade.video.folders import VIDEO_SUFFIXES, find_videos, is_frame_folder


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def videos_of(root: Path, split: str = "all") -> dict[str, str]:
    dataset = load_dataset(root, split)  # type: ignore[arg-type]
    return {os.path.relpath(item.path, root): dataset.class_names[item.label] for item in dataset.items}


def test_class_folders_are_searched_to_the_bottom(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.mp4", "a/session1/2.mp4", "a/session1/day/3.mp4", "b/s/4.mp4")
    assert videos_of(tmp_path) == {
        "a/1.mp4": "a",
        "a/session1/2.mp4": "a",
        "a/session1/day/3.mp4": "a",
        "b/s/4.mp4": "b",
    }


@pytest.mark.parametrize("suffix", [".m2ts", ".MTS", ".m2t", ".f4v", ".mxf", ".y4m", ".h264", ".gif", ".3g2"])
def test_suffixes_of_videos(tmp_path: Path, suffix: str) -> None:
    touch(tmp_path, f"a/1{suffix}", "b/2.mp4")
    assert Counter(videos_of(tmp_path).values()) == {"a": 1, "b": 1}


def test_suffixes_are_those_of_ffmpeg() -> None:
    """What FFmpeg's own demuxers state of the usual containers."""
    names = (
        "mov",
        "matroska",
        "avi",
        "flv",
        "h264",
        "hevc",
        "vvc",
        "obu",
        "dv",
        "yuv4mpegpipe",
        "gif",
        "m4v",
    )
    not_videos = {"avif", "heic", "heif", "ism", "isma", "m4a", "m4b", "psp", "mka", "mks"}
    stated = {suffix for name in names for suffix in av.ContainerFormat(name, "r").extensions} - not_videos
    assert {f".{suffix}" for suffix in stated} <= VIDEO_SUFFIXES


def test_what_is_left_out_is_counted_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "a/1.mp4", "a/poster.jpg", "a/x/notes.txt", "a/2.xyz", "a/3.xyz", "b/4.mp4", "5.mp4")
    touch(tmp_path, "a/._1.mp4", "a/.DS_Store", "b/.cache/6.mp4", ".git/c/7.mp4")
    assert set(videos_of(tmp_path)) == {"a/1.mp4", "b/4.mp4"}
    assert "1 videos beside the class folders are left out: 5.mp4" in caplog.text
    assert "left out 4 files" in caplog.text
    assert "2 .xyz (a/2.xyz" in caplog.text
    assert "1 picture (a/poster.jpg)" in caplog.text
    assert "._1.mp4" not in caplog.text


@pytest.mark.parametrize("picture", ["a/thumbnails/x.jpg", "a/pictures/1.png"])
def test_folders_of_thumbnails_are_no_videos(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, picture: str
) -> None:
    touch(tmp_path, "a/1.mp4", "b/2.mp4", picture)
    assert set(videos_of(tmp_path)) == {"a/1.mp4", "b/2.mp4"}
    assert picture in caplog.text


def test_frame_folders_below_a_picture(tmp_path: Path) -> None:
    touch(tmp_path, "a/poster.jpg", "a/clip1/000.jpg", "a/clip2/000.jpg", "b/day/clip/000.png")
    assert set(videos_of(tmp_path)) == {"a/clip1", "a/clip2", "b/day/clip"}


def test_a_folder_with_videos_holds_no_frames(tmp_path: Path) -> None:
    touch(tmp_path, "a/poster.jpg", "a/1.mp4", "b/poster.jpg", "b/deep/er/2.mp4", "c/0.jpg", "c/t/0.jpg")
    assert [is_frame_folder(tmp_path / name) for name in "abc"] == [False, False, True]
    assert find_videos(tmp_path / "b") == ([f"{tmp_path}/b/deep/er/2.mp4"], [f"{tmp_path}/b/poster.jpg"])


def test_linked_folders_are_followed_once(tmp_path: Path) -> None:
    touch(tmp_path, "data/a/1.mp4", "data/b/2.mp4", "store/3.mp4")
    (tmp_path / "data" / "a" / "more").symlink_to(tmp_path / "store")
    (tmp_path / "data" / "a" / "loop").symlink_to(tmp_path / "data" / "a")
    assert set(videos_of(tmp_path / "data")) == {"a/1.mp4", "a/more/3.mp4", "b/2.mp4"}


def test_classes_of_pictures_are_no_data_set(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / name / "1.jpg")
    with pytest.raises(DataError, match="no data set recognised"):
        load_dataset(tmp_path, "all")


# ---------------------------------------------------------------- split folders


@pytest.mark.parametrize(
    "names",
    [
        {"train": "train", "dev": "val", "test": "test"},
        {"train": "train", "dev": "val", "eval": "test"},
        {"Train": "train", "Eval": "val"},
        {"train_256": "train", "val_256": "val"},
        {"training_set": "train", "validation_set": "val", "testing_set": "test"},
        {"trn": "train", "valid": "val", "tst": "test"},
        {"k400_train": "train", "k400_val": "val"},
        {"train2017": "train", "val2017": "val"},
    ],
)
def test_names_of_split_folders(tmp_path: Path, names: dict[str, str]) -> None:
    touch(tmp_path, *(f"{name}/{label}/1.mp4" for name in names for label in "ab"))
    assert {folder.name: split for split, folder in split_folders(tmp_path).items()} == names
    for name, split in names.items():
        assert videos_of(tmp_path, split) == {f"{name}/{label}/1.mp4": label for label in "ab"}


def test_unknown_sibling_of_the_split_folders(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "train/a/1.mp4", "train/b/2.mp4", "raw/3.mp4", "annotations/x/readme.txt")
    assert len(videos_of(tmp_path)) == 2
    assert "raw: 1 videos beside the split folders are left out" in caplog.text
    touch(tmp_path, "holdout/a/4.mp4")
    with pytest.raises(DataError, match=r"holdout: has class folders beside train/"):
        load_dataset(tmp_path, "train")


def test_two_folders_of_one_split(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.mp4", "val/a/2.mp4", "val_256/a/2.mp4")
    with pytest.raises(DataError, match=r"val/ and val_256/ are both named for val"):
        load_dataset(tmp_path, "val")


def test_classes_with_the_names_of_splits(tmp_path: Path) -> None:
    touch(tmp_path, "train/1.mp4", "car/2.mp4", "test drive/3.mp4")
    assert set(videos_of(tmp_path).values()) == {"train", "car", "test drive"}


def test_list_in_an_unrecognised_folder_is_named(tmp_path: Path) -> None:
    touch(tmp_path, "1.mp4", "labels.csv")
    with pytest.raises(DataError, match=r"to read labels.csv as a list, give the file"):
        load_dataset(tmp_path, "train")
