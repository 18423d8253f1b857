"""A clip of a video as model input, and the same crop at a higher resolution for display."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saccade.clip import ClipSpec
from saccade.errors import UsageError
from saccade.sampling.temporal import sample_test
from saccade.sampling.timing import FrameTimes
from saccade.sampling.views import crop_box
from saccade.transforms import test_transform
from saccade.video import Backend, VideoReader, open_video

_MAX_SIDE = 320  # pixels of a displayed crop
_BLOCK = 32  # frames read at a time


@dataclass(frozen=True, eq=False)
class InputClip:
    """The centre crop of one clip.

    Attributes:
        path: path of the video.
        spec: frames and size of the clip.
        inputs: float (1, 3, T, crop, crop), normalised, the input of the model.
        pixels: uint8 (T, crop, crop, 3), the same before normalisation.
        frames: uint8 (T, side, side, 3), the same crop at the resolution of the video, for display.
        indices: (T,), indices of the frames in the video.
        timing: times of all frames of the video.
        frames_fps: frames per second of a folder of images.
    """

    path: str
    spec: ClipSpec
    inputs: Tensor
    pixels: NDArray[np.uint8]
    frames: NDArray[np.uint8]
    indices: NDArray[np.int64]
    timing: FrameTimes
    frames_fps: float | None = None

    @property
    def name(self) -> str:
        """The file name without its folder."""
        return Path(self.path).name

    @property
    def side(self) -> int:
        """Height and width of ``frames``."""
        return int(self.frames.shape[1])

    @property
    def seconds(self) -> NDArray[np.float64]:
        """Times of the clip's frames in the video, in seconds (T,)."""
        return self.timing.seconds(self.indices)

    @property
    def span(self) -> range:
        """All frame indices of the video from the clip's first frame to its last."""
        return range(int(self.indices.min()), int(self.indices.max()) + 1)

    def all_frames(self) -> Iterator[NDArray[np.uint8]]:
        """The crop of every frame of `span`, including those that the model does not see."""
        span = self.span
        with open_video(self.path, short_side=self._display_short_side(), fps=self.frames_fps) as reader:
            for block in read_blocks(reader, span.start, span.stop):
                yield from _centre_crop(block, self.side)

    def _display_short_side(self) -> int:
        return round(self.side * self.spec.short_side / self.spec.crop)


def read_clip(
    path: str | os.PathLike[str],
    spec: ClipSpec,
    *,
    rule: str = "saccade",
    start: float | None = None,
    frames_fps: float | None = None,
    backend: Backend = "auto",
) -> InputClip:
    """Read the middle clip of a video, or the clip that starts at ``start`` seconds.

    Args:
        rule: one of `saccade.sampling.temporal.RULES`; ignored with ``start``, where the frames are a stride
            apart.
        backend: see `saccade.open_video`.

    Raises:
        VideoError: the video cannot be read.
        UsageError: the crop does not fit into the frames, or the video ends before ``start``.
    """
    with open_video(path, backend, short_side=spec.short_side, fps=frames_fps) as reader:
        timing = FrameTimes.of(reader)
        indices = _indices(timing, spec, rule, start)
        resized = reader.frames(indices.tolist())
    inputs, pixels = test_transform(resized, spec), _centre_crop(resized.numpy(), spec.crop)
    with open_video(path, backend, fps=frames_fps) as reader:
        native = min(reader.size)
    side = max(spec.crop, min(_MAX_SIDE, native * spec.crop // spec.short_side))
    with open_video(
        path, backend, short_side=round(side * spec.short_side / spec.crop), fps=frames_fps
    ) as reader:
        frames = _centre_crop(reader.frames(indices.tolist()).numpy(), side)
    return InputClip(os.fspath(path), spec, inputs, pixels, frames, indices, timing, frames_fps)


def read_blocks(reader: VideoReader, start: int, stop: int) -> Iterator[NDArray[np.uint8]]:
    """Frames ``start`` to ``stop`` of a video in blocks (N, H, W, 3)."""
    for begin in range(start, stop, _BLOCK):
        yield reader.frames(range(begin, min(begin + _BLOCK, stop))).numpy()


def _indices(video: FrameTimes, spec: ClipSpec, rule: str, start: float | None) -> NDArray[np.int64]:
    length, fps = video.num_frames, video.fps
    if start is None:
        options: dict[str, Any] = {
            "num_frames": spec.num_frames,
            "stride": spec.stride,
            "target_fps": spec.target_fps,
        }
        clips = sample_test(length, fps, num_clips=1, rule=rule, times=video.times, **options)
        return np.asarray(clips[0], np.int64)
    if not 0 <= start < video.duration:
        raise UsageError(
            f"start {start:g} s is beyond the end of the video, which lasts {video.duration:.1f} s"
        )
    if video.varies:
        first, stop = video.section_nearest(start)
        times = start + np.arange(spec.num_frames) * spec.stride / spec.target_fps
        return video.at(times).clip(first, stop - 1)
    offsets = np.arange(spec.num_frames) * spec.stride * fps / spec.target_fps
    return np.minimum(np.round(start * fps + offsets), length - 1).astype(np.int64)


def _centre_crop(frames: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """(N, H, W, 3) -> (N, side, side, 3)"""
    height, width = frames.shape[1:3]
    top, left = crop_box(height, width, side, 1)
    return np.ascontiguousarray(frames[:, top : top + side, left : left + side])


def inputs_on_device(clip: InputClip, model: torch.nn.Module) -> Tensor:
    """The clip's inputs on the device and in the precision of the model."""
    weight = next(model.parameters())
    return clip.inputs.to(weight.device, weight.dtype)
