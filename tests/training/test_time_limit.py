"""Runs with a time limit end in time, with the schedule at its end."""

from __future__ import annotations

import pytest
import torch

from saccade.errors import ConfigError
from saccade.training import Callback, train
from saccade.training.time_limit import TimeLimit


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("saccade.training.time_limit.time.perf_counter", clock)
    return clock


def simulate(clock: Clock, minutes: float, *, step: float, validation: float, period: int, before: float = 0):
    """Steps of a run, and its seconds, with steps and validations of these seconds."""
    limit, total, done = TimeLimit(minutes, seconds_before=before), 10**6, 0
    while done < total:
        clock.now += step(done) if callable(step) else step
        done += 1
        total = max(limit.plan(done, total, steps_between_validations=period), done)
        if done % period == 0 or done == total:
            clock.now += validation
            limit.after_validation(validation)
    return done, limit.seconds


@pytest.mark.parametrize(
    ("step", "validation", "period"),
    [(1.0, 0.0, 10), (1.0, 8.0, 25), (0.1, 3.0, 100), (7.0, 20.0, 5)],
)
def test_the_run_ends_with_the_limit(clock, step, validation, period):
    steps, seconds = simulate(clock, 10, step=step, validation=validation, period=period)
    assert seconds == pytest.approx(600, abs=max(2 * step + validation, 12))
    assert steps == pytest.approx(600 / (step + validation / period), rel=0.06)


def test_a_machine_that_becomes_slower_is_noticed(clock):
    steps, seconds = simulate(clock, 10, step=lambda done: 1 if done < 200 else 3, validation=0, period=50)
    assert seconds == pytest.approx(600, abs=10)
    assert steps == pytest.approx(200 + 400 / 3, rel=0.05)


def test_time_before_a_resumption_counts(clock):
    _, seconds = simulate(clock, 10, step=1.0, validation=0, period=10, before=500.0)
    assert seconds == pytest.approx(600, abs=15)


def test_a_run_whose_time_is_over_ends_with_the_next_step(clock):
    """As when fitting the classifier took longer than planned."""
    steps, _ = simulate(clock, 10, step=1.0, validation=0, period=10, before=900.0)
    assert steps == 1


class Rates(Callback):
    def __init__(self) -> None:
        self.rates, self.totals = [], []

    def on_step(self, record):
        self.rates.append(record["lr"])
        self.totals.append(record["total_steps"])


def test_the_schedule_ends_where_the_run_does(tiny_config, monkeypatch):
    """Planned at 7 of 15 steps: the rate falls to its end by then."""
    monkeypatch.setattr(TimeLimit, "plan", lambda self, step, total, **_: 7 if step >= 3 else total)
    rates = Rates()
    config = tiny_config("short", "--minutes", "5", "--val-every", "2", "--optim.min-lr", "0")
    run = train(config, callbacks=[rates])
    assert rates.totals == [15, 15, *[7] * 5]
    assert rates.rates == sorted(rates.rates, reverse=True)
    assert rates.rates[-1] < 0.06 * rates.rates[0]
    progress = torch.load(run.last, weights_only=True)["progress"]
    assert (progress["step"], progress["total_steps"]) == (7, 7)
    assert [row["step"] for row in run.metrics()[0] if "val_top1" in row][-1] == 7


def test_a_plan_never_exceeds_the_epochs_of_the_recipe(tiny_config, monkeypatch):
    monkeypatch.setattr(TimeLimit, "plan", lambda self, step, total, **_: 1000)
    rates = Rates()
    train(tiny_config("long", "--minutes", "5", "--epochs", "1"), callbacks=[rates])
    assert rates.totals == [5] * 5


def test_a_resumed_run_keeps_its_plan(tiny_config, monkeypatch):
    monkeypatch.setattr(TimeLimit, "plan", lambda self, step, total, **_: 6)
    flags = ("--minutes", "5", "--val-every", "1")
    stopped = []

    class Stop(Callback):
        def on_step(self, record):
            if record["step"] == 5:
                stopped.append(record)
                raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        train(tiny_config("again", *flags, "--save-minutes", "0"), callbacks=[Stop()])
    monkeypatch.setattr(TimeLimit, "plan", lambda self, step, total, **_: total)
    rates = Rates()
    train(tiny_config("again", *flags, "--save-minutes", "0"), callbacks=[rates], resume=True)
    assert rates.totals[-1] == 6


@pytest.mark.parametrize(
    "flags",
    [("--multigrid", "long"), ("--precise-bn", "2"), ("--optim.schedule", "step", "--optim.steps", "1")],
)
def test_what_a_time_limit_cannot_change_is_refused(tiny_config, flags):
    with pytest.raises(ConfigError, match="minutes"):
        train(tiny_config("refused", "--minutes", "1", *flags))
