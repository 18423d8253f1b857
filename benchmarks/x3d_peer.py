"""X3D-S's training step, compared with PyTorchVideo's X3D-S in its default layout and in channels-last-3d.

Each implementation runs in a separate process. They run three steps in turns, so that load from other
processes affects all equally; the mean of the three steps is one measurement. Float32, random clips, batch 2
of 13x160x160; a step is forward, loss and backward. The outputs of the two code bases are compared first,
with the same weights.

PyTorchVideo is optional: ``pip install --no-deps pytorchvideo fvcore iopath portalocker yacs termcolor
tabulate parameterized tqdm networkx``. It imports torchvision, which is not available for every build of
PyTorch; its X3D does not use torchvision, so an empty module replaces it.

    python -m benchmarks x3d_peer
"""

from __future__ import annotations

import argparse
import importlib.machinery
import importlib.util
import statistics
import subprocess
import sys
import types

import torch
from torch import Tensor, nn

from benchmarks._record import write_results
from saccade.evaluation.speed import Stopwatch

PEER, PEER_CHANNELS_LAST = "pytorchvideo", "pytorchvideo, channels-last-3d"
OURS, OURS_TORCH = "saccade", "saccade, PyTorch's operators"
CONTENDERS = (PEER, PEER_CHANNELS_LAST, OURS_TORCH, OURS)
FRAMES, CROP = 13, 160
STEPS = 3  # consecutive steps per measurement, as in training


def main(args: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks x3d_peer", description=__doc__)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--worker", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args(args)
    if options.worker:
        _work(options.worker, options.batch)
        return
    if importlib.util.find_spec("pytorchvideo") is None:
        print("skipped: pytorchvideo is not installed (see the docstring of benchmarks/x3d_peer.py)")
        return
    print(f"same weights, relative difference of logits: {_difference():.1e}", flush=True)
    rows = _rows(_measure(options.batch, options.repeats), options.batch)
    print(f"wrote {write_results('x3d_peer', rows).name}")


def _measure(batch: int, repeats: int) -> dict[str, list[float]]:
    """Seconds per step of each implementation, timed in turns."""
    workers = {
        name: subprocess.Popen(
            [sys.executable, "-m", "benchmarks.x3d_peer", "--worker", name, "--batch", str(batch)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in CONTENDERS
    }
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    for repeat in range(-2, repeats):  # warm-up: the first steps select kernels and grow the heap
        for name, worker in workers.items():
            assert worker.stdin is not None
            assert worker.stdout is not None
            print("run", file=worker.stdin, flush=True)
            elapsed = float(worker.stdout.readline())
            if repeat >= 0:
                seconds[name].append(elapsed)
    for worker in workers.values():
        worker.communicate()
    return seconds


def _rows(seconds: dict[str, list[float]], batch: int) -> list[dict[str, object]]:
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    rows: list[dict[str, object]] = []
    for name, values in seconds.items():
        rows.append(
            {
                "contender": name,
                "clip": f"{FRAMES}x{CROP}",
                "batch": batch,
                "dtype": "float32",
                "seconds_median": f"{medians[name]:.4f}",
                "seconds_min": f"{min(values):.4f}",
                "seconds_max": f"{max(values):.4f}",
                "times_peer": f"{medians[PEER] / medians[name]:.2f}",
                "times_peer_channels_last": f"{medians[PEER_CHANNELS_LAST] / medians[name]:.2f}",
            }
        )
        print(
            f"{name:32} {medians[name]:7.3f} s   {medians[PEER] / medians[name]:5.2f}x peer   "
            f"{medians[PEER_CHANNELS_LAST] / medians[name]:5.2f}x peer in channels-last-3d",
            flush=True,
        )
    return rows


def _work(name: str, batch: int) -> None:
    """For each input line, run `STEPS` steps and print the mean seconds of a step."""
    torch.manual_seed(0)
    clips = torch.randn(batch, 3, FRAMES, CROP, CROP)
    if name != PEER:
        clips = clips.contiguous(memory_format=torch.channels_last_3d)
    model = _peer() if name in (PEER, PEER_CHANNELS_LAST) else _ours(name)
    if name == PEER_CHANNELS_LAST:
        model = model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    stopwatch = Stopwatch(model, clips, "train", warmup=0)
    for _ in sys.stdin:
        print(statistics.mean(stopwatch.time() for _ in range(STEPS)), flush=True)


def _ours(name: str) -> nn.Module:
    import os

    import saccade
    from saccade.training.processes import keep_freed_memory

    keep_freed_memory()  # as `saccade train` does
    if name == OURS_TORCH:
        os.environ["SACCADE_OPS"] = "torch"
    return saccade.create_model("x3d_s")


def _peer() -> nn.Module:
    for name in ("torchvision", "torchvision.ops", "torchvision.transforms"):
        stub = _Empty(name)
        stub.__path__ = []
        stub.__spec__ = importlib.machinery.ModuleSpec(name, None)
        sys.modules[name] = stub
    from pytorchvideo.models.x3d import create_x3d

    model: nn.Module = create_x3d(
        input_clip_length=FRAMES, input_crop_size=CROP, depth_factor=2.2, head_activation=None
    )
    return model


class _Empty(types.ModuleType):
    """A module from which any class can be imported."""

    def __getattr__(self, name: str) -> type:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def _difference() -> float:
    """Difference of logits with the peer's weights, relative to the largest logit."""
    import saccade

    peer = _peer().eval()
    ours = saccade.create_model("x3d_s", head_pool="pytorchvideo")
    saccade.load_weights(ours, {"model_state": peer.state_dict()})
    clips = torch.randn(1, 3, FRAMES, CROP, CROP)
    with torch.inference_mode():
        theirs: Tensor = peer(clips)
        return float((theirs - ours.eval()(clips)).abs().max() / theirs.abs().max())


if __name__ == "__main__":
    main(sys.argv[1:])
