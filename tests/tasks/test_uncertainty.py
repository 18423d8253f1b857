"""Standard errors: against formulas where there are some, against repeated data sets where there are none."""

from __future__ import annotations

import math

import numpy as np
import pytest

from saccade.tasks import LocalizationResult, MultiLabelResult, TestResult
from saccade.tasks.statistics import jackknife_error, proportion_error


def multi_label(rng: np.random.Generator, num: int, num_classes: int = 4) -> MultiLabelResult:
    positives = rng.random((num, num_classes)) < 0.4
    scores = (rng.normal(size=positives.shape) + positives).astype(np.float32)
    return MultiLabelResult(
        paths=tuple(map(str, range(num))),
        class_names=tuple("abcd"[:num_classes]),
        views="1x1",
        scores=scores,
        positives=positives,
        truth=np.zeros((num, 0, num_classes), np.bool_),
    )


def test_of_a_mean_the_jackknife_is_the_formula():
    values = np.random.default_rng(0).normal(size=20)
    found = jackknife_error(lambda kept: float(values[kept].mean()), 20)
    assert found == pytest.approx(values.std(ddof=1) / math.sqrt(20))


def test_nothing_is_known_from_one_video_or_from_none():
    assert math.isnan(jackknife_error(lambda kept: float(kept.mean()), 1))
    assert math.isnan(jackknife_error(lambda kept: float(kept.sum()), 0))
    assert math.isnan(proportion_error(0.5, 0))


def test_of_map_it_is_how_far_other_data_sets_lie_apart():
    rng = np.random.default_rng(1)
    results = [multi_label(rng, 120) for _ in range(80)]
    spread = float(np.std([result.map for result in results], ddof=1))
    told = float(np.mean([result.standard_error for result in results]))
    assert told == pytest.approx(spread, rel=0.25)  # 80 data sets tell their spread to 8 %
    share = float(np.mean([proportion_error(result.map, 120) for result in results]))
    assert share > 1.2 * spread  # mAP is no share of videos


def test_of_accuracy_it_is_that_of_a_share():
    labels = np.repeat(np.arange(2), 50)
    scores = np.eye(2, dtype=np.float32)[np.where(np.arange(100) < 20, 1 - labels, labels)]
    result = TestResult(paths=("x",) * 100, class_names=("a", "b"), views="1x1", scores=scores, labels=labels)
    assert result.top1 == 0.8
    assert result.standard_error == pytest.approx(0.04)


def test_videos_not_their_moments_are_left_out():
    rng = np.random.default_rng(2)
    num, points = 40, 30
    starts = rng.uniform(0, 6, num)
    actions = np.stack([np.arange(num), rng.integers(0, 3, num), starts, starts + 3], 1).astype(float)
    result = LocalizationResult(
        paths=tuple(map(str, range(num))),
        class_names=("a", "b", "c"),
        views="windows",
        logits=np.repeat(rng.normal(size=(num, 3)), points, axis=0).astype(np.float32),
        num_points=np.full(num, points),
        num_frames=np.full(num, 90),
        fps=np.full(num, 10.0),
        durations=np.full(num, 9.0),
        actions=actions,
    )
    doubled = jackknife_error(  # the same moments as if each were a video of its own
        lambda kept: float(np.mean([_precision(result, c, kept) for c in range(3)])), num * 25
    )
    assert doubled > 0
    assert result.standard_error > 1.3 * doubled  # moments of one video are alike


def _precision(result: LocalizationResult, label: int, kept: np.ndarray) -> float:
    from saccade.tasks.metrics import average_precision

    return average_precision(result.points[kept, label], result.truth[kept, label])
