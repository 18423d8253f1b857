from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from saccade.errors import VideoError
from saccade.video import write_video
from saccade.visualize.charts import (
    confusion_chart,
    inline_svg,
    line_chart,
    per_class_chart,
    save_figure,
    shorten,
    sparse_view_chart,
)
from saccade.visualize.sheets import data_uri, frame_strip


def figures():
    names = ["jump", "throw", "投げる", "a class with a name that is far too long"]
    yield line_chart({"training": ([1, 2], [0.1, 0.5]), "validation": ([1, 2], [0.1, 0.4])}, title="Top-1")
    yield line_chart({"lr": ([1, 2], [0.1, 0.5])}, title="lr", percent=True, bottom=0, small=True)
    yield confusion_chart(np.eye(4, dtype=int) * 3, names)
    yield confusion_chart(np.eye(70, dtype=int), [str(i) for i in range(70)])
    yield confusion_chart(np.zeros((4, 4), int), names)
    yield per_class_chart(names, [0, 0.2, 0.5, 1.0])
    yield sparse_view_chart([("10x1", 19, 0.75), ("1x1", 1.9, 0.71)], label="x3d_s")
    yield sparse_view_chart([("1x1", 1.9, 0.71)])


@pytest.mark.parametrize("suffix", [".svg", ".png"])
def test_charts_are_written_as_svg_and_png(tmp_path: Path, suffix: str):
    for number, figure in enumerate(figures()):
        path = tmp_path / f"{number}{suffix}"
        save_figure(figure, path, dpi=60)
        if suffix == ".svg":
            assert ElementTree.parse(path).getroot().tag.endswith("svg")
        else:
            with Image.open(path) as picture:
                assert picture.getpixel((0, 0))[:3] == (255, 255, 255)
                assert len(set(picture.convert("L").tobytes())) > 3
    assert len(list(tmp_path.iterdir())) == number + 1


def test_charts_are_deterministic(tmp_path: Path):
    for name in ("a.svg", "b.svg"):
        save_figure(line_chart({"x": ([1, 2, 3], [1, 3, 2])}, title="T"), tmp_path / name)
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()


def test_inline_charts_use_the_colours_of_the_page_and_have_unique_ids():
    first, second = (
        inline_svg(figure, label=f"chart {i}") for i, figure in zip("ab", figures(), strict=False)
    )
    for svg in (first, second):
        root = ElementTree.fromstring(svg)
        assert "var(--ink)" in svg
        assert "#1c2430" not in svg
        assert root.get("role") == "img"
        assert root.get("width") is None
    ids = [
        {node.get("id") for node in ElementTree.fromstring(svg).iter()} - {None} for svg in (first, second)
    ]
    assert ids[0]
    assert not ids[0] & ids[1]


def test_inline_label_is_escaped():
    svg = inline_svg(line_chart({"x": ([1, 2], [1, 3])}, title="T"), label='a "b" <c> & d')
    assert ElementTree.fromstring(svg).get("aria-label") == 'a "b" <c> & d'


def test_drawing_does_not_change_rcparams():
    before = dict(matplotlib.rcParams)
    list(figures())
    assert dict(matplotlib.rcParams) == before


def test_shorten():
    assert shorten("short", 10) == "short"
    assert shorten("a rather long name", 10) == "a rather…"
    assert len(shorten("x" * 40, 22)) == 22


def test_frame_strip_shows_frames_in_order(tmp_path: Path):
    levels = np.arange(40, 240, 5, dtype=np.uint8)  # 40 frames, each brighter than the one before
    frames = np.broadcast_to(levels[:, None, None, None], (40, 32, 48, 3))
    write_video(tmp_path / "v.mp4", frames, fps=30, crf=5)
    strip = frame_strip(tmp_path / "v.mp4", num_frames=4, height=20)
    assert strip.size == (4 * 30 + 3 * 2, 20)
    centres = [strip.getpixel((15 + 32 * i, 10))[0] for i in range(4)]
    assert centres == pytest.approx([40 + 5 * place for place in (5, 15, 25, 35)], abs=4)
    assert data_uri(strip).startswith("data:image/jpeg;base64,/9j/")
    assert frame_strip(tmp_path / "v.mp4", num_frames=1).height == 96


def test_frame_strip_of_a_missing_video(tmp_path: Path):
    with pytest.raises(VideoError, match=r"none\.mp4"):
        frame_strip(tmp_path / "none.mp4")
