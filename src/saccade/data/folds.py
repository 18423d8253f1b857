"""Folds of a data set for cross-validation: each clip in one fold, all clips of a source in the same one."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from saccade.data.datasets import find_reader, read_listing
from saccade.data.entries import ClassNames, Entry, StrPath, first_few
from saccade.data.holdout import shuffled, source_groups
from saccade.data.labelling import labelled, select_split, without_missing
from saccade.errors import DataError, UsageError

_COLUMNS = ("path", "label", "group", "split", "start", "end", "num_frames", "fps")


@dataclass(frozen=True)
class Folds:
    """A data set cut into folds.

    Attributes:
        class_names: in label order.
        entries: the clips, each with its label as a number.
        folds: the fold of each clip, from 0.
        groups: the source of each clip.
        num_folds: number of folds.
        rule: what the sources were found by.
        num_test: clips of a stated test split, which are in no fold.
    """

    class_names: tuple[str, ...]
    entries: tuple[Entry, ...]
    folds: tuple[int, ...]
    groups: tuple[str, ...]
    num_folds: int
    rule: str
    num_test: int = 0

    @property
    def num_groups(self) -> int:
        """Number of sources."""
        return len(set(self.groups))

    def list_text(self, fold: int) -> str:
        """A list of all clips as CSV, those of ``fold`` in the split ``val`` and the others in ``train``."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        rows = [self._row(*each, fold) for each in zip(self.entries, self.folds, self.groups, strict=True)]
        used = [column for column in range(len(_COLUMNS)) if any(row[column] != "" for row in rows)]
        for row in (_COLUMNS, *rows):
            writer.writerow([row[column] for column in used])
        return text.getvalue()

    def _row(self, entry: Entry, own: int, group: str, fold: int) -> tuple[str, ...]:
        numbers = (entry.start, entry.end, entry.num_frames, entry.fps)
        name = self.class_names[int(entry.label)]
        label = json.dumps([name]) if re.search(r"[|;,\[\]]", name) else name
        written = ("" if number is None else repr(number) for number in numbers)
        path = os.path.abspath(entry.path)
        return (path, label, f"source {group}", "val" if own == fold else "train", *written)


def make_folds(
    path: StrPath,
    num_folds: int,
    *,
    class_names: ClassNames | None = None,
    root: StrPath | None = None,
    allow_missing: bool = False,
    group: str | None = None,
) -> Folds:
    """Cut the clips of a data set into folds of about the same size with about the same classes.

    All splits together, but a stated test split is left out. The clips of one source (see
    `saccade.data.holdout.source_groups`) are in one fold. The same data set gives the same folds.

    Args:
        num_folds: 2 or more.
        class_names, root, allow_missing, group: as of `saccade.load_dataset`.

    Raises:
        UsageError: fewer than two folds, or a data set without a label for each clip.
        DataError: the data set cannot be used, or a class has all its clips from one source.
    """
    if num_folds < 2:
        raise UsageError(f"folds: must be 2 or more (is {num_folds})")
    reader, place = find_reader(path)
    if not reader.lists:
        raise UsageError(
            f"{path}: folds need a data set in folders or lists, and this is read by {reader.name!r}"
        )
    listing = read_listing(reader, place, "all", class_names=class_names, root=root, group=group)
    entries = without_missing(listing.entries, place, "all") if allow_missing else listing.entries
    names, entries = labelled(entries, listing, place, class_names)
    entries = select_split(entries, place, "all")
    kept = [entry for entry in entries if entry.split != "test"]
    kept = kept or entries
    if any(entry.actions is not None for entry in kept):
        raise UsageError(f"{path}: folds need one label for each clip; this data set is multi-label")
    groups, rule = source_groups(kept)
    labels = [int(entry.label) for entry in kept]
    _check_sources(path, groups, labels, num_folds, names)
    folds = assign_folds(groups, labels, num_folds)
    return Folds(
        names, tuple(kept), tuple(folds), tuple(groups), num_folds, rule, num_test=len(entries) - len(kept)
    )


def _check_sources(
    path: StrPath, groups: Sequence[str], labels: Sequence[int], num_folds: int, names: Sequence[str]
) -> None:
    of_class: dict[int, set[str]] = defaultdict(set)
    for group, label in zip(groups, labels, strict=True):
        of_class[label].add(group)
    single = [names[label] for label in sorted(of_class) if len(of_class[label]) < 2]
    if single:
        raise DataError(
            f"{path}: all clips of {first_few(single)} come from one source, so no network that never saw it "
            "could learn the class; add clips of another source, or take the class out"
        )
    if len(set(groups)) < num_folds:
        raise DataError(f"{path}: {len(set(groups))} sources of clips cannot fill {num_folds} folds")


def assign_folds(groups: Sequence[Hashable], labels: Sequence[int], num_folds: int) -> list[int]:
    """The fold of each clip, so that groups stay together and classes are spread evenly.

    Greedy, the largest groups first: each goes where its classes have the fewest clips, then where there are
    the fewest clips. The order of the clips does not matter.
    """
    members: dict[Hashable, Counter[int]] = defaultdict(Counter)
    for group, label in zip(groups, labels, strict=True):
        members[group][label] += 1
    counts = [Counter[int]() for _ in range(num_folds)]
    chosen: dict[Hashable, int] = {}
    for group in sorted(members, key=lambda group: (-members[group].total(), shuffled(group))):
        own = members[group]
        cost = [
            (sum(count * own[label] for label, count in fold.items()), fold.total(), number)
            for number, fold in enumerate(counts)
        ]
        chosen[group] = min(cost)[2]
        counts[chosen[group]] += own
    return [chosen[group] for group in groups]
