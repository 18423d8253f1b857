"""Building the network of a run."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from saccade.errors import ConfigError, SaccadeError
from saccade.models import (
    ImageReport,
    VideoModel,
    contract,
    create_model,
    init_from_image,
    load_pretrained,
    load_weights,
    model_info,
)
from saccade.models.registry import create_on_meta, model_entry, option_names
from saccade.models.x3d import BASE_CROP
from saccade.runs import describe_weights
from saccade.tasks import get_task
from saccade.training.config import TrainConfig
from saccade.training.optim import freeze, freeze_statistics


def meta_model(config: TrainConfig) -> VideoModel:
    """The network with two classes on the meta device.

    Raises:
        UsageError: the model does not exist.
        ConfigError: an override is invalid.
    """
    name, overrides = config.model.name, json.dumps(config.model.overrides, sort_keys=True, default=str)
    return _meta_model(name, overrides, model_entry(name).build)


@lru_cache(maxsize=8)
def _meta_model(name: str, overrides: str, _build: Any) -> VideoModel:
    """``_build`` is part of the cache key: the function may be registered again under the same name."""
    try:
        model: VideoModel = create_on_meta(name, 2, **json.loads(overrides))
        return model
    except ConfigError as error:
        raise ConfigError(f"model.overrides: {error}") from error
    except SaccadeError:
        raise
    except Exception as error:  # an override of the wrong type may fail anywhere
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(f"model.overrides: {name} cannot be built with {overrides} ({reason})") from error


def has_batch_norm(config: TrainConfig, model: nn.Module | None = None) -> bool:
    """Whether the network (``model`` if given) has batch norm."""
    network = meta_model(config) if model is None else model
    return any(isinstance(module, _BatchNorm) for module in network.modules())


def clip_multiple(config: TrainConfig, model: nn.Module | None = None) -> tuple[int, int]:
    """(frames, pixels) that the size of a clip must be a multiple of."""
    network = meta_model(config) if model is None else model
    return get_task(config.task).clip_multiple(config, contract.clip_multiple(network))


def model_options(config: TrainConfig) -> dict[str, Any]:
    """The options of `create_model`: overrides, regularisation, and the size of the training clip.

    The heads of X3D and VoV3D pool over the feature map of the training clip, so its size (gamma_tau,
    gamma_t, gamma_s; stride, num_frames, train_crop) follows from the config unless overridden.
    """
    known = option_names(config.model.name)
    options: dict[str, Any] = {
        "dropout": config.model.dropout,
        "drop_path": config.model.drop_path,
        "gamma_tau": config.clip.stride,
        "gamma_t": config.clip.num_frames,
        "gamma_s": config.train_crop / BASE_CROP,
        "stride": config.clip.stride,
        "num_frames": config.clip.num_frames,
        "train_crop": config.train_crop,
        **get_task(config.task).model_overrides(config.model.name),
    }
    if config.model.overrides.get("causal") and "num_frames" not in known:
        options["causal_frames"] = config.clip.num_frames
    if config.model.drop_path and "drop_path" not in known:
        raise ConfigError(f"model.drop_path: {config.model.name} has no drop path; set it to 0")
    return {name: value for name, value in options.items() if name in known} | config.model.overrides


def build_model(
    config: TrainConfig, class_names: Sequence[str], *, start_weights: bool
) -> tuple[nn.Module, list[str], ImageReport | None]:
    """The model of ``config`` on the CPU, log lines about its weights, and the report on image weights.

    Args:
        class_names: in label order; of a checkpoint that names its classes too, the classifier's rows of
            those in both are loaded.
        start_weights: load the initial weights; false for a resumed run.
    """
    torch.manual_seed(config.seed)
    model: nn.Module = create_model(config.model.name, len(class_names), **model_options(config))
    notes, image = [], None
    if config.model.start and start_weights:
        notes += describe_weights(config.model.start)
        notes.append(load_weights(model, config.model.start, class_names=class_names).summary())
    if config.model.image_weights and start_weights:
        image = init_from_image(
            model,
            config.model.image_weights,
            inflate=config.model.image_inflate,
            time=config.model.image_time,
        )
        notes.append(image.summary())
    if config.model.package and start_weights:
        image = load_pretrained(model, config.model.package)
        notes += [image.summary(), *_normalisation_note(config)]
    return model, notes, image


def _normalisation_note(config: TrainConfig) -> list[str]:
    """A warning if clips are normalised in another way than the images of the weights were."""
    info, clip = model_info(config.model.name), config.clip
    if np.allclose((info.mean, info.std), (clip.mean, clip.std), atol=0.02):
        return []
    mean, std = (" ".join(f"{value:.4g}" for value in values) for values in (info.mean, info.std))
    return [
        f"warning: clip.mean and clip.std are not those that the weights of {info.name} were trained with "
        f"(--clip.mean {mean} --clip.std {std})"
    ]


def place_model(config: TrainConfig, model: nn.Module, device: torch.device) -> nn.Module:
    """Freeze stages, and move the model to its device and memory format."""
    freeze(model, config.model.freeze)
    if config.model.freeze_bn:
        freeze_statistics(model)
    model = model.to(device)
    return model.to(memory_format=contract.memory_format(model, config.channels_last))  # type: ignore[call-overload]
