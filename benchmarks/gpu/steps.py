"""Training steps of whole models on a GPU: ours against the best that plain PyTorch does.

A step is forward, loss, backward and SGD in bfloat16 (autocast), without data. PyTorch's own operators run
contiguous, channels-last, and channels-last under ``torch.compile``; ours (Triton) as they are and under
``torch.compile``. First the gradients of both are compared in float32; where they differ, nothing is timed.
``issue_ms`` is what the processor needs to issue a step: near ``ms`` the GPU waits for it.

    python -m benchmarks.gpu steps:x3d_m
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.gpu._measure import (
    Setting,
    Table,
    error_line,
    forget_tuning,
    peak_gib,
    seconds,
    setting,
    wall_seconds,
)
from saccade.models import create_model, memory_format, model_info
from saccade.ops import use_backend

LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last_3d": torch.channels_last_3d}
BATCH = {"x3d_s": 32, "x3d_m": 16, "vov3d_m": 16, "rubiksnet_tiny": 16, "timesformer_base": 8}
# small enough to try the code on a CPU, where Triton's interpreter would take hours: "ours" is native there
TINY = {
    "x3d_s": ("x3d_xs", {}, 32),
    "x3d_m": ("x3d_xs", {}, 32),
    "vov3d_m": ("vov3d_m", {}, 32),
    "rubiksnet_tiny": ("rubiksnet_tiny", {}, 32),
    "timesformer_base": (
        "timesformer_base",
        {"width": 12, "depth": 2, "num_heads": 2, "patch": 8, "train_crop": 32},
        32,
    ),
}


@dataclass(frozen=True)
class Variant:
    """One way to run a model."""

    backend: str
    layout: str
    compiled: bool = False


def main(here: Setting) -> None:
    """Compile and check, wait for the turn, time."""
    (name,) = here.rest
    ours = "native" if here.tiny else "triton"
    own = "channels_last_3d" if _own_layout(here, name) == torch.channels_last_3d else "contiguous"
    variants = [Variant("torch", layout) for layout in LAYOUTS]
    variants += [
        Variant("torch", own, compiled=True),
        Variant(ours, own),
        Variant(ours, own, compiled=True),
    ]
    if here.tiny:
        variants = [variant for variant in variants if not variant.compiled]  # minutes on a CPU
    problems: dict[Variant, str] = {}
    steps: dict[Variant, Callable[[], None]] = {}
    difference = gradient_difference(here, name, own, ours)
    print(f"{name}: gradients differ by {difference:.2g} of their norm", flush=True)
    for variant in variants:
        try:
            steps[variant] = training_step(here, name, variant)
            if variant.compiled:
                steps[variant]()
        except Exception as error:
            problems[variant] = error_line(error)
            print(f"{name} {variant}: {problems[variant]}", flush=True)
        free_memory()
    here.wait_for_turn()
    forget_tuning()
    table = Table(f"steps_{name}", here)
    best = 0.0
    wrong = "" if difference < 1e-2 else f"gradients differ by {difference:.3g} of their norm"
    for variant in variants:
        row: dict[str, object] = {
            "model": name,
            "batch": _batch(here, name),
            "operators": "PyTorch's" if variant.backend == "torch" else "ours",
            "layout": variant.layout,
            "compiled": "yes" if variant.compiled else "no",
            "problem": problems.get(variant, wrong),
            "ms": "",
            "gpu_ms": "",
            "issue_ms": "",
            "clips_per_second": "",
            "of_best_plain": "",
            "peak_gib": "",
        }
        if not row["problem"]:
            try:
                step = steps[variant]
                if torch.cuda.is_available():
                    torch.cuda.reset_peak_memory_stats()
                wall, issue = wall_seconds(step)
                rate = _batch(here, name) / wall
                if variant.backend == "torch":
                    best = max(best, rate)
                row |= {
                    "ms": f"{wall * 1e3:.2f}",
                    "gpu_ms": f"{seconds(step, most=6, budget=1.0) * 1e3:.2f}",
                    "issue_ms": f"{issue * 1e3:.2f}",
                    "clips_per_second": f"{rate:.1f}",
                    "of_best_plain": f"{rate / best:.2f}" if variant.backend != "torch" and best else "",
                    "peak_gib": peak_gib(),
                }
            except Exception as error:
                row["problem"] = error_line(error)
        table.add(row)
        steps.pop(variant, None)
        free_memory()


def training_step(here: Setting, name: str, variant: Variant) -> Callable[[], None]:
    """A function that does one step; its model is made at the first."""
    made: list[tuple[Callable[[Tensor], Tensor], Tensor, torch.optim.Optimizer]] = []

    def make() -> None:
        model, clips = _model_and_clips(here, name, variant.layout, _batch(here, name))
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
        run: Callable[[Tensor], Tensor] = torch.compile(model) if variant.compiled else model
        made.append((run, clips, optimizer))

    def step() -> None:
        if not made:
            make()
        run, clips, optimizer = made[0]
        with use_backend(variant.backend):  # type: ignore[arg-type]
            with torch.autocast(here.device, torch.bfloat16):
                loss = _loss(run, clips)
            loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def gradient_difference(here: Setting, name: str, layout: str, ours: str) -> float:
    """Between our operators and PyTorch's, relative to the norm; two clips, float32."""
    torch.manual_seed(0)
    model, clips = _model_and_clips(here, name, layout, 2)
    allowed, torch.backends.cudnn.allow_tf32 = torch.backends.cudnn.allow_tf32, False
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    gradients = []
    for backend in (ours, "torch"):
        model.zero_grad(set_to_none=True)
        with use_backend(backend):  # type: ignore[arg-type]
            _loss(model, clips).backward()
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    torch.backends.cudnn.allow_tf32 = allowed
    return ((gradients[0] - gradients[1]).norm() / gradients[1].norm()).item()


def free_memory() -> None:
    """Hand what no tensor holds back to the device, for the parts beside this one."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _own_layout(here: Setting, name: str) -> torch.memory_format:
    with torch.device("meta"):
        return memory_format(_build(here, name)[0])


def _build(here: Setting, name: str) -> tuple[nn.Module, int, int]:
    """The model, its frames and its crop."""
    built, overrides, crop = TINY[name] if here.tiny else (name, {}, model_info(name).train_crop)
    return create_model(built, num_classes=400, **overrides), model_info(built).frames, crop


def _model_and_clips(here: Setting, name: str, layout: str, batch: int) -> tuple[nn.Module, Tensor]:
    model, frames, crop = _build(here, name)
    model = model.to(here.device, memory_format=LAYOUTS[layout]).train()  # type: ignore[call-overload]
    clips = torch.randn(batch, 3, frames, crop, crop, device=here.device)
    return model, clips.contiguous(memory_format=LAYOUTS[layout])


def _batch(here: Setting, name: str) -> int:
    return 2 if here.tiny else BATCH[name]


def _loss(model: Callable[[Tensor], Tensor], clips: Tensor) -> Tensor:
    return F.cross_entropy(model(clips), torch.arange(len(clips), device=clips.device))


if __name__ == "__main__":
    main(setting())
