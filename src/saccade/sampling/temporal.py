"""Which frames of a video make a clip.

Pure functions of numbers; nothing here opens a file. Code bases differ in this point, and a published
accuracy belongs to its rule, so the rules of others can be chosen by name (docs/sampling.md has the table).

    saccade               ours: exact spacing; the first clip begins and the last ends with the video
    pyslowfast            PySlowFast's default, the whole video decoded
    pyslowfast-selective  the same when only the clip is decoded (torchvision backend): up to a frame later
    pyslowfast-offset     PySlowFast with TEST.USE_OFFSET_SAMPLING
    vov3d                 VoV3D's default (its PyAV backend); with whole-video decoding it equals pyslowfast
    x3d-multigrid         X3D-Multigrid: raw frames whatever their rate; short videos loop
    pyslowfast-charades   PySlowFast on Charades: raw frames whatever their rate; the last test clip ends with
                          the video; a training clip longer than the video may repeat its first frame too

Of the *segment rules* each cuts the whole video into ``num_frames`` equal segments and takes one frame of
each, whatever the stride (`saccade.sampling.segments`):

    segments              ours: the video split exactly into equal segments
    tsm                   TSM and RubiksNet
    pyslowfast-ssv2       PySlowFast on Something-Something; all test clips are the same frames
    vov3d-ssv             VoV3D on Something-Something, with several test clips that are not drawn at random
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from saccade.errors import UsageError
from saccade.sampling.segments import SEGMENT_RULES, UniformSource, segment_test, segment_train

Rule = Literal[
    "saccade",
    "pyslowfast",
    "pyslowfast-selective",
    "pyslowfast-offset",
    "vov3d",
    "x3d-multigrid",
    "pyslowfast-charades",
    "segments",
    "tsm",
    "pyslowfast-ssv2",
    "vov3d-ssv",
]
RULES: tuple[str, ...] = get_args(Rule)
Indices = NDArray[np.int64]


def sample_train(
    num_video_frames: int,
    fps: float,
    *,
    num_frames: int,
    stride: int,
    target_fps: float = 30.0,
    rule: str = "saccade",
    rng: UniformSource,
) -> Indices:
    """Draw the frames of one training clip.

    Args:
        num_video_frames: frames in the video.
        fps: its frame rate. A stride of 5 at 30 frames a second is a stride of 10 in a video at 60.
        num_frames: frames in the clip.
        stride: distance between two of them, in frames at ``target_fps``; segment rules do without.
        target_fps: the rate ``stride`` is stated for.
        rule: one of `RULES`.
        rng: draws the start, with one call; for a segment rule one call per frame.

    Returns:
        int64 array (num_frames,), each in 0 .. num_video_frames-1. A video shorter than the clip repeats its
        last frame (``x3d-multigrid`` starts over instead).

    Raises:
        UsageError: the rule is unknown.
    """
    _check(num_video_frames, fps, num_frames, stride, target_fps, rule)
    if rule in SEGMENT_RULES:
        return segment_train(num_video_frames, num_frames=num_frames, rule=rule, rng=rng)
    if rule == "saccade":
        offsets = _offsets(fps, num_frames, stride, target_fps)
        slack = _slack(num_video_frames, offsets)
        start = min(int(rng.uniform(0.0, slack + 1.0)), slack)
        return np.minimum(start + offsets, num_video_frames - 1)
    if rule == "pyslowfast-charades":
        room = num_video_frames - ((num_frames - 1) * stride + 1)
        low, high = min(room, 0), max(room, 0)
        begin = low + min(int(rng.uniform(0.0, high - low + 1.0)), high - low)
        return _clamped(num_video_frames, begin, num_frames, stride)
    if rule == "x3d-multigrid":
        # The last start is one short of what would fit, as in its TemporalRandomCrop.
        last = max(num_video_frames - num_frames * stride - 1, 0)
        first = min(int(rng.uniform(0.0, last + 1.0)), last)
        return _looped(num_video_frames, first, num_frames, stride)
    length = _clip_length(fps, num_frames, stride, target_fps)
    position = rng.uniform(0.0, max(num_video_frames - length, 0.0))
    return _PLACE[rule](num_video_frames, position, length, num_frames)


def sample_test(
    num_video_frames: int,
    fps: float,
    *,
    num_frames: int,
    stride: int,
    num_clips: int,
    target_fps: float = 30.0,
    rule: str = "saccade",
) -> Indices:
    """The frames of the test clips of one video, in order of time. Arguments as in `sample_train`.

    Returns:
        int64 array (num_clips, num_frames). With the rule ``saccade`` one clip is centred, and of several the
        first starts at frame 0 and the last ends at the last frame.

    Raises:
        UsageError: the rule is unknown, or does not say where so many clips lie.
    """
    _check(num_video_frames, fps, num_frames, stride, target_fps, rule)
    if num_clips < 1:
        raise ValueError(f"num_clips is {num_clips}, at least 1 is needed")
    if rule in SEGMENT_RULES:
        return segment_test(num_video_frames, num_frames=num_frames, num_clips=num_clips, rule=rule)
    if rule == "saccade":
        offsets = _offsets(fps, num_frames, stride, target_fps)
        slack = _slack(num_video_frames, offsets)
        starts = [slack // 2] if num_clips == 1 else [i * slack // (num_clips - 1) for i in range(num_clips)]
        return np.minimum(np.array(starts)[:, None] + offsets, num_video_frames - 1)
    if rule == "pyslowfast-charades":
        room = max(num_video_frames - ((num_frames - 1) * stride + 1), 0)
        gap = room / max(num_clips - 1, 1)  # upstream divides by zero for one clip (here: the centre)
        begins = [room // 2] if num_clips == 1 else [round(gap * i) for i in range(num_clips)]
        return np.stack([_clamped(num_video_frames, begin, num_frames, stride) for begin in begins])
    if rule == "x3d-multigrid":
        return _x3d_multigrid_test(num_video_frames, num_frames, stride, num_clips)
    length = _clip_length(fps, num_frames, stride, target_fps)
    delta = max(num_video_frames - length, 0.0)
    clips = []
    for clip in range(num_clips):
        if rule != "pyslowfast-offset":
            position = delta * clip / num_clips
        elif num_clips == 1:
            position = float(math.floor(delta / 2))
        else:
            position = float(clip * math.floor(delta / (num_clips - 1)))
        clips.append(_PLACE[rule](num_video_frames, position, length, num_frames))
    return np.stack(clips)


def _check(
    num_video_frames: int, fps: float, num_frames: int, stride: int, target_fps: float, rule: str
) -> None:
    if rule not in RULES:
        raise UsageError(f"temporal rule {rule!r} is unknown; known are {', '.join(RULES)}")
    if num_video_frames < 1:
        raise ValueError("a video without frames has no clips")
    if num_frames < 1 or stride < 1:
        raise ValueError(f"num_frames {num_frames} and stride {stride} must be at least 1")
    if not (fps > 0 and target_fps > 0 and math.isfinite(fps) and math.isfinite(target_fps)):
        raise ValueError(f"fps {fps} and target_fps {target_fps} must be positive")


# --- saccade ---------------------------------------------------------------------------------------------


def _offsets(fps: float, num_frames: int, stride: int, target_fps: float) -> Indices:
    """Distance of each frame from the first, rounded to the nearest frame (half up), in integers.

    1001 is the largest denominator a broadcast rate has (30000/1001); so 29.97 is that fraction.
    """
    step = stride * Fraction(fps).limit_denominator(1001) / Fraction(target_fps).limit_denominator(1001)
    p, q = step.numerator, step.denominator
    return np.array([(2 * k * p + q) // (2 * q) for k in range(num_frames)], dtype=np.int64)


def _slack(num_video_frames: int, offsets: Indices) -> int:
    """The last frame at which a clip can start and still end inside the video."""
    return max(num_video_frames - 1 - int(offsets[-1]), 0)


def frame_grid(num_video_frames: int, fps: float, *, stride: int, target_fps: float = 30.0) -> Indices:
    """Every frame of a video that is a ``stride`` from the one before, from the first frame to the end.

    Frames are those of the rule ``saccade``: the grid is one clip as long as the video.
    """
    _check(num_video_frames, fps, 1, stride, target_fps, "saccade")
    step = stride * fps / target_fps
    offsets = _offsets(fps, math.ceil(num_video_frames / step) + 1, stride, target_fps)
    return offsets[offsets < num_video_frames]


# --- PySlowFast and VoV3D --------------------------------------------------------------------------------


def _clip_length(fps: float, num_frames: int, stride: int, target_fps: float) -> float:
    """Length of a clip in frames of the video: num_frames strides, so one stride longer than it spans."""
    return max(stride * num_frames / target_fps * fps, 1.0)


def _whole_video(num_video_frames: int, start: float, length: float, num_frames: int) -> Indices:
    """The step is (length-1)/(num_frames-1), 5.27 for 16x5, and positions are truncated."""
    return _truncated(_linspace(start, start + length - 1, num_frames), num_video_frames)


def _selective(num_video_frames: int, start: float, length: float, num_frames: int) -> Indices:
    """As PySlowFast's torchvision backend: only frames whose time is inside the clip are there."""
    if num_video_frames <= length:  # the whole video is decoded
        return _whole_video(num_video_frames, 0.0, length, num_frames)
    first = _next_frame(start)
    last = min(math.floor(start + length - 1 + 1e-6), num_video_frames - 1)
    return first + _truncated(_linspace(0.0, length - 1, num_frames), last - first + 1)


def _selective_and_one(num_video_frames: int, start: float, length: float, num_frames: int) -> Indices:
    """As VoV3D's PyAV backend, which also keeps the first frame after the clip."""
    if num_video_frames <= length:
        return _whole_video(num_video_frames, 0.0, length, num_frames)
    first = _next_frame(start)
    last = min(_next_frame(start + length - 1), num_video_frames - 1)
    return first + _truncated(_linspace(0.0, length - 1, num_frames), last - first + 1)


_PLACE: dict[str, Callable[[int, float, float, int], Indices]] = {
    "pyslowfast": _whole_video,
    "pyslowfast-offset": _whole_video,
    "pyslowfast-selective": _selective,
    "vov3d": _selective_and_one,
}


def _next_frame(position: float) -> int:
    return math.ceil(position - 1e-6)


def _truncated(positions: NDArray[np.float32], num_available: int) -> Indices:
    return np.clip(positions, 0, num_available - 1).astype(np.int64)


def _linspace(start: float, end: float, num: int) -> NDArray[np.float32]:
    """torch.linspace in float32, whose rounding decides some of PySlowFast's frames.

    It counts the first half from the start and the second half from the end, and rounds once a frame (a fused
    multiply-add, here in double precision).
    """
    first, last = np.float32(start), np.float32(end)
    if num == 1:
        return np.array([first])
    step = np.float32((last - first) / np.float32(num - 1))
    k = np.arange(num)
    forward = np.float64(first) + np.float64(step) * k
    backward = np.float64(last) - np.float64(step) * (num - 1 - k)
    return np.where(k < num // 2, forward, backward).astype(np.float32)


def _clamped(num_video_frames: int, begin: int, num_frames: int, stride: int) -> Indices:
    """Every ``stride``-th frame from ``begin``, which may lie before the video; its first and last repeat."""
    return np.clip(begin + stride * np.arange(num_frames, dtype=np.int64), 0, num_video_frames - 1)


# --- X3D-Multigrid ---------------------------------------------------------------------------------------


def _looped(num_video_frames: int, first: int, num_frames: int, stride: int) -> Indices:
    """Every ``stride``-th frame from ``first``; when the video ends the ones found start over."""
    found = np.arange(first, num_video_frames, stride, dtype=np.int64)[:num_frames]
    return np.resize(found, num_frames)


def _x3d_multigrid_test(num_video_frames: int, num_frames: int, stride: int, num_clips: int) -> Indices:
    """Clips at equal, whole steps through every ``stride``-th frame; the end is not reached.

    Upstream divides by zero for one clip (here: the centre) and leaves videos out that are not longer than
    the clip (here: they loop).
    """
    thinned = np.arange(0, num_video_frames, stride, dtype=np.int64)
    room = max(len(thinned) - 1 - num_frames, 0)
    starts = [room // 2] if num_clips == 1 else [i * (room // (num_clips - 1)) for i in range(num_clips)]
    return np.stack([np.resize(thinned[s : s + num_frames], num_frames) for s in starts])
