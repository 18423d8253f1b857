"""Whole runs on a GPU: make `motion`, train, resume, test, predict, by the commands that users type.

Needs what the command line needs (av, tyro); without them it says so and measures nothing. Each row is a
command, its exit code, its seconds and what it ended with: plain, bfloat16, compiled, multigrid, a
transformer, nccl under torchrun, and `saccade test` on the GPU and on the CPU, whose accuracies must agree.

    python -m benchmarks.gpu training
"""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.gpu._measure import Setting, Table, setting


def main(here: Setting) -> None:
    """Make the clips beside the other parts, then run command after command."""
    missing = [name for name in ("av", "tyro") if importlib.util.find_spec(name) is None]
    if missing:
        print(f"not run: {' and '.join(missing)} not installed", flush=True)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        few = "4" if here.tiny else "32"
        _command(["data", "motion", "data", "--clips-per-class", few, "--val-per-class", "8"], folder)
        here.wait_for_turn()
        table = Table("training_gpu", here)
        epochs = "6" if here.tiny else "12"
        common = ["--data", "data", "--epochs", epochs, "--val-every", epochs, "--test-views", ""]
        common += ["--workers", "0" if here.tiny else "8"]
        runs = {
            "plain": ["x3d_motion"],
            "bfloat16": ["x3d_motion", "--precision", "bfloat16"],
            "compiled": ["x3d_motion", "--precision", "bfloat16", "--compile"],
            "multigrid": ["x3d_motion", "--precision", "bfloat16", "--multigrid", "both"],
            "transformer": ["timesformer_motion", "--precision", "bfloat16"],
            "shift": ["rubiksnet_tiny_motion", "--precision", "bfloat16"],
        }
        for label, words in runs.items():
            table.add(_row(label, ["train", *words, *common, "--out", f"runs/{label}"], folder))
        launched = ["--out", "runs/nccl", "--precision", "bfloat16"]
        table.add(_row("nccl", ["train", "x3d_motion", *common, *launched], folder, torchrun=True))
        for device in ("cuda", "cpu"):
            words = ["test", "runs/plain", "--data", "data", "--views", "1x1,3x1", "--device", device]
            table.add(_row(f"test on {device}", words, folder))
        clip = next((folder / "data").rglob("*.mp4"))
        words = ["predict", str(clip), "--run", "runs/bfloat16", "--jsonl", "out.jsonl"]
        table.add(_row("predict", words, folder))


def _row(label: str, words: list[str], folder: Path, *, torchrun: bool = False) -> dict[str, object]:
    start = time.perf_counter()
    done = _command(words, folder, torchrun=torchrun)
    taken = time.perf_counter() - start
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    ended = lines[-1].strip()[:160] if lines else ""
    if done.returncode:
        print("\n".join(lines[-25:]), flush=True)
    elif words[0] == "train":
        ended = _last_figures(folder / words[words.index("--out") + 1])
    elif words[0] == "test":
        ended = " / ".join(line.strip() for line in lines if "%" in line)[:160]
    return {"run": label, "exit": done.returncode, "seconds": f"{taken:.1f}", "ended": ended}


def _last_figures(run: Path) -> str:
    """Loss, rate and validation of a run, from its metrics.jsonl."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    merged: dict[str, object] = {}
    for record in records:
        merged |= record
    names = ("loss", "clips_per_s", "data_wait", "val_top1", "val_loss")
    return " ".join(f"{name} {merged[name]:.4g}" for name in names if name in merged)


def _command(words: list[str], folder: Path, *, torchrun: bool = False) -> subprocess.CompletedProcess[str]:
    start = [sys.executable, "-m"]
    if torchrun:
        start += ["torch.distributed.run", "--nproc-per-node", "1", "-m"]
    return subprocess.run(
        [*start, "saccade", *words], cwd=folder, capture_output=True, text=True, check=False, timeout=300
    )


if __name__ == "__main__":
    main(setting())
