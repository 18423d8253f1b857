"""Holding clips back for validation where a data set has no split of its own."""

from __future__ import annotations

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Sequence

from saccade.data.entries import Entry

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
