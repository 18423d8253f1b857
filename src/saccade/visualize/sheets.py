"""Strips of frames: of a whole video, and of the clips of a batch with captions."""

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

_MAX_FRAMES = 8  # shown of a clip
_MAX_SIDE = 112  # pixels of a frame
_TEXT_WIDTH, _MARGIN, _GAP = 210, 12, 2
_SIZE, _SMALL = 13, 11  # font sizes


def frame_strip(path: str | os.PathLike[str], *, num_frames: int = 6, height: int = 96) -> Image.Image:
    """Evenly spaced frames of a video side by side, each ``height`` pixels high.

    Raises:
        VideoError: the video cannot be read.
    """
    with open_video(path, short_side=height) as reader:
        indices = (np.arange(num_frames) + 0.5) * len(reader) / num_frames
        frames = reader.frames([int(index) for index in indices]).numpy()
    images = [Image.fromarray(frame) for frame in frames]
    width = max(1, round(images[0].width * height / images[0].height))
    strip = Image.new("RGB", ((width + _GAP) * len(images) - _GAP, height), "white")
    for column, image in enumerate(images):
        strip.paste(image.resize((width, height), Image.Resampling.LANCZOS), (column * (width + _GAP), 0))
    return strip


def data_uri(image: Image.Image, *, quality: int = 78) -> str:
    """The image as a JPEG in a ``data:`` URI."""
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
    """A row for each clip with caption, note and up to eight evenly spaced frames.

    Args:
        clips: uint8 (B, T, H, W, 3).
        captions, notes: text for each clip, dark and grey.
        boxes: boxes (N, 4) in pixels for each clip, drawn into all its frames.
    """
    num_clips, length, height, width, _ = clips.shape
    shown = np.unique(np.linspace(0, length - 1, min(length, _MAX_FRAMES)).round().astype(int))
    scale = min(1.0, _MAX_SIDE / max(height, width))
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
        for column, frame in enumerate(shown):
            image = Image.fromarray(clip[frame])
            if boxes is not None:
                _draw_boxes(image, boxes[number])
            image = image.resize(size, Image.Resampling.LANCZOS) if scale < 1 else image
            sheet.paste(image, (strip + column * (size[0] + _GAP), top))
    return sheet


def _draw_boxes(image: Image.Image, boxes: NDArray[np.float32]) -> None:
    draw = ImageDraw.Draw(image)
    for x1, y1, x2, y2 in boxes.tolist():
        draw.rectangle((x1, y1, max(x1, x2 - 1), max(y1, y2 - 1)), outline=ORANGE, width=2)


def _write(draw: ImageDraw.ImageDraw, text: str, top: int, colour: str, size: int) -> int:
    """Write ``text`` wrapped to the width of the caption column, and return the y of its end. Lines do not
    break at no-break spaces, which are drawn as spaces because the font lacks them.
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
