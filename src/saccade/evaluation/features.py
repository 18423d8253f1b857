"""The features of the clips of a data set: the input of the classifier."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from saccade.clip import ClipSpec
from saccade.data.types import VideoDataset, VideoItem
from saccade.errors import DataError, UsageError
from saccade.evaluation.engine import Videos, run_pass
from saccade.evaluation.reading import VideoSource
from saccade.evaluation.scorer import Scorer, evaluating
from saccade.models import contract
from saccade.progress import Progress, ignore
from saccade.sampling.views import Views
from saccade.tasks import Classify, Failure
from saccade.tasks.base import View
from saccade.video import Backend

Features = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class ClipFeatures:
    """The features of one clip of each video.

    Attributes:
        items: the videos that could be read.
        features: float32 (num_videos, D), of the middle clip, cut at its centre.
        logits: float32 (num_videos, num_classes), the model's logits of the same clips; (num_videos, 0) of a
            model without classes.
        failures: the videos that could not be read.
    """

    items: tuple[VideoItem, ...]
    features: Features
    logits: Features
    failures: tuple[Failure, ...]


def clip_features(
    model: nn.Module,
    dataset: VideoDataset,
    clip: ClipSpec,
    *,
    temporal_rule: str = "saccade",
    workers: int = 2,
    batch_size: int | None = None,
    backend: Backend = "auto",
    frames_fps: float | None = None,
    progress: Progress = ignore,
) -> ClipFeatures:
    """The input of the classifier of ``model`` for the middle clip of each video.

    Features of several frames or windows are averaged; for a model without a classifier, such as MaskFeat,
    the output of the last stage is averaged.

    Args:
        backend: decoder, see `saccade.open_video`.
        frames_fps: frame rate of folders of frames if the data set has none; None: 30.
        progress: called with (videos done, videos in all).

    Raises:
        DataError: there are no videos, or none of them can be read.
        UsageError: the model has no features.
    """
    if not len(dataset):
        raise DataError(f"{dataset.root}: no videos in split {dataset.split!r}")
    both = _Both(model)
    scorer = Scorer(both, _Features(), clip, batch_size=batch_size)
    source = VideoSource(
        dataset,
        scorer.task,
        clip,
        (Views(1, 1),),
        temporal_rule,
        backend=backend,
        frames_fps=frames_fps,
    )
    positions = range(len(dataset))
    with evaluating(both):
        found = run_pass(Videos(source, scorer.device), positions, scorer, workers, progress)
    if not found.scores:
        raise DataError(f"{dataset.root}: none of the {len(dataset)} videos can be read")
    order = sorted(found.scores)
    table = np.stack([found.scores[position] for position in order])
    return ClipFeatures(
        items=tuple(dataset.items[position] for position in order),
        features=np.ascontiguousarray(table[:, both.num_classes :]),
        logits=np.ascontiguousarray(table[:, : both.num_classes]),
        failures=tuple(found.failures[position] for position in sorted(found.failures)),
    )


class _Features(Classify):
    """The output of the one view of each video, as it is."""

    def merge(self, before: Any, output: Any, view: View, sets: Sequence[Views]) -> Any:
        return output


class _Both(nn.Module):
    """Clips (B, 3, T, H, W) to their logits and features side by side, (B, K + D)."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.num_classes = contract.num_classes(model) or 0
        if contract.classifier(model) is None and not hasattr(model, "forward_features"):
            raise UsageError(
                f"{contract.model_name(model)} has no features: neither a classifier nor forward_features(x)"
            )

    def forward(self, x: Tensor) -> Tensor:
        classifier = contract.classifier(self.model)
        if classifier is None:
            return mean_features(self.model.forward_features(x))  # type: ignore[operator]
        logits, features = logits_and_features(self.model, classifier, x)
        if not self.num_classes:
            return features
        return torch.cat((logits.mean(-1) if logits.ndim == 3 else logits, features), 1)


def logits_and_features(
    model: Callable[[Tensor], Tensor],
    classifier: nn.Module,
    x: Tensor,
    *,
    dropouts: Sequence[nn.Module] = (),
) -> tuple[Tensor, Tensor]:
    """The logits of clips (B, 3, T, H, W), and what the classifier was given for them: (B, D), the mean over
    frames, windows and positions.

    Args:
        dropouts: layers of the model; if one of them gives the classifier its input, the features are those
            before it.
    """
    seen: list[Tensor] = []
    dropped: list[tuple[Tensor, Tensor]] = []
    handles = [
        module.register_forward_hook(lambda _, given, output: dropped.append((given[0], output)))
        for module in dropouts
    ]
    handles.append(classifier.register_forward_pre_hook(lambda _, given: seen.append(given[0])))
    try:
        logits = model(x)
    finally:
        for handle in handles:
            handle.remove()
    if dropped and dropped[-1][1] is seen[-1]:
        seen.append(dropped[-1][0])
    given = seen[-1]
    if isinstance(classifier, nn.modules.conv._ConvNd):  # channels come second, not last
        given = given.movedim(1, -1)
    given = given.reshape(len(x), -1, given.shape[-1]) if given.ndim > 2 or len(given) != len(x) else given
    return logits, given.mean(1) if given.ndim == 3 else given


def mean_features(features: Tensor) -> Tensor:
    """Maps (B, C, T, H, W), or tokens (B, N, C) with the class token first, to their mean (B, C)."""
    return features.mean((2, 3, 4)) if features.ndim == 5 else features[:, 1:].mean(1)
