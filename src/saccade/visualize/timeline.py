"""The timeline of a video: a chart, and the video with the timeline below it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from saccade.data.types import Action
from saccade.tasks.timeline import THRESHOLD, Timeline
from saccade.video import open_video
from saccade.video.write import write_video
from saccade.visualize.charts import BLUE, GREY, INK, ORANGE, shorten, styled
from saccade.visualize.clips import read_blocks
from saccade.visualize.overlay import load_font, video_size

_MAX_ROWS = 12  # classes
_COLUMNS = 1000  # of the chart of a video with a variable frame rate
_STRIP = LinearSegmentedColormap.from_list("strip", ["#f3f5f8", "#9dbcf2", BLUE])


def timeline_chart(
    timeline: Timeline,
    *,
    title: str = "",
    threshold: float = THRESHOLD,
    truth: Sequence[Action] = (),
    max_rows: int = _MAX_ROWS,
) -> Figure:
    """A strip of scores for each detected or labelled class, with a bar below it for the labelled segments.

    If no score reaches ``threshold`` and there are no labels, the best five classes are shown.

    Args:
        truth: the labelled actions.
        max_rows: maximum number of classes.
    """
    labels = select_labels(timeline, threshold=threshold, truth=truth, max_rows=max_rows)
    scores = timeline.scores
    if timeline.frames.varies or timeline.damaged:
        columns = timeline.frames_at(_COLUMNS)
        scores = np.where(columns[:, None] >= 0, scores[columns], np.nan)  # nothing is drawn in a gap
    with styled():
        figure = Figure(figsize=(6.4, 1.0 + 0.32 * len(labels)), layout="constrained")
        axes = figure.add_subplot()
        for row, label in enumerate(labels):
            axes.imshow(
                scores[None, :, label],
                cmap=_STRIP,
                vmin=0,
                vmax=1,
                aspect="auto",
                interpolation="nearest",
                extent=(0, timeline.duration, row + 0.32, row - 0.38),
            )
            for action in truth:
                if action.label == label:
                    span = (action.start, min(action.end, timeline.duration) - action.start)
                    axes.broken_barh([span], (row + 0.34, 0.1), color=ORANGE)
        axes.set_xlim(0, timeline.duration)
        axes.set_ylim(len(labels) - 0.4, -0.6)
        axes.set_yticks(range(len(labels)), [shorten(timeline.class_names[label], 28) for label in labels])
        axes.grid(visible=False)
        axes.set(title=title, xlabel="seconds" + (" (orange: labelled)" if truth else ""))
        return figure


def select_labels(
    timeline: Timeline,
    *,
    threshold: float = THRESHOLD,
    truth: Sequence[Action] = (),
    max_rows: int = _MAX_ROWS,
) -> list[int]:
    """The classes to show, in the order of their first detection or label."""
    above = timeline.scores >= threshold
    first = {label: int(above[:, label].argmax()) for label in np.flatnonzero(above.any(axis=0)).tolist()}
    for action in truth:
        begin = int(timeline.frames.at(action.start))
        first[action.label] = min(first.get(action.label, begin), begin)
    best = timeline.best_labels(len(timeline.class_names))
    selected = [label for label in best if label in first][:max_rows] or best[: min(5, max_rows)]
    return sorted(selected, key=lambda label: (first.get(label, 0), label))


def render_timeline(
    timeline: Timeline,
    out: str | os.PathLike[str],
    *,
    threshold: float = THRESHOLD,
    truth: Sequence[Action] = (),
    max_rows: int = _MAX_ROWS,
) -> Path:
    """Write the video as mp4 with its timeline below: a line marks the time, and current actions are
    highlighted.

    Raises:
        VideoError: the video cannot be read, or ``out`` cannot be written.
    """
    target = Path(out)
    labels = select_labels(timeline, threshold=threshold, truth=truth, max_rows=max_rows)
    with open_video(timeline.path, threads=0) as reader:
        height, width = video_size(*reader.size)
        panel = Panel(timeline, labels, width=width, threshold=threshold, truth=truth)

        def frames() -> Iterator[NDArray[np.uint8]]:
            for number, frame in enumerate(chain.from_iterable(read_blocks(reader, 0, len(reader)))):
                picture = Image.new("RGB", (width, height + panel.height), "white")
                picture.paste(Image.fromarray(frame).resize((width, height)), (0, 0))
                picture.paste(panel.render(number), (0, height))
                yield np.asarray(picture)

        write_video(target, frames(), fps=timeline.fps, crf=20, options={"preset": "veryfast"})
    return target


class Panel:
    """Renders the timeline for each frame of the video."""

    def __init__(
        self,
        timeline: Timeline,
        labels: Sequence[int],
        *,
        width: int,
        threshold: float = THRESHOLD,
        truth: Sequence[Action] = (),
    ) -> None:
        self.timeline, self.labels, self.threshold = timeline, list(labels), threshold
        self.row = max(16, round(width / 30))
        self.font = load_font(round(0.68 * self.row))
        self.margin = self.row // 2
        self.left = self.margin + min(
            width // 2, max(round(self.font.getlength(self._name(label))) for label in labels) + self.row
        )
        self.width = width
        self.height = 2 * round((self.row * (len(labels) + 1) + 2 * self.margin) / 2)
        self._background = self._draw_background(truth)

    def render(self, frame: int) -> Image.Image:
        """The panel for frame number ``frame``."""
        picture = self._background.copy()
        draw = ImageDraw.Draw(picture)
        for row, label in enumerate(self.labels):
            score = float(self.timeline.scores[frame, label])
            colour = ORANGE if score >= self.threshold else GREY
            draw.text((self.margin, self._top(row)), self._name(label), fill=colour, font=self.font)
        x = self._x(float(self.timeline.frames.seconds(frame)) + 0.5 / self.timeline.fps)
        draw.line((x, self.margin, x, self._top(len(self.labels))), fill=INK, width=max(1, self.row // 10))
        return picture

    def _draw_background(self, truth: Sequence[Action]) -> Image.Image:
        """The parts that are the same in all frames: strips, labelled segments, axis."""
        picture = Image.new("RGB", (self.width, self.height), "white")
        draw = ImageDraw.Draw(picture)
        columns = self.timeline.frames_at(self.width - self.margin - self.left)
        height = round(0.66 * self.row)
        for row, label in enumerate(self.labels):
            scores = self.timeline.scores[columns, label]
            strip = (np.asarray(_STRIP(scores))[:, :3] * 255).round().astype(np.uint8)
            strip[columns < 0] = 255
            image = Image.fromarray(np.repeat(strip[None], height, axis=0))
            picture.paste(image, (self.left, self._top(row)))
            for action in truth:
                if action.label == label:
                    begin, end = self._x(action.start), self._x(min(action.end, self.timeline.duration))
                    y = self._top(row) + height
                    draw.rectangle((begin, y, end, y + self.row // 8), fill=ORANGE)
        below, last = self._top(len(self.labels)), f"{self.timeline.duration:.1f} s"
        draw.text((self.left, below), "0", fill=GREY, font=self.font)
        x = self.width - self.margin - self.font.getlength(last)
        draw.text((x, below), last, fill=GREY, font=self.font)
        return picture

    def _name(self, label: int) -> str:
        return shorten(self.timeline.class_names[label], 24)

    def _top(self, row: int) -> int:
        return self.margin + row * self.row

    def _x(self, seconds: float) -> float:
        return self.left + (self.width - self.margin - self.left) * seconds / self.timeline.duration
