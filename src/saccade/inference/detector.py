"""Actions of people: scores of every action for the person boxes of a video."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from saccade.clip import ClipSpec
from saccade.data.ava import Keyframe, keyframe_clip
from saccade.data.ava_files import Box, BoxRow, read_people
from saccade.errors import DataError, VideoError
from saccade.evaluation.reading import Chunk, cut_views, map_videos, read_chunks
from saccade.evaluation.scorer import Precision, Scorer, evaluating
from saccade.inference.loading import LoadedModel, load_for_task
from saccade.inference.partial import Damage, read_readable
from saccade.sampling.plan import WHOLE, PlannedClip, VideoPlan
from saccade.sampling.timing import FrameTimes, gaps_dict
from saccade.tasks import Detect, Failure
from saccade.video import Backend, VideoReader, open_video
from saccade.video.damage import damage_dict
from saccade.video.source import VideoInput, source_name

THRESHOLD = 0.5
MIN_SCORE = 0.9
_FIRST_SECOND = 900  # where the cut videos of AVA begin


@dataclass(frozen=True, eq=False)
class Person:
    """A person box and its action scores.

    Attributes:
        second: as the file of boxes states it.
        time: seconds from the start of the video.
        box: x1, y1, x2, y2 as fractions of the frame.
        scores: float32 (K,), sigmoid.
    """

    second: int
    time: float
    box: Box
    scores: NDArray[np.float32] = field(repr=False)


@dataclass(frozen=True, eq=False)
class PeopleActions:
    """The actions of the people in one video.

    Attributes:
        class_names: actions in label order.
        people: in order of time.
        duration: seconds; fps: frames per second, where the rate varies the usual one.
        gaps: start and end in seconds of the stretches in which nothing was recorded or can be decoded.
        damaged: what cannot be decoded: spans with ``start`` and ``end`` in seconds, and the ``cause``. Boxes
            at those times are left out.
    """

    path: str
    class_names: tuple[str, ...]
    people: tuple[Person, ...]
    duration: float
    fps: float
    gaps: tuple[tuple[float, float], ...] = ()
    damaged: Damage = ()

    def actions(self, person: Person, threshold: float = THRESHOLD, k: int = 5) -> list[tuple[str, float]]:
        """The actions that score at least ``threshold``, best first, at most ``k``."""
        order = np.argsort(-person.scores, kind="stable")[:k]
        return [
            (self.class_names[i], float(person.scores[i])) for i in order if person.scores[i] >= threshold
        ]

    def to_dict(self, threshold: float = THRESHOLD, k: int = 5) -> dict[str, Any]:
        """Plain values for JSON: the video, and for every person the actions above ``threshold``."""
        return {
            "path": self.path,
            "duration": round(self.duration, 3),
            "fps": round(self.fps, 4),
            **gaps_dict(self.gaps),
            **damage_dict(self.damaged),
            "threshold": threshold,
            "people": [
                {
                    "second": person.second,
                    "time": round(person.time, 3),
                    "box": [round(value, 4) for value in person.box],
                    "actions": [
                        {"label": label, "score": round(score, 6)}
                        for label, score in self.actions(person, threshold, k)
                    ],
                }
                for person in self.people
            ],
        }


class Detector:
    """A trained detection model as a function from a video to `PeopleActions`.

    >>> detect = saccade.Detector("runs/x3d_m_ava", boxes="people.csv")
    >>> found = detect("film.mp4")
    >>> [found.actions(person) for person in found.people]
    [[('stand', 0.91), ('talk to', 0.66)]]

    Args:
        model, labels, device, weights, num_classes, clip, precision, frames_fps, backend: as for
            `Predictor`.
        boxes: the person boxes: a file that `read_people` reads, or its rows. A row belongs to the video
            whose file name without suffix is its ``video_id``. Seconds count from the start of the video, or,
            if the video is too short for that, from 900 as in AVA.
        min_score: boxes with a lower detection score are ignored.

    Raises:
        UsageError, WeightsError: the model, weights, labels or device cannot be used, or the model was not
            trained for detection; the message says why.
        DataError: the file of boxes cannot be read.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | nn.Module | LoadedModel,
        labels: str | os.PathLike[str] | Sequence[str] | None = None,
        device: str | torch.device = "auto",
        *,
        boxes: str | os.PathLike[str] | Sequence[BoxRow],
        weights: str | os.PathLike[str] | None = None,
        num_classes: int | None = None,
        clip: ClipSpec | None = None,
        min_score: float = MIN_SCORE,
        precision: Precision = "float32",
        frames_fps: float | None = None,
        backend: Backend = "auto",
    ) -> None:
        self.loaded: LoadedModel = load_for_task(
            model,
            Detect.name,
            "not for people in boxes; train with --task detection, or predict without boxes",
            weights=weights,
            num_classes=num_classes,
            labels=labels,
            clip=clip,
            device=device,
        )
        self.class_names, self.clip = self.loaded.class_names, self.loaded.clip
        self.frames_fps, self.backend = frames_fps, backend
        if isinstance(boxes, str | os.PathLike):
            self._boxes_from, rows = os.fspath(boxes), read_people(boxes)
        else:
            self._boxes_from, rows = "the boxes", list(boxes)
        self._moments = _moments(rows, min_score)
        if not self._moments:
            raise DataError(f"{self._boxes_from}: no boxes with a score of at least {min_score:g}")
        self._scorer = Scorer(self.loaded.model, Detect(), self.clip, batch_size=1, precision=precision)

    def check(self, sources: Iterable[VideoInput]) -> None:
        """Raise a `DataError` unless there are boxes for each of these videos."""
        for source in sources:
            self._of_video(source_name(source))

    def __call__(self, source: VideoInput, *, name: str | None = None) -> PeopleActions:
        """Score the actions of the people in one video.

        Args:
            source: a path, bytes, a file object, a URL or frames in memory, see `saccade.open_video`.
            name: what the result calls it, and what its boxes are found by; default: its path or URL, or the
                name of a file object.

        If some frames cannot be decoded, the others are used; see `PeopleActions.damaged`.

        Raises:
            VideoError: nothing in the video can be read, or no second with boxes; names it and the cause.
            DataError: there are no boxes for it, or they lie beyond its end.
            UsageError: the source is of a type that is not taken.
        """
        name = name or source_name(source)
        return self._detect(name, self._decode(source, name, threads=0))

    def detect_many(
        self, sources: Iterable[VideoInput], *, workers: int = 2
    ) -> Iterator[PeopleActions | Failure]:
        """Score the actions of the people in many videos, in order; ``workers`` threads decode ahead.

        A video that cannot be read, or has boxes beyond its end, yields a `Failure` with its name and the
        cause, and the next ones follow.
        """
        yield from map_videos(
            sources,
            lambda source: self._decode(source, source_name(source), threads=1),
            self._detect,
            workers,
            failures=(VideoError, DataError),
        )

    def _decode(
        self, source: VideoInput, name: str, *, threads: int
    ) -> Iterator[tuple[Damage, tuple[Chunk, int, float]]]:
        with open_video(
            source, self.backend, short_side=self.clip.short_side, fps=self.frames_fps, threads=threads
        ) as reader:
            yield from read_readable(reader, partial(self._read, name), to_end=False)

    def _read(self, name: str, reader: VideoReader, damaged: Damage) -> Iterator[tuple[Chunk, int, float]]:
        """The clip around each second that has boxes, the second as the boxes call it, and its time."""
        moments = self._of_video(name)
        cut = self._begins_late(name, moments, _duration(FrameTimes.of(reader), damaged))
        times = {second: float(second - _FIRST_SECOND * cut) for second in sorted(moments)}
        seconds = [s for s, time in times.items() if not any(d.start <= time < d.end for d in damaged)]
        if not seconds:
            raise VideoError(name, f"none of the seconds with boxes can be decoded: {damaged[0].cause}")
        clips = np.stack([self._frames(name, second, reader, cut) for second in seconds])
        indices, rows = np.unique(clips, return_inverse=True)
        planned = tuple(
            PlannedClip(tuple(frames.tolist()), self.clip.short_side, "pyslowfast", {WHOLE: moments[second]})
            for second, frames in zip(seconds, rows.reshape(clips.shape), strict=True)
        )
        chunks = read_chunks(reader, VideoPlan(indices, planned), max_clips=1)
        for second, chunk in zip(seconds, chunks, strict=True):
            yield chunk, second, times[second]

    def _frames(self, path: str, second: int, reader: VideoReader, cut: bool) -> NDArray[np.int64]:
        return keyframe_clip(
            Keyframe(path, second, (), (), ()),
            len(reader),
            reader.fps,
            num_frames=self.clip.num_frames,
            stride=self.clip.stride,
            cut=cut,
            times=reader.times,
        )

    def _detect(self, path: str, parts: Iterator[tuple[Damage, tuple[Chunk, int, float]]]) -> PeopleActions:
        people: list[Person] = []
        damaged: Damage = ()
        with evaluating(self.loaded.model):
            for damage, (chunk, second, time) in parts:
                if damage != damaged:
                    people, damaged = [], damage
                ((view, scores),) = self._scorer.stream(cut_views([chunk], self.clip, self._scorer.device))
                people += [Person(second, time, box, row) for box, row in zip(view.tag, scores, strict=True)]
                video = chunk.video
        duration = _duration(video, damaged)
        return PeopleActions(path, self.class_names, tuple(people), duration, video.fps, video.gaps, damaged)

    def _of_video(self, path: str) -> Mapping[int, tuple[Box, ...]]:
        name = video_id(path)
        if name not in self._moments:
            known = sorted(self._moments)
            others = ", ".join(known[:3]) + (f" and {len(known) - 3} more" if len(known) > 3 else "")
            raise DataError(
                f"{self._boxes_from}: no boxes for video {name!r} ({path}); it has those of {others}"
            )
        return self._moments[name]

    def _begins_late(self, path: str, moments: Mapping[int, Any], duration: float) -> bool:
        """Whether the seconds count from 900 at the start of the video."""
        first, last = min(moments), max(moments)
        if last < duration:
            return False
        if first >= _FIRST_SECOND and last - _FIRST_SECOND < duration:
            return True
        raise DataError(
            f"{self._boxes_from}: boxes at second {last} of video {video_id(path)!r}, which lasts "
            f"{duration:.1f} s ({path}); seconds are counted from 0, or from {_FIRST_SECOND} as AVA does"
        )


def _duration(video: FrameTimes, damaged: Damage) -> float:
    """Seconds, those that cannot be decoded included."""
    return max(video.duration, damaged[-1].end if damaged else 0.0)


def video_id(path: str) -> str:
    """The ``video_id`` of a video in files of boxes: its file name without suffix, or the folder name."""
    return Path(path).name if Path(path).is_dir() else Path(path).stem


def _moments(rows: Iterable[BoxRow], min_score: float) -> dict[str, dict[int, tuple[Box, ...]]]:
    """The boxes by video and second, without duplicates."""
    found: dict[str, dict[int, dict[Box, None]]] = {}
    for row in rows:
        if row.score >= min_score:
            found.setdefault(row.video, {}).setdefault(row.second, {})[row.box] = None
    return {
        video: {second: tuple(boxes) for second, boxes in seconds.items()} for video, seconds in found.items()
    }
