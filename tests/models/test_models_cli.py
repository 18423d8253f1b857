"""`saccade models` and `saccade convert`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from golden import rule
from saccade.cli import main
from saccade.models import list_models, load_model


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """X3D-M of X3D-Multigrid with 157 classes, as its training script saves it."""
    names = rule.load("x3d_kk_m_class")["state_dict"]
    state = {f"module.{name}": torch.from_numpy(rule.param(name, shape)).float() for name, shape in names}
    path = tmp_path_factory.mktemp("upstream") / "charades.pt"
    torch.save({"model_state_dict": state, "long_ind": 3}, path)
    return path


def test_the_table_of_streams(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "x3d_xs", "--causal"]) == 0
    title, row, *_ = capsys.readouterr().out.splitlines()
    assert title.split()[-6:-4] == ["field", "delay"]
    assert row.split()[-4:-2] == ["57", "0"]
    assert main(["models", "x3d_xs", "--causal", "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert (record["receptive_field"], record["delay"]) == (57, 0)
    assert record["gmacs_step"] == pytest.approx(record["gmacs"] / 4, rel=0.02)


def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "x3d_*"]) == 0
    text = capsys.readouterr().out
    assert "x2d" not in text
    row = next(line for line in text.splitlines() if line.startswith("x3d_m "))
    assert row.split() == [
        "x3d_m",
        "16×5",
        "3.79",
        "4.73",
        "(224)",
        "6.19",
        "(256)",
        "75.1",
        "(10x1)",
        "76.2",
        "(10x3)",
    ]
    assert "PySlowFast model zoo, not measured here" in text


def test_a_narrow_terminal_loses_no_figure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    assert main(["models", "x3d_xl"]) == 0
    row = "x3d_xl  16×5     11.10     35.8 (312)    48.4 (356)  78.4 (10x1) 79.1 (10x3)"
    assert row in capsys.readouterr().out.splitlines()


def test_the_table_of_vov3d(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "vov3d_*"]) == 0
    text = capsys.readouterr().out
    assert [line.split() for line in text.splitlines() if line.startswith("vov3d_")] == [
        ["vov3d_m", "16×5", "3.67", "4.92", "(224)", "6.43", "(256)", "74.7", "(10x3)"],
        ["vov3d_l", "16×5", "6.30", "9.31", "(224)", "12.2", "(256)", "76.3", "(10x3)"],
        ["vov3d_m_v1", "16×5", "3.80", "4.42", "(224)", "5.78", "(256)", "73.9", "(10x3)"],
    ]
    assert "Top-1 of vov3d_m, vov3d_l, vov3d_m_v1 on Kinetics-400: VoV3D's repository" in text


def test_the_table_of_vov3d_with_latency(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "vov3d_m", "--latency", "--runs", "1"]) == 0
    title, row = capsys.readouterr().out.splitlines()[:2]
    assert title.split()[-1] == "ms"
    assert float(row.split()[-1]) > 0


def test_the_table_as_json_with_latency(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "x2d", "--json", "--latency", "--runs", "2"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["params"] == 1_633_560
    assert record["latency_ms"] > 0
    assert (record["latency_runs"], record["latency_device"]) == (2, "CPU")
    assert main(["models", "--json"]) == 0
    assert [r["name"] for r in json.loads(capsys.readouterr().out)] == list_models()


def test_convert(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "m.safetensors"
    assert main(["convert", str(checkpoint), str(out), "--model", "x3d_m", "--set", "head_pool=global"]) == 0
    text = capsys.readouterr().out
    assert "X3D-Multigrid; 568 tensors loaded" in text
    assert "x3d_m, 157 classes" in text
    model, metadata = load_model(out)
    assert model.build_args == {"name": "x3d_m", "num_classes": 157, "head_pool": "global"}
    assert metadata["converted_from"] == "X3D-Multigrid"
    assert metadata["clip"]["num_frames"] == 16


def test_convert_takes_the_model_from_the_file_name(checkpoint: Path, tmp_path: Path) -> None:
    named = tmp_path / "X3D-M_charades.pt"
    named.write_bytes(checkpoint.read_bytes())
    assert main(["convert", str(named), str(tmp_path / "m.safetensors")]) == 0
    assert load_model(tmp_path / "m.safetensors")[0].model_name == "x3d_m"


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["models", "foo*"], 2, "no model matches 'foo*'"),
        (["models", "--runs", "0"], 2, "--runs: must be at least 1"),
        (["models", "--nonsense"], 2, "--nonsense"),
        (["convert"], 2, "checkpoint, out"),
        (["convert", "CKPT", "OUT.pt"], 2, "must end in .safetensors"),
        (["convert", "CKPT", "OUT.safetensors"], 2, "x3d_xs, x3d_s, x3d_m all have these shapes"),
        (["convert", "CKPT", "OUT.safetensors", "--model", "x3d_z"], 2, "unknown model 'x3d_z'"),
        (
            ["convert", "CKPT", "OUT.safetensors", "--set", "dropout"],
            2,
            "--model.overrides",
        ),
        (["convert", "CKPT", "OUT.safetensors", "--model", "x3d_m", "--set", "a=1"], 2, "has no option a"),
        (["convert", "CKPT", "OUT.safetensors", "--model", "x3d_l"], 2, "do not fit x3d_l"),
        (["convert", "ABSENT", "OUT.safetensors"], 2, "no such file"),
    ],
)
def test_errors_are_one_line(
    args: list[str],
    code: int,
    words: str,
    checkpoint: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"CKPT": str(checkpoint), "ABSENT": str(tmp_path / "absent.pt")}
    args = [places.get(arg, str(tmp_path / arg) if arg.startswith("OUT") else arg) for arg in args]
    assert main(args) == code
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("OUT*"))
