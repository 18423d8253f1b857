from __future__ import annotations

import json
import threading
import time
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

import saccade
from saccade.clip import ClipSpec
from saccade.errors import SaccadeError, UsageError, VideoError, WeightsError
from saccade.evaluation.reading import prefetch_decode
from saccade.inference import Prediction, load_for_inference
from saccade.models import create_model, save_weights
from saccade.sampling.temporal import covering_clips, sample_test
from saccade.tasks import Failure
from saccade.transforms import test_transform as cut_views
from saccade.video import open_video, write_video

CLIP = ClipSpec(num_frames=4, stride=4, crop=32, short_side=32)
NAMES = ["jump", "throw", "run"]


def small_model(num_classes: int = 3) -> torch.nn.Module:
    torch.manual_seed(0)
    model = create_model("x2d", num_classes=num_classes, gamma_w=0.25, gamma_t=4, head_width=32)
    for name, parameter in model.named_parameters():
        if name.endswith("norm_c.weight") or name.startswith("head.classifier"):
            torch.nn.init.normal_(parameter)
    return model.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("predict")
    rng = np.random.default_rng(1)
    for name, length in (("long", 150), ("short", 6), ("mid", 40)):
        noise = rng.integers(0, 255, (length, 36, 48, 3))
        slope = np.linspace(0, 1, length)[:, None, None, None]
        write_video(folder / f"{name}.mp4", (noise * slope).astype(np.uint8), fps=30)
    (folder / "broken.mp4").write_bytes(b"no video")
    run = folder / "run"
    run.mkdir()
    metadata = {"class_names": NAMES, "clip": asdict(CLIP), "pairs": [[0, 1]], "temporal_rule": "saccade"}
    save_weights(small_model(), run / "best.safetensors", metadata)
    save_weights(small_model(), folder / "nameless.safetensors", {})
    torch.save({"state_dict": small_model().state_dict()}, folder / "foreign.pth")
    return folder


def expected(path: Path, views: int, crops: int = 1) -> np.ndarray:
    """Scores per clip, every view on its own."""
    model = small_model()
    with open_video(path, short_side=32) as reader:
        clips = sample_test(len(reader), reader.fps, num_frames=4, stride=4, num_clips=views)
        cut = [cut_views(reader.frames(list(clip)), CLIP, crops) for clip in clips]
    with torch.no_grad():
        return np.stack([model(views).softmax(1).mean(0).numpy() for views in cut])


def test_a_run_folder_predicts_with_its_own_names_and_clip(folder: Path):
    prediction = saccade.Predictor(folder / "run")(folder / "long.mp4")
    assert prediction.views == f"{len(prediction.windows)}x1"
    each = expected(folder / "long.mp4", len(prediction.windows))
    np.testing.assert_allclose(prediction.window_scores, each, atol=1e-5)
    np.testing.assert_allclose(prediction.scores, each.mean(0), atol=1e-5)
    assert prediction.top(2) == sorted(zip(NAMES, prediction.scores, strict=True), key=lambda x: -x[1])[:2]
    assert (prediction.label, prediction.score) == prediction.top(1)[0]
    assert prediction.duration == pytest.approx(5.0)
    assert prediction.fps == 30


def test_windows_cover_the_video_in_order(folder: Path):
    prediction = saccade.Predictor(folder / "run")(folder / "long.mp4")
    windows = prediction.windows
    assert windows[0].start == 0
    assert windows[-1].end == pytest.approx(5.0)
    assert all(a.start < b.start for a, b in pairwise(windows))
    assert all(b.start <= a.end + 0.15 for a, b in pairwise(windows))
    for window, row in zip(windows, prediction.window_scores, strict=True):
        assert window.label == NAMES[int(row.argmax())]
    assert len(saccade.Predictor(folder / "run")(folder / "short.mp4").windows) == 1


def test_how_many_clips_cover_a_video():
    clip = CLIP.replace(num_frames=16, stride=5)  # 80 frames at 30 fps
    assert [covering_clips(n, 30, clip) for n in (10, 80, 100, 101, 160, 800)] == [1, 1, 1, 2, 2, 10]
    assert covering_clips(160, 60, clip) == 1
    assert (
        covering_clips(300, 30, CLIP.replace(num_frames=1, stride=1)) == 20
    )  # two a second, not every frame


def test_named_views_are_those_of_the_test(folder: Path):
    prediction = saccade.Predictor(folder / "run", views="2x3")(folder / "mid.mp4")
    np.testing.assert_allclose(prediction.window_scores, expected(folder / "mid.mp4", 2, 3), atol=1e-5)
    assert prediction.views == "2x3"


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_predict_many_keeps_order_and_continues_after_bad_files(folder: Path, workers: int):
    predictor = saccade.Predictor(folder / "run")
    names = ["mid.mp4", "broken.mp4", "long.mp4", "absent.mp4", "short.mp4"]
    paths = [folder / name for name in names]
    found = list(predictor.predict_many(paths, workers=workers))
    assert [Path(one.path).name for one in found] == names
    assert [type(one) for one in found] == [Prediction, Failure, Prediction, Failure, Prediction]
    alone = predictor(folder / "long.mp4")
    assert isinstance(found[2], Prediction)
    np.testing.assert_allclose(found[2].scores, alone.scores, atol=1e-5)
    with pytest.raises(VideoError, match=r"broken\.mp4"):
        predictor(folder / "broken.mp4")


def test_a_record_is_plain_json(folder: Path):
    record = saccade.Predictor(folder / "run")(folder / "mid.mp4").to_dict(k=2)
    assert json.loads(json.dumps(record)) == record
    assert [entry["label"] for entry in record["top"]]
    assert len(record["top"]) == 2
    assert {"path", "duration", "fps", "views", "top", "windows"} == set(record)


def test_models_come_from_anywhere(folder: Path, tmp_path: Path):
    reference = saccade.Predictor(folder / "run")(folder / "mid.mp4").scores
    names = tmp_path / "names.txt"
    names.write_text("a\nb\nc\n")
    by_module = saccade.Predictor(small_model(), names, clip=CLIP)
    by_file = saccade.Predictor(folder / "run" / "best.safetensors", ["x", "y", "z"])
    by_weights = saccade.Predictor(small_model(), weights=folder / "foreign.pth", clip=CLIP)
    by_name = saccade.Predictor("x2d", weights=folder / "run" / "best.safetensors")
    for predictor in (by_module, by_file, by_weights, by_name):
        np.testing.assert_allclose(predictor(folder / "mid.mp4").scores, reference, atol=1e-5)
    assert by_module.class_names == ("a", "b", "c")
    assert by_file.class_names == ("x", "y", "z")
    assert by_weights.class_names == ("0", "1", "2")
    assert by_name.class_names == tuple(NAMES)
    nameless = load_for_inference(folder / "nameless.safetensors")
    assert (nameless.named, nameless.clip.num_frames) == (False, 4)  # what it was built for


@pytest.mark.parametrize(
    ("source", "options", "error", "words"),
    [
        ("nothing_here", {}, UsageError, "no such run folder, weights file or model"),
        (".", {}, UsageError, "no best.safetensors in this folder"),
        ("foreign.pth", {}, UsageError, "--model"),
        ("x2d", {}, UsageError, "needs weights"),
        ("x2d", {"weights": "absent.pth"}, UsageError, "no such file"),
        ("run", {"weights": "foreign.pth"}, UsageError, "not the name of a model"),
        ("run", {"labels": ["a", "b"]}, UsageError, "2 names"),
        ("run", {"labels": "no_such_list"}, UsageError, "kinetics400"),
        ("run", {"num_classes": 7}, UsageError, "num_classes is 7"),
        ("run", {"views": "10"}, UsageError, "CLIPSxCROPS"),
        ("run", {"device": "tpu9"}, UsageError, "device"),
        ("run", {"temporal_rule": "none"}, UsageError, "known are"),
        ("run", {"clip": CLIP.replace(crop=64)}, UsageError, "does not fit"),
        ("x3d_m", {"weights": "run/best.safetensors"}, UsageError, "holds a x2d"),
    ],
)
def test_what_cannot_work_is_one_clear_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, source: str, options: dict, error: type, words: str
):
    monkeypatch.chdir(folder)
    with pytest.raises(error, match=words) as caught:
        saccade.Predictor(source, **options)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, SaccadeError)


def test_a_classifier_of_other_classes_is_refused_not_replaced_by_noise(folder: Path):
    with pytest.raises(WeightsError, match=r"3 classes in the file, 5 in the model.*--num-classes"):
        saccade.Predictor(small_model(5), weights=folder / "foreign.pth", clip=CLIP)


def test_decoding_ahead_is_bounded_and_ends_with_its_consumer():
    made: list[str] = []

    def source(name: str):
        for number in range(100):
            made.append(f"{name}{number}")
            yield number

    stream = prefetch_decode(["a", "b", "c"], source, 2)
    name, chunks = next(stream)
    assert (name, next(chunks), next(chunks)) == ("a", 0, 1)
    time.sleep(0.3)
    assert len(made) <= 2 + 3 * 3  # two taken; two waiting and one in hand of each of three
    before = threading.active_count()
    stream.close()
    assert threading.active_count() <= before - 2


def test_errors_of_a_source_reach_the_consumer_in_their_turn():
    def source(name: str):
        yield name
        if name == "b":
            raise VideoError("b", "broken")

    seen = []
    for name, chunks in prefetch_decode(["a", "b", "c"], source, 2):
        try:
            seen += list(chunks)
        except VideoError as error:
            seen.append(f"failed {error.path} of {name}")
    assert seen == ["a", "failed b of b", "c"] or seen == ["a", "b", "failed b of b", "c"]


def test_every_wild_clip_is_predicted(real_data: Path, folder: Path):
    clips = sorted((real_data / "clips").iterdir())
    assert len(clips) >= 6
    for found in saccade.Predictor(folder / "run").predict_many(clips):
        assert isinstance(found, Prediction), found
        assert found.scores.sum() == pytest.approx(1, abs=1e-5)
