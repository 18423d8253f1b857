"""What the task of detection does otherwise in training: its data, its loss, its test.

Shape letters: B clips, N people of a batch, K actions.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch.nn.functional as F
from torch import Tensor

from saccade.data.ava import VALIDATION_STEP, AvaDataset, load_ava
from saccade.data.types import ClipBatch
from saccade.training.config import TrainConfig
from saccade.training.step import GradientStep
from saccade.transforms.people import clips_with_people


def detection_data(config: TrainConfig) -> tuple[AvaDataset, AvaDataset | None]:
    """The keyframes to train on, and those to validate on: every fourth second, as PySlowFast, or all."""
    people = config.people
    common = {
        "min_score": people.min_score,
        "root": config.root or None,
        "allow_missing": config.allow_missing,
    }
    train_set = load_ava(config.data, "train", detected=people.train_boxes or None, **common)  # type: ignore[arg-type]
    if not config.val_every:
        return train_set, None
    every = 1 if people.full_validation else VALIDATION_STEP
    val_set = load_ava(config.data, "val", detected=people.val_boxes or None, every=every, **common)  # type: ignore[arg-type]
    return train_set, val_set


class DetectionStep(GradientStep):
    """`GradientStep` for people in boxes: binary cross entropy, mean over people and actions.

    A part of an accumulated batch counts by its clips. A clip all of whose people lie outside of its crop
    teaches nothing.
    """

    def _part_loss(self, part: ClipBatch) -> tuple[Tensor, Tensor]:
        x_BCTHW, boxes, labels_NK = clips_with_people(self.transform, part.to(self.processes.device))
        with self.autocast():
            logits_NK = self.network(x_BCTHW, boxes)  # type: ignore[call-arg]
        return detection_loss(logits_NK.float(), labels_NK, [len(own) for own in boxes])


def detection_loss(logits_NK: Tensor, labels_NK: Tensor, num_people: list[int]) -> tuple[Tensor, Tensor]:
    """Binary cross entropy, and for how many clips the first guess is among a person's labels: of each clip
    the share of its people.
    """
    total = F.binary_cross_entropy_with_logits(logits_NK, labels_NK, reduction="sum")
    loss = total / max(labels_NK.numel(), 1)
    right = loss.new_zeros(())
    if len(labels_NK):
        guess_N1 = logits_NK.detach().argmax(dim=1, keepdim=True)
        hits_N = labels_NK.gather(1, guess_N1)[:, 0]
        for own in hits_N.split(num_people):
            right = right + (own.mean() if len(own) else own.sum())
    return loss, right


def detection_problems(config: TrainConfig) -> Iterator[tuple[str, str]]:
    """Fields that cannot work together with the task of detection."""
    if not 0 <= config.people.min_score <= 1:
        yield "people.min_score", f"must be 0 to 1 (is {config.people.min_score})"
    if config.task != "detection":
        return
    for name in ("mixup", "cutmix", "rand_ops"):
        if getattr(config.augment, name):
            yield f"augment.{name}", "moves or mixes pixels and not boxes; leave it at 0 to detect"
    if config.augment.erasing:
        yield "augment.erasing", "may erase a person; leave it at 0 to detect"
    if config.cache_mb:
        yield "cache_mb", "keeps whole videos, of which AVA's last 15 minutes; leave it at 0 to detect"
    if config.test_views:
        yield "test_views", "detection tests keyframes, not views; run saccade test for the whole split"
    if config.temporal_rule != "saccade":
        yield "temporal_rule", "a clip of detection is centred on its keyframe; leave it at saccade"
    if config.positive_weight != 1:
        yield "positive_weight", "is for labels of clips; leave it at 1 to detect"
