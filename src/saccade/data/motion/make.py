"""Writing the `motion` data set: H.264 files, the same for the same seed, never half made unnoticed."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from saccade.console import console, progress_bar
from saccade.data.motion.events import MOTION_CLASSES, PAIRS
from saccade.data.motion.render import MOTION_VERSION, render_clip
from saccade.errors import DataError, UsageError
from saccade.files import write_json
from saccade.video.write import write_video

MOTION_FILE = "motion.json"
UNFINISHED_FILE = ".motion-unfinished.json"
_CHUNK = 4
# Constant quantiser and no lead of key frames over the others: the quality of a frame says nothing of its
# place in the clip, so not even the encoder tells a model of single frames the direction of time.
_ENCODER = {"preset": "veryfast", "qp": "20", "x264-params": "ipratio=1:pbratio=1"}


@dataclass(frozen=True, kw_only=True)
class MotionSpec:
    """All that determines the clips of a `motion` data set."""

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
) -> Path:
    """Make the `motion` data set in ``root``, or finish it, or find it made.

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
        force: replace a `motion` set of other settings. A folder that holds anything else is never touched.

    Returns:
        ``root`` as a path.

    Raises:
        UsageError: a setting is out of range.
        DataError: ``root`` holds something else, or (without ``force``) a `motion` set of other settings.
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
    clips = list(_clips(folder, spec))
    if _prepare(folder, spec, force=force):
        missing = [clip for clip in clips if not os.path.exists(clip.path)]
        if not missing:
            console().print(f"motion: {len(clips)} clips found in {folder}")
            return folder
        (folder / MOTION_FILE).replace(folder / UNFINISHED_FILE)  # clips were removed: make them again
    missing = [clip for clip in clips if not os.path.exists(clip.path)]
    if len(missing) < len(clips):
        console().print(
            f"motion: {folder} is unfinished, {len(missing)} of {len(clips)} clips are to be made"
        )
    for parent in {os.path.dirname(clip.path) for clip in clips}:
        os.makedirs(parent, exist_ok=True)
    with progress_bar(unit="clips") as bar:
        task = bar.add_task("motion clips", total=len(missing))
        for count in _write_all(missing, spec, workers):
            bar.advance(task, count)
    write_json(folder / MOTION_FILE, _description(spec))
    (folder / UNFINISHED_FILE).unlink(missing_ok=True)
    return folder


def read_motion_file(root: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The contents of ``root/motion.json``, None if there is none.

    Raises:
        DataError: the file is not the JSON that `make_motion` writes.
    """
    path = Path(root) / MOTION_FILE
    if not path.is_file():
        return None
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        if not all(isinstance(pair, list) and len(pair) == 2 for pair in description["pairs"]):
            raise KeyError("pairs")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not a description of a motion data set ({error!r}); make it anew"
        ) from error
    return dict(description)


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


def _prepare(folder: Path, spec: MotionSpec, *, force: bool) -> bool:
    """Make ``folder`` ready to be written. True if a finished set of the same settings is there."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file; give a folder for the motion clips")
    wanted = _description(spec)
    for name in (MOTION_FILE, UNFINISHED_FILE):
        if not (folder / name).is_file():
            continue
        try:
            found = json.loads((folder / name).read_text(encoding="utf-8"))
        except ValueError:
            found = {}
        if found == wanted:
            return name == MOTION_FILE
        if not force:
            raise DataError(
                f"{folder}: holds a motion data set of other settings ({_difference(found, wanted)}); "
                "give another folder, or --force to replace it"
            )
        for split in spec.counts:
            shutil.rmtree(folder / split, ignore_errors=True)
        (folder / name).unlink()
    if folder.is_dir() and any(folder.iterdir()):
        raise DataError(f"{folder}: is not empty and holds no motion data set; give a new folder")
    write_json(folder / UNFINISHED_FILE, wanted)
    return False


def _difference(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    old, new = found.get("settings"), wanted["settings"]
    if not isinstance(old, dict) or found.get("version") != wanted["version"] or old == new:
        return f"version {found.get('version')}, here {wanted['version']}"
    return ", ".join(f"{key} {old.get(key)}, asked {new[key]}" for key in new if old.get(key) != new[key])


def _write_all(clips: list[_Clip], spec: MotionSpec, workers: int | None) -> Iterator[int]:
    """Render and encode ``clips``; yields how many more are done."""
    chunks = [clips[start : start + _CHUNK] for start in range(0, len(clips), _CHUNK)]
    num_workers = len(os.sched_getaffinity(0)) if workers is None else workers
    if num_workers < 0:
        raise UsageError(f"workers: must not be negative, got {workers}")
    if num_workers < 2 or len(chunks) < 4:  # starting processes takes longer than a few clips
        for chunk in chunks:
            yield _write_chunk(chunk, spec)
        return
    # spawn: a forked copy of a process whose libraries run threads may hang
    pool = ProcessPoolExecutor(num_workers, mp_context=multiprocessing.get_context("spawn"))
    try:
        yield from pool.map(_write_chunk, chunks, [spec] * len(chunks))
    finally:
        pool.shutdown(cancel_futures=True)


def _write_chunk(clips: list[_Clip], spec: MotionSpec) -> int:
    for clip in clips:
        frames = render_clip(
            clip.class_name,
            seed=spec.seed,
            split=clip.split,
            index=clip.index,
            size=spec.size,
            num_frames=spec.num_frames,
        )
        write_video(clip.path, frames, fps=spec.fps, options=_ENCODER)
    return len(clips)
