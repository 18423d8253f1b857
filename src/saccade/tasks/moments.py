"""From scores at some frames of a video to scores at all of them, and at the moments that are evaluated.

Shape letters: K classes, M scored frames a stride apart, N frames of a video.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from saccade.clip import ClipSpec
from saccade.sampling.timing import FrameTimes, Steps

CHARADES_POINTS = 25
"""Moments of a video that the official evaluation of Charades looks at."""


def stretch_weights(num_from: int, num_to: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray]:
    """Linear interpolation of ``num_from`` values to ``num_to``: the lower and the upper neighbour of each,
    and the weight of the upper, all (num_to,).

    The rule is that of PyTorch's ``interpolate(mode="linear")`` without aligned corners, as X3D-Multigrid
    uses it: a value stands for a cell, and lies in its middle.
    """
    places = np.maximum((np.arange(num_to) + 0.5) * num_from / num_to - 0.5, 0.0)
    below = places.astype(np.int64)
    return below, np.minimum(below + 1, num_from - 1), places - below


def stretch(values: ArrayLike, num_to: int) -> NDArray[np.float64]:
    """(M, K) -> (num_to, K), see `stretch_weights`."""
    rows = np.asarray(values, np.float64)
    below, above, weight = stretch_weights(len(rows), num_to)
    return rows[below] + (rows[above] - rows[below]) * weight[:, None]


def frame_weights(
    num_points: int, video: FrameTimes, clip: ClipSpec | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray]:
    """`stretch_weights` from the points of `saccade.sampling.temporal.frame_grid` to every frame of a video.

    Where the rate varies, frames and points lie where their times are, no weight crosses a gap, and a frame
    that stands alone in one has the value of the last point before it.
    """
    if not video.varies:
        return stretch_weights(num_points, video.num_frames)
    assert clip is not None
    counts = Steps(video, clip.target_fps).points(clip.stride)
    offsets = np.cumsum([0, *counts[:-1]])
    firsts, frames = [first for first, _ in video.segments], np.arange(video.num_frames)
    segment = np.maximum(np.searchsorted(firsts, frames, side="right") - 1, 0)
    middle = (video.seconds(frames) + video.ends(frames)) / 2 - video.seconds(firsts)[segment]
    last = np.array(counts)[segment] - 1
    position = np.clip(middle * clip.target_fps / clip.stride - 0.5, 0, last)
    below = position.astype(np.int64)
    return offsets[segment] + below, offsets[segment] + np.minimum(below + 1, last), position - below


def stretch_to_frames(values: ArrayLike, video: FrameTimes, clip: ClipSpec | None) -> NDArray[np.float64]:
    """(M, K) -> (N, K), see `frame_weights`."""
    rows = np.asarray(values, np.float64)
    below, above, weight = frame_weights(len(rows), video, clip)
    return rows[below] + (rows[above] - rows[below]) * weight[:, None]


def charades_frames(num_frames: int, video: FrameTimes | None = None) -> NDArray[np.int64]:
    """The frames of the 25 moments of a video, the first at its start: floor(j * num_frames / 25); of a
    ``video`` whose rate varies those shown at the 25 moments.
    """
    if video is not None and video.varies:
        return video.at(charades_times(video.duration))
    return np.arange(CHARADES_POINTS) * num_frames // CHARADES_POINTS


def charades_times(duration: float) -> NDArray[np.float64]:
    """The 25 moments in seconds: j * duration / 25, as in Charades_v1_localize.m."""
    return np.arange(CHARADES_POINTS) * duration / CHARADES_POINTS
