"""Labels in time: which classes are present at a moment or during a stretch of a video.

Shape letters: K classes, L points in time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from saccade.data.types import Action, VideoItem

Ends = Literal["included", "excluded"]


class ActionTable:
    """The actions of all videos of a data set as arrays, which are sent to a worker quickly.

    Args:
        items: the videos; a video is identified by its index.
        num_classes: K.
    """

    def __init__(self, items: Sequence[VideoItem], num_classes: int) -> None:
        counts = [len(item.actions) for item in items]
        actions = [action for item in items for action in item.actions]
        self.num_classes = num_classes
        self._stops = np.cumsum([0, *counts])
        self._labels = np.array([action.label for action in actions], dtype=np.int64)
        self._times = np.array([(action.start, action.end) for action in actions]).reshape(-1, 2)

    def at(self, index: int, times: ArrayLike, *, ends: Ends = "included") -> NDArray[np.bool_]:
        """Which classes are present at each of ``times``, in seconds (L,), of a video: bool (K, L)."""
        labels, spans = self._of(index)
        return _active(labels, spans, np.asarray(times, np.float64), self.num_classes, ends)

    def between(self, index: int, first: float, last: float) -> NDArray[np.bool_]:
        """Which classes are present at any time from ``first`` to ``last`` seconds of a video: bool (K,)."""
        labels, spans = self._of(index)
        present = (spans[:, 0] <= last) & (spans[:, 1] >= first) & (spans[:, 0] <= spans[:, 1])
        return _marked(labels[present], self.num_classes)

    def _of(self, index: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        part = slice(self._stops[index], self._stops[index + 1])
        return self._labels[part], self._times[part]


def active_at(
    actions: Iterable[Action], times: ArrayLike, num_classes: int, *, ends: Ends = "included"
) -> NDArray[np.bool_]:
    """Which classes are present at each of ``times``, in seconds (L,): bool (K, L).

    The official evaluation of Charades includes the moments of start and end; X3D-Multigrid excludes them.
    """
    listed = list(actions)
    labels = np.array([action.label for action in listed], dtype=np.int64)
    spans = np.array([(action.start, action.end) for action in listed]).reshape(-1, 2)
    return _active(labels, spans, np.asarray(times, np.float64), num_classes, ends)


def _active(
    labels: NDArray[np.int64],
    spans: NDArray[np.float64],
    times: NDArray[np.float64],
    num_classes: int,
    ends: Ends,
) -> NDArray[np.bool_]:
    starts, stops = spans[:, :1], spans[:, 1:]
    inside = (
        (starts <= times) & (times <= stops) if ends == "included" else (starts < times) & (times < stops)
    )
    found = np.zeros((num_classes, len(times)), np.bool_)
    np.logical_or.at(found, labels, inside)
    return found


def _marked(labels: NDArray[np.int64], num_classes: int) -> NDArray[np.bool_]:
    found = np.zeros(num_classes, np.bool_)
    found[labels] = True
    return found
