"""People in boxes: through the class, the command, and onto the video."""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from saccade.cli import main
from saccade.clip import ClipSpec
from saccade.data.ava import Keyframe, keyframe_clip
from saccade.data.ava_files import BoxRow, read_people
from saccade.errors import DataError, UsageError, VideoError
from saccade.inference import Detector, PeopleActions
from saccade.models import create_model, save_weights
from saccade.tasks import Failure
from saccade.video import open_video, write_video
from saccade.visualize.people import draw_person

CLIP = ClipSpec(num_frames=4, stride=2, crop=32, short_side=32)
NAMES = ("stand", "walk", "[red]dance")
LEFT, RIGHT = (0.05, 0.1, 0.4, 0.9), (0.5, 0.0, 1.0, 1.0)
FPS = 15


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    net = create_model("x2d", num_classes=3, gamma_w=0.25, head_width=16, detection=True)
    for name, parameter in net.named_parameters():
        if name.endswith("norm_c.weight") or name.startswith("head.classifier"):
            torch.nn.init.normal_(parameter)
    return net.eval()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("people")
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (4 * FPS, 36, 48, 3)).astype(np.uint8)
    write_video(place / "film.mp4", frames, fps=FPS)
    (place / "broken.mp4").write_bytes(b"no video")
    (place / "run").mkdir()
    metadata = {"class_names": list(NAMES), "clip": asdict(CLIP), "task": "detection"}
    save_weights(model(), place / "run" / "best.safetensors", metadata)
    (place / "people.csv").write_text(
        "film,1,0.05,0.1,0.4,0.9\nfilm,1,0.5,0,1,1\nfilm,0003,0.5,0,1,1\nbroken,1,0,0,1,1\n"
    )
    return place


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def test_scores_are_those_of_the_model_for_the_clip_around_the_second():
    found = Detector("run", boxes="people.csv")("film.mp4")
    assert [(person.second, person.time, person.box) for person in found.people] == [
        (1, 1.0, LEFT),
        (1, 1.0, RIGHT),
        (3, 3.0, RIGHT),
    ]
    with open_video("film.mp4", short_side=32) as video:
        keyframe = Keyframe("film", 3, (RIGHT,), ((),), (1.0,))
        chosen = keyframe_clip(keyframe, len(video), video.fps, num_frames=4, stride=2, cut=False)
        assert abs(chosen - 3 * FPS).max() <= 2  # 8 frames at 30 a second, around frame 45
        pixels = video.frames(chosen.tolist()).float() / 255
    x = ((pixels - torch.tensor(CLIP.mean)) / torch.tensor(CLIP.std)).permute(3, 0, 1, 2)[None]
    height, width = x.shape[3:]
    box = torch.tensor([RIGHT]) * torch.tensor([width, height, width, height])
    with torch.no_grad():
        wanted = model()(x, [box]).sigmoid().numpy()
    np.testing.assert_allclose(found.people[2].scores, wanted[0], rtol=1e-4, atol=1e-5)
    assert not np.allclose(found.people[1].scores, found.people[2].scores, atol=1e-3)


def test_seconds_of_ava_begin_at_900():
    rows = [BoxRow("film", second, LEFT, None) for second in (901, 903)]
    own = [BoxRow("film", second, LEFT, None) for second in (1, 3)]
    found, wanted = (Detector("run", boxes=boxes)("film.mp4") for boxes in (rows, own))
    assert [(person.second, person.time) for person in found.people] == [(901, 1.0), (903, 3.0)]
    for ours, theirs in zip(found.people, wanted.people, strict=True):
        assert np.array_equal(ours.scores, theirs.scores)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_video_that_cannot_be_read_does_not_stop_the_others(workers: int):
    broken, film = Detector("run", boxes="people.csv").detect_many(
        ["broken.mp4", "film.mp4"], workers=workers
    )
    assert isinstance(broken, Failure)
    assert isinstance(film, PeopleActions)
    with pytest.raises(VideoError, match=r"broken\.mp4"):
        Detector("run", boxes="people.csv")("broken.mp4")


def test_boxes_beyond_the_end_of_a_video_do_not_stop_the_others():
    shutil.copy("film.mp4", "again.mp4")
    rows = [BoxRow("again", 7, LEFT, None), BoxRow("film", 1, LEFT, None)]
    late, film = Detector("run", boxes=rows).detect_many(["again.mp4", "film.mp4"])
    assert isinstance(late, Failure)
    assert "boxes at second 7 of video 'again', which lasts 4.0 s" in late.cause
    assert isinstance(film, PeopleActions)


def test_files_of_boxes_of_every_kind(tmp_path: Path):
    file = tmp_path / "boxes.csv"
    file.write_text(
        "a,0902,0.1,0.1,0.5,0.5\n"
        "a,0902,0.1,0.1,0.5,0.5,12\n"
        "a,0902,0.2,0.1,0.5,0.5,80,7\n"
        "a,0903,0.1,0.1,0.5,0.5,,0.97\n"
        "a,0903,0.3,0.1,0.5,0.5,-1,0.5\n"
    )
    rows = read_people(file)
    assert [row.score for row in rows] == [1, 1, 1, 0.97, 0.5]
    assert all(row.action is None for row in rows)
    assert [row.second for row in rows] == [902, 902, 902, 903, 903]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("film,1,0.1,0.1,0.5", r"boxes\.csv:1: 5 cells; a row is video_id,second,x1,y1,x2,y2"),
        ("film,1,10,10,50,50", r"boxes\.csv:1: the box 10,10,50,50 has coordinates outside of 0\.\.1"),
        ("film,1.5,0,0,1,1", r"boxes\.csv:1: the time '1\.5' is not a whole number of seconds"),
        ("film,1,0.5,0,0.1,1", r"boxes\.csv:1: .* ends before it"),
        ("film,1,0,0,1,1,,0.3", r"boxes\.csv: no boxes with a score of at least 0\.9"),
        ("other,1,0,0,1,1", r"boxes\.csv: no boxes for video 'film' .*; it has those of other"),
        ("film,7,0,0,1,1", r"boxes at second 7 of video 'film', which lasts 4\.0 s"),
    ],
)
def test_boxes_that_cannot_be_used(line: str, message: str, tmp_path: Path):
    file = tmp_path / "boxes.csv"
    file.write_text(line + "\n")
    with pytest.raises(DataError, match=message):
        Detector("run", boxes=file)("film.mp4")


def test_other_models_are_refused():
    net = create_model("x2d", num_classes=3, gamma_w=0.25, head_width=16)
    save_weights(net, Path("plain.safetensors"), {"class_names": list(NAMES), "clip": asdict(CLIP)})
    with pytest.raises(UsageError, match="was trained for single-label, not for people in boxes"):
        Detector("plain.safetensors", boxes="people.csv")


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    flags = ["--run", "run", "--boxes", "people.csv", "--out", str(tmp_path), "--top", "2"]
    assert main(["predict", "film.mp4", *flags, "--threshold", "0"]) == 0
    shown = capsys.readouterr().out
    assert "3 boxes at 2 times" in shown
    assert "5-40  x  10-90  %" in shown
    found = Detector("run", boxes="people.csv")("film.mp4")
    best = found.actions(found.people[0], 0, 1)[0]
    assert f"{best[0]} {100 * best[1]:.0f} %" in shown
    record = json.loads((tmp_path / "film.people.json").read_text())
    assert record == found.to_dict(0, 2)
    assert [len(person["actions"]) for person in record["people"]] == [2, 2, 2]
    with open_video(tmp_path / "film.people.mp4") as drawn, open_video("film.mp4") as plain:
        assert len(drawn) == len(plain)  # from a second before the first box to a second after the last
        height, width = drawn.size
        edges = [
            frame[int(0.6 * height), int(0.05 * width) : int(0.05 * width) + 3].float().mean(0)
            for frame in drawn.frames([FPS, 2 * FPS])  # at a box, and a second from any
        ]
    assert edges[0][2] > edges[0][0] + 60  # blue
    assert abs(edges[1][2] - edges[1][0]) < 40

    assert main(["predict", "film.mp4", *flags, "--threshold", "1", "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert [person["actions"] for person in record["people"]] == [[], [], []]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--run", "run"], "add --boxes FILE"),
        (["--run", "run", "--boxes", "people.csv", "--localize"], "--boxes and --localize"),
        (["--run", "run", "--boxes", "people.csv", "--views", "2x1"], "--views"),
        (
            ["--run", "run", "--boxes", "people.csv", "--threshold", "2"],
            "--threshold: must be between 0 and 1",
        ),
        (["--run", "run", "--min-score", "0.5"], "--min-score: has no effect without"),
        (["--run", "run", "--out", "x"], "--out: has no effect without --localize or --boxes"),
    ],
)
def test_flags_that_do_not_go_together(args: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    assert main(["predict", "film.mp4", *args]) == 2
    assert message in capsys.readouterr().err


def test_a_file_of_boxes_that_is_not_there(capsys: pytest.CaptureFixture[str]):
    assert main(["predict", "film.mp4", "--run", "run", "--boxes", "none.csv"]) == 2
    assert "none.csv: cannot be read" in capsys.readouterr().err


def test_captions_stay_inside_the_picture():
    picture = Image.new("RGB", (200, 120), "black")
    draw_person(picture, (0.9, 0.9, 1.0, 1.0), ["a long caption", "and another"])
    pixels = np.asarray(picture).astype(int)
    white = np.argwhere(pixels.min(axis=2) > 150)
    assert len(white) > 50
    assert white[:, 0].max() < 119
    assert white[:, 1].max() < 199
    plain = Image.new("RGB", (200, 120), "black")
    draw_person(plain, (0.1, 0.1, 0.9, 0.9), [])
    assert np.asarray(plain)[12, 100].tolist() == [0x8A, 0x94, 0xA3]  # a grey line, no caption
