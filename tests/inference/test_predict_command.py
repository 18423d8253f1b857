from __future__ import annotations

import json
import logging
import os
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from saccade.cli import main
from saccade.cli.flags import find_videos
from saccade.cli.tables import bar, clock, timeline
from saccade.clip import ClipSpec
from saccade.errors import UsageError, VideoError
from saccade.inference import Window
from saccade.models import create_model, save_weights
from saccade.video import open_video, write_video


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("predict_command")
    (place / "clips" / "deep").mkdir(parents=True)
    rng = np.random.default_rng(1)
    for name, length in (("clips/a.mp4", 60), ("clips/deep/b.AVI", 20), ("c[1].mp4", 20)):
        frames = rng.integers(0, 255, (length, 36, 48, 3)).astype(np.uint8)
        write_video(place / name, frames, fps=30, codec="mpeg4")
    (place / "clips" / "notes.txt").write_text("not a video")
    (place / "clips" / "bad.mp4").write_bytes(b"no video")
    torch.manual_seed(0)
    model = create_model("x2d", num_classes=3, gamma_w=0.25, head_width=32)
    clip = ClipSpec(num_frames=4, stride=3, crop=32, short_side=32)
    (place / "runs" / "first").mkdir(parents=True)
    metadata = {"class_names": ["jump", "[red]throw", "run"], "clip": asdict(clip)}
    save_weights(model, place / "runs" / "first" / "best.safetensors", metadata)
    return place


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def test_folders_are_searched_and_bad_files_do_not_stop_it(capsys: pytest.CaptureFixture[str]):
    assert main(["predict", "clips", "--run", "runs/first", "--json", "--top", "2"]) == 1
    captured = capsys.readouterr()
    records = json.loads(captured.out)
    assert [Path(record["path"]).name for record in records] == ["a.mp4", "bad.mp4", "b.AVI"]
    assert "error" in records[1]
    assert all(len(record["top"]) == 2 for record in (records[0], records[2]))
    assert "1 of 3 videos could not be read" in captured.err
    assert "bad.mp4" in captured.err


def test_people_see_bars_and_a_timeline(capsys: pytest.CaptureFixture[str]):
    assert main(["predict", "clips/a.mp4", "--run", "runs/first"]) == 0
    out = capsys.readouterr().out
    assert "clips/a.mp4" in out
    assert "2.0 s, 30 fps, 4 clips" in out
    assert "[red]throw" in out  # a class name is never taken for markup
    assert "█" in out
    assert " A " in out  # the legend of the timeline


def test_jsonl_is_one_object_a_line(place: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["predict", "clips", "c[1].mp4", "--run", "runs/first", "--jsonl", "out.jsonl"]) == 1
    records = [json.loads(line) for line in (place / "out.jsonl").read_text().splitlines()]
    assert len(records) == 4
    assert sum("error" in record for record in records) == 1
    assert capsys.readouterr().out == ""


def test_views_and_clip_can_be_changed(capsys: pytest.CaptureFixture[str]):
    args = ["predict", "clips/a.mp4", "--run", "runs/first", "--json", "--views", "2x3", "--frames", "2"]
    assert main([*args, "--crop", "64", "--workers", "0"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["views"] == "2x3"
    assert len(record["windows"]) == 2
    assert record["windows"][0]["end"] == pytest.approx(4 / 30, abs=1e-3)


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["clips/a.mp4"], 2, "the newest run here is --run runs/first"),
        ([], 2, "VIDEO"),
        (["nothing/*.mp4", "--run", "runs/first"], 2, "no video matches"),
        (["runs", "--run", "runs/first"], 2, "contains no videos"),
        (["clips/a.mp4", "--run", "runs/first", "--top", "0"], 2, "--top"),
        (["clips/a.mp4", "--run", "runs/first", "--weights", "w"], 2, "--run cannot be combined with"),
        (["clips/a.mp4", "--run", "runs/first", "--frames", "0"], 2, "--frames: must be at least 1"),
        (["clips/a.mp4", "--run", "runs/first", "--jsonl", "no/where.jsonl"], 2, "no/where.jsonl"),
        (["clips/a.mp4", "--run", "runs/absent"], 2, "no such run folder"),
        (["clips/a.mp4", "--model", "x3d_ss", "--weights", "w.pth"], 2, "x3d_ss"),
        (["absent.mp4", "--run", "runs/first"], 1, "absent.mp4: no such file"),
    ],
)
def test_wrong_use_is_told(capsys: pytest.CaptureFixture[str], args: list[str], code: int, words: str):
    assert main(["predict", *args]) == code
    err = capsys.readouterr().err
    assert words in err
    assert "Traceback" not in err


def test_expanding_names_each_video_once(place: Path):
    assert find_videos(["clips/a.mp4", "clips/*.mp4"]) == ["clips/a.mp4", "clips/bad.mp4"]
    assert find_videos(["**/*.AVI"]) == ["clips/deep/b.AVI"]
    assert find_videos(["c[1].mp4", "absent.mp4"]) == ["c[1].mp4", "absent.mp4"]
    (place / "frames").mkdir(exist_ok=True)
    (place / "frames" / "1.jpg").write_bytes(b"x")
    assert find_videos(["frames"]) == ["frames"]
    with pytest.raises(UsageError, match="no video matches"):
        find_videos(["clips/*.txt"])


def test_bars_grow_by_eighths():
    assert [bar(share, 2) for share in (0, 1 / 16, 0.5, 0.75, 1, 2)] == ["", "▏", "█", "█▌", "██", "██"]


def test_timeline_shows_when_each_label_leads():
    labels = ["run"] * 6 + ["jump"] * 2 + ["run"] * 2
    windows = [Window(10.0 * i, 10.0 * (i + 1), label, 0.9) for i, label in enumerate(labels)]
    line, axis, *legend = [text.plain for text in timeline(windows, 100, width=20)]
    assert line == "  " + "A" * 12 + "B" * 4 + "A" * 4
    assert axis.split() == ["0:00", "1:40"]
    assert legend[0].split() == ["A", "run", "0:00-1:00,", "1:20-1:40"]
    assert legend[1].split() == ["B", "jump", "1:00-1:20"]
    assert (clock(3.42, 20), clock(67, 100), clock(3723, 4000)) == ("3.4", "1:07", "1:02:03")
    many = [Window(float(i), i + 1.0, f"label {i}", 0.5) for i in range(12)]
    text = "\n".join(line.plain for line in timeline(many, 12, width=12))
    assert "ABCDEFGH····" in text
    assert "4 windows of 4 other labels" in text


@pytest.fixture
def archive(tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Videos with pictures, hidden files and others beside them, and a folder of frames among them."""
    clip = (place / "clips" / "a.mp4").read_bytes()
    for name in (
        "clip0.mp4",
        "day/clip1.MP4",
        "-clip2.mp4",
        "._clip0.mp4",
        ".trash/old.mp4",
        "x.mp4/deep.mp4",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(clip)
    (tmp_path / "shot").mkdir()
    for name in ("poster.jpg", "day/poster.png", "shot/1.jpg", "shot/2.jpg", "shot/.3.jpg"):
        Image.new("RGB", (48, 36)).save(tmp_path / name)
    (tmp_path / ".DS_Store").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("x")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_folder_of_videos_and_a_picture_is_searched(archive: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO):
        found = find_videos(["."])
    assert sorted(os.path.normpath(path) for path in found) == [
        "-clip2.mp4",
        "clip0.mp4",
        "day/clip1.MP4",
        "shot",
        "x.mp4/deep.mp4",
    ]
    (message,) = caplog.messages
    assert "3 other files: poster.png, notes.txt, poster.jpg" in message
    assert find_videos(["day", "day/clip1.MP4", "./day//clip1.MP4"]) == ["day/clip1.MP4"]
    assert [os.path.normpath(path) for path in find_videos(["x.mp4"])] == ["x.mp4/deep.mp4"]
    with pytest.raises(UsageError, match=r"no video matches; .*1 other file: notes\.txt"):
        find_videos(["*.txt"])
    for folder in (".", "day"):
        with pytest.raises(VideoError, match=r"is a folder of videos \(.*clip\d\.\w"):
            open_video(folder)
    with open_video("shot") as frames:
        assert len(frames) == 2


def test_a_path_that_begins_with_a_dash(archive: Path, place: Path, capsys: pytest.CaptureFixture[str]):
    run = ["--run", str(place / "runs" / "first"), "--json"]
    assert main(["predict", "-clip2.mp4", *run]) == 2
    assert "./-clip2.mp4" in capsys.readouterr().err
    for args in (["./-clip2.mp4", *run], [*run, "--", "-clip2.mp4"], [*run, "*2.mp4"]):
        assert main(["predict", *args]) == 0
        (record,) = json.loads(capsys.readouterr().out)
        assert record["path"].endswith("-clip2.mp4")


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["notes.txt"], 1, "notes.txt: "),
        (["0"], 1, "cameras are not read"),
        (["rtsp://127.0.0.1/x"], 1, "is a live stream"),
        (["/dev/null"], 1, "is neither a file nor a folder"),
        (["gone.mp4"], 1, "gone.mp4: no such file or folder"),
        ([""], 2, "the path is empty"),
        (["day/*.avi"], 2, "day/*.avi: no video matches"),
        (["clip0.mp4", "--jsonl", "day"], 2, "--jsonl day: is a folder; name a file"),
        (["clip0.mp4", "--jsonl", "clip0.mp4/x.jsonl"], 2, "clip0.mp4 is a file, not a folder"),
        (["clip0.mp4", "--json", "--jsonl", "-"], 2, "give one of them"),
    ],
)
def test_what_cannot_be_predicted_is_one_line(
    archive: Path, place: Path, capsys: pytest.CaptureFixture[str], args: list[str], code: int, words: str
):
    os.symlink("nowhere.mp4", "gone.mp4")
    assert main(["predict", *args, "--run", str(place / "runs" / "first")]) == code
    err = capsys.readouterr().err
    (line,) = [line for line in err.splitlines() if words in line]
    assert line
    assert "Traceback" not in err
