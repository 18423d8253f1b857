"""Frame-mAP: a case by hand, the official rule where it differs from others, and the files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from saccade.data.ava_files import (
    BoxRow,
    column_names,
    evaluated_actions,
    read_actions,
    read_boxes,
    read_exclusions,
    read_frame_list,
    write_detections,
)
from saccade.errors import DataError, UsageError
from saccade.tasks.frame_map import BoxTable, average_precision, box_iou, frame_map

ACTIONS = {1: "bend", 11: "sit", 80: "watch"}
LEFT, RIGHT = (0.0, 0.0, 0.4, 1.0), (0.5, 0.0, 1.0, 1.0)


def truth(second: int, box: tuple[float, float, float, float], action: int, video: str = "v") -> BoxRow:
    return BoxRow(video, second, box, action)


def guess(
    second: int, box: tuple[float, float, float, float], action: int, score: float, video: str = "v"
) -> BoxRow:
    return BoxRow(video, second, box, action, score)


def test_a_case_by_hand():
    annotated = [truth(902, LEFT, 1), truth(902, RIGHT, 1), truth(903, LEFT, 1), truth(903, LEFT, 11)]
    detected = [
        guess(902, (0.0, 0.0, 0.4, 0.9), 1, 0.9),  # right
        guess(903, RIGHT, 1, 0.8),  # nobody bends there
        guess(902, (0.5, 0.0, 1.0, 0.6), 1, 0.7),  # right: IoU 0.6
        guess(903, (0.0, 0.0, 0.4, 0.4), 1, 0.6),  # IoU 0.4
        guess(904, LEFT, 1, 0.5),  # a frame without annotations
        guess(903, LEFT, 11, 0.1),  # right
        guess(902, LEFT, 80, 0.9),  # an action that is nowhere
    ]
    result = frame_map(annotated, detected, ACTIONS)
    bend, sit, watch = result.rows
    # bend, by score: right, wrong, right, wrong, wrong; precision 1 at recall 1/3, 2/3 at recall 2/3.
    assert bend.precision == pytest.approx((1 + 2 / 3) / 3)
    assert (bend.num_annotated, bend.num_detected, bend.num_correct) == (3, 5, 2)
    assert sit.precision == 1
    assert math.isnan(watch.precision)
    assert result.mean == pytest.approx((5 / 9 + 1) / 2)
    assert result.num_frames == 2


def test_precision_is_made_to_fall_with_recall():
    scores = np.array([0.9, 0.8, 0.7, 0.6])
    right = np.array([False, True, True, False])
    # precision 0, 1/2, 2/3, 1/2 becomes 2/3, 2/3, 2/3, 1/2
    assert average_precision(scores, right, 4) == pytest.approx(2 / 3 * 2 / 4)
    assert average_precision(scores, right, 2) == pytest.approx(2 / 3)
    assert average_precision(np.array([]), np.array([], bool), 3) == 0
    assert math.isnan(average_precision(scores, np.zeros(4, bool), 0))


def test_a_second_detection_of_one_person_is_wrong():
    annotated = [truth(902, LEFT, 1)]
    weak_first = [guess(902, LEFT, 1, 0.3), guess(902, LEFT, 1, 0.9)]
    official = frame_map(annotated, weak_first, ACTIONS)
    assert official.mean == pytest.approx(1 / 2)  # the first row of the file takes the person
    assert frame_map(annotated, weak_first, ACTIONS, order="score").mean == 1
    assert frame_map(annotated, weak_first[::-1], ACTIONS).mean == 1


def test_a_detection_does_not_fall_back_to_its_second_best():
    near, nearer = (0.0, 0.0, 0.8, 1.0), (0.0, 0.0, 0.9, 1.0)
    box = (0.0, 0.0, 1.0, 1.0)
    annotated = [truth(902, near, 1), truth(902, nearer, 1)]
    detected = [guess(902, box, 1, 0.9), guess(902, box, 1, 0.8)]  # both overlap `near` by 0.8
    row = frame_map(annotated, detected, ACTIONS).rows[0]
    assert (row.num_correct, row.precision) == (1, pytest.approx(0.5))


def test_excluded_frames_and_other_actions_count_on_neither_side():
    annotated = [truth(902, LEFT, 1), truth(903, LEFT, 1), truth(902, LEFT, 2)]
    detected = [
        guess(902, LEFT, 1, 0.5),
        guess(903, RIGHT, 1, 0.9),  # would come first and be wrong
        guess(902, RIGHT, 2, 0.99),
    ]
    result = frame_map(annotated, detected, ACTIONS, excluded={("v", 903)})
    assert result.mean == 1
    assert result.num_frames == 1
    assert frame_map(annotated, detected, ACTIONS).mean == pytest.approx(0.25)


def test_the_threshold_is_met_by_an_overlap_of_exactly_half():
    annotated = [truth(902, (0.0, 0.0, 1.0, 1.0), 1)]
    half = [guess(902, (0.0, 0.0, 1.0, 0.5), 1, 0.5)]
    assert frame_map(annotated, half, ACTIONS).mean == 1
    assert frame_map(annotated, half, ACTIONS, iou=0.51).mean == 0
    flat = [guess(902, (0.0, 0.0, 0.0, 0.5), 1, 0.5)]
    assert frame_map(annotated, flat, ACTIONS).rows[0].num_detected == 0


def test_what_cannot_be_evaluated_is_refused():
    annotated = [truth(902, LEFT, 1)]
    with pytest.raises(UsageError, match=r"^iou: "):
        frame_map(annotated, [], ACTIONS, iou=0)
    with pytest.raises(UsageError, match=r"^order: .*official, score .*file"):
        frame_map(annotated, [], ACTIONS, order="file")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="no annotations"):
        frame_map(annotated, [], ACTIONS, excluded={("v", 902)})
    with pytest.raises(DataError, match="v,0902: a box without an action"):
        frame_map(annotated, [BoxRow("v", 902, LEFT, None, 0.9)], ACTIONS)


def test_a_table_gives_its_rows_back():
    rows = [guess(903, LEFT, 1, 0.5), guess(902, RIGHT, 11, 0.25, "w"), guess(903, RIGHT, 1, 0.75)]
    table = BoxTable.from_rows(rows)
    assert table.moments == (("v", 903), ("w", 902))
    assert list(table.rows()) == rows
    assert list(table.of_action(1).rows()) == [rows[0], rows[2]]


def test_iou():
    boxes = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [5, 5, 5, 5]], float)
    assert box_iou(boxes, boxes)[0] == pytest.approx([1, 1 / 7, 0])
    assert box_iou(boxes[2:], boxes[2:]).tolist() == [[0.0]]


# --- files -----------------------------------------------------------------------------------------------


def test_official_rows(tmp_path: Path):
    path = tmp_path / "ava_val_v2.2.csv"
    path.write_text(
        "1j20qq1JyX4,0902,0.002,0.118,0.714,0.977,12,0\n1j20qq1JyX4,902,0.002,0.118,0.714,1.004,79\n"
    )
    rows = read_boxes(path, scored=False)
    assert rows[0] == BoxRow("1j20qq1JyX4", 902, (0.002, 0.118, 0.714, 0.977), 12)
    assert rows[1].box[3] == 1.0
    detected = tmp_path / "detected.csv"
    detected.write_text("a,0902,0,0,1,1,,0.995\na,0902,0,0,1,1,-1,0.7\na,0903,0,0,1,1,12,0.9\n")
    assert [(row.action, row.score) for row in read_boxes(detected, scored=True)] == [
        (None, 0.995),
        (None, 0.7),
        (12, 0.9),
    ]


@pytest.mark.parametrize(
    ("row", "scored", "message"),
    [
        (
            "v,902,0,0,1,1",
            False,
            r"rows.csv:2: 6 cells; a row is video_id,second,x1,y1,x2,y2,action_id\[,pers",
        ),
        ("v,902,0,0,1,1,12", True, "7 cells; a row is .*action_id,score"),
        ("v,902.5,0,0,1,1,12", False, "the time '902.5' is not a whole number of seconds"),
        ("v,902,0,zero,1,1,12", False, "the box 0,zero,1,1 is not four numbers"),
        ("v,902,0,0,320,240,12", False, r"the box 0,0,320,240 has coordinates outside of 0\.\.1"),
        ("v,902,0.9,0,0.1,1,12", False, "the box 0.9,0,0.1,1 ends before"),
        ("v,902,0,0,1,1,81", False, "the action '81' is not a number from 1 to 80"),
        ("v,902,0,0,1,1,", False, "the action '' is not a number"),
        ("v,902,0,0,1,1,12,high", True, "the score 'high' is not a number"),
        ("v,902,0,nan,1,1,12", False, "outside of 0..1"),
    ],
)
def test_a_malformed_row_is_named(tmp_path: Path, row: str, scored: bool, message: str):
    path = tmp_path / "rows.csv"
    path.write_text(f"v,902,0,0,1,1,12,{'0.5' if scored else '3'}\n{row}\n")
    with pytest.raises(DataError, match=message):
        read_boxes(path, scored=scored)


def test_results_are_written_as_they_are_submitted(tmp_path: Path):
    path = tmp_path / "results.csv"
    rows = [guess(902, (0.0261, 0.2, 0.5, 0.99999), 80, 0.123456, "1j20qq1JyX4"), guess(1000, LEFT, 1, 1.0)]
    write_detections(path, rows)
    assert path.read_text() == (
        "1j20qq1JyX4,0902,0.026,0.200,0.500,1.000,80,0.1235\nv,1000,0.000,0.000,0.400,1.000,1,1.0000\n"
    )
    assert read_boxes(path, scored=True)[1] == rows[1]


def test_actions_and_exclusions(tmp_path: Path):
    path = tmp_path / "list.pbtxt"
    path.write_text(
        'item {\n  name: "bend/bow (at the waist)"\n  id: 1\n}\n'
        'label {\n  name: "crawl"\n  label_id: 2\n  label_type: PERSON_MOVEMENT\n}\n'
    )
    assert read_actions(path) == {1: "bend/bow (at the waist)", 2: "crawl"}
    path.write_text('item {\n  name: "sit"\n  id: 1\n}\nitem {\n  name: "stand"\n}\n')
    with pytest.raises(DataError, match=r'list\.pbtxt:5: an item needs name: "\.\.\." and id: N'):
        read_actions(path)
    path.write_text("sit\n")
    with pytest.raises(DataError, match="no actions"):
        read_actions(path)
    path.write_text("1j20qq1JyX4,0902\nb,1700\n")
    assert read_exclusions(path) == {("1j20qq1JyX4", 902), ("b", 1700)}
    path.write_text("a,0902,1\n")
    with pytest.raises(DataError, match=r"list\.pbtxt:1: 3 cells; a row is video_id,second"):
        read_exclusions(path)
    with pytest.raises(DataError, match="cannot be read"):
        read_exclusions(tmp_path / "none.csv")


def test_sixty_of_eighty_actions_count():
    actions = evaluated_actions()
    assert len(actions) == 60
    names = column_names(actions)
    assert len(names) == 80
    assert (names[0], names[1], names[79]) == ("bend/bow (at the waist)", "action 2", "watch (a person)")


def test_frame_lists(tmp_path: Path):
    path = tmp_path / "val.csv"
    path.write_text(
        'original_vido_id video_id frame_id path labels\na 0 0 a/a_000001.jpg ""\na 0 1 a/a_000002.jpg ""\n'
    )
    assert read_frame_list(path) == {"a": ["a/a_000001.jpg", "a/a_000002.jpg"]}
    path.write_text("original_vido_id video_id frame_id path labels\na 0\n")
    with pytest.raises(DataError, match=r"val\.csv:2: 2 cells"):
        read_frame_list(path)
    path.write_text("original_vido_id video_id frame_id path labels\n")
    with pytest.raises(DataError, match="no frames"):
        read_frame_list(path)
