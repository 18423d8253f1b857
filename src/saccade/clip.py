"""What one clip is: the words every part of the library shares."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """The clip a network sees.

    A clip is ``num_frames`` frames taken every ``stride`` frames of a video resampled to ``target_fps``,
    resized so that its short side is ``short_side``, cropped to a ``crop`` × ``crop`` square, scaled to
    0..1 and normalised with ``mean`` and ``std`` (per RGB channel).

    Example:
        >>> clip = ClipSpec(num_frames=16, stride=5, crop=224, short_side=256)
        >>> clip.num_frames * clip.stride / clip.target_fps  # seconds
        2.6666666666666665
    """

    num_frames: int
    stride: int
    crop: int
    short_side: int
    target_fps: float = 30.0
    mean: tuple[float, float, float] = (0.45, 0.45, 0.45)
    std: tuple[float, float, float] = (0.225, 0.225, 0.225)

    @property
    def seconds(self) -> float:
        """What a clip lasts, from its first frame to the end of its last."""
        return ((self.num_frames - 1) * self.stride + 1) / self.target_fps

    def replace(self, **changes: Any) -> ClipSpec:
        """A copy with these fields changed."""
        return replace(self, **changes)
