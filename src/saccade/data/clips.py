"""What a decoding process does: read the clips of one batch, at their size, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from saccade.data.cache import FrameCache, pick
from saccade.data.seeds import stream
from saccade.data.types import ClipBatch, ClipRequest, ReadFailure, VideoDataset
from saccade.errors import DataError, SaccadeError, VideoError
from saccade.video import Backend, VideoReader, open_video
from saccade.video.resize import resize_short_side
from saccade.video.sampling import sample_train
from saccade.video.views import draw_short_side


@dataclass(frozen=True, kw_only=True)
class ClipSettings:
    """How clips are read, the same throughout a run.

    Attributes:
        target_fps: the rate that strides are stated for.
        rule: temporal rule, see saccade.video.sampling.
        inverse_uniform: draw 1/short_side uniformly instead of short_side.
        backend: see saccade.video.open_video.
        frames_fps: rate of folders of images whose data set does not say it, None for open_video's default.
        attempts: videos tried for one clip before the run is stopped.
    """

    target_fps: float = 30.0
    rule: str = "saccade"
    inverse_uniform: bool = False
    backend: Backend = "auto"
    frames_fps: float | None = None
    attempts: int = 10


class TrainClips(Dataset["PackedBatch | SaccadeError"]):
    """Gives the batch for a list of requests. An error the user can cause is returned, not raised.

    (An error raised in a worker process would reach the user with the worker's traceback as its text.)

    Args:
        dataset: the videos. What the workers need of them goes to them as arrays.
        settings: how clips are read.
        cache: frames kept in memory. With one, every clip is decoded at the cache's short side and then
            resized, so that a clip is the same whether its frames were kept or not.
    """

    def __init__(
        self, dataset: VideoDataset, settings: ClipSettings, cache: FrameCache | None = None
    ) -> None:
        self.paths = _Strings([item.path for item in dataset.items])
        self.labels = np.array([item.label for item in dataset.items], dtype=np.int64)
        self._num_frames = np.array([item.num_frames or 0 for item in dataset.items], dtype=np.int64)
        self._fps = np.array([item.fps or 0.0 for item in dataset.items])
        self.settings = settings
        self.cache = cache

    def __getitem__(self, requests: list[ClipRequest]) -> PackedBatch | SaccadeError:
        try:
            return self.read(requests)
        except SaccadeError as error:
            return error

    def read(self, requests: list[ClipRequest]) -> PackedBatch:
        """Read one batch.

        Raises:
            DataError: no clip could be read in ``settings.attempts`` attempts.
        """
        failures: list[ReadFailure] = []
        clips: list[Tensor] = []
        indices: list[int] = []
        for request in requests:
            index, clip = self._clip_or_another(request, failures)
            indices.append(index)
            clips.append(clip)
        return PackedBatch(
            pixels=torch.cat([clip.reshape(-1) for clip in clips]),
            shapes=tuple(tuple(clip.shape) for clip in clips),
            labels=torch.from_numpy(self.labels[indices]),
            seeds=tuple(request.seed for request in requests),
            indices=tuple(indices),
            crop=requests[0].crop,
            failures=tuple(failures),
        )

    def _clip_or_another(self, request: ClipRequest, failures: list[ReadFailure]) -> tuple[int, Tensor]:
        """The clip asked for, or of another video drawn in its place, with its index."""
        broken: list[VideoError] = []
        index = request.index
        for attempt in range(1, self.settings.attempts + 1):
            try:
                clip = self._clip(request, index)
            except VideoError as error:
                broken.append(error)
                index = int(stream(request.seed, "replacement", attempt).integers(len(self.paths)))
                continue
            taken = self.paths[index]
            failures.extend(ReadFailure(error.path, error.cause, taken) for error in broken)
            return index, clip
        listed = "\n".join(f"  {error}" for error in broken)
        raise DataError(f"{len(broken)} videos in a row cannot be read:\n{listed}")

    def _clip(self, request: ClipRequest, index: int) -> Tensor:
        """Draw and read one clip: uint8 (T, H, W, 3) with its short side as drawn."""
        settings, rng = self.settings, stream(request.seed, "clip")
        steps = (request.stride[1] - request.stride[0]) // request.stride_step
        stride = request.stride[0] + request.stride_step * int(rng.integers(0, steps, endpoint=True))
        short_side = draw_short_side(request.short_side, rng, inverse=settings.inverse_uniform)

        def draw(num_video_frames: int, fps: float) -> np.ndarray:
            return sample_train(
                num_video_frames,
                fps,
                num_frames=request.num_frames,
                stride=stride,
                target_fps=settings.target_fps,
                rule=settings.rule,
                rng=rng,
            )

        if self.cache is None:
            with self._open(index, short_side) as video:
                return video.frames(draw(len(video), video.fps).tolist())
        kept = self.cache.get(index)
        if kept is not None:
            frames, fps = kept
            return resize_short_side(pick(frames, draw(len(frames), fps)), short_side)
        with self._open(index, self.cache.short_side) as video:
            clip = self._clip_and_keep(self.cache, video, index, draw(len(video), video.fps))
        return resize_short_side(clip, short_side)

    def _clip_and_keep(self, cache: FrameCache, video: VideoReader, index: int, wanted: np.ndarray) -> Tensor:
        height, width = video.size
        offset = cache.reserve(index, len(video) * height * width * 3)
        if offset is not None:
            try:
                frames = video.frames(range(len(video)))
            except VideoError:  # damaged somewhere; the clip itself may still be readable
                cache.refuse(index)
            else:
                cache.put(index, offset, frames, video.fps)
                return frames[torch.from_numpy(wanted)]
        return video.frames(wanted.tolist())

    def _open(self, index: int, short_side: int) -> VideoReader:
        return open_video(
            self.paths[index],
            self.settings.backend,
            short_side=short_side,
            fps=float(self._fps[index]) or self.settings.frames_fps,
            num_frames=int(self._num_frames[index]) or None,
        )


@dataclass
class PackedBatch:
    """A `ClipBatch` whose clips lie in one tensor: one block of shared memory a batch, not one a clip."""

    pixels: Tensor
    shapes: tuple[tuple[int, ...], ...]
    labels: Tensor
    seeds: tuple[int, ...]
    indices: tuple[int, ...]
    crop: int
    failures: tuple[ReadFailure, ...]

    def pin_memory(self) -> PackedBatch:
        self.pixels = self.pixels.pin_memory()
        self.labels = self.labels.pin_memory()
        return self

    def unpack(self) -> ClipBatch:
        parts = self.pixels.split([int(np.prod(shape)) for shape in self.shapes])
        clips = [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]
        return ClipBatch(clips, self.labels, self.seeds, self.indices, self.crop, self.failures)


class _Strings:
    """Many strings as two arrays: sent to a worker in no time, and shared with it where it is forked."""

    def __init__(self, strings: list[str]) -> None:
        encoded = [string.encode("utf-8", "surrogateescape") for string in strings]
        self._ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
        self._text = b"".join(encoded)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        begin = int(self._ends[index - 1]) if index > 0 else 0
        return self._text[begin : int(self._ends[index])].decode("utf-8", "surrogateescape")
