"""How functions that take long report their progress: they are given a callable, and call it.

>>> evaluate(model, dataset, clip, progress=lambda done, total: print(f"{done} of {total}"))  # doctest: +SKIP
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[int, int], None]
"""Called in the calling thread with (done, total): (0, total) at first, then after each item."""


def ignore(done: int, total: int) -> None:
    """The progress of a call that nobody follows."""
