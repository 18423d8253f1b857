"""Writing video files: the motion data set, test files and pictures are made with it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

import av
import numpy as np
import torch

from saccade.errors import VideoError
from saccade.files import atomic_path


def write_video(
    path: str | os.PathLike[str],
    frames: torch.Tensor | np.ndarray | Iterable[torch.Tensor | np.ndarray],
    *,
    fps: float | Fraction,
    codec: str = "libx264",
    crf: int | None = None,
    gop: int | None = None,
    bframes: int | None = None,
    pix_fmt: str = "yuv420p",
    options: Mapping[str, str] | None = None,
    pts: Sequence[float] | None = None,
    rotation: int = 0,
    threads: int = 1,
) -> None:
    """Write ``frames`` as a video file; the container follows the suffix (mp4, mkv, webm, avi, mov).

    The file appears under its name only when it is complete.

    Args:
        path: the file to write.
        frames: uint8 RGB frames, (T, H, W, 3) or an iterable of (H, W, 3); all of one size.
        fps: frames per second.
        codec: an FFmpeg encoder: ``libx264``, ``libx265``, ``libvpx-vp9``, ``mpeg4``, ...
        crf: constant rate factor (x264: 0 lossless, 23 default). None leaves the encoder's default.
        gop: greatest distance between key frames, in frames.
        bframes: greatest number of B-frames in a row.
        pix_fmt: pixel format of the file. ``yuv420p`` needs even sides.
        options: further encoder options, as ``{"preset": "ultrafast"}``.
        pts: time of each frame in seconds, strictly rising, for variable frame rate or a late start.
        rotation: degrees clockwise by which a player turns the picture: 0, 90, 180 or 270.
        threads: encoder threads.

    Raises:
        ValueError: no frame, frames of another shape or type, ``pts`` of the wrong length or not rising.
        VideoError: the encoder or the container refuses.
    """
    if rotation not in (0, 90, 180, 270):
        raise ValueError(f"rotation must be 0, 90, 180 or 270, got {rotation}")
    if pts is not None and any(b <= a for a, b in itertools.pairwise(pts)):
        raise ValueError("pts must rise from frame to frame")
    rate = Fraction(fps).limit_denominator(1_000_000)
    settings = dict(options or {})
    if crf is not None:
        settings.setdefault("crf", str(crf))
    with atomic_path(path) as temporary:
        try:
            with av.open(str(temporary), "w") as container:
                stream = container.add_stream(codec, rate=rate, options=settings)
                assert isinstance(stream, av.VideoStream)
                stream.pix_fmt = pix_fmt
                stream.codec_context.thread_count = threads
                if gop is not None:
                    stream.codec_context.gop_size = gop
                if bframes is not None:
                    stream.codec_context.max_b_frames = bframes
                if rotation:
                    stream.set_display_rotation(-rotation)  # PyAV counts anticlockwise
                _encode(container, stream, frames, rate, pts)
        except av.codec.codec.UnknownCodecError as error:
            raise VideoError(str(path), f"cannot be written: there is no encoder {codec!r} here") from error
        except OSError:  # the disk is full: `atomic_path` names the file
            raise
        except av.FFmpegError as error:
            raise VideoError(str(path), f"cannot be written with {codec}: {error}") from error


def _encode(
    container: av.container.OutputContainer,
    stream: av.VideoStream,
    frames: torch.Tensor | np.ndarray | Iterable[torch.Tensor | np.ndarray],
    rate: Fraction,
    pts: Sequence[float] | None,
) -> None:
    # A fine clock, so that variable rate survives containers that keep the encoder's time base.
    clock = Fraction(1, 90_000) if pts is not None else 1 / rate
    stream.codec_context.time_base = clock
    count = 0
    size: tuple[int, int] | None = None
    for count, item in enumerate(frames, start=1):
        array = _as_array(item)
        if size is None:
            size = array.shape[:2]
            stream.height, stream.width = size
        elif array.shape[:2] != size:
            raise ValueError(f"frame {count - 1} is {array.shape[:2]} pixels, the first is {size}")
        frame = av.VideoFrame.from_ndarray(array, format="rgb24")
        if pts is not None:
            if count > len(pts):
                raise ValueError(f"{len(pts)} pts for more frames")
            frame.pts = round(pts[count - 1] / clock)
        else:
            frame.pts = count - 1
        frame.time_base = clock
        container.mux(stream.encode(frame))
    if size is None:
        raise ValueError("no frames to write")
    if pts is not None and count != len(pts):
        raise ValueError(f"{len(pts)} pts for {count} frames")
    container.mux(stream.encode(None))


def _as_array(frame: torch.Tensor | np.ndarray) -> np.ndarray:
    array = frame.numpy() if isinstance(frame, torch.Tensor) else np.asarray(frame)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        raise ValueError(f"a frame must be uint8 (H, W, 3), got {array.dtype} {tuple(array.shape)}")
    return np.ascontiguousarray(array)
