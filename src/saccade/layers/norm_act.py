"""Norm, squeeze-excitation, stochastic depth, residual and activation, fused where possible."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules import module as nn_module

from saccade.layers.drop_path import DropPath
from saccade.layers.squeeze_excite import SqueezeExcite
from saccade.layers.sub_batch_norm import SubBatchNorm3d
from saccade.ops.batch_norm_act import Activation, batch_norm_act


def norm_act(
    x: Tensor,
    norm: nn.Module,
    activation: Activation,
    *,
    squeeze_excite: nn.Module | None = None,
    drop_path: nn.Module | None = None,
    residual: Tensor | None = None,
) -> Tensor:
    """activation(drop_path(squeeze_excite(norm(x))) + residual).

    With an `nn.BatchNorm3d` or `SubBatchNorm3d` this is one operator, `saccade.ops.batch_norm_act`. Other
    norms, modules with hooks and unknown modules run one after the other, with the same result. `DropPath`
    draws the same random numbers either way.

    Args:
        squeeze_excite, drop_path: skipped if None or `nn.Identity`.

    Shapes: x and residual (B, C, T, H, W) -> (B, C, T, H, W), or frames of streams (B, C, H, W) -> same.
    """
    squeeze_excite, drop_path = _none_if_identity(squeeze_excite), _none_if_identity(drop_path)
    if x.ndim == 4 and isinstance(squeeze_excite, SqueezeExcite) and squeeze_excite.window > 1:
        x = squeeze_excite(norm_act(x, norm, "none"))
        return F.silu(x) if activation == "silu" else F.relu(x) if activation == "relu" else x
    if not _can_be_fused(x, norm, squeeze_excite, drop_path, residual):
        return _one_after_the_other(x, norm, activation, squeeze_excite, drop_path, residual)
    assert isinstance(norm, nn.BatchNorm3d)
    return batch_norm_act(
        x,
        norm.weight,
        norm.bias,
        **_statistics(norm),
        training=norm.training,
        eps=norm.eps,
        activation=activation,
        squeeze_excite=_weights(squeeze_excite) if isinstance(squeeze_excite, SqueezeExcite) else None,
        clip_scale=drop_path.draw(x) if isinstance(drop_path, DropPath) else None,
        residual=residual,
    )


def _one_after_the_other(
    x: Tensor,
    norm: nn.Module,
    activation: Activation,
    squeeze_excite: nn.Module | None,
    drop_path: nn.Module | None,
    residual: Tensor | None,
) -> Tensor:
    x = norm(x) if x.ndim == 5 else norm(x.unsqueeze(2)).squeeze(2)
    for module in (squeeze_excite, drop_path):
        if module is not None:
            x = module(x)
    if residual is not None:
        x = residual + x
    if activation == "relu":
        return F.relu(x)
    return F.silu(x) if activation == "silu" else x


def _can_be_fused(
    x: Tensor,
    norm: nn.Module,
    squeeze_excite: nn.Module | None,
    drop_path: nn.Module | None,
    residual: Tensor | None,
) -> bool:
    if type(norm) is SubBatchNorm3d:
        if norm.training and not norm.divides(x.shape[0]):
            return False
    elif type(norm) is not nn.BatchNorm3d or norm.weight is None or norm.running_mean is None:
        return False
    if squeeze_excite is not None and not _is_plain(squeeze_excite, x):
        return False
    if drop_path is not None and type(drop_path) is not DropPath:
        return False
    if residual is not None and (residual.dtype != x.dtype or residual.shape != x.shape):
        return False
    modules = [norm, drop_path] if squeeze_excite is None else [norm, drop_path, *squeeze_excite.modules()]
    return not any(_has_hooks(module) for module in modules if module is not None)


def _is_plain(module: nn.Module, x: Tensor) -> bool:
    """Whether it is a `SqueezeExcite` over all of x, a clip or a frame, whose convolutions have biases."""
    if type(module) is not SqueezeExcite or module.window != (1 if x.ndim == 4 else 0):
        return False
    return all(type(fc) is nn.Conv3d and fc.bias is not None for fc in (module.fc1, module.fc2))


def _has_hooks(module: nn.Module) -> bool:
    # the conditions of nn.Module.__call__ for calling forward() directly
    return bool(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        or nn_module._global_forward_hooks
        or nn_module._global_forward_pre_hooks
        or nn_module._global_backward_hooks
        or nn_module._global_backward_pre_hooks
    )


def _weights(module: SqueezeExcite) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    assert module.fc1.bias is not None
    assert module.fc2.bias is not None
    return module.fc1.weight, module.fc1.bias, module.fc2.weight, module.fc2.bias


def _statistics(norm: nn.BatchNorm3d) -> dict[str, Any]:
    """Running statistics and momentum; counts the batch in training."""
    if isinstance(norm, SubBatchNorm3d) and norm.training:
        return norm.begin_batch()
    return {
        "running_mean": norm.running_mean,
        "running_var": norm.running_var,
        "momentum": _momentum(norm),
    }


def _momentum(norm: nn.BatchNorm3d) -> float:
    """As in nn.BatchNorm3d: None means the cumulative average."""
    if norm.training and norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    if norm.momentum is not None:
        return norm.momentum
    return (
        1.0 / float(norm.num_batches_tracked)
        if norm.training and norm.num_batches_tracked is not None
        else 0.0
    )


def _none_if_identity(module: nn.Module | None) -> nn.Module | None:
    return None if type(module) is nn.Identity and not _has_hooks(module) else module
