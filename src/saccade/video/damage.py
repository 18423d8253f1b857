"""Where a video cannot be decoded, in seconds, and the video without those frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from saccade.errors import VideoError
from saccade.video.reader import VideoReader
from saccade.video.sizes import check_indices

_BLOCK = 64  # frames decoded at a time
_CUT = "the file was cut: it ends before its header says"


@dataclass(frozen=True)
class DamagedSpan:
    """Consecutive frames that cannot be decoded, or are missing at the end of a file that was cut.

    Attributes:
        first, last: frame indices, both included.
        start, end: seconds, counted from the first frame of the video; ``end`` is when the first decodable
            frame after them is shown.
        cause: why the first of them cannot be decoded.
    """

    first: int
    last: int
    start: float
    end: float
    cause: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, times in seconds."""
        return {"start": round(self.start, 3), "end": round(self.end, 3), "cause": self.cause}

    def __str__(self) -> str:
        frames = f"frame {self.first}" if self.first == self.last else f"frames {self.first}-{self.last}"
        return f"{self.start:.2f}-{self.end:.2f} s ({frames}): {self.cause}"


def damaged_spans(reader: VideoReader, undecodable: Mapping[int, str]) -> list[DamagedSpan]:
    """The undecodable frames that `VideoReader.try_frames` returned, as spans in order of time, and what is
    missing at the end (`VideoReader.missing_seconds`).
    """
    times = reader.times - reader.times[0]
    spans: list[DamagedSpan] = []
    first = -1
    for frame in sorted(undecodable):
        if frame - 1 not in undecodable:
            first = frame
        if frame + 1 not in undecodable:
            following = frame + 1 < len(reader)
            end = times[frame + 1] if following else times[frame] + 1 / reader.fps
            spans.append(DamagedSpan(first, frame, float(times[first]), float(end), undecodable[first]))
    if reader.missing_seconds:
        end = float(times[-1]) + 1 / reader.fps
        last = len(reader) - 1 + max(1, round(reader.missing_seconds * reader.fps))
        spans.append(DamagedSpan(len(reader), last, end, end + reader.missing_seconds, _CUT))
    return spans


def damage_dict(damaged: Sequence[DamagedSpan]) -> dict[str, Any]:
    """``{"damaged": [...]}`` for JSON, times in seconds; empty where all could be read."""
    return {"damaged": [span.to_dict() for span in damaged]} if damaged else {}


def damage_text(damaged: Sequence[DamagedSpan], most: int = 3) -> str:
    """The damage in one line."""
    number = sum(span.last - span.first + 1 for span in damaged)
    listed = "; ".join(map(str, damaged[:most]))
    others = f"; and {len(damaged) - most} more" if len(damaged) > most else ""
    return f"{number} frame{'s' * (number > 1)} cannot be read: {listed}{others}"


class ReadableFrames(VideoReader):
    """The frames of a damaged video that can be decoded, as a video: the others are missing from it, and its
    times are those of the frames that are left. Where the first frames are missing, the first that is left
    stands at the beginning too, so that seconds count from there. Closing it does not close the video.

    Attributes:
        damaged: the spans that are missing.

    Raises:
        VideoError: no frame can be decoded.
    """

    def __init__(self, video: VideoReader) -> None:
        undecodable: dict[int, str] = {}
        for start in range(0, len(video), _BLOCK):
            undecodable |= video.try_frames(range(start, min(start + _BLOCK, len(video))))[1]
        if len(undecodable) == len(video):
            raise VideoError(video.path, f"no frame can be decoded: {undecodable[0]}")
        self.path, self.fps, self.size = video.path, video.fps, video.size
        self.damaged = tuple(damaged_spans(video, undecodable))
        self._video = video
        self._frames = np.setdiff1d(np.arange(len(video)), list(undecodable))
        self._times = video.times[self._frames]
        if self._frames[0] > 0:
            self._frames = np.insert(self._frames, 0, self._frames[0])
            self._times = np.insert(self._times, 0, video.times[0])

    @property
    def times(self) -> NDArray[np.float64]:
        """Presentation time of each frame that is left in seconds, float64 (len,)."""
        return self._times

    def __len__(self) -> int:
        return len(self._frames)

    def frames(self, indices: Sequence[int]) -> torch.Tensor:
        """The frames ``indices`` of those that are left: uint8 (N, H, W, 3) RGB."""
        wanted = check_indices(self.path, indices, len(self))
        return self._video.frames(self._frames[wanted].tolist())

    def close(self) -> None:
        """Nothing is open but the video itself."""
