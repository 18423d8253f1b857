"""List files: ``path label`` in the forms in use, tables with a header, Kinetics tables as downloaded."""

from __future__ import annotations

import os
import re
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
    settled_splits,
    shorten,
    split_in_name,
    warn_once,
)
from saccade.data.folders import has_videos, split_folders
from saccade.data.list_lines import read_lines
from saccade.data.list_tables import find_header, read_table
from saccade.errors import DataError
from saccade.video.folders import is_hidden, is_video_name

LIST_SUFFIXES = (".csv", ".txt", ".tsv", ".lst", ".list")

_MMACTION_LIST = re.compile(r".+_list_(videos|rawframes)")  # kinetics400_train_list_videos.txt
_UCF_LIST = re.compile(r"(?:train|test)list\d+")


def read_list(
    path: str | os.PathLike[str], *, root: StrPath | None = None, group: str | None = None
) -> list[Entry]:
    """The entries of a list file.

    Without a header each line is a path, a separator (tab, semicolon, comma or spaces) and a label, which is
    a number or a name. A path may hold spaces when it ends in a video suffix or is quoted; otherwise the last
    separator counts. See `saccade.data.list_lines` for lines with more columns.

    With a header the columns are found by name, see `saccade.data.list_tables`. A Kinetics table (label,
    youtube_id, time_start, time_end, split) finds its files under the root by ``<id>_<start>_<end>`` or
    ``<id>``.

    Lines of three, folder, number of frames and label, are a list of frame folders (TSM, RubiksNet).

    Args:
        path: the list file.
        root: folder that relative paths start from; None takes the list's own. Where it has none of the
            files, they may be in a folder in it for the split of the list (``videos_train``,
            ``rawframes_val``), or in ``videos`` or ``rawframes``, as MMAction2 has them.
        group: column of the sources of the clips, see `saccade.load_dataset`.

    Raises:
        DataError: the file cannot be read or a line makes no sense; the message has its number.
    """
    file = Path(path)
    base = Path(root) if root is not None else file.parent
    entries = _read_entries(file, base, group)
    if not _some_exist(entries):
        for folder in _video_folders(file, base):
            moved = _read_entries(file, folder, group)
            if _some_exist(moved):
                return moved
    return entries


def is_training_list(path: StrPath, *, root: StrPath | None = None) -> bool:
    """Whether ``path`` is a list file that is named for training and says of none of its own lines that they
    are of another split: the lists of other splits beside it are then not what was asked for.
    """
    place = Path(path)
    if not place.is_file() or split_in_name(place) != "train" or place.suffix.lower() not in LIST_SUFFIXES:
        return False
    return not any(entry.split in ("val", "test") for entry in read_list(place, root=root))


def _some_exist(entries: list[Entry]) -> bool:
    return any(os.path.exists(entry.path) for entry in entries[:: max(1, len(entries) // 20)])


def _video_folders(file: Path, base: Path) -> list[Path]:
    """Folders in ``base`` that may have the videos of a list: those named for its split come first."""
    split = split_in_name(file)
    folders = sorted(each for each in base.iterdir() if each.is_dir()) if base.is_dir() else []
    own = [each for each in folders if split is not None and split_in_name(each) == split]
    return own + [each for each in folders if each.name in ("videos", "rawframes")]


def _read_entries(file: Path, base: Path, group: str | None) -> list[Entry]:
    text = "\n".join(read_text(file).splitlines()) + "\n"
    lines = [(number, line.strip()) for number, line in enumerate(text.splitlines(), start=1)]
    lines = [(number, line) for number, line in lines if line and not _is_comment(line)]
    if not lines:
        raise DataError(f"{file}: empty; expected lines of 'path label'")
    header = find_header([line for _, line in lines[:2]], base)
    if header is not None:
        return read_table(file, text, base, header, group)
    if group is not None:
        raise DataError(f"{file}: has no header, so no column {group!r} that names the source of each clip")
    if _UCF_LIST.fullmatch(file.stem):
        return [_ucf_entry(file, number, line, base) for number, line in lines]
    return read_lines(file, lines, base)


def _is_comment(line: str) -> bool:
    return line.startswith("#") and not (line.startswith("#path") or any(map(is_video_name, line.split())))


def _is_listed(path: Path) -> bool:
    if path.is_file() or has_own_list(path):
        return True
    if any(_MMACTION_LIST.fullmatch(each.stem) for each in path.glob("*.txt")):
        return bool(_split_lists(path))
    return not any(has_videos(folder) for folder in split_folders(path).values()) and bool(_split_lists(path))


@register_dataset("lists", recognises=_is_listed)
def read_lists(
    path: Path,
    split: Split,
    *,
    class_names: ClassNames | None = None,
    root: StrPath | None = None,
    group: str | None = None,
) -> Listing:
    """A list file with those of the other splits beside it, ``clips.csv`` in a folder, or the lists in a
    folder that are named for the splits.
    """
    if path.is_file():
        return Listing(_read_list_and_siblings(path, split, root, group))
    if has_own_list(path):
        return Listing(read_list(path / "clips.csv", root=root, group=group))
    return Listing(_read_splits(_split_lists(path), root, group))


def _read_list_and_siblings(path: Path, split: Split, root: StrPath | None, group: str | None) -> list[Entry]:
    named = split_in_name(path)
    if named is None:
        return read_list(path, root=root, group=group)
    lists = _split_lists(path.parent, like=path)
    if named != "train" and split in ("val", "test"):
        named = split  # the file that was given is the one to evaluate on, whatever the split is called
    return _read_splits({**lists, named: path}, root, group)


def _read_splits(lists: dict[str, Path], root: StrPath | None, group: str | None) -> list[Entry]:
    return [
        replace(entry, split=entry.split or name)
        for name, path in sorted(lists.items())
        for entry in read_list(path, root=root, group=group)
    ]


def _split_lists(folder: Path, *, like: Path | None = None) -> dict[str, Path]:
    """List files in ``folder`` named for a split; with ``like``, those that differ from it in that word."""
    named = {
        path: split
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in LIST_SUFFIXES and path.is_file() and not is_hidden(path.name)
        if (split := split_in_name(path)) is not None
        if like is None or same_but_for_split(path, like)
    }
    for path in [path for path in named if like is None and path.stem.endswith("_list_rawframes")]:
        videos = path.with_stem(path.stem.removesuffix("rawframes") + "videos")
        if videos in named:  # MMAction2 has both
            warn_once(f"{path}: not read; {videos.name} beside it lists the same videos as files")
            del named[path]
    found: dict[str, Path] = {}
    for path, split in settled_splits(named, [path for path in named if "eval" in path.stem.lower()]).items():
        if like is None and split in found:
            raise DataError(
                f"{folder}: {found[split].name} and {path.name} are both named for {split}; give one of them"
            )
        found.setdefault(split, path)
    return found


def _ucf_entry(file: Path, number: int, line: str, base: Path) -> Entry:
    """UCF-101's own lists: the class is the folder; test lists have no label, train lists count from 1."""
    path = line.split(" ")[0]
    if not os.path.dirname(path):
        raise DataError(
            f"{file}:{number}: {shorten(line)!r} names no class folder; expected 'Class/clip.avi'"
        )
    return Entry(os.path.join(base, path), os.path.basename(os.path.dirname(path)), f"{file}:{number}")
