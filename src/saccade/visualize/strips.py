"""A video as a strip of frames."""

from __future__ import annotations

import base64
import io
import os

import numpy as np
from PIL import Image

from saccade.video import open_video


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
