"""Worker processes read videos; the main process gets frames and knows what to cut from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from saccade.clip import ClipSpec
from saccade.errors import VideoError
from saccade.evaluation.plan import PlannedClip, plan_video
from saccade.evaluation.result import Failure
from saccade.video import open_video
from saccade.video.views import Views, check_crop


@dataclass(frozen=True)
class DecodedVideo:
    """Frames of one video, uint8 (N, H, W, 3), and the clips to make of them. ``position``: in the data
    set.
    """

    position: int
    frames: Tensor
    clips: tuple[PlannedClip, ...]

    def pin_memory(self) -> DecodedVideo:
        return replace(self, frames=self.frames.pin_memory())


@dataclass(frozen=True)
class UnreadVideo:
    position: int
    failure: Failure


class VideosToTest(Dataset[DecodedVideo | UnreadVideo]):
    """Item ``i`` opens and decodes the video ``positions[i]`` once, for all view sets."""

    def __init__(
        self,
        paths: Sequence[str],
        positions: Sequence[int],
        clip: ClipSpec,
        view_sets: Sequence[Views],
        *,
        rule: str,
        shuffle_seed: int | None,
    ) -> None:
        self.paths, self.positions = paths, positions
        self.clip, self.view_sets = clip, view_sets
        self.rule, self.shuffle_seed = rule, shuffle_seed

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> DecodedVideo | UnreadVideo:
        position = self.positions[index]
        path = self.paths[position]
        seed = None if self.shuffle_seed is None else (self.shuffle_seed, position)
        try:
            with open_video(path, short_side=self.clip.short_side) as reader:
                check_crop(*reader.size, self.clip.crop)
                plan = plan_video(
                    len(reader), reader.fps, self.clip, self.view_sets, rule=self.rule, shuffle_seed=seed
                )
                frames = reader.frames(plan.indices.tolist())
        except VideoError as error:
            return UnreadVideo(position, Failure(path, error.cause))
        return DecodedVideo(position, frames, plan.clips)


def decoded_videos(
    videos: VideosToTest, *, workers: int, pin_memory: bool
) -> Iterator[DecodedVideo | UnreadVideo]:
    """The videos in order, decoded ahead by ``workers`` processes (0: in this one)."""
    options: dict[str, Any] = {"prefetch_factor": 2} if workers else {}
    loader = DataLoader(
        videos,
        batch_size=None,
        num_workers=min(workers, len(videos)),
        pin_memory=pin_memory,
        worker_init_fn=_one_thread,
        **(options if min(workers, len(videos)) else {}),
    )
    return iter(loader)


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)
