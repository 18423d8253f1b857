"""Batch statistics of the weights as they are, instead of averages over those they were.

Running averages lag behind weights that move, and know the clips of the last few batches best. "Precise batch
norm" (Wu & Johnson 2021, arXiv 2105.07576, section 3) takes them anew from a number of batches. Here mean and
variance are those of all values of all these batches together, not averages over batches.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from saccade.layers import SubBatchNorm3d
from saccade.training.distributed import Processes


@torch.no_grad()
def measure_batch_norm(
    model: nn.Module, batches: Iterable[Tensor], *, norms: Collection[str], processes: Processes
) -> None:
    """Set the running statistics of the batch norms called ``norms`` to those of what reaches them.

    Every batch (B, 3, T, H, W) is normalised by its own statistics, as in training, with dropout and
    stochastic depth off. With several processes the batches of all count. The model is left in eval mode.
    """
    model.eval()
    measured = {name: module for name, module in model.named_modules() if name in set(norms)}
    moments = {name: _Moments() for name in measured}
    handles = [module.register_forward_pre_hook(_adds_to(moments[name])) for name, module in measured.items()]
    try:
        for module in measured.values():
            module.train()
        for clips in batches:
            model(clips)
    finally:
        for handle in handles:
            handle.remove()
        model.eval()
    parts = processes.gather([moments[name].state() for name in measured])
    for place, module in enumerate(measured.values()):
        assert isinstance(module, nn.BatchNorm3d)
        whole = _Moments()
        for part in parts:
            whole.add(*part[place])
        _set_statistics(module, whole)


def batch_norms(model: nn.Module) -> list[str]:
    """Names of the batch norms that learn."""
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.BatchNorm3d) and any(p.requires_grad for p in module.parameters())
    ]


class _Moments:
    """Count, mean and sum of squared distances from it, of values per channel, in float64."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, torch.zeros(()), torch.zeros(())

    def add(self, count: int, mean: Tensor, squares: Tensor) -> None:
        if not count:
            return
        if not self.count:
            self.count, self.mean, self.squares = count, mean, squares
            return
        total, shift = self.count + count, mean - self.mean
        self.squares = self.squares + squares + shift.square() * (self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.count = total

    def state(self) -> tuple[int, Tensor, Tensor]:
        return self.count, self.mean.cpu(), self.squares.cpu()


def _adds_to(moments: _Moments) -> Any:
    def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0]
        var, mean = torch.var_mean(x if x.dtype == torch.float64 else x.float(), (0, 2, 3, 4), correction=0)
        count = x.numel() // x.shape[1]
        moments.add(count, mean.double(), var.double() * count)

    return hook


def _set_statistics(norm: nn.BatchNorm3d, moments: _Moments) -> None:
    if not moments.count:
        return
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(moments.mean)
    norm.running_var.copy_(moments.squares / max(moments.count - 1, 1))
    if isinstance(norm, SubBatchNorm3d):
        norm.spread()
