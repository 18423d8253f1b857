"""Search PyTorch's CPU convolutions for crashes, hangs and wrong values on older processors.

PyTorch 2.13 corrupts the heap in the backward pass of a strided 1x1 ``conv2d`` with fewer than 8 input
channels in channels-last memory, on processors without AVX-512. This tool determines the extent of that bug
and searches for others: it draws random convolutions (2-D and 3-D; channels, kernels, strides, padding,
groups, layouts, batch sizes, threads), runs each forward and backward in a separate process, and compares
outputs and gradients with float64.

    python tools/scan_convolutions.py                           # 1500 cases each as AVX2 and as SSE41
    python tools/scan_convolutions.py --isa AVX2 --cases 20000 --seed 1
    python tools/scan_convolutions.py --dims 2 --kernel 1 --cases 5000

``ONEDNN_MAX_CPU_ISA`` limits oneDNN to the instruction set. ``MALLOC_PERTURB_`` overwrites freed memory and,
if glibc has ``libc_malloc_debug``, ``MALLOC_CHECK_`` detects writes beyond the end of a block, so that
corruption is detected in the case that causes it. PyTorch is loaded once; forked processes run a few cases
each, which are repeated one by one if the process dies. The output is one line per finding, then counts by
kind.

Exit code: 0 without findings, 1 with.
"""

from __future__ import annotations

import argparse
import os
import random
import select
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path

ISAS = ("AVX2", "SSE41")
CASES_IN_A_PROCESS = 8
REPETITIONS = 3
TOLERANCE = 1e-4
"""Largest difference from float64, relative to the largest value."""
MALLOC_DEBUG = "libc_malloc_debug.so.0"

IN_CHANNELS = (*range(1, 10), 12, 15, 16, 17, 24, 31, 48)
OUT_CHANNELS = (1, 3, 5, 8, 13, 16, 24, 54)
KERNELS = {
    2: ((1, 1), (2, 2), (3, 3), (1, 3), (4, 4)),
    3: ((1, 1, 1), (1, 3, 3), (3, 1, 1), (2, 4, 4), (3, 3, 3)),
}


@dataclass(frozen=True)
class Case:
    """One convolution, forward and backward."""

    in_channels: int
    out_channels: int
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    groups: int
    channels_last: bool
    batch: int
    size: tuple[int, ...]
    threads: int
    bias: bool
    input_grad: bool

    @property
    def kind(self) -> str:
        """The category of the case in the summary."""
        kernel = "x".join(map(str, self.kernel))
        return (
            f"conv{len(self.kernel)}d {kernel}, {'strided' if max(self.stride) > 1 else 'stride 1'}, "
            f"{'padded' if any(self.padding) else 'no padding'}, "
            f"{'channels-last' if self.channels_last else 'contiguous'}, "
            f"{'groups' if self.groups > 1 else 'one group'}, "
            f"{'under 8' if self.in_channels // self.groups < 8 else '8 or more'} input channels a group"
        )

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in asdict(self).items()).replace(", ", ",")


def draw_cases(rng: random.Random, dims: int | None, kernel: int | None) -> Iterator[Case]:
    """Random cases without end; ``dims`` (2 or 3) and ``kernel`` (1: only pointwise) restrict them."""
    while True:
        d = dims or rng.choice((2, 3))
        shape = (1,) * d if kernel == 1 else rng.choice(KERNELS[d])
        steps = [(1,) * d, (2,) * d, (1,) * (d - 2) + (2, 2), shape]
        if d == 3:
            steps.append((2, 1, 1))
        stride = rng.choice(steps)
        padding = rng.choice(((0,) * d, tuple(k // 2 for k in shape)))
        in_channels, out_channels = rng.choice(IN_CHANNELS), rng.choice(OUT_CHANNELS)
        groups = 1
        if rng.random() < 0.25:
            in_channels, out_channels, groups = rng.choice(
                (
                    (2 * in_channels, 2 * out_channels, 2),
                    (in_channels, in_channels, in_channels),  # depthwise
                    (in_channels, 2 * in_channels, in_channels),
                )
            )
        case = Case(
            in_channels,
            out_channels,
            shape,
            stride,
            padding,
            groups,
            rng.random() < 0.75,
            rng.choice((1, 2, 5, 8, 16, 20)),
            tuple(rng.choice(s) for s in ([(1, 4, 5)] if d == 3 else []) + [(4, 7, 20), (5, 8, 28)]),
            rng.choice((1, 2)),
            rng.random() < 0.3,
            rng.random() < 0.8,
        )
        if all(n + 2 * p >= k for n, p, k in zip(case.size, padding, shape, strict=True)):
            yield case


def run_case(case: Case) -> str:
    """Run a case and describe wrong values; "" if there are none."""
    import torch

    torch.set_num_threads(case.threads)
    generator = torch.Generator().manual_seed(0)
    dims = len(case.kernel)
    shape = (case.batch, case.in_channels, *case.size)
    weight_shape = (case.out_channels, case.in_channels // case.groups, *case.kernel)
    convolve = torch.nn.functional.conv2d if dims == 2 else torch.nn.functional.conv3d
    last = torch.channels_last if dims == 2 else torch.channels_last_3d
    options = (case.stride, case.padding, 1, case.groups)
    values = [torch.randn(s, generator=generator) for s in (shape, weight_shape, case.out_channels)]
    expected = None
    for _ in range(REPETITIONS):
        for dtype in (torch.float64, torch.float32) if expected is None else (torch.float32,):
            x, weight, bias = (v.to(dtype, copy=True) for v in values)
            if case.channels_last:
                x = x.contiguous(memory_format=last)
            x.requires_grad_(case.input_grad)
            weight.requires_grad_()
            bias.requires_grad_(case.bias)
            y = convolve(x, weight, bias if case.bias else None, *options)
            y.backward(torch.linspace(-1, 2, y.numel(), dtype=dtype).view_as(y))
            results = {"y": y.detach(), "grad x": x.grad, "grad weight": weight.grad, "grad bias": bias.grad}
            if dtype == torch.float64:
                expected = results
        assert expected is not None
        for name, reference in expected.items():
            value = results[name]
            if reference is None or value is None:
                continue
            difference = (value.double() - reference).abs().max()
            error = float(difference / reference.abs().max().clamp(min=1e-3))
            if not error < TOLERANCE:
                return f"{name} differs from float64 by {error:.1e}"
    return ""


def run_in_process(cases: list[Case], timeout: float) -> list[str | None]:
    """A finding for each case: "" for none, a text, or None if a crash or a hang prevented the case."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # hide glibc's messages on abort
        for case in cases:
            try:
                text = run_case(case)
            except Exception as error:
                text = f"{type(error).__name__}: {error}"
            os.write(writer, (text.replace("\n", " ")[:200] + "\n").encode())
        os._exit(0)
    os.close(writer)
    received, hung = b"", False
    while True:
        if not select.select([reader], [], [], timeout)[0]:
            hung = True
            os.kill(pid, signal.SIGKILL)
        chunk = os.read(reader, 65536)
        if not chunk:
            break
        received += chunk
    os.close(reader)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    findings: list[str | None] = [*received.decode().split("\n")[:-1]]
    if status or len(findings) < len(cases):
        end = "hangs" if hung else f"exits with {signal.Signals(-status).name if status < 0 else status}"
        findings = [*findings[: len(cases) - 1], end]
    return findings + [None] * (len(cases) - len(findings))


def scan(cases: list[Case], timeout: float) -> dict[Case, str]:
    """Run all cases; returns the findings."""
    found: dict[Case, str] = {}
    for start in range(0, len(cases), CASES_IN_A_PROCESS):
        batch = cases[start : start + CASES_IN_A_PROCESS]
        if sys.stderr.isatty():
            print(f"\r{start} of {len(cases)}", end="\r", file=sys.stderr)
        findings = run_in_process(batch, timeout)
        if any(findings) and len(batch) > 1:
            single = [run_in_process([case], timeout)[0] for case in batch]
            if any(single) or "hangs" in findings:  # otherwise a crash that no single case reproduces
                findings = single
        for case, finding in zip(batch, findings, strict=True):
            if finding:
                found[case] = finding
                print(f"{finding}: {case}", flush=True)
    return found


def malloc_debug_library() -> Path | None:
    """glibc's library for ``MALLOC_CHECK_``; None if it is not installed."""
    folders = [Path("/lib"), *Path("/lib").glob("*-linux-gnu"), *Path("/usr/lib").glob("*-linux-gnu")]
    return next((f / MALLOC_DEBUG for f in folders if (f / MALLOC_DEBUG).exists()), None)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--isa", choices=ISAS, action="append", help="repeatable; default: all")
    parser.add_argument("--cases", type=int, default=1500, help="for each instruction set")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dims", type=int, choices=(2, 3))
    parser.add_argument("--kernel", type=int, choices=(1,), help="1: only pointwise convolutions")
    parser.add_argument("--timeout", type=float, default=120, help="seconds per case")
    parser.add_argument("--here", metavar="ISA", help=argparse.SUPPRESS)  # the child process that scans
    args = parser.parse_args()
    if not args.here:
        codes = [_run_as(isa, sys.argv[1:]) for isa in args.isa or ISAS]
        return int(any(codes))
    import torch

    cases = list(islice(draw_cases(random.Random(args.seed), args.dims, args.kernel), args.cases))
    found = scan(cases, args.timeout)
    print(f"{args.here}, PyTorch {torch.__version__}: {len(cases)} cases, {len(found)} findings")
    kinds = Counter(case.kind for case in cases)
    for kind, count in Counter(case.kind for case in found).most_common():
        print(f"  {count} of {kinds[kind]} with {kind}")
    return int(bool(found))


def _run_as(isa: str, arguments: list[str]) -> int:
    """Run this tool in a child process with the environment of an instruction set."""
    env = {**os.environ, "ONEDNN_MAX_CPU_ISA": isa, "MALLOC_PERTURB_": "85", "OMP_WAIT_POLICY": "PASSIVE"}
    library = malloc_debug_library()
    if library is not None:
        env |= {"MALLOC_CHECK_": "3", "LD_PRELOAD": str(library)}
    return subprocess.run([sys.executable, __file__, *arguments, "--here", isa], env=env).returncode


if __name__ == "__main__":
    sys.exit(main())
