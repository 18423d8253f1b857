"""Counting parameters and multiply-adds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn
from torch.func import functional_call
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode


def count_params(model: nn.Module) -> int:
    """Number of parameters, trainable or not."""
    return sum(p.numel() for p in model.parameters())


def count_macs(model: nn.Module, shape: Sequence[int]) -> int:
    """Multiply-adds of one forward pass in eval mode on an input of ``shape``, batch included.

    Convolutions, linear layers and attention are counted, as `torch.utils.flop_counter` sees them; norms,
    activations and pooling are not. It runs on the meta device: nothing is computed and the model is not
    changed. GMACs are this number / 10⁹; FLOPs are twice as many.
    """
    meta = {
        name: tensor.to("meta")
        for tensors in (model.named_parameters(), model.named_buffers())
        for name, tensor in tensors
    }
    dtype = next((p.dtype for p in model.parameters()), torch.float32)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad(), _ShapesOnly(), FlopCounterMode(display=False) as counter:
            functional_call(model, meta, (torch.empty(tuple(shape), device="meta", dtype=dtype),))
    finally:
        for module, training in modes.items():
            module.training = training
    return counter.get_total_flops() // 2


_NORMS = {
    torch.ops.aten._native_batch_norm_legit_no_training.default,
    torch.ops.aten.native_layer_norm.default,
}
_ACTIVATIONS = {
    getattr(torch.ops.aten, name).default for name in ("relu", "silu", "sigmoid", "gelu", "hardswish")
}


class _ShapesOnly(TorchDispatchMode):
    """Gives what is not counted its shape at once: PyTorch's meta norms take most of the time of a count."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in _ACTIVATIONS:
            return torch.empty_like(args[0])
        if func in _NORMS:
            return torch.empty_like(args[0]), args[0].new_empty(0), args[0].new_empty(0)
        return func(*args, **(kwargs or {}))
