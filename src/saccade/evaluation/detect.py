"""Testing a detector of actions: a clip around every keyframe, its frames whole, and the boxes of its people.

Shape letters: B clips, T frames, H and W pixels, N boxes of a batch, K columns of actions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from saccade.clip import ClipSpec
from saccade.data.ava import AvaDataset, is_cut, keyframe_clip
from saccade.data.ava_files import Box
from saccade.errors import DataError, UsageError, VideoError, WeightsError
from saccade.evaluation.decoding import UnreadVideo, read_ahead
from saccade.evaluation.detection import KEYFRAMES, DetectionResult, moment_texts, truth_table
from saccade.evaluation.result import Failure
from saccade.evaluation.scoring import Precision, evaluating, model_device
from saccade.evaluation.share import Share, check_classes, counted, gather, ranks
from saccade.models import count_macs, memory_format
from saccade.transforms.normalize import affine, batch_layout

_CLIPS_PER_PASS = 8  # of one size; less where the caller says so


def evaluate_detection(
    model: nn.Module,
    dataset: AvaDataset,
    clip: ClipSpec,
    *,
    device: torch.device | str | None = None,
    workers: int = 2,
    batch_size: int | None = None,
    seed: int = 0,
    shuffle_frames: bool = False,
    precision: Precision = "float32",
    progress: bool = False,
    on_video: Callable[[int, int], None] | None = None,
    distributed: bool = False,
    group: Any = None,
) -> DetectionResult:
    """Scores of ``model`` for the people of every keyframe of ``dataset``.

    Frames are resized to the short side of ``clip`` and not cropped, as PySlowFast tests.

    Args:
        model: clips (B, 3, T, H, W) and boxes, for each (N_i, 4) in pixels -> (sum of N_i, 80) logits. Its
            mode and weights are left as they are.
        clip: frames, stride and short side of the clips.
        batch_size: most clips per forward pass; those of one pass have one size.
        shuffle_frames: permute the frames of every clip, by ``seed``: a control.
        device, workers, precision, progress, on_video, distributed, group: as for `evaluate`.

    Raises:
        UsageError: sizes that cannot work.
        DataError: no keyframe, none that can be read, or actions the model does not have.
        WeightsError: the model's output is not finite.
    """
    if batch_size is not None and batch_size < 1:
        raise UsageError(f"batch_size must be at least 1, got {batch_size}")
    if not len(dataset):
        raise DataError(f"{dataset.root}: no keyframes in split {dataset.split!r}")
    home = torch.device(device) if device is not None else model_device(model)
    rank, world = ranks(distributed, group)
    clips = KeyframesToTest(
        dataset, range(rank, len(dataset), world), clip, shuffle_seed=seed if shuffle_frames else None
    )
    scorer = PeopleScorer(model, clip, home, precision)
    gmacs = count_macs(model, (1, 3, clip.num_frames, clip.crop, clip.crop)) / 1e9
    with evaluating(model):
        size = batch_size or _CLIPS_PER_PASS
        share = _share(clips, scorer, size, workers, progress and rank == 0, on_video)
    whole = gather(share, dataset, world, group)
    order = sorted(whole.scores)
    check_classes(whole.scores[order[0]].shape[1], dataset)
    keyframes = [dataset.keyframes[i] for i in order]
    shown = dict.fromkeys(keyframe.moment for keyframe in keyframes)
    places = {moment: place for place, moment in enumerate([*shown])}
    for row in dataset.truth:
        places.setdefault(row.moment, len(places))
    return DetectionResult(
        moments=moment_texts(places),
        people=np.repeat([places[k.moment] for k in keyframes], [len(k.boxes) for k in keyframes]).astype(
            np.int64
        ),
        boxes=np.array([box for k in keyframes for box in k.boxes], np.float64).reshape(-1, 4),
        scores=np.concatenate([whole.scores[i] for i in order]).astype(np.float32),
        truth=truth_table(dataset.truth, places),
        counted=np.array(sorted(dataset.actions), np.int64),
        excluded=moment_texts(sorted(dataset.excluded)),
        boxes_from=dataset.boxes_from,
        views=KEYFRAMES,
        clip=clip,
        shuffled=shuffle_frames,
        gmacs_per_view=gmacs,
        num_params=sum(p.numel() for p in model.parameters()),
        **whole.protocol(dataset, world),
    )


@dataclass(frozen=True)
class DecodedKeyframe:
    """The clip of one keyframe: uint8 (T, H, W, 3)."""

    position: int
    frames: Tensor

    def pin_memory(self) -> DecodedKeyframe:
        """A copy in page-locked memory; called by PyTorch's loader."""
        return replace(self, frames=self.frames.pin_memory())


class KeyframesToTest(Dataset[DecodedKeyframe | UnreadVideo]):
    """Item ``i`` decodes the clip of keyframe ``positions[i]``."""

    def __init__(
        self, dataset: AvaDataset, positions: Sequence[int], clip: ClipSpec, *, shuffle_seed: int | None
    ) -> None:
        self.dataset, self.positions, self.clip = dataset, positions, clip
        self.shuffle_seed = shuffle_seed

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> DecodedKeyframe | UnreadVideo:
        position, clip = self.positions[index], self.clip
        try:
            with self.dataset.open(position, short_side=clip.short_side) as video:
                frames = keyframe_clip(
                    self.dataset.keyframes[position],
                    len(video),
                    video.fps,
                    num_frames=clip.num_frames,
                    stride=clip.stride,
                    cut=is_cut(len(video), video.fps),
                )
                if self.shuffle_seed is not None:
                    frames = np.random.default_rng([self.shuffle_seed, position]).permutation(frames)
                return DecodedKeyframe(position, video.frames(frames.tolist()))
        except VideoError as error:
            return UnreadVideo(position, Failure(self.dataset.items[position].path, error.cause))


class PeopleScorer:
    """The sigmoid of the people in a few clips of one size. The model is in evaluation mode."""

    def __init__(
        self, model: nn.Module, clip: ClipSpec, device: torch.device, precision: Precision = "float32"
    ) -> None:
        self.model, self.device, self.precision = model, device, precision
        mean, std = (torch.tensor(value, dtype=torch.float64) for value in (clip.mean, clip.std))
        self._scale, self._offset = batch_layout(1.0 / (255.0 * std)), batch_layout(-mean / std)
        self._channels_last = memory_format(model) == torch.channels_last_3d

    def __call__(self, clips: Sequence[Tensor], people: Sequence[Sequence[Box]]) -> list[NDArray[np.float32]]:
        """Of each clip, uint8 (T, H, W, 3), and the boxes in it the scores (people, K)."""
        pixels = torch.stack(list(clips)).to(self.device, non_blocking=True)
        height, width = pixels.shape[2:4]
        size = torch.tensor([width, height, width, height], device=self.device)
        boxes = [torch.tensor(own, device=self.device) * size for own in people]
        x_BCTHW = affine(pixels, self._scale, self._offset, channels_last=self._channels_last)
        reduced = self.precision == "bfloat16"
        autocast = torch.autocast(self.device.type, torch.bfloat16) if reduced else nullcontext()
        with torch.no_grad(), autocast:
            logits_NK = self.model(x_BCTHW, boxes)
        scores: NDArray[np.float32] = logits_NK.float().sigmoid().cpu().numpy()
        if not np.isfinite(scores).all():
            raise WeightsError(
                "the model's output is not finite: its weights are damaged or training diverged"
            )
        return np.split(scores, np.cumsum([len(own) for own in boxes])[:-1])


def _share(
    clips: KeyframesToTest,
    scorer: PeopleScorer,
    batch_size: int,
    workers: int,
    progress: bool,
    on_video: Callable[[int, int], None] | None,
) -> Share[NDArray[np.float32]]:
    share: Share[NDArray[np.float32]] = Share()
    if not len(clips):
        return share
    start = time.perf_counter()
    stream = read_ahead(clips, workers=workers, pin_memory=scorer.device.type == "cuda")
    with counted(len(clips), progress=progress, on_video=on_video) as done:
        for batch in _of_one_size(share.readable(stream, done), batch_size):
            people = [clips.dataset.keyframes[clip.position].boxes for clip in batch]
            found = scorer([clip.frames for clip in batch], people)
            for clip, scores in zip(batch, found, strict=True):
                share.scores[clip.position] = scores
            share.num_clips += len(batch)
    share.seconds = time.perf_counter() - start
    return share


def _of_one_size(clips: Iterator[DecodedKeyframe], most: int) -> Iterator[list[DecodedKeyframe]]:
    """Clips in a row that have one size, at most so many together."""
    waiting: list[DecodedKeyframe] = []
    for clip in clips:
        if waiting and (len(waiting) == most or waiting[0].frames.shape != clip.frames.shape):
            yield waiting
            waiting = []
        waiting.append(clip)
    if waiting:
        yield waiting
