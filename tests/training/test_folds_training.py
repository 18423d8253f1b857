"""Cross-validation: `train_folds` and ``saccade train --folds``."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from statistics import stdev

import numpy as np
import pytest
import torch

from saccade.cli import main
from saccade.errors import ConfigError, DataError, UsageError
from saccade.evaluation import load_result
from saccade.runs import Run
from saccade.tasks.classify import TestResult
from saccade.training import Callback, TrainConfig
from saccade.training.folds import FoldResults, stored_folds, train_folds
from saccade.video import write_video

Make = Callable[..., TrainConfig]


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of 3 sources with 2 clips each: dark and light."""
    root = tmp_path_factory.mktemp("sources")
    noise = torch.Generator().manual_seed(0)
    for label, name in enumerate(("dark", "light")):
        (root / name).mkdir()
        for group in range(3):
            for clip in (1, 2):
                frames = 40 + 150 * label + 20 * torch.rand(6, 32, 36, 3, generator=noise)
                write_video(root / name / f"{name}{group}_g0{group}_c0{clip}.mp4", frames.byte(), fps=30)
    return root


@pytest.fixture
def config(tiny_config: Make, sources: Path) -> TrainConfig:
    return tiny_config("folds", "--epochs", "1", data=sources)


def test_each_clip_is_tested_once_by_a_network_that_never_saw_its_source(
    config: TrainConfig, sources: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    found = train_folds(config, 2)
    assert sorted(found.pooled.paths) == sorted(map(str, sources.rglob("*.mp4")))
    for number, result in enumerate(found.folds, 1):
        run = Run(found.folder / f"fold{number}")
        trained = {path for path in map(str, sources.rglob("*.mp4")) if path not in result.paths}
        assert run.num_steps == len(trained) // config.batch_size
        tested = {Path(path).stem[:-4] for path in result.paths}
        assert tested.isdisjoint(Path(path).stem[:-4] for path in trained)
        assert run.test["1x1"]["num_right"] == result.accuracy.num_right
        assert run.num_validations == 0
    right = sum(result.accuracy.num_right for result in found.folds)
    assert (found.accuracy.num_right, found.accuracy.num_videos, found.num_sources) == (right, 12, 6)
    stored = json.loads((found.folder / "folds.json").read_text())
    assert stored["result"] == found.to_dict()
    assert stored["result"]["num_right"] == right
    pooled = load_result(found.folder / "test_scores_1x1.npz")
    assert pooled.top1 == right / 12
    page = (found.folder / "report.html").read_text()
    assert f"{right} of 12 right" in page
    assert stored_folds(found.folder) == (config, 2)

    # The command continues where a test is missing, and prints the same figures.
    monkeypatch.setattr("saccade.visualize.report.write_folds_report", lambda *args, **kwargs: None)
    (found.folder / "fold2" / "test.json").unlink()
    assert main(["train", "x3d_ucf10", "--out", config.out, "--resume"]) == 0
    printed = capfd.readouterr().out.split("\n")
    each = [result.accuracy for result in found.folds]
    for line, (name, right, of) in zip(
        printed[1:4],
        [
            *((f"fold {i}", a.num_right, a.num_videos) for i, a in enumerate(each, 1)),
            ("all", found.accuracy.num_right, 12),
        ],
        strict=True,
    ):
        assert line.startswith(name)
        assert line[len(name) :].split()[:2] == [str(right), str(of)]
    assert str(found) in printed
    assert main(["train", "x3d_ucf10", "--data", config.data, "--out", config.out, "--folds", "2"]) == 2
    capfd.readouterr()
    assert main(["train", "x3d_ucf10", "--data", config.data, "--folds", "2", "--dry-run"]) == 0
    assert "2 runs on 1 of 2 parts" in capfd.readouterr().out


def result(*right: bool) -> TestResult:
    labels = np.zeros(len(right), np.int64)
    scores = np.array([[0.9, 0.1] if each else [0.1, 0.9] for each in right], np.float32)
    return TestResult(
        paths=("a",) * len(right), class_names=("x", "y"), views="1x1", scores=scores, labels=labels
    )


def test_the_figures_of_folds_of_different_sizes():
    folds = (result(True, True, True, False), result(True, False))
    found = FoldResults(Path("x"), folds, result(True, True, True, False, True, False), 3)
    assert found.accuracy.num_right == 4
    assert found.standard_error == pytest.approx(math.sqrt(4 / 6 * 2 / 6 / 6))
    assert found.fold_accuracies == [0.75, 0.5]
    assert found.fold_mean == 0.625
    assert found.fold_error == pytest.approx(stdev([0.75, 0.5]) / math.sqrt(2))


class StopInFold(Callback):
    """Ctrl-C in the first step of the n-th training."""

    def __init__(self, number: int) -> None:
        self.left = number

    def on_start(self, record: object) -> None:
        self.left -= 1

    def on_step(self, record: object) -> None:
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.slow
def test_a_stopped_fold_is_continued_and_finished_ones_stay(config: TrainConfig):
    whole = train_folds(config.replace(out=f"{config.run_dir}_whole"), 2)
    with pytest.raises(KeyboardInterrupt):
        train_folds(config, 2, callbacks=[StopInFold(2)])
    first = Run(Path(config.run_dir) / "fold1").best
    written = first.stat().st_mtime_ns
    with pytest.raises(UsageError, match="--resume"):
        train_folds(config, 2)
    with pytest.raises(ConfigError, match="folds: is 3"):
        train_folds(config, 3, resume=True)
    with pytest.raises(ConfigError, match="seed"):
        train_folds(config.replace(seed=5), 2, resume=True)
    resumed = train_folds(config, 2, resume=True)
    assert first.stat().st_mtime_ns == written
    np.testing.assert_array_equal(resumed.pooled.scores, whole.pooled.scores)


def test_what_cannot_be_cross_validated_is_named(config: TrainConfig, tmp_path: Path):
    for changed, named in (
        ({"task": "multi-label"}, "task"),
        ({"val_data": "elsewhere"}, "val_data"),
        ({"optim": config.optim.__class__(lr=0.1, schedule="plateau")}, "plateau"),
    ):
        with pytest.raises(ConfigError, match=named):
            train_folds(config.replace(**changed), 2)
    with pytest.raises(UsageError, match="resume"):
        train_folds(config, 2, resume=True)
    Path(config.run_dir).mkdir()
    (Path(config.run_dir) / "folds.json").write_text("{}")
    with pytest.raises(DataError, match=r"folds\.json"):
        train_folds(config, 2, resume=True)
