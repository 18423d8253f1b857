from __future__ import annotations

import json
from pathlib import Path

import pytest

from saccade.recipes import get_recipe
from saccade.training.config import OptimConfig
from saccade.training.schedule import learning_rate

GOLDEN = Path(__file__).parent.parent / "golden" / "pyslowfast_lr.json"


@pytest.mark.parametrize("name", ["x3d_xs_k400", "x3d_m_k400", "x3d_l_k400"])
def test_kinetics_recipes_have_pyslowfast_s_curve(name: str):
    config = get_recipe(name)
    expected = json.loads(GOLDEN.read_text())[name]
    rates = [
        learning_rate(epoch, config.optim, epochs=config.epochs, batch_size=config.batch_size)
        for epoch in range(len(expected))
    ]
    assert config.epochs == len(expected)
    assert rates == pytest.approx(expected, rel=1e-11, abs=1e-14)


def test_the_rate_changes_within_an_epoch_as_pyslowfast_s():
    config = get_recipe("x3d_m_k400")
    expected = json.loads(GOLDEN.read_text())["x3d_m_k400 at 35.5, 100.25"]
    rates = [learning_rate(epoch, config.optim, epochs=300, batch_size=128) for epoch in (35.5, 100.25)]
    assert rates == pytest.approx(expected, rel=1e-11)


def rate(epoch: float, batch_size: int = 16, **changes) -> float:
    optim = OptimConfig(**{"lr": 0.2, "reference_batch": 16, **changes})
    return learning_rate(epoch, optim, epochs=10, batch_size=batch_size)


def test_every_rate_scales_with_the_batch():
    for epoch in (0, 0.5, 1, 5, 9.9):
        options = {"warmup_epochs": 1, "warmup_lr": 0.02, "min_lr": 0.001}
        assert rate(epoch, 64, **options) == pytest.approx(4 * rate(epoch, 16, **options), rel=1e-12)


def test_warmup_is_a_line_that_meets_the_schedule():
    options = {"warmup_epochs": 2.0, "warmup_lr": 0.02}
    start, middle, end = (rate(epoch, **options) for epoch in (0, 1, 2))
    assert start == pytest.approx(0.02)
    assert middle == pytest.approx((start + end) / 2)
    assert end == pytest.approx(rate(2))


def test_cosine_ends_at_the_least_rate():
    assert rate(0) == pytest.approx(0.2)
    assert rate(10, min_lr=0.003) == pytest.approx(0.003)
    assert rate(5, min_lr=0.0) == pytest.approx(0.1)


def test_step_falls_at_its_epochs():
    options = {"schedule": "step", "steps": (4.0, 8.0), "gamma": 0.1}
    rates = [rate(epoch, **options) for epoch in (0, 3.99, 4, 7.9, 8)]
    assert rates == pytest.approx([0.2, 0.2, 0.02, 0.02, 0.002])


def test_constant_stays():
    assert rate(0, schedule="constant") == rate(9.9, schedule="constant") == 0.2


def test_the_cosine_may_begin_after_the_warmup():
    options = {"warmup_epochs": 2.0, "warmup_lr": 0.02, "min_lr": 0.01, "cosine_after_warmup": True}
    rates = [rate(epoch, **options) for epoch in (0, 1, 2, 6, 10)]
    assert rates == pytest.approx([0.02, 0.11, 0.2, 0.105, 0.01])
