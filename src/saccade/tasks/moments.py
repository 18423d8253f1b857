"""From scores at some frames of a video to scores at all of them, and at the moments that are evaluated.

Shape letters: K classes, M scored frames a stride apart, N frames of a video.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

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


def charades_frames(num_frames: int) -> NDArray[np.int64]:
    """The frames of the 25 moments of a video, the first at its start: floor(j * num_frames / 25)."""
    return np.arange(CHARADES_POINTS) * num_frames // CHARADES_POINTS


def charades_times(duration: float) -> NDArray[np.float64]:
    """The 25 moments in seconds: j * duration / 25, as in Charades_v1_localize.m."""
    return np.arange(CHARADES_POINTS) * duration / CHARADES_POINTS
