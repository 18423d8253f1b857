"""What the predictors take besides paths."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import saccade
from saccade.cli import main
from saccade.clip import ClipSpec
from saccade.data.ava_files import BoxRow
from saccade.errors import DataError, UsageError
from saccade.inference import Failure, Prediction
from saccade.models import create_model, save_weights
from saccade.video import open_video, write_video

CLIP = ClipSpec(num_frames=4, stride=4, crop=32, short_side=32)
NAMES = ["jump", "throw"]


class PerFrame(torch.nn.Module):
    """Scores of every frame: its mean red and green."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))

    def forward(self, clip: torch.Tensor) -> torch.Tensor:
        return clip[:, :2].mean((3, 4)) * self.scale


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("inputs")
    rng = np.random.default_rng(1)
    write_video(place / "a.mp4", rng.integers(0, 255, (40, 32, 48, 3), dtype=np.uint8), fps=25)
    torch.manual_seed(0)
    for name, options in (("run", {}), ("people", {"detection": True})):
        model = create_model("x2d", num_classes=2, gamma_w=0.25, head_width=16, **options)
        torch.nn.init.normal_(next(p for n, p in model.named_parameters() if n.startswith("head.classifier")))
        (place / name).mkdir()
        task = {"task": "detection"} if options else {}
        save_weights(
            model, place / name / "best.safetensors", {"class_names": NAMES, "clip": asdict(CLIP), **task}
        )
    return place


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def inputs(place: Path) -> dict[str, Any]:
    data = (place / "a.mp4").read_bytes()
    with open_video(place / "a.mp4") as reader:
        frames = reader.frames(range(40))
    return {
        "<bytes>": data,
        "<BytesIO>": io.BytesIO(data),
        "<frames>": (frames.numpy(), 25),
        str(place / "a.mp4"): place / "a.mp4",
    }


def test_a_prediction_is_the_same_wherever_the_video_is(place: Path):
    predict = saccade.Predictor("run")
    expected = predict("a.mp4")
    many = inputs(place)
    found = list(predict.predict_many(iter(many.values()), workers=2))
    for name, one, prediction in zip(many, many.values(), found, strict=True):
        assert isinstance(prediction, Prediction)
        assert prediction.path == name
        assert (prediction.fps, prediction.duration) == (25, pytest.approx(1.6))
        np.testing.assert_allclose(prediction.window_scores, expected.window_scores, atol=1e-5)
        np.testing.assert_allclose(predict(one, name="x").scores, expected.scores, atol=1e-5)
    assert predict(many["<bytes>"], name="x").path == "x"


def test_frames_without_a_rate_have_that_of_the_predictor(place: Path):
    frames, _ = inputs(place)["<frames>"]
    assert saccade.Predictor("run")(frames).fps == 30
    assert saccade.Predictor("run", frames_fps=10)(frames).duration == pytest.approx(4.0)
    (found,) = saccade.Predictor("run").predict_many([torch.from_numpy(frames)])
    assert isinstance(found, Prediction)


def test_actions_in_time_and_of_people(place: Path):
    locate = saccade.Localizer(PerFrame(), ["r", "g"], clip=CLIP)
    detect = saccade.Detector("people", boxes=[BoxRow("a", 1, (0.0, 0.0, 1.0, 1.0), None)])
    scores, people = locate("a.mp4").scores, detect("a.mp4").people
    many = inputs(place)
    for name, timeline in zip(many, locate.locate_many(many.values()), strict=True):
        assert timeline.path == name
        np.testing.assert_allclose(timeline.scores, scores, atol=1e-5)
    for one in many.values():
        found = detect(one, name="a")
        assert found.path == "a"
        np.testing.assert_allclose(found.people[0].scores, people[0].scores, atol=1e-5)
    with pytest.raises(DataError, match="no boxes for video '<bytes>'"):
        detect(many["<bytes>"])


@pytest.mark.parametrize(
    "source", [0, None, np.zeros((4, 8, 8, 3)), ["a.mp4", "a.mp4"], np.zeros((8, 8, 3), np.uint8)]
)
def test_what_is_not_taken_is_an_error_of_use(source: Any):
    predict = saccade.Predictor("run")
    with pytest.raises(UsageError):
        predict(source)
    with pytest.raises(UsageError):
        list(predict.predict_many([source]))


@pytest.mark.parametrize("source", ["a.mp4", Path("a.mp4"), b"data", np.zeros((4, 8, 8, 3), np.uint8)])
def test_one_video_is_not_many(source: Any):
    with pytest.raises(UsageError, match="give a list of videos"):
        next(saccade.Predictor("run").predict_many(source))


def test_what_cannot_be_read_does_not_stop_the_others(place: Path):
    bad = [b"", b"no video", "rtsp://127.0.0.1/x", np.zeros((0, 8, 8, 3), np.uint8)]
    found = list(saccade.Predictor("run").predict_many([*bad, "a.mp4"]))
    assert [type(one) for one in found] == [Failure] * 4 + [Prediction]
    assert [one.path for one in found] == ["<bytes>", "<bytes>", "rtsp://127.0.0.1/x", "<frames>", "a.mp4"]


def test_the_command_reads_urls(place: Path, capsys: pytest.CaptureFixture[str]):
    files = pytest.importorskip("fsspec").filesystem("memory")
    files.pipe("/archive/a.mp4", (place / "a.mp4").read_bytes())
    urls = ["memory://archive/a.mp4", "memory://archive/none.mp4", "memory://archive"]
    assert main(["predict", "a.mp4", *urls, "--run", "run", "--json"]) == 1
    local, good, missing, folder = json.loads(capsys.readouterr().out)
    assert good["path"] == urls[0]
    assert good["windows"] == local["windows"]
    assert (missing["path"], missing["error"]) == (urls[1], "no such file")
    assert folder["windows"] == local["windows"]  # of the one video in it
