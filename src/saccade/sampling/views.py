"""Crop offsets, the frame size before cropping, and protocols by name.

A *view* is one crop of one clip. ``10x3`` means 10 clips of 3 crops each: view ``v`` is crop ``v % 3`` of
clip ``v // 3``. Sizes and offsets are those of PySlowFast unless a protocol says otherwise.

    ssv2-1clip          RubiksNet and TSM on Something-Something: the middle of 8 segments, one centre crop
    ssv2-2clip-3crop    the same with the starts of the segments as second clip, and three crops
    6-view              VoV3D on Something-Something: two clips of three crops
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal

from saccade.errors import UsageError
from saccade.sampling.segments import UniformSource

Average = Literal["softmax", "logits"]
CropGrid = Literal["pyslowfast", "torchvision", "tsm"]


@dataclass(frozen=True)
class Views:
    """How many clips of a video are tested, and how many crops of each. Its ``str`` is ``10x3``, or the name
    of the protocol.

    Attributes:
        protocol: name of a protocol, empty for CLIPSxCROPS. A protocol also fixes the fields below.
        rule: temporal rule; None: that of the run.
        scale: short side as a multiple of the crop; None: that of the clip (see `cut_size`).
        grid: offsets of the crops, see `crop_box`.
        average: what is averaged over the views.
    """

    num_clips: int
    num_crops: int
    protocol: str = ""
    rule: str | None = None
    scale: Fraction | None = None
    grid: CropGrid = "pyslowfast"
    average: Average = "softmax"

    def __str__(self) -> str:
        return self.protocol or f"{self.num_clips}x{self.num_crops}"

    def __len__(self) -> int:
        return self.num_clips * self.num_crops

    def split(self, view: int) -> tuple[int, int]:
        """(clip, crop) of one view."""
        return divmod(view, self.num_crops)

    def decode_size(self, short_side: int, crop: int) -> int:
        """The short side to decode at, for a clip of this ``short_side`` and ``crop``."""
        return short_side if self.scale is None else round(self.scale * crop)

    def cut_size(self, short_side: int, crop: int) -> int:
        """The short side of the frames that crops are cut from.

        One crop is cut from the clip's short side, three from frames whose short side is the crop itself
        (PySlowFast, datasets/kinetics.py), unless the protocol fixes a scale.
        """
        if self.scale is not None:
            return self.decode_size(short_side, crop)
        return crop if self.num_crops > 1 else short_side


_TSM = Views(1, 1, rule="tsm", scale=Fraction(256, 224), average="logits")
PROTOCOLS: dict[str, Views] = {
    views.protocol: views
    for views in (
        replace(_TSM, protocol="ssv2-1clip", grid="torchvision"),
        replace(_TSM, protocol="ssv2-2clip-3crop", num_clips=2, num_crops=3, grid="tsm"),
        Views(2, 3, protocol="6-view", rule="vov3d-ssv"),
    )
}
"""The named protocols (sources in docs/testing.md). Sizes are stated for a crop of 224 and scale with it."""


def parse_views(text: str) -> Views:
    """``"10x3"``, or the name of a protocol, as `Views`.

    Raises:
        UsageError: it is neither a protocol nor of the form CLIPSxCROPS with 1 or 3 crops.
    """
    if text.strip() in PROTOCOLS:
        return PROTOCOLS[text.strip()]
    match = re.fullmatch(r"\s*([1-9]\d*)\s*[x×]\s*([13])\s*", text)
    if match is None:
        raise UsageError(
            f"views {text!r} are not of the form CLIPSxCROPS with 1 or 3 crops, such as 1x1, 10x1 or 10x3, "
            f"nor one of the protocols {', '.join(PROTOCOLS)}"
        )
    return Views(int(match[1]), int(match[2]))


def crop_box(
    height: int, width: int, crop: int, which: int, grid: CropGrid = "pyslowfast"
) -> tuple[int, int]:
    """(top, left) of a ``crop`` × ``crop`` square.

    ``which`` 0, 1, 2 is left, centre, right. On the grid ``pyslowfast`` it is top, middle, bottom in
    portrait; the other direction is centred, and a centre that falls between two pixels is rounded up. On
    the grid ``torchvision``, which has the centre alone, it is rounded to the even one (its CenterCrop). On
    the grid ``tsm`` offsets are multiples of a quarter of the margin, rounded down: 0, 2 or 4 quarters from
    the left in any orientation, and 2 from the top (TSM's and RubiksNet's GroupFullResSample).

    Raises:
        UsageError: the frame is smaller than the crop.
    """
    check_crop(height, width, crop)
    if which not in (0, 1, 2):
        raise ValueError(f"crop {which} is not 0, 1 or 2")
    if grid == "tsm":
        return 2 * ((height - crop) // 4), 2 * which * ((width - crop) // 4)
    if grid == "torchvision":
        return round((height - crop) / 2), round((width - crop) / 2)
    top, left = -((crop - height) // 2), -((crop - width) // 2)
    if which == 1:
        return top, left
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
