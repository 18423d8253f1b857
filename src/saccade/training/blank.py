"""What a config's network is like, from one that has shapes but no weights."""

from __future__ import annotations

import torch
from torch.nn.modules.batchnorm import _BatchNorm

from saccade.errors import SaccadeError
from saccade.models import VideoModel, create_model
from saccade.training.config import TrainConfig


def blank_model(config: TrainConfig) -> VideoModel:
    """The network with two classes on the meta device.

    Raises:
        SaccadeError: its name or a field of it is wrong.
    """
    with torch.device("meta"):
        return create_model(config.model.name, num_classes=2, **config.model.overrides)


def has_batch_norm(config: TrainConfig) -> bool:
    """Whether clips of a batch have a part in each other's features; of transformers they have none."""
    try:
        model = blank_model(config)
    except SaccadeError:
        return False  # the model has an error of its own
    return any(isinstance(module, _BatchNorm) for module in model.modules())
