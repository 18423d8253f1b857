"""``python -m benchmarks [NAME ...]``: run all benchmarks, or the named ones; write their results.

Those of a GPU are a command of their own, ``python -m benchmarks.gpu``.
"""

from __future__ import annotations

import importlib
import sys

CPU = {
    "video_decode": "a random 16x5 clip: ours against torchcodec (exact) and decord, one thread",
    "batch_norm_act": "batch norm and what follows it against its memory floor and PyTorch's own",
    "depthwise_conv3d": "the depthwise convolution against its memory floor and PyTorch's own",
    "shift": "the learnable shift against its memory floor and against grid_sample",
    "x3d_peer": "X3D-S's training step against PyTorchVideo's",
    "hog": "HOG targets of a clip against scikit-image's",
    "recipe_speed": "training rate and latency of the small networks compared on `motion`",
    "production": "seconds to start, memory, and clips a second by threads and processes",
    "model_step": "X3D forward and training step by memory layout",
}


def main(args: list[str]) -> int:
    unknown = [name for name in args if name not in CPU]
    if unknown:
        print(f"unknown benchmark {unknown[0]!r}; there are {', '.join(CPU)}", file=sys.stderr)
        return 2
    for name in args or CPU:
        print(f"== {name}: {CPU[name]}", flush=True)
        importlib.import_module(f"benchmarks.{name}").main([])
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
