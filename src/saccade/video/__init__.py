"""Reading and writing video: ``open_video`` and ``write_video``.

Names are imported on first use, so that what needs no decoder (transforms, say) runs without one installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saccade.video.reader import Backend, VideoReader, open_video
    from saccade.video.write import write_video

_HOMES = {"Backend": "reader", "VideoReader": "reader", "open_video": "reader", "write_video": "write"}

__all__ = ["Backend", "VideoReader", "open_video", "write_video"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"saccade.video.{_HOMES[name]}"), name)
