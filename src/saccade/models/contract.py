"""The model interface of training, testing and inference, with defaults for any `nn.Module`.

A module overrides a default by defining the method or attribute of that name, as every `VideoModel` does.
The rest of the library calls the functions below and never checks the type of a module.

| method or attribute             | default                                                             |
|---------------------------------|---------------------------------------------------------------------|
| `model_name`                    | the name of its class                                               |
| `num_classes`                   | outputs of its classifier                                           |
| `classifier_prefix`             | timm's ``get_classifier()``, else its last linear layer             |
| `classifier_parameters`         | all below the prefix                                                |
| `build_args`                    | None: a checkpoint cannot rebuild it                                |
| `clip_spec`                     | clip of its registered name; None if it has none                    |
| `clip_multiple`                 | (1, 1)                                                              |
| `memory_format`                 | channels-last-3d                                                    |
| `stages`                        | direct children with parameters, except the classifier              |
| `blocks`                        | []: activations are not recomputed, weights not sharded             |
| `layer_ids`                     | the index of its stage                                              |
| `no_weight_decay`               | set(): norms and biases never decay                                 |
| `lr_multipliers`                | {}: every parameter learns at the same rate                         |
| `not_averaged`                  | set(): the average of the weights covers all                        |
| `regularization`                | None: nothing is added to the loss                                  |
| `on_train_progress`             | nothing                                                             |
| `in_final_form`                 | True                                                                |
| `resize_positions`              | []: weights are loaded as they are                                  |
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from saccade.clip import ClipSpec
from saccade.models import registry


def unwrap(model: nn.Module) -> nn.Module:
    """The model inside the wrappers of `torch.compile` and `DistributedDataParallel`."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.parallel.DistributedDataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def _ask(model: nn.Module, method: str, default: Any, *args: Any) -> Any:
    """Call the method of that name; ``default`` if there is none (a submodule does not count)."""
    found = getattr(model, method, None)
    return found(*args) if inspect.ismethod(found) else default


# -------------------------------------------------------------------------------------------------- identity


def model_name(model: nn.Module) -> str:
    """Registered name, else the name of the class; for messages and reports."""
    name = getattr(model, "model_name", None)
    return name if isinstance(name, str) and name else type(model).__name__


def build_args(model: nn.Module) -> dict[str, Any] | None:
    """Arguments of `create_model` that build the same architecture; None if unknown."""
    args = getattr(model, "build_args", None)
    return args if isinstance(args, dict) else None


def num_classes(model: nn.Module) -> int | None:
    """Number of classes; 0 without a classifier, None if unknown and there is no linear layer."""
    number = getattr(model, "num_classes", None)
    if isinstance(number, int):
        return number
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    return linear[-1].out_features if linear else None


def classifier_prefix(model: nn.Module) -> str:
    """Prefix of the names of the classifier's parameters; "" if unknown."""
    prefix = getattr(model, "classifier_prefix", None)
    if isinstance(prefix, str):
        return prefix
    named = _ask(model, "get_classifier", None)  # timm's
    classes = getattr(model, "num_classes", None)
    found = ""
    for name, module in model.named_modules():
        if module is named and name:
            return f"{name}."
        if isinstance(module, nn.Linear) and classes in (None, module.out_features):
            found = f"{name}." if name else ""
    return found


def classifier(model: nn.Module) -> nn.Module | None:
    """The classifier, an `nn.Identity` with 0 classes; None if unknown."""
    try:
        prefix = classifier_prefix(model)
        return model.get_submodule(prefix[:-1]) if prefix else None
    except AttributeError:
        return None


def classifier_parameters(model: nn.Module) -> list[str]:
    """Names of the parameters that depend on the classes; a linear probe trains these alone."""
    found: list[str] | None = _ask(model, "classifier_parameters", None)
    if found is not None:
        return found
    prefix = classifier_prefix(model)
    return [name for name, _ in model.named_parameters() if prefix and name.startswith(prefix)]


# ------------------------------------------------------------------------------------------------- the clips


def clip_spec(model: nn.Module, *, train: bool = False) -> ClipSpec | None:
    """The input clip of this model, overrides included; None if unknown.

    Frames, stride and training crop come from its config, if any. Test crop and short side keep their ratio
    to the training crop.

    Args:
        train: return the training crop and the smallest training short side.
    """
    own = getattr(model, "clip", None)
    if isinstance(own, ClipSpec):
        return own
    name = getattr(model, "model_name", None)
    if not isinstance(name, str) or not registry.is_registered(name):
        return None
    named, config = registry.model_entry(name).info, getattr(model, "config", None)
    spec = named.clip_spec(train=train)
    spec = spec.replace(
        num_frames=getattr(config, "num_frames", spec.num_frames),
        stride=getattr(config, "stride", spec.stride),
    )
    crop = getattr(config, "train_crop", named.train_crop)
    if crop == named.train_crop:
        return spec
    scale = crop / named.train_crop
    return spec.replace(crop=round(spec.crop * scale), short_side=round(spec.short_side * scale))


def clip_multiple(model: nn.Module) -> tuple[int, int]:
    """(frames, pixels): sizes of a clip must be multiples of these."""
    frames, pixels = getattr(model, "clip_multiple", (1, 1))
    return frames, pixels


def memory_format(model: nn.Module, channels_last: bool | None = None) -> torch.memory_format:
    """Memory format for a model and its clips; ``channels_last`` None: the model's preference, by default
    channels-last-3d.
    """
    if channels_last is None:
        channels_last = getattr(model, "prefers_channels_last", True)
    return torch.channels_last_3d if channels_last else torch.contiguous_format


# ------------------------------------------------------------------------------------------------- its parts


def stages(model: nn.Module) -> list[nn.Module]:
    """The modules before the head in order, the stem first; for freezing."""
    found: list[nn.Module] | None = _ask(model, "stages", None)
    if found is not None:
        return found
    prefix = classifier_prefix(model)
    return [
        child
        for name, child in model.named_children()
        if f"{name}." != prefix and any(True for _ in child.parameters())
    ]


def blocks(model: nn.Module) -> list[nn.Module]:
    """The units of activation checkpointing and of sharding, each called as a module."""
    found: list[nn.Module] = _ask(model, "blocks", [])
    return found


def layer_ids(model: nn.Module) -> dict[str, int]:
    """Names of parameters -> depth of their layer, 0 for the stem, the head deepest; for learning rates that
    fall with the distance from the head.
    """
    found: dict[str, int] | None = _ask(model, "layer_ids", None)
    return found if found is not None else depth_by_stage(model, stages(model))


def depth_by_stage(model: nn.Module, parts: Sequence[nn.Module]) -> dict[str, int]:
    """Names of parameters -> index of the part they belong to; len(parts) for those of none."""
    depths = {id(p): depth for depth, part in enumerate(parts) for p in part.parameters()}
    return {name: depths.get(id(p), len(parts)) for name, p in model.named_parameters()}


# -------------------------------------------------------------------------------------------------- training


def no_weight_decay(model: nn.Module) -> set[str]:
    """Names of parameters without weight decay, beyond norms and biases, which never have any."""
    return set(_ask(model, "no_weight_decay", ()))


def lr_multipliers(model: nn.Module) -> dict[str, float]:
    """Names of parameters that learn at another rate -> the factor on the learning rate."""
    found: dict[str, float] = _ask(model, "lr_multipliers", {})
    return found


def not_averaged(model: nn.Module) -> set[str]:
    """Names of buffers that follow a schedule: an average of the weights takes them as they are."""
    return set(_ask(model, "not_averaged", ()))


def regularization(model: nn.Module) -> Tensor | None:
    """What training adds to the loss, a scalar with its gradient; None for nothing."""
    found: Tensor | None = _ask(model, "regularization", None)
    return found


def on_train_progress(model: nn.Module, fraction: float) -> None:
    """To be called before the first training step and after each, with the fraction of steps that is done."""
    _ask(model, "on_train_progress", None, fraction)


def in_final_form(model: nn.Module) -> bool:
    """False while a schedule still has to change the network: the best weights are chosen after that."""
    return bool(_ask(model, "in_final_form", True))


def resize_positions(model: nn.Module, tensors: dict[str, Tensor]) -> list[str]:
    """Resize learned positions in weights about to be loaded, in place; returns what was done."""
    found: list[str] = _ask(model, "resize_positions", [], tensors)
    return found
