"""Checks before a search trains anything: the limits of the data set, its size, the axes and the targets."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import median

from saccade.data.types import VideoDataset
from saccade.errors import DataError, UsageError, VideoError
from saccade.expansion.axes import Limits, axis_values, usable_axes
from saccade.expansion.candidate import candidate_config
from saccade.expansion.config import AXES, TARGET_FLAGS, UNITS, Axis, Cost, Factors, SearchConfig
from saccade.expansion.counting import Meter
from saccade.sampling.segments import SEGMENT_RULES
from saccade.sampling.timing import FrameTimes
from saccade.training.config import TrainConfig
from saccade.training.run import load_data
from saccade.training.timetable import make_timetable
from saccade.training.validate import validate
from saccade.video import open_video

MIN_STEPS = 10
"""With fewer optimiser steps, accuracies reflect the initialisation and not the network."""
MIN_VAL = 10
"""With fewer validation videos, one video is more than a tenth of the accuracy."""
NUM_SAMPLED = 48
"""Number of videos that are opened, evenly spread over the training split."""

_RAW_RATE_RULES = ("x3d-multigrid", "pyslowfast-charades")
_CLIP_AXES: tuple[Axis, ...] = ("temporal", "fast", "spatial")


def read_limits(base: TrainConfig) -> Limits:
    """The limits of a recipe's data set; sizes and lengths are medians over `NUM_SAMPLED` videos.

    Raises:
        UsageError, DataError: invalid data set, or none of the sampled videos can be opened.
    """
    train_set, val_set = load_data(base.replace(val_every=1))
    assert val_set is not None
    sizes, lengths = _sizes_and_lengths(train_set, base)
    return Limits(
        short_side=int(median(sizes)),
        num_frames=max(1, int(median(lengths))),
        by_segments=base.temporal_rule in SEGMENT_RULES,
        num_train=len(train_set),
        num_val=len(val_set),
        num_classes=len(train_set.class_names),
    )


def _sizes_and_lengths(dataset: VideoDataset, base: TrainConfig) -> tuple[list[int], list[float]]:
    """Short sides in pixels and lengths in frames at the clip's rate, of the samples that can be opened."""
    sizes, lengths, failed = list[int](), list[float](), list[VideoError]()
    count = min(NUM_SAMPLED, len(dataset.items))
    for item in (dataset.items[i * len(dataset.items) // count] for i in range(count)):
        try:
            with open_video(
                item.path, fps=item.fps, num_frames=item.num_frames, start=item.start, end=item.end
            ) as video:
                sizes.append(min(video.size))
                raw = base.temporal_rule in _RAW_RATE_RULES
                frames = FrameTimes.of(video).longest_section
                lengths.append(frames if raw else frames / video.fps * base.clip.target_fps)
        except VideoError as error:
            failed.append(error)
    if not sizes:
        raise DataError(f"{base.data}: none of {len(failed)} sampled videos can be opened ({failed[0]})")
    return sizes, lengths


def check_data(search: SearchConfig, limits: Limits) -> None:
    """Check that the data set is large enough for the number of epochs and for the first network's clip.

    Raises:
        DataError: too few training or validation clips.
        UsageError: the first network's clip is larger or longer than the videos.
        ConfigError: invalid recipe.
    """
    base = search.base
    if limits.num_train < base.batch_size:
        raise DataError(
            f"{base.data}: {limits.num_train} training clips do not fill a batch of {base.batch_size}; "
            "add clips or lower --batch-size"
        )
    steps = int(search.epochs * (limits.num_train // base.batch_size))
    if steps < MIN_STEPS:
        raise DataError(
            f"{base.data}: {search.epochs:g} epochs of {limits.num_train} clips are {steps} steps; at least "
            f"{MIN_STEPS} are needed to compare networks: raise --epochs, lower --batch-size or add clips"
        )
    if limits.num_val < MIN_VAL:
        raise DataError(
            f"{base.data}: {limits.num_val} validation videos, so one video is "
            f"{100 / max(limits.num_val, 1):.0f} % of the accuracy; at least {MIN_VAL} are needed"
        )
    start = search.start
    if limits.short_side is not None and start.crop > limits.short_side:
        raise UsageError(
            f"start: {start.crop} pixels, but the videos' short side is {limits.short_side}; "
            f"start smaller, e.g. --start crop={limits.short_side // 16 * 8}"
        )
    if not limits.span_fits(start.frames, 1 if limits.by_segments else start.stride):
        raise UsageError(
            f"start: {start.frames} frames of stride {start.stride} do not fit into the videos, which have "
            f"{limits.num_frames} frames"
        )
    config = candidate_config(search, start, name="start", seed=0, out=search.out)
    validate(config)
    make_timetable(config, limits.num_train)


def check_axes(search: SearchConfig, limits: Limits) -> None:
    """Raise `UsageError` if an axis chosen with ``--axes`` cannot be expanded, or if no axis can."""
    duration = initial_duration(search, limits)
    blocked = [
        axis
        for axis in search.axes
        if next(axis_values(axis, search.start, limits=limits, duration=duration), None) is None
    ]
    all_axes = set(search.axes) == set(AXES)
    if blocked and (not all_axes or len(blocked) == len(search.axes)):
        raise UsageError(
            f"axes: {blocked[0]} cannot be expanded: {_blocked_reason(blocked[0], search.start, limits)}"
        )


def _blocked_reason(axis: Axis, start: Factors, limits: Limits) -> str:
    if axis == "spatial":
        return f"it starts at {start.crop} pixels and the videos' short side is {limits.short_side}"
    clip = f"{start.frames} frames of stride {start.stride}"
    return f"it starts at {clip} and the videos have {limits.num_frames} frames"


def initial_duration(search: SearchConfig, limits: Limits) -> int:
    """Source frames that the first clip with more than one frame spans, limited to the videos' length."""
    return search.duration if limits.num_frames is None else max(2, min(search.duration, limits.num_frames))


def check_targets(search: SearchConfig, meter: Meter, limits: Limits) -> None:
    """Raise `UsageError` if the first network exceeds a target or the largest network reaches none."""
    start = meter.measure([search.start])[0]
    for target in search.targets:
        if not target.met(start):
            raise UsageError(
                f"{TARGET_FLAGS[target.kind]} {target.value:g}: out of reach, the first network already has "
                f"{_with_unit(start.cost(target.kind), target.kind)}; start smaller, e.g. --start "
                f"crop={max(8, search.start.crop // 16 * 8)},width={search.start.width / 2:g}"
            )
    largest = _largest_network(search, limits)
    if largest is None:
        return
    most = meter.measure([largest])[0]
    if all(target.value > most.cost(target.kind) for target in search.targets):
        reasons = ", ".join(
            f"{TARGET_FLAGS[target.kind]} {target.value:g}: out of reach, at most "
            f"{_with_unit(most.cost(target.kind), target.kind)}"
            for target in search.targets
        )
        raise UsageError(f"{reasons}; the largest network of these axes is {largest}. Give more --axes")


def _with_unit(value: float, kind: Cost) -> str:
    return f"{value:,.0f} {UNITS[kind]}" if kind == "params" else f"{value:.3g} {UNITS[kind]}"


def _largest_network(search: SearchConfig, limits: Limits) -> Factors | None:
    """The largest network of these axes; None if an axis is unlimited."""
    if limits.short_side is None or limits.num_frames is None:
        return None
    if any(axis not in _CLIP_AXES for axis in search.axes):
        return None
    point = search.start
    for axis in (axis for axis in _CLIP_AXES if axis in search.axes):
        point = list(_growth(axis, point, search, limits))[-1]
    return point


def _growth(axis: Axis, point: Factors, search: SearchConfig, limits: Limits) -> Iterator[Factors]:
    yield point
    if axis in usable_axes(point, search.axes, limits):
        yield from axis_values(axis, point, limits=limits, duration=initial_duration(search, limits))
