"""Whole runs on tiny clips whose batches change their shape."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_processes import in_two_processes, vector
from test_train import assert_same, lines, untimed, weights

from saccade.data.types import ClipBatch
from saccade.errors import ConfigError
from saccade.layers import SubBatchNorm3d
from saccade.models import load_model
from saccade.training import TrainConfig, TrainingError, train
from saccade.training.checkpoint import load_checkpoint
from saccade.training.config import ModelConfig
from saccade.training.loop import Trainer
from saccade.training.step import GradientStep
from saccade.training.timetable import make_timetable

MakeConfig = Callable[..., TrainConfig]
GRID = (
    "--batch-size",
    "2",
    "--clip.stride",
    "1",
    "--grid.bn-base-size",
    "2",
    "--grid.cycle-ends",
    "0.7",
    "--grid.evals",
    "1",
)


@pytest.fixture(autouse=True)
def _no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("saccade.training.run.draw_plan", lambda *_: None)


def shapes_seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int, int, int]]:
    """Clips, frames and crop of every batch that is trained on, and the splits of its batch norms."""
    seen = []
    plain = GradientStep.__call__

    def noting(self: GradientStep, batch: ClipBatch) -> tuple[float, float]:
        splits = {m.num_splits for m in self.model.modules() if isinstance(m, SubBatchNorm3d)} or {1}
        seen.append((len(batch), len(batch.clips[0]), batch.crop, *splits))
        return plain(self, batch)

    monkeypatch.setattr(GradientStep, "__call__", noting)
    return seen


def test_a_run_has_the_shapes_of_its_plan(tiny_config: MakeConfig, monkeypatch: pytest.MonkeyPatch):
    config = tiny_config("run", *GRID, "--multigrid", "both", "--epochs", "7", "--ema", "0.9")
    table = make_timetable(config, 20)
    seen = shapes_seen(monkeypatch)
    result = train(config)
    planned = [table.shape(step) for step in range(table.total_steps)]
    norms = [table.phase(step).norm for step in range(table.total_steps)]
    assert seen == [
        (shape.batch_size, shape.num_frames, shape.crop, norm.num)
        for shape, norm in zip(planned, norms, strict=True)
    ]
    assert len({shape[:3] for shape in seen}) >= 6
    assert {shape[3] for shape in seen} == {1, 2, 4}
    records = lines(result.run_dir)
    assert [line["step"] for line in records if "val_top1" in line] == sorted(table.plan.validations)
    last = [line for line in records if "loss" in line][-1]
    assert last["clips"] == sum(shape.batch_size for shape in planned)
    assert last["lr"] == pytest.approx(table.rate(table.total_steps - 1))
    told = (result.run_dir / "log.txt").read_text()
    assert "sub-BN, 4 splits" in told
    assert f"{table.total_steps} steps of 2 to 16 clips" in told
    # whoever takes the weights need not know of any splits
    model, _ = load_model(result.run_dir / "best.safetensors")
    assert not any(isinstance(module, SubBatchNorm3d) for module in model.modules())
    assert weights(result.run_dir).keys() == model.state_dict().keys()


@pytest.mark.parametrize("mode", ["short", "long", "x3d-multigrid"])
def test_every_kind_runs(tiny_config: MakeConfig, clips_copy: Path, mode: str):
    for path in list((clips_copy / "train").rglob("*.mp4")):
        shutil.copy(path, path.with_name(f"again {path.name}"))
    flags = ("--optim.schedule", "step", "--optim.steps", "1") if mode == "long" else ()
    flags += ("--multigrid", mode, "--epochs", "2", "--val-every", "0")
    result = train(tiny_config("run", *GRID, *flags, data=clips_copy))
    assert all(value.isfinite().all() for value in weights(result.run_dir).values())
    assert result.num_steps == load_checkpoint(result.run_dir / "last.pt")["progress"]["step"] > 5


@pytest.mark.parametrize(
    ("stop", "extra"),
    [
        pytest.param(3, ("--val-every", "0"), marks=pytest.mark.slow),
        (11, ("--precise-bn", "2")),
        pytest.param(
            *(17, ("--val-every", "0", "--workers", "1", "--cache-mb", "16")), marks=pytest.mark.slow
        ),
    ],
    ids=["first phase", "with precise statistics", "from the cache"],
)
def test_resume_is_exact_in_every_phase(
    tiny_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, stop: int, extra: tuple[str, ...]
):
    flags = (*GRID, "--multigrid", "both", "--epochs", "7", "--ema", "0.9", "--save-minutes", "0", *extra)
    whole = train(tiny_config("whole", *flags)).run_dir
    config = tiny_config("parts", *flags)
    plain, calls = GradientStep.__call__, 0

    def failing(self: GradientStep, batch: ClipBatch) -> tuple[float, float]:
        nonlocal calls
        calls += 1
        if calls == stop:
            raise OSError("the disk went away")
        return plain(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(GradientStep, "__call__", failing)
        with pytest.raises(OSError, match="disk"):
            train(config)
    state = load_checkpoint(Path(config.out) / "last.pt")
    assert state["progress"]["step"] == stop - 1
    assert bool(state["splits"]) == (stop < 17)  # the last phases are plain
    train(config, resume=True)
    one, other = load_checkpoint(whole / "last.pt"), load_checkpoint(Path(config.out) / "last.pt")
    assert one["progress"] == other["progress"]
    assert_same(one["model"], other["model"])
    assert_same(one["average"]["model"], other["average"]["model"])
    assert untimed(lines(whole)) == untimed(lines(Path(config.out)))


def test_a_run_stopped_in_a_validation_measures_again(
    tiny_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
):
    flags = (*GRID, "--multigrid", "both", "--epochs", "2", "--precise-bn", "2")
    whole = train(tiny_config("whole", *flags)).run_dir
    config = tiny_config("stopped", *flags)

    def stopped(*args: Any, **options: Any) -> None:
        raise OSError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr("saccade.training.loop.validate_model", stopped)
        with pytest.raises(OSError, match="stopped"):
            train(config)
    assert load_checkpoint(Path(config.out) / "last.pt")["progress"]["validation_due"]
    resumed = train(config, resume=True).run_dir
    assert_same(weights(whole), weights(resumed))
    assert untimed(lines(whole)) == untimed(lines(resumed))


def test_precise_statistics_are_taken_at_the_end_without_validation(tiny_config: MakeConfig):
    flags = ("--epochs", "1", "--val-every", "0", "--optim.lr", "1e-12", "--model.drop-path", "0")
    average, precise = (
        weights(train(tiny_config(name, *flags, "--precise-bn", number)).run_dir)
        for name, number in (("average", "0"), ("precise", "5"))
    )
    moved = [key for key in average if not average[key].equal(precise[key]) and "num_batches" not in key]
    assert moved
    assert all("running_" in key for key in moved)
    # five batches of 4 clips are all 20: a bias of averages over momentum 0.1 is gone
    variance = precise["stem.norm.running_var"]
    assert (average["stem.norm.running_var"] - variance).abs().max() > 0.05


def test_two_processes_take_the_same_steps(tiny_config: MakeConfig, tmp_path: Path):
    """Batch statistics over both processes where their clips are few: as one process, but for rounding."""
    flags = (*GRID, "--multigrid", "both", "--epochs", "3", "--log-every", "1", "--optim.lr", "0.01")
    flags += ("--grid.bn-base-size", "64", "--model.dropout", "0", "--model.drop-path", "0")
    one, two = tiny_config("one", *flags), tiny_config("two", *flags)
    train(one)
    in_two_processes(tmp_path, [(two, {}, 0)])
    assert "sync-BN, 2 devices" in (Path(two.out) / "log.txt").read_text()
    single, double = lines(Path(one.out)), lines(Path(two.out))
    assert [line["step"] for line in single] == [line["step"] for line in double]
    for a, b in zip(single, double, strict=True):
        for name in ("loss", "lr", "clips", "phase", "val_loss"):
            if name in a:
                assert b[name] == pytest.approx(a[name], rel=1e-3), (name, a["step"])
    mine, theirs = vector(weights(Path(one.out))), vector(weights(Path(two.out)))
    assert (theirs - mine).norm() < 1e-3 * mine.norm()


@pytest.mark.parametrize(
    "failure",
    [
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8"),
        torch.OutOfMemoryError("CUDA out of memory."),
        MemoryError("Unable to allocate 8 GiB for an array"),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_a_batch_too_large_for_memory_is_named(
    tiny_config: MakeConfig, monkeypatch: pytest.MonkeyPatch, failure: Exception
):
    def fails(*_: Any) -> None:
        raise failure

    monkeypatch.setattr(GradientStep, "inputs", fails)
    message = (
        r"out of memory with a batch of shape \(16, 3, 1, 16, 16\) \(clips, RGB, frames, height, width\); "
        r"raise --accumulate \(now 1\), lower --batch-size \(now 2, which multigrid multiplies\)"
    )
    with pytest.raises(TrainingError, match=message):
        train(tiny_config("run", *GRID, "--multigrid", "both", "--val-every", "0", "--epochs", "4"))


def test_too_few_clips_for_the_largest_batch_are_refused(tiny_config: MakeConfig):
    message = (
        r"^batch_size: .* from 4 to 32 clips of 1 frames x 16 pixels, more than "
        r"the 20 training clips; use at most 2$"
    )
    with pytest.raises(ConfigError, match=message):
        train(tiny_config("run", *GRID, "--batch-size", "4", "--multigrid", "both"))


def test_nothing_changes_shape_in_an_ordinary_run(tiny_config: MakeConfig, monkeypatch: pytest.MonkeyPatch):
    seen = shapes_seen(monkeypatch)
    phases: list[Any] = []
    monkeypatch.setattr(Trainer, "_enter", lambda self, phase: phases.append(phase))
    train(tiny_config("run", "--epochs", "1"))
    assert set(seen) == {(4, 2, 32, 1)}
    assert set(phases) == {None}


SMALL_MVIT = ModelConfig(
    name="mvit_base_maskfeat",
    overrides={"embed_dim": 8, "depth": 2, "widen_at": "1", "pool_q_at": "1", "kv_stride": 2},
    dropout=0.0,
    drop_path=0.0,
)


def test_passes_of_every_shape_add_up_to_the_whole_batch(
    tiny_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
):
    """Exact where clips have no part in each other's features."""
    plain, shapes = GradientStep.__call__, set()

    def both_ways(self: GradientStep, batch: ClipBatch) -> tuple[float, float]:
        found = []
        for accumulate in (2, 1):
            self.config = self.config.replace(accumulate=accumulate)
            self.model.zero_grad()
            loss = plain(self, batch)
            found.append([p.grad.clone() for p in self.model.parameters() if p.grad is not None])
        for parts, whole in zip(*found, strict=True):
            torch.testing.assert_close(parts, whole, rtol=1e-3, atol=1e-6)
        assert max(float(whole.abs().max()) for whole in found[1]) > 1e-3
        shapes.add((len(batch), len(batch.clips[0]), batch.crop))
        return loss

    monkeypatch.setattr(GradientStep, "__call__", both_ways)
    config = tiny_config("run", *GRID, "--multigrid", "both", "--epochs", "6", "--val-every", "0")
    train(config.replace(model=SMALL_MVIT))
    assert len(shapes) > 2


def test_passes_keep_the_clips_of_a_batch_statistic(tiny_config: MakeConfig, monkeypatch: pytest.MonkeyPatch):
    """With sub-batch-norm an average is over as many clips, in however many passes."""
    seen = shapes_seen(monkeypatch)
    flags = ("--multigrid", "long", "--epochs", "6", "--val-every", "0", *GRID, "--batch-size", "4")
    clips = {}
    for accumulate in (1, 2):
        train(tiny_config(f"{accumulate}", *flags, "--accumulate", str(accumulate)))
        clips[accumulate] = [size / (splits * accumulate) for size, _, _, splits in seen]
        seen.clear()
    assert clips[1] == clips[2] == [2.0] * len(clips[1])
    assert len(clips[1]) > 4
