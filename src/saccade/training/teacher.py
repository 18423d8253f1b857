"""The network that another one learns from.

Shape letters: B clips, T frames, H and W pixels, K classes, D features.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saccade.clip import ClipSpec
from saccade.data.classnames import LabelFinder
from saccade.errors import ConfigError, SaccadeError, UsageError
from saccade.evaluation.features import logits_and_features
from saccade.files import file_digest
from saccade.inference.loading import LoadedModel, load_for_inference
from saccade.models import contract, create_model, list_models, model_info
from saccade.models.pretrained import pretrained_weights
from saccade.runs import BEST, Run
from saccade.training.config import TrainConfig


def find_classifier(model: nn.Module) -> nn.Module:
    """The classifier of a model, whose input are its features.

    Raises:
        ConfigError: the model does not say which layer it is.
    """
    found = contract.classifier(model)
    if found is None:
        raise ConfigError(
            f"distill.feature_weight: {contract.model_name(model)} has no classifier, whose input would be "
            "its features; set it to 0"
        )
    return found


IMAGENET = "imagenet"
"""Weights of a teacher that is the name of a model, see `saccade.models.load_pretrained`."""
IMAGES = {"shift_place": "none"}
"""Its options: an image network without shifts, which would disturb what it has learned of images."""


class Teacher:
    """A trained network in eval mode, without gradients.

    Attributes:
        loaded: the network with its clip and classes.
        digest: SHA-256 of its weights file, or of its weights if it has none.
        classes: (classes of the student, the same classes of the teacher), matched by name; None if the
            teacher has no classes.
    """

    def __init__(self, config: TrainConfig, class_names: Sequence[str], device: torch.device) -> None:
        try:
            self.loaded = _load(config, device)
        except SaccadeError as error:
            raise type(error)(f"teacher: {error}") from error
        self.model = self.loaded.model.eval().requires_grad_(False)
        if self.loaded.task != config.task:
            raise ConfigError(
                f"teacher: {config.teacher} was trained for task {self.loaded.task}, this run is of task "
                f"{config.task}; give a teacher of the same task"
            )
        self.source = config.teacher
        self.digest = _digest(Path(config.teacher), self.model)
        self._student_clip, self._layout = config.clip, contract.memory_format(self.model)
        self._classifier = find_classifier(self.model)
        names = self.loaded.class_names
        self.classes = _matched(class_names, names) if names else None
        if self.classes and not self.classes[0] and config.distill.soft_weight:
            raise ConfigError(
                f"teacher: none of the {len(class_names)} classes is among the {len(names)} of "
                f"{config.teacher} ({', '.join(names[:3])} ...); to learn its features alone give "
                "--distill.soft-weight 0 --distill.feature-weight 1"
            )
        self.width = self(torch.zeros(1, 3, *_size(self.loaded.clip), device=device), nullcontext())[1].shape[
            1
        ]

    @property
    def record(self) -> dict[str, Any]:
        """Plain values for the run folder: where the teacher is from."""
        return {
            "path": self.source,
            "model": self.loaded.name,
            "sha256": self.digest,
            "licence": _licence(self.source, self.loaded.metadata) or "not stated",
        }

    @torch.no_grad()
    def __call__(
        self, x_BCTHW: Tensor, autocast: AbstractContextManager[None]
    ) -> tuple[Tensor | None, Tensor]:
        """Logits (B, K) of its own classes, None without classes, and pooled features (B, D), of clips in
        the normalisation of the student.
        """
        clips = as_seen_by(self.loaded.clip, x_BCTHW, self._student_clip)
        clips = clips.contiguous(memory_format=self._layout)
        with autocast:
            logits, features = logits_and_features(self.model, self._classifier, clips)
        return logits.float() if self.classes else None, features.float()


def as_seen_by(clip: ClipSpec, x_BCTHW: Tensor, given: ClipSpec) -> Tensor:
    """Clips normalised as ``given`` in the normalisation, number of frames and crop of another clip.

    Its frames are those in the middle of equal parts of the clip, so that some are left out, or repeated; the
    pictures are resized.
    """
    num_clips, _, num_frames, height, width = x_BCTHW.shape
    if num_frames != clip.num_frames:
        places = (torch.arange(clip.num_frames) + 0.5) * num_frames / clip.num_frames
        x_BCTHW = x_BCTHW.index_select(2, places.long().to(x_BCTHW.device))
    if (given.mean, given.std) != (clip.mean, clip.std):
        mean, std, own_mean, own_std = (
            torch.tensor(value, device=x_BCTHW.device).view(3, 1, 1, 1)
            for value in (given.mean, given.std, clip.mean, clip.std)
        )
        x_BCTHW = x_BCTHW * (std / own_std) + (mean - own_mean) / own_std
    if (height, width) == (clip.crop, clip.crop):
        return x_BCTHW
    frames = x_BCTHW.transpose(1, 2).flatten(0, 1)
    resized = F.interpolate(frames, size=(clip.crop, clip.crop), mode="bilinear", antialias=True)
    return resized.unflatten(0, (num_clips, -1)).transpose(1, 2)


def _load(config: TrainConfig, device: torch.device) -> LoadedModel:
    """A run or weights; or an image network by name, which takes frames of any number and size."""
    source = config.teacher
    if Path(source).exists() or source not in list_models():
        return load_for_inference(source, device=device)
    if not model_info(source).pretrained:
        raise UsageError(f"{source}: no weights of images are known for this model; give a run folder of it")
    model = create_model(source, 0, pretrained=IMAGENET, **IMAGES)
    info = model_info(source)
    return LoadedModel(
        model=model.to(device).to(memory_format=contract.memory_format(model)),
        class_names=(),
        named=False,
        clip=info.clip_spec().replace(num_frames=config.clip.num_frames, crop=config.train_crop),
        name=source,
        origin=source,
        device=device,
        task=config.task,
        metadata={"licence": pretrained_weights(source, IMAGENET).licence},
    )


def _licence(source: str, metadata: Mapping[str, Any]) -> str:
    """The licence that weights state, or the image weights or the teacher that their run started from; empty
    if none does.
    """
    found = metadata.get("licence") or metadata.get("teacher", {}).get("licence", "")
    try:
        image = json.loads(Run(source).image_weights.read_text(encoding="utf-8"))
        return str(found or image.get("licence", ""))
    except (OSError, ValueError, AttributeError):  # it did not start from an image network
        return str(found)


def _digest(path: Path, model: nn.Module) -> str:
    file = path / BEST if path.is_dir() else path
    if file.is_file():
        return file_digest(file)
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        found.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


def _matched(names: Sequence[str], teacher: Sequence[str]) -> tuple[list[int], list[int]]:
    finder = LabelFinder(teacher)
    pairs = [(label, other) for label, name in enumerate(names) if (other := finder.find(name)) is not None]
    return [label for label, _ in pairs], [other for _, other in pairs]


def _size(clip: ClipSpec) -> tuple[int, int, int]:
    return clip.num_frames, clip.crop, clip.crop
