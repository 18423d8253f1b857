"""A data set and a model so small that a whole run takes a second."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from saccade.cli.console import logs_on_console
from saccade.cli.fields import parse_fields
from saccade.recipes import get_recipe
from saccade.training import TrainConfig
from saccade.video import write_video

NUM_TRAIN, NUM_VAL = 10, 3  # per class; 20 and, with one left out, an odd 5

TINY = shlex.split("""
    --model.name x2d --model.overrides gamma_w 0.3 head_width 32 --model.dropout 0.1 --model.drop-path 0.1
    --clip.num-frames 2 --clip.stride 2 --clip.crop 32 --clip.short-side 32
    --augment.short-side 32 36 --augment.no-inverse-uniform
    --optim.name sgd --optim.lr 0.05 --optim.reference-batch 4 --optim.warmup-epochs 0 --optim.warmup-lr 0
    --optim.weight-decay 1e-4
    --epochs 3 --batch-size 4 --workers 0 --cache-mb 0 --ema 0 --label-smoothing 0
    --val-every 1 --val-views 1x1 --test-views= --threads 1 --device cpu --log-every 2
""")


@pytest.fixture(scope="session")
def tiny_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of 12 frames: one class brightens, the other darkens."""
    root = tmp_path_factory.mktemp("clips")
    noise = torch.Generator().manual_seed(0)
    for split, count in (("train", NUM_TRAIN), ("val", NUM_VAL)):
        for label, name in enumerate(("brightening", "darkening")):
            for number in range(count - (split == "val" and label == 1)):
                ramp = torch.linspace(20, 220, 12)
                ramp = ramp.flip(0) if label else ramp
                frames = ramp[:, None, None, None] + 20 * torch.rand(12, 36, 40, 3, generator=noise)
                folder = root / split / name
                folder.mkdir(parents=True, exist_ok=True)
                write_video(
                    folder / f"{number}.mp4", frames.to(torch.uint8), fps=30, options={"preset": "ultrafast"}
                )
    return root


@pytest.fixture(autouse=True)
def _no_report(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures take longer than these runs. ``monkeypatch.undo()`` brings them back."""
    monkeypatch.setattr("saccade.training.run._report", lambda trainer: None)


@pytest.fixture(autouse=True)
def _no_training_check(monkeypatch: pytest.MonkeyPatch) -> None:
    """It opens every video of these small sets."""
    monkeypatch.setattr("saccade.training.run.training_warnings", lambda *args: [])


@pytest.fixture(autouse=True)
def _logs_on_stderr() -> Iterator[None]:
    """As on the command line."""
    with logs_on_console():
        yield


@pytest.fixture
def clips_copy(tiny_clips: Path, tmp_path: Path) -> Path:
    """The same clips, to spoil."""
    return Path(shutil.copytree(tiny_clips, tmp_path / "clips"))


@pytest.fixture
def tiny_config(tiny_clips: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    """``tiny_config("out name", "--flag", "value")``: x3d_ucf10 made tiny, in a folder of its own."""

    def make(name: str, *flags: str, data: Path = tiny_clips) -> TrainConfig:
        args = [*TINY, "--data", str(data), "--out", str(tmp_path / name), *flags]
        config = parse_fields(get_recipe("x3d_ucf10"), args, prog="test")
        assert config is not None
        return config

    return make
