"""Activations computed again instead of kept (arXiv 1604.06174): same numbers, less memory."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor, nn

from saccade.layers import checkpoint_activations, split_batch_norm
from saccade.models import create_model
from saccade.models.base import VideoModel


def x3d() -> VideoModel:
    return create_model("x2d", 4, gamma_w=0.4, gamma_d=2, head_width=16, dropout=0.3, drop_path=0.4)


def vov3d() -> VideoModel:
    small = {"inner_channels": 4, "depths": (1, 1, 1, 1), "num_conv": 2, "head_width": 16}
    return create_model("vov3d_m", 4, dropout=0.3, drop_path=0.4, **small)


def rubiksnet() -> VideoModel:
    return create_model("rubiksnet_tiny", 4, width=8, depths=(1, 2, 1, 1), dropout=0.3, drop_path=0.4)


def split() -> VideoModel:
    return split_batch_norm(x3d(), 2)


def checkpointed(model: VideoModel) -> VideoModel:
    again = copy.deepcopy(model)
    for block in again.blocks():
        if any(block.children()):
            checkpoint_activations(block)
    return again


def step(model: nn.Module, x: Tensor) -> Tensor:
    """A loss and its gradients, with dropout and stochastic depth of seed 5."""
    torch.manual_seed(5)
    loss = nn.functional.cross_entropy(model.train()(x), torch.arange(len(x)) % 4)
    loss.backward()
    return loss.detach()


@contextmanager
def kept_bytes() -> Iterator[list[int]]:
    """How much the graph keeps for the backward pass, each piece of memory once."""
    seen: dict[int, int] = {}
    total: list[int] = []

    def pack(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        seen[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda value: value):
        yield total
    total.append(sum(seen.values()))


@pytest.mark.parametrize("make", [x3d, vov3d, rubiksnet, split], ids=lambda make: make.__name__)
def test_gradients_statistics_and_random_numbers_are_the_same(make: Callable[[], VideoModel]) -> None:
    torch.manual_seed(0)
    model = make()
    again = checkpointed(model)
    x = torch.randn(4, 3, 2, 32, 32)
    for _ in range(2):
        assert step(again, x).equal(step(model, x))
    following = torch.rand(1)
    step(model, x)
    assert torch.rand(1).equal(following)  # the generator stands where it would without
    step(again, x)
    for (name, p), (other, q) in zip(model.named_parameters(), again.named_parameters(), strict=True):
        assert name == other
        assert p.grad is not None
        assert q.grad is not None
        assert torch.equal(p.grad, q.grad), name
    state, other_state = model.state_dict(), again.state_dict()
    assert state.keys() == other_state.keys()
    assert all(value.equal(other_state[name]) for name, value in state.items())
    assert {int(v) for name, v in state.items() if name.endswith("num_batches_tracked")} == {3}


def test_the_graph_keeps_far_less() -> None:
    model = x3d()
    again = checkpointed(model)
    x = torch.randn(2, 3, 4, 64, 64)
    kept = []
    for one in (model, again):
        with kept_bytes() as total:
            one.train()(x)
        kept += total
    assert kept[1] < 0.35 * kept[0]


def test_copies_and_evaluation_are_those_of_the_block() -> None:
    model = x3d()
    again = checkpointed(model)
    twin = copy.deepcopy(again)
    nn.init.zeros_(twin.stem.conv_s.weight)
    x = torch.randn(2, 3, 2, 32, 32)
    assert again.eval()(x).equal(model.eval()(x))
    assert not twin.eval()(x).equal(model(x))  # its own weights, not those it was copied from
    assert isinstance(again.stem, type(model.stem))


def test_an_error_in_the_second_pass_leaves_the_statistics_in_place() -> None:
    class Fails(nn.Sequential):
        calls = 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            if self.calls == 2:
                raise RuntimeError("second pass")
            return super().forward(x)

    block = Fails(nn.Conv3d(3, 4, 1), nn.BatchNorm3d(4))
    norm = block[1]
    before = norm.running_mean
    checkpoint_activations(block)
    with pytest.raises(RuntimeError, match="second pass"):
        block(torch.randn(2, 3, 2, 4, 4)).sum().backward()
    assert norm.running_mean is before
    assert int(norm.num_batches_tracked) == 1
