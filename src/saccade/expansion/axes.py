"""The six expansion axes of X3D. A step expands an axis to the value that comes nearest to the target cost.

Paper: X3D (arXiv 2004.04730), sections 3.1 and 3.2. It defines what each axis expands, and that a step about
doubles the complexity. It does not give the step sizes. The ones here (crop 8 pixels, bottleneck 0.25, depth
0.1, width 0.05) reproduce the published networks: doubling the multiply-adds from X2D gives the published
factors 2.25, 160, 2.2, 224, 312, 5.0 and 1.45.
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
"""X-Temporal raises the number of frames and the frame rate together: rate ~ frames ** RATE_EXPONENT.
0.25 expands X3D-XS's 4 frames of stride 12 to 8 of stride 10, and X-Fast those to X3D-M's 16 of stride 5."""

_MAX_VALUES = 4096


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits that the data set sets to a search; None means unlimited.

    Attributes:
        short_side: short side of the median video, in pixels.
        num_frames: length of the median video, in frames at the clip's frame rate.
        by_segments: clips take one frame from each segment of the whole video and ignore the stride.
        num_train, num_val: number of videos in each split; 0 if nothing is trained.
    """

    short_side: int | None = None
    num_frames: int | None = None
    by_segments: bool = False
    num_train: int = 0
    num_val: int = 0
    num_classes: int = 400

    def span_fits(self, frames: int, stride: int) -> bool:
        """Whether a clip of ``frames`` frames with this stride fits into a video."""
        return self.num_frames is None or (frames - 1) * stride + 1 <= self.num_frames


def axis_values(axis: Axis, parent: Factors, *, limits: Limits, duration: int) -> Iterator[Factors]:
    """All expansions of ``parent`` along ``axis`` within the limits, smallest first.

    Args:
        duration: source frames that the expanded clip spans if the parent's clip has a single frame.
    """
    return islice(_AXIS_VALUES[axis](parent, limits, duration), _MAX_VALUES)


def _fast(parent: Factors, limits: Limits, duration: int) -> Iterator[Factors]:
    if limits.by_segments:  # a clip always spans the whole video: the same as X-Temporal
        yield from _temporal(parent, limits, duration)
        return
    length = duration if parent.frames == 1 else parent.duration
    for frames in count(parent.frames + 1):
        stride = _nearest_integer(length / frames)
        while stride and not limits.span_fits(frames, stride):
            stride -= 1  # the parent's duration counts a stride after its last frame, maybe past the video
        if not stride:
            return
        if parent.frames > 1 and stride >= parent.stride:
            if length / frames <= 1:
                return
            continue  # not enough frames yet for a smaller stride
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
            stride = _nearest_integer(duration / frames)
        else:
            stride = _nearest_integer(parent.stride * (parent.frames / frames) ** RATE_EXPONENT)
        while not limits.span_fits(frames, stride):
            stride -= 1
        if parent.frames == 1 or frames * stride > parent.duration:  # otherwise this is X-Fast
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


_AXIS_VALUES: dict[Axis, Callable[[Factors, Limits, int], Iterator[Factors]]] = {
    "fast": _fast,
    "temporal": _temporal,
    "spatial": _spatial,
    "depth": _steps("depth", DEPTH_STEP),
    "width": _steps("width", WIDTH_STEP),
    "bottleneck": _steps("bottleneck", BOTTLENECK_STEP),
}


def _nearest_integer(value: float) -> int:
    """The integer >= 1 whose ratio to ``value`` is nearest to 1."""
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

    Among values of equal cost the largest is returned. None if even the last value of the axis costs less
    than sqrt(``rate``) times the parent's, i.e. less than half a step.
    """
    parent_cost = cost(parent)
    target = parent_cost * rate
    options = _LazyList(axis_values(axis, parent, limits=limits, duration=duration))
    above = first_at_least(options, target, cost)
    neighbours = [index for index in (above - 1, above) if index >= 0 and options.has(index)]
    if not neighbours:
        return None
    best = min(neighbours, key=lambda index: abs(math.log(cost(options[index]) / target)))
    while options.has(best + 1) and cost(options[best + 1]) == cost(options[best]):
        best += 1
    return options[best] if cost(options[best]) >= parent_cost * math.sqrt(rate) * (1 - 1e-9) else None


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
    for value in axis_values(axis, parent, limits=limits, duration=duration):
        if value == expanded or not fits(value):
            return best
        best = value
    return best


def usable_axes(parent: Factors, axes: Sequence[Axis], limits: Limits) -> list[Axis]:
    """``axes`` in the order of `AXES`, without X-Fast where it would equal X-Temporal: a single frame has no
    frame rate, and a clip of segments always spans the whole video.
    """
    same = parent.frames == 1 or limits.by_segments
    return [axis for axis in AXES if axis in axes and not (axis == "fast" and same and "temporal" in axes)]


def parse_axes(text: str) -> tuple[Axis, ...]:
    """Parse ``spatial,depth``.

    Raises:
        UsageError: unknown axis.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    wrong = next((name for name in names if name not in AXES), None)
    if wrong is not None or not names:
        raise UsageError(f"--axes: {wrong or text!r} is not an axis; axes are {', '.join(AXES)}")
    return tuple(axis for axis in AXES if axis in names)


class _LazyList:
    """A list that reads its iterator only up to the highest index asked for."""

    def __init__(self, source: Iterator[Factors]) -> None:
        self._source, self._items = source, list[Factors]()

    def has(self, index: int) -> bool:
        self._items += islice(self._source, max(0, index + 1 - len(self._items)))
        return index < len(self._items)

    def __getitem__(self, index: int) -> Factors:
        self.has(index)
        return self._items[index]


def first_at_least(options: _LazyList, target: float, cost: Callable[[Factors], float]) -> int:
    """Index of the first option that costs at least ``target``, or the number of options; sorted by cost."""
    step, low = 1, -1
    while options.has(low + step) and cost(options[low + step]) < target:
        low += step
        step *= 2
    high = low + step
    while high - low > 1:
        middle = (low + high) // 2
        if options.has(middle) and cost(options[middle]) < target:
            low = middle
        else:
            high = middle
    return high
