"""What a worker process does in training: read the clips of one batch, at their size, with their labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from saccade.data.actions import ActionTable
from saccade.data.cache import FrameCache
from saccade.data.seeds import stream
from saccade.data.types import ClipBatch, ClipRequest, ReadFailure, VideoDataset
from saccade.errors import DataError, SaccadeError, VideoError
from saccade.sampling.temporal import sample_train
from saccade.sampling.timing import FrameTimes
from saccade.sampling.views import draw_short_side
from saccade.video import Backend, VideoReader, open_video
from saccade.video.resize import resize_short_side

LabelKind = Literal["class", "actions", "moments"]


@dataclass(frozen=True, kw_only=True)
class ClipSettings:
    """How clips are read, the same throughout a run.

    Attributes:
        target_fps: the rate that strides are stated for.
        rule: temporal rule, see saccade.sampling.temporal.
        inverse_uniform: draw 1/short_side uniformly instead of short_side.
        backend: see saccade.video.open_video.
        frames_fps: rate of folders of images whose data set does not say it, None for open_video's default.
        attempts: videos tried for one clip before the run is stopped.
        labels: which labels come with a clip. ``class``: the label of its video; ``actions``: the classes
            present between its first and its last frame; ``moments``: those at points spread evenly over the
            clip, one for every frame at the target rate (of the largest stride where strides are drawn).
    """

    target_fps: float = 30.0
    rule: str = "saccade"
    inverse_uniform: bool = False
    backend: Backend = "auto"
    frames_fps: float | None = None
    attempts: int = 10
    labels: LabelKind = "class"


class TrainClips(Dataset["PackedBatch | SaccadeError"]):
    """Gives the batch for a list of requests. A `SaccadeError` is returned, not raised: raised in a worker
    process, it would arrive with the worker's traceback as its text.

    Args:
        dataset: the videos. What the workers need of them goes to them as arrays.
        settings: how clips are read.
        cache: decoded frames in memory. With one, every clip is decoded at the cache's short side and then
            resized, so that hit and miss give the same pixels.
    """

    def __init__(
        self, dataset: VideoDataset, settings: ClipSettings, cache: FrameCache | None = None
    ) -> None:
        self.paths = _Strings([item.path for item in dataset.items])
        self.labels = np.array([item.label for item in dataset.items], dtype=np.int64)
        self._num_frames = np.array([item.num_frames or 0 for item in dataset.items], dtype=np.int64)
        self._fps = np.array([item.fps or 0.0 for item in dataset.items])
        self._spans = np.array([(item.start, item.end) for item in dataset.items], np.float64).reshape(-1, 2)
        self._num_labelled = dataset.num_labelled
        self._actions = ActionTable(dataset.items, len(dataset.class_names))
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
        labels: list[ClipLabels] = []
        for request in requests:
            index, clip, label = self._clip_or_another(request, failures)
            indices.append(index)
            clips.append(clip)
            labels.append(label)
        labels = _padded_alike(labels)
        inside = [label.inside for label in labels if label.inside is not None]
        boxes = [label.boxes for label in labels if label.boxes is not None]
        return PackedBatch(
            pixels=torch.cat([clip.reshape(-1) for clip in clips]),
            shapes=tuple(tuple(clip.shape) for clip in clips),
            labels=torch.from_numpy(np.stack([label.values for label in labels])),
            seeds=tuple(request.seed for request in requests),
            indices=tuple(indices),
            crop=requests[0].crop,
            failures=tuple(failures),
            inside=torch.from_numpy(np.stack(inside)) if inside else None,
            boxes=torch.from_numpy(np.stack(boxes)) if boxes else None,
        )

    def _clip_or_another(
        self, request: ClipRequest, failures: list[ReadFailure]
    ) -> tuple[int, Tensor, ClipLabels]:
        """The clip requested, or that of another video drawn in its place, with its index."""
        broken: list[VideoError] = []
        index = request.index
        for attempt in range(1, self.settings.attempts + 1):
            try:
                clip, label = self._clip(request, index)
            except VideoError as error:
                broken.append(error)
                index = int(stream(request.seed, "replacement", attempt).integers(*self._alike(index)))
                continue
            replacement = self.paths[index]
            failures.extend(ReadFailure(error.path, error.cause, replacement) for error in broken)
            return index, clip, label
        listed = "\n".join(f"  {error}" for error in broken)
        raise DataError(f"{len(broken)} videos in a row cannot be read:\n{listed}")

    def _alike(self, index: int) -> tuple[int, int]:
        """The range of videos that have labels, or of those that have none, as the video ``index``."""
        num = self._num_labelled
        return (0, num) if index < num else (num, len(self.paths))

    def _clip(self, request: ClipRequest, index: int) -> tuple[Tensor, ClipLabels]:
        """Draw and read one clip: uint8 (T, H, W, 3) with its short side as drawn, and its labels."""
        settings = self.settings
        rng, stride, short_side = self._draw(request)

        def draw(video: FrameTimes) -> tuple[np.ndarray, ClipLabels]:
            frames = sample_train(
                video.num_frames,
                video.fps,
                num_frames=request.num_frames,
                stride=stride,
                target_fps=settings.target_fps,
                rule=settings.rule,
                rng=rng,
                times=video.times,
            )
            return frames, self._labels_of(request, index, frames, stride, video)

        if self.cache is None:
            with self._open(index, short_side) as video:
                frames, labels = draw(FrameTimes.of(video))
                return video.frames(frames.tolist()), labels
        hit = self.cache.get(index)
        if hit is not None:
            pixels, fps, times = hit
            frames, labels = draw(FrameTimes(len(pixels), fps, times))
            return resize_short_side(torch.from_numpy(pixels[frames]), short_side), labels
        with self._open(index, self.cache.short_side) as video:
            frames, labels = draw(FrameTimes.of(video))
            clip = self._read_and_cache(self.cache, video, index, frames)
        return resize_short_side(clip, short_side), labels

    def _draw(self, request: ClipRequest) -> tuple[np.random.Generator, int, int]:
        """The random stream of a clip, and its stride and short side, drawn from it."""
        rng = stream(request.seed, "clip")
        steps = (request.stride[1] - request.stride[0]) // request.stride_step
        stride = request.stride[0] + request.stride_step * int(rng.integers(0, steps, endpoint=True))
        return rng, stride, draw_short_side(request.short_side, rng, inverse=self.settings.inverse_uniform)

    def _labels_of(
        self,
        request: ClipRequest,
        index: int,
        frames: np.ndarray,
        stride: int,
        video: FrameTimes,
    ) -> ClipLabels:
        if self.settings.labels == "actions":
            first, last = video.seconds([frames.min(), frames.max()]).tolist()
            present = self._actions.between(index, first, last)
            return ClipLabels(present.astype(np.float32))
        if self.settings.labels != "moments":
            return ClipLabels(self.labels[index])
        num_points = request.num_frames * request.stride[1]
        span = request.num_frames * stride / self.settings.target_fps
        times = video.seconds(frames[0]) + np.arange(num_points) * (span / num_points)
        present = self._actions.at(index, times)
        return ClipLabels(present.astype(np.float32), times < video.section_end(frames[0]))

    def _read_and_cache(
        self, cache: FrameCache, video: VideoReader, index: int, wanted: np.ndarray
    ) -> Tensor:
        height, width = video.size
        times = FrameTimes.of(video).times
        num_bytes = len(video) * height * width * 3 + (0 if times is None else times.nbytes)
        offset = cache.reserve(index, num_bytes)
        if offset is not None:
            try:
                frames = video.frames(range(len(video)))
            except VideoError:  # damaged somewhere; the clip itself may be readable
                cache.refuse(index)
            else:
                cache.put(index, offset, frames, video.fps, times)
                return frames[torch.from_numpy(wanted)]
        return video.frames(wanted.tolist())

    def _open(self, index: int, short_side: int) -> VideoReader:
        start, end = (None if np.isnan(time) else float(time) for time in self._spans[index])
        return open_video(
            self.paths[index],
            self.settings.backend,
            short_side=short_side,
            fps=float(self._fps[index]) or self.settings.frames_fps,
            num_frames=int(self._num_frames[index]) or None,
            start=start,
            end=end,
        )


@dataclass(frozen=True)
class ClipLabels:
    """``labels``, ``inside`` and ``boxes`` of one clip, see `ClipBatch`."""

    values: np.ndarray | np.int64
    inside: np.ndarray | None = None
    boxes: np.ndarray | None = None


def _padded_alike(labels: list[ClipLabels]) -> list[ClipLabels]:
    """Labels with people, padded to the largest number of people of a clip."""
    most = max((len(label.boxes) for label in labels if label.boxes is not None), default=0)
    return [label if label.boxes is None else _padded(label, most) for label in labels]


def _padded(label: ClipLabels, num_people: int) -> ClipLabels:
    assert label.boxes is not None
    extra = num_people - len(label.boxes)
    return ClipLabels(
        np.pad(label.values, ((0, 0), (0, extra))),
        np.arange(num_people) < len(label.boxes),
        np.pad(label.boxes, ((0, extra), (0, 0))),
    )


@dataclass
class PackedBatch:
    """A `ClipBatch` with all clips in one tensor: one block of shared memory per batch."""

    pixels: Tensor
    shapes: tuple[tuple[int, ...], ...]
    labels: Tensor
    seeds: tuple[int, ...]
    indices: tuple[int, ...]
    crop: int
    failures: tuple[ReadFailure, ...]
    inside: Tensor | None = None
    boxes: Tensor | None = None

    def pin_memory(self) -> PackedBatch:
        """Itself, in page-locked memory; called by PyTorch's loader."""
        self.pixels = self.pixels.pin_memory()
        self.labels = self.labels.pin_memory()
        self.inside = None if self.inside is None else self.inside.pin_memory()
        self.boxes = None if self.boxes is None else self.boxes.pin_memory()
        return self

    def unpack(self) -> ClipBatch:
        """The batch, its clips views of ``pixels``."""
        parts = self.pixels.split([int(np.prod(shape)) for shape in self.shapes])
        clips = [part.view(shape) for part, shape in zip(parts, self.shapes, strict=True)]
        return ClipBatch(
            clips,
            self.labels,
            self.seeds,
            self.indices,
            self.crop,
            self.failures,
            self.inside,
            self.boxes,
        )


class _Strings:
    """Many strings as two arrays, which are sent to a worker quickly."""

    def __init__(self, strings: list[str]) -> None:
        encoded = [string.encode("utf-8", "surrogateescape") for string in strings]
        self._ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
        self._text = b"".join(encoded)

    def __len__(self) -> int:
        return len(self._ends)

    def __getitem__(self, index: int) -> str:
        begin = int(self._ends[index - 1]) if index > 0 else 0
        return self._text[begin : int(self._ends[index])].decode("utf-8", "surrogateescape")
