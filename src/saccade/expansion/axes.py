"""The six expansions of X3D, each to the usable value whose cost is nearest to the cost of a step.

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
from saccade.expansion.config import AXES, Axis, Factors

CROP_STEP = 8
BOTTLENECK_STEP = 0.25
DEPTH_STEP = 0.1
WIDTH_STEP = 0.05
RATE_EXPONENT = 0.25
"""X-Temporal lengthens the clip and raises the frame rate at once; the rate takes this part of the factor.
A quarter leads from X3D-XS's 4 frames every 12 to 8 every 10, whose X-Fast is X3D-M's 16 every 5."""

_MOST_VALUES = 4096


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the data set allows a search; None is no limit.

    Attributes:
        short_side: pixels of a typical video's short side.
        num_frames: frames of a typical video, at the clip's frame rate.
        by_segments: a clip has a frame of each segment of the whole video, whatever its stride.
        num_train, num_val: videos of the splits; 0 where nothing is trained.
    """

    short_side: int | None = None
    num_frames: int | None = None
    by_segments: bool = False
    num_train: int = 0
    num_val: int = 0
    num_classes: int = 400

    def span_fits(self, frames: int, stride: int) -> bool:
        """Whether a video has that many frames that far apart."""
        return self.num_frames is None or (frames - 1) * stride + 1 <= self.num_frames


def values(axis: Axis, parent: Factors, *, limits: Limits, duration: int) -> Iterator[Factors]:
    """What ``axis`` can expand ``parent`` to, in order of growth, within the limits.

    Args:
        duration: frames of the source that a clip of several frames spans if the parent has only one.
    """
    return islice(_VALUES[axis](parent, limits, duration), _MOST_VALUES)


def _fast(parent: Factors, limits: Limits, duration: int) -> Iterator[Factors]:
    if limits.by_segments:  # all frames there are lie in the same time: the same as X-Temporal
        yield from _temporal(parent, limits, duration)
        return
    length = duration if parent.frames == 1 else parent.duration
    for frames in count(parent.frames + 1):
        stride = _nearest_whole(length / frames)
        while stride and not limits.span_fits(frames, stride):
            stride -= 1  # after the parent's last frame, its stride may reach beyond the video
        if not stride:
            return
        if parent.frames > 1 and stride >= parent.stride:
            if length / frames <= 1:
                return
            continue  # too few more frames to raise the rate by a whole step
        yield parent.replace(frames=frames, stride=stride)
        if length / (frames + 1) < 1:
            return


def _temporal(parent: Factors, limits: Limits, duration: int) -> Iterator[Factors]:
    for frames in count(parent.frames + 1):
        if not limits.span_fits(frames, 1):
            return
        if limits.by_segments:
            yield parent.replace(frames=frames)
            continue
        if parent.frames == 1:
            stride = _nearest_whole(duration / frames)
        else:
            stride = _nearest_whole(parent.stride * (parent.frames / frames) ** RATE_EXPONENT)
        while not limits.span_fits(frames, stride):
            stride -= 1
        if parent.frames == 1 or frames * stride > parent.duration:  # else it is X-Fast
            yield parent.replace(frames=frames, stride=stride)


def _spatial(parent: Factors, limits: Limits, duration: int) -> Iterator[Factors]:
    for crop in count((parent.crop // CROP_STEP + 1) * CROP_STEP, CROP_STEP):
        if limits.short_side is not None and crop > limits.short_side:
            return
        yield parent.replace(crop=crop)


def _steps(field: str, step: float) -> Callable[[Factors, Limits, int], Iterator[Factors]]:
    def grow(parent: Factors, limits: Limits, duration: int) -> Iterator[Factors]:
        first = math.floor(getattr(parent, field) / step + 1e-6) + 1
        for number in count(first):
            yield parent.replace(**{field: round(number * step, 6)})

    return grow


_VALUES: dict[Axis, Callable[[Factors, Limits, int], Iterator[Factors]]] = {
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
    limits: Limits,
    duration: int,
) -> Factors | None:
    """``parent`` expanded along ``axis`` so that its cost comes nearest to ``rate`` times the parent's.

    Of values that cost the same the largest is taken. None if the axis cannot grow enough: even its last
    value costs less than the square root of ``rate`` times the parent's, that is less than half a step.
    """
    base = cost(parent)
    goal = base * rate
    options = _Lazy(values(axis, parent, limits=limits, duration=duration))
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
    limits: Limits,
    duration: int,
) -> Factors | None:
    """The largest value on ``axis`` between ``parent`` and ``expanded`` that ``fits``; None if none does."""
    best = None
    for value in values(axis, parent, limits=limits, duration=duration):
        if value == expanded or not fits(value):
            return best
        best = value
    return best


def usable_axes(parent: Factors, axes: Sequence[Axis], limits: Limits) -> list[Axis]:
    """``axes`` in their usual order, without X-Fast where it is the same as X-Temporal: one frame has no
    rate, and a clip of segments always spans the whole video.
    """
    same = parent.frames == 1 or limits.by_segments
    return [axis for axis in AXES if axis in axes and not (axis == "fast" and same and "temporal" in axes)]


def parse_axes(text: str) -> tuple[Axis, ...]:
    """``spatial,depth`` as axes.

    Raises:
        UsageError: an unknown name.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    wrong = next((name for name in names if name not in AXES), None)
    if wrong is not None or not names:
        raise UsageError(f"--axes: {wrong or text!r} is not an axis; axes are {', '.join(AXES)}")
    return tuple(axis for axis in AXES if axis in names)


class _Lazy:
    """A list that is filled from an iterator as far as it is read."""

    def __init__(self, source: Iterator[Factors]) -> None:
        self._source, self._made = source, list[Factors]()

    def has(self, index: int) -> bool:
        self._made += islice(self._source, max(0, index + 1 - len(self._made)))
        return index < len(self._made)

    def __getitem__(self, index: int) -> Factors:
        self.has(index)
        return self._made[index]


def first_at_least(options: _Lazy, goal: float, cost: Callable[[Factors], float]) -> int:
    """Index of the first of ``options``, sorted by cost, that costs at least ``goal``; else their number."""
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
