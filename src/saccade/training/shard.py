"""Sharding weights, gradients and optimiser state over the processes (FSDP2).

Zhao et al. 2023, "PyTorch FSDP", arXiv 2304.11277; `torch.distributed.fsdp.fully_shard`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from saccade.errors import ConfigError
from saccade.models import contract
from saccade.training.processes import Processes


class Shards:
    """Shards a model and its moving average, and has a full copy for validation.

    Each process stores a shard of every weight. The weights of a block are gathered for its computation;
    gradients are averaged over the processes. Buffers are not sharded; those of rank 0 are used, as in DDP.
    Checkpoints have full tensors, so they do not depend on the number of processes. All processes must call
    each method together.

    Raises:
        ConfigError: the model has no blocks, or changes weights outside of its forward pass.
    """

    def __init__(self, model: nn.Module, average: nn.Module | None, processes: Processes) -> None:
        if not contract.blocks(model):
            raise ConfigError(f"shard: {contract.model_name(model)} has no method blocks(); turn it off")
        if not contract.in_final_form(model):
            raise ConfigError(
                f"shard: {contract.model_name(model)} changes weights by a schedule, outside of its forward "
                "pass; turn it off"
            )
        self._device = processes.device
        self._full_model = copy.deepcopy(model).cpu()
        mesh = init_device_mesh(processes.device.type, (processes.world_size,))
        for module in (model, average):
            if module is not None:
                _shard_model(module, mesh)
        self._model, self._average = cast(FSDPModule, model), average

    def set_gradient_sync(self, enabled: bool) -> None:
        """Whether the next backward pass averages the gradients over the processes."""
        self._model.set_requires_gradient_sync(enabled)

    def refresh(self) -> None:
        """Copy the current weights (of the average if there is one) to the full copy."""
        tested = self._average or cast(nn.Module, self._model)
        self._full_model.load_state_dict(gathered(tested.state_dict()))

    @property
    def full_model(self) -> nn.Module:
        """The full copy as of the last `refresh`, on the device of this process."""
        return self._full_model.to(self._device)

    def offload(self) -> None:
        """Move the full copy to the CPU."""
        self._full_model.cpu()

    def gathered(self, state: dict[str, Any]) -> dict[str, Any]:
        """A training state with full tensors instead of shards."""
        full: dict[str, Any] = gathered(state)
        return full

    def scattered(self, state: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
        """A training state with shards instead of full tensors."""
        parts = {
            "model": _like(state["model"], cast(nn.Module, self._model)),
            "optimizer": _optimizer_like(state["optimizer"], optimizer),
        }
        if self._average is not None:
            average = state["average"]
            parts["average"] = {**average, "model": _like(average["model"], self._average)}
        return {**state, **parts}


def gathered(state: Any) -> Any:
    """``state`` (nested dictionaries and lists) with full tensors instead of sharded ones."""
    if isinstance(state, DTensor):
        return state.full_tensor()
    if isinstance(state, Mapping):
        return {key: gathered(value) for key, value in state.items()}
    if isinstance(state, list):
        return [gathered(value) for value in state]
    return state


def _shard_model(model: nn.Module, mesh: DeviceMesh) -> None:
    for parameter in model.parameters():  # fully_shard needs contiguous tensors
        parameter.data = parameter.data.contiguous()
    for block in contract.blocks(model):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def _like(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    targets = model.state_dict()
    return {name: _shard(value, targets.get(name)) for name, value in state.items()}


def _optimizer_like(state: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """The state of an optimiser with its tensors sharded like the parameters."""
    updated = [p for group in optimizer.param_groups for p in group["params"]]
    moments = {
        index: {
            name: _shard(value, updated[index] if value.shape == updated[index].shape else None)
            for name, value in entries.items()
        }
        for index, entries in state["state"].items()
    }
    return {**state, "state": moments}


def _shard(value: Tensor, target: Tensor | None) -> Tensor:
    if not isinstance(target, DTensor):
        return value
    # every process has the full tensor, so no communication is needed
    local = value.to(target.device)
    return distribute_tensor(local, target.device_mesh, target.placements, src_data_rank=None)
