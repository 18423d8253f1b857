"""Clips a second in training steps on a GPU, with Triton's operators and with PyTorch's.

X3D-M and RubiksNet-tiny. A step is forward, loss and backward in bfloat16 (autocast), without data or
optimiser. PyTorch's operators run in both memory layouts, Triton's in the one they are made for. First the
gradients of both are compared in float32; where they differ, nothing is timed, and the run fails.

    python -m benchmarks model_step_gpu --gpu
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch
import triton
from torch import Tensor, nn

from benchmarks._record import write_results
from saccade.models import create_model, model_info
from saccade.ops import use_backend

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last_3d": torch.channels_last_3d}
OURS = {"x3d_m": "channels_last_3d", "rubiksnet_tiny": "contiguous"}


def main(args: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks model_step_gpu", description=__doc__)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=10)
    options = parser.parse_args(args)
    rows: list[dict[str, object]] = []
    for name in OURS:
        rows += measure(name, options.batch, options.repeats)
    print(f"wrote {write_results('model_step_gpu', rows, device='cuda').name}")
    if any(row["correct"] != "yes" for row in rows):
        raise SystemExit("gradients differ; those models were not timed")


def measure(name: str, batch: int, repeats: int) -> list[dict[str, object]]:
    difference = gradient_difference(name)
    correct = difference < 1e-2
    runs = [("torch", layout) for layout in LAYOUTS] + [("triton", OURS[name])]
    rows: list[dict[str, object]] = []
    best = 0.0
    for backend, layout in runs:
        speed = clips_per_second(name, backend, layout, batch, repeats) if correct else 0.0
        best = max(best, speed) if backend == "torch" else best
        rows.append(
            {
                "model": name,
                "batch": batch,
                "backend": backend,
                "layout": layout,
                "triton": triton.__version__,
                "correct": "yes" if correct else f"no: gradients differ by {difference:.3g} of their norm",
                "clips_per_second": f"{speed:.1f}" if correct else "",
                "speedup": f"{speed / best:.2f}" if correct and backend == "triton" else "",
            }
        )
        print("  ".join(f"{value!s:>16}" for value in rows[-1].values()), flush=True)
    return rows


def gradient_difference(name: str) -> float:
    """Between Triton's operators and PyTorch's, relative to the norm; two clips, float32."""
    torch.manual_seed(0)
    model, clips = _model_and_clips(name, OURS[name], 2)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    gradients = []
    for backend in ("triton", "torch"):
        model.zero_grad(set_to_none=True)
        with use_backend(backend):  # type: ignore[arg-type]
            _loss(model, clips).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    return ((gradients[0] - gradients[1]).norm() / gradients[1].norm()).item()


def clips_per_second(name: str, backend: str, layout: str, batch: int, repeats: int) -> float:
    model, clips = _model_and_clips(name, layout, batch)

    def step() -> float:
        torch.cuda.synchronize()
        start = time.perf_counter()
        with torch.autocast("cuda", torch.bfloat16):
            loss = _loss(model, clips)
        loss.backward()
        model.zero_grad(set_to_none=True)
        torch.cuda.synchronize()
        return time.perf_counter() - start

    with use_backend(backend):  # type: ignore[arg-type]
        for _ in range(3):  # also tunes the kernels
            step()
        return batch / statistics.median(step() for _ in range(repeats))


def _model_and_clips(name: str, layout: str, batch: int) -> tuple[nn.Module, Tensor]:
    info = model_info(name)
    model = create_model(name).to("cuda", memory_format=LAYOUTS[layout]).train()
    clips = torch.randn(batch, 3, info.frames, info.train_crop, info.train_crop, device="cuda")
    return model, clips.contiguous(memory_format=LAYOUTS[layout])


def _loss(model: nn.Module, clips: Tensor) -> Tensor:
    return nn.functional.cross_entropy(model(clips), torch.arange(len(clips), device="cuda"))
