from __future__ import annotations

import pytest
import torch
from torch import nn

from saccade.layers import split_batch_norm
from saccade.models import create_model
from saccade.training.norms import batch_norms, measure_batch_norm
from saccade.training.optim import freeze
from saccade.training.processes import Processes

ALONE = Processes(0, 1, torch.device("cpu"))
SIZES = (6, 2, 4)


def clips(num: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 100 + torch.randn(num, 3, 2, 8, 8, generator=generator, dtype=torch.float64) * (1 + seed)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.BatchNorm3d(3), nn.Conv3d(3, 4, (1, 3, 3)), nn.Dropout(0.5), nn.BatchNorm3d(4), nn.ReLU()
    ).double()


@pytest.mark.parametrize("num_splits", [1, 2])
def test_statistics_are_those_of_all_values_together(num_splits: int):
    """Batches of several sizes: the first norm sees what it would see in one batch of all clips."""
    batches = [clips(num, seed) for seed, num in enumerate(SIZES)]
    model = split_batch_norm(network(), num_splits)
    measure_batch_norm(model, batches, norms=batch_norms(model), processes=ALONE)
    joined = torch.cat(batches)
    torch.testing.assert_close(model[0].running_mean, joined.mean((0, 2, 3, 4)))
    torch.testing.assert_close(model[0].running_var, joined.var((0, 2, 3, 4)))
    assert not model.training
    if num_splits > 1:
        torch.testing.assert_close(model[0].split_var, model[0].running_var.expand(2, -1))
        model.train()
        assert model.eval()[0].running_var.equal(model.state_dict()["0.running_var"])


def test_of_one_batch_they_are_those_of_plain_training_without_dropout():
    model, plain = network(), network()
    measure_batch_norm(model, [clips(6)], norms=batch_norms(model), processes=ALONE)
    plain[0].momentum = plain[3].momentum = 1.0
    plain.train()[2].eval()
    plain(clips(6))
    for place in (0, 3):
        torch.testing.assert_close(model[place].running_mean, plain[place].running_mean)
        torch.testing.assert_close(model[place].running_var, plain[place].running_var)


def test_norms_that_do_not_learn_keep_their_statistics():
    model = create_model("x2d", 2, gamma_w=0.3, head_width=16)
    freeze(model, 2)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    measure_batch_norm(model, [torch.randn(2, 3, 1, 32, 32)], norms=batch_norms(model), processes=ALONE)
    changed = {
        key.partition(".")[0] for key, value in model.state_dict().items() if not value.equal(before[key])
    }
    assert changed == {"res3", "res4", "res5", "head"}


def test_norms_without_weights_are_measured_unless_their_stage_is_frozen():
    model = nn.Sequential(
        nn.Sequential(nn.Conv3d(3, 3, 1), nn.BatchNorm3d(3, affine=False)),
        nn.BatchNorm3d(3, affine=False),
        nn.Conv3d(3, 3, 1),
    )
    assert batch_norms(model) == ["0.1", "1"]
    model[0].requires_grad_(False)
    assert batch_norms(model) == ["1"]
    measure_batch_norm(model, [torch.randn(4, 3, 2, 8, 8)], norms=batch_norms(model), processes=ALONE)
    assert model[0][1].running_mean.equal(torch.zeros(3))
    assert model[1].running_mean.ne(0).all()
