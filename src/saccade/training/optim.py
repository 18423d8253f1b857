"""Which parameters learn, how fast, and with how much decay."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from saccade.errors import ConfigError
from saccade.models import contract
from saccade.training.config import OptimConfig


def parameter_groups(
    model: nn.Module,
    *,
    weight_decay: float,
    backbone_lr: float = 1.0,
    shift_lr: float | None = None,
    layer_decay: float = 1.0,
) -> list[dict[str, Any]]:
    """Optimiser groups of the parameters that learn: {backbone, classifier} x {decayed, not decayed}.

    Vectors and scalars (biases, every kind of norm) and what the model names in ``no_weight_decay()`` do not
    decay. What it names in ``lr_multipliers()`` makes groups of its own; ``shift_lr`` replaces those factors.
    With a ``layer_decay`` below 1 there are groups for each depth of ``layer_ids()``: the rate of a layer is
    ``layer_decay`` times that of the next, the deepest have the full rate (Clark et al. 2020, ELECTRA, arXiv
    2003.10555; Bao et al. 2021, BEiT, arXiv 2106.08254). Of a module that has
    not these methods, see `saccade.models.contract`.
    Each group has a ``name`` and an ``lr_scale`` that `set_learning_rate` multiplies with. Empty groups are
    left out.

    Raises:
        ConfigError: there is a ``shift_lr``, and the model has no shifts.
    """
    spared, classifier = contract.no_weight_decay(model), set(contract.classifier_parameters(model))
    factors = contract.lr_multipliers(model)
    if shift_lr is not None:
        if not factors:
            raise ConfigError("optim.shift_lr: the model has no learned shifts; leave it out")
        factors = dict.fromkeys(factors, shift_lr)
    depths = contract.layer_ids(model) if layer_decay != 1 else {}
    deepest = max(depths.values(), default=0)
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        head = name in classifier
        # the number of dimensions also catches norms that are no subclass of torch's own
        decayed = parameter.ndim > 1 and name not in spared
        factor = factors.get(name, 1.0)
        part = ("classifier" if head else "backbone") + (f" at {factor:g} x lr" if name in factors else "")
        part += f" in layer {depths[name]}" if depths else ""
        group_name = f"{part}, {'decayed' if decayed else 'not decayed'}"
        group = groups.setdefault(
            group_name,
            {
                "name": group_name,
                "params": [],
                "lr_scale": factor
                * (1.0 if head else backbone_lr)
                * layer_decay ** (deepest - depths.get(name, deepest)),
                "weight_decay": weight_decay if decayed else 0.0,
            },
        )
        group["params"].append(parameter)
    return list(groups.values())


def create_optimizer(
    model: nn.Module, config: OptimConfig, *, backbone_lr: float = 1.0, layer_decay: float = 1.0
) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, or AdamW, over `parameter_groups`."""
    groups = parameter_groups(
        model,
        weight_decay=config.weight_decay,
        backbone_lr=backbone_lr,
        shift_lr=config.shift_lr,
        layer_decay=layer_decay,
    )
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the rate ``lr`` for every group, times the group's ``lr_scale``."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def freeze(model: nn.Module, num_stages: int) -> None:
    """Stop the first ``num_stages`` stages from learning; -1: everything but the classifier.

    Raises:
        ConfigError: the model has fewer stages.
    """
    if not num_stages:
        return
    if num_stages == -1:
        classifier = set(contract.classifier_parameters(model))
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in classifier)
        return
    stages = contract.stages(model)
    if num_stages > len(stages):
        raise ConfigError(f"model.freeze: {num_stages} stages to freeze, but the model has {len(stages)}")
    for stage in stages[:num_stages]:
        stage.requires_grad_(False)


def frozen_modules(model: nn.Module) -> list[nn.Module]:
    """The modules that have parameters of which none learns. A layer without parameters is as the module
    around it.
    """
    return [
        module
        for module in model.modules()
        if any(True for _ in module.parameters()) and not any(p.requires_grad for p in module.parameters())
    ]


def set_train_mode(model: nn.Module) -> None:
    """``model.train()``, except that frozen modules stay in eval mode.

    So a frozen batch norm keeps its running statistics, and a frozen stage drops no paths.
    """
    model.train()
    for module in frozen_modules(model):
        module.eval()
