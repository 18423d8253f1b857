"""Which frames of a video are decoded, and how views are cut from them.

The view sets of a call that decode at one size, mostly all of them, share one decoding: the plan holds the
union of their frames. A view that several sets have (the centre crop of ``10x1`` and of ``10x3``), or that
one set has twice (every clip of a very short video), is computed once and counted as often as it occurs.
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
"""In place of a crop: the frame as it is."""


@dataclass(frozen=True)
class PlannedClip:
    """One clip, and the views cut from it.

    Attributes:
        frames: positions in the plan's ``indices``, one per frame of the clip.
        short_side: size the frames are brought to before cutting.
        grid: where the crops lie, see `saccade.sampling.views.crop_box`.
        crops: 0, 1, 2 for left, centre, right (top, middle, bottom in portrait), or `WHOLE`, each with the
            tag of that view; those of `plan_video` say how often each view set holds it.
    """

    frames: tuple[int, ...]
    short_side: int
    grid: CropGrid
    crops: dict[int, Any]


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
    decode_size: int | None = None,
    rule: str = "saccade",
    shuffle_seed: tuple[int, ...] | None = None,
    times: NDArray[np.float64] | None = None,
) -> VideoPlan:
    """Plan the views of one video that are cut from frames decoded at one size.

    Args:
        decode_size: short side of the frames; sets that decode at another (`Views.decode_size`) have no part
            in the plan. None: ``clip.short_side``.
        rule: temporal rule of the sets that do not bring their own.
        shuffle_seed: permute the frames of each clip, by this seed and the clip's own frames; None keeps
            the order.
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
            order = tuple(_shuffled(frames, shuffle_seed).tolist())
            crops = found.setdefault((order, cut_size, views.grid), {})
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
    """The views of clips (N, T), each planned by itself, however alike; their tag is the number of the clip.

    Args:
        short_side: size the frames are brought to before cutting.
        num_crops: 1 (centre) or 3.
    """
    indices, places = np.unique(clips, return_inverse=True)
    crops = range(3) if num_crops > 1 else (1,)
    planned = tuple(
        PlannedClip(tuple(frames.tolist()), short_side, "pyslowfast", dict.fromkeys(crops, number))
        for number, frames in enumerate(places.reshape(clips.shape))
    )
    return VideoPlan(indices, planned)


def decode_sizes(clip: ClipSpec, view_sets: Sequence[Views]) -> tuple[int, ...]:
    """The short sides that ``view_sets`` decode at, each once; mostly there is one."""
    return tuple(dict.fromkeys(views.decode_size(clip.short_side, clip.crop) for views in view_sets))


def _shuffled(frames: NDArray[np.int64], seed: tuple[int, ...] | None) -> NDArray[np.int64]:
    if seed is None:
        return frames
    return np.random.default_rng([*seed, *frames.tolist()]).permutation(frames)
