"""What the readers of data sets share: entries, words for splits, holding out, finding videos by id."""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from saccade.data.types import Action

Split = Literal["train", "val", "test", "all"]

VIDEO_SUFFIXES = frozenset(
    [
        ".mp4",
        ".avi",
        ".mkv",
        ".webm",
        ".mov",
        ".m4v",
        ".mpg",
        ".mpeg",
        ".wmv",
        ".flv",
        ".3gp",
        ".ts",
        ".mts",
        ".ogv",
        ".vob",
        ".asf",
    ]
)
IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png"))

_SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Entry:
    """A video, what it is called, and where that was read.

    Attributes:
        path: the file, or a folder of frames.
        label: name or number, as written.
        where: ``file:line`` or the folder, for messages.
        split: ``train``, ``val``, ``test``; None where the source does not say.
        group: clips of one group come from one source video and belong in one split.
        num_frames, fps: frames of a folder of frames, and their rate, where the source says them.
        actions: what happens in the video and when, instead of one label; None where there is a label.
        duration: seconds that the source says the video lasts.
    """

    path: str
    label: str
    where: str
    split: str | None = None
    group: str | None = None
    num_frames: int | None = None
    fps: float | None = None
    actions: tuple[Action, ...] | None = None
    duration: float | None = None


def split_of(word: str) -> str | None:
    """``train``, ``val`` or ``test`` for any of the words in use for them, None for another word."""
    return _SPLIT_WORDS.get(word.strip().lower())


# --- holding out -------------------------------------------------------------------------------------------


_SOURCES = (
    re.compile(r"(.+_g\d+)_c\d+"),  # UCF-101: group and clip
    re.compile(r"(.+)_c\d+"),
    re.compile(r"(.{11})_\d{6}_\d{6}"),  # Kinetics: video, start, end
)


def source_group(entry: Entry) -> str:
    """What names the source video of an entry: its group column, else its file name less the clip number."""
    if entry.group is not None:
        return entry.group
    stem = os.path.splitext(os.path.basename(entry.path))[0]
    match = next((match for pattern in _SOURCES if (match := pattern.fullmatch(stem))), None)
    return match[1] if match else entry.path


def hold_out(entries: Sequence[Entry], fraction: float) -> tuple[list[int], list[str]]:
    """Choose about ``fraction`` of each class, whole groups at a time, the same ones every time.

    The choice depends on the names of classes and groups alone, not on the order of the entries or their
    number in other classes. At least one group of each class is chosen and one is left.

    Returns:
        Positions of the entries held out, and the classes that have a single group and so give none.
    """
    by_class: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for position, entry in enumerate(entries):
        by_class[entry.label][_group_key(entry)].append(position)
    side: dict[str, bool] = {}  # a group with clips in two classes goes to one side with all of them
    single = []
    for label, groups in sorted(by_class.items()):
        wanted = max(1.0, fraction * sum(map(len, groups.values())))
        taken = sum(len(groups[group]) for group in groups if side.get(group))
        free = sorted((group for group in groups if group not in side), key=_shuffled)
        left = len(free) + sum(side.get(group) is False for group in groups)
        for group in free:
            chosen = left > 1 and taken + len(groups[group]) / 2 <= wanted and taken < wanted
            chosen = chosen or (left > 1 and not taken)
            side[group] = chosen
            if chosen:
                taken += len(groups[group])
                left -= 1
        if not taken:
            single.append(label)
    return [position for position, entry in enumerate(entries) if side[_group_key(entry)]], single


def _group_key(entry: Entry) -> str:
    """Groups by number are numbered within a class; by name they are the same everywhere."""
    group = source_group(entry)
    return f"{entry.label}/{group}" if group.isdigit() else group


def _shuffled(group: str) -> bytes:
    name = os.path.basename(group)  # the same clips are held out wherever the folder lies
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()


# --- finding videos by id ----------------------------------------------------------------------------------

_TRIED = 20  # videos looked for to find out in which folder they lie
_LIKELY_SUFFIXES = ("", ".webm", ".mp4", ".avi", ".mkv")


def fullest(folders: Sequence[Path], ids: Sequence[str]) -> Path | None:
    """The first of ``folders`` that has the most of some of the videos ``ids``; None if none has any."""
    some = ids[:: max(1, len(ids) // _TRIED)]
    counts = [sum(_holds(folder, video) for video in some) for folder in folders]
    return folders[counts.index(max(counts))] if any(counts) else None


def _holds(folder: Path, video: str) -> bool:
    return any((folder / f"{video}{suffix}").exists() for suffix in _LIKELY_SUFFIXES)


def files_by_id(folder: Path, *, preferred: str) -> dict[str, str]:
    """The name of the video file, or of the folder of frames, of each id in ``folder``.

    ``preferred`` is the suffix that wins where there are several; empty for a folder.
    """
    found: dict[str, str] = {}
    with os.scandir(folder) as scan:
        for entry in scan:
            stem, suffix = os.path.splitext(entry.name)
            is_video = suffix.lower() in VIDEO_SUFFIXES or (not suffix and entry.is_dir())
            if is_video and (stem not in found or suffix == preferred):
                found[stem] = entry.name
    return found
