"""An exponential moving average of a model's weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from saccade.models import contract


class WeightAverage:
    """A second copy of a model whose weights follow the first one's slowly.

    Floating-point buffers (the running statistics of batch norm) are averaged with the same decay, so that
    they belong to the averaged weights; counters, and what the model names in ``not_averaged()``, are copied.
    The decay grows from 0.1 as (1 + n) / (10 + n) with the number of updates n, up to ``decay``, so that the
    initial weights do not dominate short runs.

    Attributes:
        model: the averaged copy, in eval mode, without gradients.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.num_updates = 0.0
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, num_updates: float = 1) -> None:
        """Move towards the present weights of ``model``, as far as ``num_updates`` times would.

        A step of a batch k times as large counts as k updates (Busbridge et al. 2023, arXiv 2307.13813).
        """
        decay = min(self.decay, (1 + self.num_updates) / (10 + self.num_updates)) ** num_updates
        self.num_updates += num_updates
        copied = contract.not_averaged(model)
        averages: list[Tensor] = []
        values: list[Tensor] = []
        present = model.state_dict()
        for name, average in self.model.state_dict().items():
            if average.is_floating_point() and name not in copied:
                averages.append(_local(average))
                values.append(_local(present[name]))
            else:
                average.copy_(present[name])
        torch._foreach_lerp_(averages, values, 1 - decay)

    def state_dict(self) -> dict[str, object]:
        """What `load_state_dict` takes."""
        return {"num_updates": self.num_updates, "model": self.model.state_dict()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        """Go on from what `state_dict` gave."""
        self.num_updates = float(state["num_updates"])  # type: ignore[arg-type]
        self.model.load_state_dict(state["model"])  # type: ignore[arg-type]


def _local(value: Tensor) -> Tensor:
    """The local part of a sharded tensor; any other as it is."""
    # not asked by class, which would import what only sharded runs need
    local: Tensor = value.to_local() if hasattr(value, "to_local") else value
    return local
