"""Clips so small that a whole fit takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from saccade.video import write_video


def write_clip(path: Path, *, up: bool, seed: int, num_frames: int = 12) -> None:
    """A clip that brightens (``up``) or darkens."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ramp = torch.linspace(20, 220, num_frames)
    ramp = ramp if up else ramp.flip(0)
    noise = torch.Generator().manual_seed(seed)
    frames = ramp[:, None, None, None] + 20 * torch.rand(num_frames, 36, 40, 3, generator=noise)
    write_video(path, frames.to(torch.uint8), fps=30, options={"preset": "ultrafast"})


@pytest.fixture
def make_clip() -> Callable[..., None]:
    """`write_clip`."""
    return write_clip


@pytest.fixture(scope="session")
def source_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of six clips of three sources, without splits."""
    root = tmp_path_factory.mktemp("own") / "clips"
    for label, name in enumerate(("darkening", "brightening")):
        for number in range(6):
            file = root / name / f"v_{name}_g{number // 2:02}_c{number % 2:02}.mp4"
            write_clip(file, up=bool(label), seed=10 * label + number)
    return root
