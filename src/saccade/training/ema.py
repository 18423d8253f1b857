"""An exponential moving average of a model's weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from saccade.models import contract


class WeightAverage:
    """Exponential moving average of the weights of a model.

    Floating-point buffers (the running statistics of batch norm) are averaged with the same decay as the
    weights. Counters, and the names in the model's ``not_averaged()``, are copied. The decay grows with the
    number of updates n as (1 + n) / (10 + n), up to ``decay``, so that the initial weights do not dominate
    short runs.

    Attributes:
        model: the averaged model, in eval mode, without gradients.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0.0
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, num_updates: float = 1) -> None:
        """Update the average with the current weights of ``model``, as ``num_updates`` updates would.

        A step with a batch k times as large counts as k updates (Busbridge et al. 2023, arXiv 2307.13813).
        """
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates)) ** num_updates
        self.num_updates += num_updates
        copied = contract.not_averaged(model)
        averages: list[Tensor] = []
        values: list[Tensor] = []
        current = model.state_dict()
        for name, average in self.model.state_dict().items():
            if average.is_floating_point() and name not in copied:
                averages.append(_local(average))
                values.append(_local(current[name]))
            else:
                average.copy_(current[name])
        torch._foreach_lerp_(averages, values, 1 - decay)

    def state_dict(self) -> dict[str, object]:
        """The state for `load_state_dict`."""
        return {"num_updates": self.num_updates, "model": self.model.state_dict()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Restore a `state_dict`."""
        self.num_updates = float(state["num_updates"])  # type: ignore[arg-type]
        self.model.load_state_dict(state["model"])  # type: ignore[arg-type]


def _local(value: Tensor) -> Tensor:
    """The local part of a sharded tensor; other tensors unchanged."""
    # no isinstance: importing DTensor is slow
    local: Tensor = value.to_local() if hasattr(value, "to_local") else value
    return local
