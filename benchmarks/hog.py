"""HOG targets of a clip, compared with scikit-image's in one process and in one process per thread.

The clip has 16 frames of 224x224 pixels of coarse plus fine noise; all frames, three colours, cells of 8x8
pixels. The implementations are timed in turns, so that load from other processes affects all equally. Their
results are compared first.

scikit-image is optional: ``pip install scikit-image``, or use another Python that has it, ``--peer-python
PATH``.

    python -m benchmarks hog
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks._record import write_results
from saccade.transforms.hog import HogKind, hog

FRAMES, SIZE = 16, 224
# Runs in a Python that may lack PyTorch: loads frames, and prints the seconds of a run for each input line.
PEER = """
import sys, time
import numpy as np
from skimage.feature import hog
frames = np.load(sys.argv[1])[int(sys.argv[2])::int(sys.argv[3])]
def plane(values):
    return hog(values, orientations=9, pixels_per_cell=(8, 8), cells_per_block=(1, 1), block_norm="L2",
               feature_vector=False)[:, :, 0, 0]
def clip():
    return np.stack([np.stack([plane(frame[..., c]) for c in range(3)], 2) for frame in frames])
np.save(sys.argv[1] + f".{sys.argv[2]}.{sys.argv[3]}.npy", clip())
print("ready", flush=True)
for _ in sys.stdin:
    start = time.perf_counter()
    clip()
    print(time.perf_counter() - start, flush=True)
"""


def main(args: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks hog", description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--peer-python", default=sys.executable, help="a Python with scikit-image")
    parser.add_argument("--dry", action="store_true", help="do not write the results")
    options = parser.parse_args(args)
    if options.peer_python == sys.executable and importlib.util.find_spec("skimage") is None:
        print("skipped: scikit-image is not installed (see the docstring of benchmarks/hog.py)")
        return
    frames = _frames()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frames.npy"
        np.save(path, frames.numpy())
        rows = _rows(_measure(options.peer_python, path, frames, options.repeats))
    if not options.dry:
        print(f"wrote {write_results('hog', rows).name}")


def _frames() -> torch.Tensor:
    """uint8 (T, H, W, 3)."""
    random = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 256, (FRAMES, 3, SIZE // 16, SIZE // 16), generator=random).float()
    planes = F.interpolate(coarse, size=(SIZE, SIZE), mode="bicubic")
    planes += 4 * torch.randn(planes.shape, generator=random)
    return planes.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _measure(python: str, path: Path, frames: torch.Tensor, repeats: int) -> dict[str, list[float]]:
    """Seconds of each implementation's runs."""
    num_threads = torch.get_num_threads()
    peers = {
        f"scikit-image, {num} process{'es' * (num > 1)}": [_peer(python, path, i, num) for i in range(num)]
        for num in sorted({1, num_threads})
    }
    theirs = np.load(f"{path}.0.1.npy")
    difference = float(np.abs(hog(frames).numpy() - theirs).max())
    print(f"largest difference from scikit-image: {difference:.1e}", flush=True)
    kinds: tuple[HogKind, ...] = ("soft", "hard")
    seconds: dict[str, list[float]] = {name: [] for name in [*peers, *(f"saccade, {kind}" for kind in kinds)]}
    for repeat in range(-2, repeats):  # two warm-up runs
        for name, workers in peers.items():
            elapsed = _run(workers)
            if repeat >= 0:
                seconds[name].append(elapsed)
        for kind in kinds:
            start = time.perf_counter()
            hog(frames, kind)
            if repeat >= 0:
                seconds[f"saccade, {kind}"].append(time.perf_counter() - start)
    for workers in peers.values():
        for worker in workers:
            worker.communicate()
    return seconds


def _peer(python: str, path: Path, index: int, num: int) -> subprocess.Popen[str]:
    worker = subprocess.Popen(
        [python, "-c", PEER, str(path), str(index), str(num)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdout is not None
    assert worker.stdout.readline().strip() == "ready"
    return worker


def _run(workers: list[subprocess.Popen[str]]) -> float:
    """Run all workers in parallel, each on its part of the frames; seconds of the slowest."""
    for worker in workers:
        assert worker.stdin is not None
        print("run", file=worker.stdin, flush=True)
    return max(float(worker.stdout.readline()) for worker in workers if worker.stdout is not None)


def _rows(seconds: dict[str, list[float]]) -> list[dict[str, object]]:
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    peers = [median for name, median in medians.items() if name.startswith("scikit-image")]
    rows: list[dict[str, object]] = []
    for name, values in seconds.items():
        single, several = f"{peers[0] / medians[name]:.1f}", f"{peers[-1] / medians[name]:.1f}"
        rows.append(
            {
                "contender": name,
                "clip": f"{FRAMES}x{SIZE}",
                "milliseconds_median": f"{1e3 * medians[name]:.2f}",
                "milliseconds_min": f"{1e3 * min(values):.2f}",
                "milliseconds_max": f"{1e3 * max(values):.2f}",
                "times_one_process": single,
                "times_processes": several,
            }
        )
        print(
            f"{name:28} {1e3 * medians[name]:9.2f} ms a clip  {single:>6}x one process  {several:>6}x all",
            flush=True,
        )
    return rows


if __name__ == "__main__":
    main(sys.argv[1:])
