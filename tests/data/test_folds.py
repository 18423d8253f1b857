from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest

from saccade.data import load_dataset
from saccade.data.folds import assign_folds, make_folds
from saccade.errors import DataError, UsageError


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


@pytest.fixture
def clips(tmp_path: Path) -> Path:
    """Two classes of 5 sources with 2 clips each, named as in UCF-101."""
    for name in ("Archery", "Diving"):
        for group in range(1, 6):
            for clip in (1, 2):
                touch(tmp_path / "clips" / name / f"v_{name}_g{group:02d}_c{clip:02d}.avi")
    return tmp_path / "clips"


def test_each_clip_is_in_one_fold_with_its_source(clips: Path):
    cut = make_folds(clips, 5)
    assert (len(cut.entries), cut.num_groups, cut.class_names) == (20, 10, ("Archery", "Diving"))
    of_group: dict[str, set[int]] = {}
    for group, fold in zip(cut.groups, cut.folds, strict=True):
        of_group.setdefault(group, set()).add(fold)
    assert all(len(folds) == 1 for folds in of_group.values())
    per_fold = Counter(zip(cut.folds, (entry.label for entry in cut.entries), strict=True))
    assert per_fold == {(fold, label): 2 for fold in range(5) for label in "01"}


def test_folds_do_not_depend_on_the_order_or_the_place(clips: Path, tmp_path: Path):
    first = make_folds(clips, 3)
    clips.rename(tmp_path / "moved")
    moved = make_folds(tmp_path / "moved", 3)
    assert moved.folds == first.folds
    labels = [int(entry.label) for entry in first.entries]
    backwards = assign_folds(first.groups[::-1], labels[::-1], 3)
    assert backwards[::-1] == list(first.folds)


def test_large_groups_are_spread_first():
    groups = [*"a" * 6, *"b" * 3, *"c" * 3, *"d" * 6]
    folds = assign_folds(groups, [0] * 18, 2)
    assert sorted(Counter(folds).values()) == [9, 9]
    assert folds[0] != folds[12]


def test_the_list_of_a_fold_is_read_as_it_was_meant(clips: Path, tmp_path: Path):
    cut = make_folds(clips, 4)
    seen = []
    for fold in range(4):
        path = tmp_path / f"fold{fold}.csv"
        path.write_text(cut.list_text(fold))
        train, val = (load_dataset(path, split) for split in ("train", "val"))
        assert train.class_names == val.class_names == cut.class_names
        assert len(train) + len(val) == 20
        expected = {
            e.path: int(e.label) for e, own in zip(cut.entries, cut.folds, strict=True) if own == fold
        }
        assert {item.path: item.label for item in val.items} == expected
        seen += list(expected)
    assert sorted(seen) == sorted(entry.path for entry in cut.entries)


def test_a_list_keeps_groups_segments_and_odd_names(tmp_path: Path):
    rows = [("path", "label", "person", "start", "end")]
    for person in ("ann", "bob", "cy"):
        for number, label in enumerate(("a|b, c", "7")):
            touch(tmp_path / f"{person}.mp4")
            rows.append((f"{person}.mp4", f'["{label}"]', person, str(number), str(number + 0.5)))
    with (tmp_path / "clips.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(rows)
    cut = make_folds(tmp_path, 3)
    assert cut.class_names == ("7", "a|b, c")
    (tmp_path / "out.csv").write_text(cut.list_text(1))
    val = load_dataset(tmp_path / "out.csv", "val", class_names=cut.class_names)
    assert len({item.path for item in val.items}) == 1
    assert [(item.label, item.start, item.end) for item in val.items] == [(1, 0.0, 0.5), (0, 1.0, 1.5)]


def test_a_stated_test_split_is_in_no_fold(tmp_path: Path):
    for split, count in (("train", 4), ("val", 2), ("test", 3)):
        for label in "ab":
            for number in range(count):
                touch(tmp_path / split / label / f"{split}{number}.mp4")
    cut = make_folds(tmp_path, 3)
    assert (len(cut.entries), cut.num_test) == (12, 6)
    assert not any("test" in Path(entry.path).parts for entry in cut.entries)


def test_what_cannot_be_cut_is_named(clips: Path):
    with pytest.raises(UsageError, match="folds"):
        make_folds(clips, 1)
    with pytest.raises(DataError, match="11 folds"):
        make_folds(clips, 11)
    for clip in (1, 2):
        touch(clips / "Fencing" / f"v_Fencing_g01_c0{clip}.avi")
    with pytest.raises(DataError, match=r"Fencing.*one source"):
        make_folds(clips, 2)
