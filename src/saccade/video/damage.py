"""Where a video cannot be decoded, in seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from saccade.video.reader import VideoReader


@dataclass(frozen=True)
class DamagedSpan:
    """Consecutive frames that cannot be decoded.

    Attributes:
        first, last: frame indices, both included.
        start, end: seconds; ``end`` is when the first decodable frame after them is shown.
        cause: why the first of them cannot be decoded.
    """

    first: int
    last: int
    start: float
    end: float
    cause: str

    def __str__(self) -> str:
        frames = f"frame {self.first}" if self.first == self.last else f"frames {self.first}-{self.last}"
        return f"{self.start:.2f}-{self.end:.2f} s ({frames}): {self.cause}"


def damaged_spans(reader: VideoReader, undecodable: Mapping[int, str]) -> list[DamagedSpan]:
    """The undecodable frames that `VideoReader.try_frames` returned, as spans in order of time."""
    times = reader.times
    spans: list[DamagedSpan] = []
    first = -1
    for frame in sorted(undecodable):
        if frame - 1 not in undecodable:
            first = frame
        if frame + 1 not in undecodable:
            following = frame + 1 < len(reader)
            end = times[frame + 1] if following else times[frame] + 1 / reader.fps
            spans.append(DamagedSpan(first, frame, float(times[first]), float(end), undecodable[first]))
    return spans
