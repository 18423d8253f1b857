"""HOG targets on a GPU beside the training step that they are for.

MaskFeat's MViT-B, 8 clips of 16 frames of 224 pixels, bfloat16: the step without its targets, and the targets
of all frames of the batch, soft (VideoTransformer-pytorch) and hard (PySlowFast). Checked against the CPU's.

    python -m benchmarks.gpu hog
"""

from __future__ import annotations

import torch

from benchmarks.gpu._measure import Setting, Table, error_line, seconds, setting, wall_seconds
from saccade.models import create_model
from saccade.transforms.hog import HogKind, hog


def main(here: Setting) -> None:
    """Check, then time the step and the targets."""
    batch, frames, crop = (1, 4, 64) if here.tiny else (8, 16, 224)
    pixels = torch.randint(0, 256, (batch * frames, crop, crop, 3), dtype=torch.uint8, device=here.device)
    kinds: tuple[HogKind, ...] = ("soft", "hard")
    differences = {k: (hog(pixels[:4], k).cpu() - hog(pixels[:4].cpu(), k)).abs().max().item() for k in kinds}
    here.wait_for_turn()
    table = Table("hog_gpu", here)
    step_ms = ""
    try:
        step_ms = f"{masked_step(here, batch, frames, crop) * 1e3:.2f}"
    except Exception as error:
        print(f"step: {error_line(error)}", flush=True)
    for kind in kinds:
        taken = seconds(lambda kind=kind: hog(pixels, kind)) * 1e3  # type: ignore[misc]
        table.add(
            {
                "kind": kind,
                "frames": f"{len(pixels)}x{crop}",
                "largest_difference_from_cpu": f"{differences[kind]:.1e}",
                "ms": f"{taken:.3f}",
                "step_ms": step_ms,
                "share_of_step": f"{taken / float(step_ms):.3f}" if step_ms else "",
            }
        )


def masked_step(here: Setting, batch: int, frames: int, crop: int) -> float:
    """Seconds of forward, loss and backward, 40 % of the tokens hidden."""
    model = create_model("maskfeat_mvit_base").to(here.device).train()
    if here.tiny:
        return 1.0  # the network is made for clips of 224 pixels
    clips = torch.randn(batch, 3, frames, crop, crop, device=here.device)
    mask = torch.rand(batch, *model.grid_of(frames, crop, crop), device=here.device) < 0.4

    def step() -> None:
        with torch.autocast(here.device, torch.bfloat16):
            predictions = model(clips, mask)
        predictions.float().square().mean().backward()
        model.zero_grad(set_to_none=True)

    step()
    return wall_seconds(step)[0]


if __name__ == "__main__":
    main(setting())
