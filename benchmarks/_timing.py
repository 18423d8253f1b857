"""Timing of calls in benchmarks."""

from __future__ import annotations

import time
from collections.abc import Callable


def warm_seconds(call: Callable[[], object]) -> float:
    """Seconds of a call with warm caches: the second of two calls."""
    call()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
