"""shift3d forward and backward at RubiksNet's sizes, compared with its memory bound and grid_sample.

The memory bound ("floor") is the number of bytes of its tensors, each read or written once (forward: input
and output; backward: gradient, input, input gradient), divided by the bandwidth of a copy larger than all
caches. The implementations are timed in turns, and the minimum is reported, which load from other processes
affects least. As in `saccade train`, freed memory is not returned to the system. The results of the native
kernels are compared with the naive implementation first.

    python -m benchmarks shift
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks._record import write_results
from benchmarks._timing import warm_seconds
from saccade.ops import shift3d, use_backend
from saccade.training.processes import keep_freed_memory

# RubiksNet-tiny at 224 x 224: name, channels, size, stride, number of such blocks
STAGES = [
    ("layer0", 54, 112, 1, 1),
    ("layer1 first", 54, 112, 2, 1),
    ("layer1", 54, 56, 1, 2),
    ("layer2 first", 108, 56, 2, 1),
    ("layer2", 108, 28, 1, 3),
    ("layer3 first", 216, 28, 2, 1),
    ("layer3", 216, 14, 1, 5),
    ("layer4 first", 432, 14, 2, 1),
    ("layer4", 432, 7, 1, 2),
]
COPY_BYTES = 128 << 20


def main(args: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks shift", description=__doc__)
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args(args)
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    rows = [measure(stage, options.clips, options.frames, options.rounds) for stage in STAGES]
    rows.append(_whole_network(rows))
    print(f"wrote {write_results('shift', rows).name}")


def measure(stage: tuple[str, int, int, int, int], clips: int, frames: int, rounds: int) -> dict[str, object]:
    """A row of the table: milliseconds of each implementation at one stage, and the ratios."""
    name, channels, size, stride, blocks = stage
    torch.manual_seed(0)
    x = torch.randn(clips, channels, frames, size, size).requires_grad_()
    shift = (torch.rand(3, channels) * 2 - 1).requires_grad_()
    _check(x, shift, stride)
    source = torch.ones(COPY_BYTES // 4)
    target = torch.zeros_like(source)
    calls = {
        "copy": (lambda: target.copy_(source), None),
        "native": _forward_and_backward(x, shift, lambda: _shift("native", x, shift, stride)),
        "torch": _forward_and_backward(x, shift, lambda: _shift("torch", x, shift, stride)),
        "grid_sample": _forward_and_backward(x, shift, lambda: grid_sample_shift(x, shift, stride)),
    }
    seconds: dict[str, list[float]] = {}
    for round_ in range(rounds):
        for key, pair in calls.items():
            if key in ("torch", "grid_sample") and round_ >= 3:
                continue  # slow, and three rounds are enough
            for direction, call in zip(("forward", "backward"), pair, strict=True):
                if call is not None:
                    seconds.setdefault(f"{key} {direction}", []).append(warm_seconds(call))
    best = {key: 1e3 * min(values) for key, values in seconds.items()}
    read, written = x.nbytes, x.nbytes // stride**2
    bandwidth = 2 * COPY_BYTES / best["copy forward"]
    floor = (3 * read + 2 * written) / bandwidth
    native = best["native forward"] + best["native backward"]
    median = sum(statistics.median(seconds[f"native {name}"]) for name in ("forward", "backward"))
    row = {
        "stage": name,
        "blocks": blocks,
        "input": f"{clips}x{channels}x{frames}x{size}x{size}",
        "stride": f"1x{stride}x{stride}",
        "dtype": "float32",
        "copy_gb_s": f"{bandwidth / 1e6:.1f}",
        "floor_ms": f"{floor:.3f}",
        "forward_ms": f"{best['native forward']:.3f}",
        "backward_ms": f"{best['native backward']:.3f}",
        "median_ms": f"{1e3 * median:.3f}",
        "times_floor": f"{native / floor:.2f}",
        "torch_ms": f"{best['torch forward'] + best['torch backward']:.2f}",
        "grid_sample_ms": f"{best['grid_sample forward'] + best['grid_sample backward']:.2f}",
        "times_grid_sample": f"{(best['grid_sample forward'] + best['grid_sample backward']) / native:.1f}",
    }
    _print(row)
    return row


def grid_sample_shift(x: Tensor, shift: Tensor, stride: int) -> Tensor:
    """The shift as a trilinear `F.grid_sample`, in which each channel of each clip is a volume."""
    clips, channels, frames, height, width = x.shape
    axes = [torch.arange(frames), torch.arange(0, height, stride), torch.arange(0, width, stride)]
    positions = [axis + row[:, None] for axis, row in zip(axes, shift, strict=True)]
    t, h, w = (
        position * (2 / max(length - 1, 1)) - 1
        for position, length in zip(positions, (frames, height, width), strict=True)
    )
    shape = (channels, len(axes[0]), len(axes[1]), len(axes[2]))
    grid = torch.stack(
        [
            w[:, None, None, :].expand(shape),
            h[:, None, :, None].expand(shape),
            t[:, :, None, None].expand(shape),
        ],
        dim=-1,
    )
    grid = grid.expand(clips, *grid.shape).flatten(0, 1)
    out = F.grid_sample(x.flatten(0, 1).unsqueeze(1), grid, padding_mode="zeros", align_corners=True)
    return out.view(clips, *shape)


def _shift(backend: str, x: Tensor, shift: Tensor, stride: int) -> Tensor:
    with use_backend(backend):  # type: ignore[arg-type]
        return shift3d(x, shift, stride=(1, stride, stride))


def _forward_and_backward(
    x: Tensor, shift: Tensor, forward: Callable[[], Tensor]
) -> tuple[Callable[[], object], Callable[[], object]]:
    out = forward()
    grad = torch.randn_like(out)
    return forward, lambda: torch.autograd.grad(out, (x, shift), grad, retain_graph=True)


def _check(x: Tensor, shift: Tensor, stride: int) -> None:
    """Compare the native kernels and grid_sample with the naive implementation."""
    x, shift = x[:, :6, :, :30, :30].detach().requires_grad_(), shift[:, :6].detach().requires_grad_()
    results = []
    for call in (lambda: _shift("native", x, shift, stride), lambda: _shift("naive", x, shift, stride)):
        out = call()
        results.append([out, *torch.autograd.grad(out.square().sum(), (x, shift))])
    results.append([grid_sample_shift(x, shift, stride)])
    for ours, theirs in zip(results[0], results[1], strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(results[0][0], results[2][0], rtol=1e-4, atol=1e-3)


def _whole_network(rows: list[dict[str, object]]) -> dict[str, object]:
    """The sum over all shifts of the network."""

    def total(column: str) -> float:
        return sum(float(str(row[column])) * int(str(row["blocks"])) for row in rows)

    native = total("forward_ms") + total("backward_ms")
    row = rows[0] | {
        "stage": "all",
        "blocks": sum(int(str(row["blocks"])) for row in rows),
        "input": "rubiksnet_tiny",
        "stride": "-",
        "copy_gb_s": f"{statistics.median(float(str(row['copy_gb_s'])) for row in rows):.1f}",
        **{
            column: f"{total(column):.3f}"
            for column in ("floor_ms", "forward_ms", "backward_ms", "median_ms", "torch_ms", "grid_sample_ms")
        },
        "times_floor": f"{native / total('floor_ms'):.2f}",
        "times_grid_sample": f"{total('grid_sample_ms') / native:.1f}",
    }
    _print(row)
    return row


def _print(row: dict[str, object]) -> None:
    print(
        f"{row['stage']:13} {row['input']:16} {row['stride']:6} forward {row['forward_ms']:>7} ms, backward "
        f"{row['backward_ms']:>7} ms: {row['times_floor']:>5} x bound ({row['copy_gb_s']} GB/s), grid_sample "
        f"{row['times_grid_sample']:>5}x, torch {row['torch_ms']} ms",
        flush=True,
    )
