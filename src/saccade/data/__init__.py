"""Data sets: their videos and labels, the check, and the loading of training clips.

Names are imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saccade.data.check import CheckReport, check_data
    from saccade.data.classnames import LABEL_LISTS, class_names
    from saccade.data.datasets import load_dataset, register_dataset
    from saccade.data.motion import make_motion
    from saccade.data.sampler import TrainSampler
    from saccade.data.types import ClipBatch, ClipRequest, ReadFailure, VideoDataset, VideoItem

_HOMES = {
    "CheckReport": "check",
    "check_data": "check",
    "LABEL_LISTS": "classnames",
    "class_names": "classnames",
    "load_dataset": "datasets",
    "register_dataset": "datasets",
    "make_motion": "motion",
    "TrainSampler": "sampler",
    "ClipBatch": "types",
    "ClipRequest": "types",
    "ReadFailure": "types",
    "VideoDataset": "types",
    "VideoItem": "types",
}

__all__ = [
    "LABEL_LISTS",
    "CheckReport",
    "ClipBatch",
    "ClipRequest",
    "ReadFailure",
    "TrainSampler",
    "VideoDataset",
    "VideoItem",
    "check_data",
    "class_names",
    "load_dataset",
    "make_motion",
    "register_dataset",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"saccade.data.{_HOMES[name]}"), name)
