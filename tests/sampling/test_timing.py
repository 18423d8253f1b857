"""Clips, windows and seconds of videos whose frame rate varies, or that have gaps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from saccade.clip import ClipSpec
from saccade.sampling.plan import plan_video
from saccade.sampling.segments import SEGMENT_RULES
from saccade.sampling.temporal import RULES, frame_grid, sample_covering, sample_test, sample_train
from saccade.sampling.timing import FrameTimes, gaps_dict, stored_frame_times
from saccade.sampling.views import parse_views
from saccade.sampling.windows import plan_windows, windows_over
from saccade.video.times import usual_rate

Times = NDArray[np.float64]

CLIP: dict[str, Any] = {"num_frames": 16, "stride": 5}
SPEC = ClipSpec(num_frames=16, stride=5, crop=16, short_side=16)
STRIDE_RULES = [rule for rule in RULES if rule not in SEGMENT_RULES]


def seconds(num: float, fps: float = 30) -> Times:
    return np.arange(round(num * fps)) / fps


PAUSE = np.concatenate([seconds(3), 63 + seconds(3)])
FREEZE = np.append(seconds(2), 120.0)
BURSTS = np.concatenate([90.0 * i + seconds(3) for i in range(20)])  # a camera that motion triggers
DOUBLED = np.concatenate([seconds(5), 5 + seconds(5, 60)])
SCREEN = np.cumsum(np.random.default_rng(4).uniform(0.02, 0.7, 200))  # a frame for every change
FROZEN_END = np.append(seconds(20 / 3), 7200.0)  # 201 frames, the last stands for two hours


def of(times: Times) -> tuple[int, float]:
    return len(times), usual_rate(times, 0)


def video(times: Times) -> FrameTimes:
    return FrameTimes(*of(times), times)


class Fixed:
    """An rng whose draws lie at one fraction of the interval."""

    def __init__(self, fraction: float) -> None:
        self.fraction = fraction

    def uniform(self, low: float, high: float, /) -> float:
        return low + self.fraction * (high - low)


# --- frames in time --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("times", "gaps", "duration"),
    [
        (seconds(10), (), 10),
        (8.333 + seconds(10), (), 10),
        (seconds(2, 120), (), 2),
        (np.arange(40) * 2.0, (), 80),  # timelapse
        (DOUBLED, (), 10),
        (PAUSE, ((3, 63),), 66),
        (100 + PAUSE, ((3, 63),), 66),
        (FREEZE, ((2, 120 + 1 / 30),), 120 + 1 / 30),
        (np.append(0.0, 60 + seconds(3)), ((0, 60),), 63),  # nothing after the first frame
        (BURSTS, tuple((90.0 * i + 3, 90.0 * i + 90) for i in range(19)), 1713),
        (np.array([0.0, 60.0]), (), 120),
        (np.array([7.0]), (), 1 / 30),
        (np.array([0.0, 1 / 30, 60.0]), ((2 / 30, 60 + 1 / 30),), 60 + 1 / 30),
    ],
)
def test_gaps_and_duration(times: Times, gaps: Any, duration: float) -> None:
    found = video(times)
    np.testing.assert_allclose(found.gaps, np.reshape(gaps, (-1, 2)) if gaps else (), atol=1e-6)
    assert found.duration == pytest.approx(duration)
    assert len(found.sections) == 1 + len([gap for gap in gaps if gap[0] > 0 and gap[1] < duration])
    assert gaps_dict(found.gaps).keys() == ({"gaps"} if gaps else set())


def test_a_stutter_is_no_gap_and_a_second_is() -> None:
    for stall, num in ((0.9, 0), (1.1, 1)):
        assert len(video(np.concatenate([seconds(3), 3 + stall + seconds(3)])).gaps) == num
    slow = np.concatenate(
        [seconds(60, 2), 63 + seconds(60, 2)]
    )  # 2 frames a second, 3 s without: 6 intervals
    assert video(slow).gaps == ()
    slow[120:] += 2
    assert len(video(slow).gaps) == 1


def test_frames_in_time() -> None:
    pause = video(PAUSE)
    assert pause.sections == ((0, 90), (90, 180))
    np.testing.assert_allclose(pause.seconds([0, 89, 90, 179]), [0, 89 / 30, 63, 63 + 89 / 30])
    np.testing.assert_allclose(pause.ends([0, 89, 90, 179]), [1 / 30, 3, 63 + 1 / 30, 66])
    assert pause.at([-1, 0, 1, 30, 63, 64, 99]).tolist() == [0, 0, 30, 89, 90, 120, 179]
    assert pause.section_nearest(20) == (0, 90)
    assert pause.section_nearest(50) == (90, 180)
    assert pause.section_end(3) == pytest.approx(3)
    assert pause.section_end(100) == pytest.approx(66)
    assert pause.longest_section == pytest.approx(90)
    steady = FrameTimes(90, 30.0)
    assert steady.times is None
    assert steady.at([0, 0.9 / 30, 1 / 30, 2.99, 9]).tolist() == [0, 0, 1, 89, 89]
    assert steady.section_end(3) == steady.duration == 3
    assert steady.longest_section == 90


def test_times_that_are_constant_are_not_kept() -> None:
    assert FrameTimes(60, 30.0, 5 + np.round(seconds(2), 3)).times is None
    assert FrameTimes(60, 30.0, np.full(60, np.nan)).times is None
    rates = FrameTimes(3000, 30.0, np.arange(3000) / 29.8)  # a header that is 0.7 % off
    assert not rates.varies  # so the indices are those of the header
    assert rates.seconds(2999) == pytest.approx(2999 / 29.8)


def test_frame_times_from_the_arrays_of_a_file() -> None:
    videos = [FrameTimes(90, 30.0), video(PAUSE), FrameTimes(5, 10.0), video(FREEZE)]
    timed = [v.times for v in videos if v.times is not None]
    again = stored_frame_times(
        [v.num_frames for v in videos],
        [v.fps for v in videos],
        np.array([v.times is not None for v in videos]),
        np.concatenate(timed),
    )
    assert [v.gaps for v in again] == [v.gaps for v in videos]
    assert [v.duration for v in again] == [v.duration for v in videos]
    old = stored_frame_times([90, 5], [30.0, 10.0], np.zeros(0, np.bool_), np.zeros(0))
    assert [v.duration for v in old] == [3.0, 0.5]


# --- clips -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("fps", [10.0, 25.0, 30000 / 1001, 60.0, 120.0])
def test_times_of_a_constant_rate_change_nothing(rule: str, fps: float) -> None:
    times = 1.4 + np.round(np.arange(300) / fps, 3)
    for num_clips in (1, 2):
        spec: dict[str, Any] = {**CLIP, "num_clips": num_clips, "rule": rule}
        np.testing.assert_array_equal(
            sample_test(300, fps, **spec), sample_test(300, fps, times=times, **spec)
        )
    for fraction in (0.0, 0.3, 0.999):
        spec = {**CLIP, "rule": rule}
        np.testing.assert_array_equal(
            sample_train(300, fps, rng=Fixed(fraction), **spec),
            sample_train(300, fps, rng=Fixed(fraction), times=times, **spec),
        )
    np.testing.assert_array_equal(frame_grid(300, fps, stride=5), frame_grid(300, fps, stride=5, times=times))


def test_a_pause_in_the_recording() -> None:
    (clip,) = sample_test(*of(PAUSE), **CLIP, num_clips=1, times=PAUSE)
    assert clip.tolist() == list(range(7, 83, 5))
    assert PAUSE[clip[-1]] - PAUSE[clip[0]] == pytest.approx(2.5)
    clips = sample_test(*of(PAUSE), **CLIP, num_clips=4, times=PAUSE)
    # 15 starts in each section: 0, 9, 19 and 29 of 30.
    assert clips[:, 0].tolist() == [0, 9, 94, 104]
    assert clips[-1, -1] == 179
    assert (np.diff(clips) == 5).all()
    assert sample_covering(*of(PAUSE), **CLIP, times=PAUSE)[:, 0].tolist() == [7, 97]


def test_a_last_frame_that_stands_for_minutes() -> None:
    expected = [*range(0, 60, 5), 59, 59, 59, 59]
    for num_clips in (1, 3):
        clips = sample_test(*of(FREEZE), **CLIP, num_clips=num_clips, times=FREEZE)
        assert clips.tolist() == [expected] * num_clips
    assert sample_train(*of(FREEZE), **CLIP, rng=Fixed(0.9), times=FREEZE).tolist() == expected
    assert sample_covering(*of(FREEZE), **CLIP, times=FREEZE).tolist() == [expected]
    clips = sample_covering(*of(FROZEN_END), **CLIP, times=FROZEN_END)
    assert len(clips) == 3  # of 6.7 s, not of two hours
    assert clips.max() == 199


def test_a_frame_that_stands_for_long_is_shown_once() -> None:
    """Two frames an hour apart: the first, both, the second; not 1,350 times the same."""
    clips = sample_covering(2, 1 / 3600, **CLIP, times=np.array([0.0, 3600.0]))
    assert clips.tolist()[0] == [0] * 16
    assert clips.tolist()[-1] == [1] * 16
    assert len(clips) <= 3
    changes = np.array([0.0, 20.0, 45.0, 61.0])  # a picture for every change, and none missing
    clips = sample_covering(4, 1 / 20, **CLIP, times=changes)
    assert set(clips.ravel().tolist()) == {0, 1, 2, 3}
    assert len(clips) <= 7


@pytest.mark.parametrize("rule", STRIDE_RULES)
@pytest.mark.parametrize(
    "times", [PAUSE, FREEZE, BURSTS, FROZEN_END], ids=["pause", "freeze", "bursts", "end"]
)
def test_no_clip_lies_across_a_gap(rule: str, times: Times) -> None:
    sections = np.array(video(times).sections)
    rng = np.random.default_rng(0)
    spec: dict[str, Any] = {**CLIP, "rule": rule, "times": times}
    clips = [sample_train(*of(times), rng=rng, **spec) for _ in range(50)]
    clips += [clip for n in (1, 2, 3, 10) for clip in sample_test(*of(times), num_clips=n, **spec)]
    clips += list(sample_covering(*of(times), **spec))
    for clip in clips:
        inside = (sections[:, 0] <= clip.min()) & (clip.max() < sections[:, 1])
        assert inside.sum() == 1
        if times is not FREEZE:
            assert len(set(clip.tolist())) >= 15  # vov3d and pyslowfast end at a short section's last frame


def test_a_camera_that_motion_triggers() -> None:
    clips = sample_covering(*of(BURSTS), **CLIP, times=BURSTS)
    assert clips[:, 0].tolist() == [7 + 90 * i for i in range(20)]
    clips = sample_test(*of(BURSTS), **CLIP, num_clips=10, times=BURSTS)
    assert (clips[0, 0], clips[-1, -1]) == (0, 1799)
    assert len({start // 90 for start in clips[:, 0].tolist()}) == 10  # ten bursts
    long = sample_test(*of(BURSTS), num_frames=16, stride=8, num_clips=10, times=BURSTS)  # 4 s: none holds it
    assert long[:, 0].tolist() == [180 * i for i in range(10)]
    assert {int(clip.max() - clip[0]) for clip in long} == {89}


def test_training_reaches_every_start_of_every_section() -> None:
    times = np.concatenate([seconds(3), 63 + seconds(2.6), 100 + seconds(1)])  # 15, 3 and no starts
    spec: dict[str, Any] = {**CLIP, "times": times}
    starts = [int(sample_train(*of(times), rng=Fixed((i + 0.5) / 18), **spec)[0]) for i in range(18)]
    assert starts == [*range(15), 90, 91, 92]
    # Where no section holds a clip each is drawn as often.
    spec = {"num_frames": 16, "stride": 8, "times": BURSTS}
    drawn = [int(sample_train(*of(BURSTS), rng=Fixed(i / 20 + 0.01), **spec)[0]) for i in range(20)]
    assert drawn == [90 * i for i in range(20)]


@pytest.mark.parametrize("times", [SCREEN, DOUBLED, 50 + DOUBLED], ids=["screen", "doubled", "late"])
def test_a_clip_is_taken_by_time(times: Times) -> None:
    """Each frame is the last at or before its moment, as a player shows it."""
    clips = sample_test(*of(times), **CLIP, num_clips=5, times=times)
    end = times[-1] + 1 / of(times)[1] - times[0]
    starts = np.floor(np.arange(5) * (np.ceil(end * 30 - 0.1) - 76) / 4) / 30
    for clip, start in zip(clips, starts, strict=True):
        moments = times[0] + start + np.arange(16) * 5 / 30
        expected = np.searchsorted(times, moments + 1e-3, side="right") - 1
        assert clip.tolist() == expected.tolist()
    assert clips[0, 0] == 0


def test_a_rate_that_doubles() -> None:
    clips = sample_test(*of(DOUBLED), **CLIP, num_clips=2, times=DOUBLED)
    assert clips[0].tolist() == list(range(0, 80, 5))
    assert (np.diff(clips[1]) == 10).all()
    middle = sample_test(*of(DOUBLED), **CLIP, num_clips=1, times=DOUBLED)[0]
    assert DOUBLED[middle[-1]] - DOUBLED[middle[0]] == pytest.approx(2.5, abs=1 / 30)
    assert len(sample_covering(*of(DOUBLED), **CLIP, times=DOUBLED)) == 4  # of 10 s, not of 450 frames


def test_rules_that_take_raw_frames_count_them_inside_sections() -> None:
    for rule in ("x3d-multigrid", "pyslowfast-charades"):
        times = np.concatenate([seconds(6, 25), 63 + seconds(6, 25)])
        for clip in sample_test(*of(times), **CLIP, num_clips=3, rule=rule, times=times):
            assert (np.diff(clip) == 5).all()


@pytest.mark.parametrize("rule", SEGMENT_RULES)
def test_segment_rules_leave_gaps_out(rule: str) -> None:
    spec: dict[str, Any] = {"num_frames": 6, "stride": 1, "rule": rule}
    for num_clips in (1, 2):
        found = sample_test(*of(PAUSE), num_clips=num_clips, times=PAUSE, **spec)
        np.testing.assert_array_equal(found, sample_test(180, 30, num_clips=num_clips, **spec))
        found = sample_test(*of(FREEZE), num_clips=num_clips, times=FREEZE, **spec)
        np.testing.assert_array_equal(found, sample_test(60, 30, num_clips=num_clips, **spec))
    found = sample_train(*of(PAUSE), times=PAUSE, rng=Fixed(0.4), **spec)
    np.testing.assert_array_equal(found, sample_train(180, 30, rng=Fixed(0.4), **spec))
    # Five seconds at 30 frames a second and five at 60: three frames each.
    found = sample_test(*of(DOUBLED), num_clips=1, times=DOUBLED, **spec)[0]
    assert (DOUBLED[found] < 5).sum() == 3
    assert len(sample_covering(*of(PAUSE), times=PAUSE, **spec)) == 1


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("times", [[7.0], [0.0, 60.0], [0.0, 1 / 30, 60.0], [0.0, 60.0, 60.03, 180.0]])
def test_very_short_videos_have_clips(rule: str, times: list[float]) -> None:
    array = np.array(times)
    spec: dict[str, Any] = {**CLIP, "rule": rule, "times": array}
    for clips in (
        sample_train(*of(array), rng=Fixed(0.5), **spec)[None],
        sample_test(*of(array), num_clips=1, **spec),
        sample_test(*of(array), num_clips=2, **spec),
        sample_covering(*of(array), **spec),
    ):
        assert clips.shape[1] == 16
        assert clips.min() >= 0
        assert clips.max() < len(array)


def test_a_plan_holds_each_frame_once() -> None:
    plan = plan_video(*of(SCREEN), SPEC, [parse_views("10x3")], times=SCREEN)
    assert (np.diff(plan.indices) > 0).all()
    clips = sample_test(*of(SCREEN), **CLIP, num_clips=10, times=SCREEN)
    assert [plan.indices[list(clip.frames)].tolist() for clip in plan.clips] == clips.tolist()


# --- windows -----------------------------------------------------------------------------------------------


def test_a_grid_and_its_windows_end_at_gaps() -> None:
    grid = frame_grid(*of(PAUSE), stride=5, times=PAUSE)
    assert grid.tolist() == [*range(0, 90, 5), *range(90, 180, 5)]
    windows = windows_over(video(PAUSE), SPEC, len(grid), 0.5)
    assert windows.starts == (0, 2, 18, 20)
    assert windows.cuts == (18,)
    assert [windows.frames(i)[-1] for i in range(4)] == [15, 17, 33, 35]
    assert windows.weights(1)[-1] == 1  # all there is before the gap
    assert windows.weights(2)[0] == 1
    grid = frame_grid(*of(FROZEN_END), stride=5, times=FROZEN_END)
    assert grid.tolist() == list(range(0, 200, 5))
    assert len(windows_over(video(FROZEN_END), SPEC, len(grid), 0.5).starts) == 4
    assert windows_over(FrameTimes(90, 30.0), SPEC, 18, 0.5) == plan_windows(18, 16)


def test_windows_of_short_sections() -> None:
    windows = plan_windows(12, 8, cuts=(3, 4))
    assert windows.starts == (0, 3, 4)
    assert [windows.section(i) for i in range(3)] == [(0, 3), (3, 4), (4, 12)]
    assert windows.frames(0).tolist() == [0, 1, 2, 2, 2, 2, 2, 2]
    assert windows.frames(1).tolist() == [3] * 8
    assert windows.frames(2).tolist() == list(range(4, 12))
    weights = np.zeros(12)
    for number, start in enumerate(windows.starts):
        num = min(8, windows.section(number)[1] - start)
        weights[start : start + num] += windows.weights(number)[:num]
    assert weights.tolist() == [1] * 12


# --- any times ---------------------------------------------------------------------------------------------


def odd_times(rng: np.random.Generator) -> Times:
    """Intervals of many lengths, with missing and repeated times, a clock that begins again, a wild stamp."""
    num = int(rng.integers(1, 120))
    lengths = (1 / 30, 1 / 60, 0.5, 1.0, 3.0, 60.0, 1e5, 1e-4)
    intervals = rng.choice(lengths, num, p=(0.5, 0.2, 0.1, 0.1, 0.04, 0.03, 0.01, 0.02))
    times = np.cumsum(intervals) + rng.choice((0, 1.4, -5, 1e6))
    kind = rng.integers(5)
    if kind == 1:
        times[rng.integers(0, num, max(1, num // 5))] = np.nan
    elif kind == 2:
        times = times[np.sort(rng.integers(0, num, num))]
    elif kind == 3:
        times[num // 2 :] -= rng.choice((1, 100, 1e5))
    elif kind == 4:
        times[rng.integers(num)] = 1e14
    return times


@pytest.mark.parametrize("seed", range(40))
def test_whatever_the_times_clips_lie_in_sections_and_are_few(seed: int) -> None:
    rng = np.random.default_rng(seed)
    times = odd_times(rng)
    num, fps = len(times), usual_rate(times, float(rng.choice((0, 30, 25, 1e-3, 1000))))
    found = FrameTimes(num, fps, times)
    sections = np.array(found.sections)
    assert found.duration > 0
    for rule in RULES:
        num_frames, stride = ((16, 5), (8, 8), (4, 2), (1, 1))[rng.integers(4)]
        spec: dict[str, Any] = {"num_frames": num_frames, "stride": stride, "rule": rule, "times": times}
        covering = sample_covering(num, fps, **spec)
        assert len(covering) <= 2 * num + 2
        clips = (sample_train(num, fps, rng=rng, **spec)[None], sample_test(num, fps, num_clips=2, **spec))
        for clip in np.concatenate([covering, *clips]):
            assert clip.shape == (num_frames,)
            assert clip.min() >= 0
            assert clip.max() < num
            inside = (sections[:, 0] <= clip.min()) & (clip.max() < sections[:, 1])
            assert rule in SEGMENT_RULES or inside.sum() == 1
