"""Attention: its definition, and the recording of its weights."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from saccade.errors import UsageError
from saccade.layers import Attention, RecordableAttention, record_attention


def by_hand(layer: Attention, x: Tensor) -> tuple[Tensor, Tensor]:
    """Output and weights, head by head, from the definition."""
    q, k, v = layer.qkv(x).chunk(3, -1)
    outputs, weights = [], []
    for head in zip(*(part.chunk(layer.num_heads, -1) for part in (q, k, v)), strict=True):
        scores = torch.einsum("bnd,bmd->bnm", head[0], head[1]) / math.sqrt(head[0].shape[-1])
        weights.append(scores.exp() / scores.exp().sum(-1, keepdim=True))
        outputs.append(weights[-1] @ head[2])
    return layer.proj(torch.cat(outputs, -1)), torch.stack(weights, 1)


@pytest.mark.parametrize(("tokens", "qkv_bias"), [(1, True), (7, True), (7, False)])
def test_definition_and_record(tokens: int, qkv_bias: bool) -> None:
    layer = Attention(12, 3, qkv_bias).double()
    x = torch.randn(2, tokens, 12, dtype=torch.float64)
    output, weights = by_hand(layer, x)
    torch.testing.assert_close(layer(x), output)
    with record_attention(layer) as records:
        assert layer.keep_weights
        assert not records
        torch.testing.assert_close(layer(x), output)
    assert not layer.keep_weights
    torch.testing.assert_close(records, {"": weights})
    assert not records[""].requires_grad


def test_bias_of_attend() -> None:
    layer = RecordableAttention()
    q, k, v = (torch.randn(2, 3, n, 4, dtype=torch.float64) for n in (5, 7, 7))
    bias = torch.randn(3, 5, 7, dtype=torch.float64)
    plain = layer.attend(q, k, v, bias=bias)
    with record_attention(layer) as records:
        torch.testing.assert_close(layer.attend(q, k, v, bias=bias), plain)
    torch.testing.assert_close(records[""] @ v, plain)


def test_records_are_named_and_end_with_the_block() -> None:
    model = nn.Sequential(Attention(4, 2), nn.Identity(), Attention(4, 1))
    x = torch.randn(1, 3, 4)
    with record_attention(model) as records:
        model(x)
    assert {name: tuple(weights.shape) for name, weights in records.items()} == {
        "0": (1, 2, 3, 3),
        "2": (1, 1, 3, 3),
    }
    kept = dict(records)
    model(torch.randn(1, 3, 4))
    assert records == kept
    with pytest.raises(RuntimeError), record_attention(model):
        model(torch.randn(1, 3, 5))
    assert not any(layer.keep_weights for layer in (model[0], model[2]))
    with pytest.raises(UsageError, match="Linear has no attention"), record_attention(nn.Linear(2, 2)):
        pass


@pytest.mark.parametrize("recorded", [False, True])
def test_dropout_only_while_training(recorded: bool) -> None:
    layer = Attention(8, 2, attn_dropout=0.5).double()
    x = torch.randn(4, 6, 8, dtype=torch.float64)
    expected = by_hand(layer.eval(), x)[0]
    if recorded:
        with record_attention(layer):
            torch.testing.assert_close(layer(x), expected)
            assert (layer.train()(x) - expected).abs().max() > 1e-3
    else:
        torch.testing.assert_close(layer(x), expected)
        assert (layer.train()(x) - expected).abs().max() > 1e-3


def test_heads_divide_the_width() -> None:
    with pytest.raises(ValueError, match="num_heads must divide dim, got 3 heads for 8"):
        Attention(8, 3)
