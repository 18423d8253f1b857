"""Testing while training: every process takes its share of the videos."""

from __future__ import annotations

from torch import nn

from saccade.data.types import VideoDataset
from saccade.evaluation import TestResult, evaluate
from saccade.training.config import TrainConfig
from saccade.training.distributed import Processes


def validate_model(
    model: nn.Module, dataset: VideoDataset, views: str, *, config: TrainConfig, processes: Processes
) -> TestResult:
    """Test ``model`` on ``dataset`` over all processes, which all get the whole result."""
    results = evaluate(
        model,
        dataset,
        config.clip,
        views,
        device=processes.device,
        workers=config.workers,
        batch_size=max(1, config.batch_size // (processes.world_size * config.accumulate)),
        temporal_rule=config.temporal_rule,
        seed=config.seed,
        precision=config.precision,
        distributed=processes.world_size > 1,
        group=processes.control,
    )
    return next(iter(results.values()))
