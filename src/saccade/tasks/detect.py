"""What the people in keyframes do: scores of every box, and frame-mAP.

Shape letters: F keyframes, P boxes of people shown to the model, M annotated rows, K columns of actions.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from saccade.clip import ClipSpec
from saccade.data.ava import VALIDATION_STEP, AvaDataset, keyframe_clip
from saccade.data.ava_files import BoxRow, Moment, write_detections
from saccade.data.datasets import with_default_reader
from saccade.data.types import ClipBatch, VideoDataset
from saccade.errors import ConfigError, DataError, UsageError
from saccade.sampling.plan import WHOLE, PlannedClip, VideoPlan
from saccade.sampling.views import Views
from saccade.tasks.base import (
    Objective,
    Outcome,
    PlanRequest,
    Preview,
    Problems,
    Step,
    Task,
    View,
    option_names,
)
from saccade.tasks.frame_map import BoxTable, FrameMap, box_iou, frame_map
from saccade.tasks.result import ClassTable, Result
from saccade.tasks.scores import binary_cross_entropy, check_classes, not_finite, sigmoid
from saccade.transforms import Mixing, TrainTransform
from saccade.transforms.people import clips_with_people
from saccade.video import VideoReader

KEYFRAMES = "keyframes"
"""What stands in the place of views: one clip around each keyframe, its frames whole."""


@dataclass(frozen=True, eq=False, kw_only=True)
class DetectionResult(Result):
    """Scores of the people in keyframes. ``paths`` has the video of each keyframe that was read.

    Attributes:
        moments: str (F,), ``video,0902``: the keyframes shown, then those annotated alone.
        people: int64 (P,), of each box the place of its keyframe in ``moments``.
        boxes: float64 (P, 4): x1, y1, x2, y2 as fractions of width and height.
        scores: float32 (P, K), the sigmoid; column k is action k + 1.
        truth: float64 (M, 6): place in ``moments``, box, action.
        counted: int64, the actions that the evaluation counts.
        excluded: str, the keyframes that it leaves out.
        boxes_from: where the boxes come from.
    """

    task: ClassVar[str] = "detection"

    moments: NDArray[np.str_]
    people: NDArray[np.int64]
    boxes: NDArray[np.float64]
    scores: NDArray[np.float32]
    truth: NDArray[np.float64]
    counted: NDArray[np.int64]
    excluded: NDArray[np.str_]
    boxes_from: str = ""

    @property
    def num_videos(self) -> int:
        """Videos that the keyframes are from."""
        return len(set(self.paths))

    @property
    def num_keyframes(self) -> int:
        """Keyframes tested."""
        return len(self.paths)

    @property
    def num_views(self) -> float:
        """Clips a video, on average."""
        return self.num_keyframes / max(self.num_videos, 1)

    @property
    def own_figures(self) -> dict[str, float]:
        return {"frame_map": self.frame_map.mean}

    @cached_property
    def frame_map(self) -> FrameMap:
        """By the official rule, at an IoU of 0.5."""
        names = {int(number): self.class_names[int(number) - 1] for number in self.counted}
        return frame_map(self.annotated, self.detected, names, excluded=set(map(_moment, self.excluded)))

    @property
    def annotated(self) -> BoxTable:
        """The annotated rows."""
        return BoxTable(
            tuple(map(_moment, self.moments)),
            self.truth[:, 0].astype(np.int64),
            self.truth[:, 1:5],
            self.truth[:, 5].astype(np.int64),
            np.ones(len(self.truth)),
        )

    @property
    def detected(self) -> BoxTable:
        """A row for each box and action that counts."""
        num = len(self.counted)
        return BoxTable(
            tuple(map(_moment, self.moments)),
            np.repeat(self.people, num),
            np.repeat(self.boxes, num, axis=0),
            np.tile(self.counted, len(self.people)),
            self.scores[:, self.counted - 1].astype(np.float64).reshape(-1),
        )

    @cached_property
    def labels(self) -> NDArray[np.bool_]:
        """What each box is annotated with: the actions of all boxes of its keyframe that overlap it by half:
        (P, K).
        """
        labels = np.zeros(self.scores.shape, np.bool_)
        rows_at: dict[int, list[int]] = {}
        for row, moment in enumerate(self.truth[:, 0].astype(np.int64).tolist()):
            rows_at.setdefault(moment, []).append(row)
        for person, moment in enumerate(self.people.tolist()):
            rows = np.array(rows_at.get(moment, []), np.int64)
            overlaps = box_iou(self.boxes[person : person + 1], self.truth[rows, 1:5])[0]
            labels[person, self.truth[rows[overlaps >= 0.5], 5].astype(np.int64) - 1] = True
        return labels

    @property
    def loss(self) -> float:
        """Binary cross entropy, mean over boxes and actions."""
        each = binary_cross_entropy(self.scores, self.labels)
        return float(each.mean()) if each.size else float("nan")

    def protocol_text(self) -> str:
        clip = self.clip
        frames = f" of {clip.num_frames} frames x stride {clip.stride}" if clip else ""
        size = f", short side {clip.short_side}" if clip else ""
        return (
            f"protocol: one clip{frames} around each of {self.num_keyframes} keyframes{size}, "
            f"{len(self.boxes)} boxes from {self.boxes_from}, IoU {self.frame_map.iou:g}"
        )

    def class_table(self) -> ClassTable:
        rows = sorted(
            (row for row in self.frame_map.rows if row.num_annotated),
            key=lambda row: (row.precision, row.action),
        )
        return ClassTable(
            "AP",
            ("annotated", "correct detections"),
            tuple(
                (row.name, row.precision, (str(row.num_annotated), f"{row.right} of {row.num_detected}"))
                for row in rows
            ),
        )

    @property
    def scored(self) -> tuple[NDArray[Any], NDArray[Any]]:
        return self.scores, self.labels

    @property
    def submission_name(self) -> str:
        return "detections.csv"

    def write_submission(self, path: str | os.PathLike[str]) -> None:
        """Write the detections in the format in which they are submitted."""
        write_detections(path, self.detected.rows())

    def _own_summary(self) -> dict[str, Any]:
        result = self.frame_map
        return {
            "frame_map": result.mean,
            "iou": result.iou,
            "num_keyframes": self.num_keyframes,
            "num_boxes": len(self.boxes),
            "num_annotated": int(np.isin(self.truth[:, 5], self.counted).sum()),
            "boxes_from": self.boxes_from,
            "actions": {row.name: None if np.isnan(row.precision) else row.precision for row in result.rows},
        }

    def _arrays(self) -> dict[str, Any]:
        return {
            "moments": self.moments,
            "people": self.people,
            "boxes": self.boxes,
            "scores": self.scores,
            "truth": self.truth,
            "counted": self.counted,
            "excluded": self.excluded,
        }

    @classmethod
    def _own_fields(cls, info: dict[str, Any]) -> dict[str, Any]:
        return {"boxes_from": str(info.get("boxes_from", ""))}


def moment_texts(moments: Iterable[Moment]) -> NDArray[np.str_]:
    """Keyframes as ``video,0902``."""
    return np.array([f"{video},{second:04d}" for video, second in moments], dtype=np.str_)


def truth_table(rows: Iterable[BoxRow], places: dict[Moment, int]) -> NDArray[np.float64]:
    """`DetectionResult.truth` of annotated rows."""
    table = [(places[row.moment], *row.box, row.action or 0) for row in rows]
    return np.array(table, np.float64).reshape(-1, 6)


def _moment(text: str) -> Moment:
    video, second = str(text).rsplit(",", 1)
    return video, int(second)


# ---------------------------------------------------------------------------------------------- the task


class DetectObjective(Objective):
    """Binary cross entropy, mean over people and actions.

    A part of an accumulated batch counts by its clips. A clip all of whose people lie outside of its crop
    teaches nothing.
    """

    def __call__(self, step: Step, part: ClipBatch) -> tuple[Tensor, Tensor]:
        x_BCTHW, boxes, labels_NK = clips_with_people(step.transform, part.to(step.processes.device))
        with step.autocast():
            logits_NK = step.network(x_BCTHW, boxes)
        return detection_loss(logits_NK.float(), labels_NK, [len(own) for own in boxes])


def detection_loss(logits_NK: Tensor, labels_NK: Tensor, num_people: list[int]) -> tuple[Tensor, Tensor]:
    """Binary cross entropy, and for how many clips the highest logit is among a person's labels: of each clip
    the fraction of its people.
    """
    total = F.binary_cross_entropy_with_logits(logits_NK, labels_NK, reduction="sum")
    loss = total / max(labels_NK.numel(), 1)
    right = loss.new_zeros(())
    if len(labels_NK):
        guess_N1 = logits_NK.detach().argmax(dim=1, keepdim=True)
        hits_N = labels_NK.gather(1, guess_N1)[:, 0]
        for own in hits_N.split(num_people):
            right = right + (own.mean() if len(own) else own.sum())
    return loss, right


@dataclass(frozen=True)
class Detect(Task):
    """What the people in keyframes do, as in AVA: a clip around each keyframe, its frames whole."""

    name: ClassVar[str] = "detection"
    result_type: ClassVar[Any] = DetectionResult
    figure: ClassVar[str] = "frame_map"
    multi_label: ClassVar[bool] = True
    smooths_labels: ClassVar[bool] = False
    fixed_views: ClassVar[str] = KEYFRAMES
    test_options: ClassVar[frozenset[str]] = frozenset({"boxes", "min_score"})
    predict_hint: ClassVar[str] = "add --boxes FILE, which says where the people are"
    searchable: ClassVar[bool] = False
    default_batch: ClassVar[int | None] = 8

    @classmethod
    def problems(cls, config: Any) -> Problems:
        yield from super().problems(config)
        for name in ("mixup", "cutmix", "rand_ops"):
            if getattr(config.augment, name):
                yield f"augment.{name}", "moves or mixes pixels and not boxes; leave it at 0 to detect"
        if config.augment.erasing:
            yield "augment.erasing", "may erase a person; leave it at 0 to detect"
        if config.augment.area is not None:
            yield (
                "augment.area",
                "boxes of people keep to crops that are not resized; leave it away to detect",
            )
        if config.cache_mb:
            yield "cache_mb", "keeps whole videos, of which AVA's last 15 minutes; leave it at 0 to detect"
        if config.test_views:
            yield "test_views", "detection tests keyframes, not views; run saccade test for the whole split"
        if config.temporal_rule != "saccade":
            yield "temporal_rule", "a clip of detection is centred on its keyframe; leave it at saccade"
        if config.positive_weight != 1:
            yield "positive_weight", "is for labels of clips; leave it at 1 to detect"

    @classmethod
    def model_overrides(cls, model_name: str) -> dict[str, Any]:
        super().model_overrides(model_name)
        if "detection" not in option_names(model_name):
            raise ConfigError(f"task: {model_name} has no head for people in boxes, so it cannot detect")
        return {"detection": True}

    # -------------------------------------------------------------------------------------------- data

    @classmethod
    def data_options(cls, config: Any, split: str) -> dict[str, Any]:
        """Every keyframe to train on; to validate on every fourth second, as PySlowFast, or all."""
        people = config.people
        boxes = people.train_boxes if split == "train" else people.val_boxes
        return {
            "detected": boxes or None,
            "min_score": people.min_score,
            "every": 1 if split == "train" or people.full_validation else VALIDATION_STEP,
            "root": config.root or None,
            "allow_missing": config.allow_missing,
        }

    def load_split(self, path: str, split: str, **options: Any) -> VideoDataset:
        """The keyframes of a split, in the format of AVA unless ``path`` names another reader. Options as for
        `load_ava`.
        """
        return super().load_split(with_default_reader(path, "ava"), split, **options)

    def load_test_split(
        self, path: str, split: str, given: Mapping[str, Any], *, class_names: Sequence[str] | None
    ) -> VideoDataset:
        if split not in ("train", "val"):
            raise UsageError(f"--split: AVA has train and val, not {split}")
        options = {name: given[name] for name in ("root", "allow_missing", "detected", "min_score")}
        return self.load_split(path, split, **options)

    def check_dataset(
        self, dataset: VideoDataset, *, source: str = "", error: type[Exception] = DataError
    ) -> None:
        if not dataset.keyframes:
            raise DataError(
                f"{source or dataset.root}: has no boxes of people; task detection needs AVA's format"
            )

    def check_validation(self, dataset: VideoDataset, *, source: str) -> None:
        """Nothing to check: a keyframe without actions counts."""

    # ---------------------------------------------------------------------------------------- training

    def positive_weights(self, config: Any, dataset: VideoDataset) -> Tensor | None:
        return None

    def objective(self, config: Any, model: nn.Module, dataset: VideoDataset) -> Objective:
        return DetectObjective()

    def preview(
        self,
        config: Any,
        part: ClipBatch,
        transform: TrainTransform,
        mixing: Mixing | None,
        model_options: dict[str, Any],
    ) -> Preview:
        x, boxes, labels = clips_with_people(transform, part)
        people = labels.split([len(own) for own in boxes])
        return Preview(x, [own.amax(0) if len(own) else own.sum(0) for own in people], boxes)

    # -------------------------------------------------------------------------------------- evaluation

    def decode_sizes(self, clip: ClipSpec, sets: Sequence[Views]) -> tuple[int, ...]:
        return (clip.short_side,)

    def plan(self, video: VideoReader, wanted: PlanRequest) -> VideoPlan:
        """The clip around a keyframe, not cropped, as PySlowFast tests; its tag is the boxes."""
        keyframe = wanted.dataset.keyframes[wanted.position]
        frames = keyframe_clip(
            keyframe,
            len(video),
            video.fps,
            num_frames=wanted.clip.num_frames,
            stride=wanted.clip.stride,
            times=video.times,
        )
        if wanted.shuffle_seed is not None:
            frames = np.random.default_rng(wanted.shuffle_seed).permutation(frames)
        indices, places = np.unique(frames, return_inverse=True)
        planned = PlannedClip(tuple(places.tolist()), wanted.size, "pyslowfast", {WHOLE: keyframe.boxes})
        return VideoPlan(indices, (planned,))

    def forward(self, model: nn.Module, x: Tensor, views: Sequence[View]) -> Sequence[Any]:
        """Sigmoid of the people of each view, float32 (people, K)."""
        height, width = x.shape[3:]
        size = torch.tensor([width, height, width, height], device=x.device)
        boxes = [torch.tensor(view.tag, device=x.device) * size for view in views]
        logits_NK = model(x, boxes)
        scores: NDArray[np.float32] = logits_NK.float().sigmoid().cpu().numpy()
        if not np.isfinite(scores).all():
            raise not_finite()
        return np.split(scores, np.cumsum([len(own) for own in boxes])[:-1])

    def merge(self, before: Any, output: Any, view: View, sets: Sequence[Views]) -> Any:
        return output

    def activation(self, logits: NDArray[Any]) -> NDArray[Any]:
        return sigmoid(logits)

    def results(self, dataset: VideoDataset, outcome: Outcome) -> dict[str, Any]:
        assert isinstance(dataset, AvaDataset)
        check_classes(outcome.scores[outcome.order[0]].shape[1], dataset)
        keyframes = [dataset.keyframes[i] for i in outcome.order]
        shown = dict.fromkeys(keyframe.moment for keyframe in keyframes)
        places = {moment: place for place, moment in enumerate([*shown])}
        for row in dataset.truth:
            places.setdefault(row.moment, len(places))
        common = outcome.protocol(KEYFRAMES) | {"temporal_rule": "saccade", "clip": outcome.clip}
        result = self.result_type(
            moments=moment_texts(places),
            people=np.repeat([places[k.moment] for k in keyframes], [len(k.boxes) for k in keyframes]).astype(
                np.int64
            ),
            boxes=np.array([box for k in keyframes for box in k.boxes], np.float64).reshape(-1, 4),
            scores=np.concatenate([outcome.scores[i] for i in outcome.order]).astype(np.float32),
            truth=truth_table(dataset.truth, places),
            counted=np.array(sorted(dataset.actions), np.int64),
            excluded=moment_texts(sorted(dataset.excluded)),
            boxes_from=dataset.boxes_from,
            **common,
        )
        return {KEYFRAMES: result}
