"""Both tasks of Charades through every command, on a miniature in its own formats."""

from __future__ import annotations

import csv
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from data.charades_files import NUM_TEST, make_json, make_official, make_source
from saccade.cli import main
from saccade.inference import Localizer, Predictor
from saccade.models import create_model, load_model
from saccade.tasks import LocalizationResult, MultiLabelResult
from saccade.video import open_video

TINY = shlex.split("""
    --model.name x2d --model.overrides gamma_w 0.3 head_width 32 --model.dropout 0.1
    --clip.num-frames 4 --clip.stride 3 --clip.crop 28 --clip.short-side 32 --clip.target-fps 24
    --augment.short-side 32 36 --augment.crop 0
    --optim.name sgd --optim.lr 0.05 --optim.reference-batch 4 --optim.warmup-epochs 0
    --epochs 3 --batch-size 4 --workers 0 --cache-mb 0 --threads 1 --device cpu --log-every 1
""")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report takes longer than these runs."""
    monkeypatch.setattr("saccade.training.run._report", lambda trainer: None)
    monkeypatch.setenv("COLUMNS", "120")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("untrimmed") / "set")


@pytest.fixture(scope="module")
def official(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_official(tmp_path_factory.mktemp("charades") / "official", source, frames=True)


def train(recipe: str, data: Path, out: Path, *flags: str) -> Path:
    args = ["train", recipe, *TINY, "--data", str(data), "--out", str(out), *flags]
    assert main(args) == 0
    return out


@pytest.fixture(scope="module")
def multi_label_run(official: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "classes"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("saccade.training.run._report", lambda trainer: None)
        flags = ("--val-views", "2x1", "--test-views", "2x3", "--val-every", "1")
        return train("x3d_m_charades", official, out, *flags)


@pytest.fixture(scope="module")
def localization_run(official: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "moments"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("saccade.training.run._report", lambda trainer: None)
        return train("x3d_m_charades_loc", official, out, "--val-every", "1")


def records(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_run_of_several_labels(multi_label_run: Path):
    validations = [record for record in records(multi_label_run) if "val_map" in record]
    assert len(validations) == 3
    assert all({"val_loss", "val_repeated_charades25"} <= set(record) for record in validations)
    model, metadata = load_model(multi_label_run / "best.safetensors")
    assert (metadata["task"], metadata["ensemble"]) == ("multi-label", "max")
    assert model.head.scores == "sigmoid"
    assert metadata["metrics"]["val"]["map"] == max(record["val_map"] for record in validations)
    figures = json.loads((multi_label_run / "test.json").read_text())["2x3"]
    assert (figures["task"], figures["ensemble"]) == ("multi-label", "max")
    assert figures["temporal_rule"] == "x3d-multigrid"
    log = (multi_label_run / "log.txt").read_text()
    assert "validation 2x1: mAP" in log
    assert "test of the best weights, 2x3 views of 4 videos: mAP" in log
    assert "the best of 3 validations" in log
    rates = [record["lr"] for record in records(multi_label_run) if "lr" in record]
    assert set(rates) == {0.05}  # a plateau of three validations is not long enough


@pytest.mark.parametrize("recipe", ["x3d_m_charades", "x3d_m_charades_loc"])
def test_a_validation_without_any_action_is_refused(
    recipe: str, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    data = make_official(tmp_path / "official", source)
    lists = data / "Charades" / "Charades_v1_test.csv"
    with lists.open(newline="") as file:
        rows = [{**row, "actions": ""} for row in csv.DictReader(file)]
    with lists.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    flags = [*TINY, "--data", str(data), "--out", str(tmp_path / "run")]
    assert main(["train", recipe, *flags]) == 2
    error = capsys.readouterr().err
    assert f"{data}: none of the 4 videos of split val has an action" in error
    assert not (tmp_path / "run").exists()


def test_testing_several_labels(multi_label_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "t"
    flags = ["--views", "1x1,3x3", "--workers", "0", "--out", str(folder)]
    assert main(["test", str(multi_label_run), *flags, "--temporal-rule", "pyslowfast-charades"]) == 0
    told = capsys.readouterr().out
    assert "temporal rule pyslowfast-charades, maximum of the views' sigmoid" in told
    assert "mAP" in told
    assert "mean over the classes with a positive, as in scikit-learn" in told
    assert "charades-25 repeated: control" in told
    result = MultiLabelResult.load(folder / "val_scores_3x3.npz")
    assert result.num_videos == NUM_TEST
    assert (folder / "val_submission_classify_3x3.txt").read_text().count("\n") == NUM_TEST
    assert (folder / "val_classes_3x3.png").is_file()
    assert (folder / "val_sparse_views.svg").is_file()
    capsys.readouterr()
    assert main(["test", str(multi_label_run), *flags, "--ensemble", "mean", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert [figures["ensemble"] for figures in record["results"]] == ["mean", "mean"]
    assert main(["test", str(multi_label_run), "--overlap", "0.5"]) == 2
    assert "--overlap: has no effect on a model trained for multi-label" in capsys.readouterr().err


def test_predicting_several_labels(multi_label_run: Path, source: Path, capsys: pytest.CaptureFixture[str]):
    video = source / "videos" / "V0000.mp4"
    assert main(["predict", str(video), "--run", str(multi_label_run), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)[0]
    prediction = Predictor(multi_label_run)(video)
    assert prediction.window_scores.shape[0] > 1
    np.testing.assert_array_equal(prediction.scores, prediction.window_scores.max(axis=0))
    assert told["top"][0]["score"] == round(prediction.score, 6)
    model, _ = load_model(multi_label_run / "best.safetensors")
    clip = Predictor(multi_label_run).clip
    few = Predictor(model, clip=clip, views="1x1", task="multi-label")(video)
    assert few.scores.sum() != pytest.approx(1.0)
    assert main(["predict", str(video), "--run", str(multi_label_run), "--localize"]) == 2
    assert "was trained for multi-label, not to say when things happen" in capsys.readouterr().err


def test_a_run_that_localises(localization_run: Path):
    validations = [record for record in records(localization_run) if "val_charades25" in record]
    assert len(validations) == 3
    expected = {"val_per_frame", "val_map", "val_repeated_charades25", "val_loss"}
    assert all(expected <= set(record) for record in validations)
    model, metadata = load_model(localization_run / "best.safetensors")
    assert metadata["task"] == "localization"
    assert model.head.localization
    best = max(record["val_charades25"] for record in validations)
    assert metadata["metrics"]["val"]["charades25"] == best
    figures = json.loads((localization_run / "test.json").read_text())["windows"]
    assert figures["charades25"] == best
    assert figures["overlap"] == 0.5
    assert (
        "test of the best weights, windows of 4 videos: charades-25"
        in (localization_run / "log.txt").read_text()
    )
    result = LocalizationResult.load(localization_run / "test_scores_windows.npz")
    assert result.num_frames.min() >= 36


def test_testing_in_time(localization_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    folder = tmp_path / "t"
    flags = ["--workers", "0", "--out", str(folder)]
    assert main(["test", str(localization_run), *flags]) == 0
    told = capsys.readouterr().out
    assert "protocol: complete videos in windows of 4 frames x stride 3 at 24 fps, overlap 50 %" in told
    assert "charades-25" in told
    assert "per-frame" in told
    lines = (folder / "val_submission_localize.txt").read_text().splitlines()
    assert len(lines) == 25 * NUM_TEST
    assert main(["test", str(localization_run), *flags, "--shuffle-frames", "--overlap", "0.25"]) == 0
    assert "control: the frames of each view are shuffled" in capsys.readouterr().out
    shuffled = LocalizationResult.load(folder / "val_shuffled_scores_windows.npz")
    assert (shuffled.shuffled, shuffled.overlap) == (True, 0.25)
    for flag in (["--views", "10x3"], ["--temporal-rule", "saccade"], ["--ensemble", "max"]):
        assert main(["test", str(localization_run), *flag]) == 2
        assert f"{flag[0]}: has no effect on a model trained for localization" in capsys.readouterr().err
    assert main(["test", str(localization_run), "--overlap", "1"]) == 2
    assert "overlap: " in capsys.readouterr().err


def test_predict_localize(
    localization_run: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    videos = [str(source / "videos" / f"V000{number}.mp4") for number in range(2)]
    run = ["--run", str(localization_run)]
    flags = ["--localize", "--out", str(tmp_path), "--threshold", "0.2"]
    assert main(["predict", *videos, *run, *flags]) == 0
    told = capsys.readouterr().out
    assert "V0000.mp4" in told
    assert "actions above 0.2" in told
    locate = Localizer(localization_run)
    for video in videos:
        stem = Path(video).stem
        assert (tmp_path / f"{stem}.timeline.png").stat().st_size > 2000
        record = json.loads((tmp_path / f"{stem}.timeline.json").read_text())
        timeline = locate(video)
        assert record == timeline.to_dict(0.2)
        with open_video(video) as reader:
            assert timeline.scores.shape == (len(reader), 12)
    assert main(["predict", videos[0], str(tmp_path / "gone.mp4"), *run, *flags, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told[0]["threshold"] == 0.2
    assert "no such file" in told[1]["error"]


def test_the_localizer_and_the_test_give_the_same_scores(
    localization_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The one reads a video in pieces, the other whole; both see 24 frames a second."""
    result = LocalizationResult.load(localization_run / "test_scores_windows.npz")
    locate = Localizer(localization_run, batch_size=2, frames_fps=24.0)
    for number, path in enumerate(result.paths):
        expected = torch.sigmoid(torch.from_numpy(result.at_frames(number))).numpy()
        np.testing.assert_allclose(locate(path).scores, expected, atol=1e-5)
    flags = ["--localize", "--out", str(tmp_path), "--json"]
    for fps in ([], ["--fps", "24"]):
        assert main(["predict", result.paths[0], "--run", str(localization_run), *flags, *fps]) == 0
        told = json.loads(capsys.readouterr().out)[0]
        assert told["fps"] == (24 if fps else 30)  # a bare folder of frames does not say its rate


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--localize", "--views", "3x1"], "--views: has no effect with --localize"),
        (["--localize", "--jsonl", "x"], "--jsonl: has no effect with --localize"),
        (["--localize", "--threshold", "2"], "--threshold: must be between 0 and 1"),
        (["--threshold", "0.3"], "--threshold: has no effect without --localize"),
        ([], "was trained for localization; add --localize"),
    ],
)
def test_flags_of_predict_that_do_not_go_together(
    localization_run: Path, source: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    video = str(source / "videos" / "V0000.mp4")
    assert main(["predict", video, "--run", str(localization_run), *flags]) == 2
    assert message in capsys.readouterr().err


def test_visualize_timeline(
    localization_run: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    video, out = source / "videos" / "V0001.mp4", tmp_path / "x.mp4"
    run = ["--run", str(localization_run)]
    assert main(["visualize", "timeline", str(video), *run, "--out", str(out), "--threshold", "0.1"]) == 0
    assert str(out) in capsys.readouterr().out
    with open_video(video) as reader, open_video(out) as rendered:
        assert (len(rendered), rendered.fps) == (len(reader), reader.fps)
        height, width = rendered.size
        assert width >= 480
        assert height > width * reader.size[0] / reader.size[1] + 20  # the panel is below
    assert main(["visualize", "timeline", str(video), *run, "--out", "x.gif"]) == 2
    assert "--out x.gif: the video must end in .mp4" in capsys.readouterr().err
    assert main(["visualize", "timeline", str(video)]) == 2
    assert "give a model: --run RUN" in capsys.readouterr().err


def test_resuming_is_exact(official: Path, localization_run: Path, tmp_path: Path):
    out = tmp_path / "again"
    train("x3d_m_charades_loc", official, out, "--val-every", "1", "--epochs", "3")
    state = torch.load(out / "last.pt", weights_only=True)
    assert state["progress"]["score_name"] == "charades-25"
    assert state["data"]["labels"][0][0][0] in range(12)
    one, other = (load_model(run / "best.safetensors")[0].state_dict() for run in (out, localization_run))
    assert all(value.equal(other[name]) for name, value in one.items())


def test_a_checkpoint_of_x3d_multigrid_says_its_task_by_flag(
    source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    root = make_json(tmp_path / "json", source)
    torch.manual_seed(0)
    model = create_model("x3d_xs", 157)
    torch.save({"model_state_dict": model.state_dict()}, tmp_path / "weights.pt")
    flags = ["--model", "x3d_xs", "--num-classes", "157", "--data", str(root), "--workers", "0"]
    flags += ["--frames", "4", "--stride", "3", "--crop", "32", "--short-side", "32"]
    weights = str(tmp_path / "weights.pt")
    out = ["--out", str(tmp_path / "t")]
    for task, name in (("multi-label", "map"), ("localization", "charades25")):
        assert main(["test", weights, *flags, *out, "--task", task, "--json"]) == 0
        record = json.loads(capsys.readouterr().out)
        assert record["results"][0]["task"] == task
        assert record["results"][0][name] is not None
    assert main(["test", weights, *flags, *out]) == 2
    assert "data set is multi-label" in capsys.readouterr().err


def test_tasks_and_data_that_do_not_fit(
    official: Path, source: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    args = ["train", "x3d_ucf10", *TINY, "--data", str(official), "--out", str(tmp_path / "run")]
    assert main(args) == 2
    assert "task: " in (told := capsys.readouterr().err)
    assert "data set is multi-label" in told
    args = ["train", "x3d_motion_loc", *TINY, "--data", str(source), "--out", str(tmp_path / "run")]
    assert main([*args, "--temporal-rule", "tsm"]) == 2
    assert "temporal_rule: task localization needs saccade" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["vov3d_m", "rubiksnet_tiny"])
def test_other_models_localise(name: str, source: Path, tmp_path: Path):
    small = {
        "vov3d_m": ["inner_channels", "4", "depths", "1,1,1,1", "num_conv", "1", "head_width", "16"],
        "rubiksnet_tiny": ["width", "8", "depths", "1,1,1,1"],
    }
    out = tmp_path / name
    rest = TINY[TINY.index("--model.dropout") :]
    flags = ["--model.name", name, "--model.overrides", *small[name], *rest, "--epochs", "1"]
    assert main(["train", "x3d_m_charades_loc", *flags, "--data", str(source), "--out", str(out)]) == 0
    assert json.loads((out / "test.json").read_text())["windows"]["num_videos"] == NUM_TEST


@pytest.mark.parametrize("recipe", ["x3d_motion_loc", "x3d_motion_multilabel"])
def test_multigrid_changes_the_shapes_of_labels_too(recipe: str, source: Path, tmp_path: Path):
    out = tmp_path / "grid"
    flags = ["--multigrid", "long", "--batch-size", "2", "--epochs", "8", "--grid.bn-base-size", "0"]
    flags += ["--grid.long-frames", "0.5", "1", "--grid.long-crops", "1", "1", "--grid.cycle-ends", "0.6"]
    train(recipe, source, out, *flags, "--val-every", "8", "--val-views", "1x1", "--test-views", "")
    losses = [record["loss"] for record in records(out) if "loss" in record]
    assert len(losses) > 4
    assert np.isfinite(losses).all()


def test_localisation_learns_when_things_happen(tmp_path: Path):
    """Grey videos with a bright and a dark stretch; scores repeated over time cannot tell when these are."""
    from saccade.video import write_video

    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("val", 6)):
        rows = ["id,actions,length"]
        for number in range(count):
            levels, actions = np.full(60, 110), []
            for label, (level, half) in enumerate(((225, 0), (15, 30))):
                start = half + int(rng.integers(2, 14))
                levels[start : start + 12] = level
                actions.append(f"c{label:03d} {(start - 0.5) / 24:.2f} {(start + 11.5) / 24:.2f}")
            frames = levels[:, None, None, None] + rng.integers(-15, 15, (60, 36, 40, 3))
            name = f"{split}{number}"
            write_video(tmp_path / f"{name}.mp4", frames.clip(0, 255).astype(np.uint8), fps=24)
            rows.append(f"{name},{';'.join(actions)},2.5")
        (tmp_path / f"{split}.csv").write_text("\n".join(rows))
    out = tmp_path / "run"
    flags = ["--epochs", "14", "--val-every", "14", "--optim.name", "adamw", "--optim.lr", "0.01"]
    train("x3d_motion_loc", tmp_path, out, *flags)
    result = LocalizationResult.load(out / "test_scores_windows.npz")
    assert result.map == pytest.approx(1.0)  # both happen in every video
    assert result.repeated_charades25 < 0.3
    assert result.charades25 > 0.8
    assert result.per_frame > 0.8
