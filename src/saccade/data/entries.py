"""What the readers of data sets share: entries, words for splits, holding out, finding videos by id."""

from __future__ import annotations

import codecs
import hashlib
import json
import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from saccade.data.classnames import LabelFinder, parse_names
from saccade.data.classnames import class_names as read_class_names
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
    evaluation = [name for name in found if name.strip().lower().startswith("eval")]
    others = {split for name, split in found.items() if name not in evaluation}
    if "val" in others and "test" not in others:
        found.update(dict.fromkeys(evaluation, "test"))
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
        _warn_of_encoding(str(path), error.start)
        return data.decode("cp1252", errors="replace")


@cache
def _warn_of_encoding(path: str, position: int) -> None:
    logger.warning(f"{path}: not UTF-8 (byte {position}); read as Windows-1252")


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


# --- splits and labels -------------------------------------------------------------------------------------


def labelled_entries(
    listing: Listing,
    place: Path,
    split: Split,
    class_names: ClassNames | None,
    val_fraction: float,
) -> tuple[tuple[str, ...], list[Entry]]:
    """The class names and the entries, each with a split, and its label as a number where it has one."""
    entries = _with_splits(listing.entries, place, split, val_fraction)
    if listing.class_names is not None and any(entry.actions is not None for entry in entries):
        return listing.class_names, entries
    return _labelled(entries, place, listing.class_names if class_names is None else class_names)


def _with_splits(entries: list[Entry], place: Path, split: Split, fraction: float) -> list[Entry]:
    """Hold out clips where no split is stated."""
    unsplit = [entry for entry in entries if entry.split is None]
    if unsplit and len(unsplit) < len(entries):
        raise DataError(f"{unsplit[0].where}: no split, where others have one; write train, val or test")
    if {entry.split for entry in entries} - {"train", None}:
        return entries
    held, single = hold_out(entries, fraction)
    if not held and split == "all":
        return [replace(entry, split="train") for entry in entries]
    if not held:
        raise DataError(
            f"{place}: no split, and no class has clips of two sources to hold one out; "
            "add clips, or state the split in clips.csv (path,label,split)"
        )
    _log_hold_out(str(place), len(entries), len(held), tuple(single))
    chosen = set(held)
    return [
        replace(entry, split="val" if position in chosen else "train")
        for position, entry in enumerate(entries)
    ]


@cache
def _log_hold_out(place: str, total: int, held: int, single: tuple[str, ...]) -> None:
    """Once for each data set in a process."""
    logger.info(
        f"{place}: no validation split, so {held} of {total} clips are held out "
        "(of every class, clips of one source together, the same every time)"
    )
    if single:
        logger.warning(f"{place}: all clips of {first_few(single)} come from one source; none is held out")


def _labelled(
    entries: list[Entry], place: Path, given: ClassNames | None
) -> tuple[tuple[str, ...], list[Entry]]:
    """The class names, and the entries with their label as a number."""
    by_number = _from_list(entries) and all(entry.label.isdecimal() for entry in entries)
    if given is None:
        given = _names_beside(place, by_number)
    if given is not None:
        names = read_class_names(given)
    else:
        defining = [entry for entry in entries if entry.split == "train"] or entries
        labels = {entry.label for entry in defining}
        names = tuple(map(str, range(max(map(int, labels)) + 1))) if by_number else tuple(sorted(labels))
        unseen = next((entry for entry in entries if entry.label not in labels), None)
        if unseen is not None and not (by_number and int(unseen.label) < len(names)):
            raise DataError(
                f"{unseen.where}: class {unseen.label!r} is only in the {unseen.split} split; "
                "add training clips of it, or give class_names"
            )
    if by_number:
        wrong = next((entry for entry in entries if int(entry.label) >= len(names)), None)
        if wrong is not None:
            raise DataError(
                f"{wrong.where}: label {wrong.label} is out of range; {len(names)} classes count from 0"
            )
        return names, [replace(entry, label=str(int(entry.label))) for entry in entries]
    return names, _numbered(entries, names)


def _from_list(entries: list[Entry]) -> bool:
    """Whether labels come from a list; the name of a class folder is a name, even one of digits alone."""
    return ":" in os.path.basename(entries[0].where)


def _numbered(entries: list[Entry], names: tuple[str, ...]) -> list[Entry]:
    finder = LabelFinder(names)
    labels: dict[str, int] = {}
    for entry in entries:
        if entry.label in labels:
            continue
        label = finder.find(entry.label)
        if label is None:
            few = names if len(names) <= 8 else [*names[:8], f"... ({len(names)} in all)"]
            raise DataError(f"{entry.where}: no class {entry.label!r}; classes are {', '.join(few)}")
        labels[entry.label] = label
    return [replace(entry, label=str(labels[entry.label])) for entry in entries]


def _names_beside(place: Path, by_number: bool) -> tuple[str, ...] | None:
    """UCF-101's ``classInd.txt`` or, for numbered labels, ``classes.txt`` or TSM's ``category.txt`` next to
    the list.
    """
    folder = place if place.is_dir() else place.parent
    for name in ("classInd.txt", "classes.txt", "category.txt") if by_number else ("classInd.txt",):
        if (folder / name).is_file():
            return tuple(parse_names((folder / name).read_text(encoding="utf-8-sig")).values())
    return None


def select_split(entries: list[Entry], place: Path, split: Split, *, allow_missing: bool) -> list[Entry]:
    """The entries of one split whose files exist.

    Raises:
        DataError: there are none, a file has two labels, or (without ``allow_missing``) files are missing.
    """
    return _existing(_selected(entries, place, split), place, allow_missing)


def _selected(entries: list[Entry], place: Path, split: Split) -> list[Entry]:
    seen: dict[str, Entry] = {}
    selected = [entry for entry in entries if split in (entry.split, "all")]
    if not selected and split == "val":
        selected = [entry for entry in entries if entry.split == "test"]
        if selected:
            _warn_of_test_for_val(str(place))
    if not selected:
        found = ", ".join(sorted({str(entry.split) for entry in entries}))
        raise DataError(f"{place}: no {split} split; there is {found}")
    for entry in selected:
        other = seen.setdefault(entry.path, entry)
        if other.label != entry.label:
            raise DataError(
                f"{entry.where}: {entry.path} has another label at {other.where}; keep one of them"
            )
    return selected


@cache
def _warn_of_test_for_val(place: str) -> None:
    logger.warning(f"{place}: no val split; the test split is used instead")


def _existing(entries: list[Entry], place: Path, allow_missing: bool) -> list[Entry]:
    missing = [entry for entry in entries if not os.path.exists(entry.path)]
    if not missing:
        return entries
    first = missing[0]
    message = f"{len(missing)} of {len(entries)} files are missing, the first is {first.path} ({first.where})"
    if not allow_missing or len(missing) == len(entries):
        raise DataError(
            f"{place}: {message}; correct the list, give the folder its paths start from with --root, or "
            "skip missing files with --allow-missing"
        )
    logger.warning(f"{place}: {message}; skipping them")
    gone = set(missing)
    return [entry for entry in entries if entry not in gone]


# --- holding out -------------------------------------------------------------------------------------------


_SOURCES = (
    re.compile(r"(.+_g\d+)_c\d+"),  # UCF-101: group and clip
    re.compile(r"(.+)_c\d+"),
    re.compile(r"(.{11})_\d{6}_\d{6}"),  # Kinetics: video, start, end
)


def source_group(entry: Entry) -> str:
    """The name of an entry's source video: its group column, else its file name without the clip number."""
    if entry.group is not None:
        return entry.group
    stem = os.path.splitext(os.path.basename(entry.path))[0]
    match = next((match for pattern in _SOURCES if (match := pattern.fullmatch(stem))), None)
    return match[1] if match else entry.path


def hold_out(entries: Sequence[Entry], fraction: float) -> tuple[list[int], list[str]]:
    """Choose about ``fraction`` of each class, in complete groups, the same ones every time.

    The choice depends only on the names of classes and groups, not on the order of the entries or their
    number in other classes. At least one group of each class is chosen and one is not.

    Returns:
        Positions of the entries held out, and the classes with a single group, of which none is.
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
    """Numbered groups are numbered within a class; named groups are the same in all classes."""
    group = source_group(entry)
    return f"{entry.label}/{group}" if group.isdigit() else group


def _shuffled(group: str) -> bytes:
    name = os.path.basename(group)  # the same clips are held out wherever the folder is
    return hashlib.sha256(name.encode("utf-8", "surrogateescape")).digest()


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
