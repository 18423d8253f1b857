"""A segment of a video as a video of its own."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from saccade.errors import VideoError
from saccade.video.reader import VideoReader
from saccade.video.sizes import check_indices

_TOLERANCE = 1e-3  # seconds; lists and containers round times to milliseconds


class SpanReader(VideoReader):
    """The frames of a video from ``start`` to before ``end``, in seconds from its first frame; at least the
    frame that is shown at ``start``. See `VideoReader`; open it with `open_video`.

    Its times begin at 0. Closing it closes ``video``.
    """

    def __init__(self, video: VideoReader, start: float | None = None, end: float | None = None) -> None:
        self.path, self.fps, self.size = video.path, video.fps, video.size
        times = video.times - video.times[0] if len(video) else np.zeros(0)
        last = float(times[-1]) + 1 / video.fps if len(times) else 0.0
        if start is not None and start >= last:
            raise VideoError(self.path, f"has no segment at {start:g} s: it lasts {last:.2f} s")
        first = int(np.searchsorted(times, (start or 0.0) - _TOLERANCE))
        stop = int(np.searchsorted(times, np.inf if end is None else end - _TOLERANCE))
        if first >= stop:
            first = max(0, int(np.searchsorted(times, start or 0.0, "right")) - 1)
        self._first = first
        self._times = times[first : max(stop, first + 1)] - times[first]
        self._video = video

    @property
    def times(self) -> NDArray[np.float64]:
        """Seconds from the first frame of the segment, float64 (len,)."""
        return self._times

    def __len__(self) -> int:
        return len(self._times)

    def frames(self, indices: Sequence[int]) -> torch.Tensor:
        """The frames ``indices`` of the segment: uint8 (N, H, W, 3) RGB."""
        return self._video.frames(self._indices(indices))

    def try_frames(self, indices: Sequence[int]) -> tuple[torch.Tensor, dict[int, str]]:
        """See `VideoReader.try_frames`."""
        pixels, undecodable = self._video.try_frames(self._indices(indices))
        return pixels, {frame - self._first: cause for frame, cause in undecodable.items()}

    def _indices(self, indices: Sequence[int]) -> list[int]:
        return [self._first + index for index in check_indices(self.path, indices, len(self))]

    def close(self) -> None:
        """Release the file. May be called twice."""
        self._video.close()
