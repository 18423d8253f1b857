"""Class names: shipped lists, files, matching a name to its label, and left-right partners under a flip."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from pathlib import Path

from saccade.errors import DataError, UsageError

LABEL_LISTS: tuple[str, ...] = (
    "ava",
    "hmdb51",
    "jester",
    "kinetics400",
    "kinetics600",
    "kinetics700",
    "something_v1",
    "something_v2",
    "ucf101",
)
"""The shipped lists, each in the order of its data set's own label numbers."""

_WITH_ID = re.compile(r"(?:c(?=\d{3}\b))?(\d+)\s*(?:[:,;\t]|\s)\s*(.+)")


def class_names(source: str | os.PathLike[str] | Sequence[str]) -> tuple[str, ...]:
    """Class names in label order.

    Args:
        source: a name of `LABEL_LISTS`; or a file with one name a line; or a sequence of names, kept as it
            is. A file may number its lines (``0 name``, ``1: name``, Charades' ``c000 name``); it is then
            ordered by the numbers.

    Raises:
        UsageError: neither a shipped list nor a file.
        DataError: the file is empty or names a class twice.
    """
    if not isinstance(source, (str, os.PathLike)):
        return _checked(tuple(source), "class_names")
    name = os.fspath(source)
    if name in LABEL_LISTS:
        return tuple(_shipped(name).values())
    if not os.path.isfile(name):
        raise UsageError(
            f"class names {name!r}: no such file and no shipped list; lists are {', '.join(LABEL_LISTS)}"
        )
    try:
        text = Path(name).read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name}: not a UTF-8 text file ({error.reason}); give one class name a line"
        ) from error
    return _checked(tuple(parse_names(text).values()), name)


def class_ids(name: str) -> dict[int, str]:
    """A shipped list as label number to name. Only ``ava`` has gaps: the 60 scored of its 80 numbers.

    Raises:
        UsageError: no such list.
    """
    if name not in LABEL_LISTS:
        raise UsageError(f"no list of class names {name!r}; lists are {', '.join(LABEL_LISTS)}")
    return dict(_shipped(name))


@cache
def _shipped(name: str) -> dict[int, str]:
    return parse_names(
        (resources.files("saccade.data") / "labels" / f"{name}.txt").read_text(encoding="utf-8")
    )


def parse_names(text: str) -> dict[int, str]:
    """Names by number: the line's own number where every line begins with one, else its position from 0."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    matches = [_WITH_ID.fullmatch(line) for line in lines]
    numbers = [int(match[1]) for match in matches if match]
    if len(numbers) == len(lines) and len(set(numbers)) == len(lines):
        return dict(sorted((int(match[1]), match[2]) for match in matches if match))
    return dict(enumerate(lines))


def _checked(names: tuple[str, ...], source: str) -> tuple[str, ...]:
    if not names:
        raise DataError(f"{source}: no class names; give one a line")
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise DataError(f"{source}: class {name!r} is listed twice; names must differ")
        seen.add(name)
    return names


class LabelFinder:
    """Finds a class by its name: exactly, or else without regard to case, underscores and quotes."""

    def __init__(self, names: Sequence[str]) -> None:
        self._exact = {name: label for label, name in enumerate(names)}
        self._loose: dict[str, int | None] = {}
        for label, name in enumerate(names):
            key = _loose(name)
            self._loose[key] = None if key in self._loose else label  # None: more than one class

    def find(self, name: str) -> int | None:
        """The label of ``name``, None if there is none or more than one."""
        label = self._exact.get(name)
        return self._loose.get(_loose(name)) if label is None else label


def _loose(name: str) -> str:
    return re.sub(r"[\s_]+", " ", re.sub(r"[\"'`()]", "", name)).strip().casefold()


# --- left and right ----------------------------------------------------------------------------------------

_SWAPS = {"left": "right", "right": "left", "anticlockwise": "clockwise", "counterclockwise": "clockwise"}
_AGAINST_THE_CLOCK = ("anticlockwise", "counterclockwise")  # either may stand beside "clockwise"
_WORD = re.compile(r"([^\W_]+)")


def mirrored_labels(class_names: Sequence[str]) -> tuple[int, ...]:
    """The label of each class's clips after a horizontal flip, which for most classes is the same.

    Two classes are partners if swapping all of left and right (or of clockwise and anticlockwise) turns one
    name into the other. A class without a partner keeps its label, as "pulling it right out".
    """
    labels = {name.casefold(): label for label, name in enumerate(class_names)}
    return tuple(
        next((labels[other] for other in _mirrored(name) if other in labels and other != name), labels[name])
        for name in (name.casefold() for name in class_names)
    )


def has_left_right_classes(class_names: Sequence[str]) -> bool:
    """Whether a horizontal flip turns clips of some class into clips of another."""
    return any(label != mirrored for label, mirrored in enumerate(mirrored_labels(class_names)))


def _mirrored(name: str) -> Iterator[str]:
    """The names that the mirror image of ``name`` may have."""
    parts = _WORD.split(name)
    for turn in _AGAINST_THE_CLOCK:
        swaps = {**_SWAPS, "clockwise": turn}
        yield "".join(swaps.get(part, part) for part in parts)
