"""The events of `motion`: what moves, as a function of a progress from 0 to 1.

Each event is one generator for two classes. The second class of a pair is the first played backwards, so the
frames of both classes come from one and the same distribution and only their order differs.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from saccade.data.motion.scene import Wobble
from saccade.data.motion.shapes import SHAPES, Array, make_sprite, paint, paint_joined

Paint = Callable[[Array, float, float, float], None]  # frame, progress 0..1, camera dx, camera dy
Event = Callable[[np.random.Generator, int, int], Paint]  # rng, height, width

_ANY_SHAPE = tuple(SHAPES)
_ANY_PATTERN = ("halves", "stripes", "dots", "shade")


def _slide(rng: np.random.Generator, height: int, width: int, *, horizontal: bool) -> Paint:
    """Crosses the frame and comes in again at the other side, from anywhere."""
    unit = min(height, width)
    sprite = make_sprite(rng, shapes=_ANY_SHAPE, patterns=_ANY_PATTERN)
    radius = rng.uniform(0.16, 0.24) * unit
    length, breadth = (width, height) if horizontal else (height, width)
    period = length + 1.6 * radius
    start, travel = rng.uniform(0, period), rng.uniform(0.75, 1.15) * period
    lane, slant = rng.uniform(0.3, 0.7) * breadth, rng.uniform(-0.08, 0.08) * breadth
    angle, turn = rng.uniform(0, 2 * np.pi), rng.uniform(-0.5, 0.5)

    def draw(frame: Array, progress: float, dx: float, dy: float) -> None:
        along = (start + travel * progress) % period - 0.8 * radius
        across = lane + slant * (progress - 0.5)
        x, y = (along, across) if horizontal else (across, along)
        paint(frame, sprite, x=x + dx, y=y + dy, radius=radius, angle=angle + turn * progress)

    return draw


def slide_right(rng: np.random.Generator, height: int, width: int) -> Paint:
    """Moves from left to right, and comes in again at the left."""
    return _slide(rng, height, width, horizontal=True)


def slide_down(rng: np.random.Generator, height: int, width: int) -> Paint:
    """Moves from top to bottom, and comes in again at the top."""
    return _slide(rng, height, width, horizontal=False)


def _place(rng: np.random.Generator, height: int, width: int, spread: float) -> Callable[[float], tuple]:
    """A place near the middle that drifts a little in any direction."""
    x, y = width * rng.uniform(0.5 - spread, 0.5 + spread), height * rng.uniform(0.5 - spread, 0.5 + spread)
    vx, vy = rng.uniform(-0.06, 0.06, 2) * min(height, width)
    return lambda progress: (x + vx * (progress - 0.5), y + vy * (progress - 0.5))


def approach(rng: np.random.Generator, height: int, width: int) -> Paint:
    """Grows three to five times larger."""
    sprite = make_sprite(rng, shapes=_ANY_SHAPE, patterns=_ANY_PATTERN)
    place = _place(rng, height, width, 0.1)
    smallest, growth = rng.uniform(0.08, 0.12) * min(height, width), rng.uniform(3.0, 5.0)
    angle, turn = rng.uniform(0, 2 * np.pi), rng.uniform(-0.5, 0.5)

    def draw(frame: Array, progress: float, dx: float, dy: float) -> None:
        x, y = place(progress)
        radius = smallest * growth**progress
        paint(frame, sprite, x=x + dx, y=y + dy, radius=radius, angle=angle + turn * progress)

    return draw


def rotate_clockwise(rng: np.random.Generator, height: int, width: int) -> Paint:
    """Rotates on the spot by about half a turn to a full one, so that no pose repeats."""
    sprite = make_sprite(rng, shapes=_ANY_SHAPE, patterns=("halves",))
    place = _place(rng, height, width, 0.12)
    radius = rng.uniform(0.26, 0.36) * min(height, width)
    angle, turn = rng.uniform(0, 2 * np.pi), rng.uniform(0.9, 2.0) * np.pi
    swell = Wobble.draw(rng, 0.08)

    def draw(frame: Array, progress: float, dx: float, dy: float) -> None:
        x, y = place(progress)
        size = radius * (1 + swell.at(round(progress * 40)))
        paint(frame, sprite, x=x + dx, y=y + dy, radius=size, angle=angle + turn * progress)

    return draw


def appear(rng: np.random.Generator, height: int, width: int) -> Paint:
    """Fades in, or comes together grain by grain."""
    sprite = make_sprite(rng, shapes=_ANY_SHAPE, patterns=_ANY_PATTERN)
    place = _place(rng, height, width, 0.15)
    radius = rng.uniform(0.24, 0.36) * min(height, width)
    angle, turn = rng.uniform(0, 2 * np.pi), rng.uniform(-0.5, 0.5)
    grain: Array | None = None
    if rng.random() < 0.5:
        coarse = rng.random((height // 4 + 1, width // 4 + 1), dtype=np.float32)
        grain = np.kron(coarse, np.ones((4, 4), np.float32))[:height, :width]

    def draw(frame: Array, progress: float, dx: float, dy: float) -> None:
        x, y = place(progress)
        turned = angle + turn * progress
        paint(frame, sprite, x=x + dx, y=y + dy, radius=radius, angle=turned, alpha=progress, grain=grain)

    return draw


def merge(rng: np.random.Generator, height: int, width: int) -> Paint:
    """Two of a kind come from opposite sides and flow into one."""
    unit = min(height, width)
    sprite = make_sprite(rng, shapes=_ANY_SHAPE, patterns=_ANY_PATTERN)
    place = _place(rng, height, width, 0.06)
    radius, reach = rng.uniform(0.13, 0.18) * unit, rng.uniform(0.3, 0.4) * unit
    axis, swing = rng.uniform(0, 2 * np.pi), rng.uniform(-0.3, 0.3)
    angle, turn = rng.uniform(0, 2 * np.pi), rng.uniform(-0.5, 0.5)

    def draw(frame: Array, progress: float, dx: float, dy: float) -> None:
        x, y = place(progress)
        half, direction = reach * (1 - progress), axis + swing * progress
        ox, oy = half * np.cos(direction), half * np.sin(direction)
        centres = [(x + dx - ox, y + dy - oy), (x + dx + ox, y + dy + oy)]
        paint_joined(frame, sprite, centres, radius=radius, angle=angle + turn * progress)

    return draw


PAIRS: tuple[tuple[str, str, Event], ...] = (
    ("slide_right", "slide_left", slide_right),
    ("slide_down", "slide_up", slide_down),
    ("approach", "recede", approach),
    ("rotate_clockwise", "rotate_anticlockwise", rotate_clockwise),
    ("appear", "vanish", appear),
    ("merge", "split", merge),
)
"""(class, the same played backwards, what paints the first)."""

MOTION_CLASSES: tuple[str, ...] = tuple(sorted(name for pair in PAIRS for name in pair[:2]))
"""The class names in label order."""


def progress_curve(rng: np.random.Generator, num_frames: int) -> Array:
    """Strictly rising from 0 to 1 with a speed that varies by up to half."""
    t = np.linspace(0.0, 1.0, num_frames)
    unevenness = rng.uniform(-0.5, 0.5)
    return (t + unevenness * np.sin(2 * np.pi * t) / (2 * np.pi)).astype(np.float32)
