"""Predicting what can be read of a video that is cut short or damaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from saccade.errors import VideoError
from saccade.video import VideoReader
from saccade.video.damage import DamagedSpan, ReadableFrames, damaged_spans

Item = TypeVar("Item")
Damage = tuple[DamagedSpan, ...]


def read_readable(
    video: VideoReader, read: Callable[[VideoReader, Damage], Iterator[Item]], *, to_end: bool
) -> Iterator[tuple[Damage, Item]]:
    """What ``read`` makes of a video and its damage, each item with that damage.

    Where a frame cannot be decoded, all frames are tried, and ``read`` begins again with those that can: the
    items before, which came with another damage, are to be dropped. With ``to_end`` the end of the video
    is tried whether ``read`` looks at it or not: there recordings are cut.

    Raises:
        VideoError: no frame can be decoded, or for another cause than frames that cannot.
    """
    damaged = tuple(damaged_spans(video, {}))
    try:
        for item in read(video, damaged):
            yield damaged, item
        if to_end:
            video.check_end()
        return
    except VideoError as error:
        readable = ReadableFrames(video)
        if readable.damaged == damaged:
            raise error
    for item in read(readable, readable.damaged):
        yield readable.damaged, item
