"""What the readers of data sets share: entries, words for splits, reading text, finding videos by id."""

from __future__ import annotations

import codecs
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from saccade.data.types import Action
from saccade.errors import DataError
from saccade.video.folders import is_hidden, is_video_name

logger = logging.getLogger(__name__)

Split = Literal["train", "val", "test", "all"]

_SPLIT_WORDS = {
    **dict.fromkeys(("train", "training", "trn"), "train"),
    **dict.fromkeys(("val", "valid", "validate", "validation", "dev", "devel", "development"), "val"),
    **dict.fromkeys(("eval", "evaluation"), "val"),
    **dict.fromkeys(("test", "testing", "tst"), "test"),
}
SPLIT_NAMES = "training, valid, validation, dev, eval, testing, train_256, val_256 ..."
_DECORATION = r"\d+p?|\d+x\d+|set|split|data|clips?|videos?|frames?|images?|rgb|full|small|mini"
_DECORATED = re.compile(rf"([a-z]+?)[-_. ]?((?:{_DECORATION})(?:[-_. ]?(?:{_DECORATION}))*)")
K = TypeVar("K")
StrPath = str | os.PathLike[str]
ClassNames = StrPath | Sequence[str]
"""A shipped list of class names, a file of them, or the names."""


def has_own_list(path: Path) -> bool:
    """Whether ``path`` is a folder with a ``clips.csv``, which is read whatever else lies in the folder."""
    return (path / "clips.csv").is_file()


@dataclass(frozen=True)
class Entry:
    """A video as a list or folder names it.

    Attributes:
        path: the file, or a folder of frames.
        label: name or number, as written.
        where: ``file:line`` or the folder, for messages.
        split: ``train``, ``val``, ``test``; None where the source states none.
        group: clips of one group come from one source video and belong in one split.
        num_frames, fps: frames of a folder of frames, and their rate, where the source states them.
        actions: what happens in the video and when, instead of one label; None where there is a label.
        duration: length in seconds, where the source states it.
        labels: any number of labels, where the source may state several; None where it states one.
        start, end: the segment of the video that is the clip, in seconds; None: from its first frame, to its
            last.
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
    labels: tuple[str, ...] | None = None
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True)
class Listing:
    """The lists or folders of a data set, all splits together.

    Attributes:
        entries: the videos.
        class_names: in label order; None: the labels of the training split, sorted.
        pairs: classes that differ only in the direction of time.
    """

    entries: list[Entry]
    class_names: tuple[str, ...] | None = None
    pairs: Sequence[tuple[str, str]] = ()


def split_of(word: str) -> str | None:
    """``train``, ``val`` or ``test`` for any of the words in use for them, perhaps with a size or the like
    (``val_256``, ``trainset``); None for another word.
    """
    return without_split(word)[1] if _is_split_name(word) else None


def splits_of(names: Iterable[str]) -> dict[str, str]:
    """The split of each of ``names`` that is named for one. Beside ``dev`` or ``val``, ``eval`` is the test
    split.
    """
    found = {name: split for name in names if (split := split_of(name)) is not None}
    return settled_splits(found, [name for name in found if name.strip().lower().startswith("eval")])


def settled_splits(found: dict[K, str], evaluation: Sequence[K]) -> dict[K, str]:
    """``found``, with those called ``eval`` as the test split where others are ``val`` and none ``test``."""
    others = {split for name, split in found.items() if name not in evaluation}
    if "val" in others and "test" not in others:
        return found | dict.fromkeys(evaluation, "test")
    return found


def _is_split_name(name: str) -> bool:
    word = name.strip().lower()
    if word in _SPLIT_WORDS:
        return True
    match = _DECORATED.fullmatch(word)
    return match is not None and match[1] in _SPLIT_WORDS


def without_split(name: str) -> tuple[str, str | None]:
    """A name without its first word for a split, and that split; None where there is none."""
    parts = re.split(r"([-_. ]|(?<=[a-z])(?=\d)|(?=list|set))", name.strip().lower())
    position = next((i for i, part in enumerate(parts) if part in _SPLIT_WORDS), None)
    if position is None:
        return name, None
    return "".join([*parts[:position], "*", *parts[position + 1 :]]), _SPLIT_WORDS[parts[position]]


def split_in_name(path: Path) -> str | None:
    """The split a list file is named for: ``val.csv``, ``kinetics_val_list.txt``, ``trainlist01.txt``."""
    return without_split(path.stem)[1]


def same_but_for_split(one: Path, other: Path) -> bool:
    """Whether the names of two list files differ at most in the word for the split."""
    return without_split(one.stem)[0] == without_split(other.stem)[0] and one.suffix == other.suffix


def read_text(path: StrPath) -> str:
    """The contents of a list file in UTF-8, in UTF-16 with its byte order mark, or else in Windows' western
    encoding, which is said in a warning. Raises DataError if it cannot be read or is not text.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    try:
        if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
            return data.decode("utf-16")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if data[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) or re.search(rb"[\0-\x08\x0e-\x1f]", data):
            raise DataError(
                f"{path}: not a UTF-8 text file ({error.reason} at byte {error.start})"
            ) from error
        warn_once(f"{path}: not UTF-8 (byte {error.start}); read as Windows-1252")
        return data.decode("cp1252", errors="replace")


def read_json(path: Path) -> Any:
    """The contents of a JSON file. Raises DataError if it cannot be read or is not JSON."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not JSON ({error.msg} at column {error.colno})") from error


def shorten(line: str) -> str:
    """A line for a message, at most 60 characters of it."""
    return line if len(line) <= 60 else line[:57] + "..."


def first_few(names: Sequence[str]) -> str:
    """Up to five names for a message."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


# --- warnings ----------------------------------------------------------------------------------------------

_collectors: list[list[str]] = []


def warn_once(message: str) -> None:
    """A warning, once in a process: every split of a data set is read from the same lists and folders."""
    if _collectors:
        _collectors[-1].append(message)
    else:
        _log_once(message)


@cache
def _log_once(message: str) -> None:
    logger.warning(message)


@contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Collects the messages of `warn_once` instead of logging them."""
    found: list[str] = []
    _collectors.append(found)
    try:
        yield found
    finally:
        _collectors.remove(found)


# --- finding videos by id ----------------------------------------------------------------------------------

_TRIED = 20  # videos looked for to find their folder
_LIKELY_SUFFIXES = ("", ".webm", ".mp4", ".avi", ".mkv")


def folder_with_most(folders: Sequence[Path], ids: Sequence[str]) -> Path | None:
    """The first of ``folders`` that holds the most of a sample of ``ids``; None if none holds any."""
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
            is_video = is_video_name(entry.name) or (not suffix and entry.is_dir() and not is_hidden(stem))
            if is_video and (stem not in found or suffix == preferred):
                found[stem] = entry.name
    return found
