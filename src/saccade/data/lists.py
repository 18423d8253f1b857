"""List files: ``path label`` in the forms in use, tables with a header, Kinetics tables as downloaded."""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from saccade.data.datasets import register_dataset
from saccade.data.entries import (
    ClassNames,
    Entry,
    Listing,
    Split,
    StrPath,
    has_own_list,
    read_text,
    same_but_for_split,
    shorten,
    split_in_name,
    split_of,
)
from saccade.data.folders import has_videos, is_video_name, split_folders
from saccade.errors import DataError
from saccade.video.folders import VIDEO_SUFFIXES

LIST_SUFFIXES = (".csv", ".txt", ".tsv", ".lst", ".list")

_PATH_COLUMNS = (
    *("path", "file", "filename", "file_name", "filepath"),
    *("video", "video_path", "video_name", "clip"),
)
_ID_COLUMNS = ("youtube_id", "video_id", "id")
_LABEL_COLUMNS = ("label", "class", "class_name", "label_name", "category", "action", "target")
_GROUP_COLUMNS = ("group", "source", "group_id")
_SPLIT_COLUMNS = ("split", "subset", "set", "partition")

_SUFFIXES = "|".join(sorted(suffix[1:] for suffix in VIDEO_SUFFIXES))
_QUOTED = re.compile(r"""(["'])(?P<path>.+?)\1\s*[,;\t ]\s*(?P<label>.+)""")
_VIDEO = re.compile(rf"(?P<path>.+?\.(?:{_SUFFIXES}))(?:\s*[,;\t]\s*|\s+)(?P<label>.+)", re.IGNORECASE)
_FRAMES = re.compile(r"(?P<path>.+?)[\s,;]+(?P<num_frames>\d+)[\s,;]+(?P<label>\d+)")
_UCF_LIST = re.compile(r"(?:train|test)list\d+")


def read_list(path: str | os.PathLike[str], *, root: StrPath | None = None) -> list[Entry]:
    """The entries of a list file.

    Without a header each line is a path, a separator (tab, semicolon, comma or spaces) and a label, which is
    a number or a name. A path may hold spaces when it ends in a video suffix or is quoted; otherwise the last
    separator counts. With a header the columns are found by name: path, label, and where there are any group
    and split. A Kinetics table (label, youtube_id, time_start, time_end, split) finds its files under the
    root by ``<id>_<start>_<end>`` or ``<id>``.

    Lines of three, folder, number of frames and label, are a list of frame folders (TSM, RubiksNet).

    Args:
        path: the list file.
        root: folder that relative paths start from; None takes the list's own.

    Raises:
        DataError: the file cannot be read or a line makes no sense; the message has its number.
    """
    place = Path(path)
    base = Path(root) if root is not None else place.parent
    text = read_text(place)
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1)]
    lines = [(number, line) for number, line in lines if line]
    if not lines:
        raise DataError(f"{place}: empty; expected lines of 'path label'")
    header = _header(lines[0][1])
    if header is not None:
        return _read_table(place, text, base, *header)
    if _UCF_LIST.fullmatch(place.stem):
        return [_ucf_entry(place, number, line, base) for number, line in lines]
    if _is_frame_list([line for _, line in lines], base):
        return [_frames_entry(place, number, line, base) for number, line in lines]
    separator = _separator([line for _, line in lines])
    return [_plain_entry(place, number, line, base, separator) for number, line in lines]


def _is_listed(path: Path) -> bool:
    if path.is_file() or has_own_list(path):
        return True
    return not any(has_videos(folder) for folder in split_folders(path).values()) and bool(_split_lists(path))


@register_dataset("lists", recognises=_is_listed)
def read_lists(
    path: Path, split: Split, *, class_names: ClassNames | None = None, root: StrPath | None = None
) -> Listing:
    """A list file with those of the other splits beside it, ``clips.csv`` in a folder, or the lists in a
    folder that are named for the splits.
    """
    if path.is_file():
        return Listing(_read_list_and_siblings(path, split, root))
    if has_own_list(path):
        return Listing(read_list(path / "clips.csv", root=root))
    return Listing(_read_splits(_split_lists(path), root))


def _read_list_and_siblings(place: Path, split: Split, root: StrPath | None) -> list[Entry]:
    own = split_in_name(place)
    if own is None:
        return read_list(place, root=root)
    lists = _split_lists(place.parent, like=place)
    if own != "train" and split in ("val", "test"):
        own = split  # the file that was named is the one to evaluate on, whatever the split is called
    return _read_splits({**lists, own: place}, root)


def _read_splits(lists: dict[str, Path], root: StrPath | None) -> list[Entry]:
    return [
        replace(entry, split=entry.split or name)
        for name, path in sorted(lists.items())
        for entry in read_list(path, root=root)
    ]


def _split_lists(folder: Path, *, like: Path | None = None) -> dict[str, Path]:
    """List files in ``folder`` named for a split; with ``like``, those that differ from it in that word."""
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        split = split_in_name(path) if path.suffix.lower() in LIST_SUFFIXES and path.is_file() else None
        if split is None:
            continue
        if like is not None and not same_but_for_split(path, like):
            continue
        if like is None and split in found:
            raise DataError(
                f"{folder}: {found[split].name} and {path.name} are both named for {split}; give one of them"
            )
        found.setdefault(split, path)
    return found


def _header(line: str) -> tuple[str, list[str]] | None:
    """The separator and the column names, None if the line is not a header."""
    known = {*_PATH_COLUMNS, *_ID_COLUMNS, *_LABEL_COLUMNS, *_GROUP_COLUMNS, *_SPLIT_COLUMNS}
    for separator in "\t", ";", ",", " ":
        names = [name.strip().strip("\"'").lower() for name in line.split(separator)]
        if len(names) > 1 and sum(name in known for name in names) >= 2:
            return separator, names
    return None


def _read_table(place: Path, text: str, base: Path, separator: str, names: list[str]) -> list[Entry]:
    label = _column(names, _LABEL_COLUMNS)
    path, video_id = _column(names, _PATH_COLUMNS), _column(names, _ID_COLUMNS)
    if label is None:
        raise DataError(f"{place}:1: no column of labels among {', '.join(names)}; name one 'label'")
    if path is None and video_id is None:
        raise DataError(f"{place}:1: no column of files among {', '.join(names)}; name one 'path'")
    group, split = _column(names, _GROUP_COLUMNS), _column(names, _SPLIT_COLUMNS)
    locate = _joiner(base, path) if path is not None else _kinetics_finder(base, names, video_id or 0)
    rows = csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True)
    next(rows)
    entries = []
    for row in rows:
        where = f"{place}:{rows.line_num}"
        if not any(cell.strip() for cell in row):
            continue
        if len(row) != len(names):
            raise DataError(
                f"{where}: {len(row)} columns where the header has {len(names)} ({', '.join(names)})"
            )
        cells = [cell.strip() for cell in row]
        if not cells[label]:
            raise DataError(f"{where}: no label")
        entries.append(
            Entry(
                locate(cells),
                cells[label],
                where,
                None if split is None else _known_split(cells[split], where),
                cells[group] if group is not None and cells[group] else None,
            )
        )
    if not entries:
        raise DataError(f"{place}: a header and no lines after it")
    return entries


def _column(names: list[str], wanted: Sequence[str]) -> int | None:
    return next((names.index(name) for name in wanted if name in names), None)


def _known_split(word: str, where: str) -> str:
    split = split_of(word)
    if split is None:
        raise DataError(f"{where}: split {word!r} is unknown; write train, val or test")
    return split


def _joiner(base: Path, column: int) -> Callable[[list[str]], str]:
    return lambda cells: os.path.join(base, cells[column])


def _kinetics_finder(base: Path, names: list[str], video_id: int) -> Callable[[list[str]], str]:
    """Finds downloaded files anywhere under ``base`` by the name the usual download scripts give them."""
    start, end = _column(names, ("time_start",)), _column(names, ("time_end",))
    files: dict[str, str] = {}
    for folder, _, found in os.walk(base):
        files.update(
            {os.path.splitext(name)[0]: os.path.join(folder, name) for name in found if is_video_name(name)}
        )

    def locate(cells: list[str]) -> str:
        stems = [cells[video_id]]
        if start is not None and end is not None:
            try:
                first, last = int(float(cells[start])), int(float(cells[end]))
                stems.insert(0, f"{cells[video_id]}_{first:06d}_{last:06d}")
            except ValueError:
                pass  # no times for this one: its id alone
        return next((files[stem] for stem in stems if stem in files), os.path.join(base, f"{stems[0]}.mp4"))

    return locate


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


def _frames_entry(place: Path, number: int, line: str, base: Path) -> Entry:
    where = f"{place}:{number}"
    match = _FRAMES.fullmatch(line)
    if match is None or int(match["num_frames"]) < 1:
        raise DataError(
            f"{where}: {shorten(line)!r} is not 'folder, number of frames, label', as the other lines are"
        )
    path = os.path.join(base, _bare(match["path"]))
    return Entry(path, match["label"], where, num_frames=int(match["num_frames"]))


def _plain_entry(place: Path, number: int, line: str, base: Path, separator: str | None) -> Entry:
    where = f"{place}:{number}"
    match = _QUOTED.fullmatch(line) or _VIDEO.fullmatch(line)
    if match is not None:
        path, label = match["path"], match["label"]
    else:
        path, _, label = (
            line.rpartition(separator)
            if separator
            else (line.rpartition(" ") if " " in line else ("", "", line))
        )
        if not path.strip() or not label.strip() or is_video_name(line):
            raise DataError(f"{where}: no label in {shorten(line)!r}; expected 'path label'")
    return Entry(os.path.join(base, _bare(path)), _bare(label), where)


def _ucf_entry(place: Path, number: int, line: str, base: Path) -> Entry:
    """UCF-101's own lists: the class is the folder; test lists have no label, train lists count from 1."""
    path = line.split(" ")[0]
    if not os.path.dirname(path):
        raise DataError(
            f"{place}:{number}: {shorten(line)!r} names no class folder; expected 'Class/clip.avi'"
        )
    return Entry(os.path.join(base, path), os.path.basename(os.path.dirname(path)), f"{place}:{number}")


def _bare(cell: str) -> str:
    cell = cell.strip()
    return cell[1:-1] if len(cell) > 1 and cell[0] == cell[-1] and cell[0] in "\"'" else cell
