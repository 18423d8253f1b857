"""Videos without labels: a folder with the files in it, at any depth."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

from saccade.data.datasets import evaluation_split, load_dataset, register_dataset
from saccade.data.entries import Entry, Split, StrPath, split_of, warn_once
from saccade.data.folders import left_out_text
from saccade.data.holdout import hold_out, shared_files
from saccade.data.lists import LIST_SUFFIXES
from saccade.data.types import VideoDataset, VideoItem
from saccade.errors import DataError, UsageError
from saccade.video.folders import find_videos, is_video_name


def is_plain_folder(path: StrPath) -> bool:
    """Whether ``path`` is a folder of videos without labels: with videos directly in it, or in its folders
    named for a split, and without a list.
    """
    root = Path(path)
    if not root.is_dir() or any(entry.suffix.lower() in LIST_SUFFIXES for entry in root.iterdir()):
        return False
    folders = [root, *(entry for entry in root.iterdir() if entry.is_dir() and split_of(entry.name))]
    return any(
        is_video_name(entry.name) and entry.is_file() for folder in folders for entry in folder.iterdir()
    )


@register_dataset("unlabelled", recognises=is_plain_folder)
def load_videos(
    path: StrPath, split: Split, *, val_fraction: float = 0.2, allow_missing: bool = False
) -> VideoDataset:
    """The videos under a folder, with label -1 and no classes.

    Those under ``train``, ``val`` or ``test`` belong to that split; without such folders, about
    ``val_fraction`` is held out, always the same, clips of one source video (by their names) together.

    ``allow_missing`` has no effect: files are found in the folder, not listed.

    Raises:
        DataError: there are none, or none to hold out.
    """
    root = Path(path)
    entries = [Entry(file, "", str(root), _split(root, file)) for file in _videos(root)]
    if not any(entry.split in ("val", "test") for entry in entries):
        held = set(hold_out(entries, val_fraction)[0])
        if not held and split == "val":
            raise DataError(f"{root}: a single source video, so none can be held out; give val_every 0")
        splits = ["val" if position in held else "train" for position in range(len(entries))]
    else:
        found = {entry.split for entry in entries}
        fallback = "test" if split == "val" and "val" not in found else split
        splits = [split if entry.split == fallback else entry.split or "train" for entry in entries]
    items = tuple(
        VideoItem(entry.path, -1) for entry, own in zip(entries, splits, strict=True) if split in (own, "all")
    )
    if not items:
        raise DataError(f"{root}: no videos in split {split}")
    return VideoDataset(items, (), split, str(root))


def with_unlabelled(
    train: VideoDataset, path: StrPath, *, val: VideoDataset | None = None, allow_missing: bool = False
) -> VideoDataset:
    """``train`` followed by the videos at ``path`` without their labels, to train on both.

    Args:
        path: a folder of videos, or any data set: its training split, or all of it if it states no splits.
        val: videos that must not be among them.

    Raises:
        UsageError: ``path`` does not exist.
        DataError: ``train`` holds tensors instead of videos, or validation videos are at ``path``.
    """
    if not train.items:
        raise DataError(
            f"unlabelled: {train.root} holds tensors; unlabelled videos need videos as training set"
        )
    try:
        split: Split = "all" if evaluation_split(path, labelled=False) == "all" else "train"
        found = load_dataset(path, split, labelled=False, allow_missing=allow_missing)
    except (UsageError, DataError) as error:
        raise type(error)(f"unlabelled: {error}") from error
    shared, _ = shared_files(found.items, val.items if val else ())
    if shared:
        raise DataError(f"unlabelled: {os.fspath(path)}: validation: {shared}; take them out of the folder")
    return replace(train, items=train.items + found.items, num_unlabelled=len(found))


def _split(root: Path, file: str) -> str | None:
    return split_of(Path(file).relative_to(root).parts[0])


def _videos(folder: Path) -> list[str]:
    """Files, and folders of frames, at any depth, sorted. A warning names what is left out."""
    try:
        videos, others = find_videos(folder, top=False)
    except OSError as error:
        raise DataError(f"{error.filename}: cannot be listed ({error.strerror})") from error
    if others:
        warn_once(f"{folder}: {left_out_text([os.path.relpath(path, folder) for path in others])}")
    return videos
