"""Batch norm during training: sub-BN, sync-BN and precise statistics."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from saccade.layers import (
    SubBatchNorm3d,
    convert_sync_batchnorm,
    load_split_statistics,
    split_batch_norm,
    split_statistics,
)
from saccade.training.optim import frozen_modules
from saccade.training.processes import Processes

NormKind = Literal["as built", "none", "plain", "sub", "sync"]


@dataclass(frozen=True)
class NormChoice:
    """Clips that batch norm computes statistics over: all of a device (plain), each of its ``num`` splits
    (sub), or those of ``num`` devices (sync). "as built" leaves the model unchanged; "none": no batch norm.
    """

    kind: NormKind
    num: int = 1

    def __str__(self) -> str:
        names = {"sub": f"sub-BN, {self.num} splits", "sync": f"sync-BN, {self.num} devices", "plain": "BN"}
        return names.get(self.kind, self.kind)


def batch_norm_for(clips_per_device: int, num_devices: int, base_size: int) -> NormChoice:
    """Batch norm over about ``base_size`` clips, for any number of clips per device.

    The rule of PySlowFast, extended to batches of any size: the largest possible number of equal splits or of
    neighbouring devices.
    """
    if not base_size:
        return NormChoice("as built")
    if clips_per_device >= base_size:
        splits = _divisor(clips_per_device, clips_per_device // base_size)
        return NormChoice("sub", splits) if splits > 1 else NormChoice("plain")
    devices = _divisor(num_devices, base_size // clips_per_device)
    return NormChoice("sync", devices) if devices > 1 else NormChoice("plain")


class BatchNorms:
    """Converts the batch norms of a model in place; parameters, optimiser and state dict stay valid. All
    processes must call each method together.

    Args:
        model: a network with plain batch norms.
        sync: convert them to sync-BN over all processes.

    Attributes:
        names: the batch norms that `measure` updates.
        choice: the current kind of batch norm.
    """

    def __init__(self, model: nn.Module, processes: Processes, *, sync: bool = False) -> None:
        self._model, self._processes = model, processes
        self._groups: dict[int, Any] = {}
        self.names = batch_norms(model)
        self.choice = NormChoice("as built")
        if sync and processes.world_size > 1:
            convert_sync_batchnorm(model)

    def switch(self, choice: NormChoice) -> None:
        """Change the kind of batch norm."""
        if choice == self.choice or choice.kind in ("as built", "none"):
            return
        split_batch_norm(self._model, choice.num if choice.kind == "sub" else 1)
        if choice.kind == "sync":
            convert_sync_batchnorm(self._model, self._group(choice.num))
        self.choice = choice

    def measure(self, model: nn.Module, batches: Iterable[Tensor]) -> None:
        """Call `measure_batch_norm` on ``model``: the trained one or its moving average.

        Undoes the sub-BN or sync-BN of a multigrid phase until the next `switch`.
        """
        if self.choice.kind != "as built":
            self.switch(NormChoice("plain"))
        measure_batch_norm(model, batches, norms=self.names, processes=self._processes)

    def state(self) -> dict[str, Tensor]:
        """The statistics of sub-BN, which are not in the model's state dict."""
        return split_statistics(self._model)

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Restore the sub-BN of a `state`."""
        load_split_statistics(self._model, state)
        for value in list(state.values())[:1]:
            self.choice = NormChoice("sub", value.shape[1])

    def _group(self, num: int) -> Any:
        """The group of ``num`` neighbouring processes that this process is in."""
        if num == self._processes.world_size:
            return None
        if num not in self._groups:
            self._groups[num], _ = dist.new_subgroups(group_size=num)
        return self._groups[num]


@torch.no_grad()
def measure_batch_norm(
    model: nn.Module, batches: Iterable[Tensor], *, norms: Collection[str], processes: Processes
) -> None:
    """Set the running statistics of the batch norms called ``norms`` from some batches.

    "Precise batch norm" (Wu & Johnson 2021, arXiv 2105.07576, section 3) replaces the running averages, which
    lag behind the weights. Here mean and variance are those of all values of all batches, not averages over
    batches.

    Each batch (B, 3, T, H, W) is normalised by its own statistics, as in training, without dropout and
    stochastic depth. Batches of all processes are included. Leaves the model in eval mode.
    """
    model.eval()
    measured = {name: module for name, module in model.named_modules() if name in set(norms)}
    moments = {name: _Moments() for name in measured}
    handles = [
        module.register_forward_pre_hook(_moments_hook(moments[name])) for name, module in measured.items()
    ]
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
    for index, module in enumerate(measured.values()):
        assert isinstance(module, _BatchNorm)
        total = _Moments()
        for part in parts:
            total.add(*part[index])
        _set_statistics(module, total)


def batch_norms(model: nn.Module) -> list[str]:
    """Names of the batch norms (1-D to 3-D) that keep running statistics and are not frozen."""
    frozen = {inner for module in frozen_modules(model) for inner in module.modules()}
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None and module not in frozen
    ]


class _Moments:
    """Count, mean and sum of squared deviations per channel, in float64."""

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


def _moments_hook(moments: _Moments) -> Any:
    def hook(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0]
        axes = [axis for axis in range(x.ndim) if axis != 1]
        var, mean = torch.var_mean(x if x.dtype == torch.float64 else x.float(), axes, correction=0)
        count = x.numel() // x.shape[1]
        moments.add(count, mean.double(), var.double() * count)

    return hook


def _set_statistics(norm: _BatchNorm, moments: _Moments) -> None:
    if not moments.count:
        return
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(moments.mean)
    norm.running_var.copy_(moments.squares / max(moments.count - 1, 1))
    if isinstance(norm, SubBatchNorm3d):
        norm.spread()


def _divisor(number: int, most: int) -> int:
    """The largest divisor of ``number`` up to ``most``."""
    return next(divisor for divisor in range(most, 0, -1) if number % divisor == 0)
