"""Testing while training: every process takes its share of the videos."""

from __future__ import annotations

from math import isfinite
from typing import Any

from torch import nn

from saccade.data.ava import AvaDataset
from saccade.data.types import VideoDataset
from saccade.evaluation import Result, evaluate, evaluate_localization, evaluate_multilabel
from saccade.evaluation.detect import evaluate_detection
from saccade.evaluation.masked import evaluate_masked
from saccade.evaluation.result import FIGURE_NAMES
from saccade.training.config import TrainConfig
from saccade.training.distributed import Processes
from saccade.training.maskfeat import masking


def validate_model(
    model: nn.Module, dataset: VideoDataset, views: str, *, config: TrainConfig, processes: Processes
) -> Result:
    """Test ``model`` on ``dataset`` over all processes, which all get the whole result.

    To localise there are no ``views``: every video is looked at whole; to detect, keyframes are.
    """
    options: dict[str, Any] = {
        "device": processes.device,
        "workers": config.workers,
        "batch_size": max(1, config.batch_size // (processes.world_size * config.accumulate)),
        "seed": config.seed,
        "precision": config.precision,
        "distributed": processes.world_size > 1,
        "group": processes.control,
    }
    if isinstance(dataset, AvaDataset):
        return evaluate_detection(model, dataset, config.clip, **options)
    if config.task == "localization":
        return evaluate_localization(model, dataset, config.clip, **options)
    options["temporal_rule"] = config.temporal_rule
    if config.task == "masked":
        how = masking(config.masked, model, config.clip.num_frames, config.clip.crop)
        return evaluate_masked(model, dataset, config.clip, how, views, **options)
    results: dict[str, Any]
    if config.task == "multi-label":
        results = evaluate_multilabel(model, dataset, config.clip, views, ensemble=config.ensemble, **options)
    else:
        results = evaluate(model, dataset, config.clip, views, **options)
    result: Result = next(iter(results.values()))
    return result


def figures_text(result: Result) -> str:
    """The figures of a test in words: ``top-1 96.7 %, top-5 99.6 %``. Controls are left out."""
    shown = {
        FIGURE_NAMES[name]: value
        for name, value in result.figures.items()
        if isfinite(value) and not name.startswith("repeated")
    }
    if len(result.class_names) <= 5:
        shown.pop("top-5", None)
    return ", ".join(f"{name} {100 * value:.1f} %" for name, value in shown.items())
