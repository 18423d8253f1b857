"""The shared library of native operators: find it, choose the instruction set, call it.

Environment: ``SACCADE_ISA`` (baseline, avx2, avx512) selects an instruction set below the processor's
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

# Keep in step with native/core.h.
DTYPE_CODES = {torch.float32: 0, torch.float64: 1, torch.bfloat16: 2, torch.float16: 3}

# The arguments of each function in order: d the data of a tensor or None, i an integer, f a float. The number
# of threads follows, an integer.
SIGNATURES = {
    "batch_norm_act_forward": "d" * 14 + "f" + "i" * 9,
    "batch_norm_act_backward": "d" * 22 + "f" + "i" * 9,
    "depthwise_conv3d": "i" + "d" * 3 + "i" * 17,
    "depthwise_conv3d_backward": "i" + "d" * 5 + "i" * 17,
    "shift3d_forward": "i" + "d" * 3 + "i" * 15,
    "shift3d_backward": "i" + "d" * 5 + "i" * 15,
}
_CTYPES = {"d": ctypes.c_void_p, "i": ctypes.c_int64, "f": ctypes.c_double}
_FAILURES = {1: "out of memory", 2: "arguments it does not support"}


class NativeLibrary:
    """The loaded library.

    Attributes:
        path: its file; isa: the instruction set in use; shares_pool: whether its threads are PyTorch's.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._library = ctypes.CDLL(str(path))
        level = int(self._library.saccade_processor_level())
        while level and not any(hasattr(self._library, f"saccade_{ISAS[level]}_{f}") for f in SIGNATURES):
            level -= 1  # an editable install has the instruction sets of the processor that built it
        self.isa = _chosen_isa(level)
        pool = _openmp_pool()
        self.shares_pool = pool is not None
        if pool is not None:
            self._library.saccade_use_pool(pool)
        self._functions: dict[str, Callable[..., int]] = {}

    def has(self, name: str) -> bool:
        """Whether the library holds the operator function ``name`` (without prefix)."""
        return hasattr(self._library, f"saccade_{self.isa}_{name}")

    def call(self, name: str, *args: Tensor | int | float | None) -> None:
        """Call ``saccade_<isa>_<name>`` with arguments as in `SIGNATURES`, and PyTorch's number of threads.

        Tensors pass as pointers to their data (None and empty ones as a null pointer). Shapes, dtypes and
        memory formats are up to the caller.

        Raises:
            TypeError: an argument does not match the signature, e.g. a tensor for an integer.
            RuntimeError: the function failed.
        """
        signature = SIGNATURES[name]
        function = self._functions.get(name)
        if function is None:
            function = getattr(self._library, f"saccade_{self.isa}_{name}")
            function.restype = ctypes.c_int
            function.argtypes = [*(_CTYPES[kind] for kind in signature), ctypes.c_int64]
            self._functions[name] = function
        if len(args) != len(signature):
            raise TypeError(f"native operator {name}: {len(args)} arguments, {len(signature)} are needed")
        values: list[int | float | None] = []
        for i, arg in enumerate(args):
            # ctypes accepts a tensor of one value as an integer, and any integer as a pointer
            is_tensor = isinstance(arg, Tensor)
            if is_tensor is not (signature[i] == "d") and (is_tensor or arg is not None):
                raise TypeError(
                    f"native operator {name}: argument {i + 1} is a {type(arg).__name__}, "
                    f"{'a tensor' if signature[i] == 'd' else 'a number'} is needed"
                )
            values.append(arg.data_ptr() if is_tensor else arg)  # type: ignore[union-attr, arg-type]
        try:
            code = function(*values, torch.get_num_threads())
        except ctypes.ArgumentError as error:
            raise TypeError(f"native operator {name}: {error}") from None
        if code:
            raise RuntimeError(f"native operator {name}: {_FAILURES.get(code, f'code {code}')}")


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
