"""Saccade: efficient video recognition in PyTorch.

The public names are imported on first use, so that ``import saccade`` and ``saccade --help`` stay quick.
"""

from __future__ import annotations

import importlib
import logging
from typing import TYPE_CHECKING, Any

from saccade._version import __version__

_PUBLIC = {
    "Callback": "saccade.training.reporting",
    "ClipSpec": "saccade.clip",
    "ConfigError": "saccade.errors",
    "DataError": "saccade.errors",
    "Detector": "saccade.inference",
    "Localizer": "saccade.inference",
    "Predictor": "saccade.inference",
    "Run": "saccade.runs",
    "SaccadeError": "saccade.errors",
    "TrainConfig": "saccade.training.config",
    "TrainingError": "saccade.errors",
    "UsageError": "saccade.errors",
    "VideoError": "saccade.errors",
    "WeightsError": "saccade.errors",
    "create_model": "saccade.models",
    "evaluate": "saccade.evaluation",
    "get_recipe": "saccade.recipes",
    "list_models": "saccade.models",
    "load_dataset": "saccade.data",
    "load_model": "saccade.models",
    "load_weights": "saccade.models",
    "model_info": "saccade.models",
    "open_video": "saccade.video",
    "register_dataset": "saccade.data",
    "register_model": "saccade.models",
    "register_recipe": "saccade.recipes",
    "train": "saccade.training.run",
}

__all__ = [
    "Callback",
    "ClipSpec",
    "ConfigError",
    "DataError",
    "Detector",
    "Localizer",
    "Predictor",
    "Run",
    "SaccadeError",
    "TrainConfig",
    "TrainingError",
    "UsageError",
    "VideoError",
    "WeightsError",
    "__version__",
    "create_model",
    "evaluate",
    "get_recipe",
    "list_models",
    "load_dataset",
    "load_model",
    "load_weights",
    "model_info",
    "open_video",
    "register_dataset",
    "register_model",
    "register_recipe",
    "train",
]

if TYPE_CHECKING:
    from saccade.clip import ClipSpec
    from saccade.data import load_dataset, register_dataset
    from saccade.errors import (
        ConfigError,
        DataError,
        SaccadeError,
        TrainingError,
        UsageError,
        VideoError,
        WeightsError,
    )
    from saccade.evaluation import evaluate
    from saccade.inference import Detector, Localizer, Predictor
    from saccade.models import create_model, list_models, load_model, load_weights, model_info, register_model
    from saccade.recipes import get_recipe, register_recipe
    from saccade.runs import Run
    from saccade.training.config import TrainConfig
    from saccade.training.reporting import Callback
    from saccade.training.run import train
    from saccade.video import open_video

logging.getLogger("saccade").addHandler(logging.NullHandler())  # silent until the application says otherwise


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'saccade' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
