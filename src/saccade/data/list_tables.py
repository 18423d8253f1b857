"""Lists with a header: which column is which, by the names in use, and their rows."""

from __future__ import annotations

import ast
import csv
import io
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saccade.data.entries import Entry, first_few, shorten, splits_of, warn_once
from saccade.errors import DataError
from saccade.video.folders import is_hidden, is_video_name

# Names without regard to case, spaces and punctuation: "File Path", "file_path", "filePath".
_COLUMNS: dict[str, tuple[str, ...]] = {
    "path": (
        *("path", "paths", "filepath", "filepaths", "fullpath", "relpath", "relativepath", "abspath"),
        *("file", "files", "filename", "filenames", "fname", "mp4", "media", "mediapath", "folder"),
        *("video", "videos", "videopath", "videopaths", "videoname", "videofile", "videofilename"),
        *("clip", "clips", "clippath", "clipname", "clipfile", "framefolder", "framesfolder", "framedir"),
    ),
    "name": ("name",),
    "id": ("youtubeid", "videoid", "id", "clipid", "ytid", "vid"),
    "label": (
        *("label", "class", "classname", "labelname", "category", "categoryname", "action", "actionname"),
        *("target", "targetname", "labels", "classes", "categories", "actions", "targets", "tag", "tags"),
        *("labelid", "classid", "categoryid", "actionid", "targetid", "labelidx", "classidx", "labelindex"),
        *("classindex", "actionclass", "actionlabel", "classlabel", "y", "gt", "groundtruth", "activity"),
        *("gesture", "sign", "gloss", "event"),
    ),
    "group": (
        *("group", "groupid", "source", "sourceid", "person", "personid", "subject", "subjectid", "actor"),
        *("actorid", "signer", "signerid", "participant", "participantid", "patient", "patientid"),
    ),
    "split": ("split", "subset", "set", "partition", "phase", "usage"),
    "start": (
        *("start", "starttime", "timestart", "tstart", "startsec", "startsecond", "startseconds", "starts"),
        *("begin", "begintime", "tbegin", "starttimestamp", "segmentstart", "from"),
    ),
    "end": (
        *("end", "endtime", "timeend", "tend", "endsec", "endsecond", "endseconds", "stop", "stoptime"),
        *("finish", "endtimestamp", "stoptimestamp", "segmentend", "to"),
    ),
    "duration": ("duration", "length", "durationsec", "durationseconds", "lengthsec"),
    "frames": (
        *("numframes", "nframes", "frames", "framecount", "totalframes", "numframe", "numberofframes"),
    ),
    "fps": ("fps", "framerate", "videofps"),
    "first frame": ("startframe", "framestart", "firstframe", "beginframe"),
    "last frame": ("endframe", "stopframe", "frameend", "lastframe"),
}  # fmt: skip
# Columns that may name the source of the clips, but need not: to be confirmed with ``group``.
_SOURCES = frozenset((
    *("video", "videoid", "videoname", "originalvideo", "sourcevideo", "youtubeid", "vid", "movie", "film"),
    *("camera", "cameraid", "cam", "camid", "view", "device", "deviceid", "sensor", "channel", "channelid"),
    *("scene", "sceneid", "session", "sessionid", "recording", "recordingid", "take", "episode", "sequence"),
    *("site", "siteid", "location", "locationid", "place", "room", "house", "home", "kitchen", "lab"),
    *("user", "userid", "uploader", "author", "owner", "worker", "workerid", "operator", "player", "athlete"),
    *("speaker", "performer", "performerid", "individual", "animal", "animalid", "name", "date", "day"),
    *_COLUMNS["group"],
))  # fmt: skip
_KINDS = {name: kind for kind, names in _COLUMNS.items() for name in names}
_SEVERAL = ("labels", "classes", "categories", "actions", "targets", "tags")
_SEPARATORS = ("\t", ";", ",", "|", " ")
UNDERSTOOD = (
    "path (file, video, clip, filename ...) or id; label (class, category, action, target, label_id ...) or "
    "labels; split; group; start and end in seconds; num_frames; fps"
)


@dataclass(frozen=True)
class Header:
    """The first line of a table: its separator and the names of its columns."""

    separator: str
    names: tuple[str, ...]


def find_header(lines: Sequence[str], base: Path) -> Header | None:
    """The header of a list, None if its first line is an entry.

    A header has the names of two columns that are understood; or words alone, no file, where the second line
    names a video.
    """
    for separator in _SEPARATORS:
        names = _cells(lines[0], separator)
        if len(names) > 1 and sum(_key(name) in _KINDS for name in names) >= 2:
            return Header(separator, tuple(names))
    for separator in _SEPARATORS[:-1]:
        names = _cells(lines[0], separator)
        second = _cells(lines[1], separator) if len(lines) > 1 else []
        words = all(re.fullmatch(r"[A-Za-z][\w .()-]*", name) and not is_video_name(name) for name in names)
        if not 1 < len(names) == len(second) or not words or not any(map(is_video_name, second)):
            continue
        if not any((base / name).exists() for name in names):
            return Header(separator, tuple(names))
    return None


def read_table(path: Path, text: str, base: Path, header: Header, group: str | None = None) -> list[Entry]:
    """The entries of a list with a header.

    Args:
        group: the column that names the source of each clip; default: one that is known to.

    Raises:
        DataError: no column of files or of labels, two of them, or a row that does not fit.
    """
    rows = [row for row in _rows(path, text, header) if any(cell.strip() for cell in row[1])]
    columns = _find_columns(path, header.names, group, rows[1][1] if len(rows) > 1 else ())
    width = len(header.names)
    found = [
        (where, [cell.strip() for cell in _rejoined(row, columns, width, header.separator)])
        for where, row in rows[1:]
    ]
    for where, cells in found:
        if len(cells) != width:
            names = ", ".join(header.names)
            raise DataError(f"{where}: {len(cells)} columns where the header has {width} ({names})")
    if not found:
        raise DataError(f"{path}: a header and no lines after it")
    _warn_of_unused(path, header.names, columns, [cells for _, cells in found])
    reader = _RowReader(columns, _splits(found, columns), _locate(path, base, columns, header.names))
    return [reader.entry(where, cells) for where, cells in found]


def _rows(path: Path, text: str, header: Header) -> Iterator[tuple[str, list[str]]]:
    rows = csv.reader(io.StringIO(text), delimiter=header.separator, skipinitialspace=True)
    try:
        for row in rows:
            yield f"{path}:{rows.line_num}", row
    except csv.Error as error:
        raise DataError(f"{path}:{rows.line_num}: not a row of a table ({error})") from error


def _cells(line: str, separator: str) -> list[str]:
    return [cell.strip().strip("\"'").strip() for cell in line.split(separator)]


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _find_columns(
    path: Path, names: Sequence[str], group: str | None, first: Sequence[str]
) -> dict[str, int]:
    """The position of each kind of column that the table has.

    Args:
        group: name of the column of groups, if it is given.
        first: the cells of the first row.
    """
    by_kind: dict[str, list[int]] = {}
    grouped = None if group is None else _named(path, names, group)
    for position, name in enumerate(names):
        kind = "group" if position == grouped else _KINDS.get(_key(name), "")
        if kind != "group" or grouped in (None, position):
            by_kind.setdefault(kind, []).append(position)
    files = [each for each in by_kind.get("path", ()) if each < len(first) and is_video_name(first[each])]
    if len(files) == 1:  # the other columns that are called so hold no files
        by_kind["path"] = files
    for kind in ("path", "label", "start", "end", "split"):
        if len(by_kind.get(kind, ())) > 1:
            both = " and ".join(repr(names[position]) for position in by_kind[kind])
            raise DataError(
                f"{path}:1: columns {both} may both be the {kind}; keep one of them, or rename the other"
            )
    columns = {kind: positions[0] for kind, positions in by_kind.items() if kind}
    if len(by_kind.get("id", ())) > 1:
        columns["id"] = min(by_kind["id"], key=lambda column: _COLUMNS["id"].index(_key(names[column])))
    if "name" in columns:  # the file, or beside a file the class
        missing = "path" if not {"path", "id"} & set(columns) else "label"
        columns.setdefault(missing, columns.pop("name"))
    found = f"among {', '.join(names)}"
    if "label" not in columns:
        raise DataError(f"{path}:1: no column of labels {found}; name one 'label'. Understood: {UNDERSTOOD}")
    if not {"path", "id"} & set(columns):
        raise DataError(f"{path}:1: no column of files {found}; name one 'path'. Understood: {UNDERSTOOD}")
    if "path" in columns:
        columns.pop("id", None)
    if {"first frame", "last frame"} & set(columns) and not {"start", "end"} & set(columns):
        raise DataError(
            f"{path}:1: segments are given in seconds, in columns 'start' and 'end', {found}; frame numbers "
            "divided by the frame rate are seconds"
        )
    if "start" not in columns and "end" not in columns:
        columns.pop("duration", None)
    columns["several"] = int(_key(names[columns["label"]]) in _SEVERAL)
    return columns


def _named(path: Path, names: Sequence[str], group: str) -> int:
    """The position of a column by its name."""
    found = [position for position, name in enumerate(names) if name == group]
    found = found or [position for position, name in enumerate(names) if _key(name) == _key(group)]
    if not found:
        raise DataError(f"{path}:1: no column {group!r} (group) among {', '.join(names)}")
    return found[0]


def _warn_of_unused(
    path: Path, names: Sequence[str], columns: dict[str, int], rows: Sequence[Sequence[str]]
) -> None:
    """Name the columns that are not used, and those of them that look like the source of the clips."""
    used = {
        position for kind, position in columns.items() if kind not in ("several", "first frame", "last frame")
    }
    unused = {name: position for position, name in enumerate(names) if position not in used and name}
    if not unused:
        return
    plural = len(unused) > 1
    text = f"{path}: column{'s' * plural} {first_few(list(unused))} {'are' if plural else 'is'} not used"
    sources = {
        name: len({row[position] for row in rows})
        for name, position in unused.items()
        if _key(name) in _SOURCES and "group" not in columns
    }
    offered = next((name for name, count in sources.items() if 1 < count < len(rows)), None)
    if offered is not None:
        text += (
            f"; {offered!r} looks like the source of the clips ({sources[offered]} different in {len(rows)} "
            f"clips): --group {offered} keeps the clips of one source out of each other's test"
        )
    warn_once(text)


def _rejoined(row: list[str], columns: dict[str, int], width: int, separator: str) -> list[str]:
    """A row whose last cell is a list with the separator of the columns in it, as ``[1,3]``."""
    last = separator.join(row[width - 1 :]).strip()
    if len(row) > width and columns["label"] == width - 1 and re.fullmatch(r"\[.*\]", last):
        return [*row[: width - 1], last]
    return row


def _splits(rows: Iterable[tuple[str, list[str]]], columns: dict[str, int]) -> dict[str, str]:
    """The split that each word of the column stands for."""
    if "split" not in columns:
        return {}
    words = {cells[columns["split"]]: where for where, cells in reversed(list(rows))}
    found = splits_of(words)
    unknown = next((word for word in reversed(words) if word not in found), None)
    if unknown is not None:
        raise DataError(f"{words[unknown]}: split {unknown!r} is unknown; write train, val or test")
    return found


@dataclass(frozen=True)
class _RowReader:
    columns: dict[str, int]
    splits: dict[str, str]
    locate: Callable[[list[str]], tuple[str, bool]]

    def entry(self, where: str, cells: list[str]) -> Entry:
        path, is_cut = self.locate(cells)
        several = bool(self.columns["several"])
        labels = split_labels(cells[self.columns["label"]], where, several=several)
        if not labels and not several:
            raise DataError(f"{where}: no label")
        start, end = (None, None) if is_cut else self._span(cells, where)
        return Entry(
            path,
            labels[0] if len(labels) == 1 else "",
            where,
            self.splits[cells[self.columns["split"]]] if self.splits else None,
            self._cell(cells, "group") or None,
            num_frames=self._number(cells, "frames", where, int) if not is_video_name(path) else None,
            fps=self._number(cells, "fps", where, float) if not is_video_name(path) else None,
            labels=labels if several or len(labels) > 1 else None,
            start=start,
            end=end,
        )

    def _cell(self, cells: list[str], kind: str) -> str:
        return cells[self.columns[kind]] if kind in self.columns else ""

    def _number(self, cells: list[str], kind: str, where: str, number: type[int] | type[float]) -> Any:
        text = self._cell(cells, kind)
        if not text:
            return None
        try:
            value = number(float(text))
        except (ValueError, OverflowError):
            value = 0
        if not value > 0:
            raise DataError(f"{where}: {kind} {shorten(text)!r} is not a number above 0")
        return value

    def _span(self, cells: list[str], where: str) -> tuple[float | None, float | None]:
        """Start and end in seconds; None: that of the video."""
        start, end, duration = (
            seconds(self._cell(cells, kind), kind, where) for kind in ("start", "end", "duration")
        )
        if end is None and start is not None and duration is not None:
            end = start + duration
        check_span(start, end, where)
        return start, end


def check_span(start: float | None, end: float | None, where: str) -> None:
    """Raise DataError unless a segment from ``start`` to ``end`` seconds has a length."""
    if end is not None and end <= (start or 0.0):
        raise DataError(f"{where}: the segment ends at {end:g} s, not after its start at {start or 0:g} s")


def seconds(text: str, kind: str, where: str) -> float | None:
    """Seconds written as a number or as ``[hours:]minutes:seconds``; None for an empty cell.

    Raises:
        DataError: anything else, or below 0.
    """
    if not text:
        return None
    parts = text.split(":")
    try:
        values = [float(part) for part in parts]
    except ValueError:
        values = []
    if not 1 <= len(values) <= 3 or not all(0 <= value < 1e9 for value in values):
        raise DataError(f"{where}: {kind} {shorten(text)!r} is not a time; write seconds or minutes:seconds")
    return float(sum(value * 60**power for power, value in enumerate(reversed(values))))


def split_labels(cell: str, where: str, *, several: bool = False) -> tuple[str, ...]:
    """The labels in a cell: a list in the form of JSON, or separated by ``|``; numbers, and with ``several``
    names, also by ``;`` or commas.

    Raises:
        DataError: a list that is not closed, or that holds other things than numbers and names.
    """
    if cell.startswith("["):
        return _json_labels(cell, where)
    marks = r"[|;,]" if several or re.fullmatch(r"\s*\d+(\s*[|;,]\s*\d+)+\s*", cell) else r"[|]"
    return tuple(dict.fromkeys(part for part in map(str.strip, re.split(marks, cell)) if part))


def _json_labels(cell: str, where: str) -> tuple[str, ...]:
    try:
        values = json.loads(cell)
    except json.JSONDecodeError:
        try:
            values = ast.literal_eval(cell)  # as Python writes a list of names
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            values = None
    if not isinstance(values, list) or not all(isinstance(each, str | int) for each in values):
        raise DataError(f"{where}: labels {shorten(cell)!r} are not a list of numbers or names, as [1, 3]")
    return tuple(dict.fromkeys(str(each) for each in values))


# --- finding the file of a row -----------------------------------------------------------------------------


def _locate(
    path: Path, base: Path, columns: dict[str, int], names: Sequence[str]
) -> Callable[[list[str]], tuple[str, bool]]:
    """A function that gives the file of a row, and whether the file is the segment alone."""
    if "path" in columns:
        return lambda cells: (_joined(path, base, cells[columns["path"]]), False)
    return _finder(base, columns, is_kinetics=_key(names[columns["id"]]) == "youtubeid")


def _joined(path: Path, base: Path, cell: str) -> str:
    if not cell:
        raise DataError(f"{path}: a row without a file")
    return os.path.join(base, cell)


def _finder(
    base: Path, columns: dict[str, int], *, is_kinetics: bool
) -> Callable[[list[str]], tuple[str, bool]]:
    """Finds the file of a row, see `SegmentFiles`."""
    files = SegmentFiles(base, is_kinetics=is_kinetics)

    def locate(cells: list[str]) -> tuple[str, bool]:
        span = (cells[columns["start"]], cells[columns["end"]]) if {"start", "end"} <= set(columns) else None
        return files.find(cells[columns["id"]], span)

    return locate


class SegmentFiles:
    """Files anywhere under ``base`` by their id, or by the name that the usual scripts give a segment that
    they cut out: ``<id>_<start>_<end>``. A file of Kinetics is always the segment alone.
    """

    def __init__(self, base: Path, *, is_kinetics: bool) -> None:
        self.base = base
        self.is_kinetics = is_kinetics
        self._files: dict[str, str] = {}
        for folder, _, found in os.walk(base):
            for name in found:
                if is_video_name(name) and not is_hidden(name):
                    self._files[os.path.splitext(name)[0]] = os.path.join(folder, name)

    def find(self, video: str, span: tuple[Any, Any] | None) -> tuple[str, bool]:
        """The file of a video from ``span`` (start and end in seconds), and whether it is the segment alone.
        One that is not found gets the name that it should have.
        """
        cut = None
        if span is not None:
            try:
                first, last = int(float(span[0])), int(float(span[1]))
                cut = f"{video}_{first:06d}_{last:06d}"
            except (ValueError, OverflowError):
                pass  # no times for this one: its id alone
        if cut in self._files:
            return self._files[cut], True
        if video in self._files:
            return self._files[video], self.is_kinetics
        if is_video_name(video) or (self.base / video).exists():
            return os.path.join(self.base, video), self.is_kinetics
        return os.path.join(self.base, f"{(self.is_kinetics and cut) or video}.mp4"), self.is_kinetics
