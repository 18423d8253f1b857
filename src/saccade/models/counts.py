"""Counting parameters and multiply-adds."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.func import functional_call
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
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            functional_call(model, meta, (torch.empty(tuple(shape), device="meta", dtype=dtype),))
    finally:
        for module, training in modes.items():
            module.training = training
    return counter.get_total_flops() // 2
