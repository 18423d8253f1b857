"""Transforms from decoded frames to the input of a model, on batches, on the model's device."""

from __future__ import annotations

from saccade.transforms.custom import get_transform, list_transforms, register_transform
from saccade.transforms.erasing import RandomErasing
from saccade.transforms.mixing import Mixing
from saccade.transforms.randaugment import RandAugment
from saccade.transforms.train import TrainTransform
from saccade.transforms.views import test_transform

__all__ = [
    "Mixing",
    "RandAugment",
    "RandomErasing",
    "TrainTransform",
    "get_transform",
    "list_transforms",
    "register_transform",
    "test_transform",
]
