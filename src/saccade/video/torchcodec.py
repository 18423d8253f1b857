"""Reading a video file with torchcodec, where that extra is installed.

torchcodec seeks by time stamp, and to any packet marked as a key frame. For files whose marks are missing or
wrong it gives wrong frames, so the times of all frames are compared with our index; where they differ, and
where torchcodec cannot decode, the PyAV reader is used instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from saccade.errors import UsageError, VideoError
from saccade.video.index import VideoIndex
from saccade.video.pyav import PyAVReader
from saccade.video.reader import VideoReader
from saccade.video.resize import resize_short_side
from saccade.video.sizes import check_indices, resized
from saccade.video.source import Source


class TorchCodecReader(VideoReader):
    """A video file read by torchcodec in its exact mode. See `VideoReader`; open it with `open_video`."""

    def __init__(self, file: Source, *, short_side: int | None = None, threads: int = 1) -> None:
        try:
            from torchcodec.decoders import VideoDecoder
        except (ImportError, RuntimeError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise UsageError(
                f"backend 'torchcodec' cannot be loaded ({reason}); install saccade[torchcodec] and FFmpeg, "
                "or use backend 'pyav'"
            ) from error
        self.path, self._file = file.name, file
        self._short_side, self._threads = short_side, threads
        self._pyav: PyAVReader | None = None
        # Opening with PyAV first builds the index, and gives the same errors for the same files.
        with PyAVReader(file, short_side=short_side, threads=threads) as reader:
            self.index: VideoIndex = reader.index
            self.fps, self.size = reader.fps, reader.size
            self.missing_seconds = reader.missing_seconds
        self._decoder = None
        # torchcodec starts at any packet marked as a key frame, correctly or not.
        keys_are_right = self.index.method == "packets" and len(self.index.entries) == self.index.num_marked
        rising = bool((np.diff(self.index.seconds) > 0).all())  # not where recordings are joined
        if keys_are_right and rising and self.index.plain_colour:
            try:
                decoder = VideoDecoder(
                    file.open(),
                    dimension_order="NHWC",
                    num_ffmpeg_threads=threads,
                    seek_mode="exact",
                    stream_index=self.index.stream,
                )
                self._decoder = decoder if len(decoder) == len(self) else None
            except (RuntimeError, ValueError):
                self._decoder = None  # older FFmpeg libraries than PyAV's may lack the codec
        self._closed = False

    @property
    def times(self) -> NDArray[np.float64]:
        """Presentation time of each frame in seconds, float64 (len,)."""
        return self.index.times

    def __len__(self) -> int:
        return self.index.num_frames

    def frames(self, indices: Sequence[int]) -> torch.Tensor:
        """The frames ``indices``, in the order asked for: uint8 (N, H, W, 3) RGB."""
        if self._closed:
            raise VideoError(self.path, "is closed")
        wanted = check_indices(self.path, indices, len(self))
        if not wanted:
            return torch.empty((0, *self.size, 3), dtype=torch.uint8)
        if self._decoder is None:
            return self._fallback().frames(wanted)
        try:
            batch = self._decoder.get_frames_at(wanted)
        except (RuntimeError, ValueError, IndexError):
            return self._fallback().frames(wanted)  # the right frames, or the error that says what is wrong
        expected = self.index.seconds[wanted]
        if not np.allclose(batch.pts_seconds.numpy(), expected, rtol=1e-6, atol=0.25 / self.fps):
            self._decoder = None  # wrong frames: use PyAV from here on
            return self._fallback().frames(wanted)
        return self._fitted(batch.data)

    def try_frames(self, indices: Sequence[int]) -> tuple[torch.Tensor, dict[int, str]]:
        """See `VideoReader.try_frames`."""
        try:
            return self.frames(indices), {}
        except VideoError:
            return self._fallback().try_frames(indices)

    def _fitted(self, pixels: torch.Tensor) -> torch.Tensor:
        if tuple(pixels.shape[1:3]) == self.size:
            return pixels
        found = (pixels.shape[1], pixels.shape[2])
        if self._short_side is None or resized(*found, self._short_side) != self.size:
            raise VideoError(self.path, f"torchcodec gives frames of {found}, not {self.size}")
        return resize_short_side(pixels, self._short_side)

    def _fallback(self) -> PyAVReader:
        if self._pyav is None:
            self._pyav = PyAVReader(self._file, short_side=self._short_side, threads=self._threads)
        return self._pyav

    def close(self) -> None:
        """Release the file. May be called twice."""
        self._decoder = None
        self._closed = True
        if self._pyav is not None:
            self._pyav.close()
