"""Frame-mAP of AVA: the mean over the actions of the average precision of boxes with a score.

The rule is that of the official evaluation (github.com/activitynet/ActivityNet, Evaluation/ava, a version of
the Pascal evaluator of the TensorFlow object detection library):

* A detection of an action in a frame is held against the annotated box of that action in that frame that it
  overlaps most. It is right if they overlap by an IoU of at least 0.5 and no other detection was right
  with that box; it does not fall back to the second best.
* Of two detections that overlap one box most, the one whose row comes first is right (``order="official"``:
  the version for AVA has no sorting there). ``order="score"`` takes the better one, as the library itself.
* All detections of an action in all frames are then sorted by score. Precision is made to fall with recall,
  and its area is taken under every step of recall.
* Excluded keyframes and actions that do not count are taken out of both sides. An action without annotations
  has no average precision and no part in the mean; one without detections has 0.
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
    """Rows of boxes as arrays, for the millions that a test on AVA has.

    Attributes:
        moments: the keyframes there are.
        frames: int64 (N,), of each row the place of its keyframe in ``moments``.
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
        """Raises DataError at a row without an action."""
        listed = list(rows)
        nameless = next((row for row in listed if row.action is None), None)
        if nameless is not None:
            where = f"{nameless.video},{nameless.second:04d}"
            raise DataError(f"{where}: a box without an action cannot be evaluated")
        places = {moment: place for place, moment in enumerate(dict.fromkeys(row.moment for row in listed))}
        return cls(
            tuple(places),
            np.array([places[row.moment] for row in listed], np.int64),
            np.array([row.box for row in listed], np.float64).reshape(-1, 4),
            np.array([row.action for row in listed], np.int64),
            np.array([row.score for row in listed], np.float64),
        )

    def rows(self) -> Iterator[BoxRow]:
        """The same one by one."""
        columns = zip(self.frames, self.boxes.tolist(), self.actions, self.scores, strict=True)
        for frame, box, action, score in columns:
            video, second = self.moments[frame]
            yield BoxRow(video, second, tuple(box), int(action), float(score))

    def where(self, chosen: NDArray[np.bool_]) -> BoxTable:
        """The rows that are ``chosen`` (N,)."""
        return replace(
            self,
            frames=self.frames[chosen],
            boxes=self.boxes[chosen],
            actions=self.actions[chosen],
            scores=self.scores[chosen],
        )

    def of(self, action: int) -> BoxTable:
        """The rows of one action."""
        return self.where(self.actions == action)


@dataclass(frozen=True)
class ActionRow:
    """What the evaluation says of one action.

    ``precision`` is the average precision, ``nan`` without annotations; ``right`` counts the detections that
    are.
    """

    action: int
    name: str
    precision: float
    num_annotated: int
    num_detected: int
    right: int


@dataclass(frozen=True)
class FrameMap:
    """A frame-mAP and the row of every action, in the order of their numbers."""

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
        annotated: boxes with one action a row; the score is not looked at.
        detected: boxes with an action and a score a row. Boxes without area are left out.
        actions: the actions that count, number -> name (60 in AVA v2.2).
        excluded: keyframes that do not count.
        iou: the overlap from which a detection is right.
        order: which of two detections of one annotated box is the right one, see above.

    Raises:
        UsageError: ``iou`` or ``order`` cannot be.
        DataError: nothing is annotated that counts, or a row names no action.
    """
    if not 0 < iou <= 1:
        raise UsageError(f"iou: must be above 0 and at most 1, got {iou}")
    if order not in get_args(Order):
        raise UsageError(f"order: {order!r} is unknown; it is one of {', '.join(get_args(Order))}")
    frames: dict[Moment, int] = {}
    truth = _counted(_table(annotated), actions, excluded, frames)
    guesses = _with_area(_counted(_table(detected), actions, excluded, frames))
    if not len(truth.frames):
        raise DataError("nothing is annotated with an action that counts at a keyframe that does")
    rows = tuple(
        _action_row(number, actions[number], truth.of(number), guesses.of(number), iou, order)
        for number in sorted(actions)
    )
    precisions = [row.precision for row in rows if row.num_annotated]
    return FrameMap(float(np.mean(precisions)), rows, iou, len(np.unique(truth.frames)))


def average_precision(scores: NDArray[np.float64], right: NDArray[np.bool_], num_annotated: int) -> float:
    """Area under precision, made to fall, over recall. ``nan`` without annotations, 0 without detections.

    Args:
        scores: (N,) of the detections. Of equal ones the later come first, as in the official evaluation.
        right: (N,) whether each is.
        num_annotated: boxes that could have been found.
    """
    if num_annotated == 0:
        return float("nan")
    if not len(scores):
        return 0.0
    hits = right[np.argsort(scores, kind="stable")[::-1]]
    found = np.cumsum(hits)
    precision = found / np.arange(1, len(hits) + 1)
    falling = np.maximum.accumulate(precision[::-1])[::-1]
    return float(falling[hits].sum() / num_annotated)


def box_iou(first: Boxes, second: Boxes) -> Boxes:
    """IoU of every box (N, 4) with every other (M, 4), as x1, y1, x2, y2: (N, M). 0 where both are empty."""
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
    """The rows that count, their frames numbered as in ``frames``, which grows by those that are new."""
    out = frozenset(excluded)
    numbers = [-1 if moment in out else frames.setdefault(moment, len(frames)) for moment in table.moments]
    own = np.array(numbers, np.int64)[table.frames]
    chosen = np.isin(table.actions, list(actions)) & (own >= 0)
    return replace(table, frames=own).where(chosen)


def _with_area(table: BoxTable) -> BoxTable:
    low, high = table.boxes[:, :2], table.boxes[:, 2:]
    return table.where(np.all(low < high, axis=1))


def _action_row(
    action: int, name: str, truth: BoxTable, guesses: BoxTable, iou: float, order: Order
) -> ActionRow:
    if order == "score":
        best_first = np.argsort(-guesses.scores, kind="stable")
        guesses = replace(
            guesses,
            frames=guesses.frames[best_first],
            boxes=guesses.boxes[best_first],
            scores=guesses.scores[best_first],
        )
    right = np.zeros(len(guesses.frames), np.bool_)
    annotated = _by_frame(truth.frames)
    for frame, own in _by_frame(guesses.frames).items():
        if frame in annotated:
            right[own] = _matched(guesses.boxes[own], truth.boxes[annotated[frame]], iou)
    count = len(truth.frames)
    precision = average_precision(guesses.scores, right, count)
    return ActionRow(action, name, precision, count, len(right), int(right.sum()))


def _by_frame(frames: NDArray[np.int64]) -> dict[int, NDArray[np.int64]]:
    """The places of the rows of each frame, in their order."""
    order = np.argsort(frames, kind="stable")
    numbers, starts = np.unique(frames[order], return_index=True)
    return dict(zip(numbers.tolist(), np.split(order, starts[1:]), strict=True)) if len(order) else {}


def _matched(guesses: Boxes, truth: Boxes, iou: float) -> list[bool]:
    """Which detections of one action in one frame are right, taken in their order."""
    overlaps = box_iou(guesses, truth)
    taken: set[int] = set()
    right = []
    for own in overlaps:
        best = int(own.argmax())
        hit = bool(own[best] >= iou) and best not in taken
        right.append(hit)
        if hit:
            taken.add(best)
    return right
