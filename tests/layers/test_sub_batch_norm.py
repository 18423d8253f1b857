from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from saccade.layers import (
    DropPath,
    SqueezeExcite,
    SubBatchNorm3d,
    SyncBatchNorm3d,
    convert_sync_batchnorm,
    load_split_statistics,
    norm_act,
    split_batch_norm,
    split_statistics,
)
from saccade.models import create_model, load_weights
from saccade.training.optim import parameter_groups

CHANNELS = 5


def filled(norm: nn.BatchNorm3d) -> nn.BatchNorm3d:
    with torch.no_grad():
        norm.weight.copy_(torch.linspace(0.5, 1.5, CHANNELS))
        norm.bias.copy_(torch.linspace(-1, 1, CHANNELS))
    return norm


def clips(num: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 + torch.randn(num, CHANNELS, 2, 3, 4, generator=generator, dtype=torch.float64)


def sub_norm(num_splits: int, **options: Any) -> SubBatchNorm3d:
    norm = filled(SubBatchNorm3d(CHANNELS, num_splits, dtype=torch.float64, **options))
    assert isinstance(norm, SubBatchNorm3d)
    return norm


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d], ids=str)
def test_each_split_is_a_batch_norm_of_its_clips(layout: torch.memory_format):
    """Clip j is in split j mod 3; three plain norms with shared weights give the same, gradients included."""
    sub = sub_norm(3)
    plain = [filled(nn.BatchNorm3d(CHANNELS).double()) for _ in range(3)]
    for seed in (0, 1):
        x, r = clips(12, seed).contiguous(memory_format=layout).requires_grad_(), clips(12, 9)
        y = sub(x)
        apart = [norm(part) for norm, part in zip(plain, (x[j::3] for j in range(3)), strict=True)]
        together = torch.stack(apart, dim=1).flatten(0, 1)
        torch.testing.assert_close(y, together)
        wanted = torch.autograd.grad((together * r).sum(), [x])
        got = torch.autograd.grad((y * r).sum(), [x, sub.weight, sub.bias])
        torch.testing.assert_close(got[0], wanted[0])
    gradients = [torch.autograd.grad((norm(x[j::3]) * r[j::3]).sum(), [norm.weight, norm.bias])
                 for j, norm in enumerate(copy.deepcopy(plain))]  # fmt: skip
    for place in (0, 1):
        torch.testing.assert_close(got[1 + place], sum(pair[place] for pair in gradients))
    torch.testing.assert_close(sub.split_mean, torch.stack([norm.running_mean for norm in plain]))
    torch.testing.assert_close(sub.split_var, torch.stack([norm.running_var for norm in plain]))
    assert int(sub.num_batches_tracked) == 2


def test_evaluation_normalises_by_the_aggregate():
    sub = sub_norm(4)
    for seed in range(3):
        sub(clips(8, seed))
    mean = sub.split_mean.mean(0)
    var = sub.split_var.mean(0) + sub.split_mean.var(0, correction=0)
    x = clips(3, 7)
    plain = filled(nn.BatchNorm3d(CHANNELS).double()).eval()
    plain.running_mean.copy_(mean)
    plain.running_var.copy_(var)
    torch.testing.assert_close(sub.eval()(x), plain(x))


def test_the_state_dict_is_that_of_a_batch_norm():
    sub = nn.Sequential(sub_norm(2))
    sub(clips(8))
    state = sub.state_dict()
    plain = nn.Sequential(nn.BatchNorm3d(CHANNELS).double())
    assert state.keys() == plain.state_dict().keys()
    plain.load_state_dict(state)
    for num_splits in (1, 2, 4):
        other = split_batch_norm(nn.Sequential(nn.BatchNorm3d(CHANNELS).double()), num_splits)
        other.load_state_dict(plain.state_dict())
        x = clips(3, 5)
        expected = copy.deepcopy(sub).eval()(x)
        torch.testing.assert_close(copy.deepcopy(other).eval()(x), expected)
        torch.testing.assert_close(plain.eval()(x), expected)
        other(clips(8, 1))  # trains on from there: the splits began with what was loaded
        want = 0.9 * state["0.running_mean"] + 0.1 * clips(8, 1).mean((0, 2, 3, 4))
        torch.testing.assert_close(other.state_dict()["0.running_mean"], want)


def test_changing_the_splits_keeps_the_very_parameters_and_the_aggregate():
    model = nn.Sequential(nn.Conv3d(CHANNELS, CHANNELS, 1), nn.Sequential(nn.BatchNorm3d(CHANNELS))).double()
    before = dict(model.named_parameters())
    order: list[type] = []
    for step, num_splits in enumerate((4, 2, 1, 4, 4)):
        state = copy.deepcopy(model.state_dict())
        assert split_batch_norm(model, num_splits) is model
        for key, value in model.state_dict().items():
            assert value.equal(state[key])
        model(clips(8, step))
        order.append(type(model[1][0]))
    assert order == [SubBatchNorm3d, SubBatchNorm3d, nn.BatchNorm3d, SubBatchNorm3d, SubBatchNorm3d]
    assert all(parameter is before[name] for name, parameter in model.named_parameters())
    convert_sync_batchnorm(split_batch_norm(model, 1))
    assert isinstance(model[1][0], SyncBatchNorm3d)
    assert isinstance(split_batch_norm(model, 2)[1][0], SubBatchNorm3d)
    assert model.eval()[1][0].training is False
    assert split_batch_norm(model, 3)[1][0].training is False
    assert all(parameter is before[name] for name, parameter in model.named_parameters())


def test_split_statistics_go_on_exactly_where_they_were():
    model = split_batch_norm(nn.Sequential(nn.BatchNorm3d(CHANNELS)), 4).double()
    model(clips(8))
    other = nn.Sequential(nn.BatchNorm3d(CHANNELS)).double()
    other.load_state_dict(model.state_dict())
    load_split_statistics(other, split_statistics(model))
    for each in (model, other):
        each(clips(8, 1))
    assert all(value.equal(other.state_dict()[key]) for key, value in model.state_dict().items())
    assert split_statistics(model)["0"].equal(split_statistics(other)["0"])
    plain = nn.Sequential(nn.BatchNorm3d(CHANNELS))
    load_split_statistics(plain, split_statistics(plain))
    assert type(plain[0]) is nn.BatchNorm3d


@pytest.mark.parametrize("num", [1, 3, 7])
def test_a_batch_that_cannot_be_split_is_normalised_as_a_whole(num: int):
    sub, plain = sub_norm(4), filled(nn.BatchNorm3d(CHANNELS).double())
    torch.testing.assert_close(sub(clips(num)), plain(clips(num)))
    torch.testing.assert_close(sub.split_var, plain.running_var.expand(4, -1))
    torch.testing.assert_close(sub.eval()(clips(2)), plain.eval()(clips(2)))
    with pytest.raises(ValueError, match="at least 1"):
        SubBatchNorm3d(CHANNELS, 0)


@pytest.mark.parametrize("num", [8, 6])
def test_norm_act_fuses_it_with_what_follows(num: int):
    """Also where it cannot (6 clips, 4 splits), with the same result as one module after the other."""
    torch.manual_seed(0)
    excite = SqueezeExcite(CHANNELS, 3).double()
    x, residual = clips(num), clips(num, 1)
    norms = [sub_norm(4) for _ in range(2)]
    got = norm_act(x, norms[0], "silu", squeeze_excite=excite, drop_path=DropPath(0.0), residual=residual)
    wanted = nn.functional.silu(residual + excite(norms[1](x)))
    torch.testing.assert_close(got, wanted)
    torch.testing.assert_close(norms[0].split_mean, norms[1].split_mean)
    assert norms[0].num_batches_tracked.equal(norms[1].num_batches_tracked)
    evaluated = norm_act(x, norms[0].eval(), "relu")
    torch.testing.assert_close(evaluated, norms[1].eval()(x).relu())


def test_a_whole_model_trains_saves_and_takes_weights():
    model = create_model("x2d", 3, gamma_w=0.3, head_width=16)
    split_batch_norm(model, 2)
    norms = [module for module in model.modules() if isinstance(module, SubBatchNorm3d)]
    assert len(norms) == sum(".running_mean" in key for key in model.state_dict())
    decayed = {
        id(p) for g in parameter_groups(model, weight_decay=0.1) if g["weight_decay"] for p in g["params"]
    }
    assert not any(id(p) in decayed for norm in norms for p in norm.parameters())
    model(torch.randn(4, 3, 1, 32, 32)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    plain = create_model("x2d", 3, gamma_w=0.3, head_width=16)
    load_weights(plain, model.state_dict())
    x = torch.randn(1, 3, 1, 32, 32)
    torch.testing.assert_close(plain.eval()(x), model.eval()(x))
    # weights loaded into a split model reach its splits
    load_weights(model.train(), create_model("x2d", 3, gamma_w=0.3, head_width=16).state_dict())
    assert all(norm.split_var.eq(1).all() for norm in norms)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        return norm_act(x, self.norm, "relu", residual=x)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's own, as it loads its compiler
def test_a_compiled_network_follows_the_splits():
    """One whole graph for each number of splits, and used again when that number comes back."""
    graphs = 0

    def count(module: Any, _: Any) -> Any:
        nonlocal graphs
        graphs += 1
        return module.forward

    plain, model = Block().double(), Block().double()
    compiled = torch.compile(model, backend=count, fullgraph=True, dynamic=False)
    for seed, num_splits in enumerate((4, 2, 1, 4)):
        for each in (plain, model):
            split_batch_norm(each, num_splits)
        x = clips(8, seed)
        torch.testing.assert_close(compiled(x), plain(x))
    assert graphs == 3
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, plain.state_dict()[key])
    torch.compiler.reset()
