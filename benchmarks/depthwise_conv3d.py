"""depthwise_conv3d forward and backward at X3D-S's sizes, compared with its memory bound and PyTorch.

The memory bound ("floor") is the number of bytes of its tensors, each read or written once (forward: input
and output; backward: gradient, input, input gradient), divided by the bandwidth of a copy larger than all
caches, the best one of the run. PyTorch runs in both memory layouts, in three rounds. The implementations
are timed in turns, and the minimum is reported, which load from other processes affects least, especially
with ``--threads 1``. As in `saccade train`, freed memory is not returned to the system. The results of the
native kernels are compared with the naive implementation first.

    python -m benchmarks depthwise_conv3d
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
from torch import Tensor

from benchmarks._record import write_results
from benchmarks._timing import warm_seconds
from saccade.ops import depthwise_conv3d, use_backend
from saccade.training.processes import keep_freed_memory

# X3D-S at 160 x 160: name, channels, kernel, size, stride, number of such layers
STAGES = [
    ("stem", 24, (5, 1, 1), 80, 1, 1),
    ("res2 first", 54, (3, 3, 3), 80, 2, 1),
    ("res2", 54, (3, 3, 3), 40, 1, 2),
    ("res3 first", 108, (3, 3, 3), 40, 2, 1),
    ("res3", 108, (3, 3, 3), 20, 1, 4),
    ("res4 first", 216, (3, 3, 3), 20, 2, 1),
    ("res4", 216, (3, 3, 3), 10, 1, 10),
    ("res5 first", 432, (3, 3, 3), 10, 2, 1),
    ("res5", 432, (3, 3, 3), 5, 1, 6),
]
Stage = tuple[str, int, tuple[int, int, int], int, int, int]
LAYOUTS = {"native": torch.channels_last_3d, "torch rows": torch.channels_last_3d}
LAYOUTS["torch planes"] = torch.contiguous_format
COPY_BYTES = 128 << 20


def main(args: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks depthwise_conv3d", description=__doc__)
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument("--frames", type=int, default=13)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args(args)
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    rows = [measure(stage, options.clips, options.frames, options.rounds) for stage in STAGES]
    rows.append(_whole_network(rows))
    bandwidth = max(float(str(row["copy_gb_s"])) for row in rows)
    for row in rows:
        native = float(str(row["forward_ms"])) + float(str(row["backward_ms"]))
        floor = float(str(row["floor_mb"])) / bandwidth
        row |= {"floor_ms": f"{floor:.3f}", "times_floor": f"{native / floor:.2f}"}
        print(f"{row['stage']:11} {row['times_floor']:>5} x memory bound at {bandwidth} GB/s")
    print(f"wrote {write_results('depthwise_conv3d', rows).name}")


def measure(stage: Stage, clips: int, frames: int, rounds: int) -> dict[str, object]:
    """A row of the table: milliseconds of each implementation at one stage, and the ratios."""
    name, channels, kernel, size, stride, layers = stage
    torch.manual_seed(0)
    x = torch.randn(clips, channels, frames, size, size)
    weight = torch.randn(channels, 1, *kernel)
    _check(x, weight, stride)
    source = torch.ones(COPY_BYTES // 4)
    target = torch.zeros_like(source)
    calls: dict[str, list[Callable[[], object]]] = {"copy": [lambda: target.copy_(source)]}
    for key, layout in LAYOUTS.items():
        backend = key.split()[0]
        calls[key] = _forward_and_backward(x.contiguous(memory_format=layout), weight, stride, backend)
    seconds: dict[str, list[float]] = {}
    for round_ in range(rounds):
        for key, pair in calls.items():
            if key.startswith("torch") and round_ >= 3:
                continue  # slow, and three rounds are enough
            for direction, call in zip(("forward", "backward"), pair, strict=False):
                seconds.setdefault(f"{key} {direction}", []).append(warm_seconds(call))
    best = {key: 1e3 * min(values) for key, values in seconds.items()}
    total = {name: best[f"{name} forward"] + best[f"{name} backward"] for name in LAYOUTS}
    bandwidth = 2 * COPY_BYTES / best["copy forward"]
    floor = 3 * x.nbytes + 2 * x.nbytes // stride**2
    median = sum(statistics.median(seconds[f"native {name}"]) for name in ("forward", "backward"))
    row = {
        "stage": name,
        "layers": layers,
        "input": "x".join(map(str, x.shape)),
        "kernel": "x".join(map(str, kernel)),
        "stride": f"1x{stride}x{stride}",
        "dtype": "float32",
        "copy_gb_s": f"{bandwidth / 1e6:.1f}",
        "floor_mb": f"{floor / 1e6:.3f}",
        "forward_ms": f"{best['native forward']:.3f}",
        "backward_ms": f"{best['native backward']:.3f}",
        "median_ms": f"{1e3 * median:.3f}",
        "torch_channels_last_ms": f"{total['torch rows']:.2f}",
        "torch_contiguous_ms": f"{total['torch planes']:.2f}",
        "times_torch": f"{min(total['torch rows'], total['torch planes']) / total['native']:.1f}",
    }
    _print(row)
    return row


def _run(x: Tensor, weight: Tensor, stride: int, backend: str) -> Tensor:
    with use_backend(backend):  # type: ignore[arg-type]
        padding = tuple(k // 2 for k in weight.shape[2:])
        return depthwise_conv3d(x, weight, stride=(1, stride, stride), padding=padding)


def _forward_and_backward(x: Tensor, weight: Tensor, stride: int, backend: str) -> list[Callable[[], object]]:
    x, weight = x.requires_grad_(), weight.detach().requires_grad_()
    y = _run(x, weight, stride, backend)
    grad = torch.randn_like(y)
    return [
        lambda: _run(x, weight, stride, backend),
        lambda: torch.autograd.grad(y, (x, weight), grad, retain_graph=True),
    ]


def _check(x: Tensor, weight: Tensor, stride: int) -> None:
    """Compare the native kernels with the naive implementation."""
    x, weight = x[:, :6, :5, :21, :21].detach().requires_grad_(), weight[:6].detach().requires_grad_()
    results = []
    for backend in ("native", "naive"):
        y = _run(x, weight, stride, backend)
        results.append([y, *torch.autograd.grad(y.square().sum(), (x, weight))])
    for ours, naive in zip(*results, strict=True):
        torch.testing.assert_close(ours, naive, rtol=1e-4, atol=1e-3)


def _whole_network(rows: list[dict[str, object]]) -> dict[str, object]:
    """The sum over all depthwise layers of the network."""

    def total(column: str) -> float:
        return sum(float(str(row[column])) * int(str(row["layers"])) for row in rows)

    native = total("forward_ms") + total("backward_ms")
    torch_ms = ("torch_channels_last_ms", "torch_contiguous_ms")
    columns = ("floor_mb", "forward_ms", "backward_ms", "median_ms", *torch_ms)
    row = rows[0] | {
        "stage": "all",
        "layers": sum(int(str(row["layers"])) for row in rows),
        "input": "x3d_s",
        "kernel": "-",
        "stride": "-",
        "copy_gb_s": f"{max(float(str(row['copy_gb_s'])) for row in rows):.1f}",
        **{column: f"{total(column):.3f}" for column in columns},
        "times_torch": f"{min(total(column) for column in torch_ms) / native:.1f}",
    }
    _print(row)
    return row


def _print(row: dict[str, object]) -> None:
    print(
        f"{row['stage']:11} {row['input']:16} {row['stride']:6} forward {row['forward_ms']:>7} ms, backward "
        f"{row['backward_ms']:>7} ms (copy {row['copy_gb_s']} GB/s), torch "
        f"{row['torch_channels_last_ms']} ms channels-last, {row['torch_contiguous_ms']} ms contiguous",
        flush=True,
    )
