"""Times that a file states, mended, and the rate that describes them."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest

from saccade.video import open_video, write_video
from saccade.video.index import clear_index_cache
from saccade.video.times import is_steady, presentation_times, usual_rate

NAN = float("nan")
EVEN = np.arange(60) / 30


def test_times_that_rise_are_taken_as_they_are() -> None:
    late = EVEN + 8.333
    np.testing.assert_array_equal(presentation_times(late, 30), late)
    assert presentation_times([4.0], 30).tolist() == [4.0]


@pytest.mark.parametrize(
    ("stamps", "expected"),
    [
        ([0, 1, NAN, 3, 4], [0, 1, 2, 3, 4]),
        ([NAN, 1, 2, 3, NAN], [0, 1, 2, 3, 4]),
        ([0, 1, 1, 3, 4], [0, 1, 2, 3, 4]),  # a time twice
        ([0, 0, 2, 2, 4, 4], [0, 1, 2, 3, 4, 6]),  # every time twice, as of fields
        ([0, 3, 1, 2, 6, 4, 5, 9], [0, 3, 4, 5, 6, 7, 8, 9]),  # in the order of decoding
        ([0, NAN, NAN, NAN, 9], [0, 0.5, 1.0, 1.5, 2.0]),  # too few: index / fps
        ([NAN] * 3, [0, 0.5, 1.0]),
        ([NAN], [0]),
        ([0, 1, 1e14, 3, 4], [0, 1, 2, 3, 4]),  # a time far beyond the frames after it
        ([0, 1e14], [0, 0.5]),  # millions of years apart
    ],
)
def test_missing_and_repeated_times_lie_between_their_neighbours(
    stamps: list[float], expected: list[float]
) -> None:
    times = presentation_times(stamps, 2.0)
    np.testing.assert_allclose(times, expected)
    assert (np.diff(times) > 0).all()


def test_a_clock_that_begins_again_goes_on() -> None:
    joined = np.concatenate([EVEN, EVEN, EVEN - 95_443.7])  # the last: a transport stream whose clock wraps
    np.testing.assert_allclose(presentation_times(joined, 30), np.arange(180) / 30)


@pytest.mark.parametrize(
    ("times", "stated", "expected"),
    [
        (EVEN, 30.0, 30.0),
        (EVEN, 30.3, 30.3),  # agrees within 2 %
        (EVEN, 25.0, 30.0),
        (EVEN, 0.0, 30.0),
        (np.full(60, NAN), 24.0, 24.0),
        (np.full(60, NAN), 0.0, 30.0),
        ([5.0], 0.0, 30.0),
        ([0.0, 60.0], 0.0, 1 / 60),
        (np.arange(40) * 2.0, 0.5, 0.5),  # timelapse
        (np.append(EVEN, 120.0), 0.5, 30.0),  # the last frame stands for two minutes
        (np.concatenate([EVEN, 63 + EVEN]), 2.7, 30.0),
        (np.concatenate([EVEN, 2 + np.arange(200) / 60]), 49.0, 60.0),
        ([0.0, 1 / 30, 60.0], 0.05, 30.0),
    ],
)
def test_usual_rate(times: np.ndarray, stated: float, expected: float) -> None:
    assert usual_rate(times, stated) == pytest.approx(expected, rel=1e-6)


def test_the_usual_rate_of_times_in_milliseconds() -> None:
    times = np.round(np.concatenate([EVEN, 63 + EVEN]), 3)  # intervals of 33 and 34 ms
    assert usual_rate(times, 0) == pytest.approx(30, rel=1e-3)


def test_steady() -> None:
    assert is_steady(np.round(EVEN, 3))
    assert is_steady(np.cumsum([1 / 30, 1 / 20] * 30))  # 24 frames a second pulled down to 60 fields
    assert is_steady(np.array([0.0, 60.0]))
    assert not is_steady(np.append(EVEN, 120.0))
    assert is_steady(np.delete(EVEN, 30))  # a dropped frame: half a frame to either side
    assert not is_steady(np.delete(EVEN, [30, 31]))


def _write(path: Path, times: np.ndarray) -> None:
    levels = np.random.default_rng(0).integers(0, 255, (len(times), 1, 1, 3)).astype(np.uint8)
    write_video(path, np.tile(levels, (1, 16, 16, 1)), fps=30, pts=times.tolist())


def test_a_file_of_varying_rate_is_warned_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _write(tmp_path / "pause.mp4", np.concatenate([EVEN, 63 + EVEN]))
    _write(tmp_path / "even.mp4", EVEN)
    clear_index_cache()
    with caplog.at_level(logging.WARNING):
        for name in ("pause.mp4", "even.mp4", "pause.mp4"):
            with open_video(tmp_path / name) as reader:
                assert reader.fps == pytest.approx(30, rel=1e-6)
                assert len(reader.times) == len(reader)
    assert len(caplog.records) == 1
    assert "pause.mp4" in caplog.text
