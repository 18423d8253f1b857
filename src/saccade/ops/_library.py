"""The shared library of native operators: finding it, choosing the instruction set, calling it.

Environment: ``SACCADE_ISA`` (baseline, avx2, avx512) takes a lesser instruction set than the processor's
best; ``SACCADE_NATIVE_LIBRARY`` names another build of the library.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from saccade.errors import UsageError

ISAS = ("baseline", "avx2", "avx512")  # in the order of saccade_processor_level()

# The same numbers stand in native/core.h.
DTYPE_CODES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}
_PLAIN = {int, float, bool, type(None)}
_FAILURES = {1: "out of memory", 2: "arguments it does not support"}


class NativeLibrary:
    """The loaded library.

    Attributes:
        path: its file; isa: the instruction set in use; shares_pool: whether its threads are PyTorch's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._library = ctypes.CDLL(str(path))
        self.isa = _chosen_isa(int(self._library.saccade_processor_level()))
        pool = _openmp_pool()
        self.shares_pool = pool is not None
        if pool is not None:
            self._library.saccade_use_pool(pool)
        self._functions: dict[str, Callable[..., int]] = {}

    def has(self, name: str) -> bool:
        """Whether the library holds the operator function ``name`` (without prefix)."""
        return hasattr(self._library, f"saccade_{self.isa}_{name}")

    def call(self, name: str, *args: Tensor | int | float | None) -> None:
        """Call ``saccade_<isa>_<name>``; the number of threads, PyTorch's, goes last as an int64.

        Tensors pass as pointers to their data (None and empty ones as a null pointer), integers as int64,
        floats as double; which an argument is, the first call of a function settles. The caller sees to
        shapes, dtypes and memory formats.
        """
        function = self._functions.get(name)
        if function is None:
            function = getattr(self._library, f"saccade_{self.isa}_{name}")
            function.restype = ctypes.c_int
            function.argtypes = [*map(_kind, args), ctypes.c_int64]
            self._functions[name] = function
        values = [arg if type(arg) in _PLAIN else arg.data_ptr() for arg in args]  # type: ignore[union-attr]
        code = function(*values, torch.get_num_threads())
        if code:
            raise RuntimeError(f"native operator {name}: {_FAILURES.get(code, f'code {code}')}")


def _kind(value: Tensor | int | float | None) -> type[ctypes.c_void_p | ctypes.c_int64 | ctypes.c_double]:
    if value is None or isinstance(value, Tensor):
        return ctypes.c_void_p
    return ctypes.c_int64 if isinstance(value, int) else ctypes.c_double


@cache
def native_library() -> NativeLibrary | None:
    """The library, or None where it was not built. A named one that does not load raises `UsageError`."""
    named = os.environ.get("SACCADE_NATIVE_LIBRARY")
    path = Path(named) if named else Path(__file__).with_name("_native.so")
    if not named and not path.exists():
        return None
    try:
        return NativeLibrary(path)
    except (OSError, AttributeError) as error:
        where = "SACCADE_NATIVE_LIBRARY" if named else "the built library"
        raise UsageError(f"{where}: {path} cannot be loaded: {error}") from None


def _chosen_isa(level: int) -> str:
    wanted = os.environ.get("SACCADE_ISA")
    if wanted is None:
        return ISAS[level]
    if wanted not in ISAS:
        raise UsageError(f"SACCADE_ISA={wanted}: must be one of {', '.join(ISAS)}")
    if ISAS.index(wanted) > level:
        raise UsageError(f"SACCADE_ISA={wanted}: this processor has {', '.join(ISAS[: level + 1])}")
    return wanted


def _openmp_pool() -> ctypes.c_void_p | None:
    """The entry of the OpenMP runtime that PyTorch's wheel brings, if it is one with GNU's interface."""
    for path in sorted((Path(torch.__file__).parent / "lib").glob("libgomp*.so*")):
        try:
            return ctypes.cast(ctypes.CDLL(str(path)).GOMP_parallel, ctypes.c_void_p)
        except (OSError, AttributeError):
            continue
    return None
