"""One frame from each segment of the whole video: the rules of TSM, RubiksNet, PySlowFast and VoV3D on
Something-Something, and ours.

With L frames in the video and T in the clip a segment is L/T frames long (PySlowFast: (L-1)/T). Training
draws a random frame of each segment, a test takes the middle one. A video with fewer frames than the clip
repeats some, in order. Names of the rules: `saccade.sampling.temporal`; sources: docs/sampling.md.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from saccade.errors import UsageError

SEGMENT_RULES = ("segments", "tsm", "pyslowfast-ssv2", "vov3d-ssv")
"""The rules that ignore the stride."""

Indices = NDArray[np.int64]


class UniformSource(Protocol):
    """Source of random numbers: a numpy generator, or Python's ``random.Random``."""

    def uniform(self, low: float, high: float, /) -> float: ...


def segment_train(num_video_frames: int, *, num_frames: int, rule: str, rng: UniformSource) -> Indices:
    """Draw one frame of each segment, one call of ``rng`` per frame: int64 (num_frames,), not decreasing."""
    if rule == "segments":
        draws = np.array([rng.uniform(0.0, 1.0) for _ in range(num_frames)])
        return _inside(num_video_frames, num_frames, draws)
    if rule == "tsm":
        return _tsm_train(num_video_frames, num_frames, rng)
    starts, ends = _rounded_ends(num_video_frames, num_frames)
    return np.array([_integer(rng, low, high) for low, high in zip(starts, ends, strict=True)], np.int64)


def segment_test(num_video_frames: int, *, num_frames: int, num_clips: int, rule: str) -> Indices:
    """The frames of the test clips: int64 (num_clips, num_frames).

    ``segments`` and ``vov3d-ssv`` take the points 1/2n, 3/2n, ... of every segment for n clips.

    Raises:
        UsageError: the rule is ``tsm`` and there are more than two clips.
    """
    check_num_clips(rule, num_clips)
    points = [(2 * clip + 1) / (2 * num_clips) for clip in range(num_clips)]
    if rule == "segments":
        return np.stack([_inside(num_video_frames, num_frames, np.array(point)) for point in points])
    if rule == "tsm":
        return _tsm_test(num_video_frames, num_frames)[:num_clips]
    starts, ends = _rounded_ends(num_video_frames, num_frames)
    if rule == "pyslowfast-ssv2":
        return np.stack([(starts + ends) // 2] * num_clips)
    return np.stack([starts + np.floor((ends - starts) * point).astype(np.int64) for point in points])


def check_num_clips(rule: str, num_clips: int) -> None:
    """Raise a UsageError if ``rule`` does not define that many test clips."""
    if rule == "tsm" and num_clips > 2:
        raise UsageError(
            f"temporal rule 'tsm' knows one or two test clips, not {num_clips}; "
            "rule 'segments' takes any number of them"
        )


def _inside(num_video_frames: int, num_frames: int, points: NDArray[np.float64]) -> Indices:
    """The frames at ``points`` (0 up to 1) of exact segments. At 1/2 they are TSM's middles."""
    segment = num_video_frames / num_frames
    found = np.floor(segment * points + segment * np.arange(num_frames)).astype(np.int64)
    return np.minimum(found, num_video_frames - 1)


def _tsm_train(num_video_frames: int, num_frames: int, rng: UniformSource) -> Indices:
    """Segments of ``num_video_frames // num_frames`` frames from the start, so that up to ``num_frames - 1``
    frames at the end are never used; a video with fewer frames than the clip gives its first frame only, as
    upstream.
    """
    segment = num_video_frames // num_frames
    if segment == 0:
        return np.zeros(num_frames, np.int64)
    return np.array([i * segment + _integer(rng, 0, segment - 1) for i in range(num_frames)], np.int64)


def _tsm_test(num_video_frames: int, num_frames: int) -> Indices:
    """The middles, then the starts of the segments."""
    segment = num_video_frames / num_frames
    ticks = segment * np.arange(num_frames)
    return np.stack([np.floor(segment / 2.0 + ticks), np.floor(ticks)]).astype(np.int64)


def _rounded_ends(num_video_frames: int, num_frames: int) -> tuple[Indices, Indices]:
    """First and last frame of PySlowFast's segments: neighbours have one in common; halves round to even."""
    ends = np.round((num_video_frames - 1) / num_frames * np.arange(num_frames + 1)).astype(np.int64)
    return ends[:-1], ends[1:]


def _integer(rng: UniformSource, low: int, high: int) -> int:
    """An integer drawn uniformly from ``low .. high``, both included."""
    return min(int(rng.uniform(float(low), float(high + 1))), int(high))
