from __future__ import annotations

import numpy as np
import pytest

from saccade.errors import DataError, UsageError
from saccade.evaluation.rejection import (
    Rejection,
    accepting_threshold,
    choose_rejection,
    logit_scores,
    roc_auc,
)

LOGITS = np.log([[1.0, 2.0, 5.0], [4.0, 4.0, 4.0]])


def test_scores_have_the_values_of_their_definitions():
    np.testing.assert_allclose(logit_scores(LOGITS, "energy"), np.log([8, 12]))
    np.testing.assert_allclose(logit_scores(LOGITS, "max-logit"), np.log([5, 4]))
    np.testing.assert_allclose(logit_scores(LOGITS, "softmax"), [5 / 8, 1 / 3])
    roots = np.sqrt([1, 2, 5])
    np.testing.assert_allclose(logit_scores(LOGITS, "softmax", 2.0)[0], roots[2] / roots.sum())
    np.testing.assert_allclose(logit_scores(LOGITS, "energy", 2.0)[0], 2 * np.log(roots.sum()))


def test_scores_of_large_logits_are_finite():
    assert logit_scores(np.array([1e4, 0.0]), "energy") == 1e4
    assert logit_scores(np.array([[-1e4, -1e4]]), "energy")[0] == pytest.approx(-1e4 + np.log(2))


def test_roc_auc_counts_equal_scores_half():
    assert roc_auc([3, 2], [1, 2]) == (1 + 1 + 1 + 0.5) / 4
    assert roc_auc([0], [1]) == 0
    assert np.isnan(roc_auc([1], []))


@pytest.mark.parametrize(("accept", "threshold"), [(1.0, 0), (0.95, 1), (0.9, 2), (0.951, 0), (0.05, 19)])
def test_the_threshold_accepts_at_least_the_wanted_fraction(accept: float, threshold: int):
    scores = np.arange(20)[::-1]
    assert accepting_threshold(scores, accept) == threshold
    assert (scores >= threshold).mean() >= accept


def clips(*rows: tuple[float, ...]) -> list[np.ndarray]:
    return [np.array([row]) for row in rows]


def test_the_threshold_follows_from_the_validation_clips_alone():
    known = clips(*((float(i), 0.0) for i in range(1, 21)))
    far, none = (choose_rejection(known, unknown) for unknown in (clips((0.0, 0.0)), []))
    assert far.threshold == none.threshold == pytest.approx(np.log(np.e**2 + 1))
    assert (far.num_val, far.num_accepted, far.num_negatives, far.num_rejected) == (20, 19, 1, 1)
    assert (none.num_negatives, none.auroc, far.auroc) == (0, None, 1.0)
    assert far.rejects(far.threshold - 1e-9)
    assert not far.rejects(far.threshold)
    assert far.rejects(float("nan"))


def test_another_score_is_chosen_where_it_separates_better():
    # Clips without a class that excite two classes at once: their energy is the higher one.
    known, unknown = clips((4.0, 0.0), (0.0, 5.0), (6.0, 0.0)), clips((6.0, 6.0), (7.0, 6.8))
    found = choose_rejection(known, unknown)
    assert (found.score, found.temperature, found.auroc) == ("softmax", 1.0, 1.0)
    assert choose_rejection(known).score == "energy"


def test_the_score_of_a_video_is_the_mean_over_its_clips():
    known = [np.array([[4.0, 0.0], [0.0, 0.0]]), np.array([[9.0, 0.0]])]
    mean = logit_scores(known[0], "energy").mean()
    assert choose_rejection(known, accept=1.0).threshold == pytest.approx(mean)


def test_a_rejection_is_plain_data():
    found = choose_rejection(clips((1.0, 0.0), (2.0, 0.0)), clips((0.0, 0.0)), negatives="films", step=7)
    assert Rejection.from_dict(found.to_dict() | {"a later field": 1}) == found
    assert found.to_dict()["format"] == 1
    for damage in (
        {"score": "entropy"},
        {"threshold": float("nan")},
        {"temperature": 0},
        {"threshold": "x"},
        {"format": 2},
    ):
        with pytest.raises(DataError, match="rejection"):
            Rejection.from_dict(found.to_dict() | damage)


def test_the_sentence_has_counts_and_the_interval():
    found = Rejection(
        score="energy", threshold=0, num_val=87, num_accepted=83, num_negatives=20, num_rejected=17,
        negatives="films", auroc=0.98765,
    )  # fmt: skip
    assert str(found) == (
        "accepts 83 of 87 (95 %) validation clips, rejects 17 of 20 (85 %) clips without any class "
        "(films; 95 % interval 64 to 95 %), AUROC 0.988"
    )


def test_bad_arguments_are_named():
    with pytest.raises(UsageError, match="accept"):
        choose_rejection(clips((1.0, 0.0)), accept=0)
    with pytest.raises(DataError, match="validation"):
        choose_rejection([])
