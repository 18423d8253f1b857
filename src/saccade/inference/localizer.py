"""What happens when in a video: scores of every class at every frame."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from saccade.clip import ClipSpec
from saccade.errors import UsageError
from saccade.evaluation.locate import Joiner, WindowTag, window_view
from saccade.evaluation.points import stretch
from saccade.evaluation.result import Failure
from saccade.evaluation.scoring import Precision, ViewScorer, sigmoid
from saccade.evaluation.timeline import Timeline
from saccade.inference.ahead import answered_ahead
from saccade.inference.source import LoadedModel, load_for_task
from saccade.sampling.temporal import frame_grid
from saccade.sampling.windows import Windows, plan_windows
from saccade.video import open_video

_CHUNK_WINDOWS = 8  # windows decoded, and held, at a time


@dataclass(frozen=True)
class WindowFrames:
    """Some successive windows of a video: the frames they need, uint8 (N, H, W, 3), and which of the frames
    a stride apart those are.
    """

    plan: Windows
    numbers: tuple[int, ...]
    places: NDArray[np.int64]
    frames: Tensor
    num_video_frames: int
    fps: float


class Localizer:
    """A trained model that localises as a function from a video file to a `Timeline`.

        locate = Localizer("runs/my_run")
        locate("video.mp4").segments()

    A video passes in overlapping windows of the clip the model was trained for, joined without seams, so its
    length does not matter for memory.

    Args:
        model, labels, device, weights, num_classes, clip, batch_size, precision, frames_fps: as for
            `Predictor`.
        overlap: share of a window that its neighbour has too.

    Raises:
        UsageError, WeightsError: the model, weights, labels or device cannot be used, or the model was not
            trained to localise; the message says why.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | nn.Module | LoadedModel,
        labels: str | os.PathLike[str] | Sequence[str] | None = None,
        device: str | torch.device = "auto",
        *,
        weights: str | os.PathLike[str] | None = None,
        num_classes: int | None = None,
        clip: ClipSpec | None = None,
        overlap: float = 0.5,
        batch_size: int | None = None,
        precision: Precision = "float32",
        frames_fps: float | None = None,
    ) -> None:
        self.loaded: LoadedModel = load_for_task(
            model,
            "localization",
            "not to say when things happen; train with --task localization, or predict without localising",
            weights=weights,
            num_classes=num_classes,
            labels=labels,
            clip=clip,
            device=device,
        )
        self.class_names = self.loaded.class_names
        self.clip = self.loaded.clip
        self.overlap, self.frames_fps = overlap, frames_fps
        plan_windows(1, self.clip.num_frames, overlap=overlap)  # a wrong overlap is told at once
        if self.clip.crop > self.clip.short_side:
            raise UsageError(
                f"a crop of {self.clip.crop} does not fit into frames of short side {self.clip.short_side}"
            )
        self._scorer = ViewScorer(
            self.loaded.model, batch_size=batch_size, precision=precision, per_frame=True
        )

    def __call__(self, path: str | os.PathLike[str]) -> Timeline:
        """Localise in one video.

        Raises:
            VideoError: the file cannot be read; names it and the cause.
        """
        return self._locate(os.fspath(path), self._decode(os.fspath(path), threads=0))

    def locate_many(
        self, paths: Iterable[str | os.PathLike[str]], *, workers: int = 2
    ) -> Iterator[Timeline | Failure]:
        """Localise in many videos, in order; ``workers`` threads decode ahead.

        A file that cannot be read yields a `Failure` with its path and the cause, and the next ones follow.
        """
        yield from answered_ahead(paths, lambda name: self._decode(name, threads=1), self._locate, workers)

    def _decode(self, path: str, *, threads: int) -> Iterator[WindowFrames]:
        clip = self.clip
        with open_video(path, short_side=clip.short_side, fps=self.frames_fps, threads=threads) as reader:
            length, fps = len(reader), reader.fps
            grid = frame_grid(length, fps, stride=clip.stride, target_fps=clip.target_fps)
            plan = plan_windows(len(grid), clip.num_frames, overlap=self.overlap)
            for start in range(0, len(plan.starts), _CHUNK_WINDOWS):
                numbers = tuple(range(start, min(start + _CHUNK_WINDOWS, len(plan.starts))))
                places = np.unique(np.concatenate([plan.frames(number) for number in numbers]))
                frames = reader.frames(grid[places].tolist())
                yield WindowFrames(plan, numbers, places, frames, length, fps)

    def _locate(self, path: str, chunks: Iterator[WindowFrames]) -> Timeline:
        join, logits = Joiner(), None
        for chunk in chunks:
            for tag, scores in self._scorer.stream(self._views(chunk)):
                logits = join(tag, scores)
            last = chunk
        assert logits is not None
        every = stretch(logits, last.num_video_frames).astype(np.float32)
        return Timeline(path, self.class_names, sigmoid(every), last.fps)

    def _views(self, chunk: WindowFrames) -> Iterator[tuple[WindowTag, Tensor]]:
        frames = chunk.frames.to(self._scorer.device)
        order = np.arange(self.clip.num_frames)
        for number in chunk.numbers:
            chosen = np.searchsorted(chunk.places, chunk.plan.frames(number))
            view = window_view(frames, chosen, self.clip, self._scorer)
            yield WindowTag(chunk.plan, number, order, 0, chunk.num_video_frames, chunk.fps), view
