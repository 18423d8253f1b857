"""Finding the videos of data sets whose lists name them by id alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from saccade.data.entries import VIDEO_SUFFIXES

_TRIED = 20  # videos looked for to find out in which folder they lie
_LIKELY_SUFFIXES = ("", ".webm", ".mp4", ".avi", ".mkv")


def fullest(folders: Sequence[Path], ids: Sequence[str]) -> Path | None:
    """The first of ``folders`` that has the most of some of the videos ``ids``; None if none has any."""
    some = ids[:: max(1, len(ids) // _TRIED)]
    counts = [sum(_holds(folder, video) for video in some) for folder in folders]
    return folders[counts.index(max(counts))] if any(counts) else None


def _holds(folder: Path, video: str) -> bool:
    return any((folder / f"{video}{suffix}").exists() for suffix in _LIKELY_SUFFIXES)


def files_by_id(folder: Path, *, preferred: str) -> dict[str, str]:
    """The name of the video file, or of the folder of frames, of each id in ``folder``.

    ``preferred`` is the suffix that wins where there are several; empty for a folder.
    """
    found: dict[str, str] = {}
    with os.scandir(folder) as scan:
        for entry in scan:
            stem, suffix = os.path.splitext(entry.name)
            is_video = suffix.lower() in VIDEO_SUFFIXES or (not suffix and entry.is_dir())
            if is_video and (stem not in found or suffix == preferred):
                found[stem] = entry.name
    return found
