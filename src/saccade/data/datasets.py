"""``load_dataset``: what lies under a path, recognised by its layout."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import get_args

from saccade.data import charades
from saccade.data.classnames import LabelFinder, parse_names
from saccade.data.classnames import class_names as read_class_names
from saccade.data.entries import Entry, Split, hold_out, split_of
from saccade.data.folders import class_folder_entries, split_folders
from saccade.data.lists import LIST_SUFFIXES, read_list
from saccade.data.motion.files import UNFINISHED_FILE, read_motion_file
from saccade.data.something import SomethingLists, find_lists, misplaced, read_lists
from saccade.data.types import VideoDataset, VideoItem
from saccade.errors import DataError, UsageError

logger = logging.getLogger(__name__)

_LAYOUTS = (
    "expected train/ and val/ with a folder of each class, folders of classes, clips.csv (path,label,split), "
    "train.csv and val.csv of 'path label' lines, or the lists of Something-Something or Charades"
)


def load_dataset(
    path: str | os.PathLike[str],
    split: Split,
    *,
    class_names: str | os.PathLike[str] | Sequence[str] | None = None,
    val_fraction: float = 0.2,
    root: str | os.PathLike[str] | None = None,
    allow_missing: bool = False,
) -> VideoDataset:
    """The labelled videos of one split.

    Recognised, in this order: a list file; a folder with ``clips.csv``; the lists of Charades and
    Something-Something (see `saccade.data.charades`, `saccade.data.something`), or one of them; ``train``,
    ``val`` or ``test`` folders of class folders; list files named for the splits; a folder of class folders.
    A list file named for a split finds the others beside it (``train.csv``, ``val.csv``). Where nothing says
    what is held out, about ``val_fraction`` of each class is, always the same clips, those of one source
    video together; this is logged. Classes are those of the training split, sorted by name, so
    every split agrees on the labels.

    Args:
        path: the folder or list file.
        split: ``train``, ``val``, ``test``, or ``all`` of them together. ``val`` falls back, aloud, to
            ``test`` where only that exists.
        class_names: names in label order: a shipped list (``kinetics400``), a file, or a sequence.
        val_fraction: share to hold out where there is no split.
        root: folder that relative paths of a list start from; None takes the list's own. For
            Something-Something and Charades the folder of the videos.
        allow_missing: leave listed files that do not exist out, saying how many, instead of failing.

    Raises:
        UsageError: an argument is out of range, or nothing lies at ``path``.
        DataError: the layout is not recognised, a line or label is wrong, files are missing, or a split is
            empty.
    """
    if split not in get_args(Split):
        raise UsageError(f"split: {split!r} is unknown; choose one of {', '.join(get_args(Split))}")
    place = Path(path)
    names, entries = read_entries(place, split, class_names=class_names, val_fraction=val_fraction, root=root)
    chosen = _chosen(entries, place, split)
    chosen = _existing(chosen, place, allow_missing)
    multi_label = any(entry.actions is not None for entry in chosen)
    items = tuple(
        VideoItem(
            e.path, -1 if multi_label else int(e.label), e.num_frames, e.fps, e.actions or (), e.duration
        )
        for e in chosen
    )
    return VideoDataset(items, names, split, str(place), _pairs(place, names), multi_label)


def read_entries(
    place: Path,
    split: Split,
    *,
    class_names: str | os.PathLike[str] | Sequence[str] | None = None,
    val_fraction: float = 0.2,
    root: str | os.PathLike[str] | None = None,
) -> tuple[tuple[str, ...], list[Entry]]:
    """The class names and the entries of every split, each with a split and its label as a number, or with
    actions instead.

    What `load_dataset` does before it chooses among them; whether the files exist is not looked at.
    """
    if not 0 < val_fraction < 1:
        raise UsageError(f"val_fraction: must lie between 0 and 1, got {val_fraction}")
    if not place.exists():
        raise UsageError(f"data {str(place)!r}: no such file or folder")
    if root is not None and not Path(root).is_dir():
        raise UsageError(f"root {os.fspath(root)!r}: no such folder; paths of the list start from it")
    published = place.is_file() or not (place / "clips.csv").is_file()
    actions = charades.find_lists(place) if published else None
    if actions is not None:
        names, entries = charades.read_lists(actions, class_names=class_names, root=root)
        return names, _with_splits(entries, place, split, val_fraction)
    lists = find_lists(place) if published else None
    if lists is None:
        entries = _read(place, split, root)
    else:
        names, entries = _read_something(lists, place, split, root)
        class_names = names if class_names is None else class_names
    entries = _with_splits(entries, place, split, val_fraction)
    return _labelled(entries, place, class_names)


def _read(place: Path, split: Split, root: str | os.PathLike[str] | None) -> list[Entry]:
    """All entries of all splits that the layout at ``place`` holds."""
    if place.is_file():
        return _read_list_and_siblings(place, split, root)
    if (place / UNFINISHED_FILE).exists():
        raise DataError(f"{place}: the motion clips were not finished; run the command that makes them again")
    if (place / "clips.csv").is_file():
        return read_list(place / "clips.csv", root=root)
    entries: list[Entry] = []
    for name, folder in split_folders(place).items():
        entries += class_folder_entries(folder, split=name)
    if entries:
        return entries
    lists = _split_lists(place)
    if lists:
        return _read_splits(lists, root)
    meant = misplaced(place)
    if meant is not None:
        raise DataError(f"{place}: {meant}")
    entries = class_folder_entries(place)
    if not entries:
        raise DataError(f"{place}: no data set recognised; {_LAYOUTS}")
    return entries


def _read_something(
    lists: SomethingLists, place: Path, split: Split, root: str | os.PathLike[str] | None
) -> tuple[tuple[str, ...], list[Entry]]:
    own = next((name for name, path in lists.lists.items() if path == place), "train")
    if own not in ("val", "test") or split not in ("val", "test"):
        return read_lists(lists, only=None if split == "all" else split, root=root)
    # the file that was named is the one to evaluate on, whatever the split is called
    names, entries = read_lists(replace(lists, lists={own: place}), only=own, root=root)
    return names, [replace(entry, split=split) for entry in entries]


def _read_list_and_siblings(place: Path, split: Split, root: str | os.PathLike[str] | None) -> list[Entry]:
    own = _split_in_name(place)
    if own is None:
        return read_list(place, root=root)
    lists = _split_lists(place.parent, like=place)
    if own != "train" and split in ("val", "test"):
        own = split  # the file that was named is the one to evaluate on, whatever the split is called
    return _read_splits({**lists, own: place}, root)


def _read_splits(lists: dict[str, Path], root: str | os.PathLike[str] | None) -> list[Entry]:
    return [
        replace(entry, split=entry.split or name)
        for name, path in sorted(lists.items())
        for entry in read_list(path, root=root)
    ]


def _split_in_name(path: Path) -> str | None:
    """The split a list file is named for: ``val.csv``, ``kinetics_val_list.txt``, ``trainlist01.txt``."""
    return next((split for word in _words(path) if (split := split_of(word)) is not None), None)


def _words(path: Path) -> list[str]:
    stem = path.stem.lower()
    for mark in "-. ":
        stem = stem.replace(mark, "_")
    return [re.sub(r"list\d*$", "", word) for word in stem.split("_")]


def _split_lists(folder: Path, *, like: Path | None = None) -> dict[str, Path]:
    """List files in ``folder`` named for a split; with ``like``, those that differ from it in that word."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        split = _split_in_name(path) if path.suffix.lower() in LIST_SUFFIXES and path.is_file() else None
        if split is None:
            continue
        if like is not None and (path.suffix != like.suffix or _template(path) != _template(like)):
            continue
        if like is None and split in found:
            raise DataError(
                f"{folder}: {found[split].name} and {path.name} are both named for {split}; give one of them"
            )
        found.setdefault(split, path)
    return found


def _template(path: Path) -> list[str]:
    return ["" if split_of(word) else word for word in _words(path)]


def _with_splits(entries: list[Entry], place: Path, split: Split, fraction: float) -> list[Entry]:
    """Hold clips back where nothing says which."""
    unsplit = [entry for entry in entries if entry.split is None]
    if unsplit and len(unsplit) < len(entries):
        raise DataError(f"{unsplit[0].where}: no split, where others have one; write train, val or test")
    if {entry.split for entry in entries} - {"train", None}:
        return entries
    held, single = hold_out(entries, fraction)
    if not held and split == "all":
        return [replace(entry, split="train") for entry in entries]
    if not held:
        raise DataError(
            f"{place}: no split, and no class has clips of two sources to hold one back; "
            "add clips, or say the split in clips.csv (path,label,split)"
        )
    _tell_hold_out(str(place), len(entries), len(held), tuple(single))
    chosen = set(held)
    return [
        replace(entry, split="val" if position in chosen else "train")
        for position, entry in enumerate(entries)
    ]


@cache
def _tell_hold_out(place: str, total: int, held: int, single: tuple[str, ...]) -> None:
    """Said once for each data set in a process."""
    logger.info(
        f"{place}: no validation split, so {held} of {total} clips are held out "
        "(of every class, clips of one source together, the same every time)"
    )
    if single:
        logger.warning(
            f"{place}: all clips of {_some(single)} come from one source; none of them is held out"
        )


def _labelled(
    entries: list[Entry], place: Path, given: str | os.PathLike[str] | Sequence[str] | None
) -> tuple[tuple[str, ...], list[Entry]]:
    """The class names, and the entries with their label as a number."""
    by_number = _from_list(entries) and all(entry.label.isdecimal() for entry in entries)
    if given is None:
        given = _names_beside(place, by_number)
    if given is not None:
        names = read_class_names(given)
    else:
        defining = [entry for entry in entries if entry.split == "train"] or entries
        labels = {entry.label for entry in defining}
        names = tuple(map(str, range(max(map(int, labels)) + 1))) if by_number else tuple(sorted(labels))
        unseen = next((entry for entry in entries if entry.label not in labels), None)
        if unseen is not None and not (by_number and int(unseen.label) < len(names)):
            raise DataError(
                f"{unseen.where}: class {unseen.label!r} is in the {unseen.split} split alone, not in train; "
                "add training clips of it, or give class_names"
            )
    if by_number:
        wrong = next((entry for entry in entries if int(entry.label) >= len(names)), None)
        if wrong is not None:
            raise DataError(
                f"{wrong.where}: label {wrong.label} is out of range; {len(names)} classes count from 0"
            )
        return names, [replace(entry, label=str(int(entry.label))) for entry in entries]
    return names, _numbered(entries, names)


def _from_list(entries: list[Entry]) -> bool:
    """Whether labels were written in a list; a class folder has a name, even one of digits alone."""
    return ":" in os.path.basename(entries[0].where)


def _numbered(entries: list[Entry], names: tuple[str, ...]) -> list[Entry]:
    finder = LabelFinder(names)
    labels: dict[str, int] = {}
    for entry in entries:
        if entry.label in labels:
            continue
        label = finder.find(entry.label)
        if label is None:
            few = names if len(names) <= 8 else [*names[:8], f"... ({len(names)} in all)"]
            raise DataError(f"{entry.where}: no class {entry.label!r}; classes are {', '.join(few)}")
        labels[entry.label] = label
    return [replace(entry, label=str(labels[entry.label])) for entry in entries]


def _names_beside(place: Path, by_number: bool) -> tuple[str, ...] | None:
    """UCF-101's ``classInd.txt`` or, for numbered labels, ``classes.txt`` or TSM's ``category.txt`` next to
    the list.
    """
    folder = place if place.is_dir() else place.parent
    for name in ("classInd.txt", "classes.txt", "category.txt") if by_number else ("classInd.txt",):
        if (folder / name).is_file():
            return tuple(parse_names((folder / name).read_text(encoding="utf-8-sig")).values())
    return None


def _chosen(entries: list[Entry], place: Path, split: Split) -> list[Entry]:
    seen: dict[str, Entry] = {}
    chosen = [entry for entry in entries if split in (entry.split, "all")]
    if not chosen and split == "val":
        chosen = [entry for entry in entries if entry.split == "test"]
        if chosen:
            _tell_test_for_val(str(place))
    if not chosen:
        there = ", ".join(sorted({str(entry.split) for entry in entries}))
        raise DataError(f"{place}: no {split} split; there is {there}")
    for entry in chosen:
        other = seen.setdefault(entry.path, entry)
        if other.label != entry.label:
            raise DataError(
                f"{entry.where}: {entry.path} has another label at {other.where}; keep one of them"
            )
    return chosen


@cache
def _tell_test_for_val(place: str) -> None:
    logger.warning(f"{place}: no val split; the test split takes its place")


def _existing(entries: list[Entry], place: Path, allow_missing: bool) -> list[Entry]:
    missing = [entry for entry in entries if not os.path.exists(entry.path)]
    if not missing:
        return entries
    first = missing[0]
    message = f"{len(missing)} of {len(entries)} files are missing, the first is {first.path} ({first.where})"
    if not allow_missing or len(missing) == len(entries):
        raise DataError(
            f"{place}: {message}; correct the list, give the folder its paths start from with --root, or "
            "leave missing files out with --allow-missing"
        )
    logger.warning(f"{place}: {message}; they are left out")
    gone = set(missing)
    return [entry for entry in entries if entry not in gone]


def _pairs(place: Path, names: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    description = read_motion_file(place) if place.is_dir() else None
    pairs = description["pairs"] if description else []
    return tuple((names.index(a), names.index(b)) for a, b in pairs if a in names and b in names)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
