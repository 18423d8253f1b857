"""Classify videos: the best labels of the video, and of each window of it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from saccade.clip import ClipSpec
from saccade.data.types import VideoDataset
from saccade.errors import UsageError, VideoError
from saccade.evaluation.reading import Chunk, cut_views, map_videos, prefetch_decode, read_chunks
from saccade.evaluation.rejection import NONE_OF_THESE, Rejection
from saccade.evaluation.scorer import Precision, Scorer, evaluating
from saccade.inference.loading import LoadedModel, load_for_inference, task_of
from saccade.inference.partial import Damage, read_readable
from saccade.progress import Progress, ignore
from saccade.sampling.plan import plan_clips
from saccade.sampling.segments import SEGMENT_RULES, check_num_clips
from saccade.sampling.temporal import RULES, sample_covering, sample_test
from saccade.sampling.timing import FrameTimes, gaps_dict
from saccade.sampling.views import Views, parse_views
from saccade.tasks import Failure
from saccade.video import Backend, VideoReader, open_video
from saccade.video.damage import damage_dict
from saccade.video.source import VideoInput, source_name

Logits = NDArray[np.float32]

_CHUNK_CLIPS = 8  # clips that are decoded, and in memory, at a time


@dataclass(frozen=True)
class Window:
    """One clip of the video: ``start`` and ``end`` in seconds, its best label and that label's score.

    ``rejected``: it shows none of the classes, and ``label`` is only the least unlikely one.
    """

    start: float
    end: float
    label: str
    score: float
    rejected: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, times in seconds; ``rejected`` where it is true."""
        return {
            "start": round(self.start, 3),
            "end": round(self.end, 3),
            "label": self.label,
            "score": round(self.score, 6),
            **({"rejected": True} if self.rejected else {}),
        }


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model sees in one video.

    Attributes:
        path: the video.
        class_names: in label order.
        scores: float32 (num_classes,), the mean of the windows' softmax, which adds up to 1; for a
            multi-label model, the maximum sigmoid over the windows (or the mean: see `TrainConfig.ensemble`).
        windows: the clips shown to the model, in order of time. The default views cover the video from end
            to end.
        window_scores: float32 (num_windows, num_classes).
        duration: seconds; fps: frames per second, where the rate varies the usual one.
        views: ``CLIPSxCROPS``.
        gaps: start and end in seconds of the stretches in which nothing was recorded or can be decoded.
        damaged: what cannot be decoded: spans with ``start`` and ``end`` in seconds, and the ``cause``. The
            windows lie over the rest.
        clip_seconds: what the clip of the model lasts.
        rejection: the score and threshold that decide whether the video shows any of the classes; None: it is
            taken to show one.
        reject_score: the mean of that score over the windows; NaN without ``rejection``.
    """

    path: str
    class_names: tuple[str, ...]
    scores: NDArray[np.float32]
    windows: tuple[Window, ...]
    window_scores: NDArray[np.float32] = field(repr=False)
    duration: float
    fps: float
    views: str
    gaps: tuple[tuple[float, float], ...] = ()
    damaged: Damage = ()
    clip_seconds: float = 0.0
    rejection: Rejection | None = None
    reject_score: float = math.nan

    @property
    def rejected(self) -> bool:
        """Whether the video shows none of the classes."""
        return self.rejection is not None and self.rejection.rejects(self.reject_score)

    @property
    def short(self) -> bool:
        """Whether the video lasts less than half of the clip, so that most frames of the clip repeat."""
        return self.duration < self.clip_seconds / 2

    @property
    def label(self) -> str:
        """The best label; ``none of these`` if the video is rejected."""
        return NONE_OF_THESE if self.rejected else self.best_label

    @property
    def best_label(self) -> str:
        """The label with the highest score, of a rejected video too."""
        return self.class_names[int(self.scores.argmax())]

    @property
    def score(self) -> float:
        """The score of the best label, 0..1."""
        return float(self.scores.max())

    def top(self, k: int = 5) -> list[tuple[str, float]]:
        """The ``k`` best labels with their scores, best first."""
        order = np.argsort(-self.scores, kind="stable")[:k]
        return [(self.class_names[i], float(self.scores[i])) for i in order]

    def to_dict(self, k: int = 5) -> dict[str, Any]:
        """Plain values for JSON: path, duration, fps, views, the top ``k`` and the windows; gaps, damage and
        ``short`` where there are any; with a rejection ``label``, ``rejected`` and its score and threshold.
        """
        return {
            "path": self.path,
            "duration": round(self.duration, 3),
            "fps": round(self.fps, 4),
            "views": self.views,
            **gaps_dict(self.gaps),
            **damage_dict(self.damaged),
            **({"short": True} if self.short else {}),
            **self._rejection_dict(),
            "top": [{"label": label, "score": round(score, 6)} for label, score in self.top(k)],
            "windows": [window.to_dict() for window in self.windows],
        }

    def _rejection_dict(self) -> dict[str, Any]:
        if self.rejection is None:
            return {}
        return {
            "label": self.label,
            "rejected": self.rejected,
            "reject_score": round(self.reject_score, 6),
            "reject_threshold": round(self.rejection.threshold, 6),
        }


@dataclass(frozen=True)
class _Clips:
    """Some successive clips of a video, (num_clips, num_frames), decoded."""

    clips: NDArray[np.int64]
    chunk: Chunk
    views: Views


@dataclass(frozen=True, eq=False)
class _Output:
    """What the model gives for a video: logits (num_clips, num_crops, K), and the last clips decoded."""

    logits: Logits
    spans: list[tuple[float, float]]
    damaged: Damage
    last: _Clips


class Predictor:
    """A trained model as a function from a video to a `Prediction`.

    >>> predict = saccade.Predictor("runs/my_run")
    >>> predict("clip.mp4").top(3)
    [('rising', 0.93), ('falling', 0.05), ('opening', 0.01)]
    >>> clip = ClipSpec(num_frames=8, stride=4, crop=112, short_side=128)
    >>> predict = saccade.Predictor(any_module, ["cat", "dog"], clip=clip)

    The mode, device and memory format of a module are not changed.

    Args:
        model: a run folder, a .safetensors file written by Saccade, a model name (with ``weights``), a
            module, or the `LoadedModel` of `load_for_inference`.
        labels: class names: a sequence, a file with one per line, or a list that ships, such as
            ``kinetics400``. Default: those that come with the weights, else numbers.
        device: ``auto`` is the device of a module or `LoadedModel`, else CUDA if available.
        weights: a checkpoint of any code base `saccade.load_weights` knows, for a model name or a module.
        views: ``CLIPSxCROPS``; ``auto``: as many centre-cropped clips as cover the video from end to end.
        clip: the clip that the model takes; default: the one it was trained with.
        temporal_rule: one of `saccade.sampling.temporal.RULES`; default: see `rule_to_predict`.
        batch_size: maximum number of views per forward pass; None: chosen by memory.
        task: of weights of another code base, ``single-label`` or ``multi-label``; weights written by Saccade
            state it.
        frames_fps: frames per second of folders of images and of frames in memory, which do not say it; None:
            30.
        backend: what decodes, see `saccade.open_video`.
        reject: label videos that show none of the classes ``none of these``, if the run was calibrated for it
            (`saccade.inference.calibrate`).

    Raises:
        UsageError, WeightsError: the model, weights, labels, views or device cannot be used; the message
            says why.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | nn.Module | LoadedModel,
        labels: str | os.PathLike[str] | Sequence[str] | None = None,
        device: str | torch.device = "auto",
        *,
        weights: str | os.PathLike[str] | None = None,
        num_classes: int | None = None,
        views: str = "auto",
        clip: ClipSpec | None = None,
        temporal_rule: str | None = None,
        batch_size: int | None = None,
        precision: Precision = "float32",
        task: str | None = None,
        frames_fps: float | None = None,
        backend: Backend = "auto",
        reject: bool = True,
    ) -> None:
        self.frames_fps, self.backend = frames_fps, backend
        self.views = None if views == "auto" else parse_views(views)
        if self.views is not None and self.views.protocol:
            raise UsageError(
                f"views {views}: a protocol is for measuring (saccade test); to predict give CLIPSxCROPS, "
                f"such as {self.views.num_clips}x{self.views.num_crops}, or auto"
            )
        self.loaded: LoadedModel = load_for_inference(
            model,
            weights=weights,
            num_classes=num_classes,
            labels=labels,
            clip=clip,
            device=device,
            task=task,
        )
        self.task = task_of(self.loaded)
        if self.task.fixed_views or not self.task.has_classes:
            hint = self.task.predict_hint or "it has no scores of a whole video"
            raise UsageError(f"{self.loaded.origin} was trained for {self.task.name}; {hint}")
        self.class_names = self.loaded.class_names
        self.clip = self.loaded.clip
        self.rejection = self.loaded.rejection if reject else None
        self.temporal_rule = temporal_rule or rule_to_predict(self.loaded)
        if self.temporal_rule not in RULES:
            raise UsageError(f"temporal rule {self.temporal_rule!r} is unknown; known are {', '.join(RULES)}")
        if self.views is not None:
            check_num_clips(self.temporal_rule, self.views.num_clips)
        if self.clip.crop > self.clip.short_side:
            raise UsageError(
                f"a crop of {self.clip.crop} does not fit into frames of short side {self.clip.short_side}"
            )
        self._scorer = Scorer(
            self.loaded.model, self.task, self.clip, batch_size=batch_size, precision=precision
        )

    def __call__(self, source: VideoInput, *, name: str | None = None) -> Prediction:
        """Predict one video.

        Args:
            source: a path, bytes, a file object, a URL or frames in memory, see `saccade.open_video`.
            name: what the result calls it; default: its path or URL, the name of a file object, ``<bytes>``
                or ``<frames>``.

        If some frames cannot be decoded, the others are used; see `Prediction.damaged`.

        Raises:
            VideoError: nothing in the video can be read; names it and the cause.
            UsageError: the source is of a type that is not taken.
        """
        name = name or source_name(source)
        return self._predict(name, self._decode(source, threads=0))

    def predict_many(
        self, sources: Iterable[VideoInput], *, workers: int = 2
    ) -> Iterator[Prediction | Failure]:
        """Predict many videos, in order; ``workers`` threads decode ahead.

        A video that cannot be read yields a `Failure` with its name and the cause, and the next ones follow.
        A rate goes with frames in memory as a pair ``(frames, fps)``.
        """
        yield from map_videos(sources, lambda source: self._decode(source, threads=1), self._predict, workers)

    def _decode(self, source: VideoInput, *, threads: int) -> Iterator[tuple[Damage, _Clips]]:
        """The clips of a video, a few at a time, so that its length does not matter for memory."""
        with open_video(
            source, self.backend, short_side=self.clip.short_side, fps=self.frames_fps, threads=threads
        ) as reader:
            yield from read_readable(reader, self._read, to_end=self.views is None)

    def _read(self, reader: VideoReader, damaged: Damage) -> Iterator[_Clips]:
        clip = self.clip
        options: dict[str, Any] = {
            "num_frames": clip.num_frames,
            "stride": clip.stride,
            "target_fps": clip.target_fps,
            "rule": self.temporal_rule,
            "times": reader.times,
        }
        if self.views is None:
            clips = sample_covering(len(reader), reader.fps, **options)
        else:
            clips = sample_test(len(reader), reader.fps, num_clips=self.views.num_clips, **options)
        views = self.views or Views(len(clips), 1)
        size = views.cut_size(clip.short_side, clip.crop)
        plan = plan_clips(clips, short_side=size, num_crops=views.num_crops)
        done = 0
        for chunk in read_chunks(reader, plan, max_clips=_CHUNK_CLIPS):
            yield _Clips(clips[done : done + len(chunk.clips)], chunk, views)
            done += len(chunk.clips)

    def dataset_logits(
        self, dataset: VideoDataset, *, workers: int = 2, progress: Progress = ignore
    ) -> list[Logits | Failure]:
        """The logits (num_clips, num_crops, num_classes) of each video of a data set, cut into clips as for a
        prediction.
        """

        def source(position: int) -> Iterator[tuple[Damage, _Clips]]:
            side, fps = self.clip.short_side, self.frames_fps
            with dataset.open(position, short_side=side, backend=self.backend, frames_fps=fps) as reader:
                yield from read_readable(reader, self._read, to_end=self.views is None)

        found: list[Logits | Failure] = []
        positions = range(len(dataset))
        with closing(prefetch_decode(positions, source, min(workers, len(dataset)))) as stream:
            for position, parts in stream:
                try:
                    found.append(self._run(parts).logits)
                except VideoError as error:
                    found.append(Failure(dataset.items[position].path, error.cause))
                progress(len(found), len(dataset))
        return found

    def _run(self, parts: Iterator[tuple[Damage, _Clips]]) -> _Output:
        logits: list[Logits] = []
        spans: list[tuple[float, float]] = []
        damaged: Damage = ()
        with evaluating(self.loaded.model):
            for damage, part in parts:
                if damage != damaged:
                    logits, spans, damaged = [], [], damage
                views = cut_views([part.chunk], self.clip, self._scorer.device)
                rows = np.stack([row for _, row in self._scorer.stream(views)])
                logits.append(rows.reshape(len(part.clips), part.views.num_crops, -1))
                spans.extend(self._span(clip, part.chunk.video) for clip in part.clips)
                last = part
        return _Output(np.concatenate(logits), spans, damaged, last)

    def _predict(self, path: str, parts: Iterator[tuple[Damage, _Clips]]) -> Prediction:
        output = self._run(parts)
        table, video = self.task.join(self.task.activation(output.logits), axis=1), output.last.chunk.video
        by_segments = self.temporal_rule in SEGMENT_RULES
        rejection, rejected, reject_score = self.rejection, [False] * len(table), math.nan
        if rejection is not None:
            reject_scores = rejection.scores(output.logits)
            reject_score = float(reject_scores.mean())
            rejected = [rejection.rejects(each) for each in reject_scores.mean(1)]
        return Prediction(
            path=path,
            class_names=self.class_names,
            scores=self.task.join(table, axis=0),
            windows=tuple(map(self._window, output.spans, table, rejected)),
            window_scores=table,
            duration=max(video.duration, output.damaged[-1].end if output.damaged else 0.0),
            fps=video.fps,
            gaps=video.gaps,
            views=str(output.last.views),
            damaged=output.damaged,
            clip_seconds=self.clip.num_frames / video.fps if by_segments else self.clip.seconds,
            rejection=rejection,
            reject_score=reject_score,
        )

    def _span(self, clip: NDArray[np.int64], video: FrameTimes) -> tuple[float, float]:
        """Start and end in seconds of what a clip represents: its frames; for a segment rule, the video."""
        if self.temporal_rule in SEGMENT_RULES:
            return 0.0, video.duration
        return float(video.seconds(clip[0])), float(video.ends(clip[-1]))

    def _window(self, span: tuple[float, float], scores: NDArray[np.float32], rejected: bool) -> Window:
        best = int(scores.argmax())
        return Window(float(span[0]), float(span[1]), self.class_names[best], float(scores[best]), rejected)


def rule_to_predict(loaded: LoadedModel) -> str:
    """The temporal rule for prediction: ``saccade``, whose clips reach both ends of the video, or the segment
    rule that the model was trained with.
    """
    trained = loaded.metadata.get("temporal_rule")
    return trained if trained in SEGMENT_RULES else "saccade"
