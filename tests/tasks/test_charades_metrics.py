"""Metrics of the multi-label and localization tasks, against the figures of PySlowFast and X3D-Multigrid."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score

from golden import rule
from saccade.tasks.localize import LocalizationResult, per_frame_precisions
from saccade.tasks.metrics import (
    average_precisions,
    mean_average_precision,
    mean_over_classes,
    pair_preference,
)
from saccade.tasks.moments import charades_frames, charades_times, interpolate
from saccade.tasks.scores import sigmoid

CHARADES = rule.load("charades")
SHAPE = (20, 157)


def classification() -> tuple[np.ndarray, np.ndarray]:
    scores = sigmoid(rule.normal("charades:scores", SHAPE))
    return scores, rule.uniform("charades:labels", SHAPE, 0.0, 1.0) < 0.15


def videos() -> list[tuple[np.ndarray, np.ndarray]]:
    """Logits and labels (num_frames, 157) of twenty videos."""
    found = []
    for i, length in enumerate(CHARADES["localisation"]["inputs"]["lengths"]):
        u = rule.uniform(f"charades:locseg:{i}", (157, 3), 0.0, 1.0)
        labels = np.zeros((length, 157), bool)
        for label in np.flatnonzero(u[:, 0] < 0.15):
            begin = int(u[label, 1] * length)
            labels[begin : min(length, begin + 1 + int(u[label, 2] * length / 2)), label] = True
        found.append((rule.normal(f"charades:loc:{i}", (length, 157)), labels))
    return found


def test_map_over_classes_with_a_positive_is_pyslowfast_s_and_scikit_learn_s():
    scores, labels = classification()
    golden = CHARADES["classification"]
    each = average_precisions(scores, labels)
    assert np.flatnonzero(np.isnan(each)).tolist() == CHARADES["inputs"]["classes_without_positive"]
    kept = each[~np.isnan(each)]
    np.testing.assert_allclose(kept, golden["slowfast_get_map"]["per_class_of_kept"], atol=1e-12)
    assert mean_average_precision(scores, labels) == pytest.approx(
        golden["slowfast_get_map"]["mAP"], abs=1e-10
    )
    present = labels.any(axis=0)
    expected = average_precision_score(labels[:, present], scores[:, present], average="macro")
    assert mean_average_precision(scores, labels) == pytest.approx(expected, abs=1e-12)


def test_map_with_absent_classes_as_zero_is_x3d_multigrid_s():
    scores, labels = classification()
    golden = CHARADES["classification"]["x3d_multigrid_apmeter"]
    found = mean_average_precision(scores, labels, absent="zero")
    assert found == pytest.approx(golden["mAP_mean_over_all_157"], abs=1e-7)  # theirs is of float32
    np.testing.assert_allclose(
        np.nan_to_num(average_precisions(scores, labels)), golden["per_class"], atol=1e-6
    )
    with_positives = mean_over_classes(average_precisions(scores, labels))
    assert with_positives == pytest.approx(golden["mAP_over_classes_with_positives"], abs=1e-7)


def test_the_largest_score_over_views():
    _, labels = classification()
    golden = CHARADES["classification_multi_clip"]
    views = sigmoid(rule.normal("charades:clips", (20, 6, 157)).astype(np.float32))
    found = mean_average_precision(views.max(axis=1), labels)
    assert found == pytest.approx(golden["slowfast_testmeter_max_mAP"], abs=1e-7)
    found = mean_average_precision(views.max(axis=1), labels, absent="zero")
    assert found == pytest.approx(golden["x3d_multigrid_max_over_clips_mAP"], abs=1e-7)


def test_per_frame_is_x3d_multigrid_s():
    golden = CHARADES["localisation"]
    logits = np.concatenate([scores for scores, _ in videos()])
    labels = np.concatenate([truth for _, truth in videos()])
    assert labels.sum() == golden["inputs"]["positives"]
    lengths = golden["inputs"]["lengths"]
    each = per_frame_precisions(logits, lengths, lengths, lambda label: labels[:, label])
    expected = golden["all_frames_apmeter"]
    np.testing.assert_allclose(np.nan_to_num(each), expected["per_class"], atol=1e-6)
    assert mean_over_classes(each, absent="zero") == pytest.approx(expected["mAP"], abs=1e-7)


def test_charades_25_takes_25_moments_of_a_video():
    golden = CHARADES["localisation"]["25_points_floor"]
    rows = [
        (scores[charades_frames(len(scores))], truth[charades_frames(len(scores))])
        for scores, truth in videos()
    ]
    scores, labels = (np.concatenate(part) for part in zip(*rows, strict=True))
    assert charades_frames(40).tolist() == golden["first_video_indices"]
    assert scores.shape == (20 * 25, 157)
    assert mean_average_precision(scores, labels) == pytest.approx(golden["slowfast_get_map"], abs=1e-10)
    zero = mean_average_precision(scores, labels, absent="zero")
    assert zero == pytest.approx(golden["apmeter_mAP"], abs=1e-7)
    assert charades_times(50.0).tolist() == [2.0 * j for j in range(25)]


def test_interpolation_is_pytorch_s():
    golden = CHARADES["localisation"]["interpolate_check"]
    logits = rule.normal("charades:interp", (2, 5, 16))
    found = np.stack([interpolate(video.T, golden["to"]).T for video in logits])
    np.testing.assert_allclose(found.reshape(-1)[:8], golden["out"]["first8"], atol=1e-11)
    assert found.std() == pytest.approx(golden["out"]["std"], abs=1e-11)
    for length in (1, 5, 16, 40, 161):
        theirs = F.interpolate(torch.from_numpy(logits), length, mode="linear")
        for video, expected in zip(logits, theirs, strict=True):
            np.testing.assert_allclose(interpolate(video.T, length).T, expected.numpy(), atol=1e-12)


def test_inside_pairs():
    scores = [[0.9, 0.1, 0.3], [0.2, 0.7, 0.0], [0.6, 0.5, 0.9], [0.4, 0.4, 0.1], [0.9, 0.1, 0.0]]
    positives = [[1, 0, 1], [1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1]]
    # rows of one of the two: right, wrong, (both: out), even, (none: out)
    assert pair_preference(scores, positives, [(0, 1)]) == pytest.approx(1.5 / 3)
    assert np.isnan(pair_preference(scores, positives, []))


def result(**changes: Any) -> LocalizationResult:
    """Two videos: a class that is found where it is, one that is found where it is not."""
    logits = np.full((6 + 3, 2), -2.0, np.float32)
    logits[1:3, 0] = 2.0
    logits[7, 1] = 1.0
    values: dict[str, Any] = {
        "logits": logits,
        "num_points": np.array([6, 3]),
        "num_frames": np.array([60, 30]),
        "fps": np.array([10.0, 10.0]),
        "durations": np.array([6.0, 3.0]),
        "actions": np.array([[0, 0, 1.0, 3.0], [1, 1, 2.0, 3.0], [1, 0, 5.0, 9.0]]),
        "paths": ("a/AAAAA.mp4", "b/BBBBB"),
        "class_names": ("first", "second"),
        "views": "windows",
    }
    return LocalizationResult(**{**values, **changes})


def test_a_result_by_hand():
    found = result()
    assert found.points.shape == (50, 2)
    times = charades_times(6.0)
    np.testing.assert_array_equal(found.truth[:25, 0], (times >= 1) & (times <= 3))
    assert not found.truth[25:, 0].any()  # it begins after the video's end
    assert found.positives.tolist() == [[True, False], [True, True]]
    np.testing.assert_array_equal(found.video_logits, [[2, -2], [-2, 1]])
    for label in range(2):
        expected = average_precision_score(found.truth[:, label], found.points[:, label])
        assert found.precisions[label] == pytest.approx(expected)
    assert found.charades25 == pytest.approx(found.precisions.mean())
    repeated = np.repeat(found.video_logits, 25, axis=0)
    expected = [average_precision_score(found.truth[:, k], repeated[:, k]) for k in range(2)]
    assert found.repeated_charades25 == pytest.approx(np.mean(expected))
    assert found.charades25 > found.repeated_charades25
    frames = np.concatenate([found.at_frames(0), found.at_frames(1)])
    inside = np.zeros(90, bool)
    inside[11:30] = True  # strictly between 1 s and 3 s
    first = average_precision_score(inside, frames[:, 0])
    second = np.zeros(90, bool)
    second[60 + 21 : 60 + 30] = True
    assert found.per_frame == pytest.approx((first + average_precision_score(second, frames[:, 1])) / 2)


def test_classes_without_a_positive_lower_per_frame_alone():
    bare = result(actions=np.array([[0, 0, 1.0, 3.0]]))
    whole = result()
    assert bare.charades25 == pytest.approx(whole.precisions[0])
    assert np.isnan(bare.precisions[1])
    assert bare.per_frame < 0.6  # one perfect class, one that counts as zero
    assert result(actions=np.zeros((0, 4))).per_frame == 0.0
    assert np.isnan(result(actions=np.zeros((0, 4))).charades25)


def test_losses_say_how_far_off_a_video_is():
    found = result()
    expected = F.binary_cross_entropy_with_logits(
        torch.from_numpy(found.points), torch.from_numpy(found.truth).float(), reduction="none"
    )
    np.testing.assert_allclose(found.losses, expected.reshape(2, -1).mean(1), rtol=1e-6)
    assert found.loss == pytest.approx(float(expected.mean()), rel=1e-6)
