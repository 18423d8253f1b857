"""Lists as people have them: headers, columns, several labels, segments, numbers of classes, class names."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from saccade.data.check import check_data
from saccade.data.classnames import class_names
from saccade.data.clips import ClipSettings
from saccade.data.datasets import load_dataset
from saccade.data.entries import Entry
from saccade.data.holdout import source_groups
from saccade.data.types import ClipRequest, VideoDataset
from saccade.errors import DataError, UsageError, VideoError
from saccade.video import open_video, write_video


def touch(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def clip(path: Path, num_frames: int = 30, fps: int = 30) -> Path:
    """A video whose frame ``i`` has the grey value ``4 i``."""
    frames = np.zeros((num_frames, 32, 40, 3), np.uint8)
    frames += 4 * np.arange(num_frames, dtype=np.uint8)[:, None, None, None]
    write_video(path, frames, fps=fps, crf=0)
    return path


def listed(folder: Path, text: str, name: str = "l.csv", encoding: str = "utf-8") -> Path:
    path = folder / name
    path.write_text(text, encoding=encoding, newline="")
    return path


def labels(dataset: VideoDataset) -> dict[str, list[str]]:
    return {
        Path(item.path).name: [dataset.class_names[action.label] for action in item.actions]
        if dataset.multi_label
        else [dataset.class_names[item.label]]
        for item in dataset.items
    }


# ---------------------------------------------------------------- headers


@pytest.mark.parametrize(
    "header",
    [
        *(
            "file_path,label",
            "video_path,label_id",
            "clip_path,class_id",
            "name,target_id",
            "File Path,Class Name",
        ),
        *("filename,category", "videoPath,action", "VIDEO,Target", '"path","y"', "clip,gesture", "id,label"),
        *("path;class", "path\tlabel", "path|label"),
    ],
)
def test_headers(tmp_path: Path, header: str) -> None:
    touch(tmp_path, "v/0.mp4", "v/1.mp4")
    mark = next(mark for mark in ";\t|," if mark in header)
    path = listed(tmp_path, f"{header}\nv/0.mp4{mark}run\nv/1.mp4{mark}hop\n")
    assert labels(load_dataset(path, "all")) == {"0.mp4": ["run"], "1.mp4": ["hop"]}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("clip_file_x,klass", r"l.csv:1: no column of labels among clip_file_x, klass; name one 'label'"),
        ("where,label", r"l.csv:1: no column of files among where, label; name one 'path'"),
        ("path,video,label", r"l.csv:1: columns 'path' and 'video' may both be the path"),
        ("path,label,class_id", r"l.csv:1: columns 'label' and 'class_id' may both be the label"),
        ("path,label,start_frame,end_frame", r"segments are given in seconds, in columns 'start' and 'end'"),
    ],
)
def test_headers_that_cannot_be_read(tmp_path: Path, header: str, message: str) -> None:
    touch(tmp_path, "a.mp4")
    second = "b.mp4" if "video" in header else "run"
    row = ",".join(["a.mp4", second, "1", "2"][: header.count(",") + 1])
    with pytest.raises(DataError, match=message):
        load_dataset(listed(tmp_path, f"{header}\n{row}\n"), "all", allow_missing=True)


def test_unused_columns_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    load_dataset(listed(tmp_path, ",path,weather,label\n0,a.mp4,rain,x\n1,b.mp4,sun,y\n"), "all")
    assert "column weather is not used" in caplog.text


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_encodings(tmp_path: Path, encoding: str, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "é.mp4", "b.mp4")
    path = listed(tmp_path, "path,label\r\né.mp4,Gehört\r\nb.mp4,x\r\n", encoding=encoding)
    assert labels(load_dataset(path, "all")) == {"é.mp4": ["Gehört"], "b.mp4": ["x"]}
    assert ("read as Windows-1252" in caplog.text) == (encoding == "cp1252")


def test_a_split_column_of_other_words(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{i}.mp4" for i in range(4)))
    path = listed(tmp_path, "path,label,subset\n0.mp4,a,Training\n1.mp4,b,train\n2.mp4,a,dev\n3.mp4,b,eval\n")
    assert [len(load_dataset(path, split)) for split in ("train", "val", "test")] == [2, 1, 1]


# ---------------------------------------------------------------- columns without a header


def test_number_of_frames_and_label(tmp_path: Path) -> None:
    """VideoMAE and TSN: path, frames, label. The videos decide where the numbers overlap."""
    for i in range(6):
        clip(tmp_path / f"c{i}.mp4", 30 + i)
    path = listed(tmp_path, "".join(f"c{i}.mp4 {30 + i} {i % 2}\n" for i in range(6)), "l.txt")
    assert load_dataset(path, "all").class_names == ("0", "1")
    path = listed(tmp_path, "".join(f"c{i}.mp4 {30 + i} {29 + i % 4}\n" for i in range(6)), "k.txt")
    assert labels(load_dataset(path, "all", class_names=[str(n) for n in range(40)]))["c1.mp4"] == ["30"]
    path = listed(tmp_path, "".join(f"c{i}.mp4,{30 + i},class {i % 2}\n" for i in range(6)), "n.txt")
    assert load_dataset(path, "all").class_names == ("class 0", "class 1")
    path = listed(tmp_path, "".join(f"c{i}.mp4 0 {i % 2}\n" for i in range(6)), "z.txt")
    assert load_dataset(path, "all").class_names == ("0", "1")


@pytest.mark.parametrize(
    "text",
    [
        "a.mp4 0 2\nb.mp4 1 3\nc.mp4 0 3\n",
        "a.mp4,0,2\nb.mp4,1,3\nc.mp4,0,3\n",
        "a.mp4 0 2\nb.mp4 3 1\nc.mp4 3 0\n",
        "path,labels\na.mp4,0;2\nb.mp4,1|3\nc.mp4,0 | 3\n",
        'path,label\na.mp4,"[0, 2]"\nb.mp4,"[1, 3]"\nc.mp4,"[0,3]"\n',
        "path,labels\na.mp4,[0,2]\nb.mp4,[1,3]\nc.mp4,[0,3]\n",
        "path\tlabels\na.mp4\t0,2\nb.mp4\t1,3\nc.mp4\t0,3\n",
    ],
)
def test_several_labels(tmp_path: Path, text: str) -> None:
    for name in "abc":
        clip(tmp_path / f"{name}.mp4", 12)
    dataset = load_dataset(listed(tmp_path, text), "all")
    assert dataset.multi_label
    assert dataset.class_names == ("0", "1", "2", "3")
    assert {name: sorted(each) for name, each in labels(dataset).items()} == {
        "a.mp4": ["0", "2"],
        "b.mp4": ["1", "3"],
        "c.mp4": ["0", "3"],
    }
    assert all(item.label == -1 for item in dataset.items)


def test_several_names_and_none(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4", "c.mp4")
    text = "path,tags\na.mp4,run;jump high\nb.mp4,\nc.mp4,run\n"
    assert labels(load_dataset(listed(tmp_path, text), "all")) == {
        "a.mp4": ["run", "jump high"],
        "b.mp4": [],
        "c.mp4": ["run"],
    }
    assert labels(
        load_dataset(listed(tmp_path, "a.mp4 run,hop\nb.mp4 run\nc.mp4 hop\n", "l.txt"), "all")
    ) == {
        "a.mp4": ["run", "hop"],
        "b.mp4": ["run"],
        "c.mp4": ["hop"],
    }
    dataset = load_dataset(listed(tmp_path, "path,labels\na.mp4,run\nb.mp4,hop\n"), "all")
    assert not dataset.multi_label  # one each
    with pytest.raises(DataError, match=r"l.csv:3: no label"):
        load_dataset(listed(tmp_path, "path,labels\na.mp4,run\nb.mp4,\n"), "all")


def test_a_label_that_only_second_places_have_is_trained_on(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{i}.mp4" for i in range(20)))
    rows = "".join(f"{i}.mp4,{i % 3};{3 if i % 10 == 0 else 4}\n" for i in range(20))
    train = load_dataset(listed(tmp_path, "path,labels\n" + rows), "train")
    assert {action.label for item in train.items for action in item.actions} == set(range(5))


def test_lines_with_a_split_at_the_end(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{i}.mp4" for i in range(3)))
    path = listed(tmp_path, "0.mp4,air drum,train\n1.mp4,hop,train\n2.mp4,hop,val\n")
    assert labels(load_dataset(path, "train")) == {"0.mp4": ["air drum"], "1.mp4": ["hop"]}


def test_three_numbers_are_ambiguous(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    with pytest.raises(DataError, match=r"'path,labels' .* or 'path,start,end,label'"):
        load_dataset(listed(tmp_path, "a.mp4 0 10 1\nb.mp4 5 9 0\n"), "all")


# ---------------------------------------------------------------- segments


def grey(frames: object) -> list[int]:
    return [round(float(frame.float().mean()) / 4) for frame in frames]  # type: ignore[attr-defined]


def test_open_a_segment(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", 60)
    with open_video(path, start=0.5, end=1.5) as video:
        assert (len(video), video.fps, video.size) == (30, 30.0, (32, 40))
        assert grey(video.frames([0, 29, 3])) == [15, 44, 18]
        np.testing.assert_allclose(video.times, np.arange(30) / 30, atol=1e-6)
        with pytest.raises(VideoError):
            video.frames([30])
    with open_video(path, start=0.51, end=0.52) as video:  # between two frames: the one that is shown
        assert grey(video.frames([0])) == [15]
    with open_video(path, end=0.1) as video:
        assert len(video) == 3
    with open_video(path, start=1.9, end=7.0) as video:
        assert grey(video) == [57, 58, 59]
    with pytest.raises(VideoError, match=r"has no segment at 2.5 s: it lasts 2.00 s"):
        open_video(path, start=2.5)
    with pytest.raises(UsageError, match="start and end"):
        open_video(path, start=2.0, end=1.0)


@pytest.mark.parametrize(
    "text",
    [
        "path,label,start,end\na.mp4,x,0,0.5\na.mp4,y,0.5,1\nb.mp4,x,1.0,\nb.mp4,y,,00:01.0\n",
        "video,t_start,t_end,class\na.mp4,0.0,0.5,x\na.mp4,0.5,1.0,y\nb.mp4,1.0,,x\nb.mp4,,1.0,y\n",
        "video_id,start_time,end_time,action\na,0,0.5,x\na,0.5,1,y\nb,1,,x\nb,,1,y\n",
        "path,label,start,duration\na.mp4,x,0,0.5\na.mp4,y,0.5,0.5\nb.mp4,x,1,\nb.mp4,y,0,1\n",
    ],
)
def test_segments_are_clips_of_their_own(tmp_path: Path, text: str) -> None:
    for name in "ab":
        clip(tmp_path / f"{name}.mp4", 60)
    dataset = load_dataset(listed(tmp_path, text), "all")
    assert [dataset.class_names[item.label] for item in dataset.items] == ["x", "y", "x", "y"]
    spans = []
    for index in range(4):
        with dataset.open(index) as video:
            seen = grey(video)
        spans.append((seen[0], seen[-1]))
    assert spans == [(0, 14), (15, 29), (30, 59), (0, 29)]
    reader = dataset.train_clips(ClipSettings(rule="saccade"))
    for index, (first, last) in enumerate(spans):
        for seed in range(5):
            request = ClipRequest(
                index=index, seed=seed, num_frames=4, stride=(2, 2), short_side=(32, 32), crop=32
            )
            assert all(first <= frame <= last for frame in grey(reader.read([request]).unpack().clips[0]))


def test_segments_without_a_header(tmp_path: Path) -> None:
    clip(tmp_path / "a.mp4", 60)
    path = listed(tmp_path, "a.mp4 0.0 0.5 0\na.mp4 0.5 2.0 1\n", "l.txt")
    assert [(i.start, i.end, i.label) for i in load_dataset(path, "all").items] == [
        (0.0, 0.5, 0),
        (0.5, 2.0, 1),
    ]
    path = listed(tmp_path, "a.mp4,0.0,0.5,run fast\na.mp4,0.5,2.0,hop\n")
    assert load_dataset(path, "all").class_names == ("hop", "run fast")


def test_segments_of_a_video_are_held_out_together(tmp_path: Path) -> None:
    touch(tmp_path, *(f"v{i}.mp4" for i in range(10)))
    rows = "".join(f"v{i}.mp4,{'xy'[j % 2]},{j},{j + 1}\n" for i in range(10) for j in range(4))
    path = listed(tmp_path, "path,label,start,end\n" + rows)
    sides = [{item.path for item in load_dataset(path, split).items} for split in ("train", "val")]
    assert [len(side) for side in sides] == [8, 2]
    assert not sides[0] & sides[1]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a.mp4,x,2,1", r"l.csv:2: the segment ends at 1 s, not after its start at 2 s"),
        ("a.mp4,x,soon,1", r"l.csv:2: start 'soon' is not a time"),
        ("a.mp4,x,-1,1", r"l.csv:2: start '-1' is not a time"),
    ],
)
def test_bad_segments(tmp_path: Path, row: str, message: str) -> None:
    touch(tmp_path, "a.mp4")
    with pytest.raises(DataError, match=message):
        load_dataset(listed(tmp_path, f"path,label,start,end\n{row}\n"), "all")


def test_kinetics_times_name_files_that_are_cut(tmp_path: Path) -> None:
    touch(tmp_path, "abcdefghijk_000005_000015.mp4")
    path = listed(tmp_path, "label,youtube_id,time_start,time_end,split\nhop,abcdefghijk,5,15,train\n")
    item = load_dataset(path, "all").items[0]
    assert (item.start, item.end) == (None, None)


# ---------------------------------------------------------------- numbers as labels


@pytest.mark.parametrize(
    ("numbers", "names", "said"),
    [
        ((0, 1), ("0", "1"), ""),
        ((1, 2), ("1", "2"), "labels count from 1; the 2 classes are named 1 to 2"),
        ((0, 7), tuple("01234567"), "no clip has the label 1, 2, 3, 4, 5 and 1 more; there are 8 classes"),
        (("1.0", "0.0"), ("0", "1"), ""),
        (("003", "002"), ("0", "1", "2", "3"), "no clip has the label 0, 1; there are 4 classes"),
    ],
)
def test_numbers_of_classes(
    tmp_path: Path,
    numbers: tuple[object, ...],
    names: tuple[str, ...],
    said: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    touch(tmp_path, *(f"{i}.mp4" for i in range(4)))
    path = listed(tmp_path, "".join(f"{i}.mp4 {numbers[i % 2]}\n" for i in range(4)), "l.txt")
    dataset = load_dataset(path, "all")
    assert dataset.class_names == names
    assert dataset.class_names[dataset.items[0].label] == str(int(float(str(numbers[0]))))
    assert said in caplog.text
    if not said:
        assert "label" not in caplog.text
    again = load_dataset(path, "all", class_names=names)  # as a run tests with its names
    assert [item.label for item in again.items] == [item.label for item in dataset.items]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            ("20260101", "20260102"),
            r"l.txt:2: label 20260102 is no number of a class: there are 2 different ones",
        ),
        (tuple(str(100 + 7 * i) for i in range(12)), r"is no number of a class: every clip has its own"),
        (("0", "-1"), r"l.txt:2: label -1 is below 0"),
        (("0", "0.5"), r"l.txt:2: label 0.5 is not a whole number"),
        (("0", "nan"), r"l.txt:2: no label \('nan'\)"),
    ],
)
def test_numbers_that_are_none_of_classes(tmp_path: Path, rows: tuple[str, ...], message: str) -> None:
    count = max(4, len(rows))
    touch(tmp_path, *(f"{i}.mp4" for i in range(count)))
    path = listed(tmp_path, "".join(f"{i}.mp4 {rows[i % len(rows)]}\n" for i in range(count)), "l.txt")
    with pytest.raises(DataError, match=message):
        load_dataset(path, "all")


def test_labels_from_one_with_names(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "0.mp4", "1.mp4")
    path = listed(tmp_path, "0.mp4 1\n1.mp4 2\n", "l.txt")
    assert labels(load_dataset(path, "all", class_names=["run", "hop"])) == {
        "0.mp4": ["run"],
        "1.mp4": ["hop"],
    }
    assert "labels count from 1: label 1 is class 'run'" in caplog.text


def test_a_missing_file_makes_no_class(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{i}.mp4" for i in range(4)))
    path = listed(tmp_path, "".join(f"{i}.mp4 {'ab'[i % 2]}\n" for i in range(4)) + "gone.mp4 c\n", "l.txt")
    assert load_dataset(path, "all", allow_missing=True).class_names == ("a", "b")


# ---------------------------------------------------------------- class names


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", json.dumps({"run": 0, "hop": 1, "air drum": 2})),
        ("b.json", json.dumps({"0": "run", "2": "air drum", "1": "hop"})),
        ("c.json", json.dumps(["run", "hop", "air drum"])),
        ("d.json", json.dumps({"id2label": {"0": "run", "1": "hop", "2": "air drum"}, "num_labels": 3})),
        (
            "e.json",
            json.dumps([{"id": 1, "name": "hop"}, {"id": 0, "name": "run"}, {"id": 2, "name": "air drum"}]),
        ),
        ("f.json", json.dumps({"run": 1, "hop": 2, "air drum": 3})),
        ("g.csv", "id,name\n0,run\n1,hop\n2,air drum\n"),
        ("h.csv", "name,id\nrun,0\nair drum,2\nhop,1\n"),
        ("i.csv", "run,0\nhop,1\nair drum,2\n"),
        ("j.csv", "1,run\r\n2,hop\r\n3,air drum\r\n"),
        ("k.csv", "class_id;class_name;weight\n0;run;1\n1;hop;2\n2;air drum;3\n"),
        ("l.txt", "run\nhop\nair drum\n"),
    ],
)
def test_files_of_class_names(tmp_path: Path, name: str, text: str) -> None:
    assert class_names(listed(tmp_path, text, name)) == ("run", "hop", "air drum")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"run": 0, "hop": 2}', r"no class has the number 1; the numbers of 2 classes count from 0 or 1"),
        ('{"run": 0, "hop": 0}', r"number 0 is given to 'run' and to 'hop'"),
        ('{"0": "run", "0": "hop"}', r"number 0 is given to 'run' and to 'hop'"),
        ('{"run": "x"}', r"not class names; JSON has them as"),
        ('{"run": 0,', r"n.txt:1: not JSON"),
        ("id,name\n0,run\n0,hop\n", r"number 0 is given to 'run' and to 'hop'"),
        ("0 run\n3 hop\n", r"no class has the number 1"),
    ],
)
def test_bad_files_of_class_names(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        class_names(listed(tmp_path, text, "n.txt"))


# ---------------------------------------------------------------- what is held out, and the check


def entries_of(*names: str) -> list[Entry]:
    return [Entry(name, name.split("/")[0], "l.txt:1") for name in names]


def test_a_number_in_a_name_is_no_source() -> None:
    files = entries_of(*(f"{label}/{label}_c{i:02}.mp4" for label in "ab" for i in range(5)))
    keys, rule = source_groups(files)
    assert len(set(keys)) == 10
    assert rule == "each file by itself"
    files = entries_of(
        *(f"{label}/{s}{label}_c{i:02}.mp4" for label in "ab" for s in "xyz" for i in range(5))
    )
    keys, rule = source_groups(files)
    assert len(set(keys)) == 6
    assert "_c01" in rule
    assert len(set(source_groups(entries_of("a/clip 12.mp4", "a/clip 13.mp4", "b/take2.mp4"))[0])) == 3


def test_all_is_not_said_to_be_held_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "saccade")
    touch(tmp_path, *(f"{label}/{i}.mp4" for label in "ab" for i in range(5)))
    assert len(load_dataset(tmp_path, "all")) == 10
    assert "held out" not in caplog.text


def test_lists_of_one_number_belong_together(tmp_path: Path) -> None:
    touch(tmp_path, "A/1.avi", "A/2.avi", "A/3.avi")
    for number in (1, 2):
        listed(tmp_path, f"A/{number}.avi 1\n", f"trainlist0{number}.txt")
        listed(tmp_path, f"A/{number + 1}.avi\n", f"testlist0{number}.txt")
    assert labels(load_dataset(tmp_path / "trainlist02.txt", "test")) == {"3.avi": ["A"]}


def test_check_reports_lists_and_segments(tmp_path: Path) -> None:
    clip(tmp_path / "a.mp4", 60)
    clip(tmp_path / "b.mp4", 50)
    text = "path,label,start,end,split,who\n" + "".join(
        f"{name}.mp4,1,{start},{start + 0.5},{split},me\n"
        for name, split in (("a", "train"), ("b", "val"))
        for start in (0, 1)
    )
    report = check_data(listed(tmp_path, text), num_frames=4, stride=2, workers=0)
    assert report.ok
    assert [file.num_frames for file in report.files] == [15] * 4
    assert not report.duplicates
    assert report.files[1].name == f"{tmp_path}/a.mp4 (1 s to 1.5 s)"
    said = "\n".join(report.warnings)
    assert "column who is not used" in said
    assert "labels count from 1" in said
    assert "one class, '1'" in said
    assert report.to_json()["warnings"] == list(report.warnings)


def test_lists_for_dev_and_eval(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{i}.mp4" for i in range(3)))
    for number, name in enumerate(("train", "dev", "eval")):
        listed(tmp_path, f"{number}.mp4 run\n", f"k_{name}_list.txt")
    for path in (tmp_path, tmp_path / "k_train_list.txt"):
        found = [list(labels(load_dataset(path, split))) for split in ("train", "val", "test")]
        assert found == [["0.mp4"], ["1.mp4"], ["2.mp4"]]


def test_comments_and_old_line_ends(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    expected = {"a.mp4": ["run"], "b.mp4": ["hop"]}
    assert (
        labels(load_dataset(listed(tmp_path, "# my clips\na.mp4 run\nb.mp4 hop\n", "l.txt"), "all"))
        == expected
    )
    assert labels(load_dataset(listed(tmp_path, "path,label\ra.mp4,run\rb.mp4,hop\r"), "all")) == expected


def test_label_before_start_and_end_asks_for_a_header(tmp_path: Path) -> None:
    touch(tmp_path, "a.mp4", "b.mp4")
    with pytest.raises(DataError, match=r"or 'path,start,end,label'"):
        load_dataset(listed(tmp_path, "a.mp4 0 0.1 0.5\nb.mp4 1 0.5 0.9\n", "l.txt"), "all")


# ---------------------------------------------------------------- the folders of MMAction2


@pytest.mark.parametrize("by_file", [False, True])
def test_lists_beside_a_folder_for_each_split(tmp_path: Path, by_file: bool) -> None:
    """The same relative path is another file in each split."""
    touch(tmp_path, "videos_train/hop/0.mp4", "videos_train/run/1.mp4", "videos_val/hop/0.mp4")
    touch(tmp_path, "rawframes_train/hop/0/img_00001.jpg")
    train = listed(tmp_path, "hop/0.mp4 0\nrun/1.mp4 1\n", "kinetics400_train_list_videos.txt")
    val = listed(tmp_path, "hop/0.mp4 0\n", "kinetics400_val_list_videos.txt")
    found = {
        split: [
            (str(Path(item.path).relative_to(tmp_path)), item.label)
            for item in load_dataset(path if by_file else tmp_path, split).items
        ]
        for split, path in (("train", train), ("val", val))
    }
    assert found == {
        "train": [("videos_train/hop/0.mp4", 0), ("videos_train/run/1.mp4", 1)],
        "val": [("videos_val/hop/0.mp4", 0)],
    }


def test_lists_of_videos_are_preferred_to_those_of_frame_folders(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "videos/hop/0.mp4", "videos/run/1.mp4", "rawframes/hop/0/img_00001.jpg")
    listed(tmp_path, "hop/0.mp4 0\nrun/1.mp4 1\n", "ucf101_train_list_videos.txt")
    frames = listed(tmp_path, "hop/0 1 0\n", "ucf101_train_list_rawframes.txt")
    items = load_dataset(tmp_path, "all").items
    assert [Path(item.path).name for item in items] == ["0.mp4", "1.mp4"]
    assert f"{frames}: not read" in caplog.text
    assert [item.num_frames for item in load_dataset(frames, "all").items] == [1]  # where it is named


def test_list_of_frame_folders_in_rawframes(tmp_path: Path) -> None:
    touch(tmp_path, *(f"rawframes/{name}/img_00001.jpg" for name in ("hop/0", "run/1")))
    path = listed(tmp_path, "hop/0 1 0\nrun/1 1 1\n", "ucf101_train_list_rawframes.txt")
    items = load_dataset(path, "all").items
    assert [(item.path, item.label, item.num_frames) for item in items] == [
        (str(tmp_path / "rawframes/hop/0"), 0, 1),
        (str(tmp_path / "rawframes/run/1"), 1, 1),
    ]
