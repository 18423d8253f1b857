from __future__ import annotations

from saccade.evaluation.pareto import pareto_front


def test_front_is_what_nobody_beats() -> None:
    costs, accuracies = [3.0, 1.0, 2.0, 2.0, 4.0, 1.0], [0.7, 0.5, 0.6, 0.65, 0.7, 0.5]
    assert pareto_front(costs, accuracies) == [1, 3, 0]
    assert pareto_front([], []) == []
    assert pareto_front([1.0, 2.0], [0.9, 0.1]) == [0]


def test_one_above_the_other() -> None:
    assert pareto_front([1, 2, 3, 3, 4, 0.5], [0.5, 0.4, 0.7, 0.6, 0.7, 0.1]) == [5, 0, 2]
