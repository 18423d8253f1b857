"""Something-Something v1 and v2 (Goyal et al., ICCV 2017) in the files they are published in.

    v1   20bn-something-something-v1/<id>/00001.jpg ..., and beside that folder
         something-something-v1-train.csv and -validation.csv (``id;label``), -labels.csv (a label a line)
    v2   20bn-something-something-v2/<id>.webm, and beside that folder
         something-something-v2-train.json and -validation.json (``[{"id": .., "template": ..}, ..]``) and
         -labels.json (``{"label": "number"}``), or labels/train.json ... of the later archive

Both number their videos from 1, so that lists of one version match files of the other, which is an error.
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from saccade.data.classnames import class_names, parse_names
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
    shorten,
    split_in_name,
    split_of,
)
from saccade.errors import DataError

logger = logging.getLogger(__name__)

FRAME_RATE = 12.0
"""Frames per second of both data sets, which a folder of frames does not say."""

_SETS = {"v1": "20bn-something-something-v1", "v2": "20bn-something-something-v2"}
_NAMED = re.compile(r"something-something-(?P<version>v[12])-(?P<what>train|validation|test|labels)")
_BARE = ("train", "validation", "test", "labels")
_SUFFIX = {"v1": ".csv", "v2": ".json"}
_VERSION = re.compile(r"(?:something|sth|ss)[-_]?(v[12])(?![0-9])")
_SUBFOLDERS = ("labels", "annotations")
_HOMES = ("videos", "frames", "rawframes")
_TRIED = 20  # entries of a folder looked at to find out what it holds


@dataclass(frozen=True)
class SomethingLists:
    """The published lists of one version in a folder.

    Attributes:
        version: ``v1`` or ``v2``.
        folder: where they are.
        lists: ``train``, ``val``, ``test`` (as many as there are) to file; None: a file named for no split.
        labels: the file of class names, None where it is missing.
    """

    version: str
    folder: Path
    lists: dict[str | None, Path]
    labels: Path | None


def find_lists(place: Path) -> SomethingLists | None:
    """The lists at ``place``: one of them, their folder, or its parent; None if there are none.

    Raises:
        DataError: lists of both versions.
    """
    if place.is_file():
        named = _NAMED.fullmatch(place.stem)
        if place.suffix.lower() != ".json" and (named is None or place.suffix.lower() != ".csv"):
            return None
        version = named["version"] if named and place.suffix.lower() == ".csv" else "v2"
        found = _lists_in(place.parent, version)
        if place == found.labels or (named and named["what"] == "labels"):
            raise DataError(f"{place}: holds the class names; give the list of training videos")
        split = split_in_name(place)
        return replace(found, lists={split: place} if split is None else {**found.lists, split: place})
    for folder in (place, *(place / name for name in _SUBFOLDERS)):
        both = [found for version in _SETS if (found := _lists_in(folder, version)).lists]
        if len(both) > 1:
            one, other = (next(iter(found.lists.values())).name for found in both)
            raise DataError(
                f"{folder}: lists of both versions, {one} and {other}; give one of the files, "
                "or keep each version in its own folder"
            )
        if both:
            return both[0]
    return None


def _is_something(path: Path) -> bool:
    return not has_own_list(path) and find_lists(path) is not None


@register_dataset("something", recognises=_is_something)
def read_something(
    path: Path, split: Split, *, class_names: ClassNames | None = None, root: StrPath | None = None
) -> Listing:
    """Something-Something v1 or v2."""
    lists = find_lists(path)
    if lists is None:
        raise DataError(f"{path}: no lists of Something-Something")
    own = next((name for name, file in lists.lists.items() if file == path), "train")
    if own not in ("val", "test") or split not in ("val", "test"):
        names, entries = read_lists(lists, only=None if split == "all" else split, root=root)
        return Listing(entries, names)
    # the file that was named is the one to evaluate on, whatever the split is called
    names, entries = read_lists(replace(lists, lists={own: path}), only=own, root=root)
    return Listing([replace(entry, split=split) for entry in entries], names)


def _lists_in(folder: Path, version: str) -> SomethingLists:
    files: dict[str, Path] = {}
    for what in _BARE:
        named = folder / f"something-something-{version}-{what}{_SUFFIX[version]}"
        bare = folder / f"{what}.json"
        if named.is_file():
            files[what] = named
        elif version == "v2" and bare.is_file() and (what == "labels" or _has_ids(bare)):
            files[what] = bare
    labels = files.pop("labels", None)
    return SomethingLists(version, folder, {split_of(what): path for what, path in files.items()}, labels)


def _has_ids(path: Path) -> bool:
    """Whether a file called train.json, which may be anyone's, begins as a list of v2 does."""
    with path.open("rb") as file:
        return re.match(rb'(?:\xef\xbb\xbf)?\s*\[\s*\{[^{}]*"id"\s*:', file.read(4096)) is not None


def read_lists(
    lists: SomethingLists, *, only: str | None, root: StrPath | None
) -> tuple[tuple[str, ...], list[Entry]]:
    """The class names and the entries of every split.

    Args:
        only: the split that is asked for, None for all. The test split was published without labels: it is
            an error to ask for it, unless ``test-answers.csv`` is beside it; else it is skipped.
        root: the folder of the videos, or the one above it; None: found near the lists.

    Raises:
        DataError: a row is malformed, there are no labels, or the videos are not found or of the other
            version.
    """
    entries: list[Entry] = []
    for split, path in lists.lists.items():
        rows = list(_rows_of(path, lists.version))
        if split == "test" and not any(label for _, label, _ in rows):
            answers = _answers(lists.folder)
            if not answers and (only == "test" or len(lists.lists) == 1):
                raise DataError(
                    f"{path}: the test split was published without labels, so it serves neither training "
                    "nor evaluation; use the validation split"
                    + ("" if lists.version == "v1" else ", or put test-answers.csv beside it")
                )
            if not answers:
                if only is None:
                    logger.info(f"{path}: no labels were published for the test split; it is skipped")
                continue
            rows = [(video, answers.get(video, ""), where) for video, _, where in rows]
        entries += [_entry(video, label, where, split) for video, label, where in rows]
    return _names(lists), _with_paths(entries, lists, root)


def _entry(video: str, label: str, where: str, split: str | None) -> Entry:
    if not label:
        raise DataError(f"{where}: video {video} has no label; every row of this list needs one")
    return Entry(video, label, where, split, fps=FRAME_RATE)


# --- the lists -------------------------------------------------------------------------------------------


def _rows_of(path: Path, version: str) -> Iterator[tuple[str, str, str]]:
    """(id, label or nothing, file:row) of each row."""
    return _csv_rows(path) if version == "v1" else _json_rows(path)


def _csv_rows(path: Path) -> Iterator[tuple[str, str, str]]:
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        video, semicolon, label = (part.strip() for part in line.partition(";"))
        label = label.strip('"')
        if not video.isdecimal() or (semicolon and not label):
            raise DataError(
                f"{where}: {shorten(line)!r} is not of the form 'id;label', as '100218;Holding something'"
            )
        yield video, label, where


def _json_rows(path: Path) -> Iterator[tuple[str, str, str]]:
    rows = read_json(path)
    if not isinstance(rows, list) or not rows:
        raise DataError(
            f'{path}: not a list of videos, [{{"id": "78687", "template": "Holding [something]"}}, ...]'
        )
    for number, row in enumerate(rows, start=1):
        where = f"{path}:row {number}"
        video = row.get("id") if isinstance(row, dict) else None
        if not isinstance(video, (str, int)) or not str(video).strip().isdecimal():
            raise DataError(f"{where}: {shorten(json.dumps(row))} has no id, the number of a video")
        template = row.get("template", "")
        if not isinstance(template, str) or ("template" in row and not template.strip()):
            raise DataError(f"{where}: video {video}: the template {template!r} is not the name of a class")
        if "label" in row and not template:
            raise DataError(f"{where}: video {video} has a label and no template, which names its class")
        yield str(video).strip(), _without_brackets(template), where


def _answers(folder: Path) -> dict[str, str]:
    """The labels of v2's test split, which a later archive has."""
    path = folder / "test-answers.csv"
    return {video: label for video, label, _ in _csv_rows(path)} if path.is_file() else {}


def _names(lists: SomethingLists) -> tuple[str, ...]:
    """The class names in the order of their numbers: of the file of labels, else the list that ships."""
    path = lists.labels
    if path is None:
        return class_names(f"something_{lists.version}")
    if lists.version == "v1":
        return class_names(list(parse_names(read_text(path)).values()))
    table = read_json(path)
    try:
        numbered = {int(number): _without_brackets(name) for name, number in table.items()}
    except (AttributeError, TypeError, ValueError):
        numbered = {}
    if not numbered or sorted(numbered) != list(range(len(table))):
        raise DataError(
            f'{path}: not a table of names to numbers from 0 on, {{"Holding something": "0", ...}}'
        )
    return tuple(numbered[number] for number in range(len(numbered)))


def _without_brackets(template: str) -> str:
    """``Holding [something]`` as the class is called: ``Holding something``."""
    return template.replace("[", "").replace("]", "").strip()


# --- the videos ------------------------------------------------------------------------------------------


def _with_paths(entries: list[Entry], lists: SomethingLists, root: StrPath | None) -> list[Entry]:
    """The entries with paths instead of ids."""
    folder = _video_folder(entries, lists, root)
    files = files_by_id(folder, preferred=".webm" if lists.version == "v2" else "")
    _check_version(folder, files, entries, lists)
    missing = "{}" if lists.version == "v1" else "{}.webm"
    return [
        replace(entry, path=os.path.join(folder, files.get(entry.path) or missing.format(entry.path)))
        for entry in entries
    ]


def _video_folder(entries: Sequence[Entry], lists: SomethingLists, root: StrPath | None) -> Path:
    """The first of the likely folders that has the most of some of the videos."""
    candidates = list(_likely_folders(lists, root))
    folder = folder_with_most(candidates, [entry.path for entry in entries])
    if folder is None:
        first = entries[0].path
        kind = f"a folder {first} of JPEG frames" if lists.version == "v1" else f"{first}.webm"
        tried = ", ".join(map(str, candidates))
        raise DataError(
            f"{next(iter(lists.lists.values()))}: no videos found: no {kind} in {tried}; "
            + (
                f"give the folder {_SETS[lists.version]} with --root"
                if root is None
                else f"--root must be the folder {_SETS[lists.version]} or its parent"
            )
        )
    return folder


def _likely_folders(lists: SomethingLists, root: StrPath | None) -> Iterator[Path]:
    above = lists.folder.parent if lists.folder.name in _SUBFOLDERS else None
    bases = [Path(root)] if root is not None else [base for base in (lists.folder, above) if base]
    for base in bases:
        own = sorted(
            path
            for path in base.iterdir()
            if _VERSION.search(path.name.lower()) is not None and path.is_dir()
        )
        yield from (path for path in own if _version_in_name(path) == lists.version)
        yield from (base / name for name in _HOMES if (base / name).is_dir())
        yield base


def _version_in_name(folder: Path) -> str | None:
    """The version in the name of a folder."""
    match = _VERSION.search(folder.name.lower())
    return match[1] if match else None


def _check_version(
    folder: Path, files: dict[str, str], entries: Sequence[Entry], lists: SomethingLists
) -> None:
    """Raise for videos of the other version, all of whose labels would be wrong."""
    said = _version_in_name(folder)
    found = next((files[entry.path] for entry in entries if entry.path in files), "")
    webm = lists.version == "v1" and found.endswith(".webm")
    name = next(iter(lists.lists.values()))
    if said not in (None, lists.version) or webm:
        other = "v2" if lists.version == "v1" else "v1"
        raise DataError(
            f"{name}: a list of {lists.version}, but {folder / found} is of {other}, whose "
            "numbers mean other videos; give the lists and the folder of one version"
        )
    if lists.version == "v1" and found and (folder / found / "000001.jpg").is_file():
        logger.warning(
            f"{folder / found}: frames of v1 are called 00001.jpg, with five digits; are these of v2? Its "
            "numbers mean other videos"
        )


# --- hints -------------------------------------------------------------------------------------------------


def misplaced(place: Path) -> str | None:
    """What to give instead of ``place``, if it is part of Something-Something or its parent; else None."""
    if not place.is_dir():
        return None
    inside = [
        folder for folder in sorted(place.iterdir()) if folder.is_dir() and not folder.name.startswith(".")
    ]
    if _is_video_folder(place):
        return f"these are videos of Something-Something without their lists; {_instead(place)}"
    videos = next((folder for folder in inside if folder.name in _SETS.values()), None)
    if videos is not None:
        return f"{videos.name} is here, its lists are not; {_instead(videos, near=place)}"
    above = next((folder for folder in inside[:100] if find_lists(folder) is not None), None)
    return f"Something-Something is in {above}; give that folder" if above is not None else None


def _instead(videos: Path, near: Path | None = None) -> str:
    version = _version_in_name(videos) or "v2"
    lists = None if near else find_lists(videos.absolute().parent)
    if lists is not None:
        return f"give the folder of the lists, {lists.folder}"
    name = f"something-something-{version}-train{_SUFFIX[version]}"
    return f"put {name} and -validation beside {videos.name}, or give that file and this folder as --root"


def _is_video_folder(place: Path) -> bool:
    """Whether ``place`` holds videos or folders of frames whose names are numbers."""
    with os.scandir(place) as scan:
        some = [entry for entry, _ in zip(scan, range(_TRIED), strict=False)]
    numbered = [entry for entry in some if re.fullmatch(r"\d+(\.webm)?", entry.name)]
    if not some or len(numbered) < len(some):
        return False
    return any(entry.name.endswith(".webm") or _has_jpegs(entry.path) for entry in numbered)


def _has_jpegs(folder: str) -> bool:
    if not os.path.isdir(folder):
        return False
    with os.scandir(folder) as scan:
        return any(re.fullmatch(r"\d{5,6}\.jpg", entry.name) for entry in scan)
