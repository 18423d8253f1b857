"""Memory for the results of native operators."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from functools import cache

from torch import Tensor

# glibc maps larger blocks anew every time, and the kernel then hands them out in pages of 4 KiB while they
# are written, which takes longer than the writing. In huge pages that is a small part of it.
_MAPPED_ANEW = 32 << 20
_HUGE_PAGE = 2 << 20
_MADV_HUGEPAGE = 14


def allocate(like: Tensor, shape: Sequence[int]) -> Tensor:
    """Contiguous memory that nothing has written, of the data type of ``like``, on the CPU."""
    out = like.new_empty(tuple(shape))
    if out.nbytes >= _MAPPED_ANEW:
        start = -(-out.data_ptr() // _HUGE_PAGE) * _HUGE_PAGE
        end = (out.data_ptr() + out.nbytes) // _HUGE_PAGE * _HUGE_PAGE
        _madvise()(start, end - start, _MADV_HUGEPAGE)  # a wish: a kernel that refuses is no error
    return out


@cache
def _madvise() -> Callable[[int, int, int], int]:
    if not sys.platform.startswith("linux"):
        return lambda start, size, advice: 0
    function = ctypes.CDLL(None).madvise
    function.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    return function
