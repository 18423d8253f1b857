"""Testing under a named protocol: view sets or whole videos, exact metrics, saved scores.

`evaluate` is the one pass; what it yields for each task, and the metrics, are in `saccade.tasks`.
"""

from __future__ import annotations

from saccade.evaluation.engine import evaluate
from saccade.tasks import load_result

__all__ = ["evaluate", "load_result"]
