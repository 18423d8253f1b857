"""Crops that cover a random fraction of the frame with a random aspect ratio, for resizing to a square.

Szegedy et al. 2015, "Going Deeper with Convolutions", arXiv 1409.4842, section 6; draws as in
PySlowFast (datasets/transform.py, random_resized_crop) and torchvision's RandomResizedCrop.
"""

from __future__ import annotations

import math

from saccade.data.seeds import stream

_ATTEMPTS = 10

Range = tuple[float, float]


def draw_area(seed: int, height: int, width: int, *, area: Range, aspect: Range) -> tuple[int, int, int, int]:
    """(top, left, height, width) in pixels of the crop of the clip with this seed.

    The fraction of the frame is drawn uniformly from ``area``, width / height log-uniformly from ``aspect``,
    the position uniformly. A crop that does not fit is drawn again; after ten attempts it is the largest
    centred crop within ``aspect``.
    """
    rng = stream(seed, "area")
    for _ in range(_ATTEMPTS):
        pixels = rng.uniform(*area) * height * width
        shape = math.exp(rng.uniform(math.log(aspect[0]), math.log(aspect[1])))
        down, right = rng.random(2)
        w, h = round(math.sqrt(pixels * shape)), round(math.sqrt(pixels / shape))
        if 0 < w <= width and 0 < h <= height:
            return int(down * (height - h + 1)), int(right * (width - w + 1)), h, w
    w = min(width, round(height * aspect[1]))
    h = min(height, round(width / aspect[0]))
    return (height - h) // 2, (width - w) // 2, h, w
