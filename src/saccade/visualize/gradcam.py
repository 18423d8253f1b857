"""Grad-CAM: the regions of a clip in which a convolutional network finds evidence for a class.

Paper: "Grad-CAM: Visual Explanations from Deep Networks via Gradient-based Localization", Selvaraju et al.,
ICCV 2017, arXiv 1610.02391, equations 1 and 2, extended to video: the weight of a channel is the mean of its
gradient over time and space.
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
from saccade.models import TSM, X3D, RubiksNet, VideoModel, VoV3D

_CONVOLUTIONAL = (X3D, VoV3D, RubiksNet, TSM)


@dataclass(frozen=True, eq=False)
class ClassMaps:
    """Class activation maps of one clip.

    Attributes:
        labels: the classes (N,).
        maps: float32 (N, T, h, w), non-negative, on the grid of the stage's features.
        strides: (frames, pixels) between cells; the first cell is centred on the first frame and pixel.
        logits: float32 (num_classes,), output of the model.
    """

    labels: tuple[int, ...]
    maps: NDArray[np.float32]
    strides: tuple[int, int]
    logits: NDArray[np.float32]

    def scaled(self) -> NDArray[np.float32]:
        """The maps, each divided by its maximum over all frames; all-zero maps stay zero."""
        highest = self.maps.max(axis=(1, 2, 3), keepdims=True)
        return np.divide(self.maps, highest, out=np.zeros_like(self.maps), where=highest > 0)


def grad_cam(
    model: VideoModel, clip: Tensor, labels: Sequence[int] | None = None, *, stage: int = -1
) -> ClassMaps:
    """Grad-CAM of one clip for some classes.

    The score of a class is its logit. If the head averages the softmax of several windows, because the
    features are larger than in training, the score is the mean of the windows' logits, whose gradient does
    not vanish for confident predictions. If the head returns logits per frame, the score is their mean.

    Args:
        clip: (1, 3, T, H, W), normalised, on the model's device.
        labels: classes; None: the class with the highest score.
        stage: index into ``model.stages()`` of the stage whose features are used; -1 is the last, the
            coarsest and most class-specific. For the last stage of a RubiksNet or TSM, what its head does
            before it pools is applied first.

    Raises:
        UsageError: the model is not convolutional or is a detection model, or no such stage or class.
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
        activated = stage == len(stages) - 1 and isinstance(model, (RubiksNet, TSM))
        if isinstance(model, (RubiksNet, TSM)) and activated:
            features = model.head.activate(features)
    features = features.detach().requires_grad_()
    chosen = tuple(labels) if labels is not None else (int(logits.argmax()),)
    with torch.enable_grad():
        x = features
        for part in stages[stage + 1 :]:
            x = part(x)
        outputs = _scores(model, x, activated=activated)
        gradients = [torch.autograd.grad(outputs[label], features, retain_graph=True)[0] for label in chosen]
    maps = torch.stack([_weighted(features.detach(), gradient) for gradient in gradients])
    strides = (stride_of(clip.shape[2], maps.shape[1]), stride_of(clip.shape[3], maps.shape[2]))
    return ClassMaps(chosen, maps.float().cpu().numpy(), strides, logits.float().cpu().numpy())


def stride_of(size: int, cells: int) -> int:
    """The total stride, a power of two, of convolutions that reduce ``size`` pixels to ``cells``."""
    stride = 1
    while -(-size // stride) > cells:
        stride *= 2
    return stride


def _weighted(features: Tensor, gradient: Tensor) -> Tensor:
    """Features (1, C, T, h, w) and their gradient -> the map (T, h, w)."""
    weights = gradient.mean((2, 3, 4), keepdim=True)
    return F.relu((weights * features).sum(1))[0]


def _scores(model: VideoModel, x: Tensor, *, activated: bool) -> Tensor:
    """Logits (num_classes,) from the output of the last stage."""
    if isinstance(model, (X3D, VoV3D)):
        return model.head.window_logits(x).flatten(1, 3).mean(1)[0]
    assert isinstance(model, (RubiksNet, TSM))
    logits: Tensor = (model.head.classify(x) if activated else model.head(x))[0]
    return logits.mean(-1) if logits.ndim == 2 else logits


def _check(model: VideoModel, clip: Tensor, labels: Sequence[int] | None, stage: int) -> None:
    if not isinstance(model, _CONVOLUTIONAL):
        name = getattr(model, "model_name", type(model).__name__)
        raise UsageError(f"Grad-CAM needs a convolutional model, got {name}; try saccade visualize attention")
    if isinstance(model, X3D) and model.config.detection:
        raise UsageError(f"Grad-CAM does not support detection models ({model.model_name})")
    if model.num_classes < 1:
        raise UsageError(f"this {model.model_name} has no classifier (num_classes is 0)")
    if clip.ndim != 5 or clip.shape[0] != 1:
        raise UsageError(f"clip must have shape (1, 3, T, H, W), got {tuple(clip.shape)}")
    num = len(model.stages())
    if not -num <= stage < num:
        raise UsageError(f"stage {stage}: {model.model_name} has stages 0 to {num - 1}")
    for label in labels or ():
        if not 0 <= label < model.num_classes:
            raise UsageError(f"class {label}: the model has classes 0 to {model.num_classes - 1}")
