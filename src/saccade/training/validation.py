"""Validation during training: the test of the current weights, and how it is recorded."""

from __future__ import annotations

import math

from torch import nn

from saccade.data.tensors import ClipTensors
from saccade.data.types import VideoDataset
from saccade.evaluation import Controls, evaluate
from saccade.tasks import Result, get_task
from saccade.training.config import TrainConfig
from saccade.training.processes import Processes
from saccade.training.progress import Progress


def validate_model(
    model: nn.Module,
    dataset: VideoDataset,
    views: str,
    *,
    config: TrainConfig,
    processes: Processes,
    controls: Controls | None = None,
) -> Result:
    """Test ``model`` on ``dataset`` with all processes; each of them gets the result."""
    tested, views = (dataset.clips, "1x1") if isinstance(dataset, ClipTensors) else (dataset, views)
    results = evaluate(
        model,
        tested,
        config.clip,
        views,
        task=get_task(config.task).from_config(config).for_test(config, model),
        device=processes.device,
        workers=config.workers,
        batch_size=max(1, config.batch_size // (processes.world_size * config.accumulate)),
        temporal_rule=config.temporal_rule,
        seed=config.seed,
        controls=controls,
        precision=config.precision,
        backend=config.backend,
        distributed=processes.world_size > 1,
        group=processes.control,
    )
    result: Result = next(iter(results.values()))
    return result


def validation_record(result: Result, *, seconds: float) -> dict[str, float]:
    """The line of metrics.jsonl."""
    figures = {
        **{f"val_{name}": value for name, value in result.figures.items()},
        "val_loss": result.loss,
        "val_failures": len(result.failures),
        "val_seconds": round(seconds, 3),
    }
    return {key: value for key, value in figures.items() if math.isfinite(value)}


def validation_text(result: Result, progress: Progress, *, better: bool) -> str:
    """The line of the log, after `Progress.see_score`."""
    if math.isnan(result.score):
        return f"validation {result.views}: no {progress.score_name}, no readable video has a label"
    best = "best so far" if better else f"best {100 * progress.best_score:.1f} %"
    return f"validation {result.views}: {progress.score_name} {100 * result.score:.1f} % ({best})"
