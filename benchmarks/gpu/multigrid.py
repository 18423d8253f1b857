"""Multigrid on a GPU: clips a second at every shape of the plan, and what a whole run costs by them.

X3D-S with PySlowFast's long and short cycles, 16 clips of the base shape on one device, our operators,
bfloat16. ``seconds_share`` weighs each shape by how many of the run's steps have it. The row "plan" compares
the whole run with one of the base shape alone: measured, and as frames times pixels would have it.

    python -m benchmarks.gpu multigrid
"""

from __future__ import annotations

from dataclasses import replace

import torch
import torch.nn.functional as F

from benchmarks.gpu._measure import Setting, Table, error_line, peak_gib, setting, wall_seconds
from saccade.layers import split_batch_norm
from saccade.models import create_model
from saccade.recipes import get_recipe
from saccade.training.multigrid import make_plan

NUM_CLIPS = 240_000  # about Kinetics-400's


def main(here: Setting) -> None:
    """Time every shape of the plan, then add up."""
    config = replace(get_recipe("x3d_s_k400"), multigrid="both", batch_size=16)
    plan = make_plan(config, NUM_CLIPS)
    shapes: dict[tuple[int, int, int, int], int] = {}
    for phase in plan.phases:
        uses = phase.cycle.uses(phase.cycle.num_steps)
        for count, shape in zip(uses, phase.cycle.shapes, strict=True):
            splits = phase.norm.num if phase.norm.kind == "sub" else 1
            key = (shape.batch_size, shape.num_frames, shape.crop, splits)
            shapes[key] = shapes.get(key, 0) + count
    base = (config.batch_size, config.clip.num_frames, config.train_crop, 1)
    here.wait_for_turn()
    table = Table("multigrid_gpu", here)
    seconds = {}
    for key in sorted({*shapes, base}, key=lambda key: (-key[1], -key[2])):
        try:
            seconds[key] = measure(here, *key)
        except Exception as error:
            print(f"{key}: {error_line(error)}", flush=True)
    total = sum(count * seconds[key] for key, count in shapes.items() if key in seconds)
    for key, taken in seconds.items():
        table.add(
            {
                "clips_frames_crop_splits": "x".join(map(str, key)),
                "steps": shapes.get(key, 0),
                "ms": f"{taken * 1e3:.2f}",
                "clips_per_second": f"{key[0] / taken:.1f}",
                "seconds_share": f"{shapes.get(key, 0) * taken / total:.2f}",
                "peak_gib": peak_gib(),
            }
        )
    if set(shapes) <= set(seconds) and base in seconds:
        plain = config.epochs * NUM_CLIPS / config.batch_size * seconds[base]
        gain = f"plan: {plain / total:.2f}x faster, {1 / plan.cost:.2f}x fewer pixels"
        table.add(
            {
                "clips_frames_crop_splits": gain,
                "steps": plan.total_steps,
                "ms": f"{total / plan.total_steps * 1e3:.2f}",
                "clips_per_second": f"{plan.total_clips / total:.1f}",
                "seconds_share": "1.00",
                "peak_gib": "",
            }
        )


def measure(here: Setting, batch: int, frames: int, crop: int, splits: int) -> float:
    """Seconds of a training step of this shape."""
    if here.tiny:
        batch, frames, crop = 2 * splits, 2, 32
    model = create_model("x3d_xs" if here.tiny else "x3d_s", num_classes=400)
    model = model.to(here.device, memory_format=torch.channels_last_3d).train()  # type: ignore[call-overload]
    split_batch_norm(model, splits)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    clips = torch.randn(batch, 3, frames, crop, crop, device=here.device)
    clips = clips.contiguous(memory_format=torch.channels_last_3d)
    labels = torch.arange(batch, device=here.device)

    def step() -> None:
        with torch.autocast(here.device, torch.bfloat16):
            loss = F.cross_entropy(model(clips), labels)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    step()
    return wall_seconds(step, budget=0.7)[0]


if __name__ == "__main__":
    main(setting())
