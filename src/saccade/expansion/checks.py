"""Everything that would make a search fail or mean nothing, found before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict

from saccade.errors import ConfigError, DataError, UsageError
from saccade.expansion.axes import Room, usable_axes, values
from saccade.expansion.candidate import candidate_config
from saccade.expansion.counting import Meter
from saccade.expansion.room import DataFacts
from saccade.expansion.types import AXES, Axis, Cost, Factors, SearchConfig, Target
from saccade.training.run import make_timetable
from saccade.training.validate import validate

MIN_STEPS = 10
"""Optimiser steps below which accuracies tell of initialisations, not of networks."""
MIN_VAL = 10
"""Validation videos below which one video is a tenth of the accuracy."""

UNITS: dict[Cost, str] = {
    "gmacs": "GMACs",
    "params": "parameters",
    "latency_ms": "ms",
    "memory_mb": "MB",
}
_FLAGS: dict[Cost, str] = {
    "gmacs": "--target-gmacs",
    "params": "--target-params",
    "latency_ms": "--target-latency-ms",
    "memory_mb": "--target-memory",
}
_CLIP_AXES: tuple[Axis, ...] = ("temporal", "fast", "spatial")


def check_fields(search: SearchConfig) -> None:
    """Raise `UsageError` for a field that cannot work, whatever the data."""
    if not search.targets:
        raise UsageError(f"no target: give one of {', '.join(_FLAGS.values())}")
    for target in search.targets:
        if not 0 < target.value < math.inf:
            raise UsageError(f"{_FLAGS[target.kind]} must be a number above 0, got {target.value:g}")
    for name, least in (("seeds", 1), ("duration", 2), ("max_steps", 1), ("latency_runs", 0)):
        if getattr(search, name) < least:
            raise UsageError(f"{name} must be at least {least}, got {getattr(search, name)}")
    if not 1.1 <= search.rate <= 16:
        raise UsageError(f"rate: a step multiplies the cost by 1.1 to 16, got {search.rate:g}")
    if not 0 < search.epochs < math.inf:
        raise UsageError(f"epochs must be a number above 0, got {search.epochs:g}")
    if search.halving < 0 or search.halving == 1:
        raise UsageError(f"halving: one in {search.halving} cannot go on; choose 2 or more, or 0")
    if not search.axes:
        raise UsageError(f"axes: none given; choose among {', '.join(AXES)}")
    measured = any(cost == "latency_ms" for cost in (search.cost, *(t.kind for t in search.targets)))
    if measured and not search.latency_runs:
        raise UsageError("latency_runs: a latency is the target or the cost, so it must be measured")
    if wrong := next((name for name, value in asdict(search.start).items() if not value > 0), None):
        raise UsageError(f"start: {wrong} must be above 0, got {getattr(search.start, wrong):g}")
    try:
        _ = search.start.config
    except ConfigError as error:
        raise UsageError(f"start: {error}") from None


def check_data(search: SearchConfig, facts: DataFacts) -> None:
    """Raise an error if the data set is too small for the budget or for the clip the search starts from.

    Raises:
        DataError: too few clips to train or to validate on.
        UsageError: the first clip is larger or longer than the videos.
        ConfigError: the recipe cannot train.
    """
    base = search.base
    if facts.num_train < base.batch_size:
        raise DataError(
            f"{base.data}: {facts.num_train} training clips do not fill a batch of {base.batch_size}; "
            "add clips or lower --batch-size"
        )
    steps = int(search.epochs * (facts.num_train // base.batch_size))
    if steps < MIN_STEPS:
        raise DataError(
            f"{base.data}: {search.epochs:g} epochs of {facts.num_train} clips are {steps} steps, at least "
            f"{MIN_STEPS} are needed to compare networks; raise --epochs, lower --batch-size or add clips"
        )
    if facts.num_val < MIN_VAL:
        raise DataError(
            f"{base.data}: {facts.num_val} validation videos, so one is "
            f"{100 / max(facts.num_val, 1):.0f} % of the accuracy; at least {MIN_VAL} are needed"
        )
    start = search.start
    if start.crop > facts.short_side:
        raise UsageError(
            f"start: {start.crop} pixels, but the videos' short side is {facts.short_side}; "
            f"begin smaller, e.g. --start crop={facts.short_side // 16 * 8}"
        )
    if not facts.room.span_fits(start.frames, 1 if facts.by_segments else start.stride):
        raise UsageError(
            f"start: {start.frames} frames every {start.stride}, but the videos have {facts.num_frames}"
        )
    config = candidate_config(search, start, name="start", seed=0, out=search.out)
    validate(config)
    make_timetable(config, facts.num_train)


def check_axes(search: SearchConfig, room: Room) -> None:
    """Raise `UsageError` for an axis that was asked for and has no room; of all six, some must have some."""
    lacking = [axis for axis in search.axes if not _has_room(axis, search, room)]
    chosen = set(search.axes) != set(AXES)
    if lacking and (chosen or len(lacking) == len(search.axes)):
        raise UsageError(f"axes: no room to expand {lacking[0]}: {_why(lacking[0], search.start, room)}")


def _has_room(axis: Axis, search: SearchConfig, room: Room) -> bool:
    options = values(axis, search.start, room=room, duration=first_duration(search, room))
    return next(options, None) is not None


def _why(axis: Axis, start: Factors, room: Room) -> str:
    if axis == "spatial":
        return f"it starts at {start.crop} pixels and the videos' short side is {room.short_side}"
    clip = f"{start.frames} frames every {start.stride}"
    return f"it starts at {clip} and the videos have {room.num_frames} frames"


def first_duration(search: SearchConfig, room: Room) -> int:
    """Frames of the source that the first clip of several frames stands for: no more than a video has."""
    return search.duration if room.num_frames is None else max(2, min(search.duration, room.num_frames))


def check_targets(search: SearchConfig, meter: Meter, room: Room) -> None:
    """Raise `UsageError` if a target lies below the first network, or all above the largest."""
    start = meter.measure([search.start])[0]
    for target in search.targets:
        if not target.met(start):
            raise UsageError(
                f"{_FLAGS[target.kind]} {target.value:g}: out of reach, the network the search starts from "
                f"has {_figure(start.cost(target.kind), target.kind)} already; begin smaller, "
                f"e.g. --start crop={max(8, search.start.crop // 16 * 8)},width={search.start.width / 2:g}"
            )
    largest = _largest(search, room)
    if largest is None:
        return
    most = meter.measure([largest])[0]
    if all(target.value > most.cost(target.kind) for target in search.targets):
        told = ", ".join(_too_much(target, most.cost(target.kind)) for target in search.targets)
        raise UsageError(f"{told}; the largest network these axes allow is {largest}. Name more --axes")


def _too_much(target: Target, most: float) -> str:
    return f"{_FLAGS[target.kind]} {target.value:g}: out of reach, at most {_figure(most, target.kind)}"


def _figure(value: float, kind: Cost) -> str:
    return f"{value:,.0f} {UNITS[kind]}" if kind == "params" else f"{value:.3g} {UNITS[kind]}"


def _largest(search: SearchConfig, room: Room) -> Factors | None:
    """The largest network; None where an axis has no end."""
    if room.short_side is None or room.num_frames is None:
        return None
    if any(axis not in _CLIP_AXES for axis in search.axes):
        return None
    point = search.start
    for axis in (axis for axis in _CLIP_AXES if axis in search.axes):
        point = list(_growth(axis, point, search, room))[-1]
    return point


def _growth(axis: Axis, point: Factors, search: SearchConfig, room: Room) -> Iterator[Factors]:
    yield point
    if axis in usable_axes(point, search.axes, room):
        yield from values(axis, point, room=room, duration=first_duration(search, room))
