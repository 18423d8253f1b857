"""Decoding a data set once, to find what would go wrong in training."""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from saccade.clip import ClipSpec
from saccade.data.datasets import read_entries
from saccade.data.entries import Entry, collected_warnings
from saccade.data.training_check import MIN_FRAMES, fitting_clip
from saccade.data.workers import end_processes, num_processes, process_pool
from saccade.errors import DataError, SaccadeError, UsageError
from saccade.files import file_digest
from saccade.progress import Progress, ignore
from saccade.sampling.segments import SEGMENT_RULES
from saccade.sampling.temporal import RULES
from saccade.sampling.timing import FrameTimes
from saccade.video import Backend, VideoReader
from saccade.video.damage import DamagedSpan, damaged_spans
from saccade.video.folders import is_video_name

TARGET_FPS = 30.0
_BLOCK = 64  # frames decoded at a time
_SPANS = 5  # damaged spans that a line names
_LOOK_SIDE = 32  # short side in pixels at which frames are compared
# Of 192 bits. Measured on UCF-101: re-encoding at CRF 32 changes up to 8, near clips of one source differ in
# 8 to 22, clips of different sources in 56 or more.
_ALIKE_BITS = 24


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """The contents of one file. With a ``cause`` it could not be read, in part (``damage``) or at all.

    Attributes:
        labels: indices into the report's class names: one, or any number in a multi-label data set; none for
            videos without labels.
        listed_frames, listed_fps: frames and rate of a folder of frames, as the data set states them.
        duration: seconds; 0: ``num_frames / fps``.
        varying: whether the frame rate varies, so that clips are taken by time.
        gaps: start and end in seconds of the stretches in which nothing was recorded.
        start, end: the segment of the file that is the clip, in seconds; None: all of it.
        size: height and width in pixels.
        sha256: of the file's bytes; empty for a folder of frames.
        look: 192 bits as hex, a perceptual hash of the first, middle and last frame.
        damage: where frames cannot be decoded, or are missing because the file was cut.
    """

    path: str
    split: str
    labels: tuple[int, ...]
    listed_frames: int | None = None
    listed_fps: float | None = None
    num_frames: int = 0
    fps: float = 0.0
    duration: float = 0.0
    varying: bool = False
    gaps: tuple[tuple[float, float], ...] = ()
    size: tuple[int, int] = (0, 0)
    sha256: str = ""
    look: str = ""
    damage: tuple[DamagedSpan, ...] = ()
    cause: str | None = None
    start: float | None = None
    end: float | None = None

    @property
    def name(self) -> str:
        """The path, and the segment if it is one."""
        if self.start is None and self.end is None:
            return self.path
        return (
            f"{self.path} ({self.start or 0:g} s to {'its end' if self.end is None else f'{self.end:g} s'})"
        )

    @property
    def seconds(self) -> float:
        """Duration; 0 for a file that could not be read."""
        return self.duration or (self.num_frames / self.fps if self.fps else 0.0)

    @property
    def longest_section(self) -> float:
        """Seconds of the longest stretch without a gap."""
        starts, ends = (
            [0.0, *(end for _, end in self.gaps)],
            [*(start for start, _ in self.gaps), self.seconds],
        )
        return max(end - start for start, end in zip(starts, ends, strict=True))


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """The facts of every file of a data set, and what follows from them.

    Attributes:
        num_frames: frames of a training clip.
        stride: its stride, at 30 frames per second.
        temporal_rule: how frames are sampled; a segment rule ignores the stride.
        warnings: what was said while the lists and folders were read: files left out, columns that are not
            used, numbers of labels.
    """

    root: str
    class_names: tuple[str, ...]
    files: tuple[FileFacts, ...]
    num_frames: int
    stride: int
    temporal_rule: str = "saccade"
    warnings: tuple[str, ...] = ()

    @property
    def by_segments(self) -> bool:
        """Whether a clip takes one frame of each segment of the video."""
        return self.temporal_rule in SEGMENT_RULES

    @property
    def ok(self) -> bool:
        """Nothing unreadable, and no file in two splits."""
        return not self.unreadable and not self.duplicates_across_splits

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have files."""
        return tuple(
            name for name in ("train", "val", "test", "all") if any(f.split == name for f in self.files)
        )

    @property
    def unreadable(self) -> list[FileFacts]:
        """Files that could not be read to their end."""
        return [file for file in self.files if file.cause is not None]

    @property
    def short(self) -> list[FileFacts]:
        """Readable files that are shorter than one clip, so that its frames would repeat."""
        readable = [file for file in self.files if file.cause is None]
        if self.by_segments:
            return [file for file in readable if file.num_frames < self.num_frames]
        span = ((self.num_frames - 1) * self.stride + 1) / TARGET_FPS
        return [file for file in readable if file.longest_section < span - 1e-6]

    @property
    def few_frames(self) -> list[FileFacts]:
        """Readable files with so few frames that they show no motion."""
        return [file for file in self.files if file.cause is None and file.num_frames < MIN_FRAMES]

    @property
    def fitting_clip(self) -> str:
        """The clip that would fit into nearly all files, in words; empty if none is short."""
        readable = [file for file in self.files if file.cause is None]
        if not self.short:
            return ""
        clip = ClipSpec(num_frames=self.num_frames, stride=self.stride, crop=1, short_side=1)
        seconds, num_frames = (
            [file.longest_section for file in readable],
            [file.num_frames for file in readable],
        )
        return fitting_clip(clip, seconds, num_frames, self.by_segments)

    @property
    def varying(self) -> list[FileFacts]:
        """Files whose frame rate varies."""
        return [file for file in self.files if file.varying]

    @property
    def with_gaps(self) -> list[FileFacts]:
        """Files with stretches in which nothing was recorded."""
        return [file for file in self.files if file.gaps]

    @property
    def duplicates(self) -> list[list[FileFacts]]:
        """Groups of files with the same bytes, or of the same segment of such files."""
        return self._alike(lambda file: (file.sha256, file.start, file.end))

    def _alike(self, key: Callable[[FileFacts], Any]) -> list[list[FileFacts]]:
        groups: dict[Any, list[FileFacts]] = defaultdict(list)
        for file in self.files:
            if file.sha256:
                groups[key(file)].append(file)
        return [group for group in groups.values() if len(group) > 1]

    @property
    def duplicates_across_splits(self) -> list[list[FileFacts]]:
        """Groups of files, or segments of files, with the same bytes in more than one split."""
        alike = self._alike(lambda file: file.sha256)
        return [group for group in alike if len({file.split for file in group}) > 1]

    @property
    def contradictions(self) -> list[list[FileFacts]]:
        """Groups of files with the same bytes and different labels."""
        return [group for group in self.duplicates if len({file.labels for file in group}) > 1]

    @property
    def class_counts(self) -> dict[str, list[int]]:
        """Readable files per class, for each split."""
        counts = {split: [0] * len(self.class_names) for split in self.splits}
        for file in self.files:
            for label in file.labels if file.cause is None else ():
                counts[file.split][label] += 1
        return counts

    @property
    def missing_classes(self) -> dict[str, list[str]]:
        """Classes without a readable file, for each split that has any such."""
        missing = {
            split: [name for name, count in zip(self.class_names, counts, strict=True) if not count]
            for split, counts in self.class_counts.items()
        }
        return {split: names for split, names in missing.items() if names}

    def look_alikes(self) -> list[tuple[FileFacts, FileFacts]]:
        """Pairs of files in two splits, of other bytes, whose frames look the same: encoded twice, or cut
        from one video. A hint, not a proof.
        """
        return [(one, other) for one, other in self._similar() if one.split != other.split]

    def look_alikes_of_two_classes(self) -> list[tuple[FileFacts, FileFacts]]:
        """Pairs of files with different labels, of other bytes, whose frames look the same: one of the labels
        is wrong, or several classes happen in one place. A hint, not a proof.
        """
        return [(one, other) for one, other in self._similar() if one.labels != other.labels]

    def _similar(self) -> list[tuple[FileFacts, FileFacts]]:
        """Pairs of files of other bytes whose frames look the same."""
        files = [file for file in self.files if file.look]
        if not files:
            return []
        bits = np.stack([np.unpackbits(np.frombuffer(bytes.fromhex(file.look), np.uint8)) for file in files])
        signs = bits.astype(np.float32) * 2 - 1
        found = []
        for start in range(0, len(files), 1024):
            differing = (signs.shape[1] - signs[start : start + 1024] @ signs.T) / 2
            for row, column in np.argwhere(differing <= _ALIKE_BITS):
                one, other = files[start + row], files[column]
                if start + row < column and one.sha256 != other.sha256:
                    found.append((one, other))
        return found

    def to_json(self) -> dict[str, Any]:
        """Everything as plain values: the findings by path, then the facts of every file."""
        return {
            "root": self.root,
            "ok": self.ok,
            "warnings": list(self.warnings),
            "class_names": list(self.class_names),
            "class_counts": self.class_counts,
            "missing_classes": self.missing_classes,
            "unreadable": {file.path: file.cause for file in self.unreadable},
            "short": [file.path for file in self.short],
            "varying_rate": [file.path for file in self.varying],
            "gaps": {file.path: file.gaps for file in self.with_gaps},
            "duplicates_across_splits": [[f.path for f in group] for group in self.duplicates_across_splits],
            "duplicates": [[file.path for file in group] for group in self.duplicates],
            "look_alikes": [[one.path, other.path] for one, other in self.look_alikes()],
            "look_alikes_of_two_classes": [
                [one.path, other.path] for one, other in self.look_alikes_of_two_classes()
            ],
            "fewer_than_4_frames": [file.path for file in self.few_frames],
            "fitting_clip": self.fitting_clip,
            "clip": {
                "num_frames": self.num_frames,
                "stride": self.stride,
                "target_fps": TARGET_FPS,
                "temporal_rule": self.temporal_rule,
            },
            "files": [asdict(file) for file in self.files],
        }


def check_data(
    path: str | os.PathLike[str],
    *,
    num_frames: int = 16,
    stride: int = 5,
    class_names: str | os.PathLike[str] | Sequence[str] | None = None,
    root: str | os.PathLike[str] | None = None,
    group: str | None = None,
    temporal_rule: str = "saccade",
    workers: int | None = None,
    backend: Backend = "auto",
    decode: bool = True,
    progress: Progress | None = None,
) -> CheckReport:
    """Decode every frame of every video of a data set once, and report what was found.

    Args:
        path: as for `load_dataset`; or any folder, whose videos are then read without labels.
        num_frames: frames of a training clip.
        stride: its stride at 30 frames per second. Files shorter than the clip are reported.
        class_names: as for `load_dataset`.
        root, group: as for `load_dataset`.
        temporal_rule: one of `saccade.sampling.temporal.RULES`; with a segment rule a file is short that has
            fewer frames than the clip.
        workers: processes; None takes one per available CPU, 0 reads in this process.
        backend: what decodes, see `saccade.open_video`.
        decode: False: open the files only, which tells length, size and duplicates, but neither damage nor
            files that look alike.
        progress: called with (files read, files in all).

    Raises:
        UsageError: an argument is out of range, or ``path`` does not exist.
        DataError: a list or a label is wrong, or there are no videos.
    """
    for name, value in (("num_frames", num_frames), ("stride", stride)):
        if value < 1:
            raise UsageError(f"{name}: must be at least 1, got {value}")
    if temporal_rule not in RULES:
        raise UsageError(f"temporal_rule: {temporal_rule!r} is unknown; known are {', '.join(RULES)}")
    processes = num_processes(workers)
    with collected_warnings() as warnings:
        names, wanted = _files(path, class_names, root, group)
    order = {(file.path, file.start, file.end): position for position, file in enumerate(wanted)}
    facts: list[FileFacts] = []
    progress = progress or ignore
    progress(0, len(wanted))
    for file in _examine_all(wanted, processes, backend, decode):
        facts.append(file)
        progress(len(facts), len(wanted))
    facts.sort(key=lambda file: order[file.path, file.start, file.end])
    if len(names) == 1:
        warnings.append(f"{path}: one class, {names[0]!r}; a classifier needs two or more")
    return CheckReport(
        root=str(path),
        class_names=names,
        files=tuple(facts),
        num_frames=num_frames,
        stride=stride,
        temporal_rule=temporal_rule,
        warnings=tuple(dict.fromkeys(warnings)),
    )


def _files(
    path: str | os.PathLike[str],
    class_names: str | os.PathLike[str] | Sequence[str] | None,
    root: str | os.PathLike[str] | None,
    group: str | None,
) -> tuple[tuple[str, ...], list[FileFacts]]:
    """The class names, and each file as listed."""
    try:
        names, entries = read_entries(path, class_names=class_names, root=root, group=group)
    except DataError:
        found = _loose_videos(Path(path))
        if not found:
            raise
        return (), [FileFacts(path=file, split="all", labels=()) for file in found]
    return names, [
        FileFacts(
            path=entry.path,
            split=entry.split or "all",
            labels=_labels(entry),
            listed_frames=entry.num_frames,
            listed_fps=entry.fps,
            start=entry.start,
            end=entry.end,
        )
        for entry in entries
    ]


def _labels(entry: Entry) -> tuple[int, ...]:
    if entry.actions is None:
        return (int(entry.label),)
    return tuple(sorted({action.label for action in entry.actions}))


def _loose_videos(place: Path) -> list[str]:
    """Videos directly in a folder, without classes."""
    if not place.is_dir():
        return []
    return sorted(str(path) for path in place.iterdir() if is_video_name(path.name) and path.is_file())


def _examine_all(
    files: list[FileFacts], workers: int, backend: Backend = "auto", decode: bool = True
) -> Iterator[FileFacts]:
    """The facts of all files, in the order they come."""
    if workers < 2 or len(files) < 4:
        yield from (examine(file, backend, decode) for file in files)
        return
    broken: list[FileFacts] = []
    with process_pool(min(workers, len(files))) as pool:
        futures = {pool.submit(examine, file, backend, decode): file for file in files}
        try:
            for future in as_completed(futures):
                try:
                    yield future.result()
                except BrokenProcessPool:
                    broken.append(futures[future])
        except BaseException:  # a signal: wait for no file that is being decoded
            end_processes(pool)
            raise
    yield from _examine_one_by_one(broken, backend, decode)


def _examine_one_by_one(files: list[FileFacts], backend: Backend, decode: bool) -> Iterator[FileFacts]:
    """One file at a time, as one of them crashes its process."""
    pool = process_pool(1)
    for file in files:
        try:
            yield pool.submit(examine, file, backend, decode).result()
        except BrokenProcessPool:
            yield replace(file, cause="the decoder crashed")
            pool.shutdown()
            pool = process_pool(1)
    pool.shutdown()


def examine(file: FileFacts, backend: Backend = "auto", decode: bool = True) -> FileFacts:
    """Read all of one file, or without ``decode`` open it; an error becomes its ``cause``."""
    from saccade.video import open_video

    try:
        options: dict[str, Any] = {"fps": file.listed_fps, "num_frames": file.listed_frames}
        options |= {"start": file.start, "end": file.end}
        with open_video(file.path, backend, short_side=_LOOK_SIDE, **options) as video:
            length = len(video)
            if length == 0:
                return replace(file, cause="no frames")
            look, damage = _decoded(video) if decode else (b"", ())
            timing = FrameTimes.of(video)
        with open_video(file.path, backend) as video:  # cheap; for the size before the resize
            size = video.size
        found = replace(
            file,
            num_frames=length,
            fps=timing.fps,
            duration=timing.duration,
            varying=timing.varies,
            gaps=timing.gaps,
            size=size,
            sha256="" if os.path.isdir(file.path) else file_digest(file.path),
        )
        if damage:
            listed = "; ".join(str(span) for span in damage[:_SPANS])
            others = f"; and {len(damage) - _SPANS} more" if len(damage) > _SPANS else ""
            number = sum(span.last - span.first + 1 for span in damage)
            total = max(length, damage[-1].last + 1)
            cause = f"{number} of {total} frames cannot be read: {listed}{others}"
            return replace(found, damage=damage, cause=cause)
        return replace(found, look=look.hex())
    except (SaccadeError, OSError) as error:
        return replace(file, cause=getattr(error, "cause", None) or str(error))


def _decoded(video: VideoReader) -> tuple[bytes, tuple[DamagedSpan, ...]]:
    """Decode every frame: the look of the first, middle and last, and what is damaged."""
    length = len(video)
    wanted = {0, length // 2, length - 1}
    looks = {}
    undecodable: dict[int, str] = {}
    for start in range(0, length, _BLOCK):
        block, failed = video.try_frames(range(start, min(start + _BLOCK, length)))
        frames = block.numpy()
        undecodable |= failed
        looks.update({t: _look(frames[t - start]) for t in wanted if start <= t < start + len(frames)})
    look = b"".join(looks[t] for t in (0, length // 2, length - 1))
    return look, tuple(damaged_spans(video, undecodable))


def _look(frame: np.ndarray) -> bytes:
    """64 bits of a frame (H, W, 3): which of its low frequencies are above their median, without the mean."""
    grey = frame.mean(axis=2)
    waves = _cosines(grey.shape[0]) @ grey @ _cosines(grey.shape[1]).T
    return np.packbits(waves > np.median(waves)).tobytes()


def _cosines(size: int) -> np.ndarray:
    """(8, size): the DCT waves of 1 to 8 half turns over ``size`` pixels."""
    return np.cos(np.pi * np.arange(1, 9)[:, None] * (np.arange(size)[None, :] + 0.5) / size)


def spread(values: Sequence[float]) -> tuple[float, float, float]:
    """Minimum, median and maximum."""
    return float(min(values)), float(np.median(values)), float(max(values))


def common_sizes(files: Sequence[FileFacts], most: int = 3) -> list[tuple[tuple[int, int], int]]:
    """The commonest (height, width) and how many files have each."""
    return Counter(file.size for file in files).most_common(most)
