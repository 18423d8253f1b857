"""Which backend runs an operator.

============  ==========================================================================================
``native``    C++ on the CPU, for the instruction set of the processor
``triton``    Triton on a CUDA device (on a CPU in Triton's interpreter, for checking)
``torch``     PyTorch operators, on any device
``naive``     the definition, in plain PyTorch, on any device; slow
============  ==========================================================================================

By default the device decides: ``native`` or ``triton`` where there is one for the device and dtype, else
``torch``. `use_backend` or the environment variable ``SACCADE_OPS`` override that; an override that cannot
work for a tensor is an error, never ignored. While a model is traced or exported (`torch.jit.trace`,
`torch.export`, `torch.onnx.export`) the backend is ``torch`` in any case: no other runtime has the others.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from saccade.errors import UsageError
from saccade.ops._library import DTYPE_CODES, native_library

Backend = Literal["naive", "native", "triton", "torch"]
BACKENDS: tuple[str, ...] = get_args(Backend)
# One function of each operator: a library without it is older than the operator.
NATIVE_FUNCTIONS = {
    "batch_norm_act": "batch_norm_act_forward",
    "depthwise_conv3d": "depthwise_conv3d",
    "shift2d": "shift3d_forward",
    "shift3d": "shift3d_forward",
}
TRITON_DTYPES = (torch.float32, torch.bfloat16, torch.float16)

_override: Backend | None = None


@contextmanager
def use_backend(backend: Backend | None) -> Iterator[None]:
    """Run the operators called inside with ``backend``, in this process; None: by device again.

    Raises:
        UsageError: no such backend.
    """
    global _override
    before, _override = _override, _checked(backend, "use_backend") if backend is not None else None
    try:
        yield
    finally:
        _override = before


def choose_backend(operator: str, x: Tensor) -> Backend:
    """The backend that runs ``operator`` on a tensor like ``x``.

    Raises:
        UsageError: the override names a backend that cannot run on the tensor's device or dtype.
    """
    return _chosen(operator, x.device.type, x.dtype)


def _chosen(operator: str, device: str, dtype: torch.dtype) -> Backend:
    if is_exporting():
        return "torch"
    backend = forced_backend()
    if backend is None:
        return _automatic(operator, device, dtype)
    if device == "meta":
        return "torch"
    problem = _problem(operator, backend, device, dtype)
    if problem:
        raise UsageError(f"{operator}: backend {backend!r} was asked for, but {problem}")
    return backend


# torch.compile does not look inside, and keeps what is chosen when it compiles. This is what
# torch.compiler.assume_constant_result does, less its import of the whole compiler.
_chosen._dynamo_marked_constant = True  # type: ignore[attr-defined]


def is_exporting() -> bool:
    """Whether a model is being traced by `torch.jit.trace` or exported."""
    return torch.jit.is_tracing() or torch.compiler.is_exporting()


def forced_backend() -> Backend | None:
    """What `use_backend`, or else ``SACCADE_OPS``, asks for."""
    if _override is not None:
        return _override
    wanted = os.environ.get("SACCADE_OPS")
    return _checked(wanted, "SACCADE_OPS") if wanted else None


def _checked(backend: str, source: str) -> Backend:
    if backend not in BACKENDS:
        raise UsageError(f"{source}: no backend {backend!r}; there are {', '.join(BACKENDS)}")
    return backend  # type: ignore[return-value]


def _automatic(operator: str, device: str, dtype: torch.dtype) -> Backend:
    if device == "cpu":
        missing = _missing(operator)
        if missing:
            _say_once(missing)
        elif dtype in DTYPE_CODES:
            return "native"
    elif device == "cuda" and triton_available() and dtype in TRITON_DTYPES:
        return "triton"
    return "torch"


def _problem(operator: str, backend: Backend, device: str, dtype: torch.dtype) -> str | None:
    if backend == "native":
        if device != "cpu":
            return f"the tensor is on {device}: native operators run on the CPU"
        if missing := _missing(operator):
            return missing
        if dtype not in DTYPE_CODES:
            return f"it does not take {dtype}"
    if backend == "triton":
        if not triton_available():
            return "Triton is not installed"
        if device != "cuda" and not interpreting():
            return f"the tensor is on {device}: Triton runs on CUDA, or with TRITON_INTERPRET=1"
        if dtype not in TRITON_DTYPES:
            return f"it does not take {dtype}"
    return None


def _missing(operator: str) -> str | None:
    """Why there is no native kernel of ``operator``; None if there is."""
    library = native_library()
    if library is None:
        return "the native operators were not built (no C++ compiler when saccade was installed)"
    if not library.has(NATIVE_FUNCTIONS[operator]):
        return f"{library.path.name} has no {operator}: it was built from older sources"
    return None


@cache
def triton_available() -> bool:
    """Whether Triton is installed, even if it cannot run here."""
    return importlib.util.find_spec("triton") is not None


def interpreting() -> bool:
    """Whether Triton kernels run in its interpreter, which takes CPU tensors."""
    return os.environ.get("TRITON_INTERPRET") == "1"


@cache
def _say_once(missing: str) -> None:
    warnings.warn(
        f"{missing}. PyTorch's slower operators are used; results are the same. To build the native ones: "
        "install g++ or clang, then install saccade again",
        RuntimeWarning,
        stacklevel=2,
    )


def backend_report() -> dict[str, Any]:
    """Backends on this machine as plain values, for ``saccade bench --info`` and bug reports.

    Raises:
        UsageError: the override is not available here.
    """
    library = native_library()
    return {
        "override": forced_backend(),
        "cpu": {name: _chosen(name, "cpu", torch.float32) for name in NATIVE_FUNCTIONS},
        "cuda": {name: _chosen(name, "cuda", torch.bfloat16) for name in NATIVE_FUNCTIONS}
        if torch.cuda.is_available()
        else None,
        "native_built": library is not None,
        "native_isa": library.isa if library else None,
        "native_threads": "PyTorch's pool" if library and library.shares_pool else "own" if library else None,
        "triton_installed": triton_available(),
    }
