"""What the parts share: where they run, how they wait for their turn, how they time and write down.

A part prepares itself (imports, compiles, checks) beside the others, then waits until it may measure: the
runner starts all parts at once and lets one after the other measure, alone.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from benchmarks._record import write_results

READY, GO = "ready to measure", "measure"


@dataclass
class Setting:
    """How a part runs.

    Attributes:
        out: the folder of the CSV files.
        device: "cuda"; "cpu" with ``tiny``.
        tiny: sizes that a CPU and Triton's interpreter can do, to try the part out; its times mean nothing.
        waits: whether the runner says when to measure.
    """

    out: Path
    device: str = "cuda"
    tiny: bool = False
    waits: bool = False
    rest: list[str] = field(default_factory=list)

    def wait_for_turn(self) -> None:
        """Return when no other part measures."""
        if self.waits:
            print(READY, flush=True)
            if sys.stdin.readline().strip() != GO:
                raise SystemExit("the runner has ended")


def setting(args: list[str] | None = None) -> Setting:
    """The setting of a part that is run by itself or by the runner."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("gpu_results"), help="folder of the CSV files")
    parser.add_argument("--tiny", action="store_true", help="try it out on a CPU; times mean nothing")
    parser.add_argument("--waits", action="store_true", help=argparse.SUPPRESS)
    options, rest = parser.parse_known_args(args)
    options.out.mkdir(parents=True, exist_ok=True)
    device = "cpu" if options.tiny else "cuda"
    return Setting(out=options.out, device=device, tiny=options.tiny, waits=options.waits, rest=rest)


class Table:
    """Rows of one CSV file, which is whole after every row."""

    def __init__(self, name: str, setting: Setting) -> None:
        self.name, self._setting = name, setting
        self.rows: list[dict[str, object]] = []

    def add(self, row: Mapping[str, object]) -> None:
        """Write a row down and print it."""
        self.rows.append(dict(row))
        write_results(self.name, self.rows, device=self._setting.device, folder=self._setting.out)
        print("  ".join(f"{value!s:>10}" for value in row.values()), flush=True)


def error_line(error: BaseException) -> str:
    """An error as one short line."""
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"[:200]


def seconds(step: Callable[[], object], *, most: int = 30, budget: float = 0.4) -> float:
    """Median time of a step on the GPU's clock, with nothing of use in its cache.

    The GPU is given something to do before, so that it does not wait for the processor to issue the work.

    Args:
        most: how often the step is timed at most; at least 5 times.
        budget: seconds that all repeats may take together.
    """
    if not torch.cuda.is_available():
        start = time.perf_counter()
        step()
        return time.perf_counter() - start
    for _ in range(2):
        step()
    torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    torch.cuda.synchronize()
    once = time.perf_counter() - start
    repeats = max(5, min(most, int(budget / max(once, 1e-6))))
    cache = torch.empty(256 * 2**20, dtype=torch.int8, device="cuda")
    marks = [[torch.cuda.Event(enable_timing=True) for _ in range(2)] for _ in range(repeats)]
    for start_event, end_event in marks:
        for _ in range(4):
            cache.zero_()
        start_event.record()
        step()
        end_event.record()
    torch.cuda.synchronize()
    return statistics.median(start.elapsed_time(end) for start, end in marks) / 1e3


def wall_seconds(step: Callable[[], object], *, most: int = 20, budget: float = 2.0) -> tuple[float, float]:
    """Median seconds of a whole step, and of issuing it: when they are alike, the processor is the limit.

    Steps follow one another as in training, without a wait between them but the one that ends the timing.
    """
    synchronize()
    start = time.perf_counter()
    step()
    synchronize()
    once = time.perf_counter() - start
    if not torch.cuda.is_available():
        return once, once
    repeats = max(4, min(most, int(budget / max(once, 1e-6))))
    issued = []
    for _ in range(2):
        step()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        before = time.perf_counter()
        step()
        issued.append(time.perf_counter() - before)
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / repeats, min(issued)


def synchronize() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def forget_tuning() -> None:
    """Let Triton choose its configurations anew: those chosen beside other parts are chance."""
    from saccade.ops.depthwise_conv3d import triton_kernel

    for kernel in vars(triton_kernel).values():
        cache = getattr(kernel, "cache", None)
        if isinstance(cache, dict) and hasattr(kernel, "configs"):
            cache.clear()


def peak_gib() -> str:
    """Most memory that tensors took so far, in GiB."""
    return f"{torch.cuda.max_memory_allocated() / 2**30:.1f}" if torch.cuda.is_available() else ""
