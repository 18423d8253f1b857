"""Opening a file with FFmpeg: the video stream to read, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator

import av
from av.stream import Disposition

from saccade.errors import VideoError
from saccade.video.source import Source

# FFmpeg draws text files as pictures: its demuxers tty, bin, adf, idf and xbin.
_TEXT_ART = {"ansi", "bintext", "idf", "xbin"}
_NO_TIMESTAMPS = 0x80  # AVFMT_NOTIMESTAMPS

# Options with which decoders report damage that they else pass over; for the others none was found to help.
_CHECKS = {"err_detect": "crccheck+bitstream+buffer+explode"}
_STRICT = {
    "libdav1d": {"strict": "1"},
    **dict.fromkeys(("hevc", "mjpeg", "msmpeg4v1", "msmpeg4v2", "msmpeg4", "wmv1", "wmv2"), _CHECKS),
}


def open_container(
    source: Source, *, strict: bool = False
) -> tuple[av.container.InputContainer, av.VideoStream]:
    """The open container and its best video stream.

    Args:
        strict: make the decoder report what damage it can notice.

    Raises:
        VideoError: no video stream but cover pictures, none with a decoder, or a text file.
    """
    try:
        container = av.open(source.open(), "r")
    except UnicodeDecodeError:
        container = av.open(source.open(), "r", metadata_errors="replace")
    try:
        stream = _best_stream(source.name, container)
        if strict:
            stream.codec_context.options = dict(_STRICT.get(stream.codec_context.name, {}))
        return container, stream
    except BaseException:
        container.close()
        raise


def _best_stream(name: str, container: av.container.InputContainer) -> av.VideoStream:
    """The stream that FFmpeg's ``av_find_best_stream`` chooses, but never a cover picture."""
    moving = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not moving:
        others = sorted({s.type for s in container.streams if s not in container.streams.video})
        raise VideoError(
            name, f"has no video stream, only {' and '.join(others)}" if others else "has no video stream"
        )
    readable = [s for s in moving if s.codec_context is not None]
    if not readable:
        raise VideoError(name, "is in a codec for which there is no decoder here")
    readable = [s for s in readable if s.codec_context.name not in _TEXT_ART]
    if not readable:
        raise VideoError(name, "is text, not a video")
    best = container.streams.best("video")
    if isinstance(best, av.VideoStream) and best in readable:
        return best
    return max(readable, key=lambda s: (bool(s.disposition & Disposition.default), s.bit_rate or 0, -s.index))


def demux(container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.Packet]:
    """The packets of a stream from where the container stands, and an empty one at the end.

    PyAV raises IndexError for a packet of a stream that appears behind the head of the file, as in joined
    transport streams; such packets are none of ours.
    """
    while True:
        try:
            yield from container.demux(stream)
            return
        except IndexError:
            continue


def stated_rate(stream: av.VideoStream) -> float:
    """Frames per second as the header states them; 0: it does not.

    A raw stream (``.h264``) has no container to state a rate, and FFmpeg assumes 25: there the codec's header
    counts, the timing of an H.264 SPS for example.
    """
    if stream.container.format.flags & _NO_TIMESTAMPS:
        # MPEG-4 states the resolution of its times, not a rate
        coded = float(stream.codec_context.framerate or 0) if stream.codec_context.name != "mpeg4" else 0.0
        if 0.1 <= coded <= 1000:
            return coded
        return float(stream.guessed_rate or stream.average_rate or 0)
    return float(stream.average_rate or stream.guessed_rate or 0)
