"""Which frames of a video are decoded, and how views are cut from them.

View sets that decode at the same size (usually all of them) are decoded together: the plan holds the union
of their frames. A view that several sets contain (the centre crop of ``10x1`` and of ``10x3``), or that one
set contains twice (every clip of a very short video), is computed once and counted as often as it occurs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saccade.clip import ClipSpec
from saccade.sampling.temporal import sample_test
from saccade.sampling.views import CropGrid, Views

WHOLE = -1
"""Stands for the whole frame where a crop number is expected."""


@dataclass(frozen=True)
class PlannedClip:
    """One clip, and the views cut from it.

    Attributes:
        frames: positions in the plan's ``indices``, one per frame of the clip.
        short_side: size to which the frames are resized before they are cropped.
        grid: offsets of the crops, see `saccade.sampling.views.crop_box`.
        crops: 0, 1, 2 for left, centre, right (top, middle, bottom in portrait), or `WHOLE`, each with the
            tag of that view; `plan_video` sets it to the number of times each view set contains the view.
    """

    frames: tuple[int, ...]
    short_side: int
    grid: CropGrid
    crops: dict[int, Any]


@dataclass(frozen=True, eq=False)
class VideoPlan:
    """``indices``: the frames to decode, rising and unique. ``clips``: the clips made of them."""

    indices: NDArray[np.int64]
    clips: tuple[PlannedClip, ...]


def plan_video(
    num_video_frames: int,
    fps: float,
    clip: ClipSpec,
    view_sets: Sequence[Views],
    *,
    decode_size: int | None = None,
    rule: str = "saccade",
    times: NDArray[np.float64] | None = None,
) -> VideoPlan:
    """Plan the views of one video that are cut from frames decoded at one size.

    Args:
        decode_size: short side of the decoded frames; sets that decode at another size (`Views.decode_size`)
            are not planned. None: ``clip.short_side``.
        rule: temporal rule of the sets that do not fix one.
        times: `VideoReader.times`; None: the rate is constant.
    """
    size = clip.short_side if decode_size is None else decode_size
    found: dict[tuple[tuple[int, ...], int, CropGrid], dict[int, list[int]]] = {}
    for position, views in enumerate(view_sets):
        if views.decode_size(clip.short_side, clip.crop) != size:
            continue
        clips = sample_test(
            num_video_frames,
            fps,
            num_frames=clip.num_frames,
            stride=clip.stride,
            num_clips=views.num_clips,
            target_fps=clip.target_fps,
            rule=views.rule or rule,
            times=times,
        )
        cut_size = views.cut_size(clip.short_side, clip.crop)
        for frames in clips:
            crops = found.setdefault((tuple(frames.tolist()), cut_size, views.grid), {})
            for crop in range(views.num_crops) if views.num_crops > 1 else (1,):
                crops.setdefault(crop, [0] * len(view_sets))[position] += 1
    indices = np.unique(np.array([frames for frames, *_ in found], dtype=np.int64))
    planned = tuple(
        PlannedClip(
            tuple(np.searchsorted(indices, frames).tolist()),
            cut_size,
            grid,
            {crop: tuple(crops[crop]) for crop in sorted(crops)},
        )
        for (frames, cut_size, grid), crops in found.items()
    )
    return VideoPlan(indices, planned)


def plan_clips(clips: NDArray[np.int64], *, short_side: int, num_crops: int) -> VideoPlan:
    """The views of clips (N, T), identical ones not merged; the tag of a view is the number of its clip.

    Args:
        short_side: size to which the frames are resized before they are cropped.
        num_crops: 1 (centre) or 3.
    """
    indices, rows = np.unique(clips, return_inverse=True)
    crops = range(3) if num_crops > 1 else (1,)
    planned = tuple(
        PlannedClip(tuple(frames.tolist()), short_side, "pyslowfast", dict.fromkeys(crops, number))
        for number, frames in enumerate(rows.reshape(clips.shape))
    )
    return VideoPlan(indices, planned)


def decode_sizes(clip: ClipSpec, view_sets: Sequence[Views]) -> tuple[int, ...]:
    """The short sides at which ``view_sets`` decode, each once; usually one."""
    return tuple(dict.fromkeys(views.decode_size(clip.short_side, clip.crop) for views in view_sets))
