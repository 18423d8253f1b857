"""What a data set lets a search do: how large and long its videos are, and how many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from saccade.data.types import VideoDataset, VideoItem
from saccade.errors import DataError, VideoError
from saccade.expansion.axes import Room
from saccade.sampling.segments import SEGMENT_RULES
from saccade.training.config import TrainConfig
from saccade.training.run import load_data
from saccade.video import open_video

SAMPLE = 48
"""Videos that are opened, evenly spread over the training split."""
_RAW_RATE_RULES = ("x3d-multigrid", "pyslowfast-charades")


@dataclass(frozen=True, kw_only=True)
class DataFacts:
    """Numbers of a data set that a search needs.

    Attributes:
        short_side: pixels, the median of the sample.
        num_frames: frames of a video at the clip's frame rate, the median of the sample.
        by_segments: see `Room`.
    """

    num_train: int
    num_val: int
    num_classes: int
    short_side: int
    num_frames: int
    by_segments: bool = False

    @property
    def room(self) -> Room:
        return Room(short_side=self.short_side, num_frames=self.num_frames, by_segments=self.by_segments)


def read_facts(base: TrainConfig) -> DataFacts:
    """Look at the data set of a recipe.

    Raises:
        UsageError, DataError: it cannot be used, or none of the sampled videos can be opened.
    """
    train_set, val_set = load_data(base.replace(val_every=1))
    assert val_set is not None
    sizes, lengths = _look(train_set, base)
    return DataFacts(
        num_train=len(train_set),
        num_val=len(val_set),
        num_classes=len(train_set.class_names),
        short_side=int(median(sizes)),
        num_frames=max(1, int(median(lengths))),
        by_segments=base.temporal_rule in SEGMENT_RULES,
    )


def _look(dataset: VideoDataset, base: TrainConfig) -> tuple[list[int], list[float]]:
    """Short sides in pixels, and frames at the clip's rate, of the videos that can be opened."""
    sizes, lengths, failed = list[int](), list[float](), list[VideoError]()
    for item in _spread(dataset.items):
        try:
            with open_video(item.path, fps=item.fps, num_frames=item.num_frames) as video:
                sizes.append(min(video.size))
                raw = base.temporal_rule in _RAW_RATE_RULES
                lengths.append(len(video) if raw else len(video) / video.fps * base.clip.target_fps)
        except VideoError as error:
            failed.append(error)
    if not sizes:
        raise DataError(f"{base.data}: none of {len(failed)} sampled videos can be opened ({failed[0]})")
    return sizes, lengths


def _spread(items: Sequence[VideoItem]) -> list[VideoItem]:
    count = min(SAMPLE, len(items))
    return [items[i * len(items) // count] for i in range(count)]
