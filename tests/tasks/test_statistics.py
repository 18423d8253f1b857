"""Standard errors, intervals, comparisons: against formulas and scipy, or against repeated data sets."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binomtest, ttest_1samp

from saccade.tasks import LocalizationResult, MultiLabelResult, TestResult
from saccade.tasks.statistics import (
    Accuracy,
    PairedComparison,
    jackknife_error,
    mcnemar,
    paired_error,
    proportion_error,
    wilson_interval,
)


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


@pytest.mark.parametrize(
    ("num_right", "num", "low", "high"),
    [(17, 20, 0.6396, 0.9476), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (80, 100, 0.7112, 0.8666)],
)
def test_wilson_interval(num_right: int, num: int, low: float, high: float):
    assert wilson_interval(num_right, num) == pytest.approx((low, high), abs=5e-5)
    known = binomtest(num_right, num).proportion_ci(0.95, method="wilson")
    assert wilson_interval(num_right, num) == pytest.approx((known.low, known.high), abs=1e-12)


@pytest.mark.parametrize(
    ("first", "second"), [(0, 0), (1, 0), (0, 5), (0, 6), (7, 2), (30, 51), (2000, 1800)]
)
def test_mcnemar_is_the_exact_binomial_test(first: int, second: int):
    known = binomtest(first, first + second).pvalue if first + second else 1.0
    assert mcnemar(first, second) == pytest.approx(known, rel=1e-9)
    assert mcnemar(second, first) == mcnemar(first, second)


def test_the_paired_error_is_that_of_a_paired_t_test():
    differences = np.random.default_rng(0).choice([-1, 0, 1], 40, p=[0.1, 0.6, 0.3])
    known = ttest_1samp(differences, 0)
    assert differences.mean() / paired_error(differences) == pytest.approx(known.statistic)
    assert math.isnan(paired_error([1.0]))
    assert paired_error([0, 0, 0]) == 0.0


def test_two_models_on_the_same_videos():
    first = np.array([1] * 70 + [1] * 12 + [0] * 3 + [0] * 15, bool)
    second = np.array([1] * 70 + [0] * 12 + [1] * 3 + [0] * 15, bool)
    found = PairedComparison.of(first, second)
    assert (found.num_both, found.num_first, found.num_second, found.num_neither) == (70, 12, 3, 15)
    assert found.difference == pytest.approx(0.09)
    assert found.p_value == pytest.approx(0.03516, abs=1e-5)
    assert found.differs
    # Bonett and Price: (13 - 4) / 102, and sqrt((17/102 - (9/102)^2) / 102) = 0.03948
    assert found.interval == pytest.approx((0.0882 - 0.0774, 0.0882 + 0.0774), abs=1e-4)
    same = PairedComparison.of(first, first)
    assert (same.difference, same.p_value, same.differs) == (0.0, 1.0, False)


def test_the_interval_of_a_difference_covers_it():
    rng, hits = np.random.default_rng(3), 0
    for _ in range(400):
        each = rng.choice(4, 30, p=[0.6, 0.2, 0.1, 0.1])  # both, first, second, neither
        low, high = PairedComparison.of(each < 2, (each == 0) | (each == 2)).interval
        hits += low <= 0.1 <= high
    assert 0.92 <= hits / 400 <= 0.99


def test_accuracy_is_given_as_a_count():
    labels = np.repeat([0, 1], 10)
    even = Accuracy.of(np.where(np.arange(20) < 3, 1, labels), labels, 2)
    assert str(even) == "17 of 20 right, 85 %, 95 % interval 64 to 95 %, chance 50 %"
    assert not even.is_chance
    uneven = Accuracy.of(np.zeros(20, int), np.repeat([0, 1, 2], (11, 5, 4)), 3)
    assert str(uneven) == "11 of 20 right, 55 %, 95 % interval 34 to 74 %, most frequent class 55 %"
    assert uneven.is_chance
    assert not Accuracy.of([0, 1], [0, 1], 3).balanced  # a class without videos
    assert Accuracy.from_dict(even.to_dict() | {"num_videos": 20}) == even


def test_chance_is_seldom_taken_for_skill():
    rng, labels = np.random.default_rng(4), np.repeat(np.arange(4), 15)
    found = [Accuracy.of(rng.integers(0, 4, 60), labels, 4).is_chance for _ in range(300)]
    assert 0.94 <= np.mean(found) <= 1.0
