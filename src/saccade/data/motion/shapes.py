"""Anti-aliased textured shapes painted onto float frames, from signed distances.

Legend: frames are float32 (H, W, 3) in 0..255; x points right, y points down; distances and radii are pixels
unless they are called local, where 1 is the radius of the shape.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Box = tuple[int, int, int, int]  # top, bottom, left, right

_HALO = 5.0  # pixels over which the dark surround of a shape fades


@dataclass(frozen=True)
class Sprite:
    """How a shape looks. Where it is, how large and how turned, is said when it is painted."""

    shape: str
    pattern: str
    colours: tuple[Array, Array, Array]  # two of the pattern, one of the rim
    frequency: float


def disc(x: Array, y: Array) -> Array:
    """Local signed distance from the edge of a disc, negative inside."""
    return np.hypot(x, y) - 1.0


def square(x: Array, y: Array) -> Array:
    """Local signed distance from the edge of a square, negative inside."""
    dx, dy = np.abs(x) - 0.62, np.abs(y) - 0.62
    return np.hypot(np.maximum(dx, 0), np.maximum(dy, 0)) + np.minimum(np.maximum(dx, dy), 0) - 0.2


def triangle(x: Array, y: Array) -> Array:
    """Local signed distance from the edge of a triangle, negative inside."""
    side = 0.866 * np.abs(x) - 0.5 * y
    return np.maximum(side, y) - 0.55


def star(x: Array, y: Array) -> Array:
    """Local signed distance from the edge of a star, negative inside."""
    angle = np.arctan2(y, x)
    return (np.hypot(x, y) - (0.76 + 0.24 * np.cos(5 * angle))) * 0.75


def cross(x: Array, y: Array) -> Array:
    """Local signed distance from the edge of a cross, negative inside."""
    ax, ay = np.abs(x), np.abs(y)
    bar = np.maximum(np.minimum(ax, ay) - 0.36, np.maximum(ax, ay) - 0.95)
    return bar.astype(np.float32)


def drop(x: Array, y: Array) -> Array:
    """A disc drawn out to a point on one side."""
    ball = np.hypot(x + 0.3, y) - 0.7
    cone = np.maximum(0.5 * x + 0.866 * np.abs(y) - 0.5, -0.2 - x)
    return np.minimum(ball, cone)


SHAPES: dict[str, Callable[[Array, Array], Array]] = {
    "disc": disc,
    "square": square,
    "triangle": triangle,
    "star": star,
    "cross": cross,
    "drop": drop,
}


def _step(value: Array) -> Array:
    return np.clip(value + 0.5, 0.0, 1.0)


PATTERNS: dict[str, Callable[[Array, Array, float], Array]] = {
    "halves": lambda x, y, f: _step(x * 9),
    "stripes": lambda x, y, f: _step(np.sin(x * f) * 2),
    "dots": lambda x, y, f: _step(np.sin(x * f) * np.sin(y * f) * 4 - 0.8),
    "shade": lambda x, y, f: _step((x + y) * 0.6),
}


def make_sprite(rng: np.random.Generator, *, shapes: tuple[str, ...], patterns: tuple[str, ...]) -> Sprite:
    """A sprite of vivid colours with a light or dark rim."""
    base = rng.uniform(0, 1)
    first = _colour(base, rng.uniform(0.6, 1.0), rng.uniform(0.8, 1.0))
    second = _colour(base + rng.uniform(0.25, 0.75), rng.uniform(0.5, 1.0), rng.uniform(0.2, 0.7))
    rim = np.full(3, rng.choice([20.0, 245.0]), np.float32)
    return Sprite(
        str(rng.choice(shapes)), str(rng.choice(patterns)), (first, second, rim), float(rng.uniform(4, 9))
    )


def _colour(hue: float, saturation: float, value: float) -> Array:
    """HSV in 0..1 to RGB in 0..255."""
    offsets = (np.array([5.0, 3.0, 1.0]) + 6.0 * hue) % 6.0
    rgb = value - value * saturation * np.clip(np.minimum(offsets, 4.0 - offsets), 0.0, 1.0)
    return (255.0 * rgb).astype(np.float32)


def paint(
    frame: Array,
    sprite: Sprite,
    *,
    x: float,
    y: float,
    radius: float,
    angle: float = 0.0,
    alpha: float = 1.0,
    grain: Array | None = None,
) -> None:
    """Paint ``sprite`` with its centre at (x, y), turned clockwise by ``angle`` radians.

    ``grain`` (H, W) in 0..1 makes the sprite appear grain by grain as ``alpha`` grows; without it, it fades.
    """
    box = _box(frame, [(x, y, radius)])
    if box is None:
        return
    local_x, local_y = _local(box, x, y, radius, angle)
    distance = SHAPES[sprite.shape](local_x, local_y)
    pattern = PATTERNS[sprite.pattern](local_x, local_y, sprite.frequency)
    top, bottom, left, right = box
    opacity: float | Array = alpha
    if grain is not None:
        opacity = np.clip((alpha * 1.2 - 0.1 - grain[top:bottom, left:right]) * 10 + 0.5, 0.0, 1.0)
    _blend(frame[top:bottom, left:right], distance * radius, pattern, sprite, opacity)


def paint_joined(
    frame: Array, sprite: Sprite, centres: list[tuple[float, float]], *, radius: float, angle: float
) -> None:
    """Paint the sprite around each centre; where two come near each other their outlines flow together."""
    box = _box(frame, [(x, y, radius) for x, y in centres])
    if box is None:
        return
    distance: Array | None = None
    pattern: Array | None = None
    for x, y in centres:
        local_x, local_y = _local(box, x, y, radius, angle)
        own = SHAPES[sprite.shape](local_x, local_y)
        own_pattern = PATTERNS[sprite.pattern](local_x, local_y, sprite.frequency)
        if distance is None or pattern is None:
            distance, pattern = own, own_pattern
            continue
        nearer = np.clip(0.5 + (distance - own) / 0.5, 0.0, 1.0)
        pattern = pattern + (own_pattern - pattern) * nearer
        blend = np.maximum(0.5 - np.abs(distance - own), 0.0)
        distance = np.minimum(distance, own) - blend * blend * 0.5
    assert distance is not None
    assert pattern is not None
    top, bottom, left, right = box
    _blend(frame[top:bottom, left:right], distance * radius, pattern, sprite, 1.0)


def _box(frame: Array, circles: list[tuple[float, float, float]]) -> Box | None:
    """The pixels that the circles and their surround can touch, None if outside the frame."""
    height, width = frame.shape[:2]
    reach = [radius * 1.1 + _HALO for _, _, radius in circles]
    left = max(0, int(min(x - r for (x, _, _), r in zip(circles, reach, strict=True))))
    top = max(0, int(min(y - r for (_, y, _), r in zip(circles, reach, strict=True))))
    right = min(width, int(max(x + r for (x, _, _), r in zip(circles, reach, strict=True))) + 2)
    bottom = min(height, int(max(y + r for (_, y, _), r in zip(circles, reach, strict=True))) + 2)
    return (top, bottom, left, right) if left < right and top < bottom else None


def _local(box: Box, x: float, y: float, radius: float, angle: float) -> tuple[Array, Array]:
    top, bottom, left, right = box
    across = ((np.arange(left, right, dtype=np.float32) - np.float32(x)) / np.float32(radius))[None, :]
    down = ((np.arange(top, bottom, dtype=np.float32) - np.float32(y)) / np.float32(radius))[:, None]
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    return across * cos + down * sin, down * cos - across * sin


def _blend(part: Array, distance: Array, pattern: Array, sprite: Sprite, opacity: float | Array) -> None:
    """Composite onto ``part`` in place: a dark surround, the pattern, the rim. ``distance`` in pixels."""
    first, second, rim = sprite.colours
    cover = _step(-distance) * opacity
    surround = np.clip(1.0 - np.maximum(distance, 0.0) / _HALO, 0.0, 1.0) * 0.4 * opacity
    on_rim = _step(distance + 2.0)[..., None]
    colour = first + (second - first) * pattern[..., None]
    colour += (rim - colour) * on_rim
    part *= (1.0 - surround)[..., None]
    part += (colour - part) * cover[..., None]
