"""The flags that commands share: fields of recipes, overrides of the model, booleans in every form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from saccade.cli import main
from saccade.cli.fields import parse_fields, take_overrides
from saccade.cli.flags import Parser, add_model, add_overrides, load_from_flags, not_negative, positive, score
from saccade.errors import UsageError, VideoError
from saccade.models import create_model
from saccade.recipes import get_recipe
from saccade.training import TrainConfig

OVERRIDES = {
    "localization": True,
    "gamma_d": 2,
    "dropout": 0.5,
    "pool": None,
    "stages": [1, 2],
    "head": "mean",
}


def parse(*args: str) -> TrainConfig:
    config = parse_fields(get_recipe("x3d_ucf10"), args, prog="saccade train x3d_ucf10")
    assert config is not None
    return config


def test_causal_is_an_override():
    rest, found = take_overrides(["--causal", "--epochs", "3", "--model.overrides", "se=frame"])
    assert found == {"causal": True, "se": "frame"}
    assert rest == ["--epochs", "3"]


@pytest.mark.parametrize(
    "args",
    [
        "--model.overrides localization true gamma_d 2 dropout .5 pool null stages [1,2] head mean",
        "--model.overrides localization=True gamma-d=2 dropout=0.5 pool=None stages=[1,2] head=mean",
        "--model.overrides localization true gamma_d 2 --epochs 3 --model.overrides dropout 5e-1 pool None "
        'stages [1,2] head "mean"',
        "--model.overrides.localization --model.overrides.gamma-d=2 --model.overrides.dropout 0.5 "
        "--model.overrides.pool null --model.overrides.stages [1,2] --model.overrides.head mean",
        "--model.overrides=" + json.dumps(OVERRIDES, separators=(",", ":")),
        "--model.overrides " + json.dumps(OVERRIDES, separators=(",", ":")),
    ],
)
def test_syntaxes_of_overrides(args: str):
    rest, found = take_overrides(args.split())
    assert found == OVERRIDES
    assert rest in ([], ["--epochs", "3"])
    assert [type(value) for value in found.values()] == [type(value) for value in OVERRIDES.values()]
    inherited = get_recipe("x3d_ucf10").model.overrides
    assert parse(*args.split()).model.overrides == inherited | OVERRIDES


@pytest.mark.parametrize(
    "args", [[], ["gamma_w"], ["gamma_w", "1", "x"], ["[1]"], ['{"gamma_w": 1'], ["a=1", "b"]]
)
def test_invalid_overrides(args: list[str]):
    if args == ["a=1", "b"]:  # a pair: an option of that name, which no model has
        assert take_overrides(["--model.overrides", *args])[1] == {"a=1": "b"}
        return
    with pytest.raises(UsageError, match=r"--model\.overrides"):
        take_overrides(["--model.overrides", *args])


def test_commands_parse_overrides_like_training():
    parser = Parser(prog="x")
    parser.add_argument("pattern", nargs="?")
    add_overrides(parser)
    options = parser.parse_args(["x3d_s", "--model.overrides", "localization", "true", "gamma_w", "0.5"])
    assert (options.pattern, options.overrides) == ("x3d_s", {"localization": True, "gamma_w": 0.5})
    assert parser.parse_args([]).overrides == {}


def test_models_are_counted_with_overrides(capsys: pytest.CaptureFixture[str]):
    def record(*flags: str) -> dict[str, Any]:
        assert main(["models", "x3d_xs", "--json", *flags]) == 0
        (found,) = json.loads(capsys.readouterr().out)
        return found

    plain, wide = record(), record("--model.overrides", "gamma_w", "2")
    assert wide["params"] > 2 * plain["params"]
    assert wide["gmacs"] > 2 * plain["gmacs"]
    assert plain["top1"]
    assert not wide["top1"]
    assert main(["models", "x3d_xs", "--model.overrides", "gama_w", "2"]) == 2
    assert "gamma_w" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "value"),
    [
        ("--people.full-validation", True),
        ("--people.full-validation True", True),
        ("--people.full_validation=true", True),
        ("--people.full-validation false", False),
        ("--people.full-validation=False", False),
        ("--people.no-full-validation", False),
        ("--people.no-full-validation true", False),
    ],
)
def test_syntaxes_of_booleans(flags: str, value: bool):
    assert parse(*flags.split()).people.full_validation is value


@pytest.mark.parametrize("flags", ["--compile=maybe", "--compile none", "--no-channels-last=none"])
def test_invalid_booleans(flags: str):
    with pytest.raises(UsageError, match=flags.replace("=", " ").split()[0]):
        parse(*flags.split())


def test_optional_booleans():
    assert parse("--channels-last", "none").channels_last is None
    assert parse("--channels-last", "--compile").channels_last is True
    assert parse("--channels-last=false").channels_last is False


def test_switches_of_every_command_take_a_value():
    parser = Parser(prog="x")
    parser.add_argument("videos", nargs="*")
    parser.add_argument("--json", action="store_true")
    for args, value in (
        ("--json", True),
        ("--json true", True),
        ("--json=False", False),
        ("--json false", False),
    ):
        options = parser.parse_args(["a.mp4", *args.split()])
        assert (options.json, options.videos) == (value, ["a.mp4"])
    assert parser.parse_args(["--json", "a.mp4"]).videos == ["a.mp4"]
    with pytest.raises(UsageError, match="--json"):
        parser.parse_args(["--json=maybe"])


@pytest.mark.parametrize(
    ("kind", "text"),
    [(positive, "0"), (positive, "1.5"), (not_negative, "-1"), (score, "1.1"), (score, "nan"), (score, "x")],
)
def test_values_out_of_range(kind: Any, text: str):
    parser = Parser(prog="saccade x")
    parser.add_argument("--flag", type=kind)
    with pytest.raises(UsageError, match=rf"--flag: .*{text}.*saccade x --help") as error:
        parser.parse_args(["--flag", text])
    assert str(error.value).startswith("--flag")


def test_checkpoints_are_built_with_overrides(tmp_path: Path):
    model = create_model("x2d", 4, gamma_w=0.5, head_width=32)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    parser = Parser(prog="x")
    add_model(parser)
    flags = ["--model", "x2d", "--num-classes", "4", "--device", "cpu", "--model.overrides"]
    options = parser.parse_args([*flags, "gamma_w", "0.5", "head_width", "32"])
    loaded = load_from_flags(str(tmp_path / "weights.pt"), None, options)
    assert loaded.model.config.gamma_w == 0.5
    for name, value in model.state_dict().items():
        assert torch.equal(loaded.model.state_dict()[name], value)
    with pytest.raises(UsageError, match=r"model\.overrides"):  # weights of ours say how they are built
        load_from_flags(str(tmp_path), None, parser.parse_args(["--model.overrides", "gamma_w", "0.5"]))


@pytest.mark.parametrize(
    "command",
    [
        "test RUN --data RUN",
        "predict a.mp4 --run RUN",
        "predict a.mp4 --run RUN --localize",
        "visualize gradcam RUN a.mp4",
        "visualize attention RUN a.mp4",
        "visualize hog RUN a.mp4",
        "visualize embedding RUN",
        "visualize timeline a.mp4 --run RUN",
        "data check RUN",
        "train x3d_motion --data RUN",
    ],
)
def test_every_command_that_reads_video_has_the_flag_backend(
    command: str, capsys: pytest.CaptureFixture[str]
):
    args = [word.replace("RUN", "no such folder") for word in command.split()]
    assert main([*args, "--backend", "vhs"]) == 2
    error = capsys.readouterr().err
    assert "--backend" in error
    assert "vhs" in error
    assert main([*args, "--backend", "torchcodec"]) in (1, 2)  # gets as far as the folder, or the decoder
    error = capsys.readouterr().err
    assert "no such folder" in error or "torchcodec" in error


def test_backend_is_passed_to_the_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """`saccade data check` opens every file with it; the others hand it on in the same way."""
    used = []

    def open_video(path: str, backend: str = "auto", **options: Any) -> None:
        used.append(backend)
        raise VideoError(path, "is not read here")

    monkeypatch.setattr("saccade.video.open_video", open_video)
    for split in ("train", "val"):
        (tmp_path / split / "a").mkdir(parents=True)
        (tmp_path / split / "a" / "1.mp4").write_text(split)
    assert main(["data", "check", str(tmp_path), "--backend", "torchcodec", "--workers", "0"]) == 1
    assert used == ["torchcodec", "torchcodec"]


def test_convert_detects_the_model_of_our_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    from saccade.models import load_model, save_weights

    source = create_model("x2d", 3, gamma_w=0.5)
    save_weights(source, tmp_path / "a.safetensors", {"class_names": ["u", "v", "w"]})
    assert main(["convert", str(tmp_path / "a.safetensors"), str(tmp_path / "b.safetensors")]) == 0
    assert "x2d, 3 classes" in capsys.readouterr().out
    model, metadata = load_model(tmp_path / "b.safetensors")
    assert metadata["class_names"] == ["u", "v", "w"]
    assert model.config == source.config
    assert all(torch.equal(model.state_dict()[k], v) for k, v in source.state_dict().items())


def test_a_dry_run_says_rate_warm_up_and_batch(capsys: pytest.CaptureFixture[str]):
    args = ["train", "x3d_m_k400", "--dry-run", "--num-clips", "1000", "--batch-size", "64"]
    assert main(args) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert "learning rate 0.05 for batches of 64 clips (0.1 for 128)" in first
    assert "35 epochs of warm-up from 0.005" in first
