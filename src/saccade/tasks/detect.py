"""Action detection in keyframes (AVA): scores of every person box, frame-mAP.

Shape letters: F keyframes, P person boxes given to the model, M annotated rows, K actions.
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
from saccade.tasks.base import Outcome, PlanRequest, Preview, Problems, Task, View, option_names
from saccade.tasks.frame_map import BoxTable, FrameMap, box_iou, frame_map
from saccade.tasks.objective import Objective, Step
from saccade.tasks.result import ClassTable, Result
from saccade.tasks.scores import binary_cross_entropy, check_classes, not_finite, sigmoid
from saccade.transforms import Mixing, TrainTransform
from saccade.transforms.people import clips_with_people
from saccade.video import VideoReader

KEYFRAMES = "keyframes"
"""Name of the view set: one clip around each keyframe, not cropped."""


@dataclass(frozen=True, eq=False, kw_only=True)
class DetectionResult(Result):
    """Scores of person boxes in keyframes. ``paths`` has the video of each tested keyframe.

    Attributes:
        moments: str (F,), keyframes as ``video,0902``: those tested, then those that are only annotated.
        people: int64 (P,), index in ``moments`` of the keyframe of each box.
        boxes: float64 (P, 4): x1, y1, x2, y2 as fractions of width and height.
        scores: float32 (P, K), sigmoid; column k is action k + 1.
        truth: float64 (M, 6): index in ``moments``, box, action.
        counted: int64, the evaluated actions.
        excluded: str, the keyframes that the evaluation excludes.
        boxes_from: source of the boxes.
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
        """Number of videos."""
        return len(set(self.paths))

    @property
    def num_keyframes(self) -> int:
        """Number of tested keyframes."""
        return len(self.paths)

    @property
    def num_views(self) -> float:
        """Mean number of clips per video."""
        return self.num_keyframes / max(self.num_videos, 1)

    @property
    def own_figures(self) -> dict[str, float]:
        return {"frame_map": self.frame_map.mean}

    @cached_property
    def frame_map(self) -> FrameMap:
        """Frame-mAP at an IoU of 0.5, as in the official evaluation."""
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
        """A row for each box and evaluated action."""
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
        """The actions of each box (P, K): those of all annotated boxes with an IoU of at least 0.5."""
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
        """Mean binary cross entropy over boxes and actions."""
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
                (
                    row.name,
                    row.precision,
                    (str(row.num_annotated), f"{row.num_correct} of {row.num_detected}"),
                )
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
        """Write the detections in the format of the official evaluation."""
        write_detections(path, self.detected.rows())

    def _task_summary(self) -> dict[str, Any]:
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
    def _task_fields(cls, info: dict[str, Any]) -> dict[str, Any]:
        return {"boxes_from": str(info.get("boxes_from", ""))}


def moment_texts(moments: Iterable[Moment]) -> NDArray[np.str_]:
    """Format keyframes as ``video,0902``."""
    return np.array([f"{video},{second:04d}" for video, second in moments], dtype=np.str_)


def truth_table(rows: Iterable[BoxRow], indices: dict[Moment, int]) -> NDArray[np.float64]:
    """`DetectionResult.truth` of annotated rows."""
    table = [(indices[row.moment], *row.box, row.action or 0) for row in rows]
    return np.array(table, np.float64).reshape(-1, 6)


def _moment(text: str) -> Moment:
    video, second = str(text).rsplit(",", 1)
    return video, int(second)


# ---------------------------------------------------------------------------------------------- the task


class DetectObjective(Objective):
    """Mean binary cross entropy over person boxes and actions.

    The parts of an accumulated batch are weighted by their number of clips. Clips without a box inside the
    crop have no loss.
    """

    def __call__(self, step: Step, part: ClipBatch) -> tuple[Tensor, Tensor]:
        x_BCTHW, boxes, labels_NK = clips_with_people(step.transform, part.to(step.processes.device))
        with step.autocast():
            logits_NK = step.network(x_BCTHW, boxes)
        return detection_loss(logits_NK.float(), labels_NK, [len(each) for each in boxes])


def detection_loss(logits_NK: Tensor, labels_NK: Tensor, num_people: list[int]) -> tuple[Tensor, Tensor]:
    """Mean binary cross entropy, and the sum over the clips of the fraction of boxes whose highest logit is a
    true action.
    """
    total = F.binary_cross_entropy_with_logits(logits_NK, labels_NK, reduction="sum")
    loss = total / max(labels_NK.numel(), 1)
    num_correct = loss.new_zeros(())
    if len(labels_NK):
        best_N1 = logits_NK.detach().argmax(dim=1, keepdim=True)
        hits_N = labels_NK.gather(1, best_N1)[:, 0]
        for hits in hits_N.split(num_people):
            num_correct = num_correct + (hits.mean() if len(hits) else hits.sum())
    return loss, num_correct


@dataclass(frozen=True)
class Detect(Task):
    """Action detection as in AVA: the actions of person boxes in a clip around each keyframe."""

    name: ClassVar[str] = "detection"
    result_type: ClassVar[Any] = DetectionResult
    figure: ClassVar[str] = "frame_map"
    multi_label: ClassVar[bool] = True
    smooths_labels: ClassVar[bool] = False
    fixed_views: ClassVar[str] = KEYFRAMES
    test_options: ClassVar[frozenset[str]] = frozenset({"boxes", "min_score"})
    predict_hint: ClassVar[str] = "add --boxes FILE with the person boxes"
    searchable: ClassVar[bool] = False
    default_batch: ClassVar[int | None] = 8

    @classmethod
    def problems(cls, config: Any) -> Problems:
        yield from super().problems(config)
        for name in ("mixup", "cutmix", "rand_ops"):
            if getattr(config.augment, name):
                yield f"augment.{name}", "does not transform boxes; set it to 0 for task detection"
        if config.augment.erasing:
            yield "augment.erasing", "may erase a person; set it to 0 for task detection"
        if config.augment.area is not None:
            yield "augment.area", "does not transform boxes; leave it unset for task detection"
        if config.cache_mb:
            yield (
                "cache_mb",
                "caches complete videos, and those of AVA last 15 minutes; set it to 0 for task detection",
            )
        if config.test_views:
            yield (
                "test_views",
                "task detection tests keyframes, not views; use saccade test for the complete split",
            )
        if config.temporal_rule != "saccade":
            yield "temporal_rule", "must be saccade for task detection, whose clips are centred on keyframes"
        if config.positive_weight != 1:
            yield "positive_weight", "is not supported by task detection; set it to 1"

    @classmethod
    def model_overrides(cls, model_name: str) -> dict[str, Any]:
        super().model_overrides(model_name)
        if "detection" not in option_names(model_name):
            raise ConfigError(f"task: {model_name} does not support detection")
        return {"detection": True}

    # -------------------------------------------------------------------------------------------- data

    @classmethod
    def data_options(cls, config: Any, split: str) -> dict[str, Any]:
        """Every keyframe in training; every fourth second in validation, as in PySlowFast, or all."""
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
        """Load the keyframes of a split, in the format of AVA unless ``path`` names another reader. Options
        as in `load_ava`.
        """
        return super().load_split(with_default_reader(path, "ava"), split, **options)

    def states_validation(self, path: str, root: str) -> bool:
        return True

    def load_test_split(
        self, path: str, split: str, given: Mapping[str, Any], *, class_names: Sequence[str] | None
    ) -> VideoDataset:
        if split not in ("train", "val"):
            raise UsageError(f"--split: must be train or val for AVA (is {split})")
        options = {name: given[name] for name in ("root", "allow_missing", "detected", "min_score")}
        return self.load_split(path, split, **options)

    def check_dataset(
        self, dataset: VideoDataset, *, source: str = "", error: type[Exception] = DataError
    ) -> None:
        if not dataset.keyframes:
            raise DataError(
                f"{source or dataset.root}: has no person boxes; task detection needs the format of AVA"
            )

    def check_validation(self, dataset: VideoDataset, *, source: str) -> None:
        """Nothing to check: keyframes without actions are evaluated too."""

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
        each = labels.split([len(clip_boxes) for clip_boxes in boxes])
        return Preview(x, [rows.amax(0) if len(rows) else rows.sum(0) for rows in each], boxes)

    # -------------------------------------------------------------------------------------- evaluation

    def decode_sizes(self, clip: ClipSpec, sets: Sequence[Views]) -> tuple[int, ...]:
        return (clip.short_side,)

    def plan(self, video: VideoReader, wanted: PlanRequest) -> VideoPlan:
        """The clip around a keyframe, not cropped, as in PySlowFast; its tag has the boxes."""
        keyframe = wanted.dataset.keyframes[wanted.position]
        frames = keyframe_clip(
            keyframe,
            len(video),
            video.fps,
            num_frames=wanted.clip.num_frames,
            stride=wanted.clip.stride,
            times=video.times,
        )
        indices, inverse = np.unique(frames, return_inverse=True)
        planned = PlannedClip(tuple(inverse.tolist()), wanted.size, "pyslowfast", {WHOLE: keyframe.boxes})
        return VideoPlan(indices, (planned,))

    def forward(self, model: nn.Module, x: Tensor, views: Sequence[View]) -> Sequence[Any]:
        """Sigmoid of the person boxes of each view, float32 (boxes, K)."""
        height, width = x.shape[3:]
        size = torch.tensor([width, height, width, height], device=x.device)
        boxes = [torch.tensor(view.tag, device=x.device) * size for view in views]
        logits_NK = model(x, boxes)
        scores: NDArray[np.float32] = logits_NK.float().sigmoid().cpu().numpy()
        if not np.isfinite(scores).all():
            raise not_finite()
        return np.split(scores, np.cumsum([len(each) for each in boxes])[:-1])

    def merge(self, before: Any, output: Any, view: View, sets: Sequence[Views]) -> Any:
        return output

    def activation(self, logits: NDArray[Any]) -> NDArray[Any]:
        return sigmoid(logits)

    def results(self, dataset: VideoDataset, outcome: Outcome) -> dict[str, Any]:
        assert isinstance(dataset, AvaDataset)
        check_classes(outcome.scores[outcome.order[0]].shape[1], dataset)
        keyframes = [dataset.keyframes[i] for i in outcome.order]
        shown = dict.fromkeys(keyframe.moment for keyframe in keyframes)
        indices = {moment: index for index, moment in enumerate(shown)}
        for row in dataset.truth:
            indices.setdefault(row.moment, len(indices))
        common = outcome.protocol(KEYFRAMES) | {"temporal_rule": "saccade", "clip": outcome.clip}
        result = self.result_type(
            moments=moment_texts(indices),
            people=np.repeat(
                [indices[k.moment] for k in keyframes], [len(k.boxes) for k in keyframes]
            ).astype(np.int64),
            boxes=np.array([box for k in keyframes for box in k.boxes], np.float64).reshape(-1, 4),
            scores=np.concatenate([outcome.scores[i] for i in outcome.order]).astype(np.float32),
            truth=truth_table(dataset.truth, indices),
            counted=np.array(sorted(dataset.actions), np.int64),
            excluded=moment_texts(sorted(dataset.excluded)),
            boxes_from=dataset.boxes_from,
            **common,
        )
        return {KEYFRAMES: result}
