"""Runs that detect, in the other ways a run may go: resumed, in two processes, by multigrid, compiled."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_detection import TINY, tiny
from test_processes import in_two_processes, vector
from test_train import assert_same, lines, untimed, weights

from data.ava_miniature import make_ava
from saccade.models import create_model
from saccade.training import TrainConfig, train
from saccade.training.checkpoint import load_checkpoint
from saccade.training.step import GradientStep


@pytest.fixture(scope="module")
def ava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """12 keyframes to train on."""
    return make_ava(tmp_path_factory.mktemp("ava") / "ava", num_videos=4, lists=False)


def config(ava: Path, out: Path, **changes: Any) -> TrainConfig:
    changes = {"log_every": 1, "epochs": 1.0, "val_every": 0.0} | changes
    optim = replace(tiny(ava, out).optim, warmup_epochs=0.0)
    return tiny(ava, out).replace(optim=optim, **changes)


def test_a_run_that_was_stopped_goes_on_bit_for_bit(
    ava: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = train(config(ava, tmp_path / "whole", ema=0.9, save_minutes=0.0)).run_dir
    parts = config(ava, tmp_path / "parts", ema=0.9, save_minutes=0.0)
    plain, calls = GradientStep.__call__, 0

    def fails(self: GradientStep, batch: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise RuntimeError("stop here")
        return plain(self, batch)

    with monkeypatch.context() as patch:
        patch.setattr(GradientStep, "__call__", fails)
        with pytest.raises(RuntimeError, match="stop here"):
            train(parts)
    assert load_checkpoint(Path(parts.out) / "last.pt")["progress"]["step"] == 2
    train(parts, resume=True)
    one, other = (load_checkpoint(folder / "last.pt") for folder in (whole, Path(parts.out)))
    assert one["progress"] == other["progress"]
    assert_same(one["model"], other["model"])
    assert_same(one["average"]["model"], other["average"]["model"])
    assert untimed(lines(whole)) == untimed(lines(Path(parts.out)))


@pytest.mark.slow
def test_two_processes_train_as_one(ava: Path, tmp_path: Path):
    """A clip each, two people in both: the mean over people is the mean of the processes' means."""
    options: dict[str, Any] = {"batch_size": 4, "sync_bn": True, "val_every": 1.0}
    one, two = (config(ava, tmp_path / name, **options) for name in ("one", "two"))
    train(one)
    in_two_processes(tmp_path, [(two, {}, 0)])
    single, double = lines(Path(one.out)), lines(Path(two.out))
    assert [line["step"] for line in single] == [line["step"] for line in double]
    for a, b in zip(single, double, strict=True):
        for name in ("val_frame_map", "val_loss"):
            if name in a:
                assert b[name] == pytest.approx(a[name], rel=1e-2), (name, a["step"])
    mine, theirs = vector(weights(Path(one.out))), vector(weights(Path(two.out)))
    assert (theirs - mine).norm() < 1e-2 * mine.norm()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["both", "x3d-multigrid"])
def test_multigrid_changes_the_shapes_of_clips_with_people(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any
):
    ava = make_ava(tmp_path / "ava", num_videos=12, lists=False)
    seen: set[tuple[int, ...]] = set()
    plain = GradientStep.__call__

    def call(self: GradientStep, batch: Any) -> Any:
        seen.add((len(batch), batch.clips[0].shape[0]))
        return plain(self, batch)

    monkeypatch.setattr(GradientStep, "__call__", call)
    run = config(ava, tmp_path / "run", multigrid=kind, batch_size=2, epochs=2.0)
    result = train(run.replace(clip=run.clip.replace(num_frames=4)))
    assert len(seen) >= 3
    assert all(value.isfinite().all() for value in weights(result.run_dir).values())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # PyTorch does it
@pytest.mark.filterwarnings(
    "ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning"
)  # as well
def test_a_compiled_model_is_the_same_for_any_number_of_people():
    torch.manual_seed(0)
    model = create_model("x2d", 3, **TINY, detection=True)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.eval()
    graphs = 0

    def count(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        nonlocal graphs
        graphs += 1
        return graph.forward

    compiled = torch.compile(model, backend=count)
    clips = torch.randn(2, 3, 2, 32, 32)
    corner = torch.tensor([[2.0, 3.0, 9.0, 8.0], [1.0, 5.0, 30.0, 31.0], [12.0, 0.0, 20.0, 25.0]]).repeat(
        2, 1
    )
    so_far = []
    for people in ((2, 3), (4, 4), (3, 2), (5, 3), (2, 5)):
        boxes = [corner[:number] for number in people]
        torch.testing.assert_close(compiled(clips, boxes), model(clips, boxes))
        so_far.append(graphs)
    assert so_far[0] == 3  # before the pooling of people, behind it, and what hands them on
    assert so_far[2] == so_far[-1], so_far
