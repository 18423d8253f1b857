"""Blocks that forget what they computed and compute it again for the backward pass.

Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils.checkpoint import checkpoint


def checkpoint_activations(block: nn.Module) -> None:
    """Let ``block`` keep only its input while it trains; what else its gradients need is computed again.

    Output, gradients, random numbers and running statistics are those of the block as it was: dropout and
    stochastic depth draw the same the second time, and batch norm counts a batch once. Its class becomes a
    subclass of its own; parameters, buffers and their names stay.
    """
    kind = type(block)
    if kind not in _CHECKPOINTED:
        _CHECKPOINTED[kind] = _checkpointed(kind)
    block.__class__ = _CHECKPOINTED[kind]


_CHECKPOINTED: dict[type[nn.Module], type[nn.Module]] = {}


def _checkpointed(kind: type[nn.Module]) -> type[nn.Module]:
    class Checkpointed(kind):  # type: ignore[misc, valid-type]
        def forward(self, *args: Any) -> Any:
            if not (self.training and torch.is_grad_enabled()):
                return super().forward(*args)

            def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
                return nullcontext(), _statistics_kept(self)

            return checkpoint(super().forward, *args, use_reentrant=False, context_fn=contexts)

    Checkpointed.__name__ = Checkpointed.__qualname__ = f"Checkpointed{kind.__name__}"
    return Checkpointed


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """Let the batch norms of ``block`` move copies of their statistics.

    The statistics themselves are not touched: the graph of the first pass may hold them.
    """
    kept: list[tuple[nn.Module, dict[str, Tensor | None]]] = []
    for module in block.modules():
        if isinstance(module, _NormBase):
            kept.append((module, dict(module._buffers)))
            for name, value in module._buffers.items():
                module._buffers[name] = None if value is None else value.clone()
    try:
        yield
    finally:
        for module, buffers in kept:
            module._buffers.update(buffers)
