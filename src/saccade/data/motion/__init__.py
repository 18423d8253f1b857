"""`motion`: a synthetic data set whose classes come in pairs that differ only in the order of frames."""

from __future__ import annotations

from saccade.data.motion.events import MOTION_CLASSES, PAIRS
from saccade.data.motion.files import MOTION_FILE, read_motion_file
from saccade.data.motion.make import MotionSpec, make_motion
from saccade.data.motion.render import MOTION_VERSION, render_clip
from saccade.data.motion.untrimmed import UntrimmedSpec, make_untrimmed

MOTION_PAIRS: tuple[tuple[str, str], ...] = tuple((first, second) for first, second, _ in PAIRS)
"""Pairs of class names; each class is the other played backwards."""

__all__ = [
    "MOTION_CLASSES",
    "MOTION_FILE",
    "MOTION_PAIRS",
    "MOTION_VERSION",
    "MotionSpec",
    "UntrimmedSpec",
    "make_motion",
    "make_untrimmed",
    "read_motion_file",
    "render_clip",
]
