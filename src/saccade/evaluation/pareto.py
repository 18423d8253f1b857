"""The Pareto front of accuracy against cost."""

from __future__ import annotations

from collections.abc import Sequence


def pareto_front(costs: Sequence[float], accuracies: Sequence[float]) -> list[int]:
    """Indices of the points that no other dominates, cheapest first. A point dominates another if it costs no
    more and is at least as accurate, and one of the two strictly. Of equal points the first is given.
    """
    front: list[int] = []
    for index in sorted(range(len(costs)), key=lambda i: (costs[i], -accuracies[i], i)):
        if not front or accuracies[index] > accuracies[front[-1]]:
            front.append(index)
    return front
