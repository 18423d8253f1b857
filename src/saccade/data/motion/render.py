"""One `motion` clip as an array of frames."""

from __future__ import annotations

import zlib

import numpy as np

from saccade.data.motion.events import MOTION_CLASSES, PAIRS, Event, progress_curve
from saccade.data.motion.scene import Scene
from saccade.errors import UsageError

MOTION_VERSION = 1
"""Grows when the same seed gives other frames."""


def render_clip(
    class_name: str,
    *,
    seed: int,
    split: str = "train",
    index: int = 0,
    size: tuple[int, int] = (96, 112),
    num_frames: tuple[int, int] = (40, 52),
) -> np.ndarray:
    """Draw the scene of clip ``index`` of a class and render it.

    Args:
        class_name: one of `MOTION_CLASSES`.
        seed: seed of the data set; with split, class and index it determines every pixel.
        size: (height, width) in pixels.
        num_frames: inclusive range the length is drawn from.

    Returns:
        uint8 (T, H, W, 3) RGB. The second class of a pair is rendered by the generator of the first, with
        another scene, and reversed in time.

    Raises:
        UsageError: there is no such class.
    """
    if class_name not in MOTION_CLASSES:
        raise UsageError(f"class_name: no class {class_name!r}; classes are {', '.join(MOTION_CLASSES)}")
    rng = np.random.default_rng([MOTION_VERSION, seed, zlib.crc32(f"{split}/{class_name}".encode()), index])
    forward, _, event = next(pair for pair in PAIRS if class_name in pair[:2])
    frames = render_forward(event, rng, size=size, num_frames=num_frames)
    return frames if class_name == forward else np.ascontiguousarray(frames[::-1])


def render_forward(
    event: Event, rng: np.random.Generator, *, size: tuple[int, int], num_frames: tuple[int, int]
) -> np.ndarray:
    """A random scene in which ``event`` runs from its beginning to its end, uint8 (T, H, W, 3)."""
    length = int(rng.integers(num_frames[0], num_frames[1] + 1))
    height, width = size
    scene = Scene.draw(rng, height, width, length)
    paint = event(rng, height, width)
    frames = np.empty((length, height, width, 3), np.uint8)
    for t, progress in enumerate(progress_curve(rng, length)):
        frame = scene.begin(t, length)
        paint(frame, float(progress), *scene.camera(t))
        frames[t] = scene.finish(frame, t)
    return frames
