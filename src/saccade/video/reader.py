"""What a video reader is, and ``open_video`` which picks one."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Literal, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from saccade.errors import UsageError, VideoError
from saccade.video.source import VideoInput, find_source, is_frames, source_name

Backend = Literal["auto", "pyav", "torchcodec", "frames"]


class VideoReader(ABC):
    """An open video whose frames can be read by index; open one with `open_video`.

    Attributes:
        path: the file or folder, or the name of what is not a path.
        fps: frames per second (where the rate varies: the usual one, that of the median interval).
        size: height and width of the frames in pixels, after rotation and resizing.
        times: presentation time of each frame in seconds as the file states it, float64 (len,), rising; where
            the file states none, ``index / fps``. The first need not be 0.
        missing_seconds: what is missing at the end of a file that was cut, where its header says how much
            should be there; mostly 0.

    ``len(reader)`` is the number of frames. ``reader[i]`` is frame ``i`` (``-1`` the last), uint8 (H, W, 3);
    it raises IndexError beyond the ends, so that a reader can be iterated over.

    A reader is not shared between threads or processes: open one in each.
    """

    path: str
    fps: float
    size: tuple[int, int]
    missing_seconds: float = 0.0

    @property
    @abstractmethod
    def times(self) -> NDArray[np.float64]: ...

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def frames(self, indices: Sequence[int]) -> torch.Tensor:
        """The frames ``indices``, in the order asked for, duplicates allowed: uint8 (N, H, W, 3) RGB.

        Raises:
            VideoError: an index outside ``0 .. len - 1``, a frame that cannot be decoded, or a closed reader.
        """

    def try_frames(self, indices: Sequence[int]) -> tuple[torch.Tensor, dict[int, str]]:
        """Like ``frames``, for files that are cut short or damaged: what can be decoded, and what cannot.

        Returns:
            The frames, uint8 (N, H, W, 3), black where undecodable; and the undecodable ones by index, each
            with the cause. `saccade.video.damage.damaged_spans` gives their times.

        Raises:
            VideoError: an index outside ``0 .. len - 1``, or a closed reader.
        """
        return self.frames(indices), {}

    def check_end(self) -> None:  # noqa: B027 (a folder or an array has no such end)
        """Raise a VideoError if the end of a file cannot be decoded, as where a recording was cut."""

    @abstractmethod
    def close(self) -> None:
        """Release the file. May be called twice."""

    def __getitem__(self, index: int) -> torch.Tensor:
        if not -len(self) <= index < len(self):
            raise IndexError(f"{self.path} has no frame {index}: it has {len(self)}")
        return self.frames([index % len(self)])[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_video(
    source: VideoInput,
    backend: Backend = "auto",
    *,
    short_side: int | None = None,
    fps: float | None = None,
    num_frames: int | None = None,
    threads: int = 1,
    name: str | None = None,
    start: float | None = None,
    end: float | None = None,
) -> VideoReader:
    """Open a video: a file, a folder of JPEG or PNG frames, bytes, a file object, a URL, or frames in memory.

    Args:
        source: one of

            - the path of a file in any container FFmpeg reads, or of a folder of images (natural order of
              their names);
            - the bytes of such a file, or a binary file object, read from its start (one that cannot seek is
              copied to a temporary file first); it must not be used elsewhere while the reader is open;
            - a URL that fsspec reads, such as ``s3://bucket/clip.mp4`` (extra ``s3``), copied to a temporary
              file first;
            - frames: a NumPy array or tensor, uint8 (T, H, W, 3) RGB ((T, 3, H, W) where that is clear); a
              list of such frames (H, W, 3) or of PIL images; or a pair ``(frames, fps)``.
        backend: ``pyav``; ``torchcodec`` (extra); ``frames`` (a folder, or frames in memory); ``auto``:
            folders as frames, files with PyAV.
        short_side: resize so that the shorter side has this many pixels; the longer one keeps the aspect,
            rounded down. None: the size of the file.
        fps: frames per second of a *folder* of images or of frames in memory, which do not say it (default
            30).
        num_frames: how many images of a *folder* belong to the video, from the first on (default all); fewer
            in it is an error.
        threads: decoder threads. 1 suits worker processes.
        name: what messages and results call the video; default: its path or URL, the name of a file object,
            ``<bytes>`` or ``<frames>``.
        start, end: a segment in seconds from the first frame, which is then the video (`SpanReader`); None:
            from the first frame, to the last.

    Raises:
        VideoError: nothing there, not a video, no picture in it, or damaged beyond use.
        UsageError: a source of another type, an array of another shape or dtype, an unknown backend, or an
            option out of range.

    Example:
        >>> import numpy as np
        >>> from saccade.video import open_video, write_video
        >>> write_video("clip.mp4", np.zeros((30, 96, 128, 3), np.uint8), fps=10)
        >>> with open_video("clip.mp4", short_side=48) as reader:
        ...     frames = reader.frames([0, 5, 10])  # uint8 (3, H, W, 3), RGB
        ...     print(len(reader), reader.fps, reader.size, reader.times[-1].round(2))
        30 10.0 (48, 64) 2.9
    """
    if backend not in get_args(Backend):
        raise UsageError(f"backend {backend!r} is unknown; choose one of {', '.join(get_args(Backend))}")
    if short_side is not None and short_side < 1:
        raise UsageError(f"short_side must be at least 1, got {short_side}")
    if fps is not None and not fps > 0:
        raise UsageError(f"fps must be positive, got {fps}")
    if num_frames is not None and num_frames < 1:
        raise UsageError(f"num_frames must be at least 1, got {num_frames}")
    if threads < 0:
        raise UsageError(f"threads must be 0 (one per core) or more, got {threads}")
    if start is not None or end is not None:
        if not 0 <= (start or 0.0) < (np.inf if end is None else end):
            raise UsageError(f"start and end: must be 0 or more and rise, got {start} and {end}")
        video = open_video(
            source,
            backend,
            short_side=short_side,
            fps=fps,
            num_frames=num_frames,
            threads=threads,
            name=name,
        )
        return _open_span(video, start, end)
    if is_frames(source):
        from saccade.video.array import ArrayReader

        name = name or source_name(source)
        if backend in ("pyav", "torchcodec"):
            raise UsageError(f"{name}: backend {backend!r} reads files, not frames in memory")
        return ArrayReader(source, name=name, fps=fps, short_side=short_side)
    file = find_source(source, name)
    is_folder = isinstance(file.file, str) and os.path.isdir(file.file)
    if is_folder and backend in ("pyav", "torchcodec"):
        raise VideoError(file.name, f"is a folder; backend {backend!r} reads files")
    if backend == "frames" and not is_folder:
        raise VideoError(file.name, "is a file; backend 'frames' reads folders of images")
    if is_folder:
        from saccade.video.frames import FrameFolderReader

        return FrameFolderReader(
            str(file.file), short_side=short_side, fps=fps or 30.0, num_frames=num_frames, threads=threads
        )
    if backend == "torchcodec":
        from saccade.video.torchcodec import TorchCodecReader

        return TorchCodecReader(file, short_side=short_side, threads=threads)
    from saccade.video.pyav import PyAVReader

    return PyAVReader(file, short_side=short_side, threads=threads)


def _open_span(video: VideoReader, start: float | None, end: float | None) -> VideoReader:
    from saccade.video.span import SpanReader

    try:
        return SpanReader(video, start, end)
    except VideoError:
        video.close()
        raise
