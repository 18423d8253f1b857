"""Every layout `load_dataset` recognises, and what it says of those it does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from saccade.data import holdout
from saccade.data.datasets import load_dataset
from saccade.data.types import VideoDataset
from saccade.errors import DataError, UsageError


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def labelled(dataset: VideoDataset) -> dict[str, str]:
    """Path below the root to class name."""
    base = Path(dataset.root)
    base = base if base.is_dir() else base.parent
    return {str(Path(item.path).relative_to(base)): dataset.class_names[item.label] for item in dataset.items}


# ---------------------------------------------------------------- folders


def test_split_folders(tmp_path: Path) -> None:
    touch(
        tmp_path, "train/run/1.mp4", "train/run/2.AVI", "train/jump/3.webm", "val/jump/4.mkv", "val/run/5.mov"
    )
    train, val = load_dataset(tmp_path, "train"), load_dataset(tmp_path, "val")
    assert train.class_names == val.class_names == ("jump", "run")
    assert labelled(train) == {
        "train/jump/3.webm": "jump",
        "train/run/1.mp4": "run",
        "train/run/2.AVI": "run",
    }
    assert labelled(val) == {"val/jump/4.mkv": "jump", "val/run/5.mov": "run"}
    assert (train.split, train.root, train.pairs) == ("train", str(tmp_path), ())
    assert len(load_dataset(tmp_path, "all")) == 5
    with pytest.raises(DataError, match="no test split; there is train, val"):
        load_dataset(tmp_path, "test")


def test_other_words_for_splits(tmp_path: Path) -> None:
    touch(tmp_path, "training/a/1.mp4", "Validation/a/2.mp4", "testing/a/3.mp4")
    assert [len(load_dataset(tmp_path, split)) for split in ("train", "val", "test")] == [1, 1, 1]


def test_test_takes_the_place_of_val_aloud(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "train/a/1.mp4", "test/a/2.mp4")
    assert labelled(load_dataset(tmp_path, "val")) == {"test/a/2.mp4": "a"}
    assert "no val split; the test split is used instead" in caplog.text


def test_class_in_val_alone(tmp_path: Path) -> None:
    touch(tmp_path, "train/a/1.mp4", "val/a/2.mp4", "val/b/3.mp4")
    with pytest.raises(DataError, match="class 'b' is only in the val split"):
        load_dataset(tmp_path, "train")


def test_frame_folders_are_videos_and_other_files_are_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    touch(tmp_path, "train/a/clip/000.jpg", "train/a/2.mp4", "train/a/notes.txt", "train/a/.hidden.mp4")
    touch(tmp_path, "val/a/other/1.PNG", "train/readme/about.md")
    assert labelled(load_dataset(tmp_path, "train")) == {"train/a/2.mp4": "a", "train/a/clip": "a"}
    assert "no videos in readme" in caplog.text
    assert labelled(load_dataset(tmp_path, "val")) == {"val/a/other": "a"}


def test_class_folders_with_numbers_for_names_are_names(tmp_path: Path) -> None:
    touch(tmp_path, "train/10/1.mp4", "train/7/2.mp4", "val/7/3.mp4")
    assert load_dataset(tmp_path, "train").class_names == ("10", "7")


def test_class_names_fix_the_labels(tmp_path: Path) -> None:
    touch(tmp_path, "train/zumba/1.mp4", "train/air_drumming/2.mp4", "val/zumba/3.mp4")
    dataset = load_dataset(tmp_path, "val", class_names="kinetics400")
    assert len(dataset.class_names) == 400
    assert dataset.items[0].label == 399
    assert labelled(load_dataset(tmp_path, "train", class_names="kinetics400")) == {
        "train/air_drumming/2.mp4": "air drumming",
        "train/zumba/1.mp4": "zumba",
    }
    with pytest.raises(DataError, match="no class 'air_drumming'; classes are zumba, polka"):
        load_dataset(tmp_path, "train", class_names=["zumba", "polka"])


# ---------------------------------------------------------------- held out by us


def ucf_like(root: Path) -> Path:
    return touch(
        root,
        *(f"{name}/v_{name}_g{g:02}_c{c:02}.avi" for name in "PQ" for g in range(1, 11) for c in range(1, 4)),
    )


def test_hold_out_keeps_sources_together(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ucf_like(tmp_path)
    train, val = load_dataset(tmp_path, "train"), load_dataset(tmp_path, "val")
    assert len(train) == 48
    assert len(val) == 12
    assert sum(item.label == 0 for item in val.items) == 6
    groups = [{Path(item.path).name[:7] for item in dataset.items} for dataset in (train, val)]
    assert not groups[0] & groups[1]
    said = caplog.text
    assert said.count("no validation split, so 12 of 60 clips are held out") == 1  # once, not for each split


def test_hold_out_does_not_depend_on_the_place_or_on_other_classes(tmp_path: Path) -> None:
    one, other = ucf_like(tmp_path / "one"), ucf_like(tmp_path / "elsewhere" / "two")
    touch(other, *(f"R/r{index}.mp4" for index in range(7)))
    first = {name for name in labelled(load_dataset(one, "val")) if name[0] in "PQ"}
    assert first == {name for name in labelled(load_dataset(other, "val")) if name[0] in "PQ"}


def test_hold_out_share(tmp_path: Path) -> None:
    touch(tmp_path, *(f"a/{index}.mp4" for index in range(40)), *(f"b/{index}.mp4" for index in range(3)))
    val = load_dataset(tmp_path, "val", val_fraction=0.25)
    assert [sum(item.label == label for item in val.items) for label in (0, 1)] == [10, 1]
    train = load_dataset(tmp_path, "train", val_fraction=0.25)
    assert [sum(item.label == label for item in train.items) for label in (0, 1)] == [30, 2]


def test_class_of_one_source_stays_in_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "a/x_g01_c01.mp4", "a/x_g01_c02.mp4", "b/y_g01_c01.mp4", "b/y_g02_c01.mp4")
    assert [Path(item.path).parent.name for item in load_dataset(tmp_path, "val").items] == ["b"]
    assert "all clips of a come from one source" in caplog.text


def test_source_in_two_classes_lands_on_one_side(tmp_path: Path) -> None:
    """Kinetics names: one video may give clips to several classes."""
    touch(tmp_path, *(f"{name}/abcdefghi{v:02}_00000{v % 7}_000010.mp4" for name in "abc" for v in range(12)))
    sides = [
        {Path(i.path).name[:11] for i in load_dataset(tmp_path, split).items} for split in ("train", "val")
    ]
    assert sides[1]
    assert not sides[0] & sides[1]


def test_nothing_to_hold_out(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.mp4", "b/2.mp4")
    with pytest.raises(DataError, match="no class has clips of two sources"):
        load_dataset(tmp_path, "val")
    assert len(load_dataset(tmp_path, "all")) == 2


# ---------------------------------------------------------------- clips.csv


def test_clips_csv(tmp_path: Path) -> None:
    touch(tmp_path, "x/1.mp4", "x/2.mp4", "y/a, b.mp4")
    (tmp_path / "clips.csv").write_text(
        'path,label,group,split\nx/1.mp4,skip,1,train\nx/2.mp4,skip,2,val\n"y/a, b.mp4",hop,3,train\n'
    )
    assert labelled(load_dataset(tmp_path, "train")) == {"x/1.mp4": "skip", "y/a, b.mp4": "hop"}
    assert labelled(load_dataset(tmp_path, "val")) == {"x/2.mp4": "skip"}


def test_clips_csv_without_split_keeps_groups_together(tmp_path: Path) -> None:
    names = [f"clip{index}.mp4" for index in range(30)]
    touch(tmp_path, *names)
    rows = "".join(f"{name};{'ab'[i % 2]};source{i // 6}\n" for i, name in enumerate(names))
    (tmp_path / "clips.csv").write_text("path;label;group\n" + rows)
    sides = [
        {names.index(Path(item.path).name) // 6 for item in load_dataset(tmp_path, split).items}
        for split in ("train", "val")
    ]
    assert sides[0] | sides[1] == set(range(5))
    assert not sides[0] & sides[1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,group\na.mp4,1\n", r"clips.csv:1: no column of labels among path, group"),
        ("label,split\nrun,val\n", r"clips.csv:1: no column of files among label, split"),
        (
            "path,label,split\na.mp4,run,holdout\n",
            r"clips.csv:2: split 'holdout' is unknown; write train, val",
        ),
        ("path,label,split\na.mp4,run\n", r"clips.csv:2: 2 columns where the header has 3"),
        ("path,label,split\na.mp4,,train\n", r"clips.csv:2: no label"),
        ("path,label\n", r"a header and no lines"),
        ("", r"empty"),
    ],
)
def test_bad_tables_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    touch(tmp_path, "a.mp4")
    (tmp_path / "clips.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        load_dataset(tmp_path, "train")


def test_files_that_are_missing_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(tmp_path, "1.mp4")
    (tmp_path / "clips.csv").write_text(
        "path,label,split\n1.mp4,a,train\n2.mp4,a,train\n3.mp4,a,train\n1.mp4,a,val\n"
    )
    with pytest.raises(
        DataError, match=r"2 of 3 files are missing, the first is .*2\.mp4 \(.*clips\.csv:3\)"
    ):
        load_dataset(tmp_path, "train")
    assert len(load_dataset(tmp_path, "train", allow_missing=True)) == 1
    assert "2 of 3 files are missing" in caplog.text


def test_a_file_with_two_labels(tmp_path: Path) -> None:
    touch(tmp_path, "1.mp4")
    (tmp_path / "clips.csv").write_text("path,label,split\n1.mp4,a,train\n1.mp4,b,train\n1.mp4,a,val\n")
    with pytest.raises(DataError, match=r"clips.csv:3: .*1.mp4 has another label at .*clips.csv:2"):
        load_dataset(tmp_path, "train")


# ---------------------------------------------------------------- nothing there


def test_unknown_places_and_arguments(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        load_dataset(tmp_path / "nowhere", "train")
    with pytest.raises(DataError, match=r"no data set recognised; expected train/ and val/"):
        load_dataset(tmp_path, "train")
    with pytest.raises(UsageError, match="'dev' is unknown; choose one of train, val, test, all"):
        load_dataset(tmp_path, "dev")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="val_fraction"):
        load_dataset(tmp_path, "train", val_fraction=1.0)


def test_real_clips(real_data: Path) -> None:
    holdout._log_hold_out.cache_clear()
    train, val = load_dataset(real_data / "ucf10", "train"), load_dataset(real_data / "ucf10", "val")
    assert (len(train), len(val), len(train.class_names)) == (205, 87, 10)
    assert train.class_names == val.class_names == tuple(sorted(train.class_names))
