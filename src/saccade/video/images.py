"""Image files as 8-bit RGB, upright: what Pillow's ``convert("RGB")`` leaves to be done."""

from __future__ import annotations

import struct

import numpy as np
from PIL import Image

_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) to 8; 1 where there is none, or none that can be read."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except (OSError, SyntaxError, ValueError, TypeError, KeyError, struct.error):
        return 1
    return found if found in _TURNS else 1


def shown_size(image: Image.Image) -> tuple[int, int]:
    """Height and width in pixels after turning the image upright."""
    return (image.width, image.height) if orientation(image) >= 5 else (image.height, image.width)


def upright_rgb(image: Image.Image) -> Image.Image:
    """The image as RGB, turned as its EXIF orientation says.

    Of 16 bits a channel the upper 8 are taken, as Pillow does for RGB (it clips gray). Alpha is dropped.
    """
    turn = _TURNS.get(orientation(image))
    if image.mode == "I" or image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode != "RGB":
        image = image.convert("RGB")
    return image if turn is None else image.transpose(turn)
