"""Costs of networks."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn

from saccade.expansion.config import Factors
from saccade.expansion.counting import Meter, clip_shape, peak_memory, x3d_macs
from saccade.models import count_macs, count_params
from saccade.models.x3d import CONFIGS, X3D

SMALL = Factors(crop=32, width=0.35)


def build(factors: Factors) -> X3D:
    return X3D(factors.config, 7)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("x2d", {}),
        ("x3d_xs", {"localization": True}),
        ("x2d", {"se_ratio": 0.0, "gamma_w": 0.55, "gamma_s": 104 / 112, "gamma_d": 1.3, "gamma_t": 3}),
        ("x2d", {"gamma_b": 0.7, "gamma_s": 38 / 112, "head_width": 64}),
    ],
)
def test_the_formula_equals_the_count(name: str, changes: dict[str, Any]):
    config = replace(CONFIGS[name], **changes)
    with torch.device("meta"):
        model = X3D(config, 7)
    shape = (1, 3, config.num_frames, config.train_crop, config.train_crop)
    assert x3d_macs(config, 7) == count_macs(model, shape)


@pytest.mark.parametrize(
    ("name", "gmacs"),
    [("x3d_xs", 0.605), ("x3d_s", 1.963), ("x3d_m", 4.732), ("x3d_l", 18.368), ("x3d_xl", 35.838)],
)
def test_published_networks_have_the_published_gmacs(name: str, gmacs: float):
    factors = Factors.from_config(CONFIGS[name])
    assert factors.config == CONFIGS[name]
    assert x3d_macs(factors.config, 400) / 1e9 == pytest.approx(gmacs, abs=5e-4)


def test_meter_count():
    counted = Meter(build).count(SMALL)
    model = build(SMALL)
    assert counted.gmacs == count_macs(model, clip_shape(SMALL)) / 1e9
    assert counted.params == count_params(model)
    assert counted.latency_ms is None
    assert Meter(build).cost_function("gmacs")(SMALL) == counted.gmacs
    assert Meter(build).cost_function("params")(SMALL) == counted.params


def test_a_latency_is_measured_once_and_in_milliseconds():
    meter = Meter(build, runs=2)
    first, second = meter.measure([SMALL, SMALL.replace(frames=8)])
    assert first.latency_ms is not None
    assert second.latency_ms is not None
    assert 0.05 < first.latency_ms < 5000
    assert meter.measure([SMALL])[0].latency_ms == first.latency_ms
    assert meter.cost_function("latency_ms")(SMALL) == first.latency_ms


def test_memory_is_weights_and_peak_of_live_activations():
    chain = nn.Sequential(*(nn.Linear(100, 100, bias=False, device="meta") for _ in range(5)))
    # the clip, and one layer's input and output, for any number of layers
    assert peak_memory(chain, (10, 100)) == 4 * (5 * 100 * 100 + 3 * 10 * 100)


def test_in_place_operators_and_views_take_no_memory():
    chain = nn.Sequential(nn.ReLU(inplace=True), nn.Flatten(0), nn.Unflatten(0, (10, 100)))
    assert peak_memory(chain, (10, 100)) == 4 * 10 * 100


def test_memory_of_a_network_grows_with_the_clip():
    meter = Meter(build)
    small = meter.count(SMALL)
    long = meter.count(SMALL.replace(frames=4))
    assert small.params == long.params
    weights = 4 * small.params / 1e6
    assert small.memory_mb > weights
    assert 2 < (long.memory_mb - weights) / (small.memory_mb - weights) <= 4


@pytest.mark.slow
def test_compiled_networks_stay_compiled_however_many_are_measured(monkeypatch: pytest.MonkeyPatch):
    """PyTorch compiles a class 8 times by default, and then runs it as it is."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    meter = Meter(build, runtime="compile", runs=1)
    # not by monkeypatch, which takes these settings away when it undoes
    with torch._dynamo.config.patch(recompile_limit=1, fail_on_recompile_limit_hit=True):
        for width in (0.35, 0.8):
            assert meter.measure([SMALL.replace(width=width)])[0].cost("latency_ms") > 0
        assert len(meter.time([SMALL.replace(width=width) for width in (0.35, 0.8)])) == 2
