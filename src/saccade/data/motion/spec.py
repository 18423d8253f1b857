"""Settings of `motion` sets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from saccade.data.motion.events import MOTION_CLASSES, PAIRS
from saccade.data.motion.render import MOTION_VERSION
from saccade.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class SetSpec:
    """Settings that all `motion` sets have; the settings determine the pixels. Ranges are inclusive."""

    kind: ClassVar[Mapping[str, str]] = {}
    counts: ClassVar[tuple[str, ...]]
    """Fields that must be at least 1."""
    ranges: ClassVar[Mapping[str, int]]
    """Fields that are ranges, with the smallest possible start."""

    seed: int = 0
    size: tuple[int, int] = (96, 112)  # height, width
    fps: int = 30

    def __post_init__(self) -> None:
        for field in (*self.counts, "fps"):
            if getattr(self, field) < 1:
                raise UsageError(f"{field}: must be at least 1, got {getattr(self, field)}")
        if self.seed < 0:
            raise UsageError(f"seed: must not be negative, got {self.seed}")
        if min(self.size) < 32 or any(side % 2 for side in self.size):
            raise UsageError(f"size: height and width must be even and at least 32, got {self.size}")
        for field, least in self.ranges.items():
            low, high = getattr(self, field)
            if not least <= low <= high:
                raise UsageError(f"{field}: must be a range that starts at {least} or more, got {low, high}")

    def description(self) -> dict[str, Any]:
        """The contents of ``motion.json``."""
        settings = {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}
        return {
            "version": MOTION_VERSION,
            **self.kind,
            "settings": settings,
            "classes": list(MOTION_CLASSES),
            "pairs": [list(pair[:2]) for pair in PAIRS],
        }
