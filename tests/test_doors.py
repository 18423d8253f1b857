"""Somebody else's code trains, tests and predicts with Saccade: a network and data of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from saccade.video import write_video

# At most 20 lines: a network and a data set that know nothing of Saccade.
FOREIGN = """
import saccade, torch
from torch import nn

net = nn.Sequential(
    nn.Conv3d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(8, 2))

class Clips(torch.utils.data.Dataset):
    classes = ("dark", "bright")
    def __len__(self):
        return 16
    def __getitem__(self, i):
        return torch.full((4, 32, 32, 3), 40 + 160 * (i % 2), dtype=torch.uint8), i % 2

clip = saccade.ClipSpec(num_frames=4, stride=1, crop=32, short_side=32)
config = saccade.get_recipe("x3d_motion").replace(clip=clip, batch_size=4, epochs=12)
run = saccade.train(config, model=net, train_set=Clips(), val_set=Clips())
saccade.load_weights(net, run.best)
top1 = saccade.evaluate(net, Clips(), clip)["1x1"].figures["top1"]
answer = saccade.Predictor(net, Clips.classes, clip=clip)("clip.mp4").top(1)
"""

PROJECT = """
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"
[project]
name = "two-lights"
version = "1.0"
[tool.setuptools]
py-modules = ["two_lights"]
[project.entry-points."saccade.models"]
mean_colour = "two_lights:mean_colour"
[project.entry-points."saccade.datasets"]
lights = "two_lights:lights"
[project.entry-points."saccade.recipes"]
two_lights = "two_lights:two_lights"
[project.entry-points."saccade.metrics"]
error_rate = "two_lights:error_rate"
"""

PLUGIN = """
from saccade import ClipSpec, get_recipe, register_dataset, register_model
from saccade.data import VideoDataset, VideoItem
from saccade.recipes import register_recipe
from saccade.tasks import register_metric
from saccade.training.config import ModelConfig
from torch import nn

CLIP = ClipSpec(num_frames=4, stride=1, crop=32, short_side=32)

@register_model(clip=CLIP)
def mean_colour(num_classes=400, width=8):
    return nn.Sequential(
        nn.Conv3d(3, width, 1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(),
        nn.Linear(width, num_classes)
    )

@register_dataset("lights", recognises=lambda path: (path / "lights.txt").is_file())
def lights(path, split):
    rows = [line.split() for line in (path / "lights.txt").read_text().splitlines()]
    items = [VideoItem(str(path / name), int(label)) for name, label in rows]
    return VideoDataset(tuple(items), ("dark", "bright"), split, str(path))

@register_recipe
def two_lights():
    '''A mean colour on lights.'''
    return get_recipe("x3d_motion").replace(
        recipe="two_lights", model=ModelConfig(name="mean_colour", overrides={"width": 4}), clip=CLIP,
        batch_size=4, epochs=12, workers=0, test_views="")

@register_metric("error_rate")
def error_rate(scores, labels):
    return float((scores.argmax(1) != labels).mean())
"""


def test_a_foreign_network_on_foreign_clips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert len([line for line in FOREIGN.splitlines() if line.strip()]) <= 20
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "clip.mp4", np.full((12, 32, 32, 3), 200, np.uint8), fps=10)
    found: dict[str, object] = {}
    with caplog.at_level("WARNING"):
        exec(FOREIGN, found)
    assert "Clips is read in the main process" in caplog.text  # as in a notebook
    assert found["top1"] == 1.0
    assert [label for label, _ in found["answer"]] == ["bright"]  # type: ignore[attr-defined]


def install(tmp_path: Path) -> Path:
    """A folder into which pip has installed the plug-in package."""
    source, site = tmp_path / "two-lights", tmp_path / "site"
    source.mkdir()
    (source / "pyproject.toml").write_text(PROJECT)
    (source / "two_lights.py").write_text(PLUGIN)
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation"]
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    subprocess.run([*pip, "--target", str(site), str(source)], check=True, env=environment)
    return site


@pytest.mark.parametrize("given", ["package", "file"])
def test_a_plug_in(given: str, tmp_path: Path) -> None:
    """The network, data set, recipe and metric of a package that is installed, or of a file given by
    ``--plugin``, are known by name in every command, without a line of Python.
    """
    flag, paths = [], [*filter(None, [os.environ.get("PYTHONPATH")])]
    if given == "package":
        paths = [str(install(tmp_path)), *paths]
    else:
        (tmp_path / "my").mkdir()
        (tmp_path / "my" / "two_lights.py").write_text(PLUGIN)
        flag = ["--plugin", "my/two_lights.py"]
    data = tmp_path / "data"
    data.mkdir()
    for number in range(8):
        frames = np.full((12, 32, 32, 3), 40 + 160 * (number % 2), np.uint8)
        write_video(data / f"{number}.mp4", frames, fps=10)
    (data / "lights.txt").write_text("".join(f"{n}.mp4 {n % 2}\n" for n in range(8)))

    def saccade(*words: str) -> str:
        words = (*flag, *words) if words[0] == "models" else (*words, *flag)
        done = subprocess.run(
            [sys.executable, "-m", "saccade", *words],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    assert "mean_colour" in saccade("models", "mean_*")
    assert saccade("train", "two_lights", "--help").startswith("A mean colour on lights.")
    saccade("train", "two_lights", "--data", "lights:data", "--out", "runs/lights")
    records = [json.loads(line) for line in (tmp_path / "runs/lights/metrics.jsonl").read_text().splitlines()]
    assert [record["val_error_rate"] for record in records if "val_error_rate" in record][-1] == 0.0
    assert "100.0" in saccade("test", "runs/lights", "--data", "data", "--split", "val", "--views", "1x1")
    saccade("predict", "data/1.mp4", "--run", "runs/lights", "--jsonl", "out.jsonl")
    (answer,) = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert "bright" in json.dumps(answer)
