"""Runs as real processes: killed, told to stop, and two at once."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_train import assert_same, lines, untimed, weights

from saccade.training import TrainConfig, train
from saccade.training.checkpoint import load_checkpoint

MakeConfig = Callable[..., TrainConfig]

# Saves after steps 0 and 7 alone and dies in the middle of step 10, with SIGKILL.
KILLED = """
import json, os, signal, sys
from saccade.training import TrainConfig, train
from saccade.training.loop import Trainer
from saccade.training.step import GradientStep

if __name__ == "__main__":
    save, gradients = Trainer.save, GradientStep.__call__
    calls = 0

    def sometimes(self):
        if self.progress.step in (0, 7):
            save(self)

    def killed(self, batch):
        global calls
        calls += 1
        sums = gradients(self, batch)
        if calls == 10:
            os.kill(os.getpid(), signal.SIGKILL)
        return sums

    Trainer.save, GradientStep.__call__ = sometimes, killed
    train(TrainConfig.from_dict(json.loads(sys.argv[1])))
"""


def start(args: list[str], **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        args,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "", **environment},
    )


# Several configs in turn, each with a port to meet at: what takes long is to import torch. A run ends after
# step "stop", as if told to by a signal.
IN_TURN = """
import json, os, sys
from saccade.training import RunInterrupted, TrainConfig, train
from saccade.training.loop import Trainer

if __name__ == "__main__":
    step = Trainer._step
    for values, options, stop, port in json.loads(sys.argv[1]):
        os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
        if "TORCHELASTIC_RUN_ID" not in os.environ:
            os.environ["MASTER_PORT"] = str(port)
        def until(self, batches, stop=stop):
            step(self, batches)
            if self.progress.step == stop:
                self._stop()
        Trainer._step = until
        try:
            train(TrainConfig.from_dict(values), **options)
        except RunInterrupted:
            assert stop
"""
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")


def in_two_processes(
    folder: Path, runs: list[tuple[TrainConfig, dict[str, Any], int]], *, torchrun: bool = False
) -> None:
    """Train configs with these options of `train`; the number is the step to stop after, or 0."""
    script = folder / "runs.py"
    script.write_text(IN_TURN)
    told = json.dumps([(config.to_dict(), options, stop, free_port()) for config, options, stop in runs])
    if torchrun:
        started = [start([*TORCHRUN, str(script), told])]
    else:
        environment = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
        started = [
            start([sys.executable, str(script), told], RANK=rank, LOCAL_RANK=rank, **environment)
            for rank in ("0", "1")
        ]
    try:
        for process in started:
            _, errors = process.communicate(timeout=240)
            assert process.returncode == 0, errors
    finally:
        for process in started:
            process.kill()
            process.communicate()


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def test_a_killed_run_resumes_bit_for_bit(tiny_config: MakeConfig, tmp_path: Path):
    flags = ("--ema", "0.9", "--save-minutes", "0")
    whole = train(tiny_config("whole", *flags)).run_dir
    config = tiny_config("killed", *flags)
    script = tmp_path / "killed.py"
    script.write_text(KILLED)
    process = start([sys.executable, str(script), json.dumps(config.to_dict())])
    _, errors = process.communicate(timeout=120)
    assert process.returncode == -signal.SIGKILL, errors
    folder = Path(config.out)
    assert load_checkpoint(folder / "last.pt")["progress"]["step"] == 7  # in mid-epoch: an epoch has 5 steps
    assert max(line["step"] for line in lines(folder)) > 7
    train(config, resume=True)
    one, other = load_checkpoint(whole / "last.pt"), load_checkpoint(folder / "last.pt")
    assert one["progress"] == other["progress"]
    assert_same(one["model"], other["model"])
    assert_same(one["average"]["model"], other["average"]["model"])
    assert untimed(lines(whole)) == untimed(lines(folder))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_a_signal_saves_and_says_how_to_go_on(tiny_config: MakeConfig, number: signal.Signals):
    config = tiny_config("run", "--epochs", "2000", "--val-every", "0", "--log-every", "1")
    folder = Path(config.out)
    recipe = folder.parent / "recipe.json"
    recipe.write_text(json.dumps(config.to_dict()))
    process = start([sys.executable, "-m", "saccade", "train", str(recipe)])
    deadline = time.monotonic() + 60
    while not (folder / "metrics.jsonl").is_file() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert errors.strip().splitlines()[-1].endswith(f"saccade train x3d_ucf10 --out {folder} --resume")
    assert "Traceback" not in errors
    step = load_checkpoint(folder / "last.pt")["progress"]["step"]
    assert step >= 1
    assert f"stopped at step {step} of 10000" in errors


def vector(state: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([value.double().flatten() for value in state.values() if value.is_floating_point()])


def test_two_processes_train_as_one(tiny_config: MakeConfig, tmp_path: Path):
    """Same global batch, synchronised batch norm, no dropout: equal but for rounding in float32."""
    flags = (
        "--model.dropout",
        "0",
        "--model.drop-path",
        "0",
        "--epochs",
        "2",
        "--log-every",
        "1",
        "--sync-bn",
    )
    flags += ("--optim.lr", "0.02", "--ema", "0.9")
    one, two = tiny_config("one", *flags), tiny_config("two", *flags)
    train(one)
    in_two_processes(tmp_path, [(two, {}, 0)], torchrun=True)
    single, double = lines(Path(one.out)), lines(Path(two.out))
    assert [line["step"] for line in single] == [line["step"] for line in double]
    for a, b in zip(single, double, strict=True):
        for name in ("loss", "top1", "lr", "val_top1", "val_loss"):
            if name in a:
                assert b[name] == pytest.approx(a[name], rel=1e-4), (name, a["step"])
    mine, theirs = vector(weights(Path(one.out))), vector(weights(Path(two.out)))
    assert (theirs - mine).norm() < 1e-4 * mine.norm()  # 1e-5 was seen
    still = train(tiny_config("still", *flags, "--optim.lr", "1e-12", "--val-every", "0")).run_dir
    assert (mine - vector(weights(still))).norm() > 1e-2 * mine.norm()
    # 5 validation videos for two processes, all in the scores, in the order of the data set
    import numpy as np

    with np.load(Path(one.out) / "val_scores.npz") as a, np.load(Path(two.out) / "val_scores.npz") as b:
        assert len(a["labels"]) == 5
        assert a["paths"].tolist() == b["paths"].tolist()
        np.testing.assert_allclose(a["scores"], b["scores"], atol=1e-4)
    assert json.loads((Path(two.out) / "config.json").read_text())["num_processes"] == 2


def test_synchronised_batch_norm_survives_its_measurement(tiny_config: MakeConfig, tmp_path: Path):
    """The batch norms stay as they were built, so one process trains the same, and a resumed run too."""
    flags = ("--model.dropout", "0", "--model.drop-path", "0", "--epochs", "2", "--sync-bn")
    flags += ("--precise-bn", "2", "--optim.lr", "0.02", "--log-every", "1")
    single = tiny_config("single", *flags)
    train(single)
    whole, paused = (tiny_config(name, *flags) for name in ("whole", "paused"))
    in_two_processes(
        tmp_path,
        [(whole, {}, 0), (paused, {"fraction": 0.5}, 0), (paused, {"resume": True}, 0)],
        torchrun=True,
    )
    both, again = (load_checkpoint(tmp_path / name / "last.pt") for name in ("whole", "paused"))
    assert_same(both["model"], again["model"])
    one = load_checkpoint(tmp_path / "single" / "last.pt")
    mine, theirs = vector(one["model"]), vector(both["model"])
    assert (theirs - mine).norm() < 1e-4 * mine.norm()
