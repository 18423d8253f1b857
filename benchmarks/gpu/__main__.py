"""``python -m benchmarks.gpu [PART ...] [--out DIR] [--minutes 8] [--tiny]``: measure on a GPU, in one go.

It needs PyTorch and Triton, a checkout, and no installation. All parts start at once and prepare themselves
(import, compile, check) side by side; then one after the other measures, alone. A part that fails or takes
too long is named, and the others go on. Each writes a CSV into DIR, whole after every row, and its output
into DIR/PART.txt; parts.csv says how each ended.

With ``--tiny`` on a CPU everything runs at tiny sizes, kernels in Triton's interpreter: to try the code.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib.util
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.gpu._measure import GO, READY

ROOT = Path(__file__).parent.parent.parent
TESTS = ("tests/ops/test_ops_gpu.py", "tests/transforms")
LARGE = "more_than_two_thousand_million"  # the test that wants most of the memory for itself
# In the order in which they measure: what matters most comes first, should the time run out.
PARTS = (
    "kernels",
    "steps:x3d_m",
    "steps:x3d_s",
    "steps:rubiksnet_tiny",
    "steps:vov3d_m",
    "steps:timesformer_base",
    "pointwise",
    "hog",
    "multigrid",
    "training",
    "tests",
    "tests:large",
)


@dataclass
class Running:
    """A part's process and how far it is."""

    name: str
    process: subprocess.Popen[str]
    log: Path
    ready: threading.Event = field(default_factory=threading.Event)
    started: float = field(default_factory=time.monotonic)
    ended: str = ""
    seconds: float = 0.0
    beside: str = ""


def main(args: list[str] | None = None) -> int:
    """Run the parts; 0 if all of them ended well."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--out", type=Path, default=Path("gpu_results"))
    parser.add_argument("--minutes", type=float, default=8.0, help="what runs then is stopped")
    parser.add_argument("--tiny", action="store_true", help="on a CPU, at tiny sizes; times mean nothing")
    options = parser.parse_args(args)
    unknown = [part for part in options.parts if part not in PARTS]
    if unknown:
        parser.error(f"no part {unknown[0]}; there are {', '.join(PARTS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * options.minutes
    chosen = [part for part in PARTS if not options.parts or part in options.parts]
    out = options.out.resolve()
    parts = [start(part, out, options.tiny) for part in chosen if part != "tests:large"]
    try:
        waiting = list(parts)
        wait_until_ready(waiting, deadline)
        while waiting:
            part = next((part for part in waiting if part.ready.is_set()), waiting[0])
            waiting.remove(part)
            preparing = [other.name for other in waiting if not other.ready.is_set()]
            measure(part, deadline)
            part.beside = " ".join(preparing)
            beside = f" (beside {part.beside})" if preparing else ""
            print(f"{part.name}: {part.ended}, {part.seconds:.0f} s measuring{beside}", flush=True)
        if "tests:large" in chosen:
            parts.append(start("tests:large", out, options.tiny))
            measure(parts[-1], deadline)
            print(f"tests:large: {parts[-1].ended}", flush=True)
    finally:
        for part in parts:
            stop(part)
    write_summary(parts, options.out)
    return int(any(part.ended != "ok" for part in parts))


def start(name: str, out: Path, tiny: bool) -> Running:
    """Start a part; what it prints goes into its file and, once it measures, onto the terminal."""
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(
        [str(ROOT / "src"), str(ROOT), *filter(None, [environment.get("PYTHONPATH")])]
    )
    environment["PYTHONUNBUFFERED"] = "1"
    if tiny:
        environment["TRITON_INTERPRET"] = "1"
    module, _, rest = name.partition(":")
    if module == "tests":
        environment["FAIL_WITHOUT_CUDA"] = "" if tiny else "1"
        command = [sys.executable, "-m", "pytest", "-q", "--maxfail=20", "-m", "gpu"]
        command += ["-p", "no:cacheprovider", "-k", LARGE if rest else f"not {LARGE}", *TESTS]
        if importlib.util.find_spec("xdist") and not rest:
            command += ["-n", str(min(6, os.cpu_count() or 1))]
        if tiny:
            command += ["--collect-only", "-q"]
    else:
        command = [sys.executable, "-m", f"benchmarks.gpu.{module}", "--waits", "--out", str(out)]
        command += ["--tiny"] * tiny + [rest] * bool(rest)
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    part = Running(name, process, out / f"{name.replace(':', '_')}.txt")
    threading.Thread(target=_listen, args=(part,), daemon=True).start()
    return part


def _listen(part: Running) -> None:
    assert part.process.stdout is not None
    with part.log.open("w", encoding="utf-8") as log:
        for line in part.process.stdout:
            if line.strip() == READY:
                part.ready.set()
                continue
            log.write(line)
            log.flush()
            print(f"[{part.name}] {line.rstrip()[:200]}", flush=True)
    part.process.wait()
    part.ready.set()


def wait_until_ready(parts: list[Running], deadline: float) -> None:
    """Until every part has prepared itself or ended, but no longer than 45 % of the time."""
    limit = time.monotonic() + 0.45 * (deadline - time.monotonic())
    late = [part.name for part in parts if not part.ready.wait(max(0.1, limit - time.monotonic()))]
    told = f", but {', '.join(late)}" if late else ""
    print(f"prepared after {time.monotonic() - parts[0].started:.0f} s{told}", flush=True)


def measure(part: Running, deadline: float) -> None:
    """Let a part measure until it ends or the time is up."""
    part.ready.wait(max(0.1, deadline - time.monotonic()))
    begun = time.monotonic()
    if part.process.poll() is None and part.process.stdin is not None:
        with contextlib.suppress(OSError):  # it ended meanwhile; its exit code says how
            print(GO, file=part.process.stdin, flush=True)
    try:
        code = part.process.wait(max(0.1, deadline - time.monotonic()))
        part.ended = "ok" if code == 0 else f"exit code {code}"
    except subprocess.TimeoutExpired:
        stop(part)
        part.ended = "stopped: the time is up"
    part.seconds = time.monotonic() - begun


def stop(part: Running) -> None:
    """End a part and what it has started."""
    if part.process.poll() is None:
        os.killpg(part.process.pid, 9)
        part.process.wait()


def write_summary(parts: list[Running], out: Path) -> None:
    """How each part ended, as parts.csv."""
    with (out / "parts.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(["part", "ended", "seconds_measuring", "beside"])
        writer.writerows([part.name, part.ended, f"{part.seconds:.1f}", part.beside] for part in parts)


if __name__ == "__main__":
    raise SystemExit(main())
