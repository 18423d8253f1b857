from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from saccade.cli import main
from saccade.cli.fields import condensed, parse_fields
from saccade.errors import UsageError
from saccade.recipes import get_recipe
from saccade.training import TrainConfig


def parse(*args: str) -> TrainConfig:
    config = parse_fields(get_recipe("x3d_ucf10"), list(args), prog="saccade train x3d_ucf10")
    assert config is not None
    return config


def test_fields_of_every_kind():
    config = parse(
        *("--optim.lr", "0.3", "--augment.short_side", "120", "140", "--compile", "--no-channels-last"),
        *("--model.overrides", "gamma_w", "0.5", "head_width", "512", "head_pool", "global"),
        *("--epochs", "2.5", "--optim.name=adamw"),
    )
    assert config.optim.lr == 0.3
    assert config.optim.name == "adamw"
    assert config.augment.short_side == (120, 140)
    assert config.compile
    assert not config.channels_last
    assert config.epochs == 2.5
    inherited = get_recipe("x3d_ucf10").model.overrides
    assert config.model.overrides == {**inherited, "gamma_w": 0.5, "head_width": 512, "head_pool": "global"}
    assert type(config.model.overrides["head_width"]) is int


@pytest.mark.parametrize(
    ("flags", "value"),
    [
        ((), None),
        (("--channels-last",), True),
        (("--channels_last", "--compile"), True),
        (("--channels-last", "False"), False),
        (("--no-channels-last",), False),
    ],
)
def test_the_layout_is_the_models_unless_said(flags: tuple[str, ...], value: bool | None):
    assert parse(*flags).channels_last is value


def test_nothing_given_changes_nothing():
    assert parse() == get_recipe("x3d_ucf10")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--optim.lrr", "3"], "unknown flag --optim.lrr; did you mean --optim.lr"),
        (["--lr", "3"], "unknown flag --lr; did you mean .*--optim.lr"),
        (["--batch", "3"], r"unknown flag --batch; did you mean --batch-size\?$"),
        (["--epoch=3"], "unknown flag --epoch; did you mean --epochs"),
        (["--bogus", "3"], "unknown flag --bogus; see saccade train x3d_ucf10 --help$"),
        (["--optim.bogus", "3"], "unknown flag --optim.bogus; see saccade train x3d_ucf10 --help$"),
        (["--optim.lr", "fast"], "--optim.lr: could not convert string to float: 'fast'"),
        (["--optim.name", "lion"], "invalid choice 'lion' for argument '--optim.name'.*'sgd', 'adamw'"),
        (["--augment.short-side", "120"], "--augment.short-side: must be None or INT INT, got 120"),
        (["clips"], "Unrecognized options: clips"),
        (["--epochs"], "--epochs"),
        (["--model.overrides", "gamma_w"], "--model.overrides: needs names and values"),
    ],
)
def test_a_wrong_flag_is_one_line(args: list[str], message: str):
    with pytest.raises(UsageError, match=message) as error:
        parse(*args)
    assert "\n" not in str(error.value)
    assert "─" not in str(error.value)


PLAIN = """ Missing argument
 ------------------
  Missing value for
  '--data'.
 ------------------
  For full helptext
"""
FRAMED = """╭─ Missing argument ─╮
│ RED Missing PLAIN value for │
│ '--data'. │
│ ───────── │
│ For full helptext │
╰───────────────────╯
""".replace("RED ", "\x1b[1;31m").replace(" PLAIN", "\x1b[0m")


@pytest.mark.parametrize("message", [PLAIN, FRAMED], ids=["plain", "terminal"])
def test_framed_messages_are_condensed(message: str):
    assert condensed(message) == "Missing value for '--data'"


def test_exit_code_and_close_names(capsys: pytest.CaptureFixture[str]):
    assert main(["train", "x3d_ucf"]) == 2
    told = capsys.readouterr().err
    assert told.startswith("saccade: error: unknown recipe 'x3d_ucf'; did you mean x3d_ucf10")
    assert len(told.splitlines()) == 1
    assert main(["train", "--data", "x"]) == 2
    assert "give the recipe first" in capsys.readouterr().err
    assert main(["train", "x3d_ucf10", "--data", "no such folder", "--device", "cpu"]) == 2
    assert "no such file or folder" in capsys.readouterr().err
    assert main(["train", "x3d_ucf10", "--clip.crop", "9999"]) == 2
    assert "clip.crop: 9999 does not fit" in capsys.readouterr().err


def test_without_a_recipe_they_are_listed(capsys: pytest.CaptureFixture[str]):
    assert main(["train", "--help"]) == 0
    told = capsys.readouterr().out
    assert "x3d_m_finetune" in told
    assert "--resume" in told
    assert main(["train"]) == 2


def test_help_of_a_recipe_shows_its_values(capsys: pytest.CaptureFixture[str]):
    assert main(["train", "x3d_m_k400", "--help"]) == 0
    told = capsys.readouterr().out
    assert "--optim.warmup-epochs" in told
    assert "(default: 35)" in " ".join(told.replace("│", " ").split())


def test_resume_takes_the_settings_of_the_run(
    tiny_config: Callable[..., TrainConfig], capsys: pytest.CaptureFixture[str]
):
    from saccade.training import train

    config = tiny_config("run", "--epochs", "1")
    train(config)
    assert main(["train", "x3d_ucf10", "--out", config.out, "--resume"]) == 0
    assert "resuming at step 5 of 5" in capsys.readouterr().err
    assert main(["train", "x3d_ucf10", "--out", config.out, "--resume", "--epochs", "9"]) == 2
    assert "epochs (was 1.0, now 9.0)" in capsys.readouterr().err
    assert main(["train", "x3d_motion", "--out", config.out, "--resume"]) == 2
    assert "contains a run of x3d_ucf10, not of x3d_motion" in capsys.readouterr().err
    assert main(["train", "x3d_ucf10", "--out", config.out]) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert json.loads((Path(config.out) / "config.json").read_text())["config"]["epochs"] == 1


def test_dry_run_shows_a_plan_without_clips(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    picture = tmp_path / "new folder" / "plan.png"
    recipe = ["train", "x3d_motion", "--multigrid", "both", "--dry-run"]
    out = ["--out", str(tmp_path / "run")]
    assert main([*recipe, "--num-clips", "800", "--devices", "2", "--picture", str(picture), *out]) == 0
    told = capsys.readouterr().out
    assert "256x2x32  128x2x45  128x2x45" in told
    assert "sub-BN, 8 splits" in told  # of the 64 clips on each of two devices
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert not (tmp_path / "run").exists()
    assert main([*recipe[:2], "--dry-run", "--num-clips", "800", *out]) == 0
    assert "2250 steps of 16 clips x 8 frames x 64 pixels" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--dry-run"], "--dry-run needs .*--num-clips N or --data"),
        (["--dry-run", "--num-clips", "0"], "--num-clips: must be at least 1, got 0"),
        (["--dry-run", "--num-clips", "many"], "--num-clips: 'many' is not an integer"),
        (["--dry-run", "--num-clips", "100"], "batch_size: .* at most 6"),
        (["--dry-run", "--picture", "a.xyz"], "--picture a.xyz: the chart must end in one of .png"),
        (["--dry-run", "--picture", "{}/a.png"], "--picture .*/file/a.png: .*/file is a file, not a folder"),
        (["--num-clips", "100"], "--num-clips: has no effect without --dry-run"),
        (["--multigrid", "tall"], "invalid choice 'tall' for argument '--multigrid'"),
    ],
)
def test_a_dry_run_that_cannot_work_says_why(
    args: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "file").write_text("")
    args = [arg.format(tmp_path / "file") for arg in args]
    multigrid = [] if "--multigrid" in args else ["--multigrid", "both"]
    assert main(["train", "x3d_motion", *multigrid, *args]) in (1, 2)
    assert re.search(message, capsys.readouterr().err)
