from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from saccade.errors import UsageError
from saccade.sampling.temporal import RULES, _linspace, frame_grid, sample_test, sample_train

FOLDER = Path(__file__).parents[1] / "golden"
GOLDEN = json.loads((FOLDER / "views.json").read_text())


class Fixed(random.Random):
    """An rng whose uniform draws lie at one share of the interval."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def uniform(self, a: float, b: float) -> float:
        return a + self.share * (b - a)


def middle() -> random.Random:
    return Fixed(0.5)


@pytest.mark.parametrize(
    ("key", "rule"), [("decode_all", "pyslowfast"), ("selective", "pyslowfast-selective")]
)
def test_pyslowfast_test_clips_as_recorded(key: str, rule: str) -> None:
    for case in GOLDEN["test"]:
        used = "pyslowfast-offset" if case["use_offset"] else rule
        clips = sample_test(
            case["video_frames"],
            case["fps"],
            num_frames=case["num_frames"],
            stride=case["sampling_rate"],
            num_clips=case["clips"],
            rule=used,
        )
        assert clips.tolist() == case[f"indices_{key}"], (used, case["video_frames"], case["clips"])


def test_pyslowfast_other_frame_rates_as_recorded() -> None:
    for case in GOLDEN["other_fps"]:
        clips = sample_test(
            case["video_frames"], case["fps"], num_frames=16, stride=5, num_clips=3, rule="pyslowfast"
        )
        assert clips.tolist() == case["indices_decode_all"], case["fps"]


@pytest.mark.parametrize(("key", "rule"), [("pyav_selective", "vov3d"), ("decode_all", "pyslowfast")])
def test_vov3d_clips_as_recorded(key: str, rule: str) -> None:
    for case in GOLDEN["vov3d"]:
        clips = sample_test(
            case["video_frames"], 30, num_frames=16, stride=5, num_clips=case["clips"], rule=rule
        )
        assert clips.tolist() == case[f"indices_{key}"], (case["video_frames"], case["clips"])


def test_pyslowfast_training_clips_as_recorded() -> None:
    for case in GOLDEN["train"]:
        clip = sample_train(
            case["video_frames"],
            30,
            num_frames=16,
            stride=5,
            rule="pyslowfast",
            rng=random.Random(case["python_random_seed"]),
        )
        assert clip.tolist() == case["indices"]


def test_linspace_rounds_as_torch() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        start, num = rng.uniform(0, 1000), int(rng.integers(1, 65))
        end = start + rng.uniform(1, 400)
        assert np.array_equal(_linspace(start, end, num), torch.linspace(start, end, num).numpy())


# --- our rule ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_video_frames", [76, 77, 80, 81, 299, 300, 301, 9000])
@pytest.mark.parametrize("num_clips", [2, 3, 5, 10])
def test_saccade_reaches_both_ends(num_video_frames: int, num_clips: int) -> None:
    clips = sample_test(num_video_frames, 30, num_frames=16, stride=5, num_clips=num_clips)
    assert clips.shape == (num_clips, 16)
    assert clips.dtype == np.int64
    assert clips[0, 0] == 0
    assert clips[-1, -1] == num_video_frames - 1
    assert (np.diff(clips, axis=1) == 5).all()
    steps = np.diff(clips[:, 0])
    assert steps.max() - steps.min() <= 1


def test_saccade_one_clip_is_centred() -> None:
    clip = sample_test(300, 30, num_frames=16, stride=5, num_clips=1)[0]
    assert clip[0] == 112
    assert 299 - clip[-1] == 112


@pytest.mark.parametrize(
    ("fps", "expected"),
    [
        (60.0, [0, 10, 20, 30]),
        (30.0, [0, 5, 10, 15]),
        (30000 / 1001, [0, 5, 10, 15]),
        (25.0, [0, 4, 8, 13]),
        (15.0, [0, 3, 5, 8]),
        (2.0, [0, 0, 1, 1]),
    ],
)
def test_saccade_stride_follows_the_frame_rate(fps: float, expected: list[int]) -> None:
    assert sample_test(1000, fps, num_frames=4, stride=5, num_clips=2)[0].tolist() == expected


@pytest.mark.parametrize("num_video_frames", [1, 2, 37, 75])
def test_saccade_short_video_repeats_its_last_frame(num_video_frames: int) -> None:
    expected = [min(i, num_video_frames - 1) for i in range(0, 80, 5)]
    rng = np.random.default_rng(0)
    assert sample_train(num_video_frames, 30, num_frames=16, stride=5, rng=rng).tolist() == expected
    clips = sample_test(num_video_frames, 30, num_frames=16, stride=5, num_clips=3)
    assert clips.tolist() == [expected] * 3


def test_saccade_training_reaches_every_start() -> None:
    rng = np.random.default_rng(0)
    clips = np.stack([sample_train(81, 30, num_frames=16, stride=5, rng=rng) for _ in range(200)])
    assert set(clips[:, 0].tolist()) == {0, 1, 2, 3, 4, 5}
    assert clips.max() == 80
    assert (np.diff(clips, axis=1) == 5).all()


# --- X3D-Multigrid -----------------------------------------------------------------------------------------


def test_x3d_multigrid_takes_raw_frames_and_loops() -> None:
    def clip(num_video_frames: int, fps: float) -> list[int]:
        return sample_train(
            num_video_frames, fps, num_frames=8, stride=10, rule="x3d-multigrid", rng=middle()
        ).tolist()

    assert clip(280, 30) == clip(280, 60) == list(range(100, 180, 10))
    assert clip(35, 30) == [0, 10, 20, 30, 0, 10, 20, 30]


def test_x3d_multigrid_test_clips() -> None:
    # 300 frames thinned by 10 are 30; (30 - 1 - 8) // 2 = 10 thinned frames from clip to clip.
    clips = sample_test(300, 30, num_frames=8, stride=10, num_clips=3, rule="x3d-multigrid")
    assert clips[:, 0].tolist() == [0, 100, 200]
    assert (np.diff(clips, axis=1) == 10).all()
    assert sample_test(300, 30, num_frames=8, stride=10, num_clips=1, rule="x3d-multigrid")[0, 0] == 100
    short = sample_test(35, 30, num_frames=8, stride=10, num_clips=2, rule="x3d-multigrid")
    assert short.tolist() == [[0, 10, 20, 30, 0, 10, 20, 30]] * 2


# --- all rules ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("fps", [10.0, 23.976, 30.0, 59.94])
def test_every_index_is_in_the_video(rule: str, fps: float) -> None:
    rng = np.random.default_rng(1)
    counts = (1, 2) if rule == "tsm" else (1, 2, 10)
    for num_video_frames in (1, 2, 15, 79, 80, 81, 160, 161, 777):
        for num_frames, stride in ((1, 1), (4, 12), (16, 5), (32, 2)):
            spec = {"num_frames": num_frames, "stride": stride, "rule": rule}
            test = [sample_test(num_video_frames, fps, num_clips=n, **spec).ravel() for n in counts]
            train = [sample_train(num_video_frames, fps, rng=rng, **spec) for _ in range(5)]
            assert all(len(clip) % num_frames == 0 for clip in test + train)
            indices = np.concatenate(test + train)
            assert indices.min() >= 0
            assert indices.max() < num_video_frames


def test_unknown_rule_lists_the_known_ones() -> None:
    with pytest.raises(UsageError, match="'slowfast' is unknown; known are saccade, pyslowfast"):
        sample_test(10, 30, num_frames=4, stride=1, num_clips=1, rule="slowfast")


@pytest.mark.parametrize("fps", [0.0, -1.0, float("nan"), float("inf")])
def test_impossible_frame_rate_is_refused(fps: float) -> None:
    with pytest.raises(ValueError, match="fps"):
        sample_test(10, fps, num_frames=4, stride=1, num_clips=1)


def test_pyslowfast_charades_clips_as_recorded() -> None:
    with gzip.open(FOLDER / "charades.json.gz", "rt") as file:
        cases = json.load(file)["test_frames"]
    for case in cases:
        num_frames = case["NUM_FRAMES"]
        clips = sample_test(
            case["video_frames"],
            24,
            num_frames=num_frames,
            stride=case["SAMPLING_RATE"],
            num_clips=case["NUM_ENSEMBLE_VIEWS"],
            rule="pyslowfast-charades",
        )
        assert clips[:, [0, 1, num_frames // 2, -1]].tolist() == case["clips"]


def test_pyslowfast_charades_training_clips() -> None:
    options = {"num_frames": 8, "stride": 4, "rule": "pyslowfast-charades"}
    starts = {int(sample_train(40, 24, rng=Fixed(draw), **options)[0]) for draw in (0.0, 0.5, 0.999999)}
    assert starts == {0, 6, 11}  # 40 frames less the 29 that the clip spans
    early = sample_train(20, 24, rng=Fixed(0.0), **options)  # begins 9 frames before the video
    assert early.tolist() == [0, 0, 0, 3, 7, 11, 15, 19]
    assert sample_test(40, 24, num_clips=1, **options)[0, 0] == 5


@pytest.mark.parametrize(
    ("fps", "stride", "expected"), [(30.0, 4, [0, 4, 8]), (15.0, 4, [0, 2, 4, 6, 8, 10])]
)
def test_a_grid_is_one_clip_as_long_as_the_video(fps: float, stride: int, expected: list[int]) -> None:
    grid = frame_grid(11, fps, stride=stride)
    assert grid.tolist() == expected
    clip = sample_test(11, fps, num_frames=len(grid), stride=stride, num_clips=1)[0]
    np.testing.assert_array_equal(grid, clip - clip[0])
