"""The timeline of a video as a chart and as a video."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from saccade.data.types import Action
from saccade.errors import UsageError
from saccade.inference import Localizer
from saccade.models import create_model, save_weights
from saccade.tasks.timeline import Timeline
from saccade.video import open_video, write_video
from saccade.visualize.charts import save_figure
from saccade.visualize.timeline import Panel, render_timeline, select_labels, timeline_chart

NAMES = ("first", "second", "third", "never")


@pytest.fixture
def timeline(tmp_path: Path) -> Timeline:
    frames = np.full((40, 30, 44, 3), 90, np.uint8)
    write_video(tmp_path / "video.mp4", frames, fps=20)
    scores = np.full((40, 4), 0.05, np.float32)
    scores[20:30, 0] = 0.9
    scores[0:8, 1] = 0.7
    scores[32:40, 1] = 0.6
    scores[10:12, 2] = 0.55
    return Timeline(str(tmp_path / "video.mp4"), NAMES, scores, 20.0)


def test_segments_are_above_the_threshold(timeline: Timeline):
    found = [(s.label, s.start, s.end, round(s.score, 3)) for s in timeline.segments()]
    assert found == [
        ("second", 0.0, 0.4, 0.7),
        ("third", 0.5, 0.6, 0.55),
        ("first", 1.0, 1.5, 0.9),
        ("second", 1.6, 2.0, 0.6),
    ]
    assert [s.label for s in timeline.segments(0.65)] == ["second", "first"]
    assert timeline.segments(0.95) == []
    assert timeline.top(2) == [("first", pytest.approx(0.9)), ("second", pytest.approx(0.7))]
    values = timeline.to_dict(0.65, 1)
    assert values["duration"] == 2.0
    assert values["actions"][1] == {"label": "first", "start": 1.0, "end": 1.5, "score": 0.9}
    assert [row["label"] for row in values["top"]] == ["first"]


def test_labels_are_in_the_order_of_time(timeline: Timeline):
    assert select_labels(timeline) == [1, 2, 0]
    assert select_labels(timeline, max_rows=2) == [1, 0]
    assert select_labels(timeline, truth=[Action(3, 0.1, 0.2)]) == [1, 3, 2, 0]
    assert len(select_labels(timeline, threshold=0.99)) == 4  # nothing above it: the best are shown


def test_the_chart_shows_scores_and_labels(timeline: Timeline, tmp_path: Path):
    figure = timeline_chart(timeline, title="video", truth=[Action(1, 0.0, 9.0)])
    axes = figure.axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["second", "third", "first"]
    assert [image.get_array().shape for image in axes.images] == [(1, 40)] * 3
    np.testing.assert_allclose(axes.images[2].get_array()[0], timeline.scores[:, 0])
    assert len(axes.collections) == 1
    assert axes.collections[0].get_paths()[0].get_extents().x1 == pytest.approx(2.0)  # ends with the video
    save_figure(figure, tmp_path / "chart.png")
    assert (tmp_path / "chart.png").stat().st_size > 3000


def test_the_rendered_video_has_the_panel_below(timeline: Timeline, tmp_path: Path):
    out = render_timeline(timeline, tmp_path / "out.mp4", truth=[Action(0, 1.0, 1.5)])
    with open_video(out) as video:
        assert (len(video), video.fps) == (40, 20.0)
        frames = video.frames(range(40)).numpy().astype(int)
    height = round(30 * 480 / 44)
    assert abs(frames[:, : height - 4, :, :] - 90).mean() < 6  # the video itself, enlarged
    panel = Panel(timeline, select_labels(timeline), width=frames.shape[2])
    assert frames.shape[1] == pytest.approx(height + panel.height, abs=2)


def test_the_line_moves_and_current_actions_are_highlighted(timeline: Timeline):
    panel = Panel(timeline, select_labels(timeline), width=480)
    assert panel.width == 480
    assert panel.height % 2 == 0
    before, during = np.asarray(panel.render(10)).astype(int), np.asarray(panel.render(25)).astype(int)
    changed = np.abs(before - during).sum(axis=(0, 2)) > 0
    right = np.flatnonzero(changed[panel.left :])
    assert right.max() - right.min() > 100  # two positions of the line, 15 frames apart
    names = slice(0, panel.left)
    row = slice(
        panel.margin + 2 * panel.row, panel.margin + 3 * panel.row
    )  # "first", above the threshold in frame 25
    orange = (during[row, names, 0] > 200) & (during[row, names, 2] < 120)
    assert orange.any()
    assert not ((before[row, names, 0] > 200) & (before[row, names, 2] < 120)).any()


def test_a_localizer_needs_a_model_that_localises(tmp_path: Path):
    save_weights(create_model("x2d", 3, gamma_w=0.3, head_width=8), tmp_path / "w.safetensors")
    with pytest.raises(UsageError, match="was trained for single-label, not to say when things happen"):
        Localizer(tmp_path / "w.safetensors")
