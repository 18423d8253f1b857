"""The 1x1x1 convolutions of X3D-M on a GPU: as convolutions and as matrix products over the channels.

Two thirds of the arithmetic of X3D and VoV3D is in them. Channels-last-3d memory, 16 clips; both give the
same numbers up to rounding, which is checked first.

    python -m benchmarks.gpu pointwise
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu._measure import Setting, Table, error_line, seconds, setting

LAYERS = ((24, 54, 56), (54, 24, 56), (108, 48, 28), (48, 108, 28), (96, 216, 14), (192, 432, 7))


def main(here: Setting) -> None:
    """Time every layer in float32 and bfloat16, forward and in training."""
    here.wait_for_turn()
    table = Table("pointwise", here)
    for dtype in (torch.float32, torch.bfloat16):
        for layer in LAYERS[-1:] if here.tiny else LAYERS:
            for mode in ("forward", "train"):
                try:
                    table.add(measure(here, *layer, dtype, mode))
                except Exception as error:
                    print(f"{layer} {dtype} {mode}: {error_line(error)}", flush=True)


def as_convolution(x: Tensor, weight: Tensor) -> Tensor:
    """(B, C, T, H, W), (C', C) -> (B, C', T, H, W)."""
    return F.conv3d(x, weight[:, :, None, None, None])


def as_product(x: Tensor, weight: Tensor) -> Tensor:
    """The same; of channels-last memory nothing is copied."""
    return F.linear(x.permute(0, 2, 3, 4, 1), weight).permute(0, 4, 1, 2, 3)


def measure(
    here: Setting, channels: int, outputs: int, height: int, dtype: torch.dtype, mode: str
) -> dict[str, object]:
    """One row."""
    batch, frames = (2, 2) if here.tiny else (16, 16)
    x = torch.randn(batch, channels, frames, height, height, device=here.device).to(dtype)
    x = x.contiguous(memory_format=torch.channels_last_3d)
    weight = (torch.randn(outputs, channels, device=here.device) / channels**0.5).to(dtype)
    inputs = [t.requires_grad_(mode == "train") for t in (x, weight)]
    both = [function(*inputs) for function in (as_convolution, as_product)]
    difference = ((both[0] - both[1]).float().norm() / both[0].float().norm()).item()
    times = [_time(function, inputs, mode) for function in (as_convolution, as_product)]
    return {
        "layer": f"{batch}x{channels}x{frames}x{height}x{height} to {outputs}",
        "dtype": str(dtype).removeprefix("torch."),
        "mode": mode,
        "difference": f"{difference:.1e}",
        "ms_convolution": f"{times[0] * 1e3:.4f}",
        "ms_product": f"{times[1] * 1e3:.4f}",
        "speedup": f"{times[0] / times[1]:.2f}",
    }


def _time(function: Callable[[Tensor, Tensor], Tensor], inputs: list[Tensor], mode: str) -> float:
    grad = torch.ones_like(function(*inputs)).contiguous(memory_format=torch.channels_last_3d)

    def step() -> None:
        y = function(*inputs)
        if mode == "train":
            torch.autograd.grad(y, inputs, grad)

    return seconds(step)


if __name__ == "__main__":
    main(setting())
