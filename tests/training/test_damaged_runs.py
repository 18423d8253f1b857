"""Run folders whose files are damaged, and runs that are resumed with something missing or changed."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from saccade.cli import main
from saccade.errors import ConfigError, DataError, SaccadeError, UsageError, WeightsError
from saccade.files import write_json
from saccade.inference import Predictor
from saccade.plugins import import_file
from saccade.runs import Run
from saccade.training import TrainConfig, train
from saccade.visualize.report import _duration as duration
from saccade.visualize.report import read_run

MakeConfig = Callable[..., TrainConfig]
OLD = Path(__file__).parent / "fixtures" / "run_v0"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(shutil.copytree(OLD, tmp_path / "run"))
    write_json(run.test_file, {"1x1": {"top1": 0.5}})
    return run


def ask_all(run: Run) -> None:
    run.settings, run.num_steps, run.best_score, run.best_metrics, run.test, run.rejection  # noqa: B018 (each reads a file)
    run.metrics()
    Predictor(run.folder)


DAMAGE: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "zeros": lambda content: bytes(len(content)),
    "text": lambda content: b"[1, 2]\n",
    "no text": lambda content: b"\xff\xfe{" + content[3:],
}


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("config.json", UsageError),
        ("metrics.jsonl", DataError),
        ("test.json", DataError),
        ("rejection.json", DataError),
    ],
)
def test_a_folder_in_the_place_of_a_file_is_named(run: Run, name: str, kind: type[SaccadeError]) -> None:
    (run.folder / name).unlink(missing_ok=True)
    (run.folder / name).mkdir()
    with pytest.raises(kind, match=re.escape(str(run.folder / name))):
        ask_all(run)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("config.json", UsageError),
        ("last.pt", WeightsError),
        ("best.safetensors", WeightsError),
        ("test.json", DataError),
    ],
)
def test_a_damaged_file_is_named(run: Run, name: str, kind: type[SaccadeError], damage: str) -> None:
    ask_all(run)
    path = run.folder / name
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    with pytest.raises(kind) as caught:
        ask_all(run)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("damage", DAMAGE)
def test_damaged_metrics_are_counted(run: Run, damage: str) -> None:
    run.metrics_file.write_bytes(DAMAGE[damage](run.metrics_file.read_bytes()))
    rows, damaged = run.metrics()
    assert damaged == (0 if damage == "empty" else 1)
    assert all(row["step"] >= 0 for row in rows)


@pytest.mark.parametrize("damage", DAMAGE)
@pytest.mark.parametrize("name", ["config.json", "last.pt"])
def test_resuming_says_what_to_do(
    run: Run, name: str, damage: str, tiny_clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = run.folder / name
    path.write_bytes(DAMAGE[damage](path.read_bytes()))
    args = ["--data", str(tiny_clips), "--out", str(run.folder), "--resume"]
    assert main(["train", "x3d_ucf10", *args]) == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith(f"saccade: error: {path}: ")
    assert "best.safetensors" in lines[0]


@pytest.mark.parametrize("lost", ["model", "optimizer", "progress", "config", "data"])
def test_a_checkpoint_that_lacks_a_part(run: Run, lost: str, tiny_clips: Path) -> None:
    config = run.config.replace(data=str(tiny_clips), out=str(run.folder))
    state = torch.load(run.last, weights_only=True)
    for broken in ({k: v for k, v in state.items() if k != lost}, {**state, lost: {}}):
        torch.save(broken, run.last)
        with pytest.raises(SaccadeError) as caught:
            train(config, resume=True)
        assert str(run.last) in str(caught.value) or lost in ("config", "data")


# --------------------------------------------------------------------------------------------------- resuming


def test_more_epochs_are_a_new_run_and_the_message_has_its_command(tiny_config: MakeConfig) -> None:
    config = tiny_config("run", "--epochs", "1")
    run = train(config)
    with pytest.raises(ConfigError, match=r"epochs \(was 1\.0, now 2\.0\)") as caught:
        train(config.replace(epochs=2.0), resume=True)
    assert f"saccade train x3d_ucf10 --model.weights {run.folder} --epochs 2 --out" in str(caught.value)


def test_another_root_is_harmless(tiny_config: MakeConfig, tiny_clips: Path, tmp_path: Path) -> None:
    moved = shutil.copytree(tiny_clips, tmp_path / "moved")
    rows = [
        f"{file.relative_to(tiny_clips)},{file.parent.name},{file.parts[-3]}"
        for file in sorted(tiny_clips.glob("*/*/*.mp4"))
    ]
    table = tmp_path / "clips.csv"
    table.write_text("\n".join(["path,label,split", *rows]) + "\n")
    config = tiny_config("run", "--epochs", "1", "--root", str(tiny_clips), data=table)
    train(config, fraction=0.5)
    assert train(config.replace(root=str(moved)), resume=True).num_steps == 5


def test_a_resume_that_does_nothing_adds_no_training_time(tiny_config: MakeConfig) -> None:
    import os

    config = tiny_config("run", "--epochs", "1")
    run = train(config)
    before, rows = duration(read_run(run.folder)), run.metrics()[0]
    assert before.endswith(" s")
    train(config, resume=True)
    os.utime(run.metrics_file, (2e9, 2e9))  # as though resumed years later
    assert duration(read_run(run.folder)) == before
    assert run.metrics()[0] == rows


PLUGIN = """
import torch
import saccade

@saccade.register_model("net_of_a_plugin_{0}")
def net(num_classes=400, **options):
    return torch.nn.Sequential(
        torch.nn.AdaptiveAvgPool3d(1), torch.nn.Flatten(), torch.nn.Linear(3, num_classes))
"""


def test_a_run_says_which_plugin_it_lacks(
    run: Run, tmp_path: Path, tiny_clips: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Code that a run folder names is not imported by itself."""
    plugin = tmp_path / "lost_plugin.py"
    plugin.write_text("raise RuntimeError('imported')\n")
    record = json.loads(run.config_file.read_text())
    record["config"]["model"]["name"] = "net_of_a_lost_plugin"
    write_json(run.config_file, {**record, "plugins": [str(plugin)]})
    args = ["--data", str(tiny_clips), "--out", str(run.folder), "--resume"]
    assert main(["train", "x3d_ucf10", *args]) == 2
    line = capsys.readouterr().err.strip()
    assert "net_of_a_lost_plugin" in line
    assert line.endswith(f"the run was made with --plugin {plugin}; add it to this command")


def test_the_plugins_of_a_run_are_recorded(tiny_config: MakeConfig, tmp_path: Path) -> None:
    plugin = tmp_path / "recorded_plugin.py"
    plugin.write_text("")
    import_file(plugin)
    run = train(tiny_config("run", "--epochs", "1"))
    assert str(plugin) in run.plugins
