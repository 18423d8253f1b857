"""Strips of frames: a whole video in one strip, and the clips of a batch under each other with captions."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from saccade.video import open_video
from saccade.visualize.charts import GREY, INK, ORANGE

_FRAMES = 8  # of a clip shown
_SIDE = 112  # pixels of a frame at most
_TEXT_WIDTH, _MARGIN, _GAP = 210, 12, 2
_SIZE, _SMALL = 13, 11  # of letters


def frame_strip(path: str | os.PathLike[str], *, num_frames: int = 6, height: int = 96) -> Image.Image:
    """Frames spread evenly over a video, side by side, each ``height`` pixels high.

    Raises:
        VideoError: the video cannot be read.
    """
    with open_video(path, short_side=height) as reader:
        places = (np.arange(num_frames) + 0.5) * len(reader) / num_frames
        frames = reader.frames([int(place) for place in places]).numpy()
    pictures = [Image.fromarray(frame) for frame in frames]
    width = max(1, round(pictures[0].width * height / pictures[0].height))
    gap = 2
    strip = Image.new("RGB", ((width + gap) * len(pictures) - gap, height), "white")
    for place, picture in enumerate(pictures):
        strip.paste(picture.resize((width, height), Image.Resampling.LANCZOS), (place * (width + gap), 0))
    return strip


def data_uri(image: Image.Image, *, quality: int = 78) -> str:
    """The picture as a JPEG in a ``data:`` address, for pages that stand alone."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def clip_sheet(
    clips: NDArray[np.uint8],
    captions: Sequence[str],
    notes: Sequence[str],
    *,
    title: str,
    boxes: Sequence[NDArray[np.float32]] | None = None,
) -> Image.Image:
    """A row for each clip: caption, note, and up to eight of its frames, evenly spread.

    Args:
        clips: (B, T, H, W, 3).
        captions, notes: a line or more for each clip, in dark and in grey.
        boxes: rectangles (N, 4) to draw into every frame of each clip, in pixels of the clip.
    """
    num_clips, length, height, width, _ = clips.shape
    shown = np.unique(np.linspace(0, length - 1, min(length, _FRAMES)).round().astype(int))
    scale = min(1.0, _SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    row = max(size[1], 4 * _SIZE) + 8
    strip = _MARGIN + _TEXT_WIDTH
    total = (strip + len(shown) * (size[0] + _GAP) + _MARGIN, _MARGIN + 30 + num_clips * row + _MARGIN)
    sheet = Image.new("RGB", total, "white")
    draw = ImageDraw.Draw(sheet)
    draw.text((_MARGIN, _MARGIN), title, fill=INK, font=_font(_SIZE + 2))
    for number, clip in enumerate(clips):
        top = _MARGIN + 30 + number * row
        below = _write(draw, captions[number], top, INK, _SIZE)
        _write(draw, notes[number], below + 2, GREY, _SMALL)
        for place, frame in enumerate(shown):
            picture = Image.fromarray(clip[frame])
            if boxes is not None:
                _outline(picture, boxes[number])
            picture = picture.resize(size, Image.Resampling.LANCZOS) if scale < 1 else picture
            sheet.paste(picture, (strip + place * (size[0] + _GAP), top))
    return sheet


def _outline(picture: Image.Image, boxes: NDArray[np.float32]) -> None:
    draw = ImageDraw.Draw(picture)
    for x1, y1, x2, y2 in boxes.tolist():
        draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=ORANGE, width=2)


def _write(draw: ImageDraw.ImageDraw, text: str, top: int, colour: str, size: int) -> int:
    """``text`` in lines that fit the column of captions; returns where it ends. No line ends at a no-break
    space, for which the font has no sign.
    """
    font = _font(size)

    def fits(words: str) -> bool:
        return draw.textlength(words.replace("\u00a0", " "), font=font) <= _TEXT_WIDTH - _MARGIN

    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if fits(longer):
            lines[-1] = longer
            continue
        while not fits(word):
            word = f"{word[:-2]}…"
        lines.append(word)
    for line in filter(None, lines):
        draw.text((_MARGIN, top), line.replace("\u00a0", " "), fill=colour, font=font)
        top += size + 3
    return top


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
