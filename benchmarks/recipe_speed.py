"""Speed of the networks of recipes: clips per second of a training step at the recipe's batch size, and
latency of a single clip. The networks are timed in turns.

    python -m benchmarks recipe_speed                       # the four small networks compared on `motion`
    python -m benchmarks.recipe_speed x3d_ucf10 rubiksnet_tiny_ucf10
"""

from __future__ import annotations

import argparse
import sys

import torch

from benchmarks._record import write_results
from saccade.evaluation.speed import Stopwatch
from saccade.models import create_model, memory_format
from saccade.recipes import get_recipe
from saccade.training.network import model_options
from saccade.training.processes import keep_freed_memory

RECIPES = ("x3d_motion", "vov3d_m_motion", "rubiksnet_tiny_motion", "rubiksnet_tiny_aq_motion")
CLASSES = 12


def main(args: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.recipe_speed", description=__doc__)
    parser.add_argument("recipes", nargs="*", default=RECIPES)
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args(args)
    keep_freed_memory()  # as `saccade train` does
    watches = {name: (_watch(name, "train"), _watch(name, "forward")) for name in options.recipes}
    for _ in range(options.repeats):
        for pair in watches.values():
            for watch in pair:
                watch.time()
    rows: list[dict[str, object]] = []
    for name, (step, single) in watches.items():
        rows.append(
            {
                "recipe": name,
                "batch": step.speed.clips,
                "train_clips_per_second": f"{step.speed.clips_per_second:.1f}",
                "latency_ms": f"{1e3 * single.speed.median:.2f}",
                "latency_ms_min": f"{1e3 * min(single.seconds):.2f}",
            }
        )
        print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
    print(f"wrote {write_results('recipe_speed', rows).name}")


def _watch(recipe: str, mode: str) -> Stopwatch:
    config = get_recipe(recipe)
    torch.manual_seed(0)
    model = create_model(config.model.name, CLASSES, **model_options(config))
    layout = memory_format(model)
    batch = config.batch_size if mode == "train" else 1
    clips = torch.randn(batch, 3, config.clip.num_frames, config.train_crop, config.train_crop)
    model = model.to(memory_format=layout)
    return Stopwatch(
        model.eval() if mode == "forward" else model,
        clips.contiguous(memory_format=layout),
        "train" if mode == "train" else "forward",
        warmup=3,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
