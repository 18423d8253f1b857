"""Reading and writing video: ``open_video`` and ``write_video``."""

from __future__ import annotations

from saccade.video.reader import Backend, VideoReader, open_video
from saccade.video.write import write_video

__all__ = ["Backend", "VideoReader", "open_video", "write_video"]
