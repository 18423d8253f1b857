from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from saccade.cli import main
from saccade.clip import ClipSpec
from saccade.models import create_model, save_weights
from saccade.tasks import TestResult
from saccade.video import write_video

NAMES = ["closing", "opening", "waiting"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("test_command")
    rng = np.random.default_rng(0)
    for split, count in (("train", 1), ("val", 2)):
        for name in NAMES:
            (place / "clips" / split / name).mkdir(parents=True)
            for number in range(count):
                frames = rng.integers(0, 255, (20, 36, 48, 3)).astype(np.uint8)
                write_video(place / "clips" / split / name / f"{number}.mp4", frames, fps=30)
    torch.manual_seed(0)
    model = create_model("x2d", num_classes=3, gamma_w=0.25, head_width=32)
    clip = ClipSpec(num_frames=4, stride=3, crop=32, short_side=32)
    metadata = {"class_names": NAMES, "clip": asdict(clip), "pairs": [[0, 1]], "temporal_rule": "pyslowfast"}
    (place / "run").mkdir()
    save_weights(model, place / "run" / "best.safetensors", metadata)
    (place / "run" / "config.json").write_text(json.dumps({"config": {"data": "clips"}}))
    torch.save(model.state_dict(), place / "foreign.pth")
    return place


@pytest.fixture(autouse=True)
def _there(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    monkeypatch.setenv("COLUMNS", "120")


def test_several_view_sets_give_tables_scores_and_the_sparse_view_curve(
    place: Path, capsys: pytest.CaptureFixture[str]
):
    assert main(["test", "run", "--views", "1x1,2x1,2x3", "--workers", "0"]) == 0
    out = capsys.readouterr().out
    for words in (
        "protocol: clips of 4 frames x stride 3 at 30 fps, short side 32, crop 32, temporal rule pyslowfast",
        "6 videos, 3 classes",
        "GMACs x views",
        "clips/s with decoding",
        "clips/s the model alone, on cpu in float32",
        "95 % interval",
        "time is worth",
        "class (worst first)",
        "saved to run/test",
    ):
        assert words in out, words
    files = {path.name for path in (place / "run" / "test").iterdir()}
    assert {"val_scores_1x1.npz", "val_scores_2x3.npz", "val_result.json"} <= files
    assert {"val_sparse_views.svg", "val_sparse_views.png", "val_confusion_2x3.svg"} <= files
    record = json.loads((place / "run" / "test" / "val_result.json").read_text())
    assert [result["views"] for result in record["results"]] == ["1x1", "2x1", "2x3"]
    controls = record["results"][2]["controls"]
    assert (controls["views"], controls["num_videos"]) == ("1x1", 6)
    passes = [(each["name"], each["num_passes"]) for each in controls["controls"]]
    assert passes == [("shuffle", 3), ("repeat", 1), ("reverse", 1)]
    loaded = TestResult.load(place / "run" / "test" / "val_scores_2x3.npz")
    assert loaded.top1 == record["results"][2]["top1"]
    assert loaded.class_names == tuple(NAMES)


def test_json_is_all_there_is_on_stdout(capsys: pytest.CaptureFixture[str]):
    assert main(["test", "run", "--json", "--workers", "0", "--shuffle-frames", "--out", "elsewhere"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["results"][0]["shuffled_frames"] is True
    assert Path("elsewhere/val_shuffled_scores_1x1.npz").is_file()


def test_the_control_is_named_as_such(capsys: pytest.CaptureFixture[str]):
    assert main(["test", "run", "--workers", "0", "--shuffle-frames", "--out", "elsewhere"]) == 0
    assert "frames of each view are shuffled" in capsys.readouterr().out


def test_controls_are_chosen_by_flags(capsys: pytest.CaptureFixture[str]):
    flags = ["--controls", "shuffle", "--control-seeds", "2", "--control-clips", "4", "--seed", "5"]
    common = ["test", "run", "--json", "--workers", "0", "--out", "elsewhere"]
    assert main([*common, *flags]) == 0
    found = json.loads(capsys.readouterr().out)["results"][0]["controls"]
    assert [(each["name"], each["num_passes"]) for each in found["controls"]] == [("shuffle", 2)]
    assert (found["num_videos"], found["num_tested"]) == (4, 6)
    assert main([*common, "--no-controls"]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["controls"] is None


@pytest.fixture(scope="module")
def two_class_run(place: Path) -> Path:
    """A run of two of the classes, and a data set of them."""
    for split in ("train", "val"):
        (place / "two" / split).mkdir(parents=True)
        for name in NAMES[:2]:
            (place / "two" / split / name).symlink_to(place / "clips" / split / name)
    torch.manual_seed(1)
    model = create_model("x2d", num_classes=2, gamma_w=0.25, head_width=32)
    clip = ClipSpec(num_frames=4, stride=3, crop=32, short_side=32)
    (place / "two_run").mkdir()
    metadata = {"class_names": NAMES[:2], "clip": asdict(clip)}
    save_weights(model, place / "two_run" / "best.safetensors", metadata)
    (place / "two_run" / "config.json").write_text(json.dumps({"config": {"data": "two"}}))
    return place / "two_run"


def test_two_classes_have_auc_f1_and_a_threshold(two_class_run: Path, capsys: pytest.CaptureFixture[str]):
    flags = ["test", str(two_class_run), "--workers", "0", "--out", "elsewhere", "--no-controls"]
    assert main([*flags, "--json", "--positive", NAMES[0], "--false-alarms", "0.5"]) == 0
    record = json.loads(capsys.readouterr().out)
    scores = TestResult.load("elsewhere/val_scores_1x1.npz")
    expected = scores.two_class(positive=0, false_alarms=0.5)
    assert record["results"][0]["two_class"] == expected
    assert (expected["positive"], expected["operating_point"]["false_alarms"] <= 0.5) == (NAMES[0], True)
    assert record["results"][0]["model_clips_per_second"] > 0
    assert record["suspects"] == []
    assert Path("elsewhere/val_reliability_1x1.png").is_file()
    assert main([*flags, "--false-alarms", "0.01"]) == 0
    out = capsys.readouterr().out
    assert f"the positive class is {NAMES[1]}" in out
    assert "2 clips of the other class cannot show a rate of 1.0 %" in out
    assert "the model alone" in out


def test_two_models_are_compared_on_the_same_videos(
    two_class_run: Path, place: Path, capsys: pytest.CaptureFixture[str]
):
    torch.manual_seed(2)
    other = create_model("x2d", num_classes=3, gamma_w=0.25, head_width=32)
    clip = ClipSpec(num_frames=2, stride=2, crop=32, short_side=32)
    names = NAMES[::-1]  # in another order
    save_weights(other, place / "other.safetensors", {"class_names": names, "clip": asdict(clip)})
    flags = ["test", "run", "--json", "--workers", "0", "--out", "elsewhere", "--no-controls"]
    assert main([*flags, "--views", "1x1,2x1", "--against", "other.safetensors"]) == 0
    found = json.loads(capsys.readouterr().out)["against"]
    assert [entry["views"] for entry in found] == ["1x1", "2x1"]
    assert main(["test", "other.safetensors", "--data", "clips", "--out", "others", "--workers", "0"]) == 0
    capsys.readouterr()
    assert main([*flags, "--against", "others/val_scores_1x1.npz"]) == 0
    (saved,) = json.loads(capsys.readouterr().out)["against"]
    assert saved == found[0] | {"other": "others/val_scores_1x1.npz"}
    first, second = (TestResult.load(f"{name}/val_scores_1x1.npz") for name in ("elsewhere", "others"))
    assert saved["num_videos"] == 6
    assert saved["difference"] == pytest.approx(first.top1 - second.top1)
    assert main([*flags, "--views", "2x1", "--against", "others/val_scores_1x1.npz"]) == 2
    assert "--views 1x1" in capsys.readouterr().err
    assert main([*flags, "--against", str(two_class_run)]) == 2
    assert "classes" in capsys.readouterr().err


def test_an_unreadable_video_is_named_and_the_exit_code_is_1(place: Path, capsys: pytest.CaptureFixture[str]):
    bad = place / "clips" / "val" / NAMES[0] / "bad.mp4"
    bad.write_bytes(b"no video")
    try:
        assert main(["test", "run", "--workers", "0", "--out", "elsewhere"]) == 1
    finally:
        bad.unlink()
    captured = capsys.readouterr()
    assert "6 videos" in captured.out
    assert "1 of 7 videos could not be read" in captured.err
    assert "bad.mp4" in captured.err


def test_a_foreign_checkpoint_is_tested_with_its_model_named(capsys: pytest.CaptureFixture[str]):
    args = ["test", "run/best.safetensors", "--data", "clips", "--workers", "0", "--out", "elsewhere"]
    assert main([*args, "--stride", "2", "--temporal-rule", "saccade"]) == 0
    assert "stride 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["run", "--views", "3"], 2, "CLIPSxCROPS"),
        (["run", "--temporal-rule", "middle"], 2, "known are saccade"),
        (["run", "--controls", "mirror"], 2, "mirror"),
        (["run", "--false-alarms", "0.1"], 2, "two classes"),
        (["run", "--against", "absent"], 2, "absent"),
        (["run", "--no-controls", "--control-seeds", "2"], 2, "--no-controls"),
        (["run/best.safetensors"], 2, "give --data"),
        (["run", "--data", "absent"], 2, "absent"),
        (["absent", "--data", "clips"], 2, "no such run folder"),
        (["foreign.pth", "--data", "clips"], 2, "--model"),
        (["foreign.pth", "--model", "x2d", "--num-classes", "9", "--data", "clips"], 2, "foreign.pth"),
        (["run", "--labels", "kinetics400"], 2, "400 names"),
        (["run", "--batch-size", "0"], 2, "at least 1"),
        (["run", "--splti", "val"], 2, "--splti"),
    ],
)
def test_wrong_use_is_one_line(capsys: pytest.CaptureFixture[str], args: list[str], code: int, words: str):
    assert main(["test", "--workers", "0", *args]) == code
    err = capsys.readouterr().err
    assert words in err
    assert "Traceback" not in err


def test_classes_must_be_those_of_the_weights(place: Path, capsys: pytest.CaptureFixture[str]):
    model = create_model("x2d", num_classes=5, gamma_w=0.25, head_width=32)
    save_weights(model, place / "five.safetensors", {})
    assert main(["test", "five.safetensors", "--data", "clips", "--workers", "0"]) == 2
    assert "clips has 3 classes, but five.safetensors has 5" in capsys.readouterr().err


@pytest.mark.parametrize(("flags", "expected"), [([], 12.0), (["--fps", "24"], 24.0)])
def test_folders_of_images_have_the_rate_of_the_run(
    flags: list[str], expected: float, place: Path, monkeypatch: pytest.MonkeyPatch
):
    import saccade.evaluation

    class Enough(BaseException):
        pass

    def recorded(*args: object, **options: object) -> None:
        assert options["frames_fps"] == expected
        raise Enough

    settings = place / "run" / "config.json"
    before = settings.read_text()
    settings.write_text(json.dumps({"config": {"data": "clips", "frames_fps": 12.0}}))
    monkeypatch.setattr(saccade.evaluation, "evaluate", recorded)
    try:
        with pytest.raises(Enough):
            main(["test", "run", *flags, "--workers", "0"])
    finally:
        settings.write_text(before)


def test_a_folder_without_splits_is_tested_whole(place: Path, capsys: pytest.CaptureFixture[str]):
    for split in ("train", "val"):
        for name in NAMES:
            for file in (place / "clips" / split / name).glob("*.mp4"):
                (place / "flat" / name).mkdir(parents=True, exist_ok=True)
                (place / "flat" / name / f"{split}{file.name}").write_bytes(file.read_bytes())
    common = ["test", "run", "--workers", "0", "--json", "--out", "elsewhere"]
    assert main([*common, "--data", "flat"]) == 0
    shown = capsys.readouterr()
    record = json.loads(shown.out)
    assert (record["split"], record["results"][0]["num_videos"]) == ("all", 9)
    assert "flat: states no splits, so all of it is tested" in shown.err
    assert "held out" not in shown.err
    assert main([*common, "--data", "flat", "--split", "val"]) == 0
    assert json.loads(capsys.readouterr().out)["results"][0]["num_videos"] == 3
    assert main([*common, "--data", "clips"]) == 0  # states its splits
    assert json.loads(capsys.readouterr().out)["split"] == "val"


def test_the_data_of_the_run_without_splits_is_tested_on_what_was_held_out(
    place: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    (place / "again").mkdir(exist_ok=True)
    (place / "again" / "best.safetensors").write_bytes((place / "run" / "best.safetensors").read_bytes())
    (place / "again" / "config.json").write_text(json.dumps({"config": {"data": "clips/val"}}))
    for data in ([], ["--data", "./clips/val"]):
        assert main(["test", "again", "--workers", "0", "--json", "--out", str(tmp_path), *data]) == 0
        record = json.loads(capsys.readouterr().out)
        assert (record["split"], record["results"][0]["num_videos"]) == ("val", 3)
