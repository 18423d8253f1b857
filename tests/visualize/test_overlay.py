"""Input clips, and heat maps over their frames."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from saccade.clip import ClipSpec
from saccade.transforms import test_transform
from saccade.video import open_video, write_video
from saccade.visualize.clips import InputClip, read_clip
from saccade.visualize.overlay import (
    MapRow,
    _num_columns,
    evenly_spaced,
    interpolate_maps,
    map_sheet,
    map_video,
    overlay_maps,
)

SPEC = ClipSpec(num_frames=4, stride=3, crop=24, short_side=30, target_fps=10.0)


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frame i is grey i * 10, with a white square at its centre."""
    path = tmp_path_factory.mktemp("video") / "steps.mp4"
    frames = np.zeros((20, 60, 80, 3), np.uint8) + (np.arange(20, dtype=np.uint8) * 10)[:, None, None, None]
    frames[:, 26:34, 36:44] = 255
    write_video(path, frames, fps=10, crf=0, pix_fmt="yuv444p")
    return path


@pytest.fixture(scope="module")
def clip(video: Path) -> InputClip:
    return read_clip(video, SPEC)


def test_read_clip_has_model_inputs_and_larger_frames(video: Path, clip: InputClip):
    assert clip.indices.tolist() == [5, 8, 11, 14]  # the middle one
    assert clip.seconds.tolist() == [0.5, 0.8, 1.1, 1.4]
    assert clip.span == range(5, 15)
    with open_video(video, short_side=30) as reader:
        expected = test_transform(reader.frames([5, 8, 11, 14]), SPEC)
    assert torch.equal(clip.inputs, expected)
    assert clip.frames.shape == (4, 48, 48, 3)  # 24 of 30 pixels are 48 of 60
    assert clip.frames[:, 0, 0, 0].tolist() == pytest.approx([50, 80, 110, 140], abs=2)
    ys, xs = np.nonzero(clip.frames[0, :, :, 0] > 200)
    assert (ys.min(), ys.max(), xs.min(), xs.max()) == (20, 27, 20, 27)  # the square stays in the middle
    every = list(clip.all_frames())
    assert [int(frame[0, 0, 0]) for frame in every] == pytest.approx(list(range(50, 150, 10)), abs=2)


def test_read_clip_from_a_start(video: Path):
    assert read_clip(video, SPEC, start=1.0).indices.tolist() == [10, 13, 16, 19]
    assert read_clip(video, SPEC, start=1.9).indices.tolist() == [19, 19, 19, 19]


def test_maps_are_interpolated_in_time_and_space(clip: InputClip):
    maps = np.zeros((2, 4, 4), np.float32)
    maps[1, 0, 3] = 0.5  # later half, top right
    resampled = interpolate_maps(MapRow("", maps), clip, np.arange(4))
    assert resampled.shape == (4, 48, 48)
    y, x = np.unravel_index(resampled[3].argmax(), (48, 48))
    assert y < 6
    assert x >= 40
    # two maps are centred at 1/4 and 3/4 of the clip, the four frames at 1/8, 3/8, 5/8, 7/8
    assert resampled.max(axis=(1, 2)) / resampled.max() == pytest.approx([0, 0.25, 0.75, 1])
    same = np.random.default_rng(0).random((4, 48, 48), np.float32)
    np.testing.assert_allclose(interpolate_maps(MapRow("", same), clip, np.arange(4)), same, atol=1e-4)
    one = MapRow("", np.full((1, 1, 1), 0.4, np.float32))
    np.testing.assert_allclose(interpolate_maps(one, clip, np.arange(4)), 0.4, atol=1e-6)


def test_cells_of_strided_convolutions(clip: InputClip):
    maps = np.zeros((2, 3, 3), np.float32)
    maps[1, 1, 2] = 0.5  # centred on frame 2, pixel (8, 16) of 24, which is (16, 32) of 48
    resampled = interpolate_maps(MapRow("", maps, strides=(2, 8)), clip, np.arange(4))
    assert resampled[2].argmax() in [y * 48 + x for y in (16, 17) for x in (32, 33)]
    assert resampled[1].max() == pytest.approx(resampled[2].max() / 2)
    assert resampled[3].max() == pytest.approx(resampled[2].max())  # beyond the last one


def test_colours_follow_the_map():
    frames = np.full((1, 2, 3, 3), 120, np.uint8)
    maps = np.array([[[0, 0.5, 1.0], [0, 0.5, 1.0]]])
    shown = overlay_maps(frames, maps)[0, 0].astype(int)
    lightness = shown @ np.array([0.299, 0.587, 0.114])
    assert lightness[0] < lightness[1] < lightness[2]
    assert abs(shown[0] - 120).max() < 40  # the frame shows through
    assert shown[2, 0] > shown[2, 2] + 30  # yellow


def test_evenly_spaced():
    assert evenly_spaced(4, 8) == [0, 1, 2, 3]
    assert evenly_spaced(16, 4) == [0, 5, 10, 15]
    assert evenly_spaced(16, 1) == [0]


def test_a_sheet_has_a_labelled_row_for_each_map(clip: InputClip):
    rows = [MapRow(f"map_{i}", np.full((2, 3, 3), i / 2, np.float32), "9 %") for i in range(3)]
    below = MapRow("in time", np.array([0.2, 0.8], np.float32).reshape(2, 1, 1))
    figure = map_sheet(clip, rows, title="Title", bar="weight", columns=3, below=below)
    pictures = [axes for axes in figure.axes if axes.images]
    assert len(pictures) == 4 * 3
    first = pictures[0].images[0].get_array()
    np.testing.assert_array_equal(first, clip.frames[0])
    boxes = [axes.get_position() for axes in pictures]
    size = figure.get_size_inches()
    assert all(box.width * size[0] == pytest.approx(box.height * size[1]) for box in boxes)  # squares
    texts = [text.get_text() for text in figure.texts]
    assert {"Title", "map_0", "map_2", "9 %", "in time", "0.50 s", "1.40 s"} <= set(texts)
    bars = [axes for axes in figure.axes if axes.patches and not axes.images]
    assert [bar.get_height() for bar in bars[0].patches] == pytest.approx([0.2, 0.8])
    figure.canvas.draw()
    drawn = [text.get_window_extent() for text in figure.texts]
    assert all(box.x0 >= 0 and box.x1 <= figure.bbox.x1 for box in drawn)  # nothing is clipped


def test_the_video_has_every_frame_of_the_span_and_the_maps(clip: InputClip, tmp_path: Path):
    maps = np.zeros((4, 2, 2), np.float32)
    maps[3] = 1.0
    rows = [MapRow("first", maps), MapRow("second", 1 - maps, "5 %")]
    out = map_video(clip, rows, tmp_path / "out.mp4", title="a title that does not fit " * 20)
    with open_video(out) as reader:
        assert (len(reader), reader.fps) == (10, 10.0)
        height, width = reader.size
        frames = reader.frames(range(10)).numpy().astype(float)
    assert height % 2 == width % 2 == 0
    assert width > 3 * 256
    middle = height // 2
    first, second = frames[:, middle, width // 2 + 60], frames[:, middle, width - 100]
    assert first[-1, 0] - first[0, 0] > 60  # from dark to yellow
    assert second[-1, 0] - second[0, 0] < 20
    plain = frames[:, middle, 60, 0]
    assert plain == pytest.approx(np.arange(50, 150, 10), abs=6)


def test_num_columns():
    assert [_num_columns(num) for num in (1, 2, 3, 4, 11, 15)] == [1, 2, 3, 4, 6, 5]
