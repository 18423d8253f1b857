"""Grad-CAM: where in a clip a convolutional network finds evidence for a class.

Paper: "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", Selvaraju et al.,
ICCV 2017, arXiv 1610.02391. Equations 1 and 2, with the frames as one more axis of the map: a channel's
weight is the mean of its gradient over time and space.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from saccade.errors import UsageError
from saccade.models import X3D, RubiksNet, VideoModel, VoV3D

_CONVOLUTIONAL = (X3D, VoV3D, RubiksNet)


@dataclass(frozen=True, eq=False)
class ClassMaps:
    """Class activation maps of one clip.

    Attributes:
        labels: the classes (N,).
        maps: float32 (N, T, h, w), not below 0, on the grid of the stage they were taken from.
        steps: (frames, pixels) from cell to cell; the first stands on the first pixel.
        logits: float32 (num_classes,), of the model as it is used.
    """

    labels: tuple[int, ...]
    maps: NDArray[np.float32]
    steps: tuple[int, int]
    logits: NDArray[np.float32]

    def scaled(self) -> NDArray[np.float32]:
        """The maps with the largest value of each over all its frames at 1; a map of zeros stays."""
        highest = self.maps.max(axis=(1, 2, 3), keepdims=True)
        return np.divide(self.maps, highest, out=np.zeros_like(self.maps), where=highest > 0)


def grad_cam(
    model: VideoModel, clip: Tensor, labels: Sequence[int] | None = None, *, stage: int = -1
) -> ClassMaps:
    """Grad-CAM of one clip for some classes.

    The score of a class is its logit. Where a head slides a window over a map larger than in training and
    averages the windows' softmax, it is the mean of the windows' logits, whose gradient does not vanish where
    the network is sure. Where it gives logits per frame, it is their mean.

    Args:
        clip: (1, 3, T, H, W), normalised, on the model's device.
        labels: classes; None: the one with the highest score.
        stage: whose output the map is of, as in ``model.stages()``; -1 is the last one, with the coarsest map
            and the most meaning. Of a RubiksNet, whose last stage ends before its norm and ReLU, these
            are applied first.

    Raises:
        UsageError: the model is not convolutional or finds people, or there is no such stage or class.
    """
    _check(model, clip, labels, stage)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        return _class_maps(model, clip, labels, stage % len(model.stages()))
    finally:
        for module, mode in modes:
            module.training = mode


def _class_maps(model: VideoModel, clip: Tensor, labels: Sequence[int] | None, stage: int) -> ClassMaps:
    stages = model.stages()
    with torch.no_grad():
        features = clip
        for part in stages[: stage + 1]:
            features = part(features)
        scores = model(clip)[0]
        logits = scores.mean(-1) if scores.ndim == 2 else scores
        activated = stage == len(stages) - 1 and isinstance(model, RubiksNet)
        if isinstance(model, RubiksNet) and activated:
            features = model.head.activate(features)
    features = features.detach().requires_grad_()
    chosen = tuple(labels) if labels is not None else (int(logits.argmax()),)
    with torch.enable_grad():
        x = features
        for part in stages[stage + 1 :]:
            x = part(x)
        own = _scores(model, x, activated=activated)
        gradients = [torch.autograd.grad(own[label], features, retain_graph=True)[0] for label in chosen]
    maps = torch.stack([_weighted(features.detach(), gradient) for gradient in gradients])
    steps = (stride_of(clip.shape[2], maps.shape[1]), stride_of(clip.shape[3], maps.shape[2]))
    return ClassMaps(chosen, maps.float().cpu().numpy(), steps, logits.float().cpu().numpy())


def stride_of(size: int, cells: int) -> int:
    """The stride of convolutions, a power of two, that make ``cells`` of ``size`` pixels."""
    stride = 1
    while -(-size // stride) > cells:
        stride *= 2
    return stride


def _weighted(features: Tensor, gradient: Tensor) -> Tensor:
    """(1, C, T, h, w) and its gradient -> the map (T, h, w)."""
    weights = gradient.mean((2, 3, 4), keepdim=True)
    return F.relu((weights * features).sum(1))[0]


def _scores(model: VideoModel, x: Tensor, *, activated: bool) -> Tensor:
    """Logits (num_classes,) of what the last stage gives."""
    if isinstance(model, (X3D, VoV3D)):
        return model.head.window_logits(x).flatten(1, 3).mean(1)[0]
    assert isinstance(model, RubiksNet)
    logits: Tensor = (model.head.classify(x) if activated else model.head(x))[0]
    return logits.mean(-1) if logits.ndim == 2 else logits


def _check(model: VideoModel, clip: Tensor, labels: Sequence[int] | None, stage: int) -> None:
    if not isinstance(model, _CONVOLUTIONAL):
        name = getattr(model, "model_name", type(model).__name__)
        raise UsageError(f"Grad-CAM is for convolutional models, not {name}; try saccade visualize attention")
    if isinstance(model, X3D) and model.config.detection:
        raise UsageError(
            f"this {model.model_name} is a detection model; Grad-CAM is for models of whole clips"
        )
    if model.num_classes < 1:
        raise UsageError(f"this {model.model_name} has no classifier (num_classes is 0)")
    if clip.ndim != 5 or clip.shape[0] != 1:
        raise UsageError(f"Grad-CAM takes one clip, (1, 3, T, H, W), got {tuple(clip.shape)}")
    num = len(model.stages())
    if not -num <= stage < num:
        raise UsageError(f"stage {stage}: {model.model_name} has stages 0 to {num - 1}")
    for label in labels or ():
        if not 0 <= label < model.num_classes:
            raise UsageError(f"class {label}: the model has classes 0 to {model.num_classes - 1}")
