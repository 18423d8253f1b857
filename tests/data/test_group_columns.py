"""The column of a list that names the source of each clip."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.cli import main
from saccade.data import load_dataset
from saccade.data.datasets import read_entries
from saccade.data.entries import collected_warnings
from saccade.data.folds import make_folds
from saccade.errors import DataError, UsageError
from saccade.runs import held_out_by


def write_list(folder: Path, header: str, *, cameras: int = 5, split: str = "") -> Path:
    """Two classes, three clips of each from every camera."""
    rows = [header]
    for camera in range(cameras):
        for label in ("jump", "run"):
            for number in range(3):
                name = f"{label}_{camera}{number}.mp4"
                (folder / name).touch()
                rows.append(f"{name},{label},cam{camera}{split and ',' + split.split()[number]}")
    (folder / "clips.csv").write_text("\n".join(rows))
    return folder / "clips.csv"


def cameras_of(path: Path, split: str, **options: str) -> set[str]:
    items = load_dataset(path, split, **options).items
    return {Path(item.path).stem.split("_")[1][0] for item in items}


def warnings_of(path: Path, **options: str) -> str:
    with collected_warnings() as found:
        read_entries(path, **options)
    return "\n".join(found)


@pytest.mark.parametrize("column", ["camera", "Scene_ID", "session", "site", "video_id", "recording"])
def test_a_column_that_looks_like_a_source_is_offered(tmp_path: Path, column: str):
    path = write_list(tmp_path, f"path,label,{column}")
    text = warnings_of(path)
    assert f"--group {column}" in text
    assert "5 different in 30" in text
    assert "--group" not in warnings_of(path, group=column)
    train, val = (cameras_of(path, split, group=column) for split in ("train", "val"))
    assert len(val) == 1
    assert train.isdisjoint(val)
    assert not cameras_of(path, "train").isdisjoint(cameras_of(path, "val"))


def test_a_known_column_is_used_and_others_are_named(tmp_path: Path):
    path = write_list(tmp_path, "path,label,person")
    assert warnings_of(path) == ""
    assert cameras_of(path, "train").isdisjoint(cameras_of(path, "val"))
    path = write_list(tmp_path, "path,label,weather")
    assert "column weather is not used" in warnings_of(path)
    assert "--group" not in warnings_of(path)


def test_a_column_with_a_value_of_its_own_for_each_clip_is_not_offered(tmp_path: Path):
    for number in range(4):
        (tmp_path / f"{number}.mp4").touch()
    rows = [f"{number}.mp4,{'ab'[number % 2]},{number}" for number in range(4)]
    (tmp_path / "clips.csv").write_text("\n".join(["path,label,session", *rows]))
    assert "--group" not in warnings_of(tmp_path / "clips.csv")


def test_a_column_of_videos_beside_the_files_is_no_second_path(tmp_path: Path):
    path = write_list(tmp_path, "path,label,video")
    assert len(load_dataset(path, "all")) == 30
    assert "--group video" in warnings_of(path)
    assert len(cameras_of(path, "val", group="video")) == 1


def test_folds_keep_the_group_together(tmp_path: Path):
    cut = make_folds(write_list(tmp_path, "path,label,camera"), 5, group="camera")
    assert (cut.num_groups, sorted(cut.folds.count(fold) for fold in range(5))) == (5, [6] * 5)


def test_a_group_in_two_splits_is_named(tmp_path: Path):
    path = write_list(tmp_path, "path,label,person,split", split="train train val")
    assert "5 of 5 groups" in warnings_of(path)
    path = write_list(tmp_path, "path,label,person,split", split="train train train")
    assert warnings_of(path) == ""


def test_a_column_that_is_not_there_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    path = write_list(tmp_path, "path,label,camera")
    with pytest.raises(DataError, match=r"clips\.csv:1.*'scene'.*camera"):
        load_dataset(path, "train", group="scene")
    (tmp_path / "plain.txt").write_text("jump_00.mp4 jump\nrun_00.mp4 run\n")
    with pytest.raises(DataError, match=r"plain\.txt"):
        load_dataset(tmp_path / "plain.txt", "train", group="camera")
    (tmp_path / "folders" / "a").mkdir(parents=True)
    (tmp_path / "folders" / "a" / "x.mp4").touch()
    with pytest.raises(UsageError, match="group"):
        load_dataset(tmp_path / "folders", "train", group="camera")
    assert main(["data", "check", str(path), "--group", "scene", "--workers", "0"]) == 2
    assert "scene" in capfd.readouterr().err


def test_a_run_holds_out_the_same_clips_later(tmp_path: Path):
    path = write_list(tmp_path, "path,label,camera")
    settings = {"data": str(path), "val_fraction": 0.3, "group": "camera"}
    assert held_out_by(settings, path) == {"val_fraction": 0.3, "group": "camera"}
    assert held_out_by(settings, tmp_path / "other.csv") == {"val_fraction": 0.3, "group": None}
    assert held_out_by({}, path) == {"val_fraction": 0.2, "group": None}
