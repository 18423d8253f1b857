"""Holding out clips of a data set that states no validation split, those of one source video together."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from saccade.data.entries import Entry, Split, first_few, warn_once
from saccade.data.types import VideoItem
from saccade.errors import DataError

logger = logging.getLogger(__name__)

MAX_SHARED = 0.01
"""Fraction of the validation files that may be training files as well."""

_UCF = re.compile(r"(.+_g\d+)_c\d+")  # group and clip
_KINETICS = re.compile(r"([\w-]{11})_\d{6}_\d{6}")  # video, start, end
_CLIP = re.compile(r"(.+)_c\d+")  # clip; only where the names of the data set bear it out


def with_splits(entries: list[Entry], path: Path, split: Split, fraction: float) -> list[Entry]:
    """The entries, with clips held out for validation where no split is stated.

    Raises:
        DataError: some state a split and others none, or there is nothing to hold out.
    """
    unsplit = [entry for entry in entries if entry.split is None]
    if unsplit and len(unsplit) < len(entries):
        raise DataError(f"{unsplit[0].where}: no split, where others have one; write train, val or test")
    _warn_of_shared_videos(path, entries)
    _warn_of_shared_groups(path, entries)
    if {entry.split for entry in entries} - {"train", None}:
        train = [entry for entry in entries if entry.split == "train"]
        for name in ("val", "test"):
            message, _ = shared_files(train, [entry for entry in entries if entry.split == name])
            if message:
                warn_once(f"{path}: {name} split: {message}")
        return entries
    held, single = hold_out(entries, fraction)
    if not held and split == "all":
        return [replace(entry, split="train") for entry in entries]
    if not held:
        raise DataError(
            f"{path}: no split, and no class has clips of two sources to hold one out; "
            "add clips, or state the split in clips.csv (path,label,split)"
        )
    if split != "all":
        _log_hold_out(str(path), len(entries), len(held), tuple(single), source_groups(entries)[1])
    chosen = set(held)
    return [
        replace(entry, split="val" if position in chosen else "train")
        for position, entry in enumerate(entries)
    ]


@cache
def _log_hold_out(path: str, total: int, held: int, single: tuple[str, ...], rule: str) -> None:
    """Once for each data set in a process."""
    logger.info(
        f"{path}: no validation split, so {held} of {total} clips are held out "
        f"(of every class, {rule}, the same every time)"
    )
    if single:
        logger.warning(f"{path}: all clips of {first_few(single)} come from one source; none is held out")


def check_separate(
    train: Sequence[Entry | VideoItem], val: Sequence[Entry | VideoItem], *, source: str, strict: bool = True
) -> None:
    """Check that validation videos are not training videos. A few, as ids that a published list repeats, are
    a warning; so are other segments of one video (`with_splits`).

    Raises:
        DataError: more than `MAX_SHARED` of the validation files are training files, and ``strict``.
    """
    message, fraction = shared_files(train, val)
    if strict and fraction > MAX_SHARED:
        raise DataError(
            f"{source}: validation: {message}; give each split its own files (two "
            "lists of the same relative paths need a folder each: root for data, val_root for val_data)"
        )
    if message:
        warn_once(f"{source}: validation: {message}")


def shared_files(train: Sequence[Entry | VideoItem], val: Sequence[Entry | VideoItem]) -> tuple[str, float]:
    """The files of ``val`` that are in ``train`` too, in words, and their fraction. Two segments of a video
    are not counted.
    """
    whole, cut = (
        {_resolved(item.path) for item in train if (item.start is None and item.end is None) == is_whole}
        for is_whole in (True, False)
    )
    names: dict[str, bool] = {}
    for item in val:
        path = _resolved(item.path)
        is_cut = item.start is not None or item.end is not None
        names[path] = names.get(path, False) or path in whole or (path in cut and not is_cut)
    shared = [path for path, is_shared in names.items() if is_shared]
    if not shared:
        return "", 0.0
    files = "file is a training file" if len(shared) == 1 else "files are training files"
    return (
        f"{len(shared)} of {len(names)} {files} as well, the first is {shared[0]}",
        len(shared) / len(names),
    )


def _resolved(path: str) -> str:
    """The path without links in its folder (a file that is a link stands for itself)."""
    folder, name = os.path.split(path)
    return os.path.join(_real_folder(folder), name)


@cache
def _real_folder(folder: str) -> str:
    return os.path.realpath(folder)


def _warn_of_shared_videos(path: Path, entries: Sequence[Entry]) -> None:
    splits: dict[str, set[str | None]] = defaultdict(set)
    for entry in entries:
        if entry.start is not None or entry.end is not None:
            splits[entry.path].add(entry.split)
    shared = sorted(path for path, found in splits.items() if len(found) > 1)
    if shared:
        warn_once(f"{path}: {len(shared)} videos have segments in more than one split: {first_few(shared)}")


def _warn_of_shared_groups(path: Path, entries: Sequence[Entry]) -> None:
    """Name the groups whose clips are in more than one stated split."""
    splits: dict[str, set[str]] = defaultdict(set)
    for entry in entries:
        if entry.group is not None and entry.split is not None:
            splits[_source(entry, False)[0]].add(entry.split)
    shared = sorted(group for group, found in splits.items() if len(found) > 1)
    if shared:
        warn_once(
            f"{path}: {len(shared)} of {len(splits)} groups have clips in more than one split: "
            f"{first_few(shared)}; a test on them measures memory too"
        )


def hold_out(entries: Sequence[Entry], fraction: float) -> tuple[list[int], list[str]]:
    """Choose about ``fraction`` of each class, in complete groups, the same ones every time.

    The choice depends only on the names of classes and groups, not on the order of the entries or their
    number in other classes. At least one group of each class is chosen and one is not.

    Returns:
        Positions of the entries held out, and the classes with a single group, of which none is.
    """
    keys, _ = source_groups(entries)
    by_class: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for position, entry in enumerate(entries):
        for label in _labels(entry):
            by_class[label][keys[position]].append(position)
    side: dict[str, bool] = {}  # a group with clips in two classes goes to one side with all of them
    single = []
    for label, groups in sorted(by_class.items()):
        wanted = max(1.0, fraction * sum(map(len, groups.values())))
        taken = sum(len(groups[group]) for group in groups if side.get(group))
        free = sorted((group for group in groups if group not in side), key=shuffled)
        left = len(free) + sum(side.get(group) is False for group in groups)
        for group in free:
            chosen = left > 1 and taken + len(groups[group]) / 2 <= wanted and taken < wanted
            chosen = chosen or (left > 1 and not taken)
            side[group] = chosen
            if chosen:
                taken += len(groups[group])
                left -= 1
        if not taken and len(groups) == 1:
            single.append(label)
    for groups in by_class.values():  # all groups of a class may have been chosen for other classes
        if all(side[group] for group in groups):
            side[max(groups, key=shuffled)] = False
    return [position for position, key in enumerate(keys) if side[key]], single


def source_groups(entries: Sequence[Entry]) -> tuple[list[str], str]:
    """The name of each entry's source, which is on one side as a whole, and what it was found by.

    That is its group column; else the name of the file before the number of the clip, for the names of
    UCF-101 and Kinetics, and for others that end in ``_c01`` if every class then has several sources, some
    with several clips; else the file. Segments of a video are always together.
    """
    plausible = _has_clip_numbers(entries)
    found = [_source(entry, plausible) for entry in entries]
    rules = {rule for _, rule in found if rule}
    segmented = any(entry.start is not None or entry.end is not None for entry in entries)
    rules |= {"segments of one video together"} if segmented else set()
    of_path: dict[str, str] = {}
    keys = [of_path.setdefault(entry.path, key) for entry, (key, _) in zip(entries, found, strict=True)]
    return keys, ", ".join(sorted(rules)) or "each file by itself"


def _source(entry: Entry, plausible: bool) -> tuple[str, str]:
    """The group of an entry, and the rule in words; no rule: the entry itself."""
    if entry.group is not None:
        # numbered groups are numbered within a class; named groups are the same in all classes
        key = f"{_labels(entry)[0]}/{entry.group}" if entry.group.isdigit() else entry.group
        return key, "clips of one group together"
    stem = os.path.splitext(os.path.basename(entry.path))[0]
    patterns = {_UCF: "as x_g01_c01", _KINETICS: "as <id>_000001_000011"}
    if plausible:
        patterns[_CLIP] = "as x_c01"
    for pattern, example in patterns.items():
        if match := pattern.fullmatch(stem):
            return match[1], f"clips of one source together by names {example}"
    return entry.path, ""


def _has_clip_numbers(entries: Sequence[Entry]) -> bool:
    """Whether ``_c01`` at the end of names numbers the clips of a source, and not the clips of a class."""
    sources: dict[str, Counter[str]] = defaultdict(Counter)
    for entry in entries:
        match = _CLIP.fullmatch(os.path.splitext(os.path.basename(entry.path))[0])
        if match is None or entry.group is not None:
            return False
        for label in _labels(entry):
            sources[label][match[1]] += 1
    several = any(count > 1 for counter in sources.values() for count in counter.values())
    return several and all(len(counter) > 1 for counter in sources.values())


def _labels(entry: Entry) -> tuple[str, ...]:
    return entry.labels or (entry.label,)


def shuffled(group: Hashable) -> bytes:
    """A key that sorts groups in an order that looks random, the same wherever the folder is."""
    name = os.path.basename(str(group))
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()
