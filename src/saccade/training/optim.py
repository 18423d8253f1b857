"""Optimisers, parameter groups, freezing."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

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
    """Parameter groups of the trainable parameters: {backbone, classifier} x {decayed, not decayed}.

    Vectors and scalars (biases, norms) and the parameters in the model's ``no_weight_decay()`` are not
    decayed. Parameters in ``lr_multipliers()`` form groups of their own; ``shift_lr`` replaces these factors.
    With a ``layer_decay`` below 1 there are groups for each depth of ``layer_ids()``: the rate of a layer is
    ``layer_decay`` times that of the next, the deepest have the full rate (Clark et al. 2020, ELECTRA, arXiv
    2003.10555; Bao et al. 2021, BEiT, arXiv 2106.08254). `saccade.models.contract` has the defaults for
    modules without these methods. Each group has a ``name`` and an ``lr_scale``, see `set_learning_rate`.

    Raises:
        ConfigError: ``shift_lr`` is given, but the model has no learned shifts.
    """
    undecayed, classifier = contract.no_weight_decay(model), set(contract.classifier_parameters(model))
    factors = contract.lr_multipliers(model)
    if shift_lr is not None:
        if not factors:
            raise ConfigError("optim.shift_lr: the model has no learned shifts; remove it")
        factors = dict.fromkeys(factors, shift_lr)
    depths = contract.layer_ids(model) if layer_decay != 1 else {}
    deepest = max(depths.values(), default=0)
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        head = name in classifier
        # checking ndim also covers norms that are not derived from those of torch
        decayed = parameter.ndim > 1 and name not in undecayed
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
    model: nn.Module,
    config: OptimConfig,
    *,
    backbone_lr: float = 1.0,
    layer_decay: float = 1.0,
    others: nn.Module | None = None,
) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum, or AdamW, over `parameter_groups`.

    Args:
        others: further parameters, which learn at the full rate.
    """
    groups = parameter_groups(
        model,
        weight_decay=config.weight_decay,
        backbone_lr=backbone_lr,
        shift_lr=config.shift_lr,
        layer_decay=layer_decay,
    )
    if others is not None:
        entry = {"name": "of the loss", "params": list(others.parameters()), "lr_scale": 1.0}
        groups.append({**entry, "weight_decay": config.weight_decay})
    if config.name == "sgd":
        return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=config.momentum > 0)
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of every group to ``lr`` times its ``lr_scale``."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["lr_scale"]


def freeze(model: nn.Module, num_stages: int) -> None:
    """Freeze the first ``num_stages`` stages; -1: everything but the classifier.

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
        raise ConfigError(f"model.freeze: {num_stages} is more than the {len(stages)} stages of the model")
    for stage in stages[:num_stages]:
        stage.requires_grad_(False)


def freeze_statistics(model: nn.Module) -> None:
    """Make `set_train_mode` leave all batch norms in eval mode, so that they keep their statistics."""
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.__dict__["keeps_statistics"] = True  # an attribute, not a module or parameter


def frozen_modules(model: nn.Module) -> list[nn.Module]:
    """Modules whose parameters are all frozen, and those of `freeze_statistics`. Other modules without
    parameters are not listed.
    """
    return [
        module
        for module in model.modules()
        if getattr(module, "keeps_statistics", False)
        or (any(True for _ in module.parameters()) and not any(p.requires_grad for p in module.parameters()))
    ]


def set_train_mode(model: nn.Module) -> None:
    """``model.train()``, except that frozen modules (and the modules in them) stay in eval mode.

    So a frozen batch norm keeps its running statistics, and a frozen stage has no drop path.
    """
    model.train()
    for module in frozen_modules(model):
        module.eval()
