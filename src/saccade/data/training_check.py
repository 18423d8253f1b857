"""What looks wrong with a training set, as far as it can be told in a second, before the first step.

`saccade.data.check` decodes every frame and finds more.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from saccade.clip import ClipSpec
from saccade.data.entries import first_few
from saccade.data.types import VideoDataset, VideoItem
from saccade.errors import SaccadeError
from saccade.files import file_digest
from saccade.sampling.segments import SEGMENT_RULES
from saccade.video import open_video

MIN_FRAMES = 4
"""Clips with fewer frames than this show no motion."""
_SAMPLE = 40  # videos whose length is looked up
_MANY_SHORT = 0.1  # fraction of the videos that may be shorter than the clip without a word
_FITS = 0.95  # fraction of the videos that a suggested clip fits into
_MAX_FILES = 20_000  # more are not compared
# Names as ids and hashes: 8 and more hexadecimal digits with a letter and a digit among them, or a UUID.
_HASH = re.compile(r"(?=.*\d)(?=.*[a-f])[0-9a-f]{8,}(-[0-9a-f]{4,})*", re.IGNORECASE)


def training_warnings(
    train: VideoDataset, val: VideoDataset | None, clip: ClipSpec, temporal_rule: str = "saccade"
) -> list[str]:
    """What looks wrong, a line each: labels that look random, single clips, files in two classes or splits,
    videos shorter than the clip.
    """
    return [
        f"{train.root}: {text}"
        for text in (
            *_class_doubts(train),
            *_copy_doubts(train, val),
            *_length_doubts(train, clip, temporal_rule),
        )
    ]


def _class_doubts(train: VideoDataset) -> Iterator[str]:
    counts = Counter(item.label for item in train.items if item.label >= 0)
    if not counts:
        return
    names = train.class_names
    single = [names[label] for label, count in sorted(counts.items()) if count == 1]
    if len(single) == len(counts) > 1:
        yield f"each of the {len(counts)} classes has one training clip, too few to learn from"
    elif single:
        yield f"{len(single)} classes have one training clip: {first_few(single)}"
    hashes = [names[label] for label in sorted(counts) if _HASH.fullmatch(names[label])]
    if len(hashes) > len(counts) / 2:
        yield (
            f"{len(hashes)} of {len(counts)} class names look like ids of files, not classes: "
            f"{first_few(hashes)}; is a class a folder, or a label in the list?"
        )


def _copy_doubts(train: VideoDataset, val: VideoDataset | None) -> Iterator[str]:
    """Copies of a file under another label, or in the other split."""
    items = [(item, True) for item in train.items] + [(item, False) for item in (val.items if val else ())]
    if len(items) > _MAX_FILES or any(item.label < 0 for item, _ in items):
        return
    contradictory, shared = [], []
    for group in _copies([item for item, _ in items]):
        labels = {items[position][0].label for position in group}
        names = " = ".join(
            f"{items[position][0].path} ({train.class_names[items[position][0].label]})"
            for position in group[:2]
        )
        if len(labels) > 1:
            contradictory.append(names)
        elif len({items[position][1] for position in group}) > 1:
            shared.append(names)
    if contradictory:
        yield (
            f"{len(contradictory)} files are in two classes, byte for byte, so some labels are wrong: "
            f"{first_few(contradictory)}"
        )
    if shared:
        yield (
            f"{len(shared)} validation files are copies of training files, byte for byte, so validation "
            f"measures memory too: {first_few(shared)}"
        )


def _copies(items: Sequence[VideoItem]) -> list[list[int]]:
    """Positions of different files with the same bytes; only files of equal size are read."""
    by_size: dict[int, list[int]] = defaultdict(list)
    seen: set[str] = set()
    for position, item in enumerate(items):
        if item.path in seen or item.start is not None or item.end is not None:
            continue
        seen.add(item.path)
        try:
            if os.path.isfile(item.path):
                by_size[os.path.getsize(item.path)].append(position)
        except OSError:
            continue
    groups: dict[str, list[int]] = defaultdict(list)
    for positions in by_size.values():
        for position in positions if len(positions) > 1 else ():
            try:
                groups[file_digest(items[position].path)].append(position)
            except OSError:
                continue
    return [group for group in groups.values() if len(group) > 1]


def _length_doubts(train: VideoDataset, clip: ClipSpec, temporal_rule: str) -> Iterator[str]:
    lengths = _lengths(train)
    if not lengths:
        return
    few = [item.path for item, num_frames, _ in lengths if num_frames < MIN_FRAMES]
    if few:
        yield (f"{_of(few, lengths)} fewer than {MIN_FRAMES} frames, which show no motion: {first_few(few)}")
    by_segments = temporal_rule in SEGMENT_RULES
    if by_segments:
        short = [each for each in lengths if each[1] < clip.num_frames]
        span = f"the {clip.num_frames} frames of a clip"
    else:
        short = [each for each in lengths if each[2] < clip.seconds - 1e-6]
        span = (
            f"a clip of {clip.num_frames} frames at stride {clip.stride} ({clip.seconds:.2f} s at "
            f"{clip.target_fps:g} fps)"
        )
    if len(short) > _MANY_SHORT * len(lengths):
        hint = fitting_clip(clip, [each[2] for each in lengths], [each[1] for each in lengths], by_segments)
        yield f"{_of(short, lengths)} less than {span}, so frames of them repeat; {hint}"


def _of(some: Sequence[object], lengths: Sequence[object]) -> str:
    return f"{len(some)} of {len(lengths)} training videos looked at have"


def fitting_clip(
    clip: ClipSpec, seconds: Sequence[float], num_frames: Sequence[int], by_segments: bool = False
) -> str:
    """The stride, or else the number of frames, with which a clip fits into 95 % of the videos, in words."""
    if by_segments:
        frames = max(1, int(np.quantile(num_frames, 1 - _FITS)))
        return f"--clip.num-frames {frames} fits into {100 * _FITS:.0f} % of them"
    available = float(np.quantile(seconds, 1 - _FITS)) * clip.target_fps + 1e-6  # in frames
    stride = int((available - 1) // max(1, clip.num_frames - 1))
    if stride >= 1:
        return f"--clip.stride {min(stride, clip.stride)} fits into {100 * _FITS:.0f} % of them"
    return f"--clip.num-frames {max(1, int(available))} --clip.stride 1 fits into {100 * _FITS:.0f} % of them"


def _lengths(train: VideoDataset) -> list[tuple[VideoItem, int, float]]:
    """Number of frames and seconds of videos all over the data set, without those that cannot be read."""
    found: list[tuple[VideoItem, int, float]] = []
    if train.keyframes:  # moments of films
        return found
    for item in train.items[:: max(1, -(-len(train) // _SAMPLE))]:
        try:
            with open_video(
                item.path, fps=item.fps, num_frames=item.num_frames, start=item.start, end=item.end
            ) as video:
                found.append((item, len(video), len(video) / video.fps))
        except (SaccadeError, OSError):
            continue
    return found
