"""The temporal shift against TSM's definition, its blend, its causal form and its learnable form."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from saccade.layers import LearnableTemporalShift, TemporalShift

LAYOUTS = [torch.contiguous_format, torch.channels_last_3d]


def published(x: Tensor, fold: int) -> Tensor:
    """The shift as TSM's paper and README define it, in (B, C, T, H, W)."""
    out = torch.zeros_like(x)
    out[:, :fold, :-1] = x[:, :fold, 1:]
    out[:, fold : 2 * fold, 1:] = x[:, fold : 2 * fold, :-1]
    out[:, 2 * fold :] = x[:, 2 * fold :]
    return out


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
@pytest.mark.parametrize(
    ("channels", "fold", "frames"), [(16, 2, 8), (9, 4, 3), (5, 0, 4), (8, 1, 2), (8, 1, 1)]
)
def test_it_is_the_published_shift(
    channels: int, fold: int, frames: int, layout: torch.memory_format
) -> None:
    x = torch.randn(2, channels, frames, 3, 5).to(memory_format=layout).requires_grad_()
    layer = TemporalShift(channels, fold)
    y = layer(x)
    assert torch.equal(y, published(x, fold))
    assert frames == 1 or y.is_contiguous(memory_format=layout)
    weight = torch.randn_like(y)
    (grad,) = torch.autograd.grad((y * weight).sum(), x)
    (wanted,) = torch.autograd.grad((published(x, fold) * weight).sum(), x)
    assert torch.equal(grad, wanted)
    assert not layer.state_dict()


def test_causal_takes_the_previous_frame() -> None:
    """As in TSM's online demo: the first channels of a frame are those of the frame before."""
    x = torch.randn(2, 16, 5, 2, 2)
    y = TemporalShift(16, 2, causal=True)(x)
    assert torch.equal(y[:, :2, 1:], x[:, :2, :-1])
    assert not y[:, :2, 0].any()
    assert torch.equal(y[:, 2:], x[:, 2:])


@pytest.mark.parametrize("causal", [False, True])
def test_blend_goes_from_nothing_to_the_exact_shift(causal: bool) -> None:
    x = 100 * torch.randn(2, 16, 5, 3, 3)
    layer, exact = TemporalShift(16, 2, causal=causal, blended=True), TemporalShift(16, 2, causal=causal)
    assert list(layer.state_dict()) == ["blend"]
    assert torch.equal(layer(x), x)
    layer.blend.fill_(0.25)
    torch.testing.assert_close(layer(x), 0.75 * x + 0.25 * exact(x))
    layer.blend.fill_(1.0)
    assert torch.equal(layer(x), exact(x))
    assert torch.equal(layer(x.bfloat16()), exact(x.bfloat16()))


@pytest.mark.parametrize("in_space", [False, True])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("fold", [0, 2])
def test_learnable_shift_begins_as_the_fixed_one(fold: int, causal: bool, in_space: bool) -> None:
    x = torch.randn(2, 16, 5, 4, 4)
    layer = LearnableTemporalShift(16, fold, in_space=in_space, causal=causal)
    torch.testing.assert_close(layer(x), TemporalShift(16, fold, causal=causal)(x), rtol=0, atol=0)
    layer(x).square().sum().backward()
    assert layer.shift.grad.shape == (3 if in_space else 1, 16)
    lengths = layer.shift.grad.norm(dim=0)
    assert torch.allclose(lengths[lengths > 0], torch.ones(()))
    assert lengths.any()


def test_learnable_causal_shift_never_reads_a_later_frame() -> None:
    layer = LearnableTemporalShift(8, 1, causal=True)
    with torch.no_grad():
        layer.shift.uniform_(-2, 2)
    x = torch.randn(1, 8, 6, 2, 2)
    changed = x.clone()
    changed[:, :, 4:] += 1
    assert torch.equal(layer(x)[:, :, :4], layer(changed)[:, :, :4])
