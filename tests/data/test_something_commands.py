"""Something-Something in miniature through the commands: check, train, test, fine-tune, predict."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from data.something_files import NUM_TRAIN, NUM_VAL
from saccade.cli import main
from saccade.data import class_names
from saccade.models import create_model
from saccade.tasks import TestResult

TINY = shlex.split("""
    --model.name x2d --model.overrides gamma_w 0.3 head_width 32 --model.dropout 0.1 --model.drop-path 0
    --clip.num-frames 4 --clip.stride 1 --clip.crop 28 --clip.short-side 32
    --augment.short-side 32 36 --augment.no-inverse-uniform
    --optim.name sgd --optim.lr 0.05 --optim.reference-batch 4 --optim.warmup-epochs 0 --optim.warmup-lr 0
    --epochs 2 --batch-size 4 --workers 0 --cache-mb 0 --ema 0 --label-smoothing 0
    --val-every 2 --threads 1 --device cpu --temporal-rule tsm --val-views ssv2-1clip --test-views=
""")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report takes longer than these runs."""
    monkeypatch.setattr("saccade.training.run._report", lambda trainer: None)
    monkeypatch.setenv("COLUMNS", "120")


def train(data: Path, out: Path, *flags: str) -> dict[str, object]:
    """Trains for a moment; the run's config."""
    assert main(["train", "x3d_ucf10", *TINY, "--data", str(data), "--out", str(out), *flags]) == 0
    config: dict[str, object] = json.loads((out / "config.json").read_text())["config"]
    return config


@pytest.fixture(scope="module")
def run_v2(ssv2: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on v2."""
    out = tmp_path_factory.mktemp("runs") / "v2"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("saccade.training.run._report", lambda trainer: None)
        train(ssv2, out, "--test-views", "ssv2-2clip-3crop")
    return out


def test_v2_trains_and_is_tested_with_the_protocol_of_the_recipe(run_v2: Path, ssv2: Path) -> None:
    figures = json.loads((run_v2 / "test.json").read_text())["ssv2-2clip-3crop"]
    assert (figures["num_videos"], figures["temporal_rule"], figures["average"]) == (
        4 * NUM_VAL,
        "tsm",
        "logits",
    )
    assert figures["clip"]["short_side"] == 32
    scores = TestResult.load(run_v2 / "test_scores_ssv2-2clip-3crop.npz")
    assert scores.class_names == class_names("something_v2")
    log = (run_v2 / "log.txt").read_text()
    assert f"{4 * NUM_TRAIN} clips" in log
    assert "6 classes" in log


def test_saccade_test_prints_each_protocol_with_its_number(
    run_v2: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    views = "ssv2-1clip,ssv2-2clip-3crop,6-view,2x3"
    assert main(["test", str(run_v2), "--views", views, "--workers", "0", "--out", str(run_v2 / "t")]) == 0
    told = capsys.readouterr().out
    assert (
        "protocol ssv2-1clip: clips of 4 frames, one from each of 4 segments of the video, 1 clip x 1 crop"
        in told
    )
    assert "temporal rule tsm, softmax of the mean of the views' logits" in told
    assert "protocol 6-view: clips of 4 frames, one from each of 4 segments" in told
    assert "temporal rule vov3d-ssv, mean of the views' softmax" in told
    for name in views.split(","):
        result = TestResult.load(run_v2 / "t" / f"val_scores_{name}.npz")
        assert result.num_videos == 4 * NUM_VAL
    record = json.loads((run_v2 / "t" / "val_result.json").read_text())
    assert [figures["average"] for figures in record["results"]] == ["logits", "logits", "softmax", "softmax"]
    again = run_v2 / "again"
    assert main(["test", str(run_v2), "--views", views, "--workers", "2", "--out", str(again)]) == 0
    for name in views.split(","):  # nothing about these protocols is drawn
        one, other = (TestResult.load(folder / f"val_scores_{name}.npz") for folder in (run_v2 / "t", again))
        np.testing.assert_array_equal(one.scores, other.scores)


def test_a_protocol_is_not_bent(run_v2: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for flags, message in (
        (["--temporal-rule", "saccade"], "--temporal-rule: cannot be combined with the protocol ssv2-1clip"),
        (["--short-side", "40"], "--short-side: cannot be combined with the protocol ssv2-1clip"),
    ):
        assert main(["test", str(run_v2), "--views", "ssv2-1clip", *flags]) == 2
        assert message in capsys.readouterr().err
    assert main(["test", str(run_v2), "--views", "10x1"]) == 2
    assert "temporal rule 'tsm' knows one or two test clips, not 10" in capsys.readouterr().err


def test_fine_tuning_from_kinetics_weights_on_v1(
    ssv1: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    options = {"gamma_w": 0.3, "head_width": 32, "gamma_t": 4, "gamma_tau": 1, "gamma_s": 28 / 112}
    kinetics = create_model("x2d", num_classes=400, **options)
    torch.save({"model_state": kinetics.state_dict(), "epoch": 300}, tmp_path / "kinetics.pyth")
    weights = str(tmp_path / "kinetics.pyth")
    config = train(ssv1, tmp_path / "run", "--model.weights", weights, "--augment.flip", "0.5")
    assert config["temporal_rule"] == "tsm"
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "left out" in log
    assert "400" in log
    assert "6 classes" in log
    capsys.readouterr()
    assert main(["test", str(tmp_path / "run"), "--views", "1x1", "--workers", "0", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["results"][0]["num_videos"] == 4 * NUM_VAL
    assert record["results"][0]["temporal_rule"] == "tsm"


@pytest.mark.parametrize("rule", ["segments", "vov3d-ssv"])
def test_frame_lists_train_and_test_with_their_root(
    tsm_lists: Path, tmp_path: Path, rule: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lists, frames = tsm_lists / "lists", tsm_lists / "frames"
    flags = ["--root", str(frames), "--temporal-rule", rule, "--val-views", "2x1", "--cache-mb", "50"]
    config = train(lists, tmp_path / "run", *flags)
    assert config["root"] == str(frames)
    capsys.readouterr()
    assert main(["test", str(tmp_path / "run"), "--workers", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["temporal_rule"] == rule
    named = ["--data", str(lists / "val_videofolder.txt"), "--workers", "0", "--json"]
    assert main(["test", str(tmp_path / "run"), *named]) == 2
    assert "give the folder its paths start from with --root" in capsys.readouterr().err
    assert main(["test", str(tmp_path / "run"), *named, "--root", str(frames)]) == 0


def test_views_that_a_rule_does_not_have_are_refused_before_the_start(
    ssv1: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for flag in ("--val-views", "--test-views"):
        args = [
            "train",
            "x3d_ucf10",
            *TINY,
            "--data",
            str(ssv1),
            "--out",
            str(tmp_path / "run"),
            flag,
            "10x1",
        ]
        assert main(args) == 2
        told = capsys.readouterr().err
        assert (
            f"{flag[2:].replace('-', '_')}: temporal rule 'tsm' knows one or two test clips, not 10" in told
        )


def test_frames_x_stride_on_the_frames_of_v1(ssv1: Path, tmp_path: Path) -> None:
    train(ssv1, tmp_path / "run", "--temporal-rule", "saccade", "--val-views", "2x3", "--clip.stride", "3")
    assert (tmp_path / "run" / "best.safetensors").is_file()


def test_predict_looks_at_the_whole_video(
    run_v2: Path, ssv2: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    video = next((ssv2 / "20bn-something-something-v2").iterdir())
    assert main(["predict", str(video), "--run", str(run_v2), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    told = told[0] if isinstance(told, list) else told
    assert [(window["start"], window["end"]) for window in told["windows"]] == [(0.0, told["duration"])]
    assert told["top"][0]["label"] in class_names("something_v2")


def test_data_check(ssv1: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--clip-frames", "12", "--temporal-rule", "segments", "--workers", "0"]
    assert main(["data", "check", str(ssv1), *flags, "--json", str(tmp_path / "facts.json")]) == 0
    told = capsys.readouterr().out
    assert "shorter than a clip of 12 segments: frames repeat" in told
    assert "ok: every video is readable" in told
    assert json.loads((tmp_path / "facts.json").read_text())["clip"]["temporal_rule"] == "segments"


def test_what_to_do_is_said_in_one_line(
    ssv1: Path, ssv2: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frames = ssv1 / "20bn-something-something-v1"
    for data, message in (
        (frames, f"give the folder of the lists, {ssv1}"),
        (ssv1.parent, "Something-Something is in"),
        (ssv1 / "something-something-v1-test.csv", "the test split was published without labels"),
    ):
        assert main(["train", "x3d_ucf10", *TINY, "--data", str(data), "--out", str(tmp_path / "run")]) == 2
        told = capsys.readouterr().err
        assert message in told
        assert len(told.strip().splitlines()) == 1
