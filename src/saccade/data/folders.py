"""Data sets laid out as folders: a folder of each class, perhaps under ``train``, ``val`` and ``test``."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

from saccade.data.datasets import register_dataset
from saccade.data.entries import (
    ClassNames,
    Entry,
    Listing,
    Split,
    StrPath,
    first_few,
    split_of,
)
from saccade.data.something import misplaced
from saccade.errors import DataError
from saccade.video.folders import is_frame_folder, is_hidden, is_video_name

logger = logging.getLogger(__name__)

_LAYOUTS = (
    "expected train/ and val/ with a folder of each class, folders of classes, clips.csv (path,label,split), "
    "train.csv and val.csv of 'path label' lines, or the lists of Something-Something or Charades"
)


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
        logger.warning(f"{root}: no videos in {first_few(empty)}, ignored")
    return entries


@register_dataset("folders", recognises=Path.is_dir)
def read_folders(
    path: Path, split: Split, *, class_names: ClassNames | None = None, root: StrPath | None = None
) -> Listing:
    """Class folders, under folders named for the splits if there are any.

    Raises:
        DataError: there are none; this reader comes last, so nothing else recognises the folder.
    """
    entries: list[Entry] = []
    for name, folder in split_folders(path).items():
        entries += class_folder_entries(folder, split=name)
    if entries:
        return Listing(entries)
    hint = misplaced(path)
    if hint is not None:
        raise DataError(f"{path}: {hint}")
    entries = class_folder_entries(path)
    if not entries:
        raise DataError(f"{path}: no data set recognised; {_LAYOUTS}")
    return Listing(entries)


def has_videos(root: Path) -> bool:
    """Whether a class folder under ``root`` holds a video."""
    return any(next(_videos(folder), None) for folder in _subfolders(root))


def _subfolders(root: Path) -> list[Path]:
    return sorted(entry for entry in root.iterdir() if entry.is_dir() and not is_hidden(entry.name))


def _videos(folder: Path) -> Iterator[str]:
    with os.scandir(folder) as scan:
        found = sorted((entry for entry in scan if not is_hidden(entry.name)), key=lambda entry: entry.name)
    for entry in found:
        if entry.is_dir():
            if is_frame_folder(entry.path):
                yield entry.path
        elif is_video_name(entry.name):
            yield entry.path
