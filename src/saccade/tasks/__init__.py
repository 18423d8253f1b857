"""One file per task: labels, loss, scores, figures, and what is shown of them.

    task = get_task("localization")           # by name, as in configs and commands
    task = Localize(overlap=0.75)             # with options

A task of your own derives from `Task` or from one of those here, and is registered by `register_task` or an
entry point of the group ``saccade.tasks``; a metric by `register_metric` or one of ``saccade.metrics``::

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
from saccade.tasks.base import Objective, Task
from saccade.tasks.classify import Classify, TestResult
from saccade.tasks.detect import Detect, DetectionResult
from saccade.tasks.localize import LocalizationResult, Localize
from saccade.tasks.masked import Masked, MaskedResult
from saccade.tasks.multilabel import MultiLabel, MultiLabelResult
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
    """Make a `Task` known by its name; may be used as a decorator.

    Raises:
        UsageError: another task has the name, or it is no `Task` with a name.
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
        UsageError: there is none.
    """
    return _TASKS[name]


def list_tasks() -> list[str]:
    """The names of all tasks, those of plug-ins included."""
    return list(_TASKS)


def register_metric(name: str) -> Callable[[_Metric], _Metric]:
    """Make a metric known: a function of scores and labels that returns a float, shown beside the figures of
    a test and of each validation.

    Scores are float32 (rows, K), labels int (rows,) or, with several labels, bool (rows, K). Rows are videos;
    for localization, 25 moments of each (scores are logits there); for detection, people.

    >>> @register_metric("error_rate")
    ... def error_rate(scores, labels):
    ...     return float((scores.argmax(1) != labels).mean())

    Raises:
        UsageError: another metric has the name, or a figure of a task.
    """
    if is_figure(name):
        raise UsageError(f"metric {name!r}: is a figure of a task already; choose another name")

    def add(metric: _Metric) -> _Metric:
        owner = f"{getattr(metric, '__module__', '')}.{getattr(metric, '__qualname__', metric)}"
        _METRICS.add(name, metric, owner=owner)
        return metric

    return add


def with_metrics(result: Any) -> Any:
    """``result`` with the figures of all registered metrics."""
    names = list(_METRICS)
    found = result.scored if names else None
    if found is None:
        return result
    scores, labels = (np.array(values) for values in found)
    values = {name: float(_METRICS[name](scores, labels)) for name in names}
    return replace(result, metrics=values)


def load_result(path: str | os.PathLike[str]) -> Result:
    """The result in a file that `Result.save` wrote.

    Raises:
        DataError: the file is not there, is not such a file, or is of a task this version does not know.
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
        raise DataError(f"{os.fspath(path)}: scores of the task {name!r}, which this version does not know")
    return _TASKS[name].result_type.load(path)


def figures_text(result: Result) -> str:
    """The figures of a test in words: ``top-1 96.7 %, top-5 99.6 %``. Controls are left out."""
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
