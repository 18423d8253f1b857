from __future__ import annotations

import zlib

import numpy as np
import pytest
from sklearn import metrics as reference

from saccade.tasks import TestResult
from saccade.tasks.metrics import (
    OperatingPoint,
    average_precision,
    calibration_error,
    confidence_bins,
    confusion_matrix,
    mean_average_precision,
    mean_class_accuracy,
    most_confused,
    pair_accuracy,
    per_class,
    ranks,
    roc_auc,
    top_k,
)


@pytest.fixture
def case() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    labels = rng.integers(0, 7, 200)
    labels[labels == 5] = 4  # class 5 has no clip
    return rng.random((200, 7)).round(2), labels


def test_top_k_equals_scikit_learn_without_ties():
    rng = np.random.default_rng(0)
    scores, labels = rng.random((150, 9)), rng.integers(0, 9, 150)
    for k in (1, 3, 5):
        expected = reference.top_k_accuracy_score(labels, scores, k=k, labels=range(9))
        assert top_k(scores, labels, k) == expected
    assert top_k(scores, labels, 9) == 1.0


def test_ties_go_to_the_lower_index_as_in_argmax(case):
    scores, labels = case
    assert top_k(scores, labels) == (scores.argmax(1) == labels).mean()
    assert ranks([[0.5, 0.5, 0.5]] * 3, [0, 1, 2]).tolist() == [0, 1, 2]


def test_confusion_and_mean_class_accuracy_equal_scikit_learn(case):
    scores, labels = case
    predicted = scores.argmax(1)
    np.testing.assert_array_equal(
        confusion_matrix(scores, labels), reference.confusion_matrix(labels, predicted, labels=range(7))
    )
    recalls = reference.recall_score(labels, predicted, labels=[0, 1, 2, 3, 4, 6], average=None)
    assert mean_class_accuracy(scores, labels) == pytest.approx(recalls.mean(), abs=1e-15)


def test_per_class_rows():
    scores = np.eye(4)[[0, 1, 1, 1, 2, 0]]
    rows = per_class(scores, [0, 0, 0, 1, 2, 2])
    assert [(r.num_clips, r.num_correct) for r in rows] == [(3, 1), (1, 1), (2, 1), (0, 0)]
    assert rows[0].recall == pytest.approx(1 / 3)
    assert rows[0].precision == 0.5
    assert (rows[0].confused_with, rows[0].num_confused) == (1, 2)
    assert rows[1].confused_with == -1
    assert np.isnan(rows[3].recall)
    assert most_confused(confusion_matrix(scores, [0, 0, 0, 1, 2, 2])) == [(0, 1, 2), (2, 0, 1)]


@pytest.mark.parametrize("decimals", [1, 2, 12])
def test_average_precision_equals_scikit_learn_with_ties(decimals):
    rng = np.random.default_rng(decimals)
    scores = rng.random((80, 6)).round(decimals)
    positives = rng.random((80, 6)) < 0.2
    positives[:, 2] = False
    for c in (0, 1, 3, 4, 5):
        expected = reference.average_precision_score(positives[:, c], scores[:, c])
        assert average_precision(scores[:, c], positives[:, c]) == pytest.approx(expected, abs=1e-14)
    kept = [0, 1, 3, 4, 5]
    expected = reference.average_precision_score(positives[:, kept], scores[:, kept], average="macro")
    assert mean_average_precision(scores, positives) == pytest.approx(expected, abs=1e-14)
    assert np.isnan(average_precision(scores[:, 2], positives[:, 2]))


def test_map_on_recorded_charades_case():
    """Figure recorded from PySlowFast's and X3D-Multigrid's own code on the same 20 videos x 157 classes."""

    def rng(key: str) -> np.random.Generator:
        return np.random.Generator(np.random.Philox(key=zlib.crc32(key.encode())))

    scores = rng("charades:scores").standard_normal((20, 157))
    positives = rng("charades:labels").uniform(0, 1, (20, 157)) < 0.15
    probabilities = 1 / (1 + np.exp(-scores))
    assert (~positives.any(0)).nonzero()[0].tolist() == [6, 37, 72, 77, 91, 103]
    assert mean_average_precision(probabilities, positives) == pytest.approx(0.2696031, abs=2e-6)


def test_pair_accuracy_counts_only_clips_of_pairs():
    scores = [[0.5, 0.4, 0.1, 0.0], [0.1, 0.2, 0.7, 0.0], [0.3, 0.2, 0.5, 0.0], [0.0, 0.0, 0.1, 0.9]]
    # clip 0 right, clip 1 right inside its pair although class 2 wins, clip 2 wrong inside, clip 3 in no pair
    assert pair_accuracy(scores, [0, 1, 1, 3], [(0, 1)]) == pytest.approx(2 / 3)
    assert pair_accuracy([[0.5, 0.5]], [1], [(0, 1)]) == 0.5
    assert np.isnan(pair_accuracy(scores, [3, 3, 3, 3], [(0, 1)]))


def test_a_model_blind_to_order_has_pair_accuracy_one_half():
    rng = np.random.default_rng(0)
    base = rng.random((50, 4))
    scores = np.repeat(base, 2, axis=0)  # the clip and its reversal get the same scores
    labels = np.tile([0, 1, 2, 3], 25)
    assert pair_accuracy(scores, labels, [(0, 1), (2, 3)]) == 0.5


def test_errors_say_what_is_wrong():
    with pytest.raises(ValueError, match=r"0\.\.2, got 0\.\.3"):
        top_k(np.zeros((2, 3)), [0, 3])
    with pytest.raises(ValueError, match=r"\(num_videos, num_classes\)"):
        top_k(np.zeros(3), [0, 1, 2])
    with pytest.raises(ValueError, match="nan"):
        top_k([[np.nan, 0.0]], [0])
    with pytest.raises(ValueError, match="outside"):
        pair_accuracy(np.zeros((1, 2)), [0], [(0, 2)])
    with pytest.raises(ValueError, match="two pairs"):
        pair_accuracy(np.zeros((1, 3)), [0], [(0, 1), (1, 2)])


def test_no_clips_is_nan_not_a_crash():
    assert np.isnan(top_k(np.zeros((0, 3)), np.zeros(0, int)))
    assert confusion_matrix(np.zeros((0, 3)), np.zeros(0, int)).sum() == 0
    assert np.isnan(mean_class_accuracy(np.zeros((0, 3)), np.zeros(0, int)))


@pytest.mark.parametrize("decimals", [1, 2, 12])
def test_auc_and_f1_equal_scikit_learn(decimals: int):
    rng = np.random.default_rng(decimals)
    positives = rng.random(90) < 0.3
    scores = (0.3 * positives + 0.7 * rng.random(90)).round(decimals)
    assert roc_auc(scores, positives) == pytest.approx(reference.roc_auc_score(positives, scores), abs=1e-12)
    point = OperatingPoint.at(0.5, scores, positives)
    assert point.f1 == pytest.approx(reference.f1_score(positives, scores >= 0.5))
    assert point.recall == pytest.approx(reference.recall_score(positives, scores >= 0.5))
    assert point.precision == pytest.approx(reference.precision_score(positives, scores >= 0.5))
    assert np.isnan(roc_auc(scores, np.ones(90, bool)))


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.05, 0.2, 0.9])
@pytest.mark.parametrize("decimals", [1, 12])
def test_the_threshold_finds_most_within_the_false_alarms(rate: float, decimals: int):
    rng = np.random.default_rng(5)
    positives = rng.random(200) < 0.4
    scores = (0.4 * positives + 0.6 * rng.random(200)).round(decimals)
    found = OperatingPoint.for_false_alarms(rate, scores, positives)
    false_alarms, recall, _ = reference.roc_curve(positives, scores, drop_intermediate=False)
    assert found.false_alarms <= rate
    assert found.recall == pytest.approx(recall[false_alarms <= rate].max())


def test_thresholds_at_the_ends():
    every = OperatingPoint.for_false_alarms(1.0, [0.2, 0.8], [0, 1])
    assert (every.threshold, every.false_alarms, every.recall) == (0.2, 1.0, 1.0)
    none = OperatingPoint.for_false_alarms(0.0, [0.9, 0.1], [0, 1])
    assert none.threshold > 0.9
    assert (none.false_alarms, none.recall) == (0.0, 0.0)
    assert np.isnan(none.precision)


def test_calibration_error_by_hand():
    scores = np.array([[0.95, 0.05]] * 10 + [[0.35, 0.65]] * 10)
    labels = np.array([0] * 8 + [1] * 2 + [1] * 6 + [0] * 4)  # right 8 of 10 at 0.95, and 6 of 10 at 0.65
    bins = confidence_bins(scores, labels, num_bins=10)
    assert [(b.num_videos, round(b.confidence, 6), b.accuracy) for b in bins] == [
        (10, 0.65, 0.6),
        (10, 0.95, 0.8),
    ]
    assert calibration_error(bins) == pytest.approx(0.5 * 0.05 + 0.5 * 0.15)
    sure = confidence_bins(np.eye(3)[[0, 1, 2]], [0, 1, 2])  # a confidence of 1 lies in the last bin
    assert [(b.num_videos, b.accuracy) for b in sure] == [(3, 1.0)]
    assert calibration_error(sure) == 0.0
    assert np.isnan(calibration_error([]))


def test_the_calibration_error_of_calibrated_scores_is_small():
    rng = np.random.default_rng(6)
    scores = rng.dirichlet((1, 1, 1), 20_000)
    labels = (rng.random((20_000, 1)) > scores.cumsum(1)).sum(1).clip(max=2)
    assert calibration_error(confidence_bins(scores, labels)) < 0.015
    sharper = scores**3 / (scores**3).sum(1, keepdims=True)
    assert calibration_error(confidence_bins(sharper, labels)) > 0.1


def result_of(scores: list[list[float]], labels: list[int], names: tuple[str, ...] = ("no", "yes")):
    paths = tuple(f"{number}.mp4" for number in range(len(labels)))
    return TestResult(
        paths=paths,
        class_names=names,
        views="1x1",
        scores=np.array(scores, np.float32),
        labels=np.array(labels),
    )


def test_two_classes_name_the_positive_one():
    result = result_of([[0.9, 0.1], [0.6, 0.4], [0.45, 0.55], [0.2, 0.8]], [0, 1, 0, 1])
    found = result.two_class(false_alarms=0.0)
    assert (found["positive"], found["num_positives"], found["num_negatives"]) == ("yes", 2, 2)
    assert (found["auc"], found["f1"]) == (0.75, 0.5)
    assert found["operating_point"]["threshold"] == pytest.approx(0.8)
    assert found["operating_point"]["recall"] == 0.5
    other = result.two_class(positive=0)
    assert (other["positive"], other["auc"], other["operating_point"]) == ("no", 0.75, None)
    assert result.summary()["two_class"]["auc"] == 0.75
    assert result_of([[1, 0, 0]], [0], ("a", "b", "c")).summary()["two_class"] is None


def test_suspected_labels_are_the_sure_contradictions():
    result = result_of([[0.95, 0.05], [0.92, 0.08], [0.01, 0.99], [0.3, 0.7], [0.97, 0.03]], [0, 1, 0, 0, 1])
    found = result.suspects()
    assert [(each.path, each.label, each.predicted) for each in found] == [
        ("2.mp4", "no", "yes"),
        ("4.mp4", "yes", "no"),
        ("1.mp4", "yes", "no"),
    ]
    assert found[0].label_score == pytest.approx(0.01)
    assert found[0].predicted_score == pytest.approx(0.99)
