"""Charades in the files it is published in, and as charades.json."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from data.charades_files import NUM_TEST, NUM_TRAIN, make_json, make_official, make_source, rows_of
from saccade.data import class_names, load_dataset
from saccade.data.actions import ActionTable, active_at
from saccade.data.check import check_data
from saccade.data.motion import MOTION_CLASSES
from saccade.data.types import Action, VideoItem
from saccade.errors import DataError, UsageError
from saccade.video import open_video

HEADER = "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\n"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_source(tmp_path_factory.mktemp("untrimmed") / "set")


@pytest.fixture(scope="module")
def official(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_official(tmp_path_factory.mktemp("charades") / "official", source)


def small_list(folder: Path, *rows: str, name: str = "Charades_v1_train.csv") -> Path:
    """A list of rows ``id,actions,length``, with an empty file for every video."""
    folder.mkdir(parents=True, exist_ok=True)
    for row in rows:
        (folder / f"{row.split(',')[0]}.mp4").touch()
    path = folder / name
    path.write_text("id,actions,length\n" + "".join(f"{row}\n" for row in rows))
    return path


# --- the lists -------------------------------------------------------------------------------------------


def test_the_official_lists(official: Path, source: Path):
    train = load_dataset(official, "train")
    assert len(train) == NUM_TRAIN
    assert train.multi_label
    assert train.class_names == tuple(name.replace("_", " ") for name in MOTION_CLASSES)
    rows = {row["id"]: row for row in rows_of(source, "train")}
    for item in train.items:
        row = rows[Path(item.path).stem]
        expected = [action.split() for action in row["actions"].split(";") if action]
        found = [(f"c{a.label:03d}", f"{a.start:.2f}", f"{a.end:.2f}") for a in item.actions]
        assert found == [tuple(action) for action in expected]
        assert item.duration == float(row["length"])
        assert item.label == -1
        with open_video(item.path) as video:
            assert abs(len(video) / video.fps - item.duration) < 0.01


def test_the_test_split_is_used_for_val_with_a_warning(official: Path, caplog: pytest.LogCaptureFixture):
    from saccade.data.entries import _log_once

    _log_once.cache_clear()
    assert len(load_dataset(official, "val")) == NUM_TEST
    assert "no val split; the test split is used instead" in caplog.text
    assert len(load_dataset(official, "test")) == NUM_TEST


def test_one_of_the_lists_finds_the_other_and_the_videos(official: Path):
    named = official / "Charades" / "Charades_v1_test.csv"
    assert len(load_dataset(named, "train")) == NUM_TRAIN
    assert len(load_dataset(named, "test")) == NUM_TEST
    assert len(load_dataset(official / "Charades", "train")) == NUM_TRAIN


def test_frame_folders_have_24_frames_a_second(source: Path, official: Path, tmp_path: Path):
    frames = make_official(tmp_path / "frames", source, frames=True)
    dataset = load_dataset(frames, "train")
    assert all(Path(item.path).is_dir() and item.fps == 24.0 for item in dataset.items)
    videos = load_dataset(official, "train")
    for one, other in zip(dataset.items, videos.items, strict=True):
        assert one.actions == other.actions
        with open_video(one.path, fps=one.fps) as folder, open_video(other.path) as video:
            assert (len(folder), folder.fps, folder.size) == (len(video), video.fps, video.size)


def test_charades_json_is_the_same_data(source: Path, official: Path, tmp_path: Path):
    root = make_json(tmp_path / "json", source)
    for split, count in (("train", NUM_TRAIN), ("test", NUM_TEST)):
        from_json, from_csv = load_dataset(root, split), load_dataset(official, split)
        assert len(from_json) == count
        assert [item.actions for item in from_json.items] == [item.actions for item in from_csv.items]
        assert [item.duration for item in from_json.items] == [item.duration for item in from_csv.items]
    assert from_json.class_names[:2] == ("c000", "c001")
    assert len(from_json.class_names) == 157  # the file is called charades.json: it is the real thing
    named = load_dataset(root / "charades.json", "train", class_names=list(MOTION_CLASSES))
    assert named.class_names == MOTION_CLASSES


def test_motion_s_own_lists_have_pairs(source: Path):
    val = load_dataset(source, "val")
    assert val.class_names == MOTION_CLASSES
    assert len(val.pairs) == 6
    assert len(load_dataset(source, "all")) == NUM_TRAIN + NUM_TEST


def test_videos_elsewhere_are_found_with_root(official: Path, source: Path, tmp_path: Path):
    lists = tmp_path / "lists"
    shutil.copytree(official / "Charades", lists)
    with pytest.raises(DataError, match=r"Charades_v1_test.csv:2: no videos found: no V0000.mp4"):
        load_dataset(lists, "train")
    for root in (official, official / "Charades_v1_480", source):
        assert len(load_dataset(lists, "train", root=root)) == NUM_TRAIN
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="--root must be the folder of the videos"):
        load_dataset(lists, "train", root=tmp_path / "empty")
    with pytest.raises(UsageError, match="no such folder"):
        load_dataset(lists, "train", root=tmp_path / "nowhere")


def test_missing_videos_are_left_out_when_that_is_allowed(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = small_list(tmp_path, "AAAAA,c000 0 1,2", "BBBBB,c001 0 1,2")
    (tmp_path / "BBBBB.mp4").unlink()
    with pytest.raises(DataError, match=r"1 of 2 files are missing, the first is .*BBBBB.mp4 .*:3\)"):
        load_dataset(path, "all")
    assert [Path(i.path).stem for i in load_dataset(path, "all", allow_missing=True).items] == ["AAAAA"]
    assert "skipping them" in caplog.text


def test_a_list_of_no_split_holds_videos_back_by_subject(tmp_path: Path):
    rows = [f"V{i:04d},S{i // 2},c00{i % 3} 0 1,2" for i in range(10)]
    path = tmp_path / "mine.csv"
    path.write_text("id,subject,actions,length\n" + "\n".join(rows))
    for row in rows:
        (tmp_path / f"{row[:5]}.mp4").touch()
    train, val = load_dataset(path, "train"), load_dataset(path, "val")
    assert len(train) + len(val) == 10
    assert len(val) == 2
    number = [int(Path(item.path).stem[1:]) for item in val.items]
    assert number[0] // 2 == number[1] // 2  # both of one person
    assert train.class_names == ("c000", "c001", "c002")


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("AAAAA,c12,2", r"csv:3: video AAAAA: the action 'c12' is not of the form 'cNNN start end', such as"),
        ("AAAAA,x092 1 2,2", "the action 'x092 1 2' is not of the form"),
        ("AAAAA,c092 one 2,2", "the action 'c092 one 2' has no class number, or no times in seconds"),
        ("AAAAA,c092 1 inf,2", "no times in seconds"),
        ("AAAAA,c092 -1 2,2", "classes and times count from 0"),
        ("AAAAA,c000 0 1,long", "video AAAAA: the length 'long' is not a number of seconds"),
        ("AAAAA,c000 0 1,0", "the length '0' is not a number of seconds"),
        (",c000 0 1,2", "'' is not the id of a video, such as '001YG'"),
        ("a/b,c000 0 1,2", "'a/b' is not the id of a video"),
        ("AAAAA,c000 0 1,2,5", "4 columns where the header has 3"),
        ('"AAAAA,c000 0 1,2', "not a row of a CSV file"),
        ("FIRST,c000 0 1,2", r"csv:3: video FIRST is listed at .*csv:2 already"),
    ],
)
def test_a_malformed_row_is_named_and_refused(tmp_path: Path, row: str, message: str):
    (tmp_path / "FIRST.mp4").touch()
    (tmp_path / "Charades_v1_train.csv").write_text(f"id,actions,length\nFIRST,c000 0 1,2\n{row}\n")
    with pytest.raises(DataError, match=message):
        load_dataset(tmp_path, "train")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"subset": "training", "duration": 9}, "charades.json: AAAAA: not of the form"),
        ({"subset": "mine", "duration": 9, "actions": []}, "subset 'mine' is unknown; it is training, valid"),
        ({"subset": "training", "duration": 9, "actions": [[1, 2]]}, r"\[1, 2\] is not of the form \[class"),
        ({"subset": "training", "duration": 9, "actions": [[1.5, 0, 2]]}, "has no class number"),
        ({"subset": "training", "duration": -1, "actions": []}, "the length -1 is not a number of seconds"),
    ],
)
def test_a_malformed_entry_is_named_and_refused(tmp_path: Path, entry: dict[str, object], message: str):
    (tmp_path / "charades.json").write_text(json.dumps({"AAAAA": entry}))
    if "subset" not in message and "subset" in entry:
        (tmp_path / "AAAAA.mp4").touch()
    with pytest.raises(DataError, match=message):
        load_dataset(tmp_path, "train")


def test_json_that_is_cut_short(tmp_path: Path):
    (tmp_path / "charades.json").write_text('{"AAAAA": {"subset": "training", "duration": 9')
    with pytest.raises(DataError, match=r"charades.json:1: not JSON"):
        load_dataset(tmp_path, "train")


def test_classes_beyond_the_class_file(tmp_path: Path):
    path = small_list(tmp_path, "AAAAA,c007 0 1,2")
    (tmp_path / "Charades_v1_classes.txt").write_text("c000 Holding\nc001 Putting\n")
    with pytest.raises(DataError, match=r"class c007, but .*classes.txt names 2 classes from c000 on"):
        load_dataset(path, "train")
    assert class_names(tmp_path / "Charades_v1_classes.txt") == ("Holding", "Putting")


def test_two_lists_of_a_split(tmp_path: Path):
    small_list(tmp_path, "AAAAA,c000 0 1,2")
    small_list(tmp_path, "BBBBB,c000 0 1,2", name="other_train.csv")
    with pytest.raises(DataError, match="are both lists of train; give one"):
        load_dataset(tmp_path, "train")
    assert len(load_dataset(tmp_path / "other_train.csv", "all")) == 1


def test_what_the_published_annotations_hold_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Actions that end after the video, none at all, the same class twice, and ends before starts."""
    path = small_list(
        tmp_path, "AAAAA,c000 0.00 32.00;c000 3.00 5.00,30.62", "BBBBB,,12.5", "CCCCC,c001 38.0 13.0,12.17"
    )
    first, none, backward = load_dataset(path, "all").items
    assert [action.end for action in first.actions] == [32.0, 5.0]
    assert none.actions == ()
    assert backward.actions == (Action(1, 38.0, 13.0),)
    told = caplog.text
    assert "1 actions end before they start, the first of video CCCCC" in told


def frame_list(path: Path, labels: dict[str, list[str]]) -> Path:
    """A list of frames of PySlowFast, with a folder of empty frames for every video beside it."""
    rows = ["original_vido_id video_id frame_id path labels"]
    for index, (video, cells) in enumerate(labels.items()):
        (path.parent / video).mkdir(parents=True, exist_ok=True)
        for frame, cell in enumerate(cells):
            name = f"{video}/{video}-{frame + 1:06d}.jpg"
            (path.parent / name).touch()
            rows.append(f'{video} {index} {frame} {name} "{cell}"')
    path.write_text("\n".join(rows) + "\n")
    return path


def test_lists_of_frames_of_pyslowfast(tmp_path: Path):
    labels = {"AAAAA": ["", "2,1", "1", "0", "1,0"], "BBBBB": ["", "2", ""]}
    frame_list(tmp_path / "train.csv", labels)
    frame_list(tmp_path / "val.csv", {"CCCCC": ["3"]})
    dataset = load_dataset(tmp_path, "train")
    assert dataset.class_names == ("c000", "c001", "c002", "c003")
    assert [(item.num_frames, item.fps, item.duration) for item in dataset.items] == [
        (5, 24.0, 5 / 24),
        (3, 24.0, 3 / 24),
    ]
    assert dataset.items[0].actions == (
        Action(1, 0.5 / 24, 2.5 / 24),
        Action(2, 0.5 / 24, 1.5 / 24),
        Action(0, 2.5 / 24, 4.5 / 24),
        Action(1, 3.5 / 24, 4.5 / 24),
    )
    for item, cells in zip(dataset.items, labels.values(), strict=True):
        assert Path(item.path).name in labels
        present = active_at(item.actions, np.arange(len(cells)) / 24, 4)
        expected = [sorted(int(label) for label in cell.split(",") if label) for cell in cells]
        assert [np.flatnonzero(frame).tolist() for frame in present.T] == expected
        assert ActionTable([item], 4).between(0, 1 / 24, 2 / 24).tolist() == [
            any(label in frame for frame in expected[1:3]) for label in range(4)
        ]
    assert load_dataset(tmp_path / "val.csv", "val").items[0].actions == (Action(3, 0.0, 0.5 / 24),)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("AAAAA 0 1 AAAAA/AAAAA-000002.jpg", "train.csv:3: 'AAAAA 0 1 .*' is not 'original_vido_id"),
        ('AAAAA 0 1 AAAAA/AAAAA-000002.jpg "run"', "train.csv:3: 'AAAAA 0 1 .*' is not 'original_vido_id"),
        ('AAAAA 0 4 AAAAA/AAAAA-000005.jpg "1"', "train.csv:3: frame 4 of video AAAAA follows 1 frames"),
    ],
)
def test_a_malformed_frame_is_named_and_refused(tmp_path: Path, row: str, message: str):
    path = frame_list(tmp_path / "train.csv", {"AAAAA": [""]})
    path.write_text(path.read_text() + row + "\n")
    with pytest.raises(DataError, match=message):
        load_dataset(path, "train")


@pytest.mark.real_data
def test_real_entries(real_data: Path, tmp_path: Path):
    shutil.copy(real_data / "charades_sample.json", tmp_path / "charades.json")
    table = json.loads((tmp_path / "charades.json").read_text())
    for video in table:
        (tmp_path / f"{video}.mp4").touch()
    train, test = load_dataset(tmp_path, "train"), load_dataset(tmp_path, "test")
    assert (len(train), len(test)) == (150, 50)
    assert len(train.class_names) == 157
    assert sum(len(item.actions) for item in (*train.items, *test.items)) == 1317


# --- in time ---------------------------------------------------------------------------------------------

ACTIONS = (Action(2, 1.0, 2.0), Action(0, 1.5, 9.0), Action(1, 3.0, 2.0))


def test_which_classes_are_there_when():
    times = [0.0, 1.0, 1.5, 2.0, 2.5, 9.0, 9.1]
    found = active_at(ACTIONS, times, 4)
    assert found.astype(int).tolist() == [
        [0, 0, 1, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 0, 0],  # ends before it starts: at no moment
        [0, 1, 1, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 0],
    ]
    strict = active_at(ACTIONS, times, 4, ends="excluded")
    assert strict.astype(int)[2].tolist() == [0, 0, 1, 0, 0, 0, 0]
    assert active_at((), times, 4).sum() == 0


def test_the_table_of_a_data_set_says_the_same():
    items = [VideoItem("a", -1), VideoItem("b", -1, actions=ACTIONS), VideoItem("c", -1, actions=ACTIONS[:1])]
    table = ActionTable(items, 4)
    times = np.linspace(0, 10, 41)
    for index, item in enumerate(items):
        np.testing.assert_array_equal(table.at(index, times), active_at(item.actions, times, 4))
    assert table.between(1, 0.0, 1.2).tolist() == [False, False, True, False]
    assert table.between(1, 2.1, 2.2).tolist() == [True, False, False, False]
    assert table.between(1, 0.0, 99.0).tolist() == [True, False, True, False]
    assert not table.between(0, 0.0, 99.0).any()


# --- the check -------------------------------------------------------------------------------------------


def test_data_check_counts_every_action(official: Path, source: Path):
    report = check_data(official, num_frames=8, stride=2, workers=0)
    assert report.ok
    counts = np.zeros(len(MOTION_CLASSES), int)
    for row in rows_of(source, "train"):
        for label in {int(action[1:4]) for action in row["actions"].split(";") if action}:
            counts[label] += 1
    assert report.class_counts["train"] == counts.tolist()
    assert len(report.files) == NUM_TRAIN + NUM_TEST
