"""The batch norm of the present phase."""

from __future__ import annotations

from typing import Any

import torch.distributed as dist
from torch import nn

from saccade.layers import convert_sync_batchnorm, split_batch_norm
from saccade.training.distributed import Processes
from saccade.training.multigrid.plan import NormChoice


class NormSwitch:
    """Changes the batch norms of a model in place: parameters, optimiser and state dict stay what they are.

    All processes must ask for the same.
    """

    def __init__(self, model: nn.Module, processes: Processes) -> None:
        self._model, self._world_size = model, processes.world_size
        self._choice = NormChoice("as built")
        self._groups: dict[int, Any] = {}

    def __call__(self, choice: NormChoice) -> None:
        """Take batch statistics as ``choice`` says from now on."""
        if choice == self._choice or choice.kind in ("as built", "none"):
            return
        split_batch_norm(self._model, choice.num if choice.kind == "sub" else 1)
        if choice.kind == "sync":
            convert_sync_batchnorm(self._model, self._group(choice.num))
        self._choice = choice

    def _group(self, num: int) -> Any:
        """The ``num`` neighbouring processes that this one belongs to."""
        if num == self._world_size:
            return None
        if num not in self._groups:
            self._groups[num], _ = dist.new_subgroups(group_size=num)
        return self._groups[num]
