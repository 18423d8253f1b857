"""Data sets laid out as folders: a folder of each class, perhaps under ``train``, ``val`` and ``test``."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from saccade.data.entries import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Entry, split_of

logger = logging.getLogger(__name__)


def split_folders(root: Path) -> dict[str, Path]:
    """The folders directly under ``root`` that are named for a split, by split."""
    found: dict[str, Path] = {}
    for folder in _subfolders(root):
        split = split_of(folder.name)
        if split is not None:
            found.setdefault(split, folder)
    return found


def class_folder_entries(root: Path, *, split: str | None = None) -> list[Entry]:
    """The videos in the class folders under ``root``; folders without any are named in a warning.

    A folder of images within a class folder is one video.
    """
    entries: list[Entry] = []
    empty = []
    for folder in _subfolders(root):
        found = [Entry(path, folder.name, str(folder), split) for path in _videos(folder)]
        entries += found
        if not found:
            empty.append(folder.name)
    if empty and entries:
        logger.warning(
            f"{root}: no videos in {_some(empty)}; not taken for {'classes' if len(empty) > 1 else 'a class'}"
        )
    return entries


def _subfolders(root: Path) -> list[Path]:
    return sorted(entry for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _videos(folder: Path) -> Iterator[str]:
    with os.scandir(folder) as scan:
        found = sorted(
            (entry for entry in scan if not entry.name.startswith(".")), key=lambda entry: entry.name
        )
    for entry in found:
        if entry.is_dir():
            if is_frame_folder(entry.path):
                yield entry.path
        elif is_video_name(entry.name):
            yield entry.path


def is_video_name(name: str) -> bool:
    """Whether a file of this name counts as a video, by its ending."""
    return os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES


def is_frame_folder(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is a folder with at least one image in it."""
    if not os.path.isdir(path):
        return False
    with os.scandir(path) as scan:
        return any(os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES for entry in scan)


def _some(names: list[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
