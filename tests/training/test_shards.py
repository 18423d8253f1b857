"""Weights shared out among two processes (FSDP2, gloo): same training, plain files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from test_processes import in_two_processes, vector
from test_train import assert_same, lines, untimed, weights

from saccade.errors import ConfigError
from saccade.models import create_model, load_model
from saccade.training import TrainConfig, train
from saccade.training.checkpoint import load_checkpoint
from saccade.training.processes import Processes

MakeConfig = Callable[..., TrainConfig]
FLAGS = (
    *("--epochs", "3", "--val-every", "1.5", "--batch-size", "8", "--accumulate", "2", "--sync-bn"),
    *("--optim.name", "adamw", "--optim.lr", "0.001", "--optim.clip-grad", "1", "--ema", "0.9"),
    *("--model.layer-decay", "0.8", "--checkpoint-activations", "--no-channels-last", "--log-every", "1"),
)


@pytest.mark.slow
def test_shards_train_save_and_resume_as_whole_weights_do(tiny_config: MakeConfig, tmp_path: Path):
    whole, shared, parts = (tiny_config(name, *FLAGS) for name in ("whole", "shared", "parts"))
    sharded = shared.replace(shard=True)
    stopped = parts.replace(shard=True)
    in_two_processes(
        tmp_path, [(whole, {}, 0), (sharded, {}, 0), (stopped, {}, 2), (stopped, {"resume": True}, 0)]
    )
    one, other, again = (load_checkpoint(Path(c.out) / "last.pt") for c in (whole, shared, parts))
    assert one["progress"]["step"] == 6
    for name in ("model", "optimizer", "average"):  # plain tensors, under plain names
        assert type(other[name]) is dict
    assert one["model"].keys() == other["model"].keys()
    assert all(type(value) is torch.Tensor for value in other["model"].values())
    mine, theirs = (vector(state["model"]) for state in (one, other))
    assert (theirs - mine).norm() < 1e-5 * mine.norm()
    moments, shared_moments = (state["optimizer"]["state"] for state in (one, other))
    for place, entries in moments.items():
        torch.testing.assert_close(entries["exp_avg"], shared_moments[place]["exp_avg"], rtol=1e-3, atol=1e-6)
    average = vector(other["average"]["model"])
    assert (average - vector(one["average"]["model"])).norm() < 1e-5 * average.norm()
    # stopped in mid-epoch and resumed: bit for bit
    assert_same(other["model"], again["model"])
    assert_same(other["average"]["model"], again["average"]["model"])
    assert untimed(lines(Path(shared.out))) == untimed(lines(Path(parts.out)))
    # the best weights are a model on their own, whose validation was that of all videos
    model, metadata = load_model(Path(shared.out) / "best.safetensors")
    assert metadata["class_names"] == ["brightening", "darkening"]
    assert {type(value) for value in model.state_dict().values()} == {torch.Tensor}
    for a, b in zip(lines(Path(whole.out)), lines(Path(shared.out)), strict=True):
        for name in ("loss", "top1", "val_loss", "val_top1"):
            if name in a:
                assert b[name] == pytest.approx(a[name], rel=1e-3), (name, a["step"])


def test_a_run_of_shards_goes_on_without_them(tiny_config: MakeConfig, tmp_path: Path):
    config = tiny_config("run", "--epochs", "2", "--val-every", "0").replace(shard=True)
    in_two_processes(tmp_path, [(config, {}, 4)])
    assert load_checkpoint(Path(config.out) / "last.pt")["progress"]["step"] == 4
    result = train(config.replace(shard=False), resume=True)
    assert result.num_steps == 10
    assert all(value.isfinite().all() for value in weights(result.run_dir).values())


def test_a_model_with_a_schedule_of_its_own_is_refused():
    from saccade.training.shard import Shards

    model = create_model("rubiksnet_tiny_aq", 2, width=8, depths=(1, 1, 1, 1))
    with pytest.raises(ConfigError, match=r"^shard: rubiksnet_tiny_aq changes weights by a schedule"):
        Shards(model, None, Processes(0, 2, torch.device("cpu")))


def test_one_process_has_nobody_to_share_with(tiny_config: MakeConfig):
    with pytest.raises(ConfigError, match=r"^shard: needs several processes"):
        train(tiny_config("run").replace(shard=True))
