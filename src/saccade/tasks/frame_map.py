"""Frame-mAP of AVA: mean average precision of scored boxes over the actions.

The rules are those of the official evaluation (github.com/activitynet/ActivityNet, Evaluation/ava, a version
of the Pascal evaluator of the TensorFlow object detection library):

* A detection of an action in a frame is matched with the annotated box of that action and frame that has the
  highest IoU. It is correct if the IoU is at least 0.5 and the box has no other match. There is no second
  choice.
* Of several detections for the same box, the one in the first row is correct (``order="official"``: the
  version for AVA does not sort them). ``order="score"`` prefers the higher score, as the original library.
* All detections of an action in all frames are then sorted by score. Precision is made non-increasing, and
  average precision is its area over recall.
* Excluded keyframes and actions are removed from annotations and detections. Actions without annotations are
  not in the mean; those without detections have an average precision of 0.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from saccade.data.ava_files import BoxRow, Moment
from saccade.errors import DataError, UsageError

Order = Literal["official", "score"]
Boxes = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class BoxTable:
    """Rows of boxes as arrays; a test on AVA has millions.

    Attributes:
        moments: the keyframes.
        frames: int64 (N,), index in ``moments`` of the keyframe of each row.
        boxes: float64 (N, 4).
        actions: int64 (N,).
        scores: float64 (N,).
    """

    moments: tuple[Moment, ...]
    frames: NDArray[np.int64]
    boxes: Boxes
    actions: NDArray[np.int64]
    scores: NDArray[np.float64]

    @classmethod
    def from_rows(cls, rows: Iterable[BoxRow]) -> BoxTable:
        """Raises `DataError` if a row has no action."""
        listed = list(rows)
        nameless = next((row for row in listed if row.action is None), None)
        if nameless is not None:
            where = f"{nameless.video},{nameless.second:04d}"
            raise DataError(f"{where}: a box without an action cannot be evaluated")
        unique = dict.fromkeys(row.moment for row in listed)
        index_of = {moment: index for index, moment in enumerate(unique)}
        return cls(
            tuple(index_of),
            np.array([index_of[row.moment] for row in listed], np.int64),
            np.array([row.box for row in listed], np.float64).reshape(-1, 4),
            np.array([row.action for row in listed], np.int64),
            np.array([row.score for row in listed], np.float64),
        )

    def rows(self) -> Iterator[BoxRow]:
        """Iterate over the rows."""
        columns = zip(self.frames, self.boxes.tolist(), self.actions, self.scores, strict=True)
        for frame, box, action, score in columns:
            video, second = self.moments[frame]
            yield BoxRow(video, second, tuple(box), int(action), float(score))

    def take(self, rows: NDArray[np.bool_] | NDArray[np.int64]) -> BoxTable:
        """The rows of a mask (N,) or at some indices."""
        return replace(
            self,
            frames=self.frames[rows],
            boxes=self.boxes[rows],
            actions=self.actions[rows],
            scores=self.scores[rows],
        )

    def of_action(self, action: int) -> BoxTable:
        """The rows of one action."""
        return self.take(self.actions == action)


@dataclass(frozen=True)
class ActionRow:
    """The results of one action. ``precision`` is the average precision, ``nan`` without annotations."""

    action: int
    name: str
    precision: float
    num_annotated: int
    num_detected: int
    num_correct: int


@dataclass(frozen=True)
class FrameMap:
    """Frame-mAP, and the results of every action by number."""

    mean: float
    rows: tuple[ActionRow, ...]
    iou: float
    num_frames: int


def frame_map(
    annotated: BoxTable | Iterable[BoxRow],
    detected: BoxTable | Iterable[BoxRow],
    actions: Mapping[int, str],
    *,
    excluded: Collection[Moment] = (),
    iou: float = 0.5,
    order: Order = "official",
) -> FrameMap:
    """Frame-mAP of detections.

    Args:
        annotated: boxes with one action per row; scores are ignored.
        detected: boxes with an action and a score per row. Boxes without area are ignored.
        actions: the evaluated actions, number -> name (60 in AVA v2.2).
        excluded: keyframes to ignore.
        iou: minimum IoU of a correct detection.
        order: which of several detections of the same annotated box is correct, see above.

    Raises:
        UsageError: ``iou`` or ``order`` is invalid.
        DataError: there are no annotations to evaluate, or a row has no action.
    """
    if not 0 < iou <= 1:
        raise UsageError(f"iou: must be in (0, 1] (is {iou})")
    if order not in get_args(Order):
        raise UsageError(f"order: must be one of {', '.join(get_args(Order))} (is {order!r})")
    frames: dict[Moment, int] = {}
    truth = _counted(_table(annotated), actions, excluded, frames)
    detections = _with_area(_counted(_table(detected), actions, excluded, frames))
    if not len(truth.frames):
        raise DataError("there are no annotations of the evaluated actions at the evaluated keyframes")
    rows = tuple(
        _action_row(
            number, actions[number], truth.of_action(number), detections.of_action(number), iou, order
        )
        for number in sorted(actions)
    )
    precisions = [row.precision for row in rows if row.num_annotated]
    return FrameMap(float(np.mean(precisions)), rows, iou, len(np.unique(truth.frames)))


def average_precision(scores: NDArray[np.float64], correct: NDArray[np.bool_], num_annotated: int) -> float:
    """Area under the non-increasing precision over recall. ``nan`` without annotations, 0 without detections.

    Args:
        scores: (N,) of the detections. Of equal ones the later come first, as in the official evaluation.
        correct: (N,), whether each detection is correct.
        num_annotated: number of annotated boxes.
    """
    if num_annotated == 0:
        return float("nan")
    if not len(scores):
        return 0.0
    hits = correct[np.argsort(scores, kind="stable")[::-1]]
    found = np.cumsum(hits)
    precision = found / np.arange(1, len(hits) + 1)
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    return float(falling[hits].sum() / num_annotated)


def box_iou(first: Boxes, second: Boxes) -> Boxes:
    """IoU (N, M) of boxes (N, 4) and (M, 4), given as x1, y1, x2, y2. 0 if both are empty."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=2)
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None] - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)


def _table(rows: BoxTable | Iterable[BoxRow]) -> BoxTable:
    return rows if isinstance(rows, BoxTable) else BoxTable.from_rows(rows)


def _counted(
    table: BoxTable, actions: Mapping[int, str], excluded: Collection[Moment], frames: dict[Moment, int]
) -> BoxTable:
    """The evaluated rows, with their frames numbered by ``frames``, which is extended by new ones."""
    skipped = frozenset(excluded)
    numbers = [
        -1 if moment in skipped else frames.setdefault(moment, len(frames)) for moment in table.moments
    ]
    frame_numbers = np.array(numbers, np.int64)[table.frames]
    selected = np.isin(table.actions, list(actions)) & (frame_numbers >= 0)
    return replace(table, frames=frame_numbers).take(selected)


def _with_area(table: BoxTable) -> BoxTable:
    low, high = table.boxes[:, :2], table.boxes[:, 2:]
    return table.take(np.all(low < high, axis=1))


def _action_row(
    action: int, name: str, truth: BoxTable, detections: BoxTable, iou: float, order: Order
) -> ActionRow:
    if order == "score":
        detections = detections.take(np.argsort(-detections.scores, kind="stable"))
    correct = np.zeros(len(detections.frames), np.bool_)
    annotated = _by_frame(truth.frames)
    for frame, rows in _by_frame(detections.frames).items():
        if frame in annotated:
            correct[rows] = _matched(detections.boxes[rows], truth.boxes[annotated[frame]], iou)
    num_annotated = len(truth.frames)
    precision = average_precision(detections.scores, correct, num_annotated)
    return ActionRow(action, name, precision, num_annotated, len(correct), int(correct.sum()))


def _by_frame(frames: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    """The indices of the rows of each frame, in order."""
    order = np.argsort(frames, kind="stable")
    numbers, starts = np.unique(frames[order], return_index=True)
    return dict(zip(numbers.tolist(), np.split(order, starts[1:]), strict=True)) if len(order) else {}


def _matched(detections: Boxes, truth: Boxes, iou: float) -> list[bool]:
    """Whether each detection of one action in one frame is correct, matched in order."""
    taken: set[int] = set()
    correct = []
    for overlaps in box_iou(detections, truth):
        best = int(overlaps.argmax())
        hit = bool(overlaps[best] >= iou) and best not in taken
        correct.append(hit)
        if hit:
            taken.add(best)
    return correct
