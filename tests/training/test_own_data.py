"""Training on data sets of one's own: segments of videos, several labels, one class."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from saccade.cli import main
from saccade.data.datasets import load_dataset
from saccade.data.holdout import check_separate
from saccade.data.types import VideoItem
from saccade.errors import ConfigError, DataError
from saccade.runs import Run, data_of_run
from saccade.tasks import MultiLabelResult, TestResult, load_result
from saccade.training import TrainConfig, train
from saccade.training.run import load_data
from saccade.video import write_video

MakeConfig = Callable[..., TrainConfig]


def test_one_class_is_refused(tiny_config: MakeConfig, clips_copy: Path) -> None:
    for split in ("train", "val"):
        shutil.rmtree(clips_copy / split / "darkening")
    with pytest.raises(DataError, match=r"10 training videos are of one class, 'brightening'"):
        train(tiny_config("run", data=clips_copy))
    names = clips_copy.parent / "names.txt"
    names.write_text("brightening\ndarkening\n")
    with pytest.raises(DataError, match=r"one class, 'brightening'"):  # of two that the names list
        train(tiny_config("run", "--class-names", str(names), data=clips_copy))
    with pytest.raises(DataError, match=r"one class, 'brightening'"):
        train(tiny_config("run"), train_set=load_dataset(clips_copy, "train"))


def test_segments_are_trained_on(tiny_config: MakeConfig, tmp_path: Path) -> None:
    """Every video brightens in its first half and darkens in its second: a video alone says nothing."""
    ramp = np.concatenate([np.linspace(20, 220, 15), np.linspace(220, 20, 15)]).astype(np.uint8)
    frames = np.zeros((30, 36, 40, 3), np.uint8) + ramp[:, None, None, None]
    rows = []
    for number in range(10):
        write_video(tmp_path / f"{number}.mp4", frames, fps=30, options={"preset": "ultrafast"})
        split = "val" if number >= 8 else "train"
        rows += [f"{number}.mp4,up,0,0.5,{split}", f"{number}.mp4,down,0.5,1,{split}"]
    path = tmp_path / "segments.csv"
    path.write_text("path,label,start,end,split\n" + "\n".join(rows) + "\n")
    flags = ("--epochs", "12", "--test-views", "1x1", "--clip.stride", "8")
    run = train(tiny_config("run", *flags, data=path)).run_dir
    result = load_result(run / "test_scores_1x1.npz")
    assert isinstance(result, TestResult)
    assert result.class_names == ("down", "up")
    assert len(result.paths) == 4
    assert result.top1 == 1.0


def test_several_labels_a_video_are_trained_on(
    tiny_config: MakeConfig, tiny_clips: Path, tmp_path: Path
) -> None:
    rows = []
    for split in ("train", "val"):
        for name in ("brightening", "darkening"):
            for file in sorted((tiny_clips / split / name).glob("*.mp4")):
                labels = f"{name};changes" if file.stem != "0" else name
                rows.append(f"{file},{labels},{split}")
    path = tmp_path / "several.csv"
    path.write_text("path,labels,split\n" + "\n".join(rows) + "\n")
    flags = ("--task", "multi-label", "--epochs", "2", "--test-views", "1x1")
    run = train(tiny_config("run", *flags, data=path)).run_dir
    result = load_result(run / "test_scores_1x1.npz")
    assert isinstance(result, MultiLabelResult)
    assert result.class_names == ("brightening", "changes", "darkening")
    assert result.positives.sum(axis=0).tolist() == [3, 3, 2]
    assert 0 < result.map <= 1


# ---------------------------------------------------------------- validation data of its own


def test_validation_data_of_its_own(tiny_config: MakeConfig, tiny_clips: Path, tmp_path: Path) -> None:
    """All of ``data`` is trained on; labels are found by name; ``saccade test RUN`` reads ``val_data``."""
    lists = tmp_path / "lists"
    lists.mkdir()
    names = ("brightening", "darkening")
    rows = [f"{name}/{i}.mp4,{name}" for name in names for i in range(10)]
    (lists / "mine.csv").write_text("\n".join(rows) + "\n")
    (lists / "other.csv").write_text("darkening/0.mp4,darkening\ndarkening/1.mp4,Darkening\n")
    flags = ("--root", str(tiny_clips / "train"), "--epochs", "1")
    own = ("--val-data", str(lists / "other.csv"), "--val-root", str(tiny_clips / "val"))
    config = tiny_config("run", *flags, *own, data=lists / "mine.csv")
    train_set, val_set = load_data(config)
    assert (len(train_set), train_set.split) == (20, "train")
    assert val_set is not None
    assert [(item.path, item.label) for item in val_set.items] == [
        (str(tiny_clips / "val" / "darkening" / f"{i}.mp4"), 1) for i in range(2)
    ]
    assert val_set.class_names == names
    run = train(config).run_dir
    saved = Run(run).settings
    assert (saved["val_data"], saved["val_root"]) == (str(lists / "other.csv"), str(tiny_clips / "val"))
    assert main(["test", str(run), "--views", "1x1", "--workers", "0", "--out", str(tmp_path / "t")]) == 0
    result = load_result(tmp_path / "t" / "val_scores_1x1.npz")
    assert [Path(path).parent.parent.name for path in result.paths] == ["val", "val"]


def test_a_list_named_for_training_validates_where_it_is_given(
    tiny_config: MakeConfig, tiny_clips: Path, tmp_path: Path
) -> None:
    """The lists of other splits beside it are not read; nor are they by ``saccade test RUN``."""
    rows = {"train": range(2), "val": range(2, 4)}
    for split, numbers in rows.items():
        lines = [f"{name}/{i}.mp4,{name}\n" for name in ("brightening", "darkening") for i in numbers]
        (tmp_path / f"{split}.csv").write_text("".join(lines))
    own = ("--val-data", str(tmp_path / "train.csv"), "--val-root", str(tiny_clips / "val"))
    config = tiny_config("run", *own)
    _, val_set = load_data(config)
    assert val_set is not None
    assert [Path(item.path).stem for item in val_set.items] == ["0", "1"] * 2
    settings = {"val_data": config.val_data, "val_root": config.val_root}
    assert data_of_run(settings, None) == (*own[1::2], "train")


def test_validation_data_with_splits_and_other_classes(
    tiny_config: MakeConfig, tiny_clips: Path, tmp_path: Path
) -> None:
    def validated(path: Path) -> list[str]:
        _, val_set = load_data(tiny_config("run", "--val-data", str(path)))
        assert val_set is not None
        return [str(Path(item.path).relative_to(tmp_path)) for item in val_set.items]

    other = tmp_path / "other"
    for split, name in (("train", "brightening"), ("test", "brightening"), ("test", "darkening")):
        (other / split / name).mkdir(parents=True)
        shutil.copy(tiny_clips / "val" / "darkening" / "0.mp4", other / split / name / f"{split}.mp4")
    assert validated(other) == ["other/test/brightening/test.mp4", "other/test/darkening/test.mp4"]
    assert validated(other / "train") == ["other/train/brightening/train.mp4"]  # without splits: all of it
    (other / "test" / "darkening").rename(other / "test" / "flashing")
    with pytest.raises(DataError, match="flashing"):
        validated(other)
    with pytest.raises(ConfigError, match=r"^val_root: .*val_data"):
        train(tiny_config("run", "--val-root", str(other)))


def test_validation_on_training_files_is_refused(
    tiny_config: MakeConfig, tiny_clips: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ("brightening", "darkening")
    rows = [f"{name}/{i}.mp4,{name}\n" for name in names for i in range(10)]
    (tmp_path / "train.csv").write_text("".join(rows[:3] + rows[10:]))
    (tmp_path / "val.csv").write_text("".join(rows[2:6]))  # the third row is in both
    root = ("--root", str(tiny_clips / "train"))
    config = tiny_config("run", *root, data=tmp_path / "train.csv")
    with pytest.raises(DataError, match=r"1 of 4 .*train/brightening/2\.mp4"):
        load_data(config)
    assert load_data(config.replace(val_every=0))[1] is None
    with pytest.raises(DataError, match=r"20 of 20 .*/train/brightening/0\.mp4"):
        load_data(tiny_config("run", "--val-data", str(tiny_clips / "train")))
    (tmp_path / "link").symlink_to(tiny_clips / "train")
    with pytest.raises(DataError, match="20 of 20"):
        load_data(tiny_config("run", "--val-data", str(tmp_path / "link")))


def test_a_few_repeated_files_are_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    train_set = [VideoItem(f"v/{i}.mp4", 0) for i in range(200)]
    val_set = [VideoItem(f"v/{i}.mp4", 0) for i in range(199, 299)]
    check_separate(train_set, val_set, source="few.csv")
    assert re.search(r"few\.csv: .*1 of 100 .*v/199\.mp4", caplog.text)
    with pytest.raises(DataError, match=r"2 of 101 .*v/198\.mp4"):
        check_separate(train_set, [train_set[198], *val_set], source="few.csv")
    cut = [VideoItem("v/0.mp4", 0, start=0.0, end=1.0)]
    check_separate(cut, [VideoItem("v/0.mp4", 0, start=0.0, end=1.0)], source="cut.csv")
    with pytest.raises(DataError, match=r"1 of 1 .*v/0\.mp4"):
        check_separate(cut, [VideoItem("v/0.mp4", 0)], source="cut.csv")
