"""Any map-style data set of (clip, label) as a data set to train on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from saccade.data.cache import FrameCache
from saccade.data.clips import ClipSettings, PackedBatch
from saccade.data.seeds import stream
from saccade.data.types import ClipRequest, VideoDataset
from saccade.errors import DataError, SaccadeError, VideoError
from saccade.sampling.views import draw_short_side
from saccade.video.resize import resize_short_side


class Clips(Dataset[tuple[Tensor, Any]]):
    """The items of ``source`` with clips in one of two forms: uint8 frames (T, H, W, 3), which are cropped,
    augmented and normalised like those of a video; or float clips (3, T, H, W), which are taken as they are.
    """

    def __init__(self, source: Any, class_names: Sequence[str] = ()) -> None:
        self.source = source
        self.class_names = tuple(class_names)

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        clip, label = self.source[index]
        clip = torch.as_tensor(clip)
        if clip.ndim == 4 and clip.dtype == torch.uint8 and clip.shape[3] != 3 and clip.shape[0] == 3:
            clip = clip.permute(1, 2, 3, 0)
        ready = clip.is_floating_point() and clip.ndim == 4 and clip.shape[0] == 3
        frames = clip.dtype == torch.uint8 and clip.ndim == 4 and clip.shape[3] == 3
        if not (ready or frames):
            raise DataError(
                f"item {index}: a clip is uint8 frames (T, H, W, 3) or (3, T, H, W), or floats (3, T, H, W); "
                f"got {clip.dtype} {tuple(clip.shape)}"
            )
        return clip.float() if ready else clip, label

    def item(self, index: int, num_frames: int) -> tuple[Tensor, Any]:
        """Clip and label.

        Raises:
            DataError: the clip has another number of frames.
        """
        clip, label = self[index]
        found = clip.shape[1] if clip.is_floating_point() else len(clip)
        if found != num_frames:
            raise DataError(f"item {index}: has {found} frames, but clip.num_frames is {num_frames}")
        return clip, label


@dataclass(frozen=True)
class ClipTensors(VideoDataset):
    """A map-style data set of (clip, label) as a `VideoDataset` without videos."""

    clips: Any = None  # Clips; the fields before it have defaults

    @classmethod
    def of(cls, source: Any, split: str, class_names: Sequence[str] = ()) -> ClipTensors:
        """Wrap ``source``.

        Args:
            class_names: in label order; default: ``source.class_names`` or ``source.classes``.
        """
        names = tuple(class_names) or tuple(
            getattr(source, "class_names", None) or getattr(source, "classes", None) or ()
        )
        return cls(
            items=(), class_names=names, split=split, root=type(source).__name__, clips=Clips(source, names)
        )

    def __len__(self) -> int:
        return len(self.clips)

    def check(self, index: int, num_frames: int) -> None:
        """Raise `DataError` unless an item is a clip of ``num_frames`` frames."""
        self.clips.item(index, num_frames)

    def train_clips(self, settings: ClipSettings, cache: FrameCache | None = None) -> Any:
        """What the worker processes of `TrainLoader` read clips with. Nothing is cached."""
        return TensorClips(self.clips, settings, len(self.class_names))

    def fingerprint(self) -> dict[str, Any]:
        """As that of `VideoDataset`; labels are the source's ``targets`` or ``labels``, if it has them."""
        source = self.clips.source
        labels = getattr(source, "targets", None)
        labels = getattr(source, "labels", None) if labels is None else labels
        return {
            "num_videos": len(self),
            "labels": [] if labels is None else np.asarray(labels).tolist(),
            "class_names": list(self.class_names),
        }


class TensorClips(Dataset["PackedBatch | SaccadeError"]):
    """Reads training batches of `Clips`, as `TrainClips` does of videos. Labels are below ``num_classes``,
    where that is known.
    """

    def __init__(self, clips: Clips, settings: ClipSettings, num_classes: int = 0) -> None:
        self.clips, self.settings, self.num_classes = clips, settings, num_classes
        self.source = clips.source

    def __getitem__(self, requests: list[ClipRequest]) -> PackedBatch | SaccadeError:
        try:
            read = [self._clip(request) for request in requests]
        except VideoError as error:
            return DataError(str(error))
        except SaccadeError as error:
            return error
        clips = [clip for clip, _ in read]
        return PackedBatch(
            pixels=torch.cat([clip.reshape(-1) for clip in clips]),
            shapes=tuple(tuple(clip.shape) for clip in clips),
            labels=torch.stack([label for _, label in read]),
            seeds=tuple(request.seed for request in requests),
            indices=tuple(request.index for request in requests),
            crop=requests[0].crop,
            failures=(),
        )

    def _clip(self, request: ClipRequest) -> tuple[Tensor, Tensor]:
        clip, given = self.clips.item(request.index, request.num_frames)
        label = self._label(request.index, given)
        if clip.is_floating_point():
            return clip, label
        rng = stream(request.seed, "clip")
        short_side = draw_short_side(request.short_side, rng, inverse=self.settings.inverse_uniform)
        return resize_short_side(clip, short_side), label

    def _label(self, index: int, given: Any) -> Tensor:
        try:
            label = torch.as_tensor(given)
        except (TypeError, ValueError, RuntimeError):
            raise DataError(f"item {index}: a label is a number or a vector of them; got {given!r}") from None
        if label.ndim == 0 and self.num_classes and not 0 <= label < self.num_classes:
            raise DataError(
                f"item {index}: label {given} is not among the {self.num_classes} classes, from 0 on"
            )
        return label
