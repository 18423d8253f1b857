"""Charades (Sigurdsson et al., ECCV 2016, arXiv 1604.01753): any number of actions a video, with times.

    official    Charades_v1_train.csv and Charades_v1_test.csv, whose column ``actions`` holds
                ``c092 11.90 21.20;c147 0.00 12.60`` (class, start, end in seconds), and beside them
                Charades_v1_classes.txt (``c000 Holding some clothes``, ...)
    one file    charades.json of pytorch-i3d and X3D-Multigrid:
                ``{"001YG": {"subset": "training", "duration": 30.96, "actions": [[146, 0.0, 16.3]]}, ...}``
    frames      frame_lists/train.csv and val.csv of PySlowFast, a line a frame:
                ``001YG 0 12 001YG/001YG-000013.jpg "92,147"``

Any CSV file with columns ``id`` and ``actions`` is read in the same way, whatever its name. The videos are
files (Charades_v1_480/001YG.mp4) or folders of frames at 24 a second (Charades_v1_rgb/001YG/...).

In the published annotations three in ten actions end after the video does and seven of 66,500 end before they
start. The former end with the video; the latter count among the actions of their video, as in the official
script, but at no moment.
"""

from __future__ import annotations

import csv
import io
import logging
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from saccade.data.classnames import class_names as read_class_names
from saccade.data.datasets import register_dataset
from saccade.data.entries import (
    ClassNames,
    Entry,
    Listing,
    Split,
    StrPath,
    files_by_id,
    folder_with_most,
    has_own_list,
    read_json,
    read_text,
    same_but_for_split,
    shorten,
    split_in_name,
    split_of,
)
from saccade.data.types import Action
from saccade.errors import DataError

logger = logging.getLogger(__name__)

FRAME_RATE = 24.0
"""Frames per second of the published folders of frames."""
NUM_CLASSES = 157

_COLUMNS = ("id", "actions")
_FRAME_COLUMNS = ["original_vido_id", "video_id", "frame_id", "path", "labels"]  # PySlowFast's spelling
_FORM = "'cNNN start end', such as 'c092 11.90 21.20'"
_LIST_FOLDERS = ("", "Charades", "charades", "annotations", "data")
_VIDEO_FOLDERS = ("Charades_v1_480", "Charades_v1", "Charades_v1_rgb", "videos", "frames", "rgb")
_CLASS_FILES = ("Charades_v1_classes.txt", "classes.txt")


@dataclass(frozen=True)
class CharadesLists:
    """The lists in a folder: ``files`` by the split in their name, None for a file without one (as
    charades.json, which states the split of each video).
    """

    folder: Path
    files: dict[str | None, Path]


def find_lists(place: Path) -> CharadesLists | None:
    """The lists at ``place``: one of them, their folder, or its parent; None if there are none.

    Raises:
        DataError: two lists are named for one split.
    """
    if place.is_file():
        if not _is_list(place):
            return None
        own = split_in_name(place)
        if own is None:
            return CharadesLists(place.parent, {None: place})
        return CharadesLists(place.parent, {**_siblings(place), own: place})
    for folder in (place / name for name in _LIST_FOLDERS):
        found = _lists_in(folder) if folder.is_dir() else {}
        if found:
            return CharadesLists(folder, found)
    return None


def _is_charades(path: Path) -> bool:
    return not has_own_list(path) and find_lists(path) is not None


@register_dataset("charades", recognises=_is_charades)
def read_charades(
    path: Path, split: Split, *, class_names: ClassNames | None = None, root: StrPath | None = None
) -> Listing:
    """Charades, or videos listed in its formats."""
    lists = find_lists(path)
    if lists is None:
        raise DataError(f"{path}: no lists in the format of Charades")
    names, entries = read_lists(lists, class_names=class_names, root=root)
    return Listing(entries, names)


def _lists_in(folder: Path) -> dict[str | None, Path]:
    """The CSV files of a folder, or its JSON file if there are none."""
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in (".csv", ".json"))
    for suffix in (".csv", ".json"):
        found: dict[str | None, Path] = {}
        for path in files:
            if path.suffix.lower() != suffix or not path.is_file() or not _is_list(path):
                continue
            split = split_in_name(path)
            if split in found:
                what = "the same split" if split is None else split
                raise DataError(
                    f"{folder}: {found[split].name} and {path.name} are both lists of {what}; give one"
                )
            found[split] = path
        if found:
            return found
    return {}


def _is_list(path: Path) -> bool:
    """Whether the file begins as a list of Charades does."""
    try:
        with path.open(encoding="utf-8-sig") as file:
            head = file.read(4096)
    except (OSError, UnicodeDecodeError):
        return False
    if path.suffix.lower() == ".json":
        is_of_videos = re.match(r'\s*\{\s*"[^"]*"\s*:\s*\{', head) is not None and '"subset"' in head
        return is_of_videos and '"annotations"' not in head  # that is Kinetics
    header = head.partition("\n")[0]
    columns = [name.strip().strip('"').lower() for name in header.split(",")]
    return all(name in columns for name in _COLUMNS) or _is_frame_header(header)


def _is_frame_header(line: str) -> bool:
    return line.split() == _FRAME_COLUMNS


def _siblings(path: Path) -> dict[str | None, Path]:
    """Lists beside ``path`` whose names differ from its in the word for the split."""
    alike = (file for file in sorted(path.parent.glob(f"*{path.suffix}")) if same_but_for_split(file, path))
    return {split_in_name(file): file for file in alike if file.is_file() and _is_list(file)}


# --- the lists -------------------------------------------------------------------------------------------


def read_lists(
    lists: CharadesLists,
    *,
    class_names: ClassNames | None,
    root: StrPath | None,
) -> tuple[tuple[str, ...], list[Entry]]:
    """The class names and the entries of every split.

    Args:
        class_names: names in the order of the class numbers; None takes the class file beside the lists, or
            names the classes ``c000``, ``c001``, ... if there is none.
        root: the folder of the videos, or the one above it; None: found near the lists.

    Raises:
        DataError: a row is malformed, a class has no name, a video is listed twice, or the videos are not
            found.
    """
    entries: list[Entry] = []
    for split, path in lists.files.items():
        rows = _rows(path)
        entries += [replace(entry, split=entry.split or split) for entry in rows]
    if not entries:
        raise DataError(f"{next(iter(lists.files.values()))}: no videos in this list")
    _check_once(entries)
    names = _names(lists, entries, class_names)
    _warn_of_backward_actions(lists, entries)
    return names, _with_paths(entries, lists, root)


def _rows(path: Path) -> Iterator[Entry]:
    if path.suffix.lower() == ".json":
        return _json_rows(path)
    text = read_text(path)
    return _frame_rows(path, text) if _is_frame_header(text.partition("\n")[0]) else _csv_rows(path, text)


def _csv_rows(path: Path, text: str) -> Iterator[Entry]:
    reader = csv.reader(io.StringIO(text), strict=True)
    header = [name.strip().lower() for name in next(reader)]
    place = {name: header.index(name) for name in (*_COLUMNS, "length", "subject") if name in header}
    try:
        for row in reader:
            where = f"{path}:{reader.line_num}"
            if not any(cell.strip() for cell in row):
                continue
            if len(row) != len(header):
                raise DataError(
                    f"{where}: {len(row)} columns where the header has {len(header)}; a cell with a comma in "
                    "it needs quotation marks"
                )
            cells = {name: row[column].strip() for name, column in place.items()}
            yield _entry(
                cells["id"],
                [_action(text, where, cells["id"]) for text in cells["actions"].split(";") if text.strip()],
                cells.get("length") or None,
                where,
                group=cells.get("subject") or None,
            )
    except csv.Error as error:
        raise DataError(f"{path}:{reader.line_num}: not a row of a CSV file ({error})") from error


def _action(text: str, where: str, video: str) -> Action:
    match = re.fullmatch(r"\s*c(\d+)\s+(\S+)\s+(\S+)\s*", text)
    if match is None:
        raise DataError(f"{where}: video {video}: the action {text.strip()!r} is not of the form {_FORM}")
    return _checked_action(match[1], match[2], match[3], f"{where}: video {video}: the action {text!r}")


def _frame_rows(path: Path, text: str) -> Iterator[Entry]:
    """The videos of a list of frames. A label's action lasts as long as consecutive frames have the label."""
    frames: dict[str, list[list[int]]] = {}  # labels of each frame
    places: dict[str, str] = {}
    for number, line in enumerate(text.splitlines()[1:], start=2):
        cells = line.split()
        if not cells:
            continue
        where = f"{path}:{number}"
        labels = cells[4].strip("\"'").split(",") if len(cells) == len(_FRAME_COLUMNS) else ["?"]
        if not all(label.isdecimal() for label in labels if label):
            raise DataError(
                f"{where}: {shorten(line)!r} is not '{' '.join(_FRAME_COLUMNS)}', such as "
                "'001YG 0 12 001YG/001YG-000013.jpg \"92,147\"'"
            )
        video = os.path.basename(os.path.dirname(cells[3])) or cells[0]
        places.setdefault(video, where)
        listed = frames.setdefault(video, [])
        if cells[2] != str(len(listed)):
            raise DataError(f"{where}: frame {cells[2]} of video {video} follows {len(listed)} frames")
        listed.append([int(label) for label in labels if label])
    for video, of_frames in frames.items():
        duration = len(of_frames) / FRAME_RATE
        entry = _entry(video, _actions_of_frames(of_frames), duration, places[video])
        yield replace(entry, num_frames=len(of_frames))


def _actions_of_frames(labels: list[list[int]]) -> list[Action]:
    """The runs of frames with a label, from half a frame before the first to half a frame after the last."""
    actions: list[Action] = []
    starts: dict[int, int] = {}
    for frame, present in enumerate([*labels, []]):
        for label in [label for label in starts if label not in present]:
            start = max(0.0, starts.pop(label) - 0.5)
            actions.append(Action(label, start / FRAME_RATE, (frame - 0.5) / FRAME_RATE))
        for label in present:
            starts.setdefault(label, frame)
    return sorted(actions, key=lambda action: (action.start, action.label))


def _json_rows(path: Path) -> Iterator[Entry]:
    for video, row in read_json(path).items():
        where = f"{path}: {video}"
        if not isinstance(row, dict) or not isinstance(row.get("actions"), list):
            raise DataError(
                f'{where}: not of the form {{"subset": "training", "duration": 30.96, '
                '"actions": [[146, 0.0, 16.3]]}'
            )
        split = split_of(str(row.get("subset", "")))
        if split is None:
            raise DataError(
                f"{where}: subset {row.get('subset')!r} is unknown; it is training, validation or testing"
            )
        actions = []
        for action in row["actions"]:
            if not isinstance(action, list) or len(action) != 3:
                raise DataError(f"{where}: the action {action!r} is not of the form [class, start, end]")
            label, start, end = action
            actions.append(_checked_action(label, start, end, f"{where}: the action {action!r}"))
        yield _entry(video, actions, row.get("duration"), where, split=split)


def _checked_action(label: Any, start: Any, end: Any, what: str) -> Action:
    try:
        number, first, last = int(label), float(start), float(end)
        sound = number == float(label) and math.isfinite(first) and math.isfinite(last)
    except (TypeError, ValueError):
        sound = False
    if not sound:
        raise DataError(f"{what} has no class number, or no times in seconds")
    if number < 0 or first < 0:
        raise DataError(f"{what}: classes and times count from 0")
    return Action(number, first, last)


def _entry(
    video: str,
    actions: list[Action],
    length: Any,
    where: str,
    *,
    split: str | None = None,
    group: str | None = None,
) -> Entry:
    if not video or os.path.basename(video) != video:
        raise DataError(f"{where}: {video!r} is not the id of a video, such as '001YG'")
    duration = None
    if length is not None:
        try:
            duration = float(length)
        except (TypeError, ValueError):
            duration = math.nan
        if not 0 < duration < math.inf:
            raise DataError(f"{where}: video {video}: the length {length!r} is not a number of seconds")
    return Entry(
        video, "", where, split, group=group, fps=FRAME_RATE, actions=tuple(actions), duration=duration
    )


def _check_once(entries: list[Entry]) -> None:
    seen: dict[str, Entry] = {}
    for entry in entries:
        other = seen.setdefault(entry.path, entry)
        if other is not entry:
            raise DataError(
                f"{entry.where}: video {entry.path} is listed at {other.where} already; keep one row"
            )


def _names(
    lists: CharadesLists,
    entries: list[Entry],
    given: ClassNames | None,
) -> tuple[str, ...]:
    highest, where = max(
        ((action.label, entry.where) for entry in entries for action in entry.actions or ()),
        default=(0, ""),
        key=lambda found: found[0],
    )
    source: Any = given if given is not None else _class_file(lists.folder)
    if source is not None:
        names = read_class_names(source)
        if highest >= len(names):
            shown = source if isinstance(source, (str, os.PathLike)) else "class_names"
            raise DataError(
                f"{where}: class c{highest:03d}, but {shown} names {len(names)} classes from c000 on"
            )
        return names
    published = any(path.name.lower().startswith("charades") for path in lists.files.values())
    count = NUM_CLASSES if published and highest < NUM_CLASSES else highest + 1
    return tuple(f"c{number:03d}" for number in range(count))


def _class_file(folder: Path) -> Path | None:
    return next((folder / name for name in _CLASS_FILES if (folder / name).is_file()), None)


def _warn_of_backward_actions(lists: CharadesLists, entries: list[Entry]) -> None:
    backward = [entry for entry in entries for action in entry.actions or () if action.end < action.start]
    if backward:
        logger.warning(
            f"{lists.folder}: {len(backward)} actions end before they start, the first of video "
            f"{backward[0].path} ({backward[0].where}); they count for the video, at no moment"
        )


# --- the videos ------------------------------------------------------------------------------------------


def _with_paths(entries: list[Entry], lists: CharadesLists, root: StrPath | None) -> list[Entry]:
    """The entries with paths instead of ids."""
    bases = [Path(root)] if root is not None else [lists.folder, lists.folder.parent]
    folders = [folder for base in bases for name in (*_VIDEO_FOLDERS, "") if (folder := base / name).is_dir()]
    home = folder_with_most(folders, [entry.path for entry in entries])
    if home is None:
        first, tried = entries[0], ", ".join(map(str, folders))
        hint = (
            "give the folder of the videos with --root"
            if root is None
            else "--root must be the folder of the videos or its parent"
        )
        raise DataError(
            f"{first.where}: no videos found: no {first.path}.mp4 and no folder {first.path} "
            f"of frames in {tried}; {hint}"
        )
    files = files_by_id(home, preferred=".mp4")
    return [
        replace(entry, path=os.path.join(home, files.get(entry.path) or f"{entry.path}.mp4"))
        for entry in entries
    ]
