"""What the people in keyframes do: scores of every box, and frame-mAP.

Shape letters: F keyframes, P boxes of people shown to the model, M annotated rows, K columns of actions.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from saccade.data.ava_files import BoxRow, Moment, write_detections
from saccade.evaluation.ava_map import BoxTable, FrameMap, box_iou, frame_map
from saccade.evaluation.result import Result

KEYFRAMES = "keyframes"
"""What stands in the place of views: one clip around each keyframe, its frames whole."""


@dataclass(frozen=True, eq=False, kw_only=True)
class DetectionResult(Result):
    """Scores of the people in keyframes. ``paths`` has the video of each keyframe that was read.

    Attributes:
        moments: str (F,), ``video,0902``: the keyframes shown, then those annotated alone.
        people: int64 (P,), of each box the place of its keyframe in ``moments``.
        boxes: float64 (P, 4): x1, y1, x2, y2 as shares of width and height.
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
    def figures(self) -> dict[str, float]:
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
        scores = self.scores.astype(np.float64).clip(1e-12, 1 - 1e-12)
        each = -np.where(self.labels, np.log(scores), np.log1p(-scores))
        return float(each.mean()) if each.size else float("nan")

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
