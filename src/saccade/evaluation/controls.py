"""Controls of a test: the same clips with their frames shuffled, repeated or reversed.

A clip is decoded once. Its view is rearranged on the device and passes through the model once more for each
control, in batches of the same views, so that a model without use of time gives the same scores exactly.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from saccade.errors import UsageError
from saccade.evaluation.scorer import Scorer
from saccade.sampling.views import Views
from saccade.tasks.base import Task, View
from saccade.tasks.time_use import CONTROLS

ORDERED = "ordered"
Arrangement = tuple[str, int]
"""Name and seed: ``("ordered", 0)``, or a control of `CONTROLS`."""


@dataclass(frozen=True, kw_only=True)
class Controls:
    """Which controls a test makes.

    Attributes:
        names: of `saccade.tasks.time_use.CONTROLS`.
        num_seeds: number of shuffles, with the seeds ``seed``, ``seed + 1``, ...
        max_videos: controls are made on at most this many videos, spread evenly over the data set from a
            place drawn with ``seed``; tasks that test whole videos make them on all.
    """

    names: tuple[str, ...] = tuple(CONTROLS)
    num_seeds: int = 3
    max_videos: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.names:
            if name not in CONTROLS:
                raise UsageError(f"control {name!r} is unknown; known are {', '.join(CONTROLS)}")
        if not self.names or len(set(self.names)) < len(self.names):
            raise UsageError(f"controls {','.join(self.names)!r}: name each of {', '.join(CONTROLS)} once")
        for name in ("num_seeds", "max_videos"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name}: must be at least 1 (is {getattr(self, name)})")

    @property
    def arrangements(self) -> tuple[Arrangement, ...]:
        """The ordered frames first, then every pass of every control."""
        passes: list[Arrangement] = [(ORDERED, 0)]
        for name in self.names:
            seeds = range(self.seed, self.seed + self.num_seeds) if name == "shuffle" else [0]
            passes += [(name, seed) for seed in seeds]
        return tuple(passes)

    def positions(self, num_videos: int) -> frozenset[int]:
        """The videos that controls are made on."""
        if num_videos <= self.max_videos:
            return frozenset(range(num_videos))
        start = np.random.default_rng(self.seed).random()
        places = (np.arange(self.max_videos) + start) * (num_videos / self.max_videos)
        return frozenset(places.astype(np.int64).tolist())


def arrange(view: View, arrangement: Arrangement) -> View:
    """The view with its frames rearranged. A shuffle depends on its seed, the item and the frames of the
    clip, so all crops of a clip are permuted alike, in whichever view sets they are.
    """
    name, seed = arrangement
    if name == ORDERED:
        return view
    axis = 0 if view.pixels.dtype == torch.uint8 else 1
    num = view.pixels.shape[axis]
    if name == "shuffle":
        order = np.random.default_rng([seed, view.position, *view.frames]).permutation(num)
    elif name == "reverse":
        order = np.arange(num)[::-1].copy()
    else:
        order = np.full(num, num // 2)
    pixels = view.pixels.index_select(axis, torch.from_numpy(order).to(view.pixels.device))
    return replace(view, pixels=pixels, order=None if name == "repeat" else order)


def control_sets(task: Task, sets: Mapping[str, Views]) -> dict[str, Views]:
    """The view set of the controls: the first with one view of each video, else the centre crop of the middle
    clip of the first set; all views of a task with fixed views.
    """
    if task.fixed_views:
        return dict(sets)
    single = [views for views in sets.values() if len(views) == 1]
    first = next(iter(sets.values()))
    views = single[0] if single else replace(first, protocol="", num_clips=1, num_crops=1)
    return {str(views): views}


class ControlPass:
    """Runs the views of the controls through the model while a test reads them.

    Args:
        sets: the view sets of the test.
        num_videos: size of the data set.

    Attributes:
        wanted: the view set of the controls, `control_sets`.
        scores: the merged outputs of each arrangement by position.
        seconds: time spent on controls.
    """

    def __init__(
        self, controls: Controls, scorer: Scorer, sets: Mapping[str, Views], num_videos: int
    ) -> None:
        self.controls, self.scorer, self.sets = controls, scorer, tuple(sets.values())
        self.wanted = control_sets(scorer.task, sets)
        every = bool(scorer.task.fixed_views)
        self.positions = frozenset(range(num_videos)) if every else controls.positions(num_videos)
        self.scores: dict[Arrangement, dict[int, Any]] = {}
        self.seconds = 0.0

    @property
    def decoded_sets(self) -> tuple[Views, ...]:
        """The view sets to decode: those of the test, and that of the controls if it is another one."""
        return (*self.sets, *(views for views in self.wanted.values() if views not in self.sets))

    def watch(self, views: Iterable[View]) -> Iterator[View]:
        """The views of the test, on their way to the model. Those of the controls are rearranged and run."""
        waiting: list[View] = []
        for view in views:
            chosen = self._of_controls(view)
            if chosen is not None:
                if waiting and waiting[0].pixels.shape != chosen.pixels.shape:
                    self._run(waiting)
                    waiting = []
                waiting.append(chosen)
                if len(waiting) >= self.scorer.size_for(chosen.pixels):
                    self._run(waiting)
                    waiting = []
            tested = self._of_test(view)
            if tested is not None:
                yield tested
        if waiting:
            self._run(waiting)

    def _of_controls(self, view: View) -> View | None:
        if view.position not in self.positions:
            return None
        if self.scorer.task.fixed_views:
            return view
        index = self.decoded_sets.index(next(iter(self.wanted.values())))
        return replace(view, tag=(view.tag[index],)) if view.tag[index] else None

    def _of_test(self, view: View) -> View | None:
        if self.scorer.task.fixed_views:
            return view
        tag = view.tag[: len(self.sets)]
        return replace(view, tag=tag) if any(tag) else None

    def _run(self, views: Sequence[View]) -> None:
        start, sets = time.perf_counter(), tuple(self.wanted.values())
        for arrangement in self.controls.arrangements:
            merged = self.scores.setdefault(arrangement, {})
            arranged = [arrange(view, arrangement) for view in views]
            for view, output in zip(arranged, self.scorer(arranged), strict=True):
                before = merged.get(view.position)
                merged[view.position] = self.scorer.task.merge(before, output, view, sets)
        self.seconds += time.perf_counter() - start
