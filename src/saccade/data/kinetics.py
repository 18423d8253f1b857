"""Kinetics as JSON (Kay et al. 2017, arXiv 1705.06950), in the form of ActivityNet.

    {"<youtube id>": {"annotations": {"label": "abseiling", "segment": [5, 15]}, "subset": "training"}, ...}

A file (``kinetics_train.json``) finds those of the other splits beside it. The tables of Kinetics are read by
`saccade.data.lists`; files of videos are found in the same way.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from saccade.data.datasets import register_dataset
from saccade.data.entries import (
    ClassNames,
    Entry,
    Listing,
    Split,
    StrPath,
    has_own_list,
    read_json,
    same_but_for_split,
    split_in_name,
    split_of,
    warn_once,
)
from saccade.data.list_tables import SegmentFiles
from saccade.errors import DataError

_FORM = '{"annotations": {"label": "abseiling", "segment": [5.0, 15.0]}, "subset": "training"}'


def _is_kinetics(path: Path) -> bool:
    return not has_own_list(path) and bool(_lists(path))


@register_dataset("kinetics", recognises=_is_kinetics)
def read_kinetics(
    path: Path, split: Split, *, class_names: ClassNames | None = None, root: StrPath | None = None
) -> Listing:
    """The JSON files of Kinetics: one of them with those of the other splits beside it, or their folder.

    Raises:
        DataError: a file is not of that form, or there is no video in it.
    """
    lists = _lists(path)
    if not lists:
        raise DataError(f"{path}: no JSON file of Kinetics: {{id: {_FORM}, ...}}")
    files = SegmentFiles(Path(root) if root is not None else lists[0].parent, is_kinetics=True)
    entries: dict[tuple[str, str], Entry] = {}
    repeated = 0
    for file in lists:
        for entry in _entries(file, files):
            same = entries.setdefault((entry.path, entry.split or ""), entry)
            repeated += same is not entry
    if repeated:
        warn_once(f"{path}: {repeated} videos are in two of {', '.join(f.name for f in lists)}; read once")
    if not entries:
        raise DataError(f"{path}: no videos in this list")
    return Listing(list(entries.values()))


def _lists(path: Path) -> list[Path]:
    """The JSON files of Kinetics at ``path``, which is one of them or their folder."""
    if path.is_file():
        if not _is_list(path):
            return []
        if split_in_name(path) is None:
            return [path]
        beside = [file for file in sorted(path.parent.glob("*.json")) if same_but_for_split(file, path)]
        return [file for file in beside if file == path or _is_list(file)]
    return [file for file in sorted(path.glob("*.json")) if file.is_file() and _is_list(file)]


def _is_list(path: Path) -> bool:
    """Whether the file begins as a JSON file of Kinetics does."""
    if path.suffix.lower() != ".json":
        return False
    try:
        with path.open(encoding="utf-8-sig") as file:
            head = file.read(4096)
    except (OSError, UnicodeDecodeError):
        return False
    first = re.match(r'\s*\{\s*"[^"]*"\s*:\s*\{', head)
    return first is not None and '"annotations"' in head and '"subset"' in head


def _entries(path: Path, files: SegmentFiles) -> list[Entry]:
    found = []
    unlabelled = 0
    for video, row in read_json(path).items():
        where = f"{path}: {video}"
        annotations = row.get("annotations") if isinstance(row, dict) else None
        if isinstance(annotations, list) and len(annotations) == 1:
            annotations = annotations[0]
        if not isinstance(annotations, dict):
            raise DataError(f"{where}: not of the form {_FORM}")
        split = split_of(str(row.get("subset", "")))
        if split is None:
            raise DataError(
                f"{where}: subset {row.get('subset')!r} is unknown; it is training, validation or testing"
            )
        label = annotations.get("label")
        if not label and split == "test":  # published without labels
            unlabelled += 1
            continue
        if not isinstance(label, str) or not label:
            raise DataError(f"{where}: no label; expected {_FORM}")
        file, _ = files.find(video, _segment(annotations, where))
        found.append(Entry(file, label, f"{path}:{video}", split))
    if unlabelled:
        warn_once(f"{path}: {unlabelled} test videos have no label and are left out")
    return found


def _segment(annotations: dict[str, Any], where: str) -> tuple[float, float] | None:
    """Start and end in seconds, which are part of the name of the file; None if they are not stated."""
    segment = annotations.get("segment")
    if segment is None:
        return None
    try:
        start, end = map(float, segment)
        sound = 0 <= start < end
    except (TypeError, ValueError):
        sound = False
    if not sound:
        raise DataError(f"{where}: segment {segment!r} is not a start and end in seconds")
    return start, end
