"""Testing a model that tells what happens when: every video whole, in overlapping windows.

Shape letters: K classes, M frames of a video that are looked at (a stride apart), T frames of a window.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import Dataset

from saccade.clip import ClipSpec
from saccade.data.types import VideoDataset, VideoItem
from saccade.errors import DataError, VideoError
from saccade.evaluation.decoding import UnreadVideo, read_ahead
from saccade.evaluation.localization import LocalizationResult
from saccade.evaluation.points import stretch
from saccade.evaluation.result import Failure
from saccade.evaluation.scoring import Precision, ViewScorer, evaluating, model_device
from saccade.evaluation.share import Share, check_classes, counted, gather, ranks
from saccade.models.counts import count_macs
from saccade.sampling.temporal import frame_grid
from saccade.sampling.views import check_crop
from saccade.sampling.windows import Blend, Windows, plan_windows
from saccade.transforms.views import cut_views
from saccade.video import open_video

WINDOWS = "windows"
"""What stands in the place of views: the video is covered by windows of one centre crop."""


@dataclass(frozen=True)
class LocatedVideo:
    """What a pass yields of one video: logits (M, K), its frames and their rate."""

    logits: NDArray[np.float32]
    num_frames: int
    fps: float


def evaluate_localization(
    model: nn.Module,
    dataset: VideoDataset,
    clip: ClipSpec,
    *,
    overlap: float = 0.5,
    device: torch.device | str | None = None,
    workers: int = 2,
    batch_size: int | None = None,
    shuffle_frames: bool = False,
    seed: int = 0,
    precision: Precision = "float32",
    progress: bool = False,
    on_video: Callable[[int, int], None] | None = None,
    distributed: bool = False,
    group: Any = None,
) -> LocalizationResult:
    """Scores of ``model`` at every stride of every video of ``dataset``.

    Args:
        model: (B, 3, T, H, W) float -> (B, num_classes, T) logits. Its mode and weights are left as they are.
        clip: the windows' frames, stride, crop (the centre) and short side.
        overlap: share of a window that its neighbour has too.
        shuffle_frames: permute the frames of every window, by ``seed``, and give each score back to the frame
            it belongs to: a control that takes the order of time away and nothing else.
        device, workers, batch_size, precision, progress, on_video, distributed, group: as for `evaluate`.

    Raises:
        UsageError: sizes that cannot work.
        DataError: no video, none that can be read, one label a video, or labels the model does not have.
    """
    if not dataset.multi_label:
        raise DataError(f"{dataset.root}: its labels have no times; a model that localises needs them")
    if not len(dataset):
        raise DataError(f"{dataset.root}: no videos in split {dataset.split!r}")
    home = torch.device(device) if device is not None else model_device(model)
    rank, world = ranks(distributed, group)
    videos = VideosToLocate(dataset.items, range(rank, len(dataset), world), clip)
    scorer = ViewScorer(model, device=home, batch_size=batch_size, precision=precision, per_frame=True)
    gmacs = count_macs(model, (1, 3, clip.num_frames, clip.crop, clip.crop)) / 1e9
    plan_windows(1, clip.num_frames, overlap=overlap)  # a wrong overlap is told before the work
    with evaluating(model):
        shuffle = seed if shuffle_frames else None
        share = _share(videos, scorer, overlap, shuffle, workers, progress and rank == 0, on_video)
    whole = gather(share, dataset, world, group)
    order = sorted(whole.scores)
    found = [whole.scores[i] for i in order]
    check_classes(found[0].logits.shape[1], dataset)
    items = [dataset.items[i] for i in order]
    return LocalizationResult(
        logits=np.concatenate([video.logits for video in found]),
        num_points=np.array([len(video.logits) for video in found], np.int64),
        num_frames=np.array([video.num_frames for video in found], np.int64),
        fps=np.array([video.fps for video in found]),
        durations=np.array(
            [item.duration or video.num_frames / video.fps for item, video in zip(items, found, strict=True)]
        ),
        actions=np.array(
            [(row, a.label, a.start, a.end) for row, item in enumerate(items) for a in item.actions],
            np.float64,
        ).reshape(-1, 4),
        overlap=overlap,
        views=WINDOWS,
        clip=clip,
        shuffled=shuffle_frames,
        gmacs_per_view=gmacs,
        num_params=sum(p.numel() for p in model.parameters()),
        **whole.protocol(dataset, world),
    )


@dataclass(frozen=True)
class DecodedGrid:
    """Every stride of one video: uint8 (M, H, W, 3)."""

    position: int
    frames: Tensor
    num_frames: int
    fps: float

    def pin_memory(self) -> DecodedGrid:
        """A copy in page-locked memory; called by PyTorch's loader."""
        return replace(self, frames=self.frames.pin_memory())


class VideosToLocate(Dataset[DecodedGrid | UnreadVideo]):
    """Item ``i`` opens the video ``positions[i]`` and decodes a frame every stride."""

    def __init__(self, items: Sequence[VideoItem], positions: Sequence[int], clip: ClipSpec) -> None:
        self.items, self.positions, self.clip = items, positions, clip

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> DecodedGrid | UnreadVideo:
        position, clip = self.positions[index], self.clip
        item = self.items[position]
        try:
            with open_video(
                item.path, short_side=clip.short_side, fps=item.fps, num_frames=item.num_frames
            ) as reader:
                check_crop(*reader.size, clip.crop)
                length, fps = len(reader), reader.fps
                grid = frame_grid(length, fps, stride=clip.stride, target_fps=clip.target_fps)
                return DecodedGrid(position, reader.frames(grid.tolist()), length, fps)
        except VideoError as error:
            return UnreadVideo(position, Failure(item.path, error.cause))


def _share(
    videos: VideosToLocate,
    scorer: ViewScorer,
    overlap: float,
    shuffle_seed: int | None,
    workers: int,
    progress: bool,
    on_video: Callable[[int, int], None] | None,
) -> Share[LocatedVideo]:
    share: Share[LocatedVideo] = Share()
    if not len(videos):
        return share
    start = time.perf_counter()
    stream = read_ahead(videos, workers=workers, pin_memory=scorer.device.type == "cuda")
    with counted(len(videos), progress=progress, on_video=on_video) as done:
        cut = _windows(share.readable(stream, done), videos.clip, scorer, overlap, shuffle_seed)
        join = Joiner()
        for tag, logits in scorer.stream(cut):
            share.num_clips += 1
            whole = join(tag, logits)
            if whole is not None:
                share.scores[tag.position] = LocatedVideo(whole, tag.num_frames, tag.fps)
    share.seconds = time.perf_counter() - start
    return share


def _windows(
    stream: Iterator[DecodedGrid],
    clip: ClipSpec,
    scorer: ViewScorer,
    overlap: float,
    shuffle_seed: int | None,
) -> Iterator[tuple[WindowTag, Tensor]]:
    for video in stream:
        plan = plan_windows(len(video.frames), clip.num_frames, overlap=overlap)
        frames = video.frames.to(scorer.device, non_blocking=True)
        for number in range(len(plan.starts)):
            order = np.arange(clip.num_frames)
            if shuffle_seed is not None:
                order = np.random.default_rng([shuffle_seed, video.position, number]).permutation(order)
            view = window_view(frames, plan.frames(number)[order], clip, scorer)
            yield WindowTag(plan, number, order, video.position, video.num_frames, video.fps), view


def window_view(frames: Tensor, chosen: NDArray[np.int64], clip: ClipSpec, scorer: ViewScorer) -> Tensor:
    """The frames ``chosen`` of uint8 (M, H, W, 3), cut at the centre and normalised: float (3, T, S, S)."""
    cut = cut_views(
        frames[torch.from_numpy(chosen).to(frames.device)],
        clip,
        [1],
        short_side=clip.short_side,
        channels_last=scorer.channels_last,
    )
    return next(view for _, view in cut)


@dataclass(frozen=True)
class WindowTag:
    """Which window of which video a view is. ``order``: the places in the window of the view's frames."""

    plan: Windows
    number: int
    order: NDArray[np.int64]
    position: int
    num_frames: int
    fps: float


class Joiner:
    """Gives the logits (M, K) of a video once the last of its windows has come, else None."""

    def __init__(self) -> None:
        self._blend: Blend | None = None

    def __call__(self, tag: WindowTag, logits: NDArray[np.float32]) -> NDArray[np.float32] | None:
        rows = logits.T
        if len(rows) != len(tag.order):  # the network strides in time
            rows = stretch(rows, len(tag.order)).astype(np.float32)
        placed = np.empty_like(rows)
        placed[tag.order] = rows
        if self._blend is None:
            self._blend = Blend(tag.plan, rows.shape[1])
        self._blend.add(tag.number, placed.T)
        if tag.number < len(tag.plan.starts) - 1:
            return None
        whole, self._blend = self._blend.result(), None
        return whole
