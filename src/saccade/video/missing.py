"""What is missing at the end of a file that was cut, where its header says how long it should be."""

from __future__ import annotations

import re

import av

from saccade.video.container import open_container
from saccade.video.index import VideoIndex
from saccade.video.source import Source
from saccade.video.times import is_steady

_SLACK = 0.1  # seconds that a header may state too much


def missing_seconds(file: Source, stream: av.VideoStream, index: VideoIndex) -> float:
    """Seconds that the header states beyond the last frame; 0 if none, or if it cannot be known.

    MP4 lists all samples, IVF and MXF count them; AVI counts them too, and states how many bytes should be
    there. Matroska states when each stream ends, FLV when the file ends, which is compared where the frame
    rate is constant only, because a last frame may be shown for long. Transport and program streams, Ogg, ASF
    and raw streams say nothing.
    """
    container, fps = stream.container.format.name, index.fps
    num_packets, missing = len(index.when), 0.0
    if "mp4" in container:
        missing = (len(stream.index_entries) - num_packets) / fps
    elif container == "ivf":
        missing = (stream.frames - num_packets) / fps
    elif container == "mxf":
        missing = ((stream.duration or 0) - num_packets) / fps
    elif container == "avi" and (stream.duration or 0) < stream.frames:  # FFmpeg's guess from the file's size
        missing = (stream.frames - num_packets) / fps
    elif "matroska" in container and is_steady(index.times):
        match = re.fullmatch(r"(\d+):(\d+):(\d+\.?\d*)", stream.metadata.get("DURATION", ""))
        if match:
            hours, minutes, seconds = map(float, match.groups())
            missing = 3600 * hours + 60 * minutes + seconds - float(index.times[-1]) - 1 / fps
    elif container == "flv" and is_steady(index.times):
        stated = float(getattr(stream.container, "duration", None) or 0) / 1e6
        missing = stated - float(index.times[-1]) - 1 / fps
        if missing > max(_SLACK, 2.5 / fps):  # sound may go on
            missing = min(missing, stated - _end(file))
    return missing if missing > max(_SLACK, 2.5 / fps) else 0.0


def _end(file: Source) -> float:
    """Time of the last packet of any stream, in seconds."""
    last = 0.0
    container, _ = open_container(file)
    with container:
        for packet in container.demux():
            if packet.pts is not None and packet.time_base is not None:
                last = max(last, float(packet.pts * packet.time_base))
    return last
