"""Temporal localisation: scores of every class at every frame of a video."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from saccade.clip import ClipSpec
from saccade.errors import UsageError
from saccade.evaluation.reading import Chunk, cut_views, map_videos, read_chunks
from saccade.evaluation.scorer import Precision, Scorer, evaluating
from saccade.inference.loading import LoadedModel, load_for_task
from saccade.inference.partial import Damage, read_readable
from saccade.tasks import Failure, Localize
from saccade.tasks.moments import interpolate_to_frames
from saccade.tasks.scores import sigmoid
from saccade.tasks.timeline import Timeline
from saccade.video import Backend, VideoReader, open_video
from saccade.video.source import VideoInput, source_name

_CHUNK_WINDOWS = 8  # windows that are decoded, and in memory, at a time


class Localizer:
    """A trained localisation model as a function from a video to a `Timeline`.

    >>> locate = saccade.Localizer("runs/my_run")
    >>> [(segment.label, segment.start, segment.end) for segment in locate("video.mp4").segments()]
    [('rising', 1.2, 3.4)]

    A video is scored in overlapping windows of the clip that the model was trained with, and their scores are
    blended, so memory does not depend on the length of the video.

    Args:
        model, labels, device, weights, num_classes, clip: as for `Predictor`.
        batch_size, precision, frames_fps, backend: as for `Predictor`.
        overlap: fraction of a window that the next one overlaps.

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
        backend: Backend = "auto",
    ) -> None:
        self.task = Localize(overlap)
        self.loaded: LoadedModel = load_for_task(
            model,
            self.task.name,
            "not to say when things happen; train with --task localization, or predict without localising",
            weights=weights,
            num_classes=num_classes,
            labels=labels,
            clip=clip,
            device=device,
        )
        self.class_names = self.loaded.class_names
        self.clip = self.loaded.clip
        self.overlap, self.frames_fps, self.backend = overlap, frames_fps, backend
        if self.clip.crop > self.clip.short_side:
            raise UsageError(
                f"a crop of {self.clip.crop} does not fit into frames of short side {self.clip.short_side}"
            )
        self._scorer = Scorer(
            self.loaded.model, self.task, self.clip, batch_size=batch_size, precision=precision
        )

    def __call__(self, source: VideoInput, *, name: str | None = None) -> Timeline:
        """Localise actions in one video.

        Args:
            source: a path, bytes, a file object, a URL or frames in memory, see `saccade.open_video`.
            name: what the result calls it; default: its path or URL, the name of a file object, ``<bytes>``
                or ``<frames>``.

        If some frames cannot be decoded, the others are scored; see `Timeline.damaged`.

        Raises:
            VideoError: nothing in the video can be read; names it and the cause.
            UsageError: the source is of a type that is not taken.
        """
        name = name or source_name(source)
        return self._locate(name, self._decode(source, threads=0))

    def locate_many(self, sources: Iterable[VideoInput], *, workers: int = 2) -> Iterator[Timeline | Failure]:
        """Localise actions in many videos, in order; ``workers`` threads decode ahead.

        A video that cannot be read yields a `Failure` with its name and the cause, and the next ones follow.
        A rate goes with frames in memory as a pair ``(frames, fps)``.
        """
        yield from map_videos(sources, lambda source: self._decode(source, threads=1), self._locate, workers)

    def _decode(self, source: VideoInput, *, threads: int) -> Iterator[tuple[Damage, Chunk]]:
        with open_video(
            source, self.backend, short_side=self.clip.short_side, fps=self.frames_fps, threads=threads
        ) as reader:
            yield from read_readable(reader, self._read, to_end=True)

    def _read(self, reader: VideoReader, damaged: Damage) -> Iterator[Chunk]:
        plan = self.task.plan_windows(reader, self.clip)
        yield from read_chunks(reader, plan, max_clips=_CHUNK_WINDOWS)

    def _locate(self, path: str, parts: Iterator[tuple[Damage, Chunk]]) -> Timeline:
        found: Any = None
        damaged: Damage = ()
        with evaluating(self.loaded.model):
            for damage, chunk in parts:
                if damage != damaged:
                    found, damaged = None, damage
                views = cut_views([chunk], self.clip, self._scorer.device)
                for view, logits in self._scorer.stream(views):
                    found = self.task.merge(found, logits, view, ())
                video = chunk.video
        every = interpolate_to_frames(found, video, self.clip).astype(np.float32)
        scores = sigmoid(every)
        return Timeline(path, self.class_names, scores, video.fps, video, damaged, self.clip.seconds)
