"""Video files made for the tests, with the frame's number painted into its pixels as eight blocks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import av
import av.filter
import numpy as np

HEIGHT, WIDTH = 64, 96


@dataclass(frozen=True)
class Recipe:
    """How one test file is made."""

    suffix: str
    codec: str = "libx264"
    num_frames: int = 60
    gop: int = 12
    bframes: int | None = None
    times: Callable[[int], list[float]] | None = None
    rotation: int = 0
    pix_fmt: str = "yuv420p"
    options: dict[str, str] = field(default_factory=dict)


def _varying(n: int) -> list[float]:
    return np.cumsum([0.02 + 0.03 * (i % 4 == 0) + 0.2 * (i == 20) for i in range(n)]).tolist()


def _late(n: int) -> list[float]:
    return [2 + i / 30 for i in range(n)]


_ALT_REF = {"auto-alt-ref": "1", "lag-in-frames": "16"}
_FAST = {"preset": "veryfast", "x264-params": "scenecut=0"}
RECIPES: dict[str, Recipe] = {
    "h264_bframes_mp4": Recipe(".mp4", bframes=3, options=_FAST),
    "h264_no_bframes_mp4": Recipe(".mp4", bframes=0, options=_FAST),
    "h264_pyramid_default_mp4": Recipe(".mp4", gop=30),
    "h264_variable_rate_mp4": Recipe(".mp4", bframes=2, times=_varying, options=_FAST),
    "h264_late_start_mp4": Recipe(".mp4", bframes=2, times=_late, options=_FAST),
    "h264_long_gop_mp4": Recipe(".mp4", gop=1000, bframes=3, options=_FAST),
    "h264_open_gop_mp4": Recipe(
        ".mp4", bframes=3, options={"x264-params": "open-gop=1:scenecut=0:keyint=12:min-keyint=1"}
    ),
    "h264_open_gop_mkv": Recipe(
        ".mkv", bframes=3, options={"x264-params": "open-gop=1:scenecut=0:keyint=12:min-keyint=1"}
    ),
    "h264_intra_refresh_mp4": Recipe(".mp4", options={"x264-params": "intra-refresh=1:keyint=12:bframes=0"}),
    "h264_interlaced_mp4": Recipe(".mp4", bframes=2, options={"x264-params": "tff=1"}),
    "h264_mkv": Recipe(".mkv", bframes=3, options=_FAST),
    "h264_variable_rate_mkv": Recipe(".mkv", bframes=3, times=_varying, options=_FAST),
    "h264_mov": Recipe(".mov", bframes=3, options=_FAST),
    "h264_ts": Recipe(".ts", bframes=3, options=_FAST),
    "h264_avi": Recipe(".avi", bframes=3, options=_FAST),
    "h264_flv": Recipe(".flv", bframes=3, options=_FAST),
    "h264_444_mp4": Recipe(".mp4", bframes=2, pix_fmt="yuv444p", options=_FAST),
    "hevc_mp4": Recipe(".mp4", "libx265", bframes=3, options={"x265-params": "log-level=none:pools=1"}),
    "hevc_10bit_mkv": Recipe(
        ".mkv", "libx265", pix_fmt="yuv420p10le", options={"x265-params": "log-level=none:pools=1"}
    ),
    "hevc_layers_mp4": Recipe(
        ".mp4", "libx265", options={"x265-params": "log-level=none:pools=1:temporal-layers=2"}
    ),
    "vp9_webm": Recipe(".webm", "libvpx-vp9", options={"cpu-used": "8", "deadline": "realtime"}),
    "vp9_ivf": Recipe(".ivf", "libvpx-vp9", options={"cpu-used": "8", "deadline": "realtime"}),
    "vp9_alt_ref_webm": Recipe(
        ".webm",
        "libvpx-vp9",
        num_frames=40,
        options={"cpu-used": "5", **_ALT_REF},
    ),
    "vp8_webm": Recipe(".webm", "libvpx", num_frames=40, options=_ALT_REF),
    "mpeg4_avi": Recipe(".avi", "mpeg4", bframes=0),
    "mpeg4_bframes_avi": Recipe(".avi", "mpeg4", bframes=2),
    "mpeg4_bframes_mp4": Recipe(".mp4", "mpeg4", bframes=2),
    "mpeg2_ts": Recipe(".ts", "mpeg2video", bframes=2),
    "mjpeg_avi": Recipe(".avi", "mjpeg", pix_fmt="yuvj420p"),
    "rotated_90_mp4": Recipe(".mp4", bframes=2, rotation=90, options=_FAST),
    "rotated_180_mp4": Recipe(".mp4", bframes=2, rotation=180, options=_FAST),
    "rotated_270_mov": Recipe(".mov", bframes=2, rotation=270, options=_FAST),
}


def painted(number: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """A frame over a moving pattern whose left edge spells ``number`` in eight blocks, lowest bit on top."""
    y, x = np.mgrid[:height, :width]
    pattern = np.stack(
        [(x * 2 + number * 5) % 256, (y * 3 + number * 3) % 256, (x + y + number * 7) % 256], 2
    )
    frame = (64 + pattern // 2).astype(np.uint8)
    block = height // 8
    for bit in range(8):
        frame[bit * block : (bit + 1) * block, : width // 4] = 235 if number >> bit & 1 else 16
    return frame


def number_of(frame: np.ndarray) -> int:
    """The number ``painted`` into a frame."""
    block = frame.shape[0] // 8
    side = frame[:, : frame.shape[1] // 4].astype(float).mean(axis=(1, 2))
    return sum((side[bit * block + block // 2] > 128) << bit for bit in range(8))


def as_rgb(frame: av.VideoFrame) -> np.ndarray:
    """The frame as the ffmpeg command converts it: its scale filter, on the whole picture, not by fields."""
    graph = av.filter.Graph()
    entrance = graph.add(
        "buffer",
        video_size=f"{frame.width}x{frame.height}",
        pix_fmt=frame.format.name,
        time_base="1/1",
        colorspace=str(int(frame.colorspace)),
        range=str(int(frame.color_range)),
    )
    scale = graph.add("scale", "flags=bicubic")
    exit_ = graph.add("buffersink")
    graph.link_nodes(entrance, scale, graph.add("format", "pix_fmts=rgb24"), exit_).configure()
    entrance.push(frame)
    return exit_.pull().to_ndarray()


def sequential(path: str | Path) -> list[np.ndarray]:
    """All frames as they come out when the file is decoded from end to end, upright."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        return [np.rot90(as_rgb(frame), round(frame.rotation / 90)) for frame in container.decode(stream)]


@dataclass(frozen=True)
class MadeFile:
    path: Path
    recipe: Recipe
    truth: list[np.ndarray]
