"""The depthwise convolution under bfloat16, where PyTorch's own CPU backward reads unwritten memory."""

from __future__ import annotations

import pytest
import torch

from saccade.models import create_model


def fill_free_memory_with_nan() -> None:
    sizes = [2**power + more for power in range(4, 18) for more in (0, 7, 100)]
    blocks = [torch.full((size,), float("nan")) for size in sizes for _ in range(8)]
    del blocks


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d])
@pytest.mark.parametrize("seed", range(3))
def test_bfloat16_gradients_come_from_what_was_computed(memory_format: torch.memory_format, seed: int):
    torch.manual_seed(seed)
    model = create_model("x2d", 2, gamma_w=0.3, head_width=16, gamma_t=2, gamma_s=32 / 112)
    model = model.to(memory_format=memory_format)
    clips = torch.randn(4, 3, 2, 32, 32).contiguous(memory_format=memory_format)
    fill_free_memory_with_nan()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(clips)
    fill_free_memory_with_nan()
    torch.nn.functional.cross_entropy(logits.float(), torch.tensor([0, 1, 0, 1])).backward()
    spoilt = [name for name, value in model.named_parameters() if not value.grad.isfinite().all()]
    assert not spoilt
