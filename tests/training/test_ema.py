from __future__ import annotations

import torch
from torch import nn

from saccade.training.ema import WeightAverage


def model(value: float) -> nn.Module:
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    for tensor in net.state_dict().values():
        tensor.fill_(value)
    return net


def test_weights_and_running_statistics_follow_with_a_growing_decay():
    average = WeightAverage(model(0.0), decay=0.5)
    expected = 0.0
    for update, decay in enumerate((1 / 10, 2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15, 7 / 16, 8 / 17, 0.5)):
        value = float(update + 1)
        average.update(model(value))
        expected = decay * expected + (1 - decay) * value
    state = average.model.state_dict()
    for name in ("0.weight", "1.weight", "1.running_mean", "1.running_var"):
        torch.testing.assert_close(state[name], torch.full_like(state[name], expected))
    assert int(state["1.num_batches_tracked"]) == 9


def test_the_average_is_apart_from_the_model_and_restores():
    net = model(1.0)
    average = WeightAverage(net, decay=0.9)
    average.update(model(3.0))
    assert net[0].weight[0, 0].item() == 1.0
    assert not average.model.training
    assert not any(parameter.requires_grad for parameter in average.model.parameters())
    restored = WeightAverage(model(7.0), decay=0.9)
    restored.load_state_dict(average.state_dict())
    for one in (average, restored):
        one.update(model(5.0))
    for a, b in zip(average.model.parameters(), restored.model.parameters(), strict=True):
        assert a.equal(b)


def test_a_large_batch_counts_as_many_updates():
    one, many = (WeightAverage(model(1.0), decay=0.9) for _ in range(2))
    for average in (one, many):
        for _ in range(200):  # past the growth of the decay
            average.update(model(0.5))
    for _ in range(8):
        one.update(model(4.0))
    many.update(model(4.0), num_updates=8)
    for a, b in zip(one.model.parameters(), many.model.parameters(), strict=True):
        torch.testing.assert_close(a, b)
    assert one.state_dict()["num_updates"] == many.state_dict()["num_updates"] == 208
