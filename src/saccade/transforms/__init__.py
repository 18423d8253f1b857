"""From decoded frames to the input of a network, in batches, on its device."""

from __future__ import annotations

from saccade.transforms.erasing import RandomErasing
from saccade.transforms.mixing import Mixing
from saccade.transforms.randaugment import RandAugment
from saccade.transforms.train import TrainTransform
from saccade.transforms.views import test_transform

__all__ = ["Mixing", "RandAugment", "RandomErasing", "TrainTransform", "test_transform"]
