"""The `motion` data set as files: one event a clip, in a folder of its class."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from saccade.data.motion.events import MOTION_CLASSES, PAIRS
from saccade.data.motion.files import finish_set
from saccade.data.motion.render import MOTION_VERSION, render_clip
from saccade.errors import UsageError
from saccade.progress import Progress


@dataclass(frozen=True, kw_only=True)
class MotionSpec:
    """Everything that determines the clips of a `motion` data set."""

    clips_per_class: int = 48
    val_per_class: int = 20
    seed: int = 0
    size: tuple[int, int] = (96, 112)  # height, width
    num_frames: tuple[int, int] = (40, 52)  # inclusive range
    fps: int = 30

    def __post_init__(self) -> None:
        for field in ("clips_per_class", "val_per_class"):
            if getattr(self, field) < 1:
                raise UsageError(f"{field}: must be at least 1, got {getattr(self, field)}")
        if self.seed < 0:
            raise UsageError(f"seed: must not be negative, got {self.seed}")
        if min(self.size) < 32 or any(side % 2 for side in self.size):
            raise UsageError(f"size: height and width must be even and at least 32, got {self.size}")
        if not 8 <= self.num_frames[0] <= self.num_frames[1]:
            raise UsageError(f"num_frames: must be a range that starts at 8 or more, got {self.num_frames}")
        if self.fps < 1:
            raise UsageError(f"fps: must be at least 1, got {self.fps}")

    @property
    def counts(self) -> dict[str, int]:
        """Clips per class in each split."""
        return {"train": self.clips_per_class, "val": self.val_per_class}


@dataclass(frozen=True)
class _Clip:
    path: str
    class_name: str
    split: str
    index: int


def make_motion(
    root: str | os.PathLike[str],
    *,
    clips_per_class: int = 48,
    val_per_class: int = 20,
    seed: int = 0,
    size: tuple[int, int] = (96, 112),
    num_frames: tuple[int, int] = (40, 52),
    fps: int = 30,
    workers: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Write the `motion` data set to ``root``; a complete one is left as it is, an interrupted one resumed.

    The layout is ``root/{train,val}/<class>/<class>_<index>.mp4``; ``motion.json``, written last, holds the
    settings, the class names and the time-reversal pairs. The same settings give the same pixels.

    Args:
        root: folder to write; made if missing.
        clips_per_class: training clips of each class.
        val_per_class: held-out clips of each class.
        seed: determines every scene.
        size: (height, width) of the clips in pixels, even.
        num_frames: inclusive range of clip lengths in frames.
        fps: frames per second.
        workers: processes; None takes one per available CPU, 0 renders in this process. Clips are the same.
        force: replace a `motion` set with other settings. A folder with other contents is never changed.
        progress: called with (clips made, clips to make).

    Returns:
        ``root`` as a path.

    Raises:
        UsageError: a setting is out of range.
        DataError: ``root`` holds something else, or (without ``force``) a `motion` set with other settings.
    """
    spec = MotionSpec(
        clips_per_class=clips_per_class,
        val_per_class=val_per_class,
        seed=seed,
        size=size,
        num_frames=num_frames,
        fps=fps,
    )
    folder = Path(root)
    finish_set(
        folder,
        list(_clips(folder, spec)),
        partial(_frames, spec),
        _description(spec),
        fps=spec.fps,
        workers=workers,
        force=force,
        progress=progress,
    )
    return folder


def _description(spec: MotionSpec) -> dict[str, Any]:
    settings = {
        key: list(value) if isinstance(value, tuple) else value for key, value in asdict(spec).items()
    }
    return {
        "version": MOTION_VERSION,
        "settings": settings,
        "classes": list(MOTION_CLASSES),
        "pairs": [list(pair[:2]) for pair in PAIRS],
    }


def _clips(folder: Path, spec: MotionSpec) -> Iterator[_Clip]:
    for split, count in spec.counts.items():
        for index in range(count):  # classes innermost: an interrupted set is balanced
            for name in MOTION_CLASSES:
                path = folder / split / name / f"{name}_{index:04d}.mp4"
                yield _Clip(str(path), name, split, index)


def _frames(spec: MotionSpec, clip: _Clip) -> np.ndarray:
    return render_clip(
        clip.class_name,
        seed=spec.seed,
        split=clip.split,
        index=clip.index,
        size=spec.size,
        num_frames=spec.num_frames,
    )
