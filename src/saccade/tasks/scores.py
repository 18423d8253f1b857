"""Functions of logits and scores as numpy arrays."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saccade.data.types import VideoDataset
from saccade.errors import DataError, WeightsError


def finite(logits: Tensor) -> NDArray[np.float32]:
    """Convert logits to numpy, float32.

    Raises:
        WeightsError: some are not finite.
    """
    values: NDArray[np.float32] = logits.float().cpu().numpy()
    if not np.isfinite(softmax(values)).all():
        raise not_finite()
    return values


def not_finite() -> WeightsError:
    """The error for a model whose output is not finite."""
    return WeightsError("the model's output is not finite: its weights are damaged or training diverged")


def softmax(logits: NDArray[Any]) -> NDArray[Any]:
    """Softmax over the last axis, in the dtype of ``logits``."""
    result: NDArray[Any] = torch.from_numpy(logits).softmax(dim=-1).numpy()
    return result


def sigmoid(logits: NDArray[Any]) -> NDArray[Any]:
    """Sigmoid in the dtype of ``logits``."""
    result: NDArray[Any] = torch.from_numpy(logits).sigmoid().numpy()
    return result


def summed(before: Any, each: NDArray[np.float32], counts: Sequence[int]) -> NDArray[np.float64]:
    """Add the scores of one view for each view set, (num_sets, K), times its ``counts`` in the sets."""
    weights = np.asarray(counts, np.float64)[:, None]
    total: NDArray[np.float64] = (0.0 if before is None else before) + weights * each.astype(np.float64)
    return total


def check_classes(num_scores: int, dataset: VideoDataset) -> None:
    """Raise `DataError` if model and data set differ in the number of classes."""
    if num_scores != len(dataset.class_names):
        raise DataError(f"the model has {num_scores} classes, {dataset.root} has {len(dataset.class_names)}")


def check_labels(labels: NDArray[np.int64], dataset: VideoDataset) -> None:
    """Raise `DataError` if a label is not one of the classes of the data set."""
    num_classes = len(dataset.class_names)
    wrong = labels[(labels < 0) | (labels >= num_classes)]
    if len(wrong):
        raise DataError(f"{dataset.root}: label {wrong[0]} is outside 0..{num_classes - 1}")


def binary_cross_entropy(scores: NDArray[Any], labels: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Binary cross entropy of each score in 0..1, in float64; scores are clipped to 1e-12..1 - 1e-12."""
    clipped = scores.astype(np.float64).clip(1e-12, 1 - 1e-12)
    each: NDArray[np.float64] = -np.where(labels, np.log(clipped), np.log1p(-clipped))
    return each
