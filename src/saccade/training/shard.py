"""Weights, gradients and optimiser state sharded over the processes (FSDP2), and gathered again.

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
    """Shards a model, and its average, and keeps a full copy to test with.

    Each process keeps a part of every weight. Those of a block are gathered while it computes; gradients are
    averaged over the processes, as in DDP. Buffers are not sharded; those of rank 0 count, as in DDP. A
    checkpoint is gathered into plain tensors, so that it does not depend on the number of processes.
    All processes must call each method together.

    Raises:
        ConfigError: the model changes weights outside of its forward pass.
    """

    def __init__(self, model: nn.Module, average: nn.Module | None, processes: Processes) -> None:
        if not contract.blocks(model):
            raise ConfigError(f"shard: {contract.model_name(model)} has no method blocks(); leave it off")
        if not contract.in_final_form(model):
            raise ConfigError(
                f"shard: {contract.model_name(model)} changes weights by a schedule, outside of its forward "
                "pass; leave it off"
            )
        self._device = processes.device
        self._full_model = copy.deepcopy(model).cpu()
        mesh = init_device_mesh(processes.device.type, (processes.world_size,))
        for one in (model, average):
            if one is not None:
                _shard_model(one, mesh)
        self._model, self._average = cast(FSDPModule, model), average

    def set_gradient_sync(self, now: bool) -> None:
        """Whether the next backward pass averages the gradients over the processes or only adds to them."""
        self._model.set_requires_gradient_sync(now)

    def refresh(self) -> None:
        """Give the full copy the present weights, those of the average if there is one."""
        tested = self._average or cast(nn.Module, self._model)
        self._full_model.load_state_dict(gathered(tested.state_dict()))

    @property
    def full_model(self) -> nn.Module:
        """The full copy, on the device of this process, as of the last `refresh`."""
        return self._full_model.to(self._device)

    def offload(self) -> None:
        """Move the full copy to the CPU."""
        self._full_model.cpu()

    def gathered(self, state: dict[str, Any]) -> dict[str, Any]:
        """A training state with full tensors in place of shards."""
        full: dict[str, Any] = gathered(state)
        return full

    def scattered(self, state: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
        """A training state of full tensors, sharded as the weights are."""
        parts = {
            "model": _like(state["model"], cast(nn.Module, self._model)),
            "optimizer": _optimizer_like(state["optimizer"], optimizer),
        }
        if self._average is not None:
            average = state["average"]
            parts["average"] = {**average, "model": _like(average["model"], self._average)}
        return {**state, **parts}


def gathered(state: Any) -> Any:
    """``state``, nested dictionaries and lists, with a full tensor in place of every sharded one."""
    if isinstance(state, DTensor):
        return state.full_tensor()
    if isinstance(state, Mapping):
        return {key: gathered(value) for key, value in state.items()}
    if isinstance(state, list):
        return [gathered(value) for value in state]
    return state


def _shard_model(model: nn.Module, mesh: DeviceMesh) -> None:
    for parameter in model.parameters():  # only the contiguous layout can be sharded
        parameter.data = parameter.data.contiguous()
    for block in contract.blocks(model):
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)


def _like(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    targets = model.state_dict()
    return {name: _shard(value, targets.get(name)) for name, value in state.items()}


def _optimizer_like(state: dict[str, Any], optimizer: Optimizer) -> dict[str, Any]:
    """An optimiser's state, sharded as the weights that it updates; numbers stay."""
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
    # every process has the full tensor, so none needs to send anything
    here = value.to(target.device)
    return distribute_tensor(here, target.device_mesh, target.placements, src_data_rank=None)
