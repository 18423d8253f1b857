"""AVA (Gu et al., CVPR 2018, arXiv 1705.08421): what the people in a frame do, second by second.

    annotations/    ava_train_v2.2.csv, ava_val_v2.2.csv, the action list, the excluded timestamps, and boxes
                    of detected people (PySlowFast's person_box_67091280_iou90/ and ava_*_predicted_boxes.csv)
    frame_lists/    train.csv and val.csv of PySlowFast; without them, folders are listed
    frames/         VIDEO/VIDEO_000001.jpg, ...: 30 a second from second 900 on
    videos/         or VIDEO.mp4 (.mkv, .webm): cut to begin at second 900, or as long as the film

A *keyframe* is a second from 902 to 1798 at which people are annotated or detected; a clip is centred on it.
The contents of the files are described in `saccade.data.ava_files`.
"""

from __future__ import annotations

import logging
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from saccade.data.ava_files import (
    NUM_ACTIONS,
    BoxRow,
    column_names,
    evaluated_actions,
    read_actions,
    read_boxes,
    read_exclusions,
    read_frame_list,
)
from saccade.data.cache import FrameCache
from saccade.data.clips import ClipLabels, ClipSettings, TrainClips
from saccade.data.datasets import register_dataset
from saccade.data.types import Box, ClipRequest, Keyframe, Moment, VideoDataset, VideoItem
from saccade.errors import DataError, UsageError
from saccade.sampling.timing import FrameTimes
from saccade.video import Backend, VideoReader, open_video
from saccade.video.folders import VIDEO_SUFFIXES
from saccade.video.frames import FrameFolderReader, NumberedFiles

logger = logging.getLogger(__name__)

FIRST_SECOND, LAST_SECOND = 902, 1798
FRAME_RATE = 30.0
"""Frames per second of the published folders of frames, and what strides are stated for."""
VALIDATION_STEP = 4
"""While training, keyframes whose second is divisible by this are validated (PySlowFast)."""

_START = 900.0  # the second at which frames and cut videos begin
_ANNOTATION_FOLDERS = ("annotations", "", "annotations/annotations")
_FRAME_FOLDERS, _VIDEO_FOLDERS = ("frames", ""), ("videos_15min", "videos", "trainval", "")

AvaSplit = Literal["train", "val"]


@dataclass(frozen=True)
class AvaDataset(VideoDataset):
    """The keyframes of one split, in the order of videos and seconds.

    Attributes:
        files: frames of the videos stored as folders, by path of the folder.
        truth: annotated rows of these seconds, for the evaluation.
        actions: the actions that the evaluation counts, number -> name.
        excluded: keyframes that it does not count.
        boxes_from: where the boxes of the keyframes come from, for the record.
    """

    files: dict[str, NumberedFiles] = field(default_factory=dict, repr=False)
    truth: tuple[BoxRow, ...] = field(default=(), repr=False)
    actions: dict[int, str] = field(default_factory=dict, repr=False)
    excluded: frozenset[Moment] = field(default=frozenset(), repr=False)
    boxes_from: str = "annotations"

    def open(
        self,
        index: int,
        *,
        short_side: int | None = None,
        backend: Backend = "auto",
        frames_fps: float | None = None,
    ) -> VideoReader:
        """Open the video of a keyframe; the caller closes it. Folders of frames have 30 a second."""
        path = self.items[index].path
        if path in self.files:
            return FrameFolderReader(path, short_side=short_side, fps=FRAME_RATE, files=self.files[path])
        return open_video(path, backend, short_side=short_side, fps=FRAME_RATE)

    def train_clips(self, settings: ClipSettings, cache: FrameCache | None = None) -> TrainClips:
        """What the worker processes of `TrainLoader` read clips with; whole films are never cached."""
        return AvaClips(self, settings)


def _is_ava(path: Path) -> bool:
    if path.is_file():
        return re.fullmatch(r"ava_(train|val)_v.*\.csv", path.name) is not None
    folders = [path / name for name in _ANNOTATION_FOLDERS]
    return any(_newest(folder, f"ava_{split}_v*.csv") for folder in folders for split in ("train", "val"))


@register_dataset("ava", recognises=_is_ava)
def load_ava(
    path: str | os.PathLike[str],
    split: AvaSplit,
    *,
    detected: str | os.PathLike[str] | None = None,
    min_score: float = 0.9,
    every: int = 1,
    root: str | os.PathLike[str] | None = None,
    allow_missing: bool = False,
) -> AvaDataset:
    """The keyframes of a split, with the boxes that a model is given.

    In training, these are the annotated people, and with ``detected`` the detected ones too, those without
    actions as examples of none. In validation they are the detected ones: ``detected``, or the file of them
    among the annotations; without such a file, the annotated ones, with a warning.

    Args:
        path: the folder of the data set, or one of its files of annotated boxes, which is then that of the
            split.
        detected: a file of detected boxes with scores.
        min_score: detected boxes below it are ignored.
        every: only seconds divisible by this.
        root: the folder of the frames or videos; None: found below the folder of the data set.
        allow_missing: skip missing videos, with a warning.

    Raises:
        UsageError: an argument is out of range, or ``path`` does not exist.
        DataError: files are missing or malformed, or no keyframe is left.
    """
    place = Path(path)
    if not place.exists():
        raise UsageError(f"data {str(place)!r}: no such file or folder")
    if split not in ("train", "val"):
        raise DataError(f"{place}: AVA has no labelled {split} split; it has train and val")
    if every < 1:
        raise UsageError(f"every: must be at least 1, got {every}")
    source = _annotated_file(place, split)
    annotations = source.parent
    truth = _of_range(read_boxes(source, scored=False), source, every)
    boxes_file = Path(detected) if detected else _detected_file(annotations) if split == "val" else None
    found = _of_range(read_boxes(boxes_file, scored=True), boxes_file, every) if boxes_file else []
    shown = [row for row in found if row.score >= min_score]
    if boxes_file is None and split == "val":
        logger.warning(
            f"{annotations}: no boxes of detected people; annotated ones are used, so scores are too good"
        )
    keyframes = _keyframes([*truth, *shown] if split == "train" or boxes_file is None else shown)
    if not keyframes:
        raise DataError(f"{boxes_file or source}: no boxes with a score of at least {min_score:g}")
    home = place if place.is_dir() else _home(annotations)
    videos, files = _videos(home, split, sorted({k.video for k in keyframes}), root, allow_missing)
    keyframes = [keyframe for keyframe in keyframes if keyframe.video in videos]
    actions, names = _actions(annotations)
    exclusions = _newest(annotations, f"ava_{split}_excluded_timestamps*.csv")
    return AvaDataset(
        tuple(videos[keyframe.video] for keyframe in keyframes),
        column_names(names),
        split,
        str(place),
        multi_label=True,
        keyframes=tuple(keyframes),
        files=files,
        truth=tuple(row for row in truth if row.video in videos),
        actions=actions,
        excluded=read_exclusions(exclusions) if exclusions else frozenset(),
        boxes_from=str(boxes_file) if boxes_file else "annotations",
    )


def action_labels(keyframe: Keyframe) -> NDArray[np.float32]:
    """Which actions each person does: (people, 80), column number - 1."""
    labels = np.zeros((len(keyframe.boxes), NUM_ACTIONS), np.float32)
    for row, actions in zip(labels, keyframe.actions, strict=True):
        row[[action - 1 for action in actions]] = 1
    return labels


def keyframe_clip(
    keyframe: Keyframe,
    num_video_frames: int,
    fps: float,
    *,
    num_frames: int,
    stride: int,
    cut: bool | None = None,
    times: NDArray[np.float64] | None = None,
) -> NDArray[np.int64]:
    """The frames of the clip around a keyframe, clamped to the video.

    Frame ``(second - 900) * fps`` is that of the keyframe. The clip begins ``num_frames * stride // 2``
    frames (at 30 a second) before it and takes one every ``stride``, as PySlowFast does.

    Args:
        cut: the video begins at second 900; else at 0. None: see `is_cut`.
        times: `VideoReader.times`; None: the rate is constant. Where it varies, the clip is taken by time,
            and clamped to the section between gaps that is nearest to the keyframe.
    """
    video = FrameTimes(num_video_frames, fps, times)
    cut = is_cut(num_video_frames, fps, times) if cut is None else cut
    seconds = keyframe.second - (_START if cut else 0.0)
    steps = np.arange(num_frames) * stride - num_frames * stride // 2
    if video.varies:
        first, stop = video.section_nearest(seconds)
        return video.at(seconds + steps / FRAME_RATE).clip(first, stop - 1)
    frames = np.rint(seconds * fps + steps * (fps / FRAME_RATE)).astype(np.int64)
    return frames.clip(0, num_video_frames - 1)


def is_cut(num_video_frames: int, fps: float, times: NDArray[np.float64] | None = None) -> bool:
    """Whether a video begins at second 900: a film that lasted to the last keyframe would be longer."""
    return FrameTimes(num_video_frames, fps, times).duration < LAST_SECOND


class AvaClips(TrainClips):
    """Reads the clips around keyframes, with boxes and actions of their people; see `TrainClips`."""

    def __init__(self, dataset: AvaDataset, settings: ClipSettings) -> None:
        super().__init__(dataset, settings)
        self._dataset = dataset

    def _clip(self, request: ClipRequest, index: int) -> tuple[Tensor, ClipLabels]:
        _, stride, short_side = self._draw(request)
        keyframe = self._dataset.keyframes[index]
        with self._dataset.open(index, short_side=short_side, backend=self.settings.backend) as video:
            frames = keyframe_clip(
                keyframe,
                len(video),
                video.fps,
                num_frames=request.num_frames,
                stride=stride,
                times=video.times,
            )
            clip = video.frames(frames.tolist())
        boxes = np.array(keyframe.boxes, np.float32)
        return clip, ClipLabels(action_labels(keyframe).T, np.ones(len(boxes), np.bool_), boxes)


# --- the files -------------------------------------------------------------------------------------------


def _annotated_file(place: Path, split: AvaSplit) -> Path:
    if place.is_file():
        return place.with_name(re.sub(r"(train|val)(?=[_.])", split, place.name, count=1))
    for name in _ANNOTATION_FOLDERS:
        found = _newest(place / name, f"ava_{split}_v*.csv")
        if found is not None:
            return found
    raise DataError(f"{place}: no ava_{split}_v2.2.csv here or in annotations/; it is a file of AVA's")


def _home(annotations: Path) -> Path:
    return annotations.parent if annotations.name == "annotations" else annotations


def _newest(folder: Path, pattern: str) -> Path | None:
    """The file with the highest version in its name."""
    found = sorted(folder.glob(pattern)) if folder.is_dir() else []
    return found[-1] if found else None


def _detected_file(annotations: Path) -> Path | None:
    found: list[Path] = []
    for pattern in ("ava_detection_val*.csv", "ava_val_predicted_boxes*.csv"):
        found += sorted(annotations.rglob(pattern))
    if len(found) > 1:
        names = " and ".join(str(path.relative_to(annotations)) for path in found[:2])
        raise DataError(f"{annotations}: {names} both hold detected boxes; name the one to use")
    return found[0] if found else None


def _actions(annotations: Path) -> tuple[dict[int, str], dict[int, str]]:
    """The evaluated actions, and all that have a name."""
    lists = sorted(annotations.glob("ava_action_list*.pbtxt"))
    counted = [path for path in lists if "for_activitynet" in path.name]
    actions = read_actions(counted[-1]) if counted else evaluated_actions()
    complete = [path for path in lists if path not in counted]
    return actions, {**(read_actions(complete[-1]) if complete else {}), **actions}


def _of_range(rows: list[BoxRow], source: Path, every: int) -> list[BoxRow]:
    outside = next((row for row in rows if not FIRST_SECOND <= row.second <= LAST_SECOND), None)
    if outside is not None:
        raise DataError(
            f"{source}: video {outside.video} has a box at second {outside.second}; keyframes are seconds "
            f"{FIRST_SECOND} to {LAST_SECOND}"
        )
    return [row for row in rows if row.second % every == 0]


def _keyframes(rows: Iterable[BoxRow]) -> list[Keyframe]:
    """Rows of one box of one moment are one person."""
    people: dict[Moment, dict[Box, tuple[set[int], float]]] = defaultdict(dict)
    for row in rows:
        actions, _ = people[row.moment].setdefault(row.box, (set(), row.score))
        if row.action is not None:
            actions.add(row.action)
    return [
        Keyframe(
            video,
            second,
            tuple(boxes),
            tuple(tuple(sorted(actions)) for actions, _ in boxes.values()),
            tuple(score for _, score in boxes.values()),
        )
        for (video, second), boxes in sorted(people.items())
    ]


# --- the videos ------------------------------------------------------------------------------------------


def _videos(
    home: Path,
    split: AvaSplit,
    names: Sequence[str],
    root: str | os.PathLike[str] | None,
    allow_missing: bool,
) -> tuple[dict[str, VideoItem], dict[str, NumberedFiles]]:
    """The item of each video, and the frames of those in folders."""
    bases = [Path(root)] if root is not None else [home]
    listed = _listed_frames(home, split, bases)
    items: dict[str, VideoItem] = {}
    files: dict[str, NumberedFiles] = {}
    missing: list[str] = []
    folders = [base / name for base in bases for name in _FRAME_FOLDERS]
    movies = [base / name for base in bases for name in _VIDEO_FOLDERS]
    for name in names:
        frames = listed.get(name) or next(
            (NumberedFiles.of_folder(f / name) for f in folders if (f / name).is_dir()), None
        )
        movie = None if frames else _movie(movies, name)
        if frames is not None:
            items[name] = VideoItem(frames.folder, -1, len(frames), FRAME_RATE)
            files[frames.folder] = frames
        elif movie is not None:
            items[name] = VideoItem(str(movie), -1)
        else:
            missing.append(name)
    if missing and (not allow_missing or not items):
        looked = ", ".join(str(folder) for folder in dict.fromkeys([*folders, *movies]))
        raise DataError(
            f"{len(missing)} of {len(names)} videos are not found, first {missing[0]}: no folder "
            f"of frames and no video file of that name in {looked}; give the folder with --root, or "
            "--allow-missing to skip them"
        )
    if missing:
        logger.warning(
            f"{home}: {len(missing)} of {len(names)} videos are missing and skipped, first {missing[0]}"
        )
    return items, files


def _listed_frames(home: Path, split: AvaSplit, bases: Sequence[Path]) -> dict[str, NumberedFiles]:
    """The frames of the videos that PySlowFast's frame list names, if it is there."""
    path = home / "frame_lists" / f"{split}.csv"
    if not path.is_file():
        return {}
    lists = read_frame_list(path)
    first = next(iter(lists.values()))[0]
    folders = [base / name for base in bases for name in _FRAME_FOLDERS]
    folder = next((folder for folder in folders if (folder / first).is_file()), None)
    if folder is None:
        raise DataError(
            f"{path}: {first} is not in {' or '.join(map(str, folders))}; give the folder with --root"
        )
    return {
        name: NumberedFiles.of_paths([str(folder / frame) for frame in frames], where=str(path))
        for name, frames in lists.items()
    }


def _movie(folders: Sequence[Path], name: str) -> Path | None:
    return next(
        (
            folder / f"{name}{suffix}"
            for folder in folders
            for suffix in sorted(VIDEO_SUFFIXES)
            if (folder / f"{name}{suffix}").is_file()
        ),
        None,
    )
