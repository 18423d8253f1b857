"""What each task learns from: its loss, and when a clip counts as right.

Shape letters: B clips, K classes, T frames of a clip, L points in time that have labels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from saccade.data.types import VideoDataset
from saccade.errors import ConfigError, DataError
from saccade.training.config import TrainConfig

Criterion = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]
"""(logits, labels, which points lie inside the video) -> (mean loss over the clips, number of clips that are
right)."""

_HEAVIEST = 100.0  # of the weights by which rare classes count more


def criterion(config: TrainConfig, positive_weight: Tensor | None = None) -> Criterion:
    """The loss of the task of ``config``.

    Args:
        positive_weight: (K,) see `positive_weights`; None: 1.
    """
    if config.task == "multi-label":
        smoothing = config.label_smoothing
        return lambda logits, labels, _: multi_label_loss(logits, labels, positive_weight, smoothing)
    if config.task == "localization":
        return lambda logits, labels, inside: localization_loss(logits, labels, inside, positive_weight)
    return lambda logits, labels, _: single_label_loss(logits, labels, config.label_smoothing)


def single_label_loss(logits_BK: Tensor, labels: Tensor, smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """Cross entropy; labels int64 (B,), or shares of the classes (B, K). Right: the first guess."""
    loss = F.cross_entropy(logits_BK, labels, label_smoothing=smoothing)
    expected_B = labels if labels.ndim == 1 else labels.argmax(dim=1)  # of a mix, its larger part
    right = (logits_BK.detach().argmax(dim=1) == expected_B).sum().to(loss.dtype)
    return loss, right


def multi_label_loss(
    logits_BK: Tensor,
    labels_BK: Tensor,
    positive_weight: Tensor | None = None,
    smoothing: float = 0.0,
) -> tuple[Tensor, Tensor]:
    """Binary cross entropy, mean over clips and classes. Right: the first guess is among the labels.

    ``smoothing`` spreads a share of each label evenly over yes and no.
    """
    expected_BK = labels_BK * (1 - smoothing) + smoothing / 2
    loss = F.binary_cross_entropy_with_logits(logits_BK, expected_BK, pos_weight=positive_weight)
    return loss, _guessed(logits_BK, labels_BK).to(loss.dtype)


def localization_loss(
    logits_BKT: Tensor,
    labels_BKL: Tensor,
    inside_BL: Tensor | None = None,
    positive_weight: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Half of it the binary cross entropy of each class's highest moment, half that of every moment.

    That is X3D-Multigrid's loss (train_x3d_charades_loc.py): logits are interpolated to the moments that have
    labels. Moments that lie outside the video count in neither half (in X3D-Multigrid the padding did). Each
    clip counts the same, however much of it lies inside. Right: the class with the highest moment is there.
    """
    logits_BKL = F.interpolate(logits_BKT, labels_BKL.shape[2], mode="linear")
    if inside_BL is None:
        inside_BL = torch.ones_like(labels_BKL[:, 0], dtype=torch.bool)
    outside_B1L = ~inside_BL[:, None]
    highest_BK = logits_BKL.masked_fill(outside_B1L, -torch.inf).amax(dim=2)
    present_BK = labels_BKL.masked_fill(outside_B1L, 0).amax(dim=2)
    whole = F.binary_cross_entropy_with_logits(highest_BK, present_BK, pos_weight=positive_weight)
    weight = None if positive_weight is None else positive_weight[:, None]
    each_BKL = F.binary_cross_entropy_with_logits(logits_BKL, labels_BKL, pos_weight=weight, reduction="none")
    per_point_BL = each_BKL.mean(dim=1).masked_fill(~inside_BL, 0)
    moments = (per_point_BL.sum(dim=1) / inside_BL.sum(dim=1)).mean()
    loss = (whole + moments) / 2
    return loss, _guessed(highest_BK, present_BK).to(loss.dtype)


def _guessed(logits_BK: Tensor, labels_BK: Tensor) -> Tensor:
    """How many clips have the class with the highest logit."""
    best_B1 = logits_BK.detach().argmax(dim=1, keepdim=True)
    return (labels_BK.gather(1, best_B1) > 0).sum()


def positive_weights(config: TrainConfig, dataset: VideoDataset) -> Tensor | None:
    """How much a label that is there counts against one that is not: (K,), or None for all alike.

    With ``positive_weight`` 0 it is, for each class, how many times more often it is absent than present: of
    the videos, or, to localise, of the time. At most 100; a class that never occurs counts 1.
    """
    if config.task not in ("multi-label", "localization") or config.positive_weight == 1:
        return None
    num_classes = len(dataset.class_names)
    if config.positive_weight:
        return torch.full((num_classes,), float(config.positive_weight))
    present = torch.zeros(num_classes, dtype=torch.float64)
    total = 0.0
    for item in dataset.items:
        if config.task == "multi-label":
            total += 1
            for label in {action.label for action in item.actions}:
                present[label] += 1
            continue
        duration = item.duration or max((action.end for action in item.actions), default=0.0)
        total += duration
        for action in item.actions:
            present[action.label] += max(0.0, min(action.end, duration) - action.start)
    weights = (total - present).clamp(min=0) / present
    return weights.where(present > 0, 1.0).clamp(max=_HEAVIEST).to(torch.float32)


def check_task(config: TrainConfig, dataset: VideoDataset) -> None:
    """Raise an error unless the labels of the data set are those that the task learns from."""
    if dataset.multi_label and config.task == "single-label":
        raise ConfigError(
            f"task: {config.data} has any number of actions a video; it is multi-label (which actions) or "
            "localization (which and when)"
        )
    if not dataset.multi_label and config.task in ("multi-label", "localization"):
        raise DataError(
            f"{config.data}: has one label a video, but the task {config.task} needs actions with times, as "
            "Charades has them"
        )


def check_validation(config: TrainConfig, dataset: VideoDataset) -> None:
    """Raise `DataError` if nothing in the validation split has a label of several: there is no precision of
    what never happens, and no weights could be the best.
    """
    if config.task in ("multi-label", "localization") and not any(item.actions for item in dataset.items):
        raise DataError(
            f"{config.data}: none of the {len(dataset)} videos of split {dataset.split} has an action, so "
            f"task {config.task} cannot be validated on them; give a split with actions, or --val-every 0"
        )
