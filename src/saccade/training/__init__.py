"""Training: one frozen config in, one run folder out.

`TrainConfig` is imported with the package; names that need torch are imported on first use.

Files: `config` and `validate`, `run` (train), `network` (the model), `loader` (its clips), `loop` (Trainer),
`step` (gradients) and `validation`, `head` (the classifier alone), `optim`, `schedule`, `time_limit`, `norms`
(batch norm), `ema`, `multigrid`, `processes` and `shard` (several processes), `checkpoint`, `progress`,
`reporting` (log, callbacks), `preview`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from saccade.training.config import AugmentConfig, ModelConfig, OptimConfig, TrainConfig

if TYPE_CHECKING:
    from saccade.errors import TrainingError
    from saccade.training.processes import RunInterrupted
    from saccade.training.reporting import Callback
    from saccade.training.run import train

__all__ = [
    "AugmentConfig",
    "Callback",
    "ModelConfig",
    "OptimConfig",
    "RunInterrupted",
    "TrainConfig",
    "TrainingError",
    "train",
]

_LAZY = {
    "Callback": "saccade.training.reporting",
    "RunInterrupted": "saccade.training.processes",
    "TrainingError": "saccade.errors",
    "train": "saccade.training.run",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'saccade.training' has no attribute {name!r}")
