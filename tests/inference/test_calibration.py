from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

import saccade
from saccade.cli import main
from saccade.clip import ClipSpec
from saccade.data.motion import MOTION_CLASSES
from saccade.data.types import VideoDataset
from saccade.errors import DataError, UsageError
from saccade.evaluation.rejection import logit_scores
from saccade.inference import Predictor, calibrate, load_for_inference
from saccade.inference.calibration import _negatives as negatives_of
from saccade.models import create_model, save_weights
from saccade.runs import Run
from saccade.training import TrainConfig
from saccade.training.config import OptimConfig
from saccade.video import write_video

CLIP = ClipSpec(num_frames=2, stride=2, crop=32, short_side=32)
NAMES = ("dark", "light")
VAL = {"dark": 3, "light": 3}


def colour_net() -> torch.nn.Module:
    """A network whose logits grow with the contrast to mid grey; a grey video has logits near 0."""
    torch.manual_seed(0)
    model = create_model("x2d", num_classes=2, gamma_w=0.25, gamma_t=2, head_width=32).eval()
    return model


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder, its validation clips and clips without any class."""
    home = tmp_path_factory.mktemp("reject")
    rng = np.random.default_rng(0)
    for name, count in VAL.items():
        for split in ("train", "val"):
            for number in range(count):
                level = 40 if name == "dark" else 200
                frames = rng.integers(level - 30, level + 30, (12, 32, 40, 3), dtype=np.uint8)
                path = home / "clips" / split / name / f"{number}.mp4"
                path.parent.mkdir(parents=True, exist_ok=True)
                write_video(path, frames, fps=30)
    (home / "clips" / "background" / "deeper").mkdir(parents=True)
    for number in range(4):
        frames = np.full((50, 32, 40, 3), 110 + 5 * number, np.uint8)
        write_video(home / "clips" / "background" / "deeper" / f"{number}.mp4", frames, fps=30)
    run = Run(home / "run")
    config = TrainConfig(
        recipe="r",
        data=str(home / "clips"),
        clip=CLIP,
        optim=OptimConfig(lr=0.1),
        epochs=1,
        out=str(run.folder),
    )
    run.folder.mkdir()
    run.write_config(config, device=torch.device("cpu"))
    metadata = {"class_names": list(NAMES), "clip": asdict(CLIP), "metrics": {"step": 5, "epoch": 1.0}}
    save_weights(colour_net(), run.best, metadata)
    return home


@pytest.fixture(autouse=True)
def _uncalibrated(home: Path) -> None:
    (home / "run" / "rejection.json").unlink(missing_ok=True)


def videos(home: Path, *parts: str) -> list[Path]:
    return sorted((home / "clips").joinpath(*parts).rglob("*.mp4"))


def energies(home: Path, paths: list[Path]) -> list[float]:
    """Of the logits, which the softmax of a prediction gives up to a constant, so from the network itself."""
    predictor = Predictor(home / "run")
    dataset = saccade.load_dataset(f"unlabelled:{paths[0].parent}", "all", labelled=False)
    assert [item.path for item in dataset.items] == [str(path) for path in paths]
    found = predictor.dataset_logits(dataset, workers=0)
    return [float(logit_scores(each, "energy").mean()) for each in found]


def test_the_background_folder_is_no_class(home: Path):
    dataset = saccade.load_dataset(home / "clips", "all")
    assert dataset.class_names == NAMES
    assert not any("background" in item.path for item in dataset.items)


def test_calibration_uses_the_validation_clips_and_the_background_folder(home: Path):
    found = calibrate(home / "run", accept=0.8, workers=0)
    known = [*energies(home, videos(home, "val", "dark")), *energies(home, videos(home, "val", "light"))]
    assert (found.num_val, found.num_accepted, found.num_negatives, found.step) == (6, 5, 4, 5)
    assert found.negatives == str(home / "clips" / "background")
    if found.score == "energy":
        assert found.threshold == pytest.approx(sorted(known)[1])
    assert Run(home / "run").rejection == found


def test_a_prediction_says_that_no_class_is_shown(home: Path):
    found = calibrate(home / "run", workers=0)
    path = videos(home, "val", "dark")[0]
    before = Predictor(home / "run", reject=False)(path)
    assert before.rejection is None
    assert not before.rejected
    assert before.label == before.best_label
    assert set(before.to_dict()) & {"rejected", "label", "reject_score"} == set()
    run = Run(home / "run")
    for above in (-1.0, 1.0):  # a threshold just below and just above the score of this video
        score = Predictor(run.folder)(path).reject_score
        changed = replace(found, threshold=score + above * 1e-3)
        run.write_rejection(changed)
        after = Predictor(run.folder)(path)
        np.testing.assert_array_equal(after.scores, before.scores)
        assert after.top(2) == before.top(2)
        assert after.rejected is (above > 0)
        assert after.label == ("none of these" if above > 0 else before.label)
        assert after.best_label == before.label
        record = after.to_dict()
        assert record["rejected"] is (above > 0)
        assert record["label"] == after.label
        assert record["reject_score"] == pytest.approx(score, abs=1e-5)
        assert record["reject_threshold"] == pytest.approx(changed.threshold, abs=1e-5)
        if len(after.windows) == 1:
            assert after.windows[0].rejected is after.rejected


def test_a_threshold_of_other_weights_is_not_used(home: Path, caplog: pytest.LogCaptureFixture):
    found = calibrate(home / "run", workers=0, write=False)
    assert Run(home / "run").rejection is None
    Run(home / "run").write_rejection(replace(found, step=4))
    with caplog.at_level("WARNING"):
        assert Predictor(home / "run").rejection is None
    assert "rejection.json" in caplog.text


@pytest.mark.parametrize("text", ["", "{}", '{"format": 1, "score": "x"}', '{"format": 99}', "[1]"])
def test_a_damaged_file_is_named(home: Path, text: str):
    (home / "run" / "rejection.json").write_text(text)
    with pytest.raises(DataError, match=r"rejection\.json.*--reject"):
        Predictor(home / "run")


def test_the_commands_calibrate_and_say_none_of_these(home: Path, capfd: pytest.CaptureFixture[str]):
    run = str(home / "run")
    assert main(["test", run, "--reject", "--accept", "0.5", "--workers", "0", "--json"]) == 0
    record = json.loads(capfd.readouterr().out)
    assert record["num_accepted"] == 3
    stored = json.loads((home / "run" / "rejection.json").read_text())
    assert stored == record
    assert stored["format"] == 1
    (home / "run" / "rejection.json").write_text(json.dumps(stored | {"threshold": 1e6}))
    video = str(videos(home, "val", "dark")[0])
    assert main(["predict", video, "--run", run]) == 0
    assert "none of these" in capfd.readouterr().out
    assert main(["predict", video, "--run", run, "--jsonl", "-"]) == 0
    assert json.loads(capfd.readouterr().out)["label"] == "none of these"
    assert main(["predict", video, "--run", run, "--jsonl", "-", "--no-reject"]) == 0
    assert "label" not in json.loads(capfd.readouterr().out)


def test_flags_and_arguments_that_do_not_fit_are_named(home: Path, capfd: pytest.CaptureFixture[str]):
    run = str(home / "run")
    for flags, named in (
        (["--accept", "0.5"], "--accept"),
        (["--reject", "--views", "3x1"], "--views"),
        (["--reject", "--accept", "2"], "accept"),
        (["--reject", "--background", str(home / "nowhere")], "nowhere"),
    ):
        assert main(["test", run, *flags]) == 2
        assert named in capfd.readouterr().err
    assert main(["test", f"{run}/best.safetensors", "--reject"]) == 2
    with pytest.raises(UsageError, match="accept"):
        calibrate(run, accept=0)


@pytest.fixture
def no_background(home: Path) -> Iterator[VideoDataset]:
    """The validation clips, of a run whose data set has no folder of clips without any class."""
    run = Run(home / "run")
    record, data = run.record(), str(home / "clips" / "train")
    run.config_file.write_text(json.dumps(record | {"config": record["config"] | {"data": data}}))
    yield replace(saccade.load_dataset(home / "clips", "val"), root=data)
    run.config_file.write_text(json.dumps(record))


def test_without_a_background_folder_motion_films_are_the_negatives(
    home: Path, no_background: VideoDataset, monkeypatch: pytest.MonkeyPatch
):
    def copies(root: Path, **settings: object) -> Path:
        shutil.copytree(home / "clips" / "background", root)
        return root

    monkeypatch.setattr("saccade.inference.calibration.make_motion", copies)
    found = calibrate(home / "run", data=no_background, workers=0, write=False)
    assert (found.negatives, found.num_negatives) == ("motion films", 4)


@pytest.mark.slow
def test_there_are_two_films_of_each_motion_class(home: Path, no_background: VideoDataset):
    assert calibrate(home / "run", data=no_background, write=False).num_negatives == 24


def test_a_run_on_motion_has_no_negatives(home: Path, caplog: pytest.LogCaptureFixture):
    loaded = replace(load_for_inference(home / "run"), class_names=MOTION_CLASSES[:2])
    with caplog.at_level("WARNING"), negatives_of(Predictor(loaded), None, []) as (name, dataset):
        assert (name, dataset) == ("", None)
    assert "--background" in caplog.text
