"""batch_norm_act forward and backward at X3D-S's sizes, compared with its memory bound and PyTorch's
operators.

The memory bound ("floor") is the number of bytes that the passes must move (see the operator's README:
forward 2 reads and 1 write, backward 4 reads and 1 write, with a residual 2 more reads and 1 more write),
divided by the bandwidth of copying a tensor of that size, so that caching affects both equally. The
implementations are timed in turns, and the minimum is reported, which load from other processes affects
least. As in `saccade train`, freed memory is not returned to the system. The results of the native kernels
are compared with the naive implementation first.

    python -m benchmarks batch_norm_act
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks._record import write_results
from saccade.ops import batch_norm_act, use_backend
from saccade.training.processes import keep_freed_memory

# layer of X3D-S, number of such layers, channels, side, activation, squeeze-excitation, residual
LAYERS = [
    ("stem, shortcut of res2", 2, 24, 80, "relu", False, False),
    ("res2 first, norm_a", 1, 54, 80, "relu", False, False),
    ("res2 norm_a", 2, 54, 40, "relu", False, False),
    ("res2 norm_b", 2, 54, 40, "silu", True, False),
    ("res2 norm_c", 3, 24, 40, "relu", False, True),
    ("res3 norm_b", 3, 108, 20, "silu", True, False),
    ("res3 norm_c", 5, 48, 20, "relu", False, True),
    ("res4 norm_b", 6, 216, 10, "silu", True, False),
    ("res4 norm_c", 11, 96, 10, "relu", False, True),
    ("res5 norm_b", 4, 432, 5, "silu", True, False),
]
HIDDEN = 8
LAYOUTS = {"channels_last_3d": torch.channels_last_3d, "contiguous": torch.contiguous_format}


def main(args: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks batch_norm_act", description=__doc__)
    parser.add_argument("--clips", type=int, default=2)
    parser.add_argument("--frames", type=int, default=13)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=30)
    options = parser.parse_args(args)
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    rows = [
        measure(layer, layout, options.clips, options.frames, options.rounds)
        for layout in LAYOUTS
        for layer in LAYERS
    ]
    print(f"wrote {write_results('batch_norm_act', rows).name}")


def measure(layer: tuple[Any, ...], layout: str, clips: int, frames: int, rounds: int) -> dict[str, object]:
    """A row of the table: milliseconds of forward plus backward, and the ratios."""
    name, count, channels, side, activation, excite, residual = layer
    step = Step((clips, channels, frames, side, side), LAYOUTS[layout], activation, excite, residual)
    step.check()
    source, target = torch.empty_like(step.x), torch.empty_like(step.x)
    calls: dict[str, Callable[[], object]] = {
        "copy": lambda: target.copy_(source),
        "native": lambda: step("native"),
        "torch": lambda: step("torch"),
    }
    seconds: dict[str, list[float]] = {key: [] for key in calls}
    for _ in range(rounds):
        for key, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[key].append(time.perf_counter() - start)
    best = {key: 1e3 * min(values) for key, values in seconds.items()}
    passes = 11 if residual else 8
    floor = passes * best["copy"] / 2
    row: dict[str, object] = {
        "place": name,
        "count": count,
        "input": "x".join(map(str, step.x.shape)),
        "layout": layout,
        "activation": activation,
        "squeeze_excite": excite,
        "residual": residual,
        "copy_gb_s": f"{2 * step.x.nbytes / best['copy'] / 1e6:.1f}",
        "floor_ms": f"{floor:.3f}",
        "native_ms": f"{best['native']:.3f}",
        "native_median_ms": f"{1e3 * statistics.median(seconds['native']):.3f}",
        "times_floor": f"{best['native'] / floor:.2f}",
        "torch_ms": f"{best['torch']:.3f}",
        "times_torch": f"{best['torch'] / best['native']:.1f}",
    }
    print("  ".join(f"{row[key]}" for key in ("place", "layout", "native_ms", "times_floor", "times_torch")))
    return row


class Step:
    """Forward and backward of the operator in training, on tensors of one shape."""

    def __init__(
        self, shape: Sequence[int], layout: torch.memory_format, activation: str, excite: bool, residual: bool
    ) -> None:
        torch.manual_seed(0)
        channels = shape[1]
        self.activation = activation
        self.x, self.gradient = (torch.randn(shape).contiguous(memory_format=layout) for _ in range(2))
        self.affine = (torch.rand(channels) + 0.5, torch.randn(channels))
        fc = ((HIDDEN, channels), (HIDDEN,), (channels, HIDDEN), (channels,))
        self.fc = tuple(torch.randn(size) / 4 for size in fc) if excite else ()
        self.residual = (torch.randn_like(self.x),) if residual else ()
        self.leaves = (self.x, *self.affine, *self.fc, *self.residual)
        for leaf in self.leaves:
            leaf.requires_grad_()

    def __call__(self, backend: Any) -> tuple[Tensor, ...]:
        running = (torch.zeros_like(self.affine[0]), torch.ones_like(self.affine[0]))
        with use_backend(backend):
            y = batch_norm_act(
                *(self.x, *self.affine, *running),
                training=True,
                activation=self.activation,  # type: ignore[arg-type]
                squeeze_excite=self.fc or None,  # type: ignore[arg-type]
                residual=self.residual[0] if self.residual else None,
            )
        return y.detach(), *torch.autograd.grad(y, self.leaves, self.gradient)

    def check(self) -> None:
        """Compare the native kernels with the naive implementation."""
        for ours, naive in zip(self("native"), self("naive"), strict=True):
            scale = float(naive.abs().max())
            torch.testing.assert_close(ours, naive, rtol=1e-4, atol=1e-4 * scale)
