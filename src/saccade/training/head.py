"""Fit the classifier alone: logistic regression on the features of a frozen network.

Shape letters: N clips, D features, K classes.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saccade.data.types import VideoDataset
from saccade.errors import UsageError
from saccade.evaluation.features import logits_and_features
from saccade.models import contract
from saccade.tasks.classify import class_weights
from saccade.training.config import TrainConfig
from saccade.training.processes import Processes
from saccade.training.reporting import format_seconds

_ITERATIONS = 200
_STRENGTH = 1.0
"""Inverse of the regularisation per training video, as scikit-learn's ``C``."""
_LARGE = 2**29  # numbers of a product of features and rows from which on float32 is enough


def fit_head(
    config: TrainConfig,
    model: nn.Module,
    dataset: VideoDataset,
    batches: Iterable[tuple[Tensor, Tensor, Sequence[int]]],
    *,
    processes: Processes,
) -> str:
    """Fit the classifier of ``model`` in place, on the features of clips in eval mode.

    Args:
        dataset: the training videos; their classes are weighted as `TrainConfig.class_balance` says.
        batches: of this process: clips (B, 3, T, H, W), labels (B,) and positions in ``dataset``.

    Returns:
        What was done, for the log.

    Raises:
        UsageError: the model has no linear classifier.
    """
    start = time.perf_counter()
    classifier = contract.classifier(model)
    weight, bias = getattr(classifier, "weight", None), getattr(classifier, "bias", None)
    if classifier is None or not isinstance(weight, Tensor):
        raise UsageError(
            f"model.head_clips: {contract.model_name(model)} has no linear classifier that can be fitted"
        )
    features_ND, labels_N, num_videos = _gathered(model, classifier, batches, processes)
    found, offset = fit_classifier(
        weight,
        bias,
        features_ND,
        labels_N,
        num_videos=num_videos,
        class_weight=class_weights(dataset.labelled, config.class_balance),
    )
    with torch.no_grad():
        weight.copy_(found.reshape(weight.shape))
        if bias is not None:
            bias.copy_(offset)
        processes.broadcast_from_rank0([weight] if bias is None else [weight, bias])
    right = ((features_ND @ found.float().T + offset.float()).argmax(1) == labels_N).double().mean()
    return (
        f"classifier fitted to the features of {len(labels_N)} clips of {num_videos} videos, of which it has "
        f"{100 * right:.1f} % right, in {format_seconds(time.perf_counter() - start)}"
    )


@torch.no_grad()
def _gathered(
    model: nn.Module,
    classifier: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor, Sequence[int]]],
    processes: Processes,
) -> tuple[Tensor, Tensor, int]:
    """The features of the clips of all processes, float32 (N, D), their labels (N,), both on the CPU, and the
    number of different videos.
    """
    model.eval()
    features, labels, videos = [], [], set[int]()
    for clips, known, indices in batches:
        features.append(logits_and_features(model, classifier, clips)[1].float().cpu())
        labels.append(known.cpu())
        videos.update(indices)
    parts = processes.gather((torch.cat(features), torch.cat(labels), videos))
    together = set[int]().union(*(part[2] for part in parts))
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts]), len(together)


def fit_classifier(
    weight: Tensor,
    bias: Tensor | None,
    features_ND: Tensor,
    labels_N: Tensor,
    *,
    num_videos: int | None = None,
    class_weight: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Multinomial logistic regression on standardised features, by L-BFGS.

    The penalty is that of scikit-learn's ``LogisticRegression(C=1)``, on the distance to the given
    classifier: rows from earlier training are a prior, the small initial values of new rows hardly matter.

    Args:
        weight, bias: the classifier to start from, (K, D, ...) and (K,).
        features_ND: of all clips.
        num_videos: number of different videos among the clips; None: all are different. Clips of a video
            share its weight against the penalty.
        class_weight: (K,), see `torch.nn.functional.cross_entropy`.

    Returns:
        The new weight (K, D) and bias (K,), in the type of ``weight``.
    """
    kind = torch.float64 if features_ND.numel() * len(weight) <= _LARGE else torch.float32
    features_ND, given = features_ND.to(kind), weight.detach().cpu().to(kind).flatten(1)
    mean, std = features_ND.mean(0), features_ND.std(0, correction=0)
    std = std.clamp(min=1e-6 * float(std.max()) + 1e-12)
    x_ND, prior = (features_ND - mean) / std, given * std
    new = prior.clone().requires_grad_()
    offset = torch.zeros(len(prior), dtype=kind) if bias is None else bias.detach().cpu().to(kind)
    offset = (offset + given @ mean).requires_grad_()
    class_weight = None if class_weight is None else class_weight.detach().cpu().to(kind)
    penalty = 0.5 / (_STRENGTH * (num_videos or len(x_ND)))
    optimizer = torch.optim.LBFGS(
        [new, offset], max_iter=_ITERATIONS, history_size=20, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(x_ND @ new.T + offset, labels_N, weight=class_weight)
        value = value + penalty * (new - prior).square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    found = new.detach() / std
    return found.to(weight.dtype), (offset.detach() - found @ mean).to(weight.dtype)
