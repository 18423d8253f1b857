"""Whole runs of tiny transformers: batches that change their shape, and weights shared out."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_processes import vector
from test_shards import in_two_processes
from test_train import lines, weights

from saccade.data.types import ClipBatch
from saccade.errors import ConfigError
from saccade.training import TrainConfig, train
from saccade.training.checkpoint import load_checkpoint
from saccade.training.step import GradientStep

MakeConfig = Callable[..., TrainConfig]
SHAPE = {"patch": 8, "width": 24, "depth": 2, "num_heads": 2}
FLAGS = (
    *("--clip.num-frames", "4", "--clip.stride", "1", "--no-channels-last"),
    *("--optim.name", "adamw", "--optim.lr", "0.001", "--model.drop-path", "0.1"),
)


@pytest.fixture
def transformer_config(tiny_config: MakeConfig) -> MakeConfig:
    """``transformer_config("timesformer_base", "out name", "--flag", "value")``."""

    def make(name: str, out: str, *flags: str, **options: Any) -> TrainConfig:
        config = tiny_config(out, *FLAGS, *flags, **options)
        return config.replace(model=dataclasses.replace(config.model, name=name, overrides=SHAPE))

    return make


@pytest.mark.parametrize("name", ["timesformer_base", "vivit_base"])
def test_multigrid(
    transformer_config: MakeConfig, clips_copy: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Frames and crops are whole tubelets and patches; the positions learned are those of the full clip."""
    monkeypatch.setattr("saccade.training.run.draw_plan", lambda *_: None)
    for path in list((clips_copy / "train").rglob("*.mp4")):
        shutil.copy(path, path.with_name(f"again {path.name}"))
    seen = []
    plain = GradientStep.__call__

    def noting(self: GradientStep, batch: ClipBatch) -> tuple[float, float]:
        seen.append((len(batch.clips[0]), batch.crop))
        return plain(self, batch)

    monkeypatch.setattr(GradientStep, "__call__", noting)
    grid = ("--batch-size", "2", "--epochs", "4", "--val-every", "0")
    grid += ("--multigrid", "both", "--grid.bn-base-size", "0", "--grid.cycle-ends", "0.7")
    result = train(transformer_config(name, "run", *grid, data=clips_copy))
    times, sides = ({size[axis] for size in seen} for axis in (0, 1))
    assert times == ({1, 2, 4} if name == "timesformer_base" else {2, 4})
    assert sides == {16, 24, 32}
    learned = weights(result.run_dir)
    assert learned["embed.pos_embed"].shape == (1, 17, 24)
    assert all(value.isfinite().all() for value in learned.values())


def test_a_clip_that_is_not_whole_patches_is_refused_before_training(transformer_config: MakeConfig) -> None:
    config = transformer_config("vivit_base", "run", "--clip.num-frames", "3")
    with pytest.raises(ConfigError, match="num_frames must be a multiple of tubelet, 2, got 3"):
        train(config)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["timesformer_base", "vivit_base"])
def test_shards_train_as_whole_weights_do(transformer_config: MakeConfig, tmp_path: Path, name: str) -> None:
    extra = ("--epochs", "2", "--checkpoint-activations", "--model.layer-decay", "0.8")
    whole, shared = (transformer_config(name, run, *extra) for run in ("whole", "shared"))
    in_two_processes(tmp_path, [(whole, False, 0), (shared.replace(shard=True), False, 0)])
    one, other = (load_checkpoint(Path(config.out) / "last.pt") for config in (whole, shared))
    assert all(type(value) is torch.Tensor for value in other["model"].values())
    mine, theirs = (vector(state["model"]) for state in (one, other))
    assert (theirs - mine).norm() < 1e-4 * mine.norm()
    for a, b in zip(lines(Path(whole.out)), lines(Path(shared.out)), strict=True):
        if "loss" in a:
            assert b["loss"] == pytest.approx(a["loss"], rel=1e-3)
