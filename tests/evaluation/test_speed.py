"""The speed of a model alone."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from saccade.clip import ClipSpec
from saccade.evaluation.speed import model_speed

CLIP = ClipSpec(num_frames=2, stride=1, crop=8, short_side=8)


class Counting(nn.Module):
    """Keeps the shapes of the clips that it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen: list[tuple[int, ...]] = []

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training
        self.seen.append(tuple(x.shape))
        return x.mean((2, 3, 4))


def test_the_speed_is_that_of_clips_of_the_test():
    model = Counting().train()
    assert model_speed(model, CLIP) > 0
    assert {shape[1:] for shape in model.seen} == {(3, 2, 8, 8)}
    assert max(shape[0] for shape in model.seen) <= 16
    assert model.training  # the mode is as it was


def test_a_slow_model_is_timed_on_one_clip(monkeypatch: pytest.MonkeyPatch):
    clock = iter(range(0, 1000, 2))  # every look at the clock is two seconds later
    monkeypatch.setattr("saccade.evaluation.speed.time.perf_counter", lambda: next(clock))
    model = Counting()
    assert model_speed(model, CLIP) == 0.5
    assert [shape[0] for shape in model.seen] == [1, 1]


def test_a_model_that_needs_boxes_has_no_speed():
    class Boxes(nn.Module):
        def forward(self, x: Tensor, boxes: list[Tensor]) -> Tensor:
            return x

    assert math.isnan(model_speed(Boxes(), CLIP))
