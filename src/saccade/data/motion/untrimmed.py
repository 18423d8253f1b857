"""`motion` untrimmed: longer videos in which several events happen, some at the same time, as files in the
format of Charades.

Each event lasts as long as a clip of `motion` does and is drawn by the same generators, those of the second
class of a pair backwards; it is not visible before and after. As in the clips, single frames do not
distinguish the classes of a pair.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from saccade.data.motion.events import MOTION_CLASSES, PAIRS, progress_curve
from saccade.data.motion.files import finish_set
from saccade.data.motion.render import MOTION_VERSION
from saccade.data.motion.scene import Scene
from saccade.data.motion.spec import SetSpec
from saccade.errors import UsageError
from saccade.progress import Progress

_SPLITS = {"train": 0, "val": 1}
_TRIES = 100  # positions drawn for an event before it is dropped
# The columns of Charades; those without a meaning here are empty.
_COLUMNS = (
    "id",
    "subject",
    "scene",
    "quality",
    "relevance",
    "verified",
    "script",
    "objects",
    "descriptions",
    "actions",
    "length",
)


@dataclass(frozen=True, kw_only=True)
class UntrimmedSpec(SetSpec):
    """Settings of the videos of an untrimmed `motion` set."""

    kind: ClassVar[Mapping[str, str]] = {"kind": "untrimmed"}
    counts: ClassVar[tuple[str, ...]] = ("num_videos", "num_val_videos")
    ranges: ClassVar[Mapping[str, int]] = {"num_frames": 8, "num_event_frames": 4, "num_events": 0}

    num_videos: int = 240
    num_val_videos: int = 80
    num_frames: tuple[int, int] = (150, 210)  # of a video
    num_event_frames: tuple[int, int] = (36, 56)
    num_events: tuple[int, int] = (2, 4)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_event_frames[1] > self.num_frames[0]:
            raise UsageError(
                f"num_event_frames: an event of {self.num_event_frames[1]} frames does not fit into a video "
                f"of {self.num_frames[0]}"
            )


@dataclass(frozen=True)
class Happening:
    """An event of a video: its class, its first frame and the first after it."""

    class_name: str
    start: int
    stop: int


@dataclass(frozen=True)
class _Video:
    path: str
    split: str
    index: int


def make_untrimmed(
    root: str | os.PathLike[str],
    *,
    workers: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> Path:
    """Write the untrimmed `motion` set to ``root``; a complete one is left as it is, an interrupted one
    resumed.

    The layout is that of Charades: ``videos/<id>.mp4``, ``train.csv`` and ``val.csv`` with its columns (of
    which ``id``, ``actions`` and ``length`` are filled), ``classes.txt``; ``motion.json``, written last,
    holds the settings, the class names and the time-reversal pairs. The same settings give the same pixels.

    Args:
        root: folder to write; made if missing.
        workers, force, progress: as in `make_motion`.
        settings: fields of `UntrimmedSpec`: ``num_videos`` and ``num_val_videos``, training and held-out
            videos; ``num_frames`` and ``num_event_frames``, inclusive ranges of the length of a video and of
            an event; ``num_events``, inclusive range of the number of events, at most two of which overlap;
            ``size``, ``fps``, ``seed`` as in `make_motion`.

    Raises:
        UsageError: a setting is out of range.
        DataError: ``root`` holds something else, or (without ``force``) a `motion` set of other settings.
    """
    spec = UntrimmedSpec(**settings)
    folder = Path(root)
    videos = list(_videos(folder, spec))
    lists = {
        f"{split}.csv": _csv([video for video in videos if video.split == split], spec) for split in _SPLITS
    }
    lists["classes.txt"] = "".join(f"c{label:03d} {name}\n" for label, name in enumerate(MOTION_CLASSES))
    finish_set(
        folder,
        videos,
        partial(_frames, spec),
        spec.description(),
        fps=spec.fps,
        lists=lists,
        workers=workers,
        force=force,
        progress=progress,
    )
    return folder


def plan_video(spec: UntrimmedSpec, split: str, index: int) -> tuple[int, list[Happening]]:
    """The number of frames of a video and what happens in it, in order of time."""
    return _plan(_generator(spec, split, index), spec)


def render_video(spec: UntrimmedSpec, split: str, index: int) -> np.ndarray:
    """The frames of a video: uint8 (T, H, W, 3)."""
    rng = _generator(spec, split, index)
    length, happenings = _plan(rng, spec)
    height, width = spec.size
    scene = Scene.draw(rng, height, width, length)
    running = []
    for happening in happenings:
        forward, _, event = next(pair for pair in PAIRS if happening.class_name in pair[:2])
        paint = event(rng, height, width)
        progress = progress_curve(rng, happening.stop - happening.start)
        running.append((happening, paint, progress if happening.class_name == forward else progress[::-1]))
    frames = np.empty((length, height, width, 3), np.uint8)
    for t in range(length):
        frame = scene.begin(t, length)
        for happening, paint, progress in running:
            if happening.start <= t < happening.stop:
                paint(frame, float(progress[t - happening.start]), *scene.camera(t))
        frames[t] = scene.finish(frame, t)
    return frames


def _generator(spec: UntrimmedSpec, split: str, index: int) -> np.random.Generator:
    return np.random.default_rng([MOTION_VERSION, spec.seed, _SPLITS[split], index])


def _plan(rng: np.random.Generator, spec: UntrimmedSpec) -> tuple[int, list[Happening]]:
    length = int(rng.integers(*spec.num_frames, endpoint=True))
    found: list[Happening] = []
    for _ in range(int(rng.integers(*spec.num_events, endpoint=True))):
        name = MOTION_CLASSES[int(rng.integers(len(MOTION_CLASSES)))]
        duration = int(rng.integers(*spec.num_event_frames, endpoint=True))
        for _ in range(_TRIES):
            start = int(rng.integers(0, length - duration, endpoint=True))
            happening = Happening(name, start, start + duration)
            if _fits(happening, found):
                found.append(happening)
                break
    return length, sorted(found, key=lambda happening: happening.start)


def _fits(new: Happening, others: Sequence[Happening]) -> bool:
    """At most two events at a time, for at most half of the new one, and no class twice at the same time."""
    shared = [max(0, min(new.stop, other.stop) - max(new.start, other.start)) for other in others]
    same = any(
        share and other.class_name == new.class_name for share, other in zip(shared, others, strict=True)
    )
    busy = np.zeros(new.stop - new.start, np.int64)
    for other in others:
        busy[max(0, other.start - new.start) : max(0, other.stop - new.start)] += 1
    return not same and busy.max() < 2 and 2 * sum(shared) <= new.stop - new.start


def _videos(folder: Path, spec: UntrimmedSpec) -> Iterator[_Video]:
    for split, count in (("train", spec.num_videos), ("val", spec.num_val_videos)):
        for index in range(count):
            name = f"{'M' if split == 'train' else 'V'}{index:04d}"  # five signs, as the ids of Charades
            yield _Video(str(folder / "videos" / f"{name}.mp4"), split, index)


def _frames(spec: UntrimmedSpec, video: _Video) -> np.ndarray:
    return render_video(spec, video.split, video.index)


def _csv(videos: Sequence[_Video], spec: UntrimmedSpec) -> str:
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    for video in videos:
        length, happenings = plan_video(spec, video.split, video.index)
        actions = ";".join(_action(happening, spec.fps) for happening in happenings)
        row = {"id": Path(video.path).stem, "actions": actions, "length": f"{length / spec.fps:.2f}"}
        writer.writerow(row)
    return stream.getvalue()


def _action(happening: Happening, fps: int) -> str:
    """The times lie half a frame outside, so that rounding them takes no frame away."""
    start, end = (max(0.0, (frame - 0.5) / fps) for frame in (happening.start, happening.stop))
    return f"c{MOTION_CLASSES.index(happening.class_name):03d} {start:.2f} {end:.2f}"
