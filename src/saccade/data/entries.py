"""One line of a data set as its folder or list file says it, before labels are numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from saccade.data.types import Action

Split = Literal["train", "val", "test", "all"]
SPLITS: tuple[str, ...] = get_args(Split)

VIDEO_SUFFIXES = frozenset(
    [
        ".mp4",
        ".avi",
        ".mkv",
        ".webm",
        ".mov",
        ".m4v",
        ".mpg",
        ".mpeg",
        ".wmv",
        ".flv",
        ".3gp",
        ".ts",
        ".mts",
        ".ogv",
        ".vob",
        ".asf",
    ]
)
IMAGE_SUFFIXES = frozenset((".jpg", ".jpeg", ".png"))

_SPLIT_WORDS = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validate": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


@dataclass(frozen=True)
class Entry:
    """A video, what it is called, and where that was read.

    Attributes:
        path: the file, or a folder of frames.
        label: name or number, as written.
        where: ``file:line`` or the folder, for messages.
        split: ``train``, ``val``, ``test``; None where the source does not say.
        group: clips of one group come from one source video and belong in one split.
        num_frames, fps: frames of a folder of frames, and their rate, where the source says them.
        actions: what happens in the video and when, instead of one label; None where there is a label.
        duration: seconds that the source says the video lasts.
    """

    path: str
    label: str
    where: str
    split: str | None = None
    group: str | None = None
    num_frames: int | None = None
    fps: float | None = None
    actions: tuple[Action, ...] | None = None
    duration: float | None = None


def split_of(word: str) -> str | None:
    """``train``, ``val`` or ``test`` for any of the words in use for them, None for another word."""
    return _SPLIT_WORDS.get(word.strip().lower())
