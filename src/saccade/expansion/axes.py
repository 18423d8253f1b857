"""The six expansions of X3D, each to the usable value whose real cost is nearest to what a step may cost.

Paper: X3D (arXiv 2004.04730), sections 3.1 and 3.2. It says what each operation expands, and that a step
about doubles the complexity. The values it leaves open are chosen so that the published networks lie on the
way: with crops in steps of 8 pixels, bottlenecks of 0.25, depths of 0.1 and widths of 0.05, doubling the
multiply-adds leads from X2D to 2.25, 160, 2.2, 224, 312, 5.0 and 1.45, the published factors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count, islice

from saccade.errors import UsageError
from saccade.expansion.types import AXES, Axis, Factors

CROP_STEP = 8
BOTTLENECK_STEP = 0.25
DEPTH_STEP = 0.1
WIDTH_STEP = 0.05
RATE_SHARE = 0.25
"""X-Temporal lengthens the clip and raises the frame rate at once; the rate takes this share of the factor.
A quarter leads from X3D-XS's 4 frames every 12 to 8 every 10, whose X-Fast is X3D-M's 16 every 5."""

MEANINGS: dict[Axis, str] = {
    "fast": "more frames in the same time",
    "temporal": "a longer clip, at a slightly higher frame rate",
    "spatial": "larger frames",
    "depth": "more blocks in each stage",
    "width": "more channels in all layers",
    "bottleneck": "more channels in the depthwise convolutions",
}

_MOST_VALUES = 4096


@dataclass(frozen=True, kw_only=True)
class Room:
    """How far the clips of a data set let the axes go; None is no limit.

    Attributes:
        short_side: pixels of a typical video's short side.
        num_frames: frames of a typical video, at the clip's frame rate.
        by_segments: a clip takes a frame of each segment of the whole video, whatever its stride.
    """

    short_side: int | None = None
    num_frames: int | None = None
    by_segments: bool = False

    def span_fits(self, frames: int, stride: int) -> bool:
        """Whether a video has that many frames that far apart."""
        return self.num_frames is None or (frames - 1) * stride + 1 <= self.num_frames


def values(axis: Axis, parent: Factors, *, room: Room, duration: int) -> Iterator[Factors]:
    """What ``axis`` can expand ``parent`` to, in order of growth, while there is room.

    Args:
        duration: frames of the source that a clip of several frames stands for if the parent has only one.
    """
    return islice(_VALUES[axis](parent, room, duration), _MOST_VALUES)


def _fast(parent: Factors, room: Room, duration: int) -> Iterator[Factors]:
    if room.by_segments:  # all frames there are lie in the same time: the same as X-Temporal
        yield from _temporal(parent, room, duration)
        return
    length = duration if parent.frames == 1 else parent.duration
    for frames in count(parent.frames + 1):
        stride = _nearest_whole(length / frames)
        while stride and not room.span_fits(frames, stride):
            stride -= 1  # the parent's last frame may be the video's: its stride reaches beyond
        if not stride:
            return
        if parent.frames > 1 and stride >= parent.stride:
            if length / frames <= 1:
                return
            continue  # too few more frames to raise the rate by a whole step
        yield parent.replace(frames=frames, stride=stride)
        if length / (frames + 1) < 1:
            return


def _temporal(parent: Factors, room: Room, duration: int) -> Iterator[Factors]:
    for frames in count(parent.frames + 1):
        if not room.span_fits(frames, 1):
            return
        if room.by_segments:
            yield parent.replace(frames=frames)
            continue
        if parent.frames == 1:
            stride = _nearest_whole(duration / frames)
        else:
            stride = _nearest_whole(parent.stride * (parent.frames / frames) ** RATE_SHARE)
        while not room.span_fits(frames, stride):
            stride -= 1
        if parent.frames == 1 or frames * stride > parent.duration:  # else it is X-Fast
            yield parent.replace(frames=frames, stride=stride)


def _spatial(parent: Factors, room: Room, duration: int) -> Iterator[Factors]:
    for crop in count((parent.crop // CROP_STEP + 1) * CROP_STEP, CROP_STEP):
        if room.short_side is not None and crop > room.short_side:
            return
        yield parent.replace(crop=crop)


def _steps(field: str, step: float) -> Callable[[Factors, Room, int], Iterator[Factors]]:
    def grow(parent: Factors, room: Room, duration: int) -> Iterator[Factors]:
        first = math.floor(getattr(parent, field) / step + 1e-6) + 1
        for number in count(first):
            yield parent.replace(**{field: round(number * step, 6)})

    return grow


_VALUES: dict[Axis, Callable[[Factors, Room, int], Iterator[Factors]]] = {
    "fast": _fast,
    "temporal": _temporal,
    "spatial": _spatial,
    "depth": _steps("depth", DEPTH_STEP),
    "width": _steps("width", WIDTH_STEP),
    "bottleneck": _steps("bottleneck", BOTTLENECK_STEP),
}


def _nearest_whole(value: float) -> int:
    """The whole number whose ratio to ``value`` is nearest to 1; at least 1."""
    low = math.floor(value)
    if low < 1:
        return 1
    return low + 1 if value * value > low * (low + 1) else low


def expand(
    axis: Axis,
    parent: Factors,
    *,
    rate: float,
    cost: Callable[[Factors], float],
    room: Room,
    duration: int,
) -> Factors | None:
    """``parent`` expanded along ``axis`` so that its cost comes nearest to ``rate`` times the parent's.

    Of values that cost the same the largest is taken. None where the axis has no room: even its last value
    costs less than the square root of ``rate``, that is less than half a step.
    """
    base = cost(parent)
    goal = base * rate
    options = _Lazy(values(axis, parent, room=room, duration=duration))
    above = first_at_least(options, goal, cost)
    below = above - 1
    found = [index for index in (below, above) if index >= 0 and options.has(index)]
    if not found:
        return None
    best = min(found, key=lambda index: abs(math.log(cost(options[index]) / goal)))
    while options.has(best + 1) and cost(options[best + 1]) == cost(options[best]):
        best += 1
    chosen = options[best]
    return chosen if cost(chosen) >= base * math.sqrt(rate) * (1 - 1e-9) else None


def contract(
    axis: Axis,
    parent: Factors,
    expanded: Factors,
    *,
    fits: Callable[[Factors], bool],
    room: Room,
    duration: int,
) -> Factors | None:
    """The largest value on ``axis`` between ``parent`` and ``expanded`` that ``fits``; None if none does."""
    best = None
    for value in values(axis, parent, room=room, duration=duration):
        if value == expanded or not fits(value):
            return best
        best = value
    return best


def usable_axes(parent: Factors, axes: Sequence[Axis], room: Room) -> list[Axis]:
    """``axes`` in their usual order, X-Fast left out where it is the same as X-Temporal: with one frame there
    is no rate to raise, and a clip taken by segments has no time of its own.
    """
    same = parent.frames == 1 or room.by_segments
    return [axis for axis in AXES if axis in axes and not (axis == "fast" and same and "temporal" in axes)]


def parse_axes(text: str) -> tuple[Axis, ...]:
    """``spatial,depth`` as axes.

    Raises:
        UsageError: a name that is none.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    wrong = next((name for name in names if name not in AXES), None)
    if wrong is not None or not names:
        raise UsageError(f"--axes: {wrong or text!r} is no axis; axes are {', '.join(AXES)}")
    return tuple(axis for axis in AXES if axis in names)


class _Lazy:
    """A list that is made as far as it is looked at."""

    def __init__(self, source: Iterator[Factors]) -> None:
        self._source, self._made = source, list[Factors]()

    def has(self, index: int) -> bool:
        self._made += islice(self._source, max(0, index + 1 - len(self._made)))
        return index < len(self._made)

    def __getitem__(self, index: int) -> Factors:
        self.has(index)
        return self._made[index]


def first_at_least(options: _Lazy, goal: float, cost: Callable[[Factors], float]) -> int:
    """Index of the first of ``options``, which grow in cost, that costs ``goal``; else how many there are."""
    step, low = 1, -1
    while options.has(low + step) and cost(options[low + step]) < goal:
        low += step
        step *= 2
    high = low + step
    while high - low > 1:
        middle = (low + high) // 2
        if options.has(middle) and cost(options[middle]) < goal:
            low = middle
        else:
            high = middle
    return high
