"""Worker processes read videos; the main process gets frames and knows what to cut from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from saccade.clip import ClipSpec
from saccade.data.types import VideoItem
from saccade.errors import VideoError
from saccade.evaluation.result import Failure
from saccade.sampling.plan import PlannedClip, decode_sizes, plan_video
from saccade.sampling.views import Views, check_crop
from saccade.video import open_video


@dataclass(frozen=True)
class DecodedFrames:
    """Frames of one video at one size, uint8 (N, H, W, 3), and the clips to make of them."""

    frames: Tensor
    clips: tuple[PlannedClip, ...]


@dataclass(frozen=True)
class DecodedVideo:
    """One video at every size that the view sets ask for, mostly one. ``position``: in the data set;
    ``duration``: seconds that the file lasts.
    """

    position: int
    sizes: tuple[DecodedFrames, ...]
    duration: float

    def pin_memory(self) -> DecodedVideo:
        """A copy in page-locked memory; called by PyTorch's loader."""
        return replace(
            self, sizes=tuple(replace(size, frames=size.frames.pin_memory()) for size in self.sizes)
        )


@dataclass(frozen=True)
class UnreadVideo:
    """A video that could not be read; ``position``: in the data set."""

    position: int
    failure: Failure


class VideosToTest(Dataset[DecodedVideo | UnreadVideo]):
    """Item ``i`` opens and decodes the video ``positions[i]`` once, for all view sets (once for each size,
    where they decode at several).
    """

    def __init__(
        self,
        items: Sequence[VideoItem],
        positions: Sequence[int],
        clip: ClipSpec,
        view_sets: Sequence[Views],
        *,
        rule: str,
        shuffle_seed: int | None,
    ) -> None:
        self.items, self.positions = items, positions
        self.clip, self.view_sets = clip, view_sets
        self.rule, self.shuffle_seed = rule, shuffle_seed

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, index: int) -> DecodedVideo | UnreadVideo:
        position = self.positions[index]
        item = self.items[position]
        try:
            decoded = [self._decode(item, position, size) for size in decode_sizes(self.clip, self.view_sets)]
            return DecodedVideo(position, tuple(frames for frames, _ in decoded), decoded[0][1])
        except VideoError as error:
            return UnreadVideo(position, Failure(item.path, error.cause))

    def _decode(self, item: VideoItem, position: int, size: int) -> tuple[DecodedFrames, float]:
        seed = None if self.shuffle_seed is None else (self.shuffle_seed, position)
        with open_video(item.path, short_side=size, fps=item.fps, num_frames=item.num_frames) as reader:
            check_crop(*reader.size, self.clip.crop)
            plan = plan_video(
                len(reader),
                reader.fps,
                self.clip,
                self.view_sets,
                decode_size=size,
                rule=self.rule,
                shuffle_seed=seed,
            )
            frames = DecodedFrames(reader.frames(plan.indices.tolist()), plan.clips)
            return frames, len(reader) / reader.fps


def read_ahead(videos: Dataset[Any], *, workers: int, pin_memory: bool) -> Iterator[Any]:
    """The items of ``videos`` in order, decoded ahead by ``workers`` processes (0: in this one)."""
    num_workers = min(workers, len(videos))  # type: ignore[arg-type]
    options: dict[str, Any] = {"prefetch_factor": 2} if num_workers else {}
    loader = DataLoader(
        videos,
        batch_size=None,
        num_workers=num_workers,
        pin_memory=pin_memory,
        worker_init_fn=_one_thread,
        **options,
    )
    return iter(loader)


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)
