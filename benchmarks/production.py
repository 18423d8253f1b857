"""Costs of running Saccade in production: start-up time, memory, and clips per second by threads.

Each row is a separate process, with its run time and its maximum resident memory. The clips are noise.

    python -m benchmarks production
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks._record import write_results
from saccade.video import write_video

MODEL = (
    "import saccade; model = saccade.create_model('{name}', 10); from saccade.models import save_weights; "
)
SAVE = MODEL + "save_weights(model, '{name}.safetensors')"
PREDICT = "-m saccade predict {video} --weights {name}.safetensors --json --workers 1"
LOOP = (
    "import sys, time, torch, saccade\n"
    "torch.set_num_threads({threads})\n"
    "predict = saccade.Predictor('{name}.safetensors', views='1x1')\n"
    "predict('clip.mp4')\n"
    "start, done = time.perf_counter(), 0\n"
    "while time.perf_counter() - start < {seconds}:\n"
    "    predict('clip.mp4')\n"
    "    done += 1\n"
    "print(done / (time.perf_counter() - start))\n"
)
SECONDS = 6


def main(_: list[str]) -> None:
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        draw = np.random.default_rng(0)
        scene = draw.integers(0, 255, (30, 144, 176, 3), dtype=np.uint8)
        write_video("clip.mp4", (scene[i % 30] for i in range(300)), fps=30)
        write_video("long.mp4", (scene[i % 30] for i in range(10 * 60 * 30)), fps=30, crf=40)
        for name in ("x3d_xs", "x3d_s"):
            spawn(["-c", SAVE.format(name=name)])
        for what, arguments in {
            "python -c 'import torch'": ["-c", "import torch"],
            "python -c 'import saccade'": ["-c", "import saccade"],
            "saccade --help": ["-m", "saccade", "--help"],
            "Predictor('x3d_s.safetensors')": [
                "-c",
                "import saccade; saccade.Predictor('x3d_s.safetensors')",
            ],
            "saccade predict, x3d_s, 10 s of video": PREDICT.format(video="clip.mp4", name="x3d_s").split(),
            "saccade predict, x3d_xs, 10 s of video": PREDICT.format(video="clip.mp4", name="x3d_xs").split(),
            "saccade predict, x3d_xs, 10 min of video": PREDICT.format(
                video="long.mp4", name="x3d_xs"
            ).split(),
        }.items():
            runs = [spawn(arguments)[:2] for _ in range(1 if "10 min" in what else 3)]
            seconds, memory = min(runs)
            rows.append(
                {"what": what, "seconds": f"{seconds:.2f}", "resident_mb": f"{memory:.0f}", "clips_s": ""}
            )
            print(rows[-1], flush=True)
        for processes, threads in ((1, 1), (1, 2), (2, 1)):
            rate, memory = throughput("x3d_s", processes, threads)
            what = f"x3d_s, one clip per video: {processes} process(es) with {threads} thread(s)"
            rows.append(
                {"what": what, "seconds": "", "resident_mb": f"{memory:.0f}", "clips_s": f"{rate:.2f}"}
            )
            print(rows[-1], flush=True)
        os.chdir("/")
    print(f"wrote {write_results('production', rows).name}")


def spawn(arguments: list[str]) -> tuple[float, float, str]:
    """(seconds, maximum resident memory in MB, output) of a Python process."""
    start = time.perf_counter()
    return finish(start_process(arguments), start)


# The memory of a process includes that of its parent at the fork, so a small process starts the measured one.
LAUNCH = (
    "import os, sys\n"
    "pid = os.posix_spawn(sys.executable, [sys.executable, *sys.argv[2:]], os.environ)\n"
    "_, status, usage = os.wait4(pid, 0)\n"
    "open(sys.argv[1], 'w').write(str(usage.ru_maxrss))\n"
    "sys.exit(status != 0)\n"
)


def start_process(arguments: list[str]) -> tuple[subprocess.Popen[str], Path]:
    memory = Path(tempfile.mkstemp(dir=".")[1])
    command = [sys.executable, "-S", "-c", LAUNCH, str(memory), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True), memory


def finish(process: tuple[subprocess.Popen[str], Path], start: float) -> tuple[float, float, str]:
    running, memory = process
    output, _ = running.communicate()
    if running.returncode:
        raise SystemExit(f"{running.args} exited with code {running.returncode}")
    return time.perf_counter() - start, int(memory.read_text()) / 1024, output


def throughput(name: str, processes: int, threads: int) -> tuple[float, float]:
    """(videos per second of all processes together, maximum memory of a process in MB)."""
    script = LOOP.format(threads=threads, name=name, seconds=SECONDS)
    running = [start_process(["-c", script]) for _ in range(processes)]
    done = [finish(process, time.perf_counter()) for process in running]
    return sum(float(text) for _, _, text in done), max(memory for _, memory, _ in done)
