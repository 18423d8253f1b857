"""Class names: shipped lists, files, matching a name to its label, and left-right partners under a flip."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

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

_ID_WORDS = frozenset(
    ("id", "ids", "index", "idx", "number", "classid", "labelid", "classindex", "labelindex", "actionid", "y")
)
_NAME_WORDS = frozenset(
    (
        "name",
        "names",
        "class",
        "classname",
        "label",
        "labelname",
        "action",
        "actionname",
        "category",
        "displayname",
    )
)
_WITH_ID = re.compile(r"(?:c(?=\d{3}\b))?(\d+)\s*(?:[:,;\t]|\s)\s*(.+)")


def class_names(source: str | os.PathLike[str] | Sequence[str]) -> tuple[str, ...]:
    """Class names in label order.

    Args:
        source: a name of `LABEL_LISTS`; or a file, see `read_names`; or a sequence of names, kept as it is.

    Raises:
        UsageError: neither a shipped list nor a file.
        DataError: the file is empty, names a class twice, or has numbers twice or with gaps.
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
    return read_names(name)


def read_names(path: str | os.PathLike[str]) -> tuple[str, ...]:
    """The class names in a file, in label order.

    It has one name a line; or numbered names in the order of their numbers, which count from 0 or 1: lines of
    ``0 name``, ``1: name``, ``name,0`` or Charades' ``c000 name``, a table with a header (``id,name``); or
    JSON: a list of names, ``{"name": 0}``, ``{"0": "name"}``, or such an object as ``id2label`` or
    ``label2id``.

    Raises:
        DataError: it cannot be read, is empty, names a class twice, or has numbers twice or with gaps.
    """
    name = os.fspath(path)
    try:
        text = Path(name).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{name}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{name}: not a UTF-8 text file ({error.reason}); give one class name a line"
        ) from error
    if text.lstrip().startswith(("{", "[")):
        return _checked(_json_names(text, name), name)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    rows = _table_rows(lines)
    if rows is None:
        matches = [_WITH_ID.fullmatch(line) for line in lines]
        rows = [(int(match[1]), match[2]) for match in matches if match]
        if len(rows) < len(lines):
            return _checked(tuple(lines), name)
    return _checked(_ordered(rows, name), name)


def _table_rows(lines: list[str]) -> list[tuple[int, str]] | None:
    """Number and name of each line of a table with a header, or of lines ``name,0``; None for other lines."""
    for separator in (",", "\t", ";"):
        cells = list(csv.reader(lines, delimiter=separator, skipinitialspace=True))
        cells = [[cell.strip() for cell in row] for row in cells]
        if not cells or len(cells[0]) < 2:
            continue
        header = [re.sub(r"[^a-z]", "", cell.lower()) for cell in cells[0]]
        numbers = [column for column, cell in enumerate(header) if cell in _ID_WORDS]
        names = [column for column, cell in enumerate(header) if cell in _NAME_WORDS]
        if numbers and names:
            cells, (number, name) = cells[1:], (numbers[0], next(n for n in names))
        elif all(len(row) == 2 and row[1].isdecimal() and not row[0].isdecimal() for row in cells):
            number, name = 1, 0
        elif all(len(row) == 2 and row[0].isdecimal() for row in cells):
            number, name = 0, 1
        else:
            continue
        if all(len(row) > max(number, name) and row[number].isdecimal() for row in cells):
            return [(int(row[number]), row[name]) for row in cells]
    return None


def _json_names(text: str, source: str) -> tuple[str, ...]:
    try:
        found = json.loads(text, object_pairs_hook=_pairs)
    except json.JSONDecodeError as error:
        raise DataError(f"{source}:{error.lineno}: not JSON ({error.msg} at column {error.colno})") from error
    if isinstance(found, list) and not isinstance(found, _Pairs):
        if found and all(isinstance(each, _Pairs) for each in found):  # [{"id": 0, "name": "run"}]
            rows = [_from_record(dict(each)) for each in found]
            if None not in rows:
                return _ordered([row for row in rows if row is not None], source)
        if all(isinstance(each, str) for each in found):
            return tuple(found)
    for key in ("id2label", "label2id"):
        if isinstance(found, _Pairs) and isinstance(dict(found).get(key), _Pairs):
            found = dict(found)[key]
    if isinstance(found, _Pairs) and found:
        if all(_is_number(value) and not _is_number(key) for key, value in found):
            return _ordered([(int(value), key.strip("\"'")) for key, value in found], source)
        if all(_is_number(key) and isinstance(value, str) for key, value in found):
            return _ordered([(int(key), value) for key, value in found], source)
        if all(_is_number(key) and _is_number(value) for key, value in found):  # names of digits
            return _ordered([(int(value), key) for key, value in found], source)
    raise DataError(
        f'{source}: not class names; JSON has them as ["name", ...], {{"name": 0, ...}} or '
        '{"0": "name", ...}'
    )


class _Pairs(list[tuple[str, Any]]):
    """The entries of a JSON object, those of a repeated key too."""


def _pairs(pairs: list[tuple[str, Any]]) -> _Pairs:
    return _Pairs(pairs)


def _is_number(value: Any) -> bool:
    return not isinstance(value, bool) and (
        isinstance(value, int) or (isinstance(value, str) and value.isdecimal())
    )


def _from_record(record: dict[str, Any]) -> tuple[int, str] | None:
    number = next((value for key, value in record.items() if key.lower().replace("_", "") in _ID_WORDS), None)
    name = next((value for key, value in record.items() if key.lower().replace("_", "") in _NAME_WORDS), None)
    return (int(str(number)), name) if _is_number(number) and isinstance(name, str) else None


def _ordered(rows: Sequence[tuple[int, str]], source: str) -> tuple[str, ...]:
    """Names in the order of their numbers, which count from 0 or 1 without gaps."""
    if not rows:
        raise DataError(f"{source}: no class names in it")
    by_number: dict[int, str] = {}
    for number, name in rows:
        if number in by_number:
            raise DataError(f"{source}: number {number} is given to {by_number[number]!r} and to {name!r}")
        by_number[number] = name
    first = min(by_number)
    if first > 1 or max(by_number) - first >= len(by_number):
        start = min(first, 1)
        absent = next(n for n in range(start, max(by_number) + 1) if n not in by_number)
        raise DataError(
            f"{source}: no class has the number {absent}; the numbers of {len(rows)} classes count from 0 "
            "or 1 without gaps"
        )
    return tuple(by_number[number] for number in sorted(by_number))


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
