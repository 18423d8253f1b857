"""Lists without a header: lines of a path and what follows it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from saccade.data.entries import Entry, shorten, splits_of, warn_once
from saccade.data.list_tables import check_span, split_labels
from saccade.errors import DataError, SaccadeError
from saccade.video import open_video
from saccade.video.folders import VIDEO_SUFFIXES, is_video_name

_SUFFIXES = "|".join(sorted(re.escape(suffix[1:]) for suffix in VIDEO_SUFFIXES))
_QUOTED = re.compile(r"""(["'])(?P<path>.+?)\1\s*[,;\t ]\s*(?P<label>.+)""")
_VIDEO = re.compile(rf"(?P<path>.+?\.(?:{_SUFFIXES}))(?:\s*[,;\t]\s*|\s+)(?P<label>.+)", re.IGNORECASE)
_FRAMES = re.compile(r"(?P<path>.+?)[\s,;]+(?P<num_frames>\d+)[\s,;]+(?P<label>\d+)")
_BETWEEN = r"(?:\s*[,;\t|]\s*|\s+)"
_NUMBERS = re.compile(rf"-?\d+(?:\.\d+)?(?:{_BETWEEN}-?\d+(?:\.\d+)?)*")
_LOOKED_AT = 5  # videos whose frames are counted to tell a number of frames from a label

Line = tuple[int, str]
"""The number of a line, and its text."""


def read_lines(path: Path, lines: Sequence[Line], base: Path) -> list[Entry]:
    """The entries of a list without a header.

    After the path of a video stand a label, several labels as numbers, the number of frames and a label,
    start and end in seconds (with a decimal point) and a label, or a label and a split.

    Raises:
        DataError: a line without a label, or numbers that may be read in two ways.
    """
    if _is_frame_list([line for _, line in lines], base):
        return [_frames_entry(path, number, line, base) for number, line in lines]
    separator = _separator([line for _, line in lines])
    entries = [_entry(path, number, line, base, separator) for number, line in lines]
    if all(_QUOTED.fullmatch(line) or _VIDEO.fullmatch(line) for _, line in lines):
        entries = _with_columns(path, entries, separator)
    return entries


def _with_columns(path: Path, entries: list[Entry], separator: str | None) -> list[Entry]:
    """The entries, where all have their path for certain, with what stands after it taken apart."""
    rests = [entry.label for entry in entries]
    split_columns = [re.split(_BETWEEN, rest) for rest in rests]
    splits = splits_of({columns[-1] for columns in split_columns if len(columns) > 1})
    if all(len(columns) > 1 and columns[-1] in splits for columns in split_columns):
        entries = [
            _changed(
                entry,
                rest[: -len(columns[-1])].rstrip(" ,;\t|"),
                split=splits[columns[-1]],
            )
            for entry, rest, columns in zip(entries, rests, split_columns, strict=True)
        ]
        rests = [entry.label for entry in entries]
    if all(_NUMBERS.fullmatch(rest) for rest in rests):
        return _numbers(path, entries, [re.split(_BETWEEN, rest) for rest in rests])
    named = [re.fullmatch(rf"(\d+\.\d+){_BETWEEN}(\d+\.\d+){_BETWEEN}(.+)", rest) for rest in rests]
    if all(named):
        return [
            _segment(entry, match[1], match[2], match[3])
            for entry, match in zip(entries, named, strict=True)
            if match is not None
        ]
    counted = [re.fullmatch(rf"(\d+){_BETWEEN}(\D.*)", rest) for rest in rests]
    if all(counted) and _are_frame_counts(entries, [int(match[1]) for match in counted if match]):
        warn_once(f"{path}: the first number after a path is its number of frames, which is not used")
        return [_changed(e, match[2]) for e, match in zip(entries, counted, strict=True) if match is not None]
    single = {rest for rest in rests if not re.search("[,;]", rest)}
    return [_with_labels(entry, separator, single) for entry in entries]


def _with_labels(entry: Entry, separator: str | None, single: set[str]) -> Entry:
    """The names in a label that has the separator of the list, or is made of labels of other lines, with a
    comma or semicolon and no space between them, are several labels.
    """
    parts = [_bare(part) for part in re.split(r"[,;](?=\S)", entry.label)]
    separated = separator is not None and separator in entry.label
    if len(parts) > 1 and not entry.label.startswith("[") and (separated or not single.isdisjoint(parts)):
        return _changed(entry, "", labels=tuple(dict.fromkeys(parts)))
    labels = split_labels(entry.label, entry.where)
    return entry if len(labels) == 1 else _changed(entry, "", labels=labels)


def _numbers(path: Path, entries: list[Entry], columns: list[list[str]]) -> list[Entry]:
    """Entries with numbers alone after their paths."""
    widths = {len(numbers) for numbers in columns}
    if widths == {1}:
        return entries
    if widths == {2} and _are_frames_and_label(entries, columns):
        warn_once(f"{path}: read as path, number of frames, label; the numbers of frames are not used")
        return [_changed(entry, numbers[1]) for entry, numbers in zip(entries, columns, strict=True)]
    points = [any("." in text for text in column) for column in zip(*columns, strict=False)]
    if widths == {3} and points[2:] == [False] and any(points):
        return [_segment(entry, *numbers) for entry, numbers in zip(entries, columns, strict=True)]
    if any(points) or (widths == {3} and all(int(a) < int(b) for a, b, _ in columns)):
        raise DataError(
            f"{path}: the numbers after each path may be labels, or start, end and label; add a first line "
            "that says so, 'path,labels' (labels as 1;3;5) or 'path,start,end,label'"
        )
    warn_once(f"{path}: read as path and labels, up to {max(widths)} a video")
    return [
        _changed(entry, "", labels=tuple(dict.fromkeys(numbers)))
        for entry, numbers in zip(entries, columns, strict=True)
    ]


def _are_frames_and_label(entries: Sequence[Entry], columns: list[list[str]]) -> bool:
    """Whether two numbers after each path are the number of frames and the label, not two labels.

    The videos decide where they can be read. Otherwise the first is a number of frames if it is the same in
    every line, or always greater than every second.
    """
    if any("." in text for numbers in columns for text in numbers):
        return False
    first, second = ([int(numbers[i]) for numbers in columns] for i in (0, 1))
    if len(columns) > 1 and len(set(first)) == 1 < len(set(second)):
        return True
    seen = _are_frame_counts(entries, first)
    return min(first) > max(second) if seen is None else seen


def _are_frame_counts(entries: Sequence[Entry], counts: Sequence[int]) -> bool | None:
    """Whether the numbers are those of the frames of most videos looked at; None if none can be read."""
    agree: list[bool] = []
    step = max(1, len(entries) // 50)
    for entry, count in list(zip(entries, counts, strict=True))[::step]:
        if len(agree) == _LOOKED_AT:
            break
        try:
            with open_video(entry.path) as video:
                agree.append(abs(len(video) - count) <= max(2, len(video) // 10))
        except SaccadeError:
            continue
    return sum(agree) * 2 > len(agree) if agree else None


def _segment(entry: Entry, start: str, end: str, label: str) -> Entry:
    check_span(float(start), float(end), entry.where)
    return _changed(entry, label, start=float(start), end=float(end))


def _changed(entry: Entry, label: str, **fields: Any) -> Entry:
    return replace(entry, label=_bare(label), **fields)


def _separator(lines: list[str]) -> str | None:
    """The separator that every line has; None: spaces."""
    return next((mark for mark in ("\t", ";", ",") if all(mark in line for line in lines)), None)


def _is_frame_list(lines: list[str], base: Path) -> bool:
    """Whether the lines are folder, number of frames, label: their folders tell, or that all lines are so.

    (``clip 12 7`` may also be a video called ``clip 12`` with the label 7.)
    """
    matches = [match for line in lines if not _VIDEO.fullmatch(line) and (match := _FRAMES.fullmatch(line))]
    if any(os.path.isdir(base / match["path"]) for match in matches[:20]):
        return True
    return len(matches) == len(lines) and not any(
        os.path.exists(base / match[0][: match.start("label")].rstrip(" \t,;")) for match in matches[:20]
    )


def _frames_entry(path: Path, number: int, line: str, base: Path) -> Entry:
    where = f"{path}:{number}"
    match = _FRAMES.fullmatch(line)
    if match is None or int(match["num_frames"]) < 1:
        raise DataError(
            f"{where}: {shorten(line)!r} is not 'folder, number of frames, label', as the other lines are"
        )
    folder = os.path.join(base, _bare(match["path"]))
    return Entry(folder, match["label"], where, num_frames=int(match["num_frames"]))


def _entry(path: Path, number: int, line: str, base: Path, separator: str | None) -> Entry:
    where = f"{path}:{number}"
    match = _QUOTED.fullmatch(line) or _VIDEO.fullmatch(line)
    if match is not None:
        video, label = match["path"], match["label"]
    else:
        video, _, label = (
            line.rpartition(separator)
            if separator
            else (line.rpartition(" ") if " " in line else ("", "", line))
        )
        if not video.strip() or not label.strip() or is_video_name(os.path.basename(line)):
            raise DataError(f"{where}: no label in {shorten(line)!r}; expected 'path label'")
    return Entry(os.path.join(base, _bare(video)), _bare(label), where)


def _bare(cell: str) -> str:
    cell = cell.strip()
    return cell[1:-1] if len(cell) > 1 and cell[0] == cell[-1] and cell[0] in "\"'" else cell
