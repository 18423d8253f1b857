"""Activation checkpointing: blocks recompute their activations in the backward pass.

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
    """Make ``block`` save only its input in training and recompute its activations for the gradients.

    Output, gradients, random numbers and running statistics do not change: dropout and stochastic depth draw
    the same numbers in the recomputation, and batch norm counts a batch once. The class of the block is
    replaced by a subclass; parameters, buffers and their names do not change.
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
                return nullcontext(), _frozen_statistics(self)

            return checkpoint(super().forward, *args, use_reentrant=False, context_fn=contexts)

    Checkpointed.__name__ = Checkpointed.__qualname__ = f"Checkpointed{kind.__name__}"
    return Checkpointed


@contextmanager
def _frozen_statistics(block: nn.Module) -> Iterator[None]:
    """Let the batch norms of ``block`` update copies of their running statistics.

    The original tensors are not modified: the graph of the first pass may hold them.
    """
    saved: list[tuple[nn.Module, dict[str, Tensor | None]]] = []
    for module in block.modules():
        if isinstance(module, _NormBase):
            saved.append((module, dict(module._buffers)))
            for name, value in module._buffers.items():
                module._buffers[name] = None if value is None else value.clone()
    try:
        yield
    finally:
        for module, buffers in saved:
            module._buffers.update(buffers)
