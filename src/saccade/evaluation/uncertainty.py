"""How far a figure would lie off if it had been taken on other videos of the same kind."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

GROUPS = 20


def share_error(share: float, num: int) -> float:
    """Standard error of a share of ``num`` independent videos."""
    return math.sqrt(share * (1 - share) / num) if num else math.nan


def jackknife_error(figure: Callable[[NDArray[np.bool_]], float], num_videos: int) -> float:
    """Standard error of any figure, by leaving out a twentieth of the videos at a time.

    The delete-a-group jackknife (Shao and Wu, 1989): the mean average precision has no formula for it. Every
    twentieth video is left out together, so that a list sorted by class loses some of each.

    Args:
        figure: the figure of the videos where its argument, bool (num_videos,), is true; ``nan`` where those
            have none.

    Returns:
        The standard error; ``nan`` with fewer than two videos.
    """
    groups = min(GROUPS, num_videos)
    member = np.arange(num_videos) % groups if groups else np.zeros(0, int)
    figures = np.array([figure(member != group) for group in range(groups)])
    figures = figures[np.isfinite(figures)]
    if len(figures) < 2:
        return math.nan
    return float(math.sqrt((len(figures) - 1) * figures.var()))
