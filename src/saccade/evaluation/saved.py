"""Reading files of scores, whatever their task."""

from __future__ import annotations

import json
import os

import numpy as np

from saccade.errors import DataError
from saccade.evaluation.detection import DetectionResult
from saccade.evaluation.localization import LocalizationResult
from saccade.evaluation.masked import MaskedResult
from saccade.evaluation.multilabel import MultiLabelResult
from saccade.evaluation.result import UNREADABLE, Result, TestResult

_KINDS: dict[str, type[Result]] = {
    kind.task: kind
    for kind in (TestResult, MultiLabelResult, LocalizationResult, DetectionResult, MaskedResult)
}


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
    task = info.get("task", TestResult.task)
    if task not in _KINDS:
        raise DataError(f"{os.fspath(path)}: scores of the task {task!r}, which this version does not know")
    return _KINDS[task].load(path)
