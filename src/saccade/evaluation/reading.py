"""Decode videos in chunks, ahead of the model, and crop them into views."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from queue import Empty, Full, Queue
from typing import Generic, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saccade.clip import ClipSpec
from saccade.data.types import VideoDataset
from saccade.errors import SaccadeError, UsageError, VideoError
from saccade.sampling.plan import WHOLE, PlannedClip, VideoPlan
from saccade.sampling.timing import FrameTimes
from saccade.sampling.views import Views, check_crop, crop_box
from saccade.tasks.base import PlanRequest, Task, View
from saccade.tasks.result import Failure
from saccade.video import Backend, VideoReader
from saccade.video.resize import resize_to
from saccade.video.sizes import short_side_size
from saccade.video.source import VideoInput, source_name

_CHUNK_BYTES = 32 << 20  # decoded frames of a chunk; a larger clip is one chunk
_WAITING_CHUNKS = 2  # decoded chunks that wait for the consumer, per video

Name = TypeVar("Name")
Item = TypeVar("Item")
Answer = TypeVar("Answer")


# --- decoding a video ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chunk:
    """Some consecutive clips of a video.

    Attributes:
        video: the times of all frames of the video.
        frames: the decoded frames of the clips, uint8 (N, H, W, 3).
        clips: each clip with its rows of ``frames``.
        indices: index in the video of each decoded frame, (N,).
    """

    video: FrameTimes
    frames: Tensor
    clips: tuple[tuple[PlannedClip, NDArray[np.int64]], ...]
    indices: NDArray[np.int64]


def read_chunks(video: VideoReader, plan: VideoPlan, *, max_clips: int | None = None) -> Iterator[Chunk]:
    """The clips of ``plan`` in order, in chunks of limited size, so that memory does not grow with the length
    of the video. Frames that consecutive chunks have in common are decoded once.

    Args:
        max_clips: maximum number of clips in a chunk.
    """
    height, width = video.size
    max_frames = max(1, _CHUNK_BYTES // (height * width * 3))
    facts = FrameTimes.of(video)
    held, frames = np.empty(0, np.int64), torch.empty((0, height, width, 3), dtype=torch.uint8)
    for clips in _groups(plan.clips, max_frames, max_clips):
        needed = np.unique(np.concatenate([clip.frames for clip in clips]))
        fresh = np.setdiff1d(needed, held)
        decoded = video.frames(plan.indices[fresh].tolist()) if len(fresh) else frames[:0]
        if len(fresh) < len(needed):
            shared = np.isin(held, needed)
            joined = torch.empty((len(needed), height, width, 3), dtype=torch.uint8)
            joined[np.searchsorted(needed, held[shared])] = frames[torch.from_numpy(shared)]
            joined[np.searchsorted(needed, fresh)] = decoded
            decoded = joined
        held, frames = needed, decoded
        placed = tuple((clip, np.searchsorted(needed, clip.frames)) for clip in clips)
        yield Chunk(facts, frames, placed, plan.indices[needed])


def _groups(
    clips: Sequence[PlannedClip], max_frames: int, max_clips: int | None
) -> Iterator[list[PlannedClip]]:
    group: list[PlannedClip] = []
    frames: set[int] = set()
    for clip in clips:
        more = frames.union(clip.frames)
        if group and (len(more) > max_frames or len(group) == max_clips):
            yield group
            group, more = [], set(clip.frames)
        group.append(clip)
        frames = more
    if group:
        yield group


def cut_views(
    chunks: Iterable[Chunk], clip: ClipSpec, device: torch.device, position: int = 0
) -> Iterator[View]:
    """The views of the chunks of one item, in order, on the device."""
    number = 0
    for chunk in chunks:
        frames = chunk.frames.to(device, non_blocking=True)
        for planned, rows in chunk.clips:
            whole, indices = frames[torch.from_numpy(rows).to(device)], tuple(chunk.indices[rows].tolist())
            if WHOLE not in planned.crops:
                height, width = short_side_size(whole.shape[1], whole.shape[2], planned.short_side)
                whole = resize_to(whole, height, width)
            for crop, tag in planned.crops.items():
                view = whole
                if crop != WHOLE:
                    top, left = crop_box(height, width, clip.crop, crop, planned.grid)
                    view = whole[:, top : top + clip.crop, left : left + clip.crop]
                yield View(position, number, tag, view, indices)
                number += 1


@dataclass(frozen=True)
class VideoSource:
    """The videos of a data set, read as a task plans them.

    Attributes:
        sets: the view sets.
        rule: temporal rule of the sets that do not fix one.
    """

    dataset: VideoDataset
    task: Task
    clip: ClipSpec
    sets: tuple[Views, ...]
    rule: str = "saccade"
    backend: Backend = "auto"
    frames_fps: float | None = None
    pin_memory: bool = False

    def __call__(self, position: int) -> Iterator[Chunk]:
        """Open and decode one video, once for each decoding size of the view sets."""
        for size in self.task.decode_sizes(self.clip, self.sets):
            with self.dataset.open(
                position, short_side=size, backend=self.backend, frames_fps=self.frames_fps
            ) as video:
                plan = self.task.plan(
                    video,
                    PlanRequest(self.dataset, position, self.clip, self.sets, size, self.rule),
                )
                if any(WHOLE not in planned.crops for planned in plan.clips):
                    check_crop(*video.size, self.clip.crop)
                for chunk in read_chunks(video, plan):
                    pinned = chunk.frames.pin_memory() if self.pin_memory else chunk.frames
                    yield replace(chunk, frames=pinned)


# --- threads that decode ahead ---------------------------------------------------------------------------


class _Pipe(Generic[Name, Item]):
    """A thread that reads one video into a bounded queue; its errors are raised in the consumer."""

    def __init__(
        self,
        name: Name,
        source: Callable[[Name], Iterator[Item]],
        slots: threading.Semaphore,
        stop: threading.Event,
    ) -> None:
        self.name, self._slots, self._stop = name, slots, stop
        self._queue: Queue[object] = Queue(maxsize=_WAITING_CHUNKS)
        self._thread = threading.Thread(target=self._fill, args=(source,), daemon=True)
        self._thread.start()

    def _fill(self, source: Callable[[Name], Iterator[Item]]) -> None:
        try:
            items = source(self.name)
            while not self._stop.is_set():
                with self._slots:  # acquired for decoding only, not while waiting for the consumer
                    item = _END if self._stop.is_set() else next(items, _END)
                if not self._put(item) or item is _END:
                    return
        except BaseException as error:  # raised again in the consumer
            self._put(error)

    def _put(self, item: object) -> bool:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return True
            except Full:
                continue
        return False

    def __iter__(self) -> Iterator[Item]:
        while True:
            item = self._queue.get()
            if item is _END:
                return
            if isinstance(item, BaseException):
                raise item
            yield item  # type: ignore[misc]

    def join(self) -> None:
        while self._thread.is_alive():
            try:
                self._queue.get_nowait()
            except Empty:
                self._thread.join(timeout=0.05)


_END = object()


def prefetch_decode(
    names: Iterable[Name], source: Callable[[Name], Iterator[Item]], workers: int
) -> Generator[tuple[Name, Iterator[Item]], None, None]:
    """``(name, items of source(name))`` in order; ``workers`` threads decode ahead, 0 decodes in the calling
    thread.

    Threads rather than processes: FFmpeg releases the interpreter lock, nothing is copied between processes,
    and no process with threads is forked. Memory is bounded: at most twice as many videos as threads are
    open, each with two items waiting. An error of a source is raised by its items. Closing the generator
    ends the threads.
    """
    if workers < 1:
        for name in names:
            yield name, source(name)
        return
    stop, slots = threading.Event(), threading.Semaphore(workers)
    left = iter(names)
    running: deque[_Pipe[Name, Item]] = deque()
    try:
        while True:
            num_new = 2 * workers - len(running)
            running.extend(_Pipe(name, source, slots, stop) for name in islice(left, num_new))
            if not running:
                return
            pipe = running[0]
            yield pipe.name, iter(pipe)
            running.popleft()
            pipe.join()
    finally:
        stop.set()
        for pipe in running:
            pipe.join()


def map_videos(
    videos: Iterable[VideoInput],
    source: Callable[[VideoInput], Iterator[Item]],
    answer: Callable[[str, Iterator[Item]], Answer],
    workers: int,
    *,
    failures: tuple[type[SaccadeError], ...] = (VideoError,),
) -> Iterator[Answer | Failure]:
    """What ``answer`` makes of the name and the items of each video, in order; a `Failure` with name and
    cause where one of ``failures`` is raised, and the next ones follow.

    Raises:
        UsageError: ``videos`` is a single video.
    """
    if isinstance(videos, str | os.PathLike | bytes | bytearray | memoryview | np.ndarray | Tensor):
        raise UsageError(f"{source_name(videos)}: is a single video; give a list of videos")
    with closing(prefetch_decode(videos, source, workers)) as stream:  # also when an error leaves its frames
        for video, items in stream:
            name = source_name(video)
            try:
                found: Answer | Failure = answer(name, items)
            except failures as error:
                found = Failure(name, error.cause if isinstance(error, VideoError) else str(error))
            yield found
