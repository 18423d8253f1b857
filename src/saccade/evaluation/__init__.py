"""Testing under a named protocol: view sets, exact metrics, saved scores."""

from __future__ import annotations

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
from saccade.evaluation.result import Failure, TestResult
from saccade.evaluation.tester import evaluate

__all__ = [
    "Failure",
    "TestResult",
    "average_precision",
    "confusion_matrix",
    "evaluate",
    "mean_average_precision",
    "mean_class_accuracy",
    "most_confused",
    "pair_accuracy",
    "per_class",
    "top_k",
]
