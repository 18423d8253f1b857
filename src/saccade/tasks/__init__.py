"""Tasks, one file each: labels, loss, scores, metrics and reports.

    task = get_task("localization")           # by name, as in configs and commands
    task = Localize(overlap=0.75)             # with options

A user's task derives from `Task` or one of its subclasses and is registered with `register_task` or an entry
point of the group ``saccade.tasks``; a metric with `register_metric` or one of ``saccade.metrics``::

    @saccade.tasks.register_metric("balanced")
    def balanced_accuracy(scores, labels):      # (num_videos, num_classes), (num_videos,) -> float
        ...
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from saccade.errors import DataError, UsageError
from saccade.plugins import Registry
from saccade.tasks.base import Task
from saccade.tasks.classify import Classify, TestResult
from saccade.tasks.detect import Detect, DetectionResult
from saccade.tasks.localize import LocalizationResult, Localize
from saccade.tasks.masked import Masked, MaskedResult
from saccade.tasks.multilabel import MultiLabel, MultiLabelResult
from saccade.tasks.objective import Objective
from saccade.tasks.result import UNREADABLE, Failure, Result, figure_name, figure_note, is_figure

__all__ = [
    "Classify",
    "Detect",
    "DetectionResult",
    "Failure",
    "LocalizationResult",
    "Localize",
    "Masked",
    "MaskedResult",
    "MultiLabel",
    "MultiLabelResult",
    "Objective",
    "Result",
    "Task",
    "TestResult",
    "figure_name",
    "figure_note",
    "get_task",
    "list_tasks",
    "load_result",
    "register_metric",
    "register_task",
]

Metric = Callable[[NDArray[Any], NDArray[Any]], float]
_Task = TypeVar("_Task", bound=type[Task])
_Metric = TypeVar("_Metric", bound=Metric)

_TASKS = Registry[type[Task]]("task", group="saccade.tasks", adopt=lambda _, task: register_task(task))
_METRICS = Registry[Metric](
    "metric", group="saccade.metrics", adopt=lambda name, metric: register_metric(name)(metric)
)


def register_task(task: _Task) -> _Task:
    """Register a `Task` by its name; may be used as a decorator.

    Raises:
        UsageError: the name is taken, or ``task`` is not a `Task` with a name.
    """
    if not (isinstance(task, type) and issubclass(task, Task) and hasattr(task, "name")):
        raise UsageError(f"{task!r} is not a class derived from saccade.tasks.Task with a name")
    _TASKS.add(task.name, task, owner=f"{task.__module__}.{task.__qualname__}")
    return task


for _task in (Classify, MultiLabel, Localize, Detect, Masked):
    register_task(_task)


def get_task(name: str) -> type[Task]:
    """The task of this name.

    Raises:
        UsageError: the task does not exist.
    """
    return _TASKS[name]


def list_tasks() -> list[str]:
    """The names of all tasks, including those of plug-ins."""
    return list(_TASKS)


def register_metric(name: str) -> Callable[[_Metric], _Metric]:
    """Register a metric: a function of scores and labels that returns a float. It is shown with the other
    metrics of tests and validations.

    Scores are float32 (rows, K), labels int (rows,), or bool (rows, K) for multi-label tasks. Rows are
    videos; for localization, 25 points in time of each video (with logits as scores); for detection, person
    boxes.

    >>> @register_metric("error_rate")
    ... def error_rate(scores, labels):
    ...     return float((scores.argmax(1) != labels).mean())

    Raises:
        UsageError: the name is taken by another metric.
    """
    if is_figure(name):
        raise UsageError(f"metric {name!r}: a task already has a metric of this name; choose another name")

    def add(metric: _Metric) -> _Metric:
        owner = f"{getattr(metric, '__module__', '')}.{getattr(metric, '__qualname__', metric)}"
        _METRICS.add(name, metric, owner=owner)
        return metric

    return add


def with_metrics(result: Any) -> Any:
    """``result`` with all registered metrics."""
    names = list(_METRICS)
    found = result.scored if names else None
    if found is None:
        return result
    scores, labels = (np.array(values) for values in found)
    values = {name: float(_METRICS[name](scores, labels)) for name in names}
    return replace(result, metrics=values)


def load_result(path: str | os.PathLike[str]) -> Result:
    """Load a result that `Result.save` wrote.

    Raises:
        DataError: the file does not exist or is not such a file, or the task is unknown.
    """
    try:
        with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as stored:
            info = json.loads(str(stored["info"])) if "info" in stored.files else {}
    except UNREADABLE as error:
        raise DataError(
            f"{os.fspath(path)}: not a file of scores written by saccade test ({error})"
        ) from error
    name = info.get("task", Classify.name)
    if name not in _TASKS:
        raise DataError(f"{os.fspath(path)}: scores of the unknown task {name!r}")
    return _TASKS[name].result_type.load(path)


def figures_text(result: Result) -> str:
    """The metrics of a test as text, ``top-1 96.7 %, top-5 99.6 %``, without controls."""
    shown = {
        name: value
        for name, value in result.figures.items()
        if math.isfinite(value) and not name.startswith("repeated")
    }
    if len(result.class_names) <= 5:
        shown.pop("top5", None)
    return ", ".join(f"{figure_name(name)} {_figure_text(result, name)}" for name in shown)


def _figure_text(result: Result, name: str) -> str:
    value = result.figures[name]
    return f"{value:.4g}" if name in result.metrics else f"{100 * value:.1f} %"
