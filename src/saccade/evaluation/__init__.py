"""Testing under a named protocol, with view sets or whole videos.

The results of each task and the metrics are in `saccade.tasks`.
"""

from __future__ import annotations

from saccade.evaluation.controls import Controls
from saccade.evaluation.engine import evaluate
from saccade.tasks import load_result

__all__ = ["Controls", "evaluate", "load_result"]
