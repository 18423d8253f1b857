"""Traced and exported models give the logits of eager mode, by PyTorch's own operators."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from saccade.models import create_model

MODELS: dict[str, dict[str, Any]] = {
    "x3d_xs": {"gamma_w": 0.5, "gamma_d": 1},
    "vov3d_m": {"inner_channels": 16, "depths": (1, 1, 1, 1), "num_conv": 2},
    "tsm_efficientnet_lite0": {"width": 0.25},
    "rubiksnet_tiny": {"depths": (1, 1, 1, 1), "width": 24},
}


@cache
def model_and_logits(name: str) -> tuple[nn.Module, Tensor, Tensor]:
    torch.manual_seed(0)
    model = create_model(name, num_classes=5, **MODELS[name]).eval()
    clips = torch.randn(2, 3, 4, 64, 64)
    with torch.no_grad():
        return model, clips, model(clips)


@pytest.mark.filterwarnings("ignore")  # tracing warns of every shape that is compared
@pytest.mark.parametrize("name", MODELS)
def test_traced(name: str) -> None:
    model, clips, logits = model_and_logits(name)
    with torch.no_grad():
        traced = torch.jit.trace(model, clips)
        torch.testing.assert_close(traced(clips), logits, rtol=1e-4, atol=1e-6)
    assert "saccade::" not in str(traced.inlined_graph)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "strict"), [*((name, False) for name in MODELS), ("rubiksnet_tiny", True)])
def test_exported(name: str, strict: bool) -> None:
    model, clips, logits = model_and_logits(name)
    with torch.no_grad():
        exported = torch.export.export(model, (clips,), strict=strict)
        torch.testing.assert_close(exported.module()(clips), logits, rtol=1e-4, atol=1e-6)
    assert not any("saccade" in str(node.target) for node in exported.graph.nodes)
