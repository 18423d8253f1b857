"""What a data set is, and the records that travel from it to the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from saccade.video import Backend, VideoReader, open_video

if TYPE_CHECKING:
    from saccade.data.cache import FrameCache
    from saccade.data.clips import ClipSettings, TrainClips


@dataclass(frozen=True)
class Action:
    """An action in a video: its class, and its start and end in seconds."""

    label: int
    start: float
    end: float


@dataclass(frozen=True)
class VideoItem:
    """One video of a data set.

    Attributes:
        path: the file, or a folder of frames.
        label: number of its class; -1 where it has ``actions`` instead (`VideoDataset.multi_label`) or none.
        num_frames, fps: of a *folder* of frames, how many of its files belong to the video and their rate, as
            the data set states them; None: all files, and open_video's default.
        actions: what happens in the video and when.
        duration: length in seconds as the data set states it.
        start, end: the segment of the video that is the clip, in seconds from its first frame; None: from its
            first frame, to its last. Times of ``actions`` count from the start of the segment.
    """

    path: str
    label: int
    num_frames: int | None = None
    fps: float | None = None
    actions: tuple[Action, ...] = ()
    duration: float | None = None
    start: float | None = None
    end: float | None = None


Moment = tuple[str, int]
"""A keyframe: the video's id and the second."""
Box = tuple[float, float, float, float]
"""x1, y1, x2, y2 as fractions of the frame's width and height."""


@dataclass(frozen=True)
class Keyframe:
    """The people at one second of one video: ``boxes`` of each, and ``actions`` of each, as numbers from 1.

    ``scores`` are those of the detector; 1 for people who were annotated.
    """

    video: str
    second: int
    boxes: tuple[Box, ...]
    actions: tuple[tuple[int, ...], ...]
    scores: tuple[float, ...]

    @property
    def moment(self) -> Moment:
        """The video and the second."""
        return self.video, self.second


@dataclass(frozen=True)
class VideoDataset:
    """A list of labelled videos and the names of their classes.

    Attributes:
        items: the videos.
        class_names: in label order; empty where the videos have no labels.
        split: ``train``, ``val``, ``test`` or ``all``.
        root: the folder or list file it was read from.
        pairs: pairs of labels that differ in the direction of time alone (only `motion` has them).
        multi_label: a video has any number of actions with times instead of one label.
        keyframes: people and what they do at moments of the videos (AVA); ``items[i]`` is then the video of
            ``keyframes[i]``. Empty for other data sets.
        num_unlabelled: number of videos without a label at the end of a training set, see
            `saccade.data.unlabelled.with_unlabelled`.
    """

    items: tuple[VideoItem, ...]
    class_names: tuple[str, ...]
    split: str
    root: str
    pairs: tuple[tuple[int, int], ...] = ()
    multi_label: bool = False
    keyframes: tuple[Keyframe, ...] = ()
    num_unlabelled: int = 0

    def __len__(self) -> int:
        return len(self.items)

    @property
    def num_labelled(self) -> int:
        """Number of the other videos, which come first."""
        return len(self) - self.num_unlabelled

    @property
    def labelled(self) -> VideoDataset:
        """Those videos as a data set."""
        if not self.num_unlabelled:
            return self
        return replace(self, items=self.items[: self.num_labelled], num_unlabelled=0)

    def open(
        self,
        index: int,
        *,
        short_side: int | None = None,
        backend: Backend = "auto",
        frames_fps: float | None = None,
    ) -> VideoReader:
        """Open the video of ``items[index]``; the caller closes it.

        Args:
            short_side, backend: see `saccade.open_video`.
            frames_fps: rate of folders of frames where the data set states none; None: 30.

        Raises:
            VideoError: the video cannot be read.
        """
        item = self.items[index]
        fps = item.fps or frames_fps
        return open_video(
            item.path,
            backend,
            short_side=short_side,
            fps=fps,
            num_frames=item.num_frames,
            start=item.start,
            end=item.end,
        )

    def train_clips(self, settings: ClipSettings, cache: FrameCache | None = None) -> TrainClips:
        """What the worker processes of `TrainLoader` read clips with."""
        from saccade.data.clips import TrainClips

        return TrainClips(self, settings, cache)

    def fingerprint(self) -> dict[str, Any]:
        """What must be the same for a run to resume on this data set, as plain values: number of videos,
        labels and class names.
        """
        labels: list[Any] = [_people(keyframe) for keyframe in self.keyframes]
        return {
            "num_videos": len(self),
            "labels": labels or [_labels(item) for item in self.items],
            "class_names": list(self.class_names),
        }


def _labels(item: VideoItem) -> Any:
    labels = [[a.label, a.start, a.end] for a in item.actions] if item.label < 0 else item.label
    return labels if item.start is None and item.end is None else [labels, item.start, item.end]


def _people(keyframe: Keyframe) -> list[int]:
    return [keyframe.second, *(n for actions in keyframe.actions for n in (len(actions), *actions))]


@dataclass(frozen=True)
class ClipRequest:
    """What a worker decodes: a video and how to draw one training clip from it.

    Every random choice, in the worker and on the device, comes from ``seed``, so a clip does not depend on
    the worker or process that makes it. The shape is part of the request, as it may change from batch to
    batch (multigrid).
    """

    index: int
    seed: int
    num_frames: int
    stride: tuple[int, int]  # inclusive range, drawn per clip
    short_side: tuple[int, int]  # inclusive range, drawn per clip
    crop: int
    stride_step: int = 1  # distance between the strides that can be drawn


@dataclass(frozen=True)
class ReadFailure:
    """A file that could not be read while training, and the one that replaced it."""

    path: str
    cause: str
    replaced_by: str


@dataclass
class ClipBatch:
    """A batch as the workers deliver it: decoded and resized, not yet cropped.

    Attributes:
        clips: uint8 tensors of shape (T, H, W, 3); H and W may differ between clips.
        labels: int64 (B,); multi-label float32 (B, K), or (B, K, L) at L points in time or of L people, 1
            where the class is present.
        seeds: one integer per clip, for the transforms.
        indices: position of each video in the data set.
        crop: side in pixels of the square the transforms cut out.
        failures: files that could not be read and were replaced.
        inside: bool (B, L), which of the points lie within the video, or which of the people exist; None for
            labels (B,) and (B, K).
        boxes: float32 (B, L, 4) of the people: x1, y1, x2, y2 as fractions of width and height; None without
            people.
    """

    clips: Sequence[Tensor]
    labels: Tensor
    seeds: tuple[int, ...]
    indices: tuple[int, ...]
    crop: int
    failures: tuple[ReadFailure, ...] = field(default=())
    inside: Tensor | None = None
    boxes: Tensor | None = None

    def __len__(self) -> int:
        return len(self.clips)

    def select(self, positions: Sequence[int]) -> ClipBatch:
        """Some of the clips, without the failures."""
        rows = list(positions)
        return replace(
            self,
            clips=[self.clips[row] for row in rows],
            labels=self.labels[rows],
            seeds=tuple(self.seeds[row] for row in rows),
            indices=tuple(self.indices[row] for row in rows),
            inside=None if self.inside is None else self.inside[rows],
            boxes=None if self.boxes is None else self.boxes[rows],
            failures=(),
        )

    def to(self, device: torch.device | str) -> ClipBatch:
        """The same batch with clips and labels on ``device``."""
        move = partial(Tensor.to, device=device, non_blocking=True)
        return replace(
            self,
            clips=[move(clip) for clip in self.clips],
            labels=move(self.labels),
            inside=None if self.inside is None else move(self.inside),
            boxes=None if self.boxes is None else move(self.boxes),
        )
