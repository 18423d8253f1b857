"""Predictions for videos that have gaps: windows lie in the recording, and times are those of the file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import saccade
from saccade.cli.predict import _facts
from saccade.cli.tables import timeline
from saccade.clip import ClipSpec
from saccade.data.ava_files import BoxRow
from saccade.video import write_video

CLIP = ClipSpec(num_frames=4, stride=5, crop=16, short_side=16, mean=(0, 0, 0), std=(1, 1, 1))
SECOND = np.arange(30) / 30
TIMES = {
    "pause": np.concatenate([8.3 + SECOND, 68.3 + SECOND]),
    "freeze": np.append(np.arange(60) / 30, 120.0),
    "even": np.arange(60) / 30,
    "screen": np.cumsum(np.random.default_rng(3).uniform(0.02, 0.6, 60)),
}


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos whose grey tells the frame."""
    folder = tmp_path_factory.mktemp("gaps")
    for name, times in TIMES.items():
        grey = (4 * np.arange(len(times)) + 3).astype(np.uint8)[:, None, None, None]
        write_video(folder / f"{name}.mp4", np.tile(grey, (1, 32, 32, 3)), fps=30, pts=times.tolist(), crf=0)
    return folder


class Watch(nn.Module):
    """Keeps the frames it is shown; finds them dark or bright."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.seen: list[list[int]] = []

    def forward(self, x: Tensor) -> Tensor:
        grey = x.mean((1, 3, 4)) * 255
        self.seen += (grey / 4).int().tolist()
        level = grey.mean(1) + self.weight
        return torch.stack([120 - level, level - 120], 1)


def watched(path: Path, views: str = "auto") -> tuple[saccade.Prediction, list[list[int]]]:
    model = Watch()
    found = saccade.Predictor(model, ["dark", "bright"], clip=CLIP, views=views)(path)
    return found, model.seen


def test_windows_lie_inside_the_recording(folder: Path):
    found, seen = watched(folder / "pause.mp4")
    assert found.views == "4x1"  # two for each second of footage
    assert seen == [[s, s + 5, s + 10, s + 15] for s in (0, 14, 30, 44)]
    spans = [(window.start, window.end) for window in found.windows]
    np.testing.assert_allclose(spans, [(t, t + 16 / 30) for t in (0, 14 / 30, 60, 60 + 14 / 30)], atol=1e-3)
    np.testing.assert_allclose(found.gaps, [(1, 60)], atol=1e-3)
    assert found.duration == pytest.approx(61, abs=1e-3)
    assert found.fps == pytest.approx(30)
    assert found.to_dict()["gaps"] == [{"start": 1.0, "end": 60.0}]
    assert json.loads(json.dumps(found.to_dict()))["duration"] == 61.0
    assert _facts(found, "4 clips") == "61.0 s, 30 fps, 4 clips, gap 0:01-1:00"
    line = timeline(found.windows, found.duration, width=61, gaps=found.gaps)[0].plain
    assert line == "  A" + 59 * " " + "B" or line == "  B" + 59 * " " + "A"


def test_a_last_frame_that_stands_for_minutes_has_no_window(folder: Path):
    found, seen = watched(folder / "freeze.mp4")
    assert seen == [[0, 5, 10, 15], [22, 27, 32, 37], [44, 49, 54, 59]]
    assert found.windows[-1].end == pytest.approx(2, abs=1e-3)
    np.testing.assert_allclose(found.gaps, [(2, 120 + 1 / 30)], atol=1e-3)


def test_an_even_video_says_nothing_of_gaps(folder: Path):
    found, seen = watched(folder / "even.mp4")
    assert seen == [[0, 5, 10, 15], [22, 27, 32, 37], [44, 49, 54, 59]]
    assert found.gaps == ()
    assert "gaps" not in found.to_dict()
    assert _facts(found, "4 clips") == "2.0 s, 30 fps, 4 clips"


def test_views_given_by_name_are_spread_over_the_sections(folder: Path):
    _, seen = watched(folder / "pause.mp4", views="1x1")
    assert seen == [[7, 12, 17, 22]]
    _, seen = watched(folder / "pause.mp4", views="2x1")
    assert seen == [[0, 5, 10, 15], [44, 49, 54, 59]]


def test_a_screen_recording_is_shown_as_a_player_shows_it(folder: Path):
    found, seen = watched(folder / "screen.mp4")
    times = TIMES["screen"] - TIMES["screen"][0]
    assert found.gaps == ()
    assert len(seen) == pytest.approx(found.duration / (20 / 30), abs=1)
    for frames, window in zip(seen, found.windows, strict=True):
        assert window.start == pytest.approx(times[frames[0]], abs=1e-3)
        spans = times[frames[-1]] - times[frames[0]]
        assert abs(spans - 0.5) < 0.6  # 15 steps of a thirtieth, and a frame may have been shown for long
    assert found.windows[0].start == 0
    assert found.windows[-1].end == pytest.approx(found.duration)


def test_actions_in_time_end_at_gaps(folder: Path):
    class PerFrame(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            grey = x.mean((1, 3, 4)) * 255 / 4  # the number of each frame
            return torch.stack([grey - 20, 40 - grey], 1)

    locate = saccade.Localizer(PerFrame(), ["late", "early"], clip=CLIP.replace(stride=1))
    found = locate(folder / "pause.mp4")
    assert found.scores.shape == (60, 2)
    segments = [(s.label, s.start, s.end) for s in found.segments()]
    expected = [("early", 0, 1), ("late", 20 / 30, 1), ("early", 60, 60 + 10 / 30), ("late", 60, 61)]
    assert [label for label, *_ in segments] == [label for label, *_ in expected]
    np.testing.assert_allclose([span for _, *span in segments], [e[1:] for e in expected], atol=2e-3)
    assert found.duration == pytest.approx(61, abs=1e-3)
    assert found.to_dict()["gaps"] == [{"start": 1.0, "end": 60.0}]
    assert found.frames_at(61).tolist() == [15] + 59 * [-1] + [45]
    frozen = locate(folder / "freeze.mp4")
    assert frozen.scores.shape == (61, 2)
    assert max(segment.end for segment in frozen.segments()) == pytest.approx(2, abs=1e-3)
    assert "gaps" not in locate(folder / "even.mp4").to_dict()


def test_people_are_looked_at_in_the_recording(folder: Path):
    class Boxes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[list[int]] = []

        def forward(self, x: Tensor, boxes: list[Tensor]) -> Tensor:
            self.seen.append((x.mean((0, 1, 3, 4)) * 255 / 4).int().tolist())
            return torch.zeros(sum(map(len, boxes)), 2)

    rows = [BoxRow("pause", second, (0.1, 0.1, 0.9, 0.9), None) for second in (0, 20, 59, 60)]
    model = Boxes()
    model.task = "detection"  # type: ignore[assignment]
    found = saccade.Detector(model, ["sit", "stand"], boxes=rows, clip=CLIP.replace(stride=2))(
        folder / "pause.mp4"
    )
    assert [person.time for person in found.people] == [0, 20, 59, 60]
    # 20 and 59 are in the gap, and the clip of 60 would begin in it
    assert model.seen == [[0, 0, 0, 2], [29] * 4, [30] * 4, [30, 30, 30, 32]]
    np.testing.assert_allclose(found.gaps, [(1, 60)], atol=1e-3)
    assert found.to_dict()["gaps"] == [{"start": 1.0, "end": 60.0}]
