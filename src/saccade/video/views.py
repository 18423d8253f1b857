"""Where on the frame a view lies, and how large the frame is before it is cut.

A *view* is one clip in time cut at one place of the frame. ``10x3`` means 10 clips of 3 crops each: view
``v`` shows clip ``v // 3`` and crop ``v % 3``. Sizes and offsets are those of PySlowFast.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from saccade.errors import UsageError
from saccade.video.sampling import UniformSource


@dataclass(frozen=True)
class Views:
    """How many clips of a video are tested, and how many crops of each. Its ``str`` is ``10x3``."""

    num_clips: int
    num_crops: int

    def __str__(self) -> str:
        return f"{self.num_clips}x{self.num_crops}"

    def __len__(self) -> int:
        return self.num_clips * self.num_crops

    def split(self, view: int) -> tuple[int, int]:
        """(clip, crop) of one view."""
        return divmod(view, self.num_crops)


def parse_views(text: str) -> Views:
    """``"10x3"`` as `Views`.

    Raises:
        UsageError: it is not of the form CLIPSxCROPS with 1 or 3 crops.
    """
    match = re.fullmatch(r"\s*([1-9]\d*)\s*[x×]\s*([13])\s*", text)
    if match is None:
        raise UsageError(
            f"views {text!r} are not of the form CLIPSxCROPS with 1 or 3 crops, such as 1x1, 10x1 or 10x3"
        )
    return Views(int(match[1]), int(match[2]))


def short_side_size(height: int, width: int, size: int) -> tuple[int, int]:
    """(height, width) after resizing so that the short side is ``size``; the long side is rounded down."""
    if min(height, width) == size:
        return height, width
    if width < height:
        return math.floor(float(height) / width * size), size
    return size, math.floor(float(width) / height * size)


def crop_box(height: int, width: int, crop: int, which: int) -> tuple[int, int]:
    """(top, left) of a ``crop`` × ``crop`` square.

    ``which`` 0, 1, 2 is left, centre, right; in portrait it is top, middle, bottom. The other direction is
    centred, and a centre that falls between two pixels is rounded up.

    Raises:
        UsageError: the frame is smaller than the crop.
    """
    check_crop(height, width, crop)
    top, left = -((crop - height) // 2), -((crop - width) // 2)
    if which == 1:
        return top, left
    if which not in (0, 2):
        raise ValueError(f"crop {which} is not 0, 1 or 2")
    if height > width:
        return (0 if which == 0 else height - crop), left
    return top, (0 if which == 0 else width - crop)


def check_crop(height: int, width: int, crop: int) -> None:
    """Raise a UsageError that names the sizes when a crop does not fit into the frame."""
    if height < crop or width < crop:
        raise UsageError(
            f"a crop of {crop} × {crop} does not fit into frames of {height} × {width} (height × width); "
            f"the short side must be at least {crop}"
        )


def draw_short_side(limits: tuple[int, int], rng: UniformSource, *, inverse: bool = False) -> int:
    """Draw the short side of a training clip, both limits included, with one call of ``rng``.

    Uniform, or with ``inverse`` uniform in 1/size (PySlowFast's DATA.INV_UNIFORM_SAMPLE): small sizes, which
    show more of the scene in a crop, come a little more often.
    """
    low, high = limits
    if inverse:
        return round(1.0 / rng.uniform(1.0 / high, 1.0 / low))
    return round(rng.uniform(low, high))
