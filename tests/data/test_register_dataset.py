"""Readers of data sets from outside: by name, by recognition, from a file, from an installed package."""

from __future__ import annotations

import doctest
import json
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

import saccade
from data.ava_miniature import make_ava
from saccade.cli import main
from saccade.data import VideoDataset, VideoItem, check_data, datasets
from saccade.data.ava import load_ava
from saccade.data.datasets import load_dataset, read_entries
from saccade.errors import DataError, UsageError
from saccade.tasks import get_task
from saccade.video import write_video

READER = """
import saccade
from saccade.data import VideoDataset, VideoItem


@saccade.register_dataset("{name}", recognises=lambda path: path.suffix == ".{name}")
def read(path, split, *, reverse=False):
    rows = [line.split("\\t") for line in path.read_text().splitlines()]
    names = tuple(sorted({{label for _, label, _ in rows}}, reverse=reverse))
    items = [VideoItem(str(path.parent / v), names.index(label)) for v, label, own in rows if own == split]
    return VideoDataset(tuple(items), names, split, str(path))
"""


@pytest.fixture(autouse=True)
def _no_readers_are_left(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets._import_built_in()
    for table in ("_entries", "_owners", "_failed"):
        monkeypatch.setattr(datasets._READERS, table, dict(getattr(datasets._READERS, table)))
    monkeypatch.setattr(datasets._READERS, "_loaded", set(datasets._READERS._loaded))
    monkeypatch.setattr(sys, "path", [*sys.path])


def rows(folder: Path, name: str = "rows.tabs") -> Path:
    for video in "abcd":
        frames = np.full((12, 32, 32, 3), 20 * ord(video) % 256, np.uint8)
        write_video(folder / f"{video}.mp4", frames, fps=10, options={"preset": "ultrafast"})
    path = folder / name
    path.write_text("a.mp4\twalk\ttrain\nb.mp4\trun\ttrain\nc.mp4\trun\tval\nd.mp4\twalk\tval\n")
    return path


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert doctest.testmod(datasets).failed == 0


def test_a_reader_of_a_user_s_file(tmp_path: Path) -> None:
    path = rows(tmp_path)
    (tmp_path / "my_tabs_reader.py").write_text(READER.format(name="tabs"))
    train = load_dataset(f"{tmp_path / 'my_tabs_reader.py'}:{path}", "train")
    assert [(Path(item.path).name, item.label) for item in train.items] == [("a.mp4", 1), ("b.mp4", 0)]
    assert train.class_names == ("run", "walk")
    # now it is known by its name, and recognises its files
    assert load_dataset(f"tabs:{path}", "train") == load_dataset(path, "train") == train
    assert load_dataset(path, "train", reverse=True).class_names == ("walk", "run")
    # labels follow the class names of a run
    renumbered = load_dataset(path, "val", class_names=["walk", "sit", "run"])
    assert [item.label for item in renumbered.items] == [2, 0]
    with pytest.raises(DataError, match="'walk'"):
        load_dataset(path, "val", class_names=["sit", "run"])
    with pytest.raises(UsageError, match=r"allow_missing.*'tabs'"):
        load_dataset(path, "val", allow_missing=True)
    unlabelled = load_dataset(path, "val", labelled=False)
    assert [item.label for item in unlabelled.items] == [-1, -1]
    assert unlabelled.class_names == ()


def test_commands_read_with_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = rows(tmp_path)
    (tmp_path / "my_command_reader.py").write_text(READER.format(name="tab_rows"))
    data, run = f"{tmp_path / 'my_command_reader.py'}:{path}", str(tmp_path / "run")
    settings = shlex.split("""
        --model.name x2d --model.overrides gamma_w 0.3 head_width 32 --clip.num-frames 2 --clip.stride 2
        --clip.crop 32 --clip.short-side 32 --augment.short-side 32 36 --epochs 1 --batch-size 2 --workers 0
        --cache-mb 0 --threads 1 --device cpu --val-views 1x1 --test-views= --optim.warmup-epochs 0
    """)
    assert main(["train", "x3d_motion", "--data", data, "--out", run, *settings]) == 0
    assert data in (tmp_path / "run" / "config.json").read_text()
    capsys.readouterr()
    # the test takes the data of the run; the reader is known by its name in this process
    assert main(["test", run, "--views", "1x1", "--workers", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["data"] == str(path)
    assert main(["test", run, "--data", f"tab_rows:{path}", "--views", "1x1", "--workers", "0"]) == 0
    assert main(["data", "check", f"tab_rows:{path}", "--workers", "0"]) == 0


def test_a_reader_of_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    info = site / "tabs_plug_in-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "tabs_plug_in.py").write_text(READER.format(name="tabz"))
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tabs_plug_in\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[saccade.datasets]\ntabz = tabs_plug_in:read\n")
    monkeypatch.syspath_prepend(site)
    path = rows(tmp_path, "rows.tabz")
    assert len(load_dataset(path, "train")) == len(load_dataset(f"tabz:{path}", "val")) == 2


def test_its_files_are_checked(tmp_path: Path) -> None:
    path = rows(tmp_path)
    exec(READER.format(name="tabs"), {"__name__": "somewhere"})
    (tmp_path / "d.mp4").write_bytes(b"no video")
    report = check_data(path, num_frames=4, stride=1, workers=0)
    assert report.splits == ("train", "val")
    assert [Path(file.path).name for file in report.unreadable] == ["d.mp4"]
    assert report.class_counts == {"train": [1, 1], "val": [1, 0]}


def test_names_are_defended(tmp_path: Path) -> None:
    def read(path: Path, split: str) -> str:
        return "nothing"

    with pytest.raises(UsageError, match="'charades'"):
        saccade.register_dataset("charades")(read)
    with pytest.raises(UsageError, match="'a:b'"):
        saccade.register_dataset("a:b")
    saccade.register_dataset("strange")(read)
    with pytest.raises(UsageError, match=r"'strange'.*str"):
        load_dataset(f"strange:{tmp_path}", "train")
    with pytest.raises(UsageError, match=r"'strang'.*strange"):
        load_dataset(f"strang:{tmp_path}", "train")
    with pytest.raises(UsageError, match="nowhere"):
        load_dataset(f"strange:{tmp_path / 'nowhere'}", "train")
    with pytest.raises(UsageError, match=r"none\.py"):
        load_dataset(f"{tmp_path / 'none.py'}:{tmp_path}", "train")


def test_built_in_readers_have_names_too(tmp_path: Path) -> None:
    folder = tmp_path / "train" / "walk"
    folder.mkdir(parents=True)
    (folder / "a.mp4").touch()
    (tmp_path / "val" / "walk").mkdir(parents=True)
    (tmp_path / "val" / "walk" / "b.mp4").touch()
    assert load_dataset(f"folders:{tmp_path}", "train") == load_dataset(tmp_path, "train")
    with pytest.raises(UsageError, match=r"every.*'folders'"):
        load_dataset(tmp_path, "train", every=4)
    videos = load_dataset(f"unlabelled:{tmp_path}", "val")
    assert [Path(item.path).name for item in videos.items] == ["b.mp4"]


def test_ava_is_recognised_and_says_that_it_has_people(tmp_path: Path) -> None:
    root = make_ava(tmp_path / "ava", num_videos=1)
    val = load_dataset(root, "val", every=2)
    assert val == load_ava(root, "val", every=2)
    assert {keyframe.second for keyframe in val.keyframes} == {902, 904}
    people = val.fingerprint()["labels"]
    assert people[0] == [902, *(0 for _ in val.keyframes[0].boxes)]
    with pytest.raises(DataError, match="test"):
        load_dataset(root, "test")
    names, entries = read_entries(root)
    assert len(names) == 80
    assert {entry.split for entry in entries} == {"train", "val"}
    assert len(entries) == len(
        {item.path for split in ("train", "val") for item in load_ava(root, split).items}
    )


def test_fingerprints() -> None:
    items = (VideoItem("a", 1), VideoItem("b", 0))
    found = VideoDataset(items, ("x", "y"), "train", "r").fingerprint()
    assert found == {"num_videos": 2, "labels": [1, 0], "class_names": ["x", "y"]}
    assert VideoDataset((VideoItem("a", -1),), (), "train", "r").fingerprint()["labels"] == [[]]


def test_only_detection_takes_people_at_keyframes(tmp_path: Path) -> None:
    val = load_dataset(make_ava(tmp_path / "ava", num_videos=1), "val")
    for task in ("single-label", "multi-label", "localization"):
        with pytest.raises(DataError, match="detection"):
            get_task(task)().check_dataset(val)
    get_task("detection")().check_dataset(val)
