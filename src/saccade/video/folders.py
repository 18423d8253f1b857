"""Which names are those of videos and images, and which folders hold the frames of one video.

Names that begin with a dot (``._clip.mp4``, ``.DS_Store``) are skipped everywhere.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

VIDEO_SUFFIXES = frozenset(
    (
        *(".mp4", ".avi", ".mkv", ".webm", ".mov", ".m4v", ".mpg", ".mpeg"),
        *(".wmv", ".flv", ".3gp", ".ts", ".mts", ".ogv", ".vob", ".asf"),
    )
)
IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png"))


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is skipped."""
    return name.startswith(".")


def is_video_name(name: str) -> bool:
    """Whether a file of this name counts as a video, by its ending."""
    return not is_hidden(name) and os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES


def is_image_name(name: str) -> bool:
    """Whether a file of this name counts as an image, by its ending."""
    return not is_hidden(name) and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def is_frame_folder(path: str | os.PathLike[str]) -> bool:
    """Whether ``path`` is a folder that holds images and, at any depth, no video file."""
    if not os.path.isdir(path):
        return False
    with os.scandir(path) as scan:
        if not any(is_image_name(entry.name) for entry in scan):
            return False
    return not any(is_video_name(name) for _, _, files in _walk(path) for name in files)


def find_videos(folder: str | os.PathLike[str]) -> tuple[list[str], list[str]]:
    """The videos in a folder at any depth, sorted: files and folders of frames; and the files left out.

    Raises:
        OSError: a folder cannot be listed.
    """
    videos: list[str] = []
    others: list[str] = []
    for where, folders, files in _walk(folder):
        if any(is_image_name(name) for name in files) and is_frame_folder(where):
            videos.append(where)
            folders.clear()
            continue
        for name in files:
            (videos if is_video_name(name) else others).append(os.path.join(where, name))
    return sorted(videos), sorted(others)


def _walk(folder: str | os.PathLike[str]) -> Iterator[tuple[str, list[str], list[str]]]:
    """`os.walk` without hidden names; a folder that cannot be listed is an error."""

    def fail(error: OSError) -> None:
        raise error

    for where, folders, files in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not is_hidden(name)]
        yield where, folders, [name for name in files if not is_hidden(name)]
