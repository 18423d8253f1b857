"""Segment sampling: the figures of the originals, and what holds for our own rule."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saccade.errors import UsageError
from saccade.sampling.segments import SEGMENT_RULES
from saccade.sampling.temporal import RULES, sample_test, sample_train

GOLDEN = json.loads(
    gzip.decompress((Path(__file__).parents[1] / "golden" / "ssv_sampling.json.gz").read_bytes())
)


def for_training(num_video_frames: int, num_frames: int, rule: str, rng: Any) -> list[int]:
    return sample_train(num_video_frames, 12, num_frames=num_frames, stride=1, rule=rule, rng=rng).tolist()


def for_test(num_video_frames: int, num_frames: int, rule: str, num_clips: int = 1) -> list[list[int]]:
    return sample_test(
        num_video_frames, 12, num_frames=num_frames, stride=1, num_clips=num_clips, rule=rule
    ).tolist()


class Numpy:
    """Draws as ``numpy.random.randint`` did for TSM."""

    def __init__(self) -> None:
        self.state = np.random.RandomState(0)

    def uniform(self, low: float, high: float) -> float:
        return low + float(self.state.randint(round(high - low)))


class Python(random.Random):
    """Draws as ``random.randint`` did for PySlowFast."""

    def uniform(self, a: float, b: float) -> float:
        return float(self.randint(round(a), round(b) - 1))


def test_tsm_test_frames_as_recorded_from_rubiksnet() -> None:
    for case in GOLDEN["rubiks"]["cases"]:
        length, num_frames = case["video_frames"], case["num_segments"]
        first = np.array(case["test_1clip"]) - 1  # recorded as file numbers, which begin with 1
        assert for_test(length, num_frames, "tsm") == [first.tolist()]
        assert for_test(length, num_frames, "tsm", 2) == (np.array(case["test_2clip"]) - 1).tolist()
        assert for_test(length, num_frames, "segments") == [first.tolist()]


def test_tsm_training_frames_as_recorded_from_rubiksnet() -> None:
    for case in GOLDEN["rubiks"]["cases"]:
        recorded = (np.array(case["train_numpy_seed0_only_even_False"]) - 1).tolist()
        assert for_training(case["video_frames"], case["num_segments"], "tsm", Numpy()) == recorded


@pytest.mark.parametrize("rule", ["pyslowfast-ssv2", "vov3d-ssv"])
def test_pyslowfast_frames_as_recorded(rule: str) -> None:
    for case in GOLDEN["slowfast"]["cases"]:
        length, num_frames = case["video_frames"], case["num_frames"]
        assert for_test(length, num_frames, rule) == [case["test"]]
        assert for_training(length, num_frames, rule, Python(0)) == case["train_random_seed0"]


def test_vov3d_frames_as_recorded() -> None:
    for case in GOLDEN["vov"]["cases"]:
        length, num_frames = case["video_frames"], case["num_frames"]
        assert for_test(length, num_frames, "vov3d-ssv") == case["test_views1_crops1"]
        # Upstream draws the frames of several test clips as in training.
        rng = Python(0)
        views = [for_training(length, num_frames, "vov3d-ssv", rng) for _ in range(6)]
        assert views == case["test_views2_crops3_random_seed0_in_clip_order"]


def test_several_clips_of_pyslowfast_are_one_and_those_of_vov3d_differ() -> None:
    middle, again = for_test(80, 8, "pyslowfast-ssv2", 2)
    assert middle == again == for_test(80, 8, "vov3d-ssv")[0]
    # Segments of 79/8 frames end at 0, 10, 20, 30, 40, 49, 59, 69, 79; a quarter and three quarters of each:
    assert for_test(80, 8, "vov3d-ssv", 2) == [
        [2, 12, 22, 32, 42, 51, 61, 71],
        [7, 17, 27, 37, 46, 56, 66, 76],
    ]


def test_our_segments_share_the_video_out_exactly() -> None:
    assert for_test(80, 8, "segments") == [[5, 15, 25, 35, 45, 55, 65, 75]]
    assert for_test(80, 8, "segments", 2)[0] == [2, 12, 22, 32, 42, 52, 62, 72]
    rng = np.random.default_rng(0)
    clips = np.array([for_training(37, 8, "segments", rng) for _ in range(2000)])
    segment = clips * 8 // 37
    # Frame f begins in segment f*8//37; a segment border inside a frame lets both segments show it.
    assert ((segment == np.arange(8)) | ((clips * 8 + 7) // 37 == np.arange(8))).all()
    assert set(clips.ravel()) == set(range(37))
    counts = np.bincount(clips.ravel(), minlength=37)
    assert counts.max() < 1.3 * counts.mean()
    assert counts.min() > 0.7 * counts.mean()


@pytest.mark.parametrize("rule", SEGMENT_RULES)
def test_frames_never_go_back_and_the_stride_does_not_matter(rule: str) -> None:
    assert rule in RULES
    rng = np.random.default_rng(2)
    for length in (1, 5, 8, 37):
        clips = [for_training(length, 8, rule, rng) for _ in range(20)] + for_test(length, 8, rule, 2)
        assert (np.diff(clips, axis=1) >= 0).all()
        far = sample_test(length, 12, num_frames=8, stride=99, num_clips=2, rule=rule)
        assert far.tolist() == for_test(length, 8, rule, 2)


def test_tsm_has_two_clips_at_most() -> None:
    with pytest.raises(UsageError, match="'tsm' knows one or two test clips, not 3; rule 'segments'"):
        for_test(40, 8, "tsm", 3)
