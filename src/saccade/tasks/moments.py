"""Interpolation of scores over time, and the evaluated points in time of Charades.

Shape letters: K classes, M scored frames a stride apart, N frames of a video.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from saccade.clip import ClipSpec
from saccade.sampling.timing import FrameTimes, Steps

CHARADES_POINTS = 25
"""Points in time per video in the official evaluation of Charades."""


def interpolation_weights(num_from: int, num_to: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray]:
    """Linear interpolation of ``num_from`` values to ``num_to``: indices of the lower and upper neighbours
    and the weights of the upper ones, all (num_to,).

    As PyTorch's ``interpolate(mode="linear", align_corners=False)``, which X3D-Multigrid uses.
    """
    positions = np.maximum((np.arange(num_to) + 0.5) * num_from / num_to - 0.5, 0.0)
    below = positions.astype(np.int64)
    return below, np.minimum(below + 1, num_from - 1), positions - below


def interpolate(values: ArrayLike, num_to: int) -> NDArray[np.float64]:
    """(M, K) -> (num_to, K), see `interpolation_weights`."""
    rows = np.asarray(values, np.float64)
    below, above, weight = interpolation_weights(len(rows), num_to)
    return rows[below] + (rows[above] - rows[below]) * weight[:, None]


def frame_weights(
    num_points: int, video: FrameTimes, clip: ClipSpec | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray]:
    """`interpolation_weights` from the points of `saccade.sampling.temporal.frame_grid` to all frames of a
    video.

    With a variable frame rate they follow the times of points and frames, never across a gap. A single frame
    within a gap has the value of the last point before it.
    """
    if not video.varies:
        return interpolation_weights(num_points, video.num_frames)
    assert clip is not None
    counts = Steps(video, clip.target_fps).points(clip.stride)
    offsets = np.cumsum([0, *counts[:-1]])
    firsts, frames = [first for first, _ in video.sections], np.arange(video.num_frames)
    section = np.maximum(np.searchsorted(firsts, frames, side="right") - 1, 0)
    middle = (video.seconds(frames) + video.ends(frames)) / 2 - video.seconds(firsts)[section]
    last = np.array(counts)[section] - 1
    position = np.clip(middle * clip.target_fps / clip.stride - 0.5, 0, last)
    below = position.astype(np.int64)
    return offsets[section] + below, offsets[section] + np.minimum(below + 1, last), position - below


def interpolate_to_frames(values: ArrayLike, video: FrameTimes, clip: ClipSpec | None) -> NDArray[np.float64]:
    """(M, K) -> (N, K), see `frame_weights`."""
    rows = np.asarray(values, np.float64)
    below, above, weight = frame_weights(len(rows), video, clip)
    return rows[below] + (rows[above] - rows[below]) * weight[:, None]


def charades_frames(num_frames: int, video: FrameTimes | None = None) -> NDArray[np.int64]:
    """The frame indices of the 25 points: floor(j * num_frames / 25), or with a variable frame rate those
    shown at the 25 times.
    """
    if video is not None and video.varies:
        return video.at(charades_times(video.duration))
    return np.arange(CHARADES_POINTS) * num_frames // CHARADES_POINTS


def charades_times(duration: float) -> NDArray[np.float64]:
    """The 25 points in seconds: j * duration / 25, as in Charades_v1_localize.m."""
    return np.arange(CHARADES_POINTS) * duration / CHARADES_POINTS
