"""Motion sets on disk: reproducible, resumable when interrupted, never over other files; and their reader."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from saccade.data.datasets import find_reader, register_dataset
from saccade.data.entries import ClassNames, Listing, Split, StrPath
from saccade.data.workers import num_processes, process_pool
from saccade.errors import DataError
from saccade.files import write_json, write_text
from saccade.progress import Progress, ignore
from saccade.video.write import write_video

logger = logging.getLogger(__name__)

MOTION_FILE = "motion.json"
UNFINISHED_FILE = ".motion-unfinished.json"
_CONTENTS = ("train", "val", "videos", "train.csv", "val.csv", "classes.txt")  # of any motion set
_CHUNK = 4
# Constant quantiser, the same for key frames and the others: the quality of a frame does not depend on its
# position, so compression does not reveal the direction of time.
_ENCODER = {"preset": "veryfast", "qp": "20", "x264-params": "ipratio=1:pbratio=1"}


class ClipFile(Protocol):
    """A clip to be made, at ``path``."""

    @property
    def path(self) -> str: ...


Clip = TypeVar("Clip", bound=ClipFile)


def finish_set(
    folder: Path,
    clips: Sequence[Clip],
    render: Callable[[Clip], np.ndarray],
    description: dict[str, Any],
    *,
    fps: int,
    lists: Mapping[str, str] | None = None,
    workers: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> None:
    """Write the clips of a set, or those that are missing; nothing if it is complete.

    Args:
        clips: the clips of the set; each has the path of its file.
        render: a clip's frames, uint8 (T, H, W, 3). It is called in other processes.
        description: everything that determines the set; written last, to ``motion.json``.
        lists: text files of the set by name.
        workers: processes; None takes one per available CPU, 0 renders in this process.
        force: replace a set of other settings.
        progress: called with (clips made, clips to make).

    Raises:
        UsageError: a negative number of workers.
        DataError: ``folder`` holds something else, or (without ``force``) a set of other settings.
    """
    if _prepare(folder, description, force=force):
        if all(os.path.exists(clip.path) for clip in clips):
            logger.info(f"motion: {len(clips)} clips found in {folder}")
            return
        (folder / MOTION_FILE).replace(folder / UNFINISHED_FILE)  # clips were removed: make them again
    missing = [clip for clip in clips if not os.path.exists(clip.path)]
    if len(missing) < len(clips):
        logger.info(f"motion: {folder} is unfinished; {len(missing)} of {len(clips)} clips are missing")
    for parent in {os.path.dirname(clip.path) for clip in clips}:
        os.makedirs(parent, exist_ok=True)
    progress, done = progress or ignore, 0
    progress(done, len(missing))
    for count in _write_all(missing, render, fps, workers):
        done += count
        progress(done, len(missing))
    for name, text in (lists or {}).items():
        write_text(folder / name, text)
    write_json(folder / MOTION_FILE, description)
    (folder / UNFINISHED_FILE).unlink(missing_ok=True)


def read_motion_file(root: str | os.PathLike[str]) -> dict[str, Any] | None:
    """The contents of ``root/motion.json``, None if there is none.

    Raises:
        DataError: the file is not the JSON that `finish_set` writes.
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
            f"{path}: not a description of a motion data set ({error!r}); make it again"
        ) from error
    return dict(description)


def _is_motion_set(path: Path) -> bool:
    return path.is_dir() and any((path / name).exists() for name in (MOTION_FILE, UNFINISHED_FILE))


@register_dataset("motion", recognises=_is_motion_set)
def read_motion(
    path: Path, split: Split, *, class_names: ClassNames | None = None, root: StrPath | None = None
) -> Listing:
    """A `motion` set, of clips in class folders or of untrimmed videos with lists, and its pairs of classes.

    Raises:
        DataError: it was not finished.
    """
    if (path / UNFINISHED_FILE).exists():
        raise DataError(f"{path}: the motion clips are not finished; run the command that makes them again")
    reader, _ = find_reader(path, but=("motion",))
    listing: Listing = reader.read(path, split, class_names=class_names, root=root)
    description = read_motion_file(path) or {"pairs": []}
    return replace(listing, pairs=[(first, second) for first, second in description["pairs"]])


def _prepare(folder: Path, wanted: dict[str, Any], *, force: bool) -> bool:
    """Prepare ``folder`` for writing. True if it holds a complete set of the same settings."""
    if folder.exists() and not folder.is_dir():
        raise DataError(f"{folder}: is a file; give a folder for the motion clips")
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
                f"{folder}: holds a motion data set with other settings ({_difference(found, wanted)}); "
                "give another folder, or --force to replace it"
            )
        for part in (folder / name for name in _CONTENTS):
            if part.is_dir():
                shutil.rmtree(part, ignore_errors=True)
            else:
                part.unlink(missing_ok=True)
        (folder / name).unlink()
    if folder.is_dir() and any(folder.iterdir()):
        raise DataError(f"{folder}: is not empty and holds no motion data set; give another folder")
    write_json(folder / UNFINISHED_FILE, wanted)
    return False


def _difference(found: dict[str, Any], wanted: dict[str, Any]) -> str:
    old, new = found.get("settings"), wanted["settings"]
    if found.get("kind") != wanted.get("kind"):
        return f"{found.get('kind', 'trimmed')} clips, requested {wanted.get('kind', 'trimmed')}"
    if not isinstance(old, dict) or found.get("version") != wanted["version"] or old == new:
        return f"version {found.get('version')}, here {wanted['version']}"
    return ", ".join(f"{key} {old.get(key)}, requested {new[key]}" for key in new if old.get(key) != new[key])


def _write_all(
    clips: Sequence[Clip], render: Callable[[Clip], np.ndarray], fps: int, workers: int | None
) -> Iterator[int]:
    """Render and encode ``clips``; yields how many more are done."""
    chunks = [clips[start : start + _CHUNK] for start in range(0, len(clips), _CHUNK)]
    num_workers = num_processes(workers)
    if num_workers < 2 or len(chunks) < 4:  # starting processes takes longer than a few clips
        for chunk in chunks:
            yield _write_chunk(chunk, render, fps)
        return
    pool = process_pool(num_workers)
    try:
        yield from pool.map(_write_chunk, chunks, [render] * len(chunks), [fps] * len(chunks))
    finally:
        pool.shutdown(cancel_futures=True)


def _write_chunk(clips: Sequence[Clip], render: Callable[[Clip], np.ndarray], fps: int) -> int:
    for clip in clips:
        write_video(clip.path, render(clip), fps=fps, options=_ENCODER)
    return len(clips)
