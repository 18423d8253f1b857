"""``python -m benchmarks [NAME ...] [--gpu]``: run all benchmarks, or the named ones; write their results.

With ``--gpu`` those for a CUDA device, after the tests of its operators have passed on it.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path

CPU = {
    "video_decode": "a random 16x5 clip: ours against torchcodec (exact) and decord, one thread",
    "batch_norm_act": "batch norm and what follows it against its memory floor and PyTorch's own",
    "depthwise_conv3d": "the depthwise convolution against its memory floor and PyTorch's own",
    "shift": "the learnable shift against its memory floor and against grid_sample",
    "x3d_peer": "X3D-S's training step against PyTorchVideo's",
    "hog": "HOG targets of a clip against scikit-image's",
    "recipe_speed": "training rate and latency of the small networks compared on `motion`",
    "model_step": "X3D forward and training step by memory layout",
}
GPU = {
    "ops_gpu": "the operators: Triton against PyTorch's own and against a copy",
    "model_step_gpu": "training steps of whole models: Triton against PyTorch's own operators",
}


def main(args: list[str]) -> int:
    gpu = "--gpu" in args
    names = [arg for arg in args if arg != "--gpu"]
    known = GPU if gpu else CPU
    unknown = [name for name in names if name not in known]
    if unknown:
        print(f"unknown benchmark {unknown[0]!r}; there are {', '.join(known)}", file=sys.stderr)
        return 2
    if gpu and not _cuda():
        if os.environ.get("FAIL_WITHOUT_CUDA"):
            print("FAIL_WITHOUT_CUDA is set and there is no CUDA device", file=sys.stderr)
            return 1
        print("no CUDA device: nothing to measure")
        return 0
    if gpu and not _gpu_tests_pass():
        print("the operators are not right on this GPU: nothing is measured", file=sys.stderr)
        return 1
    for name in names or known:
        print(f"== {name}: {known[name]}", flush=True)
        importlib.import_module(f"benchmarks.{name}").main([])
    return 0


def _gpu_tests_pass() -> bool:
    tests = Path(__file__).parent.parent / "tests" / "ops" / "test_ops_gpu.py"
    command = [sys.executable, "-m", "pytest", "-q", str(tests)]
    return subprocess.run(command, check=False).returncode == 0


def _cuda() -> bool:
    import torch

    return torch.cuda.is_available()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
