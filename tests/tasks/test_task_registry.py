"""Tasks and metrics of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import saccade
from saccade import tasks
from saccade.errors import UsageError
from saccade.plugins import Registry
from saccade.tasks import (
    Classify,
    TestResult,
    get_task,
    list_tasks,
    load_result,
    register_metric,
    register_task,
)


class Clips(Dataset[tuple[Tensor, int]]):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.full((3, 2, 4, 4), float(index)), index % 2


class Net(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([x.mean((1, 2, 3, 4)), 2.5 - x.mean((1, 2, 3, 4))], 1)


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registries that forget what a test registers."""
    for name in ("_TASKS", "_METRICS"):
        registry: Registry[Any] = getattr(tasks, name)
        for table in ("_entries", "_owners"):
            monkeypatch.setattr(registry, table, dict(getattr(registry, table)))


def test_the_names_in_old_configs_are_known():
    assert list_tasks()[:5] == ["single-label", "multi-label", "localization", "detection", "masked"]
    with pytest.raises(UsageError, match="localization"):
        get_task("localisation")


@pytest.mark.usefixtures("fresh")
def test_a_task_of_ones_own_is_used_by_name():
    @register_task
    class Halved(Classify):
        """Scores count half."""

        name: ClassVar[str] = "halved"

        def merge(self, before: Any, output: Any, view: Any, sets: Any) -> Any:
            return super().merge(before, output, view, sets) / 2

    found = saccade.evaluate(Net(), Clips(), task="halved", workers=0)["1x1"]
    plain = saccade.evaluate(Net(), Clips(), workers=0)["1x1"]
    np.testing.assert_allclose(found.scores, plain.scores / 2)
    with pytest.raises(UsageError, match="already registered"):

        @register_task
        class Other(Classify):
            name: ClassVar[str] = "halved"

    with pytest.raises(UsageError, match="derived from saccade"):
        register_task(int)  # type: ignore[type-var]


@pytest.mark.usefixtures("fresh")
def test_a_metric_of_ones_own_stands_beside_the_figures(tmp_path: Path):
    @register_metric("error_rate")
    def error_rate(scores: np.ndarray, labels: np.ndarray) -> float:
        return float((scores.argmax(1) != labels).mean())

    result = saccade.evaluate(Net(), Clips(), workers=0)["1x1"]
    assert result.figures["error_rate"] == pytest.approx(1 - result.top1)
    assert next(iter(result.figures)) == result.score_name == "top1"
    assert "error_rate" in tasks.figures_text(result)
    assert result.summary()["metrics"] == {"error_rate": pytest.approx(1 - result.top1)}
    result.save(tmp_path / "scores.npz")
    again = load_result(tmp_path / "scores.npz")
    assert isinstance(again, TestResult)
    assert again.figures == result.figures


def test_a_metric_does_not_take_the_name_of_a_figure():
    figures = saccade.evaluate(Net(), Clips(), workers=0)["1x1"].figures
    for name in (*figures, "map", "charades25", "per_frame", "frame_map", "explained"):
        with pytest.raises(UsageError, match="another name"):
            register_metric(name)


def test_files_of_before_have_no_metrics(tmp_path: Path):
    result = saccade.evaluate(Net(), Clips(), workers=0)["1x1"]
    assert "metrics" not in result.summary()
    result.save(tmp_path / "scores.npz")
    assert load_result(tmp_path / "scores.npz").metrics == {}


def test_an_entry_point_is_a_task_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: None):
    (tmp_path / "task_plugin.py").write_text(
        "from saccade.tasks import Classify\n\n\nclass Mine(Classify):\n    name = 'from_a_package'\n"
    )
    info = tmp_path / "task_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: task_plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[saccade.tasks]\nfrom_a_package = task_plugin:Mine\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert get_task("from_a_package").name == "from_a_package"
    assert saccade.evaluate(Net(), Clips(), task="from_a_package", workers=0)["1x1"].num_videos == 6
