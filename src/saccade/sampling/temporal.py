"""Which frames of a video make a clip.

Pure functions of numbers; nothing here opens a file. Code bases sample differently, and a published accuracy
holds for its sampling rule, so the rules of others can be chosen by name (table in docs/sampling.md).

    saccade               ours: exact spacing; the first clip begins and the last ends with the video
    pyslowfast            PySlowFast's default, the whole video decoded
    pyslowfast-selective  the same when only the clip is decoded (torchvision backend): up to a frame later
    pyslowfast-offset     PySlowFast with TEST.USE_OFFSET_SAMPLING
    vov3d                 VoV3D's default (its PyAV backend); with whole-video decoding it equals pyslowfast
    x3d-multigrid         X3D-Multigrid: raw frames whatever their rate; short videos loop
    pyslowfast-charades   PySlowFast on Charades: raw frames whatever their rate; the last test clip ends with
                          the video; a training clip longer than the video may repeat its first frame too

The *segment rules* divide the whole video into ``num_frames`` equal segments and take one frame of each; they
ignore the stride (`saccade.sampling.segments`):

    segments              ours: the video split exactly into equal segments
    tsm                   TSM and RubiksNet
    pyslowfast-ssv2       PySlowFast on Something-Something; all test clips are the same frames
    vov3d-ssv             VoV3D on Something-Something, with several test clips that are not drawn at random
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from saccade.clip import ClipSpec
from saccade.errors import UsageError
from saccade.sampling.segments import SEGMENT_RULES, UniformSource, segment_test, segment_train
from saccade.sampling.timing import FrameTimes, Steps

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

_RAW_RULES = ("x3d-multigrid", "pyslowfast-charades")
"""The rules whose stride is in frames of the video, whatever their rate."""

_SHORTEST_COVERING = 0.5  # seconds
_MOST_COVERING = 10_000  # clips that are tried for a section with fewer frames than half of that


def sample_train(
    num_video_frames: int,
    fps: float,
    *,
    num_frames: int,
    stride: int,
    target_fps: float = 30.0,
    rule: str = "saccade",
    rng: UniformSource,
    times: NDArray[np.float64] | None = None,
) -> Indices:
    """Draw the frames of one training clip.

    Args:
        num_video_frames: frames in the video.
        fps: its frame rate. A stride of 5 at 30 frames a second is a stride of 10 in a video at 60.
        num_frames: frames in the clip.
        stride: distance between two of them, in frames at ``target_fps``; segment rules ignore it.
        target_fps: the rate ``stride`` is stated for.
        rule: one of `RULES`.
        rng: draws the start, with one call; for a segment rule one call per frame. Where no section of a
            video with gaps holds a clip, one more call draws the section.
        times: `VideoReader.times`; None: the rate is constant. Where it varies, the clip is taken by time and
            inside one section between gaps, see `saccade.sampling.timing`.

    Returns:
        int64 array (num_frames,), each in 0 .. num_video_frames-1. A video shorter than the clip repeats its
        last frame (``x3d-multigrid`` starts over instead).

    Raises:
        UsageError: the rule is unknown.
    """
    _check(num_video_frames, fps, num_frames, stride, target_fps, rule)
    video = FrameTimes(num_video_frames, fps, times)
    spec = _Spec(num_frames, stride, target_fps, rule)
    if not video.varies:
        return _train_clip(num_video_frames, fps, spec, rng)
    steps = spec.steps(video)
    if rule in SEGMENT_RULES:
        return steps.joined_frames(_train_clip(sum(steps.counts), steps.rate, spec, rng))
    clip = steps.placed(spec.span, lambda count: _train_clip(count, steps.rate, spec, rng))
    if clip is None:
        section = min(int(rng.uniform(0.0, len(steps.counts))), len(steps.counts) - 1)
        clip = steps.frames(section, _train_clip(steps.counts[section], steps.rate, spec, rng))
    return clip


def sample_test(
    num_video_frames: int,
    fps: float,
    *,
    num_frames: int,
    stride: int,
    num_clips: int,
    target_fps: float = 30.0,
    rule: str = "saccade",
    times: NDArray[np.float64] | None = None,
) -> Indices:
    """The frames of the test clips of one video, in order of time. Arguments as in `sample_train`.

    Returns:
        int64 array (num_clips, num_frames). With the rule ``saccade`` one clip is centred, and of several the
        first starts at frame 0 and the last ends at the last frame. In a video with gaps one clip lies in the
        longest section, and several are spread over all sections that hold a clip; where none does, over all
        of them.

    Raises:
        UsageError: the rule is unknown, or does not define that many clips.
    """
    _check(num_video_frames, fps, num_frames, stride, target_fps, rule)
    if num_clips < 1:
        raise ValueError(f"num_clips must be at least 1, got {num_clips}")
    video = FrameTimes(num_video_frames, fps, times)
    return _test(video, _Spec(num_frames, stride, target_fps, rule), num_clips)


def sample_covering(
    num_video_frames: int,
    fps: float,
    *,
    num_frames: int,
    stride: int,
    target_fps: float = 30.0,
    rule: str = "saccade",
    times: NDArray[np.float64] | None = None,
) -> Indices:
    """As few test clips as cover a video, and each section between its gaps, end to end; with a segment rule
    one clip. Arguments and result as for `sample_test`. A clip that shows what the one before it shows, where
    one frame stands for longer than a clip, is left out.
    """
    _check(num_video_frames, fps, num_frames, stride, target_fps, rule)
    video = FrameTimes(num_video_frames, fps, times)
    spec = _Spec(num_frames, stride, target_fps, rule)
    if rule in SEGMENT_RULES:
        return _test(video, spec, 1)
    if video.varies:
        steps = spec.steps(video)
        parts = [
            steps.frames(
                section,
                _test_clips(num, steps.rate, spec, _num_covering(num, steps.rate, spec, stop - first)),
            )
            for section, (num, (first, stop)) in enumerate(zip(steps.counts, video.sections, strict=True))
        ]
        clips = np.concatenate(parts)
    else:
        num = _num_covering(num_video_frames, fps, spec, num_video_frames)
        clips = _test_clips(num_video_frames, fps, spec, num)
    return clips[np.append(True, (np.diff(clips, axis=0) != 0).any(axis=1))]


def _test(video: FrameTimes, spec: _Spec, num_clips: int) -> Indices:
    if not video.varies:
        return _test_clips(video.num_frames, video.fps, spec, num_clips)
    steps = spec.steps(video)
    if spec.rule in SEGMENT_RULES:
        return steps.joined_frames(_test_clips(sum(steps.counts), steps.rate, spec, num_clips))
    if num_clips == 1:
        section = steps.longest
        return steps.frames(section, _test_clips(steps.counts[section], steps.rate, spec, 1))
    clips = steps.placed(spec.span, lambda count: _test_clips(count, steps.rate, spec, num_clips))
    if clips is None:
        chosen = [i * len(steps.counts) // num_clips for i in range(num_clips)]
        parts = [steps.frames(s, _test_clips(steps.counts[s], steps.rate, spec, 1)) for s in chosen]
        clips = np.concatenate(parts)
    return clips


@dataclass(frozen=True)
class _Spec:
    """How the frames of a clip are taken; see `sample_train`."""

    num_frames: int
    stride: int
    target_fps: float
    rule: str

    def steps(self, video: FrameTimes) -> Steps:
        """What stands in for the frames of a video whose rate varies: steps at the target rate, for a rule
        that takes raw frames at the usual rate, for a segment rule at the higher of both.
        """
        if self.rule in _RAW_RULES:
            return Steps(video, video.fps)
        return Steps(
            video, max(video.fps, self.target_fps) if self.rule in SEGMENT_RULES else self.target_fps
        )

    @property
    def span(self) -> int:
        """Steps that a clip takes."""
        if self.rule in ("saccade", "pyslowfast-charades"):
            return (self.num_frames - 1) * self.stride + 1
        return self.num_frames * self.stride


def covering_clips(num_video_frames: int, fps: float, clip: ClipSpec | _Spec) -> int:
    """How many clips cover a video of constant rate end to end; of very short clips two a second."""
    span = max(clip.num_frames * clip.stride / clip.target_fps, _SHORTEST_COVERING) * fps
    return max(1, math.ceil(num_video_frames / span - 0.25))  # a remainder of a quarter clip gets none


def _num_covering(count: int, rate: float, spec: _Spec, num_frames: int) -> int:
    """`covering_clips` of a section of ``num_frames`` frames that is ``count`` frames or steps long. Of the
    clips in which nothing changes so many are enough.
    """
    return min(covering_clips(count, rate, spec), max(2 * num_frames, _MOST_COVERING))


def _train_clip(num_video_frames: int, fps: float, spec: _Spec, rng: UniformSource) -> Indices:
    """One training clip (T,) of a video of constant rate."""
    num_frames, stride, target_fps, rule = spec.num_frames, spec.stride, spec.target_fps, spec.rule
    if rule in SEGMENT_RULES:
        return segment_train(num_video_frames, num_frames=num_frames, rule=rule, rng=rng)
    if rule == "saccade":
        offsets = _offsets(fps, num_frames, stride, target_fps)
        slack = _slack(num_video_frames, offsets)
        start = min(int(rng.uniform(0.0, slack + 1.0)), slack)
        return np.minimum(start + offsets, num_video_frames - 1)
    if rule == "pyslowfast-charades":
        slack = num_video_frames - ((num_frames - 1) * stride + 1)  # negative if the video is shorter
        low, high = min(slack, 0), max(slack, 0)
        begin = low + min(int(rng.uniform(0.0, high - low + 1.0)), high - low)
        return _clamped(num_video_frames, begin, num_frames, stride)
    if rule == "x3d-multigrid":
        # The last start is one short of what would fit, as in its TemporalRandomCrop.
        last = max(num_video_frames - num_frames * stride - 1, 0)
        first = min(int(rng.uniform(0.0, last + 1.0)), last)
        return _looped(num_video_frames, first, num_frames, stride)
    length = _clip_length(fps, num_frames, stride, target_fps)
    position = rng.uniform(0.0, max(num_video_frames - length, 0.0))
    return _CLIP_AT[rule](num_video_frames, position, length, num_frames)


def _test_clips(num_video_frames: int, fps: float, spec: _Spec, num_clips: int) -> Indices:
    """The test clips (num_clips, T) of a video of constant rate."""
    num_frames, stride, target_fps, rule = spec.num_frames, spec.stride, spec.target_fps, spec.rule
    if rule in SEGMENT_RULES:
        return segment_test(num_video_frames, num_frames=num_frames, num_clips=num_clips, rule=rule)
    if rule == "saccade":
        offsets = _offsets(fps, num_frames, stride, target_fps)
        slack = _slack(num_video_frames, offsets)
        starts = [slack // 2] if num_clips == 1 else [i * slack // (num_clips - 1) for i in range(num_clips)]
        return np.minimum(np.array(starts)[:, None] + offsets, num_video_frames - 1)
    if rule == "pyslowfast-charades":
        slack = max(num_video_frames - ((num_frames - 1) * stride + 1), 0)
        step = slack / max(num_clips - 1, 1)  # upstream divides by zero for one clip (here: the centre)
        begins = [slack // 2] if num_clips == 1 else [round(step * i) for i in range(num_clips)]
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
        clips.append(_CLIP_AT[rule](num_video_frames, position, length, num_frames))
    return np.stack(clips)


def _check(
    num_video_frames: int, fps: float, num_frames: int, stride: int, target_fps: float, rule: str
) -> None:
    if rule not in RULES:
        raise UsageError(f"temporal rule {rule!r} is unknown; known are {', '.join(RULES)}")
    if num_video_frames < 1:
        raise ValueError(f"num_video_frames must be at least 1, got {num_video_frames}")
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


def frame_grid(
    num_video_frames: int,
    fps: float,
    *,
    stride: int,
    target_fps: float = 30.0,
    times: NDArray[np.float64] | None = None,
) -> Indices:
    """Every frame of a video that is a ``stride`` from the one before, from the first frame to the end; where
    the rate varies, of each section between gaps, and a frame that is shown for longer than a stride repeats.

    Frames are those of the rule ``saccade``: the grid is one clip as long as the video.
    """
    _check(num_video_frames, fps, 1, stride, target_fps, "saccade")
    video = FrameTimes(num_video_frames, fps, times)
    if video.varies:
        steps = Steps(video, target_fps)
        parts = [
            steps.frames(section, np.arange(num) * stride) for section, num in enumerate(steps.points(stride))
        ]
        return np.concatenate(parts)
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


_CLIP_AT: dict[str, Callable[[int, float, float, int], Indices]] = {
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
    slack = max(len(thinned) - 1 - num_frames, 0)
    starts = [slack // 2] if num_clips == 1 else [i * (slack // (num_clips - 1)) for i in range(num_clips)]
    return np.stack([np.resize(thinned[s : s + num_frames], num_frames) for s in starts])
