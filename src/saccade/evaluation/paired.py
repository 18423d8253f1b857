"""Two results on the same videos, paired."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from saccade.errors import DataError
from saccade.tasks import Result
from saccade.tasks.statistics import PairedComparison


def compare_results(first: Result, second: Result) -> PairedComparison:
    """Compare two models by whether each is right about each video that both could read.

    Videos are the same if folder and name of the file are, since the data set may be in another location.

    Raises:
        DataError: a result is not single-label, classes or labels differ, or no video is in both.
    """
    if first.right is None or second.right is None:
        task = first.task if first.right is None else second.task
        raise DataError(f"models are compared by the videos they are right about; task {task} has none")
    if set(first.class_names) != set(second.class_names):
        other = sorted(set(first.class_names) ^ set(second.class_names))
        raise DataError(f"models of other classes cannot be compared; only one of them has {other[0]!r}")
    rows = rows_by_video(second)
    pairs = [(row, rows[key]) for key, row in rows_by_video(first).items() if key in rows]
    if not pairs:
        raise DataError("no video is in both tests: they cannot be compared")
    a, b = (np.array(each) for each in zip(*pairs, strict=True))
    for i, j in pairs:
        names = _label(first, i), _label(second, j)
        if names[0] != names[1]:
            raise DataError(f"{first.paths[i]}: is {names[0]!r} in one test and {names[1]!r} in the other")
    return PairedComparison.of(first.right[a], second.right[b])


def _label(result: Result, row: int) -> str:
    assert result.scored is not None
    return result.class_names[int(result.scored[1][row])]


def rows_by_video(result: Result) -> dict[tuple[Any, ...], int]:
    """The row of each video; the n-th clip of a video is distinguished by n."""
    counts: Counter[tuple[str, ...]] = Counter()
    rows: dict[tuple[Any, ...], int] = {}
    for row, path in enumerate(result.paths):
        video = Path(path).parts[-2:]
        rows[(*video, counts[video])] = row
        counts[video] += 1
    return rows
