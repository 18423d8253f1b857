"""Synchronised batch norm on any backend of torch.distributed.

`torch.nn.SyncBatchNorm` works on CUDA only; this one also works on CPUs (gloo).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

_Module = TypeVar("_Module", bound=nn.Module)


class SyncBatchNorm3d(nn.BatchNorm3d):
    """`nn.BatchNorm3d` whose batch statistics cover the clips of every process.

    Output, input gradients and running statistics equal those of a plain batch norm on the joined batch; the
    processes may hold different numbers of clips. Gradients of weight and bias are local, and DDP averages
    them like any other. Without an initialised process group, with a single process and in eval mode this is
    plain batch norm. State-dict keys are the same as in `nn.BatchNorm3d`.

    Shapes: (B, C, T, H, W) -> (B, C, T, H, W).
    """

    process_group: Any = None

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not _several_processes(self.process_group):
            return super().forward(x)
        self._check_input_dim(x)
        y, mean, var, count = _SyncBatchNorm.apply(x, self.weight, self.bias, self.eps, self.process_group)
        if self.track_running_stats:
            self._update_running_stats(mean, var, count)
        return y

    @torch.no_grad()
    def _update_running_stats(self, mean: Tensor, var: Tensor, count: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        momentum = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean.dtype), momentum)
        self.running_var.lerp_((var * (count / (count - 1))).to(self.running_var.dtype), momentum)


def convert_sync_batchnorm(model: _Module, process_group: Any = None) -> _Module:
    """Replace every `nn.BatchNorm3d` in ``model`` by a `SyncBatchNorm3d` with the same tensors.

    Returns the model, or its replacement if it is a batch norm itself.
    """

    def synchronised(module: nn.Module) -> nn.Module | None:
        if type(module) is not nn.BatchNorm3d:
            return None
        norm = module
        assert isinstance(norm, nn.BatchNorm3d)
        new = SyncBatchNorm3d(
            norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats, device="meta"
        )
        new.process_group = process_group
        return share_tensors(new, norm)

    return replace_modules(model, synchronised)


def replace_modules(model: _Module, replacement: Callable[[nn.Module], nn.Module | None]) -> _Module:
    """Replace each module of ``model`` by the result of ``replacement``; None keeps the module.

    Returns the model, or its replacement.
    """
    whole = replacement(model)
    if whole is not None:
        return cast(_Module, whole)
    for parent in list(model.modules()):
        for name, child in list(parent.named_children()):
            new = replacement(child)
            if new is not None:
                setattr(parent, name, new)
    return model


def share_tensors(new: nn.BatchNorm3d, norm: nn.BatchNorm3d) -> nn.BatchNorm3d:
    """Give ``new`` the parameters, buffers (the same tensors) and mode of ``norm``."""
    new.weight, new.bias = norm.weight, norm.bias
    new.running_mean, new.running_var = norm.running_mean, norm.running_var
    new.num_batches_tracked = norm.num_batches_tracked
    return new.train(norm.training)


def _several_processes(group: Any) -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size(group) > 1


class _SyncBatchNorm(torch.autograd.Function):
    """Normalise with the statistics of the joined batch; also returns mean, biased variance and count."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, group: Any
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean, var, count = _joined_statistics(x, group)
        ctx.save_for_backward(x, weight, mean, torch.rsqrt(var + eps), count)
        ctx.group = group
        ctx.has_bias = bias is not None
        y = F.batch_norm(x, mean.to(x.dtype), var.to(x.dtype), weight, bias, False, 0.0, eps)
        ctx.mark_non_differentiable(mean, var, count)
        return y, mean, var, count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        grad_y = grads[0]
        x, weight, mean, inv_std, count = ctx.saved_tensors
        dims = (0, 2, 3, 4)
        shape = (1, -1, 1, 1, 1)
        x_hat = ((x - mean.to(x.dtype).view(shape)) * inv_std.to(x.dtype).view(shape)).to(grad_y.dtype)
        grad_bias = grad_y.sum(dims, dtype=mean.dtype)
        grad_weight = (grad_y * x_hat).sum(dims, dtype=mean.dtype)
        grad_x = None
        if ctx.needs_input_grad[0]:
            sums = torch.stack((grad_bias, grad_weight))
            dist.all_reduce(sums, group=ctx.group)
            mean_grad, mean_product = (sums / count).to(grad_y.dtype)
            grad_x = grad_y - mean_grad.view(shape) - x_hat * mean_product.view(shape)
            scale = inv_std if weight is None else inv_std * weight.to(inv_std.dtype)
            grad_x = grad_x * scale.to(grad_y.dtype).view(shape)
        return (
            grad_x,
            None if weight is None else grad_weight.to(weight.dtype),
            grad_bias.to(grad_y.dtype if weight is None else weight.dtype) if ctx.has_bias else None,
            None,
            None,
        )


def _joined_statistics(x: Tensor, group: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, biased variance (C,) and number of values per channel, over all processes.

    Each process sends its count, mean and centred sum of squares; unlike E[x²] - E[x]², joining these does
    not cancel.
    """
    dtype = torch.float64 if x.dtype == torch.float64 else torch.float32
    var, mean = torch.var_mean(x.to(dtype), (0, 2, 3, 4), correction=0)
    count = torch.full((1,), float(x.numel() // x.shape[1]), dtype=dtype, device=x.device)
    mine = torch.cat((count, mean, var * count))
    parts = [torch.empty_like(mine) for _ in range(dist.get_world_size(group))]
    dist.all_gather(parts, mine, group=group)
    table = torch.stack(parts)
    counts, (means, squares) = table[:, :1], table[:, 1:].chunk(2, dim=1)
    total = counts.sum()
    mean = (means * counts).sum(0) / total
    var = (squares + counts * (means - mean) ** 2).sum(0) / total
    return mean, var, total
