"""How a call is timed in a benchmark."""

from __future__ import annotations

import time
from collections.abc import Callable


def warm_seconds(call: Callable[[], object]) -> float:
    """Seconds of a call that follows another, so that what fits into the caches is in them."""
    call()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
