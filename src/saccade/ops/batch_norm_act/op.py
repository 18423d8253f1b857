"""The public operator: checks arguments, chooses the backend, updates running statistics."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from saccade.errors import UsageError
from saccade.ops._backend import choose_backend
from saccade.ops.batch_norm_act import naive
from saccade.ops.batch_norm_act.custom_op import run_forward

Activation = Literal["none", "relu", "silu"]
SqueezeExciteWeights = tuple[Tensor, Tensor, Tensor, Tensor]
DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def batch_norm_act(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    running_mean: Tensor,
    running_var: Tensor,
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    activation: Activation = "none",
    squeeze_excite: SqueezeExciteWeights | None = None,
    clip_scale: Tensor | None = None,
    residual: Tensor | None = None,
    num_splits: int = 1,
) -> Tensor:
    """Batch norm, squeeze-excitation, residual and activation in as few passes over memory as possible.

    y = activation(clip_scale * gate * norm(x) + residual), where norm is `nn.BatchNorm3d` and gate is
    sigmoid(fc2(relu(fc1(mean of norm(x) over T, H, W)))), one number per clip and channel.

    Args:
        x: (B, C, T, H, W), or the frames of streams (B, C, H, W); float32, bfloat16, float16 or float64. The
            output has its data type, and its layout if that is channels-last or contiguous. Computed in
            float32, or float64 if x has it.
        weight, bias: (C,).
        running_mean, running_var: (C,). In training they are updated in place, by ``momentum`` times the
            difference to the mean and unbiased variance of x; else x is normalised by them. An empty x
            leaves them.
        squeeze_excite: weights and biases of the two layers: fc1 (H, C) and (H,), fc2 (C, H) and (C,). The
            weights may have further axes of length 1, as in 1x1x1 convolutions.
        clip_scale: (B,), without gradient. For stochastic depth: 0, or 1 / (1 - rate).
        residual: like x.
        num_splits: in training, clip j is normalised by the statistics of the clips of split j mod S alone,
            and the running statistics are (S, C), a row for each. S divides the number of clips.

    Returns:
        Like x.

    Raises:
        UsageError: an argument has the wrong shape, data type, device or value.
        ValueError: training on a single value per channel, as PyTorch says it.
    """
    _check(x, (weight, bias), activation, squeeze_excite, clip_scale, residual)
    _check_statistics(x, (running_mean, running_var), training, num_splits)
    if training and x.numel() == num_splits * x.shape[1] > 0:
        raise ValueError(f"Expected more than 1 value per channel when training, got input size {x.shape}")
    backend = choose_backend("batch_norm_act", x)
    if backend == "torch":
        run = _pytorch
    else:
        run = naive.batch_norm_act if backend == "naive" else partial(_run_kernels, backend=backend)
        if x.dim() == 4:
            run = _as_clips(run)
    return run(
        x,
        weight,
        bias,
        running_mean,
        running_var,
        training=training,
        momentum=momentum,
        eps=eps,
        activation=activation,
        squeeze_excite=squeeze_excite,
        clip_scale=clip_scale,
        residual=residual,
        num_splits=num_splits,
    )


def _as_clips(run: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """``run`` for frames, as clips of one frame."""

    def run_frames(x: Tensor, *args: Any, residual: Tensor | None, **options: Any) -> Tensor:
        residual = None if residual is None else residual.unsqueeze(2)
        return run(x.unsqueeze(2), *args, residual=residual, **options).squeeze(2)

    return run_frames


def _run_kernels(
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
    squeeze_excite: SqueezeExciteWeights | None,
    clip_scale: Tensor | None,
    residual: Tensor | None,
    num_splits: int,
    backend: str,
) -> Tensor:
    """By the native or the Triton kernels."""
    by_batch = training and x.numel() > 0
    y, mean, var = run_forward(
        x,
        weight,
        bias,
        None if by_batch else running_mean.view(-1, x.shape[1])[0],
        None if by_batch else running_var.view(-1, x.shape[1])[0],
        *(squeeze_excite or (None,) * 4),
        clip_scale,
        residual,
        eps,
        activation,
        num_splits if by_batch else 1,
        backend,
    )
    if by_batch:
        count = x.numel() // (num_splits * x.shape[1])
        _update_running(running_mean, running_var, mean, var, count, momentum)
    return y


@torch.no_grad()
def _update_running(
    running_mean: Tensor, running_var: Tensor, mean: Tensor, var: Tensor, count: int, momentum: float
) -> None:
    # outside the registered operator, which therefore has no side effects
    running_mean.lerp_(mean.view_as(running_mean).to(running_mean.dtype), momentum)
    running_var.lerp_((var.view_as(running_var) * (count / (count - 1))).to(running_var.dtype), momentum)


def _pytorch(
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
    squeeze_excite: SqueezeExciteWeights | None,
    clip_scale: Tensor | None,
    residual: Tensor | None,
    num_splits: int,
) -> Tensor:
    """Built from PyTorch operators."""
    if num_splits > 1 and training and x.numel():
        # the splits become channels, each with its own statistics
        groups = x.reshape(-1, num_splits * x.shape[1], *x.shape[2:])
        mean, var = running_mean.view(-1), running_var.view(-1)
        z = F.batch_norm(
            groups, mean, var, weight.repeat(num_splits), bias.repeat(num_splits), True, momentum, eps
        ).reshape(x.shape)
    else:
        mean, var = (value.view(-1, x.shape[1])[0] for value in (running_mean, running_var))
        z = F.batch_norm(x, mean, var, weight, bias, training, momentum, eps)
    if squeeze_excite is not None:
        compute = torch.float64 if z.dtype == torch.float64 else torch.float32
        fc1_weight, fc1_bias, fc2_weight, fc2_bias = (tensor.to(compute) for tensor in squeeze_excite)
        hidden = F.relu(
            F.linear(z.mean(tuple(range(2, z.dim())), dtype=compute), fc1_weight.flatten(1), fc1_bias)
        )
        gate = F.linear(hidden, fc2_weight.flatten(1), fc2_bias).sigmoid()
        z = z * gate.to(z.dtype).view(*gate.shape, *(1,) * (z.dim() - 2))
    if clip_scale is not None:
        z = z * clip_scale.to(z.dtype).view(-1, *(1,) * (z.dim() - 1))
    if residual is not None:
        z = z + residual
    if activation == "relu":
        return F.relu(z, inplace=True)  # nothing before it needs z for its gradient
    return F.silu(z) if activation == "silu" else z


def _check(
    x: Tensor,
    vectors: tuple[Tensor, ...],
    activation: str,
    squeeze_excite: SqueezeExciteWeights | None,
    clip_scale: Tensor | None,
    residual: Tensor | None,
) -> None:
    if x.dim() not in (4, 5):
        raise UsageError(f"x has shape {tuple(x.shape)}: 5 axes BCTHW are needed (or 4, BCHW)")
    if x.dtype not in DTYPES:
        raise UsageError(f"x is {x.dtype}: one of {', '.join(map(str, DTYPES))} is needed")
    if activation not in get_args(Activation):
        raise UsageError(f"activation is {activation!r}: one of {', '.join(get_args(Activation))} is needed")
    batch, channels = x.shape[:2]
    for name, vector in zip(("weight", "bias"), vectors, strict=True):
        _check_small(name, vector, (channels,), x)
    if squeeze_excite is not None:
        hidden = squeeze_excite[0].shape[0]
        shapes = ((hidden, channels), (hidden,), (channels, hidden), (channels,))
        names = ("fc1's weight", "fc1's bias", "fc2's weight", "fc2's bias")
        for name, tensor, shape in zip(names, squeeze_excite, shapes, strict=True):
            _check_small(f"squeeze_excite: {name}", tensor, shape, x)
    if clip_scale is not None:
        _check_small("clip_scale", clip_scale, (batch,), x)
    if residual is not None:
        if residual.shape != x.shape or residual.device != x.device:
            got = f"{tuple(residual.shape)} on {residual.device}"
            raise UsageError(f"residual has shape {got}: it must be {tuple(x.shape)} on {x.device}, as x is")
        if residual.dtype != x.dtype:
            raise UsageError(f"residual is {residual.dtype}: it must have the data type of x, {x.dtype}")


def _check_statistics(x: Tensor, statistics: tuple[Tensor, Tensor], training: bool, num_splits: int) -> None:
    batch, channels = x.shape[:2]
    if num_splits < 1 or batch % num_splits:
        raise UsageError(f"num_splits is {num_splits}: it must divide the number of clips, {batch}")
    if num_splits > 1 and not training:
        raise UsageError(f"num_splits is {num_splits}: it must be 1 in evaluation")
    shape = (channels,) if num_splits == 1 else (num_splits, channels)
    for name, tensor in zip(("running_mean", "running_var"), statistics, strict=True):
        _check_small(name, tensor, shape, x)


def _check_small(name: str, tensor: Tensor, shape: tuple[int, ...], x: Tensor) -> None:
    got = tuple(tensor.shape)
    if got[: len(shape)] != shape or any(extent != 1 for extent in got[len(shape) :]):
        raise UsageError(f"{name} has shape {got}: {shape} is needed for x of shape {tuple(x.shape)}")
    if tensor.device != x.device:
        raise UsageError(f"{name} is on {tensor.device} and x on {x.device}: both must be on one device")
    if not tensor.is_floating_point():
        raise UsageError(f"{name} is {tensor.dtype}: a floating point type is needed")
