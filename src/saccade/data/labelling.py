"""From the labels of a list or folder to class names and numbers, and the choice of a split."""

from __future__ import annotations

import logging
import math
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from saccade.data.classnames import LabelFinder, read_names
from saccade.data.classnames import class_names as read_class_names
from saccade.data.entries import ClassNames, Entry, Listing, Split, first_few, shorten, warn_once
from saccade.data.types import Action
from saccade.errors import DataError

logger = logging.getLogger(__name__)

_WHOLE_NUMBER = re.compile(r"[+-]?\d+(\.0*)?")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)
_NONE = frozenset(("nan", "none", "null", "n/a", "na", "?"))
_NAME_FILES = ("classes.txt", "category.txt", "class_names.txt", "classes.json")


def labelled(
    entries: list[Entry], listing: Listing, path: Path, class_names: ClassNames | None
) -> tuple[tuple[str, ...], list[Entry]]:
    """The class names, and the entries with their label as a number, or with several labels as actions that
    last as long as the clip.

    Raises:
        DataError: a label is missing, is none of the classes or no plausible number of one.
    """
    if listing.class_names is not None and any(entry.actions is not None for entry in entries):
        return listing.class_names, entries
    several = any(entry.labels is not None and len(entry.labels) > 1 for entry in entries)
    if not several:
        nothing = next((entry for entry in entries if entry.labels == ()), None)
        if nothing is not None:
            raise DataError(f"{nothing.where}: no label")
    as_tuples = [replace(e, labels=(e.label,) if e.labels is None else e.labels) for e in entries]
    names, as_tuples = _numbered(as_tuples, path, listing.class_names if class_names is None else class_names)
    if not several:
        return names, [replace(entry, label=_labels(entry)[0], labels=None) for entry in as_tuples]
    return names, [
        replace(e, label="", labels=None, actions=tuple(Action(int(n), 0.0, math.inf) for n in _labels(e)))
        for e in as_tuples
    ]


def _labels(entry: Entry) -> tuple[str, ...]:
    assert entry.labels is not None
    return entry.labels


def _numbered(
    entries: list[Entry], path: Path, given: ClassNames | None
) -> tuple[tuple[str, ...], list[Entry]]:
    """The class names, and the entries with all labels as numbers from 0."""
    by_number = _are_numbers(entries)
    if by_number:
        entries = [
            replace(e, labels=tuple(str(int(n.partition(".")[0])) for n in _labels(e))) for e in entries
        ]
    if given is None:
        given = _names_beside(path, by_number)
    if given is not None:
        names = read_class_names(given)
    else:
        defining = [entry for entry in entries if entry.split == "train"] or entries
        labels = {label for entry in defining for label in _labels(entry)}
        highest = max(map(int, labels), default=-1) if by_number else -1
        for entry in entries:
            for label in _labels(entry):
                if label not in labels and not (by_number and int(label) <= highest):
                    raise DataError(
                        f"{entry.where}: class {label!r} is only in the {entry.split} split; "
                        "add training clips of it, or give class_names"
                    )
        names = _number_names(entries, path) if by_number else tuple(sorted(labels))
    if by_number and not _are_found(entries, names):
        return names, _from_numbers(entries, path, names)
    return names, _from_names(entries, names)


def _are_numbers(entries: Sequence[Entry]) -> bool:
    """Whether the labels are numbers; the name of a class folder is a name, even one of digits alone.

    Raises:
        DataError: they are numbers that cannot be those of classes.
    """
    if ":" not in os.path.basename(entries[0].where):
        return False
    first: dict[str, str] = {}
    for entry in entries:
        for label in _labels(entry):
            first.setdefault(label, entry.where)
    others = [label for label in first if not _NUMBER.fullmatch(label)]
    if len(others) == len(first):
        return False
    if others:
        missing = [label for label in others if label.lower() in _NONE]
        if len(missing) == len(others):
            raise DataError(f"{first[missing[0]]}: no label ({missing[0]!r}), where the others are numbers")
        return False
    for label, where in first.items():
        if not _WHOLE_NUMBER.fullmatch(label):
            raise DataError(f"{where}: label {label} is not a whole number; classes are numbered from 0")
        if label.startswith("-") and float(label):
            raise DataError(f"{where}: label {label} is below 0; classes are numbered from 0")
    return True


def _number_names(entries: Sequence[Entry], path: Path) -> tuple[str, ...]:
    """Numbers as class names: from 0 to the highest, or from 1 where 0 alone does not occur.

    Raises:
        DataError: they are no numbers of classes, but dates or ids.
    """
    first: dict[int, Entry] = {}
    for entry in entries:
        for label in _labels(entry):
            first.setdefault(int(label), entry)
    numbers = sorted(first)
    count, highest = len(numbers), numbers[-1]
    gaps = sorted(set(range(numbers[0], highest)) - first.keys()) if highest < 100 * count else [0]
    if (highest >= 100 and highest >= 10 * count) or (gaps and 10 <= len(entries) == count):
        what = "every clip has its own" if len(entries) == count else f"there are {count} different ones"
        raise DataError(
            f"{first[highest].where}: label {shorten(str(highest))} is no number of a class: {what}; give "
            "the column of the classes, the names of the classes (class_names), or names as labels"
        )
    if numbers[0] == 1 and not gaps:
        warn_once(f"{path}: labels count from 1; the {count} classes are named 1 to {highest}")
        return tuple(map(str, numbers))
    absent = [str(number) for number in range(highest) if number not in first]
    if absent:
        warn_once(
            f"{path}: no clip has the label {first_few(absent)}; there are {highest + 1} classes, named 0 "
            f"to {highest}, {len(absent)} of them without clips"
        )
    return tuple(map(str, range(highest + 1)))


def _are_found(entries: Sequence[Entry], names: Sequence[str]) -> bool:
    """Whether the names are numbers, those of the labels among them."""
    known = set(names)
    return all(name.isdecimal() for name in names) and all(n in known for e in entries for n in _labels(e))


def _from_numbers(entries: list[Entry], path: Path, names: tuple[str, ...]) -> list[Entry]:
    numbers = {int(label) for entry in entries for label in _labels(entry)}
    shift = 0
    if 0 not in numbers and max(numbers) == len(names):
        warn_once(f"{path}: labels count from 1: label 1 is class {names[0]!r}")
        shift = 1
    for entry in entries:
        for label in _labels(entry):
            if int(label) - shift >= len(names):
                raise DataError(
                    f"{entry.where}: label {label} is out of range; {len(names)} classes count from 0"
                )
    return [replace(e, labels=tuple(str(int(n) - shift) for n in _labels(e))) for e in entries]


def _from_names(entries: list[Entry], names: tuple[str, ...]) -> list[Entry]:
    finder = LabelFinder(names)
    numbers: dict[str, str] = {}
    for entry in entries:
        for name in _labels(entry):
            if name in numbers:
                continue
            label = finder.find(name)
            if label is None:
                few = names if len(names) <= 8 else [*names[:8], f"... ({len(names)} in all)"]
                raise DataError(f"{entry.where}: no class {name!r}; classes are {', '.join(few)}")
            numbers[name] = str(label)
    return [replace(e, labels=tuple(numbers[name] for name in _labels(e))) for e in entries]


def _names_beside(path: Path, by_number: bool) -> tuple[str, ...] | None:
    """UCF-101's ``classInd.txt`` or, for numbered labels, ``classes.txt`` or TSM's ``category.txt`` next to
    the list.
    """
    folder = path if path.is_dir() else path.parent
    for name in ("classInd.txt", *_NAME_FILES) if by_number else ("classInd.txt",):
        if (folder / name).is_file():
            return read_names(folder / name)
    return None


# --- choosing a split --------------------------------------------------------------------------------------


def without_missing(entries: list[Entry], path: Path, split: Split) -> list[Entry]:
    """The entries of all splits whose files exist; a warning counts those of ``split`` that do not.

    Raises:
        DataError: none of the split exists.
    """
    chosen = _of_split(entries, path, split)
    gone = {path for path in {entry.path for entry in entries} if not os.path.exists(path)}
    missing = [entry for entry in chosen if entry.path in gone]
    if missing:
        message = _missing_text(missing, chosen)
        if len(missing) == len(chosen):
            raise DataError(f"{path}: {message}; {_REMEDY}")
        logger.warning(f"{path}: {message}; skipping them")
    return [entry for entry in entries if entry.path not in gone]


def select_split(entries: list[Entry], path: Path, split: Split) -> list[Entry]:
    """The entries of one split.

    Raises:
        DataError: there are none, a clip has two labels, or a file is missing.
    """
    selected = _of_split(entries, path, split)
    seen: dict[tuple[str, float | None, float | None], Entry] = {}
    for entry in selected:
        other = seen.setdefault((entry.path, entry.start, entry.end), entry)
        if (other.label, other.actions) != (entry.label, entry.actions):
            raise DataError(
                f"{entry.where}: {entry.path} has another label at {other.where}; keep one of them, or give "
                "several labels in one line"
            )
    missing = [entry for entry in selected if not os.path.exists(entry.path)]
    if missing:
        raise DataError(f"{path}: {_missing_text(missing, selected)}; {_REMEDY}")
    return selected


_REMEDY = (
    "correct the list, give the folder its paths start from with --root, or "
    "skip missing files with --allow-missing"
)


def _missing_text(missing: Sequence[Entry], selected: Sequence[Entry]) -> str:
    first = missing[0]
    return f"{len(missing)} of {len(selected)} files are missing, the first is {first.path} ({first.where})"


def _of_split(entries: list[Entry], path: Path, split: Split) -> list[Entry]:
    selected = [entry for entry in entries if split in (entry.split, "all")]
    if not selected and split == "val":
        selected = [entry for entry in entries if entry.split == "test"]
        if selected:
            warn_once(f"{path}: no val split; the test split is used instead")
    if not selected:
        found = ", ".join(sorted({str(entry.split) for entry in entries}))
        raise DataError(f"{path}: no {split} split; there is {found}")
    return selected
