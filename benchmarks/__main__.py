"""``python -m benchmarks [NAME ...]``: run all benchmarks, or the named ones; write their results.

GPU benchmarks: ``python -m benchmarks.gpu``.
"""

from __future__ import annotations

import importlib
import sys

CPU = {
    "video_decode": "reading a random 16x5 clip, compared with torchcodec (exact) and decord, one thread",
    "batch_norm_act": "fused batch norm, compared with its memory bound and PyTorch's operators",
    "depthwise_conv3d": "depthwise convolution, compared with its memory bound and PyTorch's operator",
    "shift": "learnable shift, compared with its memory bound and grid_sample",
    "x3d_peer": "X3D-S's training step, compared with PyTorchVideo's",
    "hog": "HOG targets of a clip, compared with scikit-image's",
    "recipe_speed": "training speed and latency of the small networks for `motion`",
    "production": "start-up time, memory, and clips per second by threads and processes",
    "model_step": "X3D forward pass and training step by memory layout",
}


def main(args: list[str]) -> int:
    unknown = [name for name in args if name not in CPU]
    if unknown:
        print(f"unknown benchmark {unknown[0]!r}; choose from {', '.join(CPU)}", file=sys.stderr)
        return 2
    for name in args or CPU:
        print(f"== {name}: {CPU[name]}", flush=True)
        importlib.import_module(f"benchmarks.{name}").main([])
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
