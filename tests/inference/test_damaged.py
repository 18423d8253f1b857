"""Files that are cut short or damaged: what can be read is predicted, the rest is listed by time."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import saccade
from saccade.cli import main
from saccade.clip import ClipSpec
from saccade.data.ava_files import BoxRow
from saccade.errors import VideoError
from saccade.inference import Failure, Prediction
from saccade.models import create_model, save_weights
from saccade.video import open_video, write_video

CLIP = ClipSpec(num_frames=4, stride=4, crop=32, short_side=32)
NAMES = ["jump", "throw"]
NUM_FRAMES, FPS, GOP = 150, 30, 15
EVERYWHERE = (0.0, 0.0, 1.0, 1.0)


class PerFrame(torch.nn.Module):
    """Scores of every frame: its mean red and green."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        return clip[:, :2].mean((3, 4)) * self.scale


def damaged_copy(path: Path, packets: list[int], target: Path) -> None:
    with open_video(path) as reader:
        identity = reader.index.identity  # type: ignore[attr-defined]
    data = bytearray(path.read_bytes())
    for packet in packets:
        position, size = identity[packet].tolist()
        data[position : position + size] = b"\xff" * size
    target.write_bytes(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """good.mp4 and good.ts, 5 s. Lost are: of middle.mp4 frames 62-74 (2.07-2.5 s), of second.mp4 frames
    30-74 (1-2.5 s), of start.mp4 frames 0-44, of cut.ts what follows 80 % of the bytes, of all.mp4 all.
    """
    folder = tmp_path_factory.mktemp("damaged")
    frames = np.random.default_rng(0).integers(0, 255, (NUM_FRAMES, 32, 48, 3), dtype=np.uint8)
    frames[:] = frames[:1]
    frames[..., 0] = np.linspace(0, 255, NUM_FRAMES).astype(np.uint8)[:, None, None]
    options = {"fps": FPS, "gop": GOP, "bframes": 0}
    write_video(folder / "good.mp4", frames, **options)
    noise = np.random.default_rng(0).integers(0, 255, frames.shape, dtype=np.uint8)
    write_video(folder / "good.ts", noise, **options)
    data = (folder / "good.ts").read_bytes()
    (folder / "cut.ts").write_bytes(data[: int(len(data) * 0.8)])
    damaged_copy(folder / "good.mp4", [62], folder / "middle.mp4")
    damaged_copy(folder / "good.mp4", [30, 45, 60], folder / "second.mp4")
    damaged_copy(folder / "good.mp4", [0, 15, 30], folder / "start.mp4")
    damaged_copy(folder / "good.mp4", list(range(NUM_FRAMES)), folder / "all.mp4")
    torch.manual_seed(0)
    for name, detection in (("run", False), ("people", True)):
        model = create_model("x2d", num_classes=2, gamma_w=0.25, head_width=16, detection=detection)
        metadata = {"class_names": NAMES, "clip": asdict(CLIP)}
        (folder / name).mkdir()
        save_weights(
            model,
            folder / name / "best.safetensors",
            metadata | ({"task": "detection"} if detection else {}),
        )
    return folder


@pytest.fixture(autouse=True)
def _there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)


def spans(found: object) -> list[tuple[int, int, float, float]]:
    return [(s.first, s.last, round(s.start, 2), round(s.end, 2)) for s in found.damaged]  # type: ignore[attr-defined]


@pytest.mark.parametrize("backend", ["auto", "pyav"])
def test_a_cut_recording_is_predicted_up_to_the_cut(backend: str):
    with open_video("cut.ts") as reader:
        length = len(reader)
        _, undecodable = reader.try_frames(range(length))
    assert undecodable.keys() == {length - 1}
    found = saccade.Predictor("run", backend=backend)("cut.ts")  # type: ignore[arg-type]
    assert [span[:2] for span in spans(found)] == [(length - 1, length - 1)]
    assert found.windows[-1].end == pytest.approx((length - 1) / FPS, abs=0.01)
    assert found.duration == pytest.approx(length / FPS, abs=0.01)
    whole = saccade.Predictor("run")("good.ts")
    assert whole.damaged == ()
    np.testing.assert_allclose(found.window_scores[0], whole.window_scores[0], atol=1e-5)


def test_windows_lie_where_frames_can_be_read():
    found = saccade.Predictor("run")("second.mp4")
    assert spans(found) == [(30, 74, 1.0, 2.5)]
    assert "packet 30" in found.damaged[0].cause
    assert all(window.end <= 1.01 or window.start >= 2.49 for window in found.windows)
    assert (found.windows[0].start, found.windows[-1].end) == (0, pytest.approx(5.0))
    assert found.duration == pytest.approx(5.0)
    short = saccade.Predictor("run")("middle.mp4")
    assert spans(short) == [(62, 74, 2.07, 2.5)]
    assert json.loads(json.dumps(short.to_dict()))["damaged"] == [
        {"start": 2.067, "end": 2.5, "cause": short.damaged[0].cause}
    ]
    assert "damaged" not in saccade.Predictor("run")("good.mp4").to_dict()


def test_seconds_count_from_the_first_frame_where_that_is_lost(tmp_path: Path):
    for number in range(90):
        file = tmp_path / f"{number}.png"
        Image.new("RGB", (48, 32), (2 * number, 0, 0)).save(file)
        if number < 45:
            file.write_bytes(file.read_bytes()[:60])  # the header alone
    found = saccade.Predictor("run")(tmp_path)
    assert spans(found) == [(0, 44, 0.0, 1.5)]
    assert (found.windows[0].start, found.windows[-1].end) == (pytest.approx(1.5), pytest.approx(3.0))
    timeline = saccade.Localizer(PerFrame(), ["r", "g"], clip=CLIP)(tmp_path)
    assert timeline.duration == pytest.approx(3.0)
    assert timeline.gaps == ((0, pytest.approx(1.5)),)


def test_a_stream_without_its_first_key_frames_begins_at_the_next():
    """The decoder shows nothing before, so that its frames are not counted."""
    found = saccade.Predictor("run")("start.mp4")
    assert found.damaged == ()
    assert found.duration == pytest.approx(3.5)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_file_among_others(workers: int):
    names = ["good.mp4", "second.mp4", "all.mp4", "cut.ts", "good.mp4"]
    found = list(saccade.Predictor("run").predict_many(names, workers=workers))
    assert [type(one) for one in found] == [Prediction, Prediction, Failure, Prediction, Prediction]
    assert [bool(one.damaged) for one in found if isinstance(one, Prediction)] == [False, True, True, False]
    np.testing.assert_array_equal(found[0].scores, found[4].scores)
    with pytest.raises(VideoError, match=r"all\.mp4: "):
        saccade.Predictor("run")("all.mp4")


def test_actions_in_time_where_frames_can_be_read():
    locate = saccade.Localizer(PerFrame(), ["r", "g"], clip=CLIP)
    whole, found = locate("good.mp4"), locate("second.mp4")
    assert spans(found) == [(30, 74, 1.0, 2.5)]
    assert len(found.scores) == 105
    np.testing.assert_allclose(found.scores[:25], whole.scores[:25], atol=0.02)
    np.testing.assert_allclose(found.scores[35:], whole.scores[80:], atol=0.02)
    assert found.duration == pytest.approx(5.0)
    assert not any(segment.start < 1.7 < segment.end for segment in found.segments(0.0))
    assert found.to_dict()["damaged"][0]["start"] == 1.0


def test_people_where_frames_can_be_read():
    boxes = [
        BoxRow(name, second, EVERYWHERE, None) for name in ("second", "good", "all") for second in (0, 2, 4)
    ]
    detect = saccade.Detector("people", boxes=boxes)
    whole, found = detect("good.mp4"), detect("second.mp4")
    assert spans(found) == [(30, 74, 1.0, 2.5)]
    assert [person.second for person in whole.people] == [0, 2, 4]
    assert [person.second for person in found.people] == [0, 4]
    np.testing.assert_allclose(found.people[1].scores, whole.people[2].scores, atol=1e-5)
    assert found.to_dict()["damaged"][0]["end"] == 2.5
    only = saccade.Detector("people", boxes=[BoxRow("second", 2, EVERYWHERE, None)])
    with pytest.raises(VideoError, match="none of the seconds with boxes can be decoded"):
        only("second.mp4")


def test_the_command_warns_once_a_file_and_ends_with_1(capsys: pytest.CaptureFixture[str]):
    assert main(["predict", "good.mp4", "second.mp4", "--run", "run", "--json"]) == 1
    captured = capsys.readouterr()
    good, damaged = json.loads(captured.out)
    assert "damaged" not in good
    assert [span["start"] for span in damaged["damaged"]] == [1.0]
    (line,) = [line for line in captured.err.splitlines() if "second.mp4" in line]
    assert "45 frames cannot be read: 1.00-2.50 s (frames 30-74)" in line
    assert main(["predict", "good.mp4", "--run", "run", "--json"]) == 0
    assert main(["predict", "all.mp4", "--run", "run", "--json"]) == 1


def test_the_command_draws_people_where_frames_can_be_read(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (folder / "people.csv").write_text("second,0,0,0,1,1\nsecond,2,0,0,1,1\nsecond,3,0,0,1,1\n")
    args = ["predict", "second.mp4", "--run", "people", "--boxes", "people.csv", "--out", str(tmp_path)]
    assert main(args) == 1
    assert "45 frames cannot be read" in capsys.readouterr().err
    with open_video(tmp_path / "second.people.mp4") as drawn:
        assert len(drawn) > 0
    record = json.loads((tmp_path / "second.people.json").read_text())
    assert [person["second"] for person in record["people"]] == [0, 3]


def test_far_shorter_videos_are_counted_in_one_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The clip lasts 13 frames, 0.43 s."""
    frames = np.zeros((7, 32, 48, 3), np.uint8)
    for name, length in (("a", 6), ("b", 3), ("c", 7)):
        write_video(tmp_path / f"{name}.mp4", frames[:length], fps=30)
    assert saccade.Predictor("run")(tmp_path / "a.mp4").short
    assert not saccade.Predictor("run")(tmp_path / "c.mp4").short
    assert main(["predict", str(tmp_path), "good.mp4", "--run", "run", "--json"]) == 0
    captured = capsys.readouterr()
    assert [record.get("short") for record in json.loads(captured.out)] == [True, True, None, None]
    (line,) = [line for line in captured.err.splitlines() if "2 of 4 videos" in line]
    assert "0.43 s" in line
    assert "a.mp4 (0.20 s)" in line


def test_what_was_cut_off_is_listed(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Of a Matroska file that ends between two frames every frame decodes; its header states the rest."""
    frames = np.zeros((90, 32, 48, 3), np.uint8)
    write_video(tmp_path / "whole.mkv", frames, fps=30, gop=15)
    with open_video(tmp_path / "whole.mkv") as reader:
        position = int(reader.index.identity[60, 0])  # type: ignore[attr-defined]
    (tmp_path / "cut.mkv").write_bytes((tmp_path / "whole.mkv").read_bytes()[:position])
    assert main(["predict", str(tmp_path / "cut.mkv"), "--run", "run", "--json"]) == 1
    captured = capsys.readouterr()
    (record,) = json.loads(captured.out)
    (span,) = record["damaged"]
    assert (span["start"], span["end"]) == (pytest.approx(2.0, abs=0.05), pytest.approx(3.0, abs=0.05))
    assert record["duration"] == pytest.approx(3.0, abs=0.05)
    assert record["windows"][-1]["end"] == pytest.approx(2.0, abs=0.05)
    assert "the file was cut" in captured.err
