"""Videos with person boxes and their actions."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from saccade.sampling.timing import FrameTimes
from saccade.video import open_video
from saccade.video.damage import ReadableFrames
from saccade.video.write import write_video
from saccade.visualize.charts import BLUE, GREY
from saccade.visualize.clips import read_blocks
from saccade.visualize.overlay import load_font, video_size

_MARGIN = 1.0  # seconds shown before the first keyframe and after the last
_MAX_DISTANCE = 0.5  # seconds before and after its keyframe in which a box is shown


class DrawnPerson(Protocol):
    """A person box: ``box`` (x1, y1, x2, y2) as fractions of the frame, ``time`` in seconds."""

    @property
    def time(self) -> float: ...
    @property
    def box(self) -> tuple[float, float, float, float]: ...


def render_people(
    video: str | os.PathLike[str],
    people: Sequence[DrawnPerson],
    captions: Sequence[Sequence[str]],
    out: str | os.PathLike[str],
    *,
    frames_fps: float | None = None,
    damaged: bool = False,
) -> Path:
    """Write an mp4 of the part of a video that has boxes, with the boxes and their actions.

    Each frame shows the boxes of the nearest keyframe, at most half a second away. Boxes without a caption
    are grey.

    Args:
        captions: lines of text for each of ``people``.
        frames_fps: frames per second of a folder of images.
        damaged: skip frames that cannot be decoded.

    Raises:
        VideoError: the video cannot be read, or ``out`` cannot be written.
    """
    target = Path(out)
    times = np.unique([person.time for person in people])
    with open_video(video, fps=frames_fps, threads=0) as whole:
        reader = ReadableFrames(whole) if damaged else whole
        (height, width), timing = video_size(*reader.size), FrameTimes.of(reader)
        start, last = timing.at([times[0] - _MARGIN, times[-1] + _MARGIN]).tolist()

        def frames() -> Iterator[NDArray[np.uint8]]:
            all_frames = chain.from_iterable(read_blocks(reader, start, last + 1))
            for number, frame in enumerate(all_frames, start=start):
                picture = Image.fromarray(frame).resize((width, height))
                time = float(timing.seconds(number))
                nearest = times[np.abs(times - time).argmin()]
                if abs(nearest - time) <= _MAX_DISTANCE:
                    for person, lines in zip(people, captions, strict=True):
                        if person.time == nearest:
                            draw_person(picture, person.box, lines)
                yield np.asarray(picture)

        write_video(target, frames(), fps=timing.fps, crf=20, options={"preset": "veryfast"})
    return target


def draw_person(picture: Image.Image, box: tuple[float, float, float, float], lines: Sequence[str]) -> None:
    """Draw a box, given in fractions of the picture, with its lines of text at the top."""
    draw = ImageDraw.Draw(picture)
    colour, unit = BLUE if lines else GREY, max(10, picture.height // 24)
    x1, y1, x2, y2 = (fraction * size for fraction, size in zip(box, picture.size * 2, strict=True))
    draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=colour, width=max(2, unit // 6))
    font = load_font(unit)
    for row, line in enumerate(lines):
        width = font.getlength(line) + unit // 2
        left = min(max(0.0, x1), max(0.0, picture.width - width))
        top = min(y1, picture.height - 1.25 * unit * len(lines)) + 1.25 * unit * row
        top = max(top, 1.25 * unit * row)
        draw.rectangle((left, top, left + width, top + 1.25 * unit), fill=colour)
        draw.text((left + unit // 4, top), line, fill="white", font=font)
