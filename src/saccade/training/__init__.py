"""Training: one frozen config in, one run folder out.

`TrainConfig` is imported with the package; `train` and what needs torch are imported on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from saccade.training.config import AugmentConfig, ModelConfig, OptimConfig, TrainConfig

if TYPE_CHECKING:
    from saccade.training.interrupt import RunInterrupted
    from saccade.training.run import train
    from saccade.training.step import TrainingError

__all__ = [
    "AugmentConfig",
    "ModelConfig",
    "OptimConfig",
    "RunInterrupted",
    "TrainConfig",
    "TrainingError",
    "train",
]

_LAZY = {
    "RunInterrupted": "interrupt",
    "TrainingError": "step",
    "train": "run",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"saccade.training.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'saccade.training' has no attribute {name!r}")
