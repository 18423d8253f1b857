"""Memory between two training steps on a CPU."""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_MAX = -1, -2, -4  # malloc.h


@cache
def keep_freed_memory() -> bool:
    """Have the C library keep the memory that one step frees for the next one.

    By default glibc maps every block above 32 MiB anew and gives it back to the system when it is freed. The
    system then hands it out again page by page while it is written, which took a quarter of a training step
    of X3D-S. The setting holds for the whole process, which keeps the memory of its largest step.

    Returns:
        Whether it was set: False without glibc, and where the environment sets malloc's options itself.
    """
    if not sys.platform.startswith("linux"):
        return False
    if "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", "") or "MALLOC_MMAP_MAX_" in os.environ:
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    wanted = ((_M_MMAP_MAX, 0), (_M_TRIM_THRESHOLD, 2**31 - 1), (_M_TOP_PAD, 64 << 20))
    done = [mallopt(option, value) for option, value in wanted]
    return all(done)
