"""Decoded pictures as RGB, pixel for pixel as the ``ffmpeg`` command gives them with ``-pix_fmt rgb24``.

The conversion goes through FFmpeg's ``scale`` filter with the flags that the command sets, not through PyAV's
``VideoFrame.reformat``: that one interpolates chroma bilinearly, and handles the fields of interlaced
pictures, and the position of chroma samples, in another way.
"""

from __future__ import annotations

import av
import numpy as np
from av.filter import Graph
from av.filter.context import FilterContext
from av.video.reformatter import ColorRange, VideoReformatter

# Formats of 8 bit that FFmpeg converts without interpolating chroma, whatever the flags.
_PLAIN = {"yuv420p", "yuv422p", "yuv444p", "rgb24", "bgr24", "gbrp"}


def is_plain(picture: av.VideoFrame) -> bool:
    """Whether torchcodec converts the picture to the same pixels.

    torchcodec 0.13 interpolates chroma bilinearly, and takes full range for limited (6.7 of 255 on average).
    """
    even = picture.width % 2 == 0 and picture.height % 2 == 0
    full = picture.color_range == ColorRange.JPEG
    return picture.format.name in _PLAIN and even and not full and not picture.interlaced_frame


class RgbConverter:
    """Converts pictures to RGB of one size, uint8 (height, width, 3).

    Chroma is interpolated bicubically, the default of the command. Pictures of another size are scaled
    bilinearly, which averages over the source pixels when it shrinks; ordinary ones (`is_plain`) by PyAV's
    ``reformat``, whose rounding the recorded views and trained models have.
    """

    def __init__(self, height: int, width: int) -> None:
        self._size = (height, width)
        self._reformatter = VideoReformatter()
        self._key: tuple[object, ...] = ()
        self._graph: tuple[Graph, FilterContext, FilterContext]

    def __call__(self, picture: av.VideoFrame) -> np.ndarray:
        """The pixels; they are valid as long as the returned array is."""
        height, width = self._size
        if (picture.height, picture.width) != self._size and is_plain(picture):
            return _array(self._reformatter.reformat(picture, width, height, "rgb24", threads=1))
        # a graph takes pictures of one kind
        key = (picture.width, picture.height, picture.format.name, picture.colorspace, picture.color_range)
        if key != self._key:
            self._graph = self._build(picture)
            self._key = key
        _, entrance, exit_ = self._graph
        try:
            entrance.push(picture)
            rgb = exit_.pull()
        except BaseException:
            self._key = ()  # the graph may hold the picture
            raise
        assert isinstance(rgb, av.VideoFrame)
        return _array(rgb)

    def _build(self, picture: av.VideoFrame) -> tuple[Graph, FilterContext, FilterContext]:
        height, width = self._size
        graph = Graph()
        graph.threads = 1
        entrance = graph.add(
            "buffer",
            video_size=f"{picture.width}x{picture.height}",
            pix_fmt=picture.format.name,
            time_base="1/1",
            colorspace=str(int(picture.colorspace)),
            range=str(int(picture.color_range)),
        )
        flags = "bicubic" if (picture.height, picture.width) == self._size else "bilinear"
        exit_ = graph.add("buffersink")
        scale = graph.add("scale", f"{width}:{height}:flags={flags}")
        graph.link_nodes(entrance, scale, graph.add("format", "pix_fmts=rgb24"), exit_).configure()
        return graph, entrance, exit_


def _array(rgb: av.VideoFrame) -> np.ndarray:
    """The pixels of an rgb24 picture, without a copy: (height, width, 3)."""
    plane = rgb.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(rgb.height, plane.line_size)
    return rows[:, : 3 * rgb.width].reshape(rgb.height, rgb.width, 3)
