"""The loader of the training clips of a run."""

from __future__ import annotations

import os

from saccade.data.loader import TrainLoader
from saccade.data.types import VideoDataset
from saccade.tasks import get_task
from saccade.training.config import TrainConfig


def make_loader(config: TrainConfig, dataset: VideoDataset, *, pin_memory: bool = False) -> TrainLoader:
    """The loader of the training clips of a run."""
    return TrainLoader(
        dataset,
        workers=config.workers,
        rule=config.temporal_rule,
        target_fps=config.clip.target_fps,
        inverse_uniform=config.augment.inverse_uniform,
        backend=config.backend,
        frames_fps=config.frames_fps,
        cache_mb=config.cache_mb // int(os.environ.get("LOCAL_WORLD_SIZE", 1)),
        cache_short_side=config.train_short_side[1],
        pin_memory=pin_memory,
        labels=get_task(config.task).label_kind,
    )
