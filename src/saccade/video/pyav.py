"""Reading a video file with PyAV."""

from __future__ import annotations

from collections.abc import Sequence

import av
import numpy as np
import torch
from numpy.typing import NDArray

from saccade.errors import VideoError
from saccade.video.colour import RgbConverter
from saccade.video.container import open_container
from saccade.video.decode import FrameDecoder
from saccade.video.index import VideoIndex, build_index, cached_index
from saccade.video.missing import missing_seconds
from saccade.video.packets import PacketSource
from saccade.video.reader import VideoReader
from saccade.video.sizes import check_indices, resized
from saccade.video.source import Source

av.logging.set_level(None)  # no messages from FFmpeg; the VideoError has the cause


class PyAVReader(VideoReader):
    """A video file, any frame of it by number. See `VideoReader`; open it with `open_video`."""

    def __init__(self, file: Source, *, short_side: int | None = None, threads: int = 1) -> None:
        self.path = file.name
        self._container: av.container.InputContainer | None = None
        self._source: PacketSource | None = None
        self._decoder: FrameDecoder | None = None
        try:
            self._open(file, threads)
        except (av.FFmpegError, OSError, MemoryError) as error:
            self.close()
            raise VideoError(self.path, f"is not a video FFmpeg can read: {_reason(error)}") from error
        except BaseException:
            self.close()
            raise
        index = self.index
        self.fps = index.fps
        self.missing_seconds = missing_seconds(file, self._stream, index)
        shown = (index.width, index.height) if index.turn.transposed else (index.height, index.width)
        self.size = resized(*shown, short_side)
        self._to_rgb = RgbConverter(*(self.size[::-1] if index.turn.transposed else self.size))

    def _open(self, file: Source, threads: int) -> None:
        index = cached_index(file)
        packets, unread = None, index is not None
        self._container, stream = _open_stream(file, threads, strict=index is None or index.strict)
        if index is None:
            assert self._container is not None
            index, packets = build_index(file, self._container, stream)
            if not index.strict:
                self._container.close()
                self._container, stream = _open_stream(file, threads, strict=False)
                unread = True
        self.index: VideoIndex = index
        self._stream = stream
        assert self._container is not None
        self._source = PacketSource(file, index, self._container, stream, packets, unread=unread)
        strict = index.strict  # not by self: a cycle would keep decoders and their threads until it is found
        self._decoder = FrameDecoder(
            index,
            self._source,
            stream.codec_context,
            lambda threads: _open_stream(file, threads, strict=strict),
        )

    @property
    def times(self) -> NDArray[np.float64]:
        """Presentation time of each frame in seconds, float64 (len,)."""
        return self.index.times

    def __len__(self) -> int:
        return self.index.num_frames

    def frames(self, indices: Sequence[int]) -> torch.Tensor:
        """The frames ``indices``, in the order asked for: uint8 (N, H, W, 3) RGB."""
        pixels, undecodable = self.try_frames(indices)
        if undecodable:
            frame = min(undecodable)
            others = f" ({len(undecodable) - 1} more fail too)" if len(undecodable) > 1 else ""
            raise VideoError(
                self.path, f"frame {frame} of {len(self)} cannot be decoded: {undecodable[frame]}{others}"
            )
        return pixels

    def try_frames(self, indices: Sequence[int]) -> tuple[torch.Tensor, dict[int, str]]:
        """See `VideoReader.try_frames`."""
        if self._container is None:
            raise VideoError(self.path, "is closed")
        wanted = check_indices(self.path, indices, len(self))
        unique = sorted(set(wanted))
        row_of = {frame: row for row, frame in enumerate(unique)}
        pixels = torch.empty((len(unique), *self.size, 3), dtype=torch.uint8)
        array = pixels.numpy()

        def deliver(frame: int, picture: av.VideoFrame) -> None:
            np.copyto(array[row_of[frame]], self.index.turn(self._to_rgb(picture)))

        assert self._decoder is not None
        try:
            undecodable = self._decoder.decode(unique, deliver)
        except (av.FFmpegError, OSError) as error:
            raise VideoError(self.path, f"cannot be decoded: {_reason(error)}") from error
        for frame in undecodable:
            array[row_of[frame]] = 0
        if wanted != unique:
            pixels = pixels[[row_of[frame] for frame in wanted]]
        return pixels, undecodable

    def check_end(self) -> None:
        """See `VideoReader.check_end`: tries the last frame, and that of the last packet."""
        frame_of = self.index.frame_of[self.index.frame_of >= 0]
        if len(frame_of):  # else every call decodes the whole file
            self.frames(sorted({int(frame_of[-1]), len(self) - 1}))

    def close(self) -> None:
        """Release the file. May be called twice."""
        if self._source is not None:
            self._source.close()
        if self._decoder is not None:
            self._decoder.close()
        if self._container is not None:
            self._container.close()
        self._container = None


def _open_stream(
    file: Source, threads: int, *, strict: bool
) -> tuple[av.container.InputContainer, av.VideoStream]:
    container, stream = open_container(file, strict=strict)
    stream.codec_context.thread_count = threads
    if threads != 1:
        stream.codec_context.thread_type = "AUTO"
    return container, stream


def _reason(error: BaseException) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)
