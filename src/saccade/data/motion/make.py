"""The `motion` data set as files: one event a clip, in a folder of its class."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from saccade.data.motion.events import MOTION_CLASSES
from saccade.data.motion.files import finish_set
from saccade.data.motion.render import render_clip
from saccade.data.motion.spec import SetSpec
from saccade.progress import Progress


@dataclass(frozen=True, kw_only=True)
class MotionSpec(SetSpec):
    """Settings of the clips of a `motion` set."""

    counts: ClassVar[tuple[str, ...]] = ("clips_per_class", "val_per_class")
    ranges: ClassVar[Mapping[str, int]] = {"num_frames": 8}

    clips_per_class: int = 48
    val_per_class: int = 20
    num_frames: tuple[int, int] = (40, 52)


@dataclass(frozen=True)
class _Clip:
    path: str
    class_name: str
    split: str
    index: int


def make_motion(
    root: str | os.PathLike[str],
    *,
    workers: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> Path:
    """Write the `motion` data set to ``root``; a complete one is left as it is, an interrupted one resumed.

    The layout is ``root/{train,val}/<class>/<class>_<index>.mp4``; ``motion.json``, written last, holds the
    settings, the class names and the time-reversal pairs. The same settings give the same pixels.

    Args:
        root: folder to write; made if missing.
        workers: processes; None takes one per available CPU, 0 renders in this process. Clips are the same.
        force: replace a `motion` set with other settings. A folder with other contents is never changed.
        progress: called with (clips made, clips to make).
        settings: fields of `MotionSpec`: ``clips_per_class`` and ``val_per_class``, training and held-out
            clips of each class; ``num_frames``, inclusive range of clip lengths; ``size``, (height, width) in
            pixels, even; ``fps``; ``seed``.

    Returns:
        ``root`` as a path.

    Raises:
        UsageError: a setting is out of range.
        DataError: ``root`` holds something else, or (without ``force``) a `motion` set with other settings.
    """
    spec = MotionSpec(**settings)
    folder = Path(root)
    finish_set(
        folder,
        list(_clips(folder, spec)),
        partial(_frames, spec),
        spec.description(),
        fps=spec.fps,
        workers=workers,
        force=force,
        progress=progress,
    )
    return folder


def _clips(folder: Path, spec: MotionSpec) -> Iterator[_Clip]:
    for split, count in (("train", spec.clips_per_class), ("val", spec.val_per_class)):
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
