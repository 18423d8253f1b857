"""Two results on the same videos."""

from __future__ import annotations

import numpy as np
import pytest

from saccade.errors import DataError
from saccade.evaluation.paired import compare_results
from saccade.tasks import TestResult

NAMES = ("a", "b")


def result(predicted: list[int], labels: list[int], paths: list[str], names: tuple[str, ...] = NAMES):
    return TestResult(
        paths=tuple(paths),
        class_names=names,
        views="1x1",
        scores=np.eye(len(names), dtype=np.float32)[predicted],
        labels=np.array(labels),
    )


PATHS = [f"/here/c/{n}.mp4" for n in range(4)]


def test_videos_are_paired_by_folder_and_name_and_classes_by_name():
    first = result([0, 0, 1, 1], [0, 0, 1, 0], PATHS)
    moved = [f"/there/c/{n}.mp4" for n in (3, 1, 0)]  # one is missing, in another order
    second = result([0, 0, 1], [1, 1, 1], moved, names=("b", "a"))
    found = compare_results(first, second)
    assert (found.num_both, found.num_first, found.num_second, found.num_neither) == (1, 1, 0, 1)


def test_clips_of_one_video_are_paired_in_order():
    first = result([0, 1], [0, 1], ["c/x.mp4"] * 2)
    second = result([1, 1], [0, 1], ["c/x.mp4"] * 2)
    assert compare_results(first, second).num_first == 1
    assert compare_results(first, second).num_both == 1


@pytest.mark.parametrize(
    ("second", "named"),
    [
        (result([0], [0], ["/here/d/0.mp4"]), "no video"),
        (result([0] * 4, [1] * 4, PATHS), "0.mp4"),
        (result([0] * 4, [0] * 4, PATHS, names=("a", "c")), "'b'"),
    ],
)
def test_what_cannot_be_compared_is_named(second: TestResult, named: str):
    with pytest.raises(DataError, match=named):
        compare_results(result([0] * 4, [0] * 4, PATHS), second)
