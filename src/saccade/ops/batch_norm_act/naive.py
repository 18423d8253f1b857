"""The definition in plain PyTorch, to be read and to be tested against.

Batch norm: arXiv 1502.03167; squeeze-excitation: arXiv 1709.01507; stochastic depth: arXiv 1603.09382;
swish, called silu here: arXiv 1710.05941. They follow one another in this order in the blocks of X3D
(arXiv 2004.04730).

Shapes: x (B, C, T, H, W), parameters and running statistics (C,). Any device; differentiated by autograd.
"""

from __future__ import annotations

import torch
from torch import Tensor


def batch_norm_act(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    *,
    training: bool,
    momentum: float,
    eps: float,
    activation: str,
    squeeze_excite: tuple[Tensor, Tensor, Tensor, Tensor] | None,
    clip_scale: Tensor | None,
    residual: Tensor | None,
    num_splits: int,
) -> Tensor:
    """As `saccade.ops.batch_norm_act`, arguments unchecked."""
    if num_splits > 1:
        # clip j is in split j mod num_splits, and no split knows of the others
        splits = [
            batch_norm_act(
                x[split::num_splits],
                weight,
                bias,
                running_mean[split],
                running_var[split],
                training=training,
                momentum=momentum,
                eps=eps,
                activation=activation,
                squeeze_excite=squeeze_excite,
                clip_scale=None if clip_scale is None else clip_scale[split::num_splits],
                residual=None if residual is None else residual[split::num_splits],
                num_splits=1,
            )
            for split in range(num_splits)
        ]
        return torch.stack(splits, dim=1).flatten(0, 1)
    compute = torch.float64 if x.dtype == torch.float64 else torch.float32
    values = x.to(compute)
    if training and x.numel():
        mean, var = _own_statistics(values, running_mean, running_var, momentum)
    else:
        mean, var = running_mean.to(compute), running_var.to(compute)
    z = (values - _per_channel(mean)) / _per_channel(var + eps).sqrt()
    z = z * _per_channel(weight.to(compute)) + _per_channel(bias.to(compute))
    if squeeze_excite is not None:
        fc1_weight, fc1_bias, fc2_weight, fc2_bias = (tensor.to(compute) for tensor in squeeze_excite)
        hidden = z.mean((2, 3, 4)) @ fc1_weight.flatten(1).T + fc1_bias
        gate = hidden.relu() @ fc2_weight.flatten(1).T + fc2_bias
        z = z * gate.sigmoid()[:, :, None, None, None]
    if clip_scale is not None:
        z = z * clip_scale.to(compute).view(-1, 1, 1, 1, 1)
    if residual is not None:
        z = z + residual.to(compute)
    if activation == "relu":
        z = z.relu()
    elif activation == "silu":
        z = z * z.sigmoid()
    return z.to(x.dtype)


def _own_statistics(
    values: Tensor, running_mean: Tensor, running_var: Tensor, momentum: float
) -> tuple[Tensor, Tensor]:
    """Mean and biased variance; the running ones move towards them, the variance unbiased."""
    mean = values.mean((0, 2, 3, 4))
    var = (values - _per_channel(mean)).square().mean((0, 2, 3, 4))
    count = values.numel() // values.shape[1]
    _move(running_mean, mean, momentum)
    _move(running_var, var * (count / (count - 1)), momentum)
    return mean, var


def _per_channel(values: Tensor) -> Tensor:
    return values.view(1, -1, 1, 1, 1)


@torch.no_grad()
def _move(running: Tensor, new: Tensor, momentum: float) -> None:
    running.mul_(1 - momentum).add_(new.to(running.dtype), alpha=momentum)
