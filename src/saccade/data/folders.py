"""Data sets laid out as folders: a folder of each class, perhaps under ``train``, ``val`` and ``test``.

A folder named ``background`` beside the classes or the splits is none of the classes: its videos show nothing
that is to be recognised, and calibrate what is rejected (`saccade.inference.calibrate`).
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

from saccade.data.datasets import register_dataset
from saccade.data.entries import (
    SPLIT_NAMES,
    ClassNames,
    Entry,
    Listing,
    Split,
    StrPath,
    first_few,
    splits_of,
    warn_once,
    without_split,
)
from saccade.data.something import misplaced
from saccade.errors import DataError
from saccade.video.folders import find_videos, is_frame_folder, is_hidden, is_image_name, is_video_name

logger = logging.getLogger(__name__)

BACKGROUND = "background"
_LAYOUTS = (
    "expected train/ and val/ with a folder of each class, folders of classes, clips.csv (path,label,split), "
    "train.csv and val.csv of 'path label' lines, or the lists of Something-Something or Charades"
)


def split_folders(root: Path) -> dict[str, Path]:
    """The folders directly under ``root`` that are named for a split, by split.

    Beside ``val``, ``train_256`` and the like, names that differ in the word for the split alone count:
    ``k400_train``, ``k400_val``.

    Raises:
        DataError: two are named for one split.
    """
    folders = {folder.name: folder for folder in _subfolders(root)}
    splits = splits_of(folders)
    for name in folders:
        rest, split = without_split(name)
        if split is not None and any(
            without_split(other)[0] == rest and without_split(other)[1] not in (None, split)
            for other in folders
        ):
            splits.setdefault(name, split)
    found: dict[str, Path] = {}
    for name, split in splits.items():
        if split in found and _class_folders(found[split]) and _class_folders(folders[name]):
            raise DataError(
                f"{root}: {found[split].name}/ and {name}/ are both named for {split}; move one of them away"
            )
        if split not in found or _class_folders(folders[name]):
            found[split] = folders[name]
    return found


@register_dataset("folders", recognises=Path.is_dir)
def read_folders(
    path: Path, split: Split, *, class_names: ClassNames | None = None, root: StrPath | None = None
) -> Listing:
    """Class folders, under folders named for the splits if there are any. A class folder is searched to the
    bottom.

    Raises:
        DataError: there are none; this reader comes last, so nothing else recognises the folder.
    """
    try:
        by_split = split_folders(path)
        entries = [entry for name, folder in by_split.items() for entry in _class_entries(folder, split=name)]
        if entries:
            _check_siblings(path, by_split)
            return Listing(entries)
        hint = misplaced(path)
        if hint is not None:
            raise DataError(f"{path}: {hint}")
        entries = _class_entries(path)
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be listed ({error.strerror})") from error
    if not entries:
        raise DataError(f"{path}: no data set recognised; {_LAYOUTS}{_lists_there(path)}")
    return Listing(entries)


def background_folder(root: Path) -> Path | None:
    """The folder of the videos that show none of the classes of the data set at ``root`` (a folder, or a list
    in it); None if there is none with videos.
    """
    home = root if root.is_dir() else root.parent
    if not home.is_dir():
        return None
    for folder in (home, *split_folders(home).values()):
        for each in _subfolders(folder):
            if is_background(each) and find_videos(each)[0]:
                return each
    return None


def is_background(folder: Path) -> bool:
    """Whether a folder is named for videos that show none of the classes."""
    return folder.name.lower() == BACKGROUND


def has_videos(root: Path) -> bool:
    """Whether a folder under ``root`` has a video directly in it."""
    return any(
        is_frame_folder(entry) if entry.is_dir() else is_video_name(entry.name)
        for folder in _subfolders(root)
        for entry in folder.iterdir()
        if not is_hidden(entry.name)
    )


def _class_entries(root: Path, *, split: str | None = None) -> list[Entry]:
    """The videos in the class folders under ``root``. A warning names what is left out."""
    entries: list[Entry] = []
    empty = []
    others = [entry.name for entry in root.iterdir() if entry.is_file() and not is_hidden(entry.name)]
    beside = sorted(name for name in others if is_video_name(name))
    left_out: list[str] = []
    for folder in _subfolders(root):
        videos, rest = find_videos(folder, top=False)
        if is_background(folder):
            _log_background(folder, len(videos))
            continue
        entries += [Entry(path, folder.name, str(folder), split) for path in videos]
        if not videos:
            empty.append(folder.name)
        left_out += [os.path.relpath(path, root) for path in rest]
    if entries and empty:
        warn_once(f"{root}: no videos in {first_few(empty)}, ignored")
    if entries and beside:
        warn_once(f"{root}: {len(beside)} videos beside the class folders are left out: {first_few(beside)}")
    if entries and left_out:
        warn_once(f"{root}: {left_out_text(left_out)}")
    return entries


@cache
def _log_background(folder: Path, num_videos: int) -> None:
    """Once for each folder in a process."""
    logger.info(
        f"{folder}: not a class: its {num_videos} videos show none of the classes (saccade test RUN --reject)"
    )


def left_out_text(files: Sequence[str]) -> str:
    """``left out 6 files: 5 .m2ts (a/0.m2ts), 1 picture (a/x.jpg)``, the most frequent kind first."""
    kinds = {file: _kind(file) for file in files}
    counts = Counter(kinds.values()).most_common()
    parts = [
        f"{count} {kind}{'s' * (count > 1 and kind == 'picture')} "
        f"({next(file for file in files if kinds[file] == kind)}{', ...' * (count > 1)})"
        for kind, count in counts
    ]
    return f"left out {len(files)} {'file' if len(files) == 1 else 'files'}, not videos: {first_few(parts)}"


def _kind(file: str) -> str:
    suffix = os.path.splitext(file)[1].lower()
    return "picture" if is_image_name(os.path.basename(file)) else suffix or "without an ending"


def _check_siblings(root: Path, by_split: dict[str, Path]) -> None:
    """Refuse, or name in a warning, the folders with videos beside the split folders."""
    for folder in _subfolders(root):
        if folder in by_split.values() or is_background(folder):
            continue
        if _class_folders(folder):
            names = ", ".join(each.name + "/" for each in by_split.values())
            raise DataError(
                f"{folder}: has class folders beside {names}, but its name is none of a split; name it "
                f"train, val or test (also: {SPLIT_NAMES}), or move it out of {root}"
            )
        videos, _ = find_videos(folder)
        if videos:
            warn_once(f"{folder}: {len(videos)} videos beside the split folders are left out")


def _class_folders(root: Path) -> bool:
    """Whether there are folders with videos in ``root``."""
    return any(find_videos(each, top=False)[0] for each in _subfolders(root) if not is_background(each))


def _lists_there(path: Path) -> str:
    """A hint at the files of ``path`` that may be lists."""
    lists = sorted(each.name for each in path.iterdir() if each.suffix.lower() in (".csv", ".tsv", ".txt"))
    return f"; to read {first_few(lists)} as a list, give the file" if lists else ""


def _subfolders(root: Path) -> list[Path]:
    return sorted(_visible(entry for entry in root.iterdir() if entry.is_dir()))


def _visible(paths: Iterable[Path]) -> Iterable[Path]:
    return (path for path in paths if not is_hidden(path.name))
