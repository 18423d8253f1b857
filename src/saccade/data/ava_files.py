"""The files of AVA (Gu et al., CVPR 2018, arXiv 1705.08421) as they are published, row by row.

    boxes       ava_train_v2.2.csv: ``video_id,second,x1,y1,x2,y2,action_id[,person_id]``; one row for each
                action of each person. Coordinates are fractions of the frame's width and height.
    detections  the same with a score instead of the person, and an empty action where none is known. Also the
                format in which results are submitted.
    actions     ava_action_list_v2.2_for_activitynet_2019.pbtxt: the actions that count, by number
    exclusions  ava_val_excluded_timestamps_v2.2.csv: ``video_id,second``
    frames      frame_lists/val.csv of PySlowFast: ``original_vido_id video_id frame_id path labels``

Only the last has a header. A malformed row is an error that names file and line.
"""

from __future__ import annotations

import csv
import math
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from saccade.data.classnames import class_ids
from saccade.data.entries import read_text
from saccade.data.types import Box, Moment
from saccade.errors import DataError
from saccade.files import atomic_path

NUM_ACTIONS = 80
"""Action numbers count from 1 to this; a model has a column for each, of number - 1."""

_FORM = "video_id,second,x1,y1,x2,y2,action_id"
_ROUNDING = 0.005  # a coordinate may be written this far outside of 0..1


@dataclass(frozen=True)
class BoxRow:
    """One row of a file of boxes. ``action`` is None where the row names none; ``score`` is 1 for a person
    who was annotated.
    """

    video: str
    second: int
    box: Box
    action: int | None
    score: float = 1.0

    @property
    def moment(self) -> Moment:
        """The video and the second."""
        return self.video, self.second


def read_boxes(path: str | os.PathLike[str], *, scored: bool) -> list[BoxRow]:
    """The rows of a file of annotated (or, ``scored``, of detected) boxes, in their order.

    Raises:
        DataError: the file cannot be read, or a row is malformed; names the row.
    """
    return [_box_row(cells, where, scored) for cells, where in _rows(path)]


def read_people(path: str | os.PathLike[str]) -> list[BoxRow]:
    """The rows of a file that states where people are: ``video_id,second,
    x1,y1,x2,y2``, annotated boxes, or detected ones. ``action`` is None; ``score`` is that of a detection
    that names no action, else 1.

    Raises:
        DataError: the file cannot be read, or a row is malformed; names the row.
    """
    rows = []
    for cells, where in _rows(path):
        if len(cells) not in (6, 7, 8):
            raise DataError(
                f"{where}: {len(cells)} cells; a row is video_id,second,x1,y1,x2,y2[,action_id[,person_id or "
                "score]]"
            )
        detected = len(cells) == 8 and cells[6] in ("", "-1")
        score = _score(cells[7], where) if detected else 1.0
        rows.append(BoxRow(cells[0], _second(cells[1], where), _box(cells, where), None, score))
    return rows


def _box_row(cells: list[str], where: str, scored: bool) -> BoxRow:
    wanted = (8,) if scored else (7, 8)
    if len(cells) not in wanted:
        last = ",score" if scored else "[,person_id]"
        raise DataError(f"{where}: {len(cells)} cells; a row is {_FORM}{last}")
    box, action = _box(cells, where), _action(cells[6], where, optional=scored)
    return BoxRow(cells[0], _second(cells[1], where), box, action, _score(cells[7], where) if scored else 1.0)


def _box(cells: list[str], where: str) -> Box:
    try:
        x1, y1, x2, y2 = (float(cell) for cell in cells[2:6])
    except ValueError:
        raise DataError(f"{where}: the box {','.join(cells[2:6])} is not four numbers x1,y1,x2,y2") from None
    values = (x1, y1, x2, y2)
    if not all(-_ROUNDING <= value <= 1 + _ROUNDING for value in values):
        raise DataError(f"{where}: the box {','.join(cells[2:6])} has coordinates outside of 0..1")
    if x2 < x1 or y2 < y1:
        raise DataError(f"{where}: the box {','.join(cells[2:6])} ends before it starts; it is x1,y1,x2,y2")
    return min(max(x1, 0.0), 1.0), min(max(y1, 0.0), 1.0), min(max(x2, 0.0), 1.0), min(max(y2, 0.0), 1.0)


def _action(text: str, where: str, *, optional: bool) -> int | None:
    if optional and text.strip() in ("", "-1"):
        return None
    if not text.isdecimal() or not 1 <= int(text) <= NUM_ACTIONS:
        raise DataError(f"{where}: the action {text!r} is not a number from 1 to {NUM_ACTIONS}")
    return int(text)


def _score(text: str, where: str) -> float:
    try:
        score = float(text)
    except ValueError:
        score = math.nan
    if not math.isfinite(score):
        raise DataError(f"{where}: the score {text!r} is not a number")
    return score


def _second(text: str, where: str) -> int:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value) or value != int(value) or value < 0:
        raise DataError(f"{where}: the time {text!r} is not a whole number of seconds, such as 0902")
    return int(value)


def read_exclusions(path: str | os.PathLike[str]) -> frozenset[Moment]:
    """The keyframes that an evaluation does not count.

    Raises:
        DataError: the file cannot be read, or a row is not ``video_id,second``.
    """
    found = set()
    for cells, where in _rows(path):
        if len(cells) != 2:
            raise DataError(f"{where}: {len(cells)} cells; a row is video_id,second")
        found.add((cells[0], _second(cells[1], where)))
    return frozenset(found)


def read_actions(path: str | os.PathLike[str]) -> dict[int, str]:
    """The actions of a pbtxt file, number -> name.

    Raises:
        DataError: the file cannot be read, or an item has no name or number.
    """
    text = re.sub(r"#.*", "", read_text(path))
    actions: dict[int, str] = {}
    for match in re.finditer(r"\b(?:item|label)\s*\{(.*?)\}", text, re.DOTALL):
        where = f"{path}:{text.count(chr(10), 0, match.start()) + 1}"
        name = re.search(r'\bname:\s*"([^"]*)"', match[1])
        number = re.search(r"\b(?:id|label_id):\s*(\d+)", match[1])
        if name is None or number is None:
            raise DataError(f'{where}: an item needs name: "..." and id: N')
        if not 1 <= int(number[1]) <= NUM_ACTIONS:
            raise DataError(f"{where}: id {number[1]} is not a number from 1 to {NUM_ACTIONS}")
        actions[int(number[1])] = name[1]
    if not actions:
        raise DataError(f'{path}: no actions; they are written as item {{ name: "..." id: N }}')
    return actions


def evaluated_actions() -> dict[int, str]:
    """The 60 actions of AVA v2.2 that the challenge counts, number -> name, as shipped."""
    return class_ids("ava")


def column_names(actions: dict[int, str]) -> tuple[str, ...]:
    """Names of a model's 80 columns; an action that is not named is called by its number."""
    return tuple(actions.get(number, f"action {number}") for number in range(1, NUM_ACTIONS + 1))


def read_frame_list(path: str | os.PathLike[str]) -> dict[str, list[str]]:
    """Paths of the frames of each video, in order, from a frame list of PySlowFast.

    Raises:
        DataError: the file cannot be read, or a row does not have the five columns of the header.
    """
    frames: dict[str, list[str]] = {}
    lines = read_text(path).splitlines()
    for number, line in enumerate(lines[1:], start=2):
        cells = line.split()
        if not cells:
            continue
        if len(cells) not in (4, 5):
            raise DataError(
                f"{path}:{number}: {len(cells)} cells; a row is "
                "'original_vido_id video_id frame_id path labels'"
            )
        frames.setdefault(cells[0], []).append(cells[3])
    if not frames:
        raise DataError(f"{path}: no frames in this list")
    return frames


def write_detections(path: str | os.PathLike[str], rows: Iterable[BoxRow]) -> None:
    """Write detections as they are submitted: ``video_id,second,x1,y1,x2,y2,action_id,score``."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            box = ",".join(f"{value:.3f}" for value in row.box)
            action = "" if row.action is None else row.action
            file.write(f"{row.video},{row.second:04d},{box},{action},{row.score:.4f}\n")


def _rows(path: str | os.PathLike[str]) -> Iterator[tuple[list[str], str]]:
    """The cells of every line that is not empty, and where it stands."""
    reader = csv.reader(read_text(path).splitlines())
    for cells in reader:
        if cells:
            yield [cell.strip() for cell in cells], f"{os.fspath(path)}:{reader.line_num}"
