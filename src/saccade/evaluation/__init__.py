"""Testing under a named protocol: view sets or whole videos, exact metrics, saved scores."""

from __future__ import annotations

from saccade.evaluation.localization import LocalizationResult
from saccade.evaluation.locate import evaluate_localization
from saccade.evaluation.metrics import (
    average_precision,
    confusion_matrix,
    mean_average_precision,
    mean_class_accuracy,
    most_confused,
    pair_accuracy,
    per_class,
    top_k,
)
from saccade.evaluation.multilabel import MultiLabelResult
from saccade.evaluation.result import Failure, Result, TestResult
from saccade.evaluation.saved import load_result
from saccade.evaluation.submission import write_submission
from saccade.evaluation.tester import evaluate, evaluate_multilabel

__all__ = [
    "Failure",
    "LocalizationResult",
    "MultiLabelResult",
    "Result",
    "TestResult",
    "average_precision",
    "confusion_matrix",
    "evaluate",
    "evaluate_localization",
    "evaluate_multilabel",
    "load_result",
    "mean_average_precision",
    "mean_class_accuracy",
    "most_confused",
    "pair_accuracy",
    "per_class",
    "top_k",
    "write_submission",
]
