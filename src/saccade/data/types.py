"""The records that travel from a data set to the model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

Task = Literal["single-label", "multi-label", "localization", "detection", "masked"]
"""What a run learns: one label a clip, several a clip, several at every moment, several for every person; or,
without labels, what was hidden of a clip."""


@dataclass(frozen=True)
class Action:
    """Something that happens in a part of a video: its class, and from when to when in seconds."""

    label: int
    start: float
    end: float


@dataclass(frozen=True)
class VideoItem:
    """One labelled video of a data set.

    ``num_frames`` and ``fps`` are what the data set says of a *folder* of frames, which does not say it
    itself: how many of its files count, and their rate. None: all of them, and open_video's default.

    Where a video has any number of ``actions`` (`VideoDataset.multi_label`), ``label`` is -1. ``duration`` is
    then the length in seconds that the data set states, if it does.
    """

    path: str
    label: int
    num_frames: int | None = None
    fps: float | None = None
    actions: tuple[Action, ...] = ()
    duration: float | None = None


@dataclass(frozen=True)
class VideoDataset:
    """A list of labelled videos and the names of their classes, in label order.

    ``pairs`` holds pairs of labels that differ in the direction of time alone (only `motion` has them).
    ``multi_label``: a video has any number of actions with times instead of one label.
    """

    items: tuple[VideoItem, ...]
    class_names: tuple[str, ...]
    split: str
    root: str
    pairs: tuple[tuple[int, int], ...] = ()
    multi_label: bool = False

    def __len__(self) -> int:
        return len(self.items)


@dataclass(frozen=True)
class ClipRequest:
    """What a worker is asked to decode: a video and how to draw one training clip from it.

    Every random choice, in the worker and on the device, comes from ``seed``, so a clip does not depend on
    which worker or which process makes it. The shape is part of the request so that it may change from
    batch to batch (multigrid).
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
    """A file that could not be read while training, and what took its place."""

    path: str
    cause: str
    replaced_by: str


@dataclass
class ClipBatch:
    """A batch as the workers deliver it: decoded and resized, not yet cropped.

    Attributes:
        clips: uint8 tensors of shape (T, H, W, 3); H and W may differ between clips.
        labels: int64 of shape (B,); of several labels float32 of shape (B, K), or (B, K, L) at L points in
            time or of L people, 1 where the class is there.
        seeds: one integer per clip, for the transforms.
        indices: position of each video in the data set.
        crop: side in pixels of the square the transforms cut out.
        failures: files that could not be read and were replaced.
        inside: bool (B, L), which points in time lie within the video, or which people there are; None
            without either.
        boxes: float32 (B, L, 4) of the people: x1, y1, x2, y2 as shares of width and height; None without.
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

    def to(self, device: torch.device | str) -> ClipBatch:
        """The same batch with clips and labels on ``device``."""
        return ClipBatch(
            [clip.to(device, non_blocking=True) for clip in self.clips],
            self.labels.to(device, non_blocking=True),
            self.seeds,
            self.indices,
            self.crop,
            self.failures,
            None if self.inside is None else self.inside.to(device, non_blocking=True),
            None if self.boxes is None else self.boxes.to(device, non_blocking=True),
        )
