"""Training on data sets of one's own: segments of videos, several labels, one class."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from saccade.data.datasets import load_dataset
from saccade.errors import DataError
from saccade.tasks import MultiLabelResult, TestResult, load_result
from saccade.training import TrainConfig, train
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
