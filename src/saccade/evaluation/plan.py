"""Which frames of a video are decoded, and how views are cut from them.

All view sets of a call share one decoding: the plan holds the union of their frames. A view that several
sets have (the centre crop of ``10x1`` and of ``10x3``), or that one set has twice (every clip of a very
short video), is computed once and counted as often as it occurs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from saccade.clip import ClipSpec
from saccade.video.sampling import sample_test
from saccade.video.views import Views


@dataclass(frozen=True)
class PlannedClip:
    """One clip, and the views cut from it.

    Attributes:
        frames: positions in the plan's ``indices``, one per frame of the clip.
        tight: the frames' short side is made equal to the crop before cutting (sets of three crops).
        crops: 0, 1, 2 for left, centre, right (top, middle, bottom in portrait), each with how often each
            view set holds that view.
    """

    frames: tuple[int, ...]
    tight: bool
    crops: dict[int, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class VideoPlan:
    """``indices``: the frames to decode, rising, each once. ``clips``: what is made of them."""

    indices: NDArray[np.int64]
    clips: tuple[PlannedClip, ...]


def plan_video(
    num_video_frames: int,
    fps: float,
    clip: ClipSpec,
    view_sets: Sequence[Views],
    *,
    rule: str = "saccade",
    shuffle_seed: tuple[int, ...] | None = None,
) -> VideoPlan:
    """Plan all views of one video.

    One crop is the centre of frames with the short side ``clip.short_side``. Three crops lie left, centre
    and right in frames whose short side is the crop itself (PySlowFast, datasets/kinetics.py).

    Args:
        shuffle_seed: permute the frames of each clip, by this seed and the clip's own frames; None keeps
            the order.
    """
    found: dict[tuple[tuple[int, ...], bool], dict[int, list[int]]] = {}
    for position, views in enumerate(view_sets):
        clips = sample_test(
            num_video_frames,
            fps,
            num_frames=clip.num_frames,
            stride=clip.stride,
            num_clips=views.num_clips,
            target_fps=clip.target_fps,
            rule=rule,
        )
        tight = views.num_crops > 1 and clip.short_side != clip.crop
        for frames in clips:
            crops = found.setdefault((tuple(_shuffled(frames, shuffle_seed).tolist()), tight), {})
            for crop in range(views.num_crops) if views.num_crops > 1 else (1,):
                crops.setdefault(crop, [0] * len(view_sets))[position] += 1
    indices = np.unique(np.array([frames for frames, _ in found], dtype=np.int64))
    planned = tuple(
        PlannedClip(
            tuple(np.searchsorted(indices, frames).tolist()),
            tight,
            {crop: tuple(crops[crop]) for crop in sorted(crops)},
        )
        for (frames, tight), crops in found.items()
    )
    return VideoPlan(indices, planned)


def _shuffled(frames: NDArray[np.int64], seed: tuple[int, ...] | None) -> NDArray[np.int64]:
    if seed is None:
        return frames
    return np.random.default_rng([*seed, *frames.tolist()]).permutation(frames)
