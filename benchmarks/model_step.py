"""Seconds of a forward pass and of a training step of X3D, in both memory layouts.

The layouts are timed in turns, and the medians are reported with their ratio.

    python -m benchmarks model_step
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks._record import write_results
from saccade.models import create_model, model_info

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last_3d": torch.channels_last_3d}


def main(args: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks model_step", description=__doc__)
    parser.add_argument("--models", nargs="+", default=["x3d_xs", "x3d_s"])
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(args)
    rows: list[dict[str, object]] = []
    for name in options.models:
        for mode in ("forward", "train"):
            rows += measure(name, mode, options.batch, options.repeats)
    print(f"wrote {write_results('model_step', rows).name}")


def measure(name: str, mode: str, batch: int, repeats: int) -> list[dict[str, object]]:
    """Time the layouts in turns; one row per layout."""
    info = model_info(name)
    steps = {}
    for layout, memory_format in LAYOUTS.items():
        model = create_model(name).to(memory_format=memory_format)
        clips = torch.randn(batch, 3, info.frames, info.train_crop, info.train_crop)
        steps[layout] = _step(model.train(mode == "train"), clips.contiguous(memory_format=memory_format))
        steps[layout]()
    seconds: dict[str, list[float]] = {layout: [] for layout in LAYOUTS}
    for _ in range(repeats):
        for layout, step in steps.items():
            seconds[layout].append(step())
    base = statistics.median(seconds["contiguous"])
    rows = []
    for layout, values in seconds.items():
        median = statistics.median(values)
        rows.append(
            {
                "model": name,
                "clip": f"{info.frames}x{info.train_crop}",
                "batch": batch,
                "mode": mode,
                "layout": layout,
                "seconds_median": f"{median:.4f}",
                "seconds_min": f"{min(values):.4f}",
                "seconds_max": f"{max(values):.4f}",
                "ratio_to_contiguous": f"{base / median:.2f}",
            }
        )
        print(f"{name:8} {mode:8} {layout:17} {median:8.3f} s   {base / median:5.2f}x contiguous", flush=True)
    return rows


def _step(model: nn.Module, clips: Tensor) -> Callable[[], float]:
    labels = torch.zeros(len(clips), dtype=torch.long)

    def step() -> float:
        start = time.perf_counter()
        if model.training:
            nn.functional.cross_entropy(model(clips), labels).backward()
            model.zero_grad(set_to_none=True)
        else:
            with torch.inference_mode():
                model(clips)
        return time.perf_counter() - start

    return step
