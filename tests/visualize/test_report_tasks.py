"""The report of multi-label and localization runs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from saccade.clip import ClipSpec
from saccade.recipes import get_recipe
from saccade.tasks import LocalizationResult, MultiLabelResult, Result
from saccade.video import write_video
from saccade.visualize import write_report

NAMES = ("appear", "merge", "split")


def write_run(folder: Path, result: Result, recipe: str, rows: list[dict[str, float]]) -> None:
    config = get_recipe(recipe).replace(data="data/untrimmed")
    (folder / "config.json").write_text(json.dumps({"config": config.to_dict()}))
    train = [
        {"step": 10 * i, "epoch": i, "loss": 0.6 - 0.1 * i, "top1": 0.2 * i, "lr": 0.1} for i in (1, 2, 3)
    ]
    lines = [*train, *rows]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result.save(folder / f"test_scores_{result.views}.npz")


@pytest.fixture
def video(tmp_path: Path) -> str:
    path = tmp_path / "V0000.mp4"
    write_video(path, np.full((20, 30, 40, 3), 120, np.uint8), fps=10)
    return str(path)


def test_multi_label(tmp_path: Path, video: str):
    scores = np.array([[0.9, 0.2, 0.1], [0.3, 0.8, 0.6]], np.float32)
    result = MultiLabelResult(
        scores=scores,
        positives=np.array([[True, False, False], [False, False, True]]),
        truth=np.zeros((2, 25, 3), bool),
        paths=(video, "gone.mp4"),
        class_names=NAMES,
        views="10x3",
        pairs=((1, 2),),
        clip=ClipSpec(num_frames=8, stride=4, crop=64, short_side=72),
    )
    rows = [
        {"step": 20, "epoch": 2, "val_map": 0.4, "val_loss": 0.5},
        {"step": 30, "epoch": 3, "val_map": 0.75},
    ]
    write_run(tmp_path, result, "x3d_motion_multilabel", rows)
    page = write_report(tmp_path).read_text()
    assert "100.0 %" in page  # both classes with a positive rank it first
    assert "best mAP in training" in page
    assert "75.0 %" in page
    assert "<th>AP</th>" in page
    assert "MAP against epoch" in page
    assert page.count('<td class="name">') == 2  # merge has no positive
    assert "nothing of its classes" not in page
    assert "no frames: no such file" in page
    assert "Rows of the matrix" not in page


def test_localization(tmp_path: Path, video: str):
    logits = np.full((10, 3), -3.0, np.float32)
    logits[2:6, 1] = 3.0
    result = LocalizationResult(
        logits=logits,
        num_points=np.array([10]),
        num_frames=np.array([20]),
        fps=np.array([10.0]),
        durations=np.array([2.0]),
        actions=np.array([[0, 1, 0.5, 1.1]]),
        paths=(video,),
        class_names=NAMES,
        views="windows",
        clip=ClipSpec(num_frames=8, stride=4, crop=64, short_side=72),
    )
    rows = [{"step": 30, "epoch": 3, "val_charades25": 0.5, "val_map": 0.9, "val_loss": 0.4}]
    write_run(tmp_path, result, "x3d_motion_loc", rows)
    page = write_report(tmp_path).read_text()
    assert "best charades-25 in training" in page
    assert "50.0 %" in page
    assert "as in X3D-Multigrid" in page
    assert "control: the scores of a video repeated over time" in page
    assert "Timeline of V0000.mp4" in page
    assert "Charades-25 against epoch" in page
    assert "<th>points</th>" in page
