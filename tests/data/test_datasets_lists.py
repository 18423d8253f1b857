"""List files in the forms people have."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.data.classnames import LABEL_LISTS, LabelFinder, class_ids, class_names
from saccade.data.datasets import load_dataset
from saccade.data.lists import read_list
from saccade.errors import DataError, UsageError


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def pairs(path: Path) -> list[tuple[str, str]]:
    return [(str(Path(entry.path).relative_to(path.parent)), entry.label) for entry in read_list(path)]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("v/a.mp4 3", ("v/a.mp4", "3")),
        ("v/a.mp4,3", ("v/a.mp4", "3")),
        ("v/a.mp4, 3", ("v/a.mp4", "3")),
        ("v/a.mp4;3", ("v/a.mp4", "3")),
        ("v/a.mp4\t3", ("v/a.mp4", "3")),
        ("v/my clip.mp4 3", ("v/my clip.mp4", "3")),
        ("v/my clip, the 2nd.MP4,air drumming", ("v/my clip, the 2nd.MP4", "air drumming")),
        ("a.webm;Lifting it, then letting it drop", ("a.webm", "Lifting it, then letting it drop")),
        ('"v/odd name.bin" 4', ("v/odd name.bin", "4")),
        ('a.mp4,"ice skating"', ("a.mp4", "ice skating")),
        ("frames of/clip 7", ("frames of/clip", "7")),
        ("frames,x/clip,7", ("frames,x/clip", "7")),
        ("a.b.mp4.avi 1", ("a.b.mp4.avi", "1")),
        ("  a.mp4   3  ", ("a.mp4", "3")),
    ],
)
def test_one_line(tmp_path: Path, line: str, expected: tuple[str, str]) -> None:
    assert pairs(written(tmp_path / "list.txt", f"\n{line}\n\n")) == [expected]


def test_byte_order_mark_and_windows_line_ends(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_bytes("\ufeffá.mp4 0\r\nb.mp4 1\r\n".encode())
    assert pairs(path) == [("á.mp4", "0"), ("b.mp4", "1")]


def test_frame_folder_with_its_count(tmp_path: Path) -> None:
    (tmp_path / "clip").mkdir()
    assert pairs(written(tmp_path / "list.txt", "clip 120 5\n")) == [("clip", "5")]


def test_absolute_paths_and_root(tmp_path: Path) -> None:
    path = written(tmp_path / "list.txt", "/data/a.mp4 0\nb.mp4 1\n")
    assert [entry.path for entry in read_list(path, root="/videos")] == ["/data/a.mp4", "/videos/b.mp4"]


@pytest.mark.parametrize("line", ["justapath.mp4", "my clip.mp4", "word"])
def test_line_without_a_label(tmp_path: Path, line: str) -> None:
    with pytest.raises(DataError, match=r"list.txt:2: no label in .*; expected 'path label'"):
        read_list(written(tmp_path / "list.txt", f"a.mp4 1\n{line}\n"))


def test_not_a_text_file(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=r"list.csv: not a UTF-8 text file"):
        read_list(tmp_path / "list.csv")


# ---------------------------------------------------------------- splits and labels


def videos(root: Path, count: int) -> None:
    for index in range(count):
        (root / f"{index}.mp4").touch()


def test_siblings_by_name(tmp_path: Path) -> None:
    videos(tmp_path, 5)
    written(tmp_path / "k_train_list.txt", "0.mp4 run\n1.mp4 hop\n")
    written(tmp_path / "k_val_list.txt", "2.mp4 run\n")
    written(tmp_path / "k_test_list.txt", "3.mp4 run\n4.mp4 hop\n")
    written(tmp_path / "other_val_list.txt", "9.mp4 nonsense\n")
    listed = {split: load_dataset(tmp_path / "k_train_list.txt", split) for split in ("train", "val", "test")}
    assert {split: len(dataset) for split, dataset in listed.items()} == {"train": 2, "val": 1, "test": 2}
    assert {dataset.class_names for dataset in listed.values()} == {("hop", "run")}
    # a list that is named is the one that is evaluated, with the classes of the training list
    named = load_dataset(tmp_path / "k_test_list.txt", "val")
    assert len(named) == 2
    assert named.class_names == ("hop", "run")


def test_folder_with_lists(tmp_path: Path) -> None:
    videos(tmp_path, 3)
    written(tmp_path / "train.csv", "0.mp4 0\n1.mp4 2\n")
    written(tmp_path / "val.csv", "2.mp4 1\n")
    assert load_dataset(tmp_path, "train").class_names == ("0", "1", "2")
    assert load_dataset(tmp_path, "val").items[0].label == 1
    written(tmp_path / "more_val.csv", "2.mp4 1\n")
    with pytest.raises(DataError, match=r"more_val.csv and val.csv are both named for val"):
        load_dataset(tmp_path, "val")


def test_list_without_split_is_held_out_from(tmp_path: Path) -> None:
    videos(tmp_path, 20)
    path = written(tmp_path / "clips.txt", "".join(f"{index}.mp4 {index % 2}\n" for index in range(20)))
    assert len(load_dataset(path, "train")) == 16
    assert len(load_dataset(path, "val")) == 4
    assert len(load_dataset(path, "all")) == 20


def test_labels_must_fit_the_names(tmp_path: Path) -> None:
    videos(tmp_path, 2)
    path = written(tmp_path / "train.txt", "0.mp4 0\n1.mp4 2\n")
    written(tmp_path / "val.txt", "1.mp4 0\n")
    with pytest.raises(DataError, match=r"train.txt:2: label 2 is out of range; 2 classes count from 0"):
        load_dataset(path, "train", class_names=["a", "b"])
    assert load_dataset(path, "train", class_names=["a", "b", "c"]).items[1].label == 2
    written(tmp_path / "val.txt", "1.mp4 3\n")
    with pytest.raises(DataError, match=r"val.txt:1: class '3' is only in the val split"):
        load_dataset(path, "train")


def test_unknown_label_is_named_with_its_line(tmp_path: Path) -> None:
    videos(tmp_path, 2)
    path = written(tmp_path / "train.txt", "0.mp4 run\n1.mp4 rum\n")
    with pytest.raises(DataError, match=r"train.txt:2: no class 'rum'; classes are run, hop"):
        load_dataset(path, "all", class_names=["run", "hop"])


def test_numbers_find_the_names_beside_them(tmp_path: Path) -> None:
    videos(tmp_path, 2)
    path = written(tmp_path / "train.txt", "0.mp4 1\n")
    written(tmp_path / "val.txt", "1.mp4 0\n")
    written(tmp_path / "classes.txt", "hop\nrun\n")
    assert load_dataset(path, "train").class_names == ("hop", "run")


def test_kinetics_table_as_downloaded(tmp_path: Path) -> None:
    (tmp_path / "train" / "hop").mkdir(parents=True)
    (tmp_path / "train" / "hop" / "-0abc_XYZ01_000005_000015.mp4").touch()
    (tmp_path / "train" / "bcdefghij02.mkv").touch()
    path = written(
        tmp_path / "kinetics.csv",
        "label,youtube_id,time_start,time_end,split,is_cc\n"
        "hop,-0abc_XYZ01,5,15,train,0\nrun,bcdefghij02,7,17,train,0\nrun,gonegonego3,7,17,validate,0\n",
    )
    train = load_dataset(path, "train")
    assert [Path(item.path).name for item in train.items] == [
        "-0abc_XYZ01_000005_000015.mp4",
        "bcdefghij02.mkv",
    ]
    assert train.class_names == ("hop", "run")
    with pytest.raises(
        DataError, match=r"1 of 1 files are missing, the first is .*gonegonego3_000007_000017.mp4"
    ):
        load_dataset(path, "val")


def test_ucf_lists(tmp_path: Path) -> None:
    for name in ("Archery/v_1.avi", "BabyCrawling/v_2.avi", "Archery/v_3.avi"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    written(tmp_path / "classInd.txt", "1 ApplyEyeMakeup\n2 Archery\n3 BabyCrawling\n")
    path = written(tmp_path / "trainlist01.txt", "Archery/v_1.avi 2\nBabyCrawling/v_2.avi 3\n")
    written(tmp_path / "testlist01.txt", "Archery/v_3.avi\n")
    train, test = load_dataset(path, "train"), load_dataset(path, "test")
    assert [item.label for item in train.items] == [1, 2]
    assert [item.label for item in test.items] == [1]
    assert train.class_names == ("ApplyEyeMakeup", "Archery", "BabyCrawling")


# ---------------------------------------------------------------- class names


def test_shipped_lists() -> None:
    counts = {name: len(class_names(name)) for name in LABEL_LISTS}
    assert counts == {
        "ava": 60,
        "hmdb51": 51,
        "jester": 27,
        "kinetics400": 400,
        "kinetics600": 600,
        "kinetics700": 700,
        "something_v1": 174,
        "something_v2": 174,
        "ucf101": 101,
    }
    assert class_names("kinetics400")[0] == "abseiling"
    assert class_names("kinetics400")[399] == "zumba"
    assert class_ids("ava")[80] == "watch (a person)"
    assert 2 not in class_ids("ava")
    assert class_ids("ucf101")[0] == "ApplyEyeMakeup"


def test_own_names(tmp_path: Path) -> None:
    assert class_names(written(tmp_path / "a.txt", "b\na\n\n")) == ("b", "a")
    assert class_names(written(tmp_path / "b.txt", "1 b\n0 a c\n")) == ("a c", "b")
    assert class_names(["x", "y"]) == ("x", "y")
    with pytest.raises(DataError, match="'b' is listed twice"):
        class_names(written(tmp_path / "c.txt", "b\nb\n"))
    with pytest.raises(UsageError, match="no such file and no shipped list; lists are ava"):
        class_names("kinetics40")
    for nothing in (
        [],
        written(tmp_path / "d.csv", "id,name\n"),
        written(tmp_path / "e.json", "[]"),
        written(tmp_path / "f.txt", ""),
    ):
        with pytest.raises(DataError, match="no class names"):
            class_names(nothing)


def test_finding_a_label() -> None:
    finder = LabelFinder(["massaging person's head", "Air Drumming", "a b", "a_b"])
    assert finder.find("massaging_persons_head") == 0
    assert finder.find("air drumming") == 1
    assert finder.find("a_b") == 3
    assert finder.find("A B") is None  # two classes could be meant
    assert finder.find("singing") is None
