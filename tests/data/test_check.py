"""`saccade data check` finds what is wrong with a data set, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from saccade.cli.data import run
from saccade.data import check as check_module
from saccade.data.check import CheckReport, FileFacts, check_data
from saccade.data.motion import render_clip
from saccade.errors import DataError, UsageError
from saccade.video import write_video


def clip(path: Path, index: int, *, num_frames: int = 40, name: str = "merge", **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = render_clip(name, seed=0, index=index, size=(32, 40), num_frames=(num_frames, num_frames))
    write_video(path, frames, fps=25, **options)  # type: ignore[arg-type]
    return path


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes with two training clips and one validation clip each."""
    root = tmp_path_factory.mktemp("good")
    for number, name in enumerate(("hop", "run")):
        for index in range(2):
            clip(root / "train" / name / f"{index}.mp4", 10 * number + index)
        clip(root / "val" / name / "0.mp4", 10 * number + 5)
    return root


@pytest.fixture
def bad(good: Path, tmp_path: Path) -> Path:
    """The same with a torn and an empty file, a copy and a re-encoding across splits, a lone class."""
    root = tmp_path / "bad"
    shutil.copytree(good, root)
    whole = (root / "train" / "hop" / "0.mp4").read_bytes()
    (root / "train" / "hop" / "torn.mp4").write_bytes(whole[: len(whole) // 3])
    (root / "val" / "run" / "empty.mp4").write_bytes(b"")
    shutil.copy(root / "train" / "hop" / "1.mp4", root / "val" / "hop" / "copy.mp4")
    clip(root / "val" / "run" / "again.mp4", 10, crf=30)
    clip(root / "train" / "walk" / "short.mp4", 30, num_frames=9)
    return root


def check(path: Path, **options: object) -> CheckReport:
    return check_data(path, **{"num_frames": 8, "stride": 5, "workers": 0, **options})  # type: ignore[arg-type]


def names(files: list[FileFacts], root: Path) -> list[str]:
    return [os.path.relpath(file.path, root) for file in files]


def test_nothing_wrong(good: Path) -> None:
    report = check(good)
    assert report.ok
    assert report.splits == ("train", "val")
    assert report.class_counts == {"train": [2, 2], "val": [1, 1]}
    assert [*report.unreadable, *report.short, *report.duplicates, *report.missing_classes] == []
    assert report.look_alikes() == []
    facts = report.files[0]
    assert (facts.num_frames, facts.fps, facts.size, facts.seconds) == (40, 25, (32, 40), 1.6)


def test_everything_wrong_is_found(bad: Path) -> None:
    report = check(bad)
    assert not report.ok
    assert names(report.unreadable, bad) == ["train/hop/torn.mp4", "val/run/empty.mp4"]
    assert "empty" in str(report.unreadable[1].cause)
    assert names(report.short, bad) == ["train/walk/short.mp4"]
    (group,) = report.duplicates_across_splits
    assert names(group, bad) == ["train/hop/1.mp4", "val/hop/copy.mp4"]
    assert report.missing_classes == {"val": ["walk"]}
    alike = [tuple(names(list(pair), bad)) for pair in report.look_alikes()]
    assert alike == [("train/run/0.mp4", "val/run/again.mp4")]


def test_short_depends_on_the_clip(good: Path) -> None:
    # 1.6 s hold 48 frames at 30 fps: a clip of 10 x 5 spans 46, one of 8 x 7 spans 50
    assert not check(good, num_frames=10, stride=5).short
    assert len(check(good, num_frames=8, stride=7).short) == 6


def test_processes_find_the_same(bad: Path) -> None:
    assert check(bad, workers=2).files == check(bad, workers=0).files


def test_same_file_with_two_labels(good: Path, tmp_path: Path) -> None:
    root = shutil.copytree(good, tmp_path / "set")
    shutil.copy(root / "train" / "hop" / "0.mp4", root / "train" / "run" / "0b.mp4")
    report = check(root)
    assert report.ok  # it may be meant; it is said
    (group,) = report.contradictions
    assert names(group, root) == ["train/hop/0.mp4", "train/run/0b.mp4"]


def test_listed_but_missing(good: Path, tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("train/hop/0.mp4 0\ntrain/hop/9.mp4 0\n")
    (tmp_path / "val.txt").write_text("val/hop/0.mp4 0\n")
    report = check(tmp_path, root=good)
    assert names(report.unreadable, good) == ["train/hop/9.mp4"]


def test_loose_videos_are_read_without_labels(good: Path) -> None:
    report = check(good / "train" / "hop")
    assert (len(report.files), report.splits, report.class_names, report.ok) == (2, ("all",), (), True)


def test_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no data set recognised"):
        check(tmp_path)


def test_bad_arguments(good: Path) -> None:
    with pytest.raises(UsageError, match="stride: must be at least 1"):
        check(good, stride=0)
    with pytest.raises(UsageError, match="workers: must not be negative"):
        check(good, workers=-1)


def crashes_on_b(file: FileFacts, backend: str, decode: bool) -> FileFacts:
    if "b" in file.path:
        os._exit(3)
    return file


def test_a_crashing_decoder_is_pinned_to_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_module, "examine", crashes_on_b)
    files = [FileFacts(path=name, split="train", labels=(0,)) for name in "acbdef"]
    found = {file.path: file.cause for file in check_module._examine_all(files, 2, "auto")}
    assert sorted(found) == list("abcdef")
    assert "decoder crashed" in str(found["b"])
    assert all(cause is None for name, cause in found.items() if name != "b")


# ---------------------------------------------------------------- the command


def test_command_on_a_good_set(good: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["check", str(good), "--workers", "0", "--clip-frames", "4"]) == 0
    shown = capsys.readouterr().out
    assert "6 videos" in shown
    assert "ok: every video is readable" in shown


def test_command_on_a_bad_set(bad: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report.json"
    assert run(["check", str(bad), "--workers", "0", "--clip-frames", "8", "--json", str(out)]) == 1
    shown = capsys.readouterr().out
    for words in (
        "torn.mp4",
        "is empty",
        "1 the same file in two splits",
        "copy.mp4 (val)",
        "not ok: 2 unreadable",
    ):
        assert words in shown, words
    written = json.loads(out.read_text())
    assert not written["ok"]
    assert len(written["unreadable"]) == 2
    assert len(written["files"]) == 11


def test_command_makes_motion(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--clips-per-class", "1", "--val-per-class", "1", "--size", "32x40", "--workers", "0"]
    assert run(["motion", str(tmp_path / "set"), *flags]) == 0
    assert (tmp_path / "set" / "motion.json").is_file()
    capsys.readouterr()
    with pytest.raises(DataError, match="other settings"):
        run(["motion", str(tmp_path / "set"), *flags, "--seed", "1"])


def test_command_lists_labels(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["labels"]) == 0
    assert "kinetics400    400 classes" in capsys.readouterr().out
    assert run(["labels", "jester"]) == 0
    assert capsys.readouterr().out.startswith("0\tSwiping Left\n1\tSwiping Right\n")


@pytest.mark.parametrize(
    "args",
    [
        [],
        ["look"],
        ["check"],
        ["motion", "x", "--size", "big"],
        ["labels", "kinetics"],
        ["check", "/nowhere"],
    ],
)
def test_command_errors_are_of_use(args: list[str]) -> None:
    with pytest.raises(UsageError):
        run(args)


def test_real_clips(real_data: Path) -> None:
    report = check_data(real_data / "odd", workers=0)
    broken = {os.path.basename(file.path) for file in report.unreadable}
    assert {"corrupted.mp4", "result.webm", "AudioVideoInterleave.avi", "mp4-with-audio.mp4"} <= broken
    rotated = next(file for file in report.files if file.path.endswith("nasa_13013_rotated.mp4"))
    assert rotated.cause is None
    assert np.prod(rotated.size) > 0
