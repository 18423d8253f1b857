"""Which backend runs an operator, and where the native library comes from."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from saccade.errors import UsageError
from saccade.ops import _backend, _library, backend_report, depthwise_conv3d, use_backend
from saccade.ops._library import ISAS, NativeLibrary, native_library

needs_native = pytest.mark.skipif(native_library() is None, reason="the native operators are not built")

OPERATORS = tuple(_backend.NATIVE_FUNCTIONS)
CPU_DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
ROOT = Path(__file__).parent.parent.parent


@pytest.fixture(autouse=True)
def no_override(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither an override nor a warning that was given before."""
    monkeypatch.delenv("SACCADE_OPS", raising=False)
    _backend._say_once.cache_clear()
    yield
    _backend._say_once.cache_clear()


def choose(device: str, dtype: torch.dtype, operator: str = "depthwise_conv3d") -> str:
    """What `choose_backend` does, for devices that this machine lacks."""
    return _backend._chosen(operator, device, dtype)


def have_triton(monkeypatch: pytest.MonkeyPatch, installed: bool) -> None:
    monkeypatch.setattr(_backend, "triton_available", lambda: installed)


def have_library(monkeypatch: pytest.MonkeyPatch, *functions: str) -> None:
    """A library with these functions; none at all: it was not built."""
    library = SimpleNamespace(path=Path("_native.so"), has=functions.__contains__) if functions else None
    monkeypatch.setattr(_backend, "native_library", lambda: library)


# ------------------------------------------------------------------------------------------------- the choice


@pytest.mark.parametrize("operator", OPERATORS)
def test_the_device_decides(operator: str, monkeypatch: pytest.MonkeyPatch):
    have_library(monkeypatch, *_backend.NATIVE_FUNCTIONS.values())
    have_triton(monkeypatch, True)
    assert {choose("cpu", dtype, operator) for dtype in CPU_DTYPES} == {"native"}
    assert {choose("cuda", dtype, operator) for dtype in _backend.TRITON_DTYPES} == {"triton"}
    assert choose("cuda", torch.float64, operator) == "torch"
    assert choose("meta", torch.float32, operator) == "torch"
    assert choose("mps", torch.float32, operator) == "torch"
    have_triton(monkeypatch, False)
    assert choose("cuda", torch.float32, operator) == "torch"


def test_a_tensor_is_looked_at(monkeypatch: pytest.MonkeyPatch):
    have_library(monkeypatch, "shift3d_forward")
    assert _backend.choose_backend("shift3d", torch.zeros(1)) == "native"
    assert _backend.choose_backend("shift3d", torch.zeros(1, device="meta")) == "torch"
    assert _backend.choose_backend("shift3d", torch.zeros(1, dtype=torch.int32)) == "torch"


def test_the_context_beats_the_environment_beats_the_device(monkeypatch: pytest.MonkeyPatch):
    have_library(monkeypatch, *_backend.NATIVE_FUNCTIONS.values())
    assert choose("cpu", torch.float32) == "native"
    monkeypatch.setenv("SACCADE_OPS", "torch")
    assert choose("cpu", torch.float32) == "torch"
    with use_backend("naive"):
        assert choose("cpu", torch.float32) == "naive"
        with use_backend("native"):
            assert choose("cpu", torch.float32) == "native"
        with use_backend(None):
            assert choose("cpu", torch.float32) == "torch"
        assert choose("cpu", torch.float32) == "naive"
    assert choose("cpu", torch.float32) == "torch"
    monkeypatch.setenv("SACCADE_OPS", "")
    assert choose("cpu", torch.float32) == "native"


def test_a_context_ends_with_an_error():
    with pytest.raises(ZeroDivisionError), use_backend("naive"):
        _ = 1 / 0
    assert _backend.forced_backend() is None


def test_unknown_backends(monkeypatch: pytest.MonkeyPatch):
    with (
        pytest.raises(UsageError, match="use_backend: no backend 'fast'; there are naive, native, triton"),
        use_backend("fast"),  # type: ignore[arg-type]
    ):
        pass
    assert _backend.forced_backend() is None
    monkeypatch.setenv("SACCADE_OPS", "cuda")
    with pytest.raises(UsageError, match="SACCADE_OPS: no backend 'cuda'; there are naive, native, triton"):
        choose("cpu", torch.float32)


@pytest.mark.parametrize(
    ("backend", "device", "dtype", "triton", "message"),
    [
        ("native", "cuda", torch.float32, True, "the tensor is on cuda: native operators run on the CPU"),
        ("native", "cpu", torch.int32, True, "it does not take torch.int32"),
        ("triton", "cuda", torch.float32, False, "Triton is not installed"),
        ("triton", "cpu", torch.float32, True, "the tensor is on cpu: Triton runs on CUDA, or with TRITON_I"),
        ("triton", "cuda", torch.float64, True, "it does not take torch.float64"),
    ],
)
def test_an_override_that_cannot_work_is_an_error(
    backend: str, device: str, dtype: torch.dtype, triton: bool, message: str, monkeypatch: pytest.MonkeyPatch
):
    have_library(monkeypatch, *_backend.NATIVE_FUNCTIONS.values())
    have_triton(monkeypatch, triton)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    expected = f"shift3d: backend '{backend}' was asked for, but {message}"
    with use_backend(backend), pytest.raises(UsageError, match=expected):  # type: ignore[arg-type]
        choose(device, dtype, "shift3d")
    with use_backend(backend):  # type: ignore[arg-type]
        assert choose("meta", dtype) == "torch"


def test_the_interpreter_takes_tensors_of_the_cpu(monkeypatch: pytest.MonkeyPatch):
    have_triton(monkeypatch, True)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    with use_backend("triton"):
        assert choose("cpu", torch.float32) == "triton"


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace.* is deprecated:DeprecationWarning")
@pytest.mark.parametrize("override", [None, "native", "triton"])
def test_tracing_and_exporting_use_pytorch(
    override: _backend.Backend | None, monkeypatch: pytest.MonkeyPatch
):
    have_library(monkeypatch, *_backend.NATIVE_FUNCTIONS.values())
    have_triton(monkeypatch, False)
    chosen = []

    class Layer(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            chosen.append(_backend.choose_backend("shift3d", x))
            return x + 1

    with use_backend(override):
        torch.jit.trace(Layer(), torch.zeros(2), check_trace=False)
        torch.export.export(Layer(), (torch.zeros(2),))
    assert set(chosen) == {"torch"}


def test_the_report(monkeypatch: pytest.MonkeyPatch):
    with use_backend("torch"):
        report = backend_report()
    assert report["override"] == "torch"
    assert report["cpu"] == dict.fromkeys(OPERATORS, "torch")
    have_library(monkeypatch)
    with pytest.warns(RuntimeWarning, match="were not built"):
        report = backend_report()
    assert (report["native_built"], report["native_isa"], report["native_threads"]) == (False, None, None)
    assert report["cpu"] == dict.fromkeys(OPERATORS, "torch")


# ------------------------------------------------------------------------------------------ without a library


def test_without_a_library_there_is_one_warning_and_all_works(monkeypatch: pytest.MonkeyPatch):
    have_library(monkeypatch)
    x, weight = torch.randn(1, 3, 2, 5, 5), torch.randn(3, 1, 1, 3, 3)
    with pytest.warns(RuntimeWarning, match=r"no C\+\+ compiler.*PyTorch's slower operators"):
        y = depthwise_conv3d(x, weight)
    for operator in OPERATORS:  # warnings are errors here: there is no second one
        assert choose("cpu", torch.float32, operator) == "torch"
    torch.testing.assert_close(y, torch.nn.functional.conv3d(x, weight, groups=3))
    with use_backend("native"), pytest.raises(UsageError, match="but the native operators were not built"):
        choose("cpu", torch.float32)
    with use_backend("torch"), warnings.catch_warnings():
        warnings.simplefilter("error")
        _backend._say_once.cache_clear()
        assert choose("cpu", torch.float32) == "torch"  # who asks for it need not be warned


def test_a_library_older_than_the_operator(monkeypatch: pytest.MonkeyPatch):
    have_library(monkeypatch, "shift3d_forward")
    assert choose("cpu", torch.float32, "shift3d") == "native"
    missing = "_native.so has no depthwise_conv3d: it was built from older sources"
    with pytest.warns(RuntimeWarning, match=missing):
        assert choose("cpu", torch.float32) == "torch"
    with use_backend("native"), pytest.raises(UsageError, match=missing):
        choose("cpu", torch.float32)


def test_no_file_is_no_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("SACCADE_NATIVE_LIBRARY", raising=False)
    monkeypatch.setattr(_library, "__file__", str(tmp_path / "_library.py"))
    assert _library.native_library.__wrapped__() is None
    (tmp_path / "_native.so").write_text("no library")
    with pytest.raises(UsageError, match=r"the built library: .*_native.so cannot be loaded"):
        _library.native_library.__wrapped__()


def test_installing_without_a_compiler_succeeds(tmp_path: Path):
    """`pip install` then goes on, and saccade runs on PyTorch's operators."""
    command = [sys.executable, "setup.py", "build_ext", "--build-lib", str(tmp_path / "lib")]
    command += ["--build-temp", str(tmp_path / "temporary")]
    environment = os.environ | {"CC": "/nonexistent", "CXX": "/nonexistent"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert 'building extension "saccade.ops._native" failed' in run.stderr
    assert not list(tmp_path.rglob("*.so"))


@pytest.mark.parametrize("stage", ["compile", "link"])
def test_installing_with_a_compiler_that_fails_succeeds(stage: str, tmp_path: Path):
    compiler = tmp_path / "c++"
    script = {
        "compile": "exit 1",  # cannot compile
        "link": 'for last; do [ "$last" = -shared ] && exit 1; done; exit 0',  # compiles, but cannot link
    }
    compiler.write_text(f"#!/bin/sh\necho called >> {tmp_path}/calls\n{script[stage]}\n")
    compiler.chmod(0o755)
    command = [sys.executable, "setup.py", "build_ext", "--build-lib", str(tmp_path / "lib")]
    command += ["--build-temp", str(tmp_path / "temporary")]
    environment = os.environ | {"CC": str(compiler), "CXX": str(compiler), "LDSHARED": f"{compiler} -shared"}
    environment |= {"LDCXXSHARED": f"{compiler} -shared"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert 'building extension "saccade.ops._native" failed' in run.stderr
    calls = len((tmp_path / "calls").read_text().splitlines())
    if stage == "compile":  # those begun side by side, and perhaps one more each, but not all
        assert 1 <= calls <= 2 * (os.cpu_count() or 1)
    else:
        assert calls > len(_backend.NATIVE_FUNCTIONS)


# ------------------------------------------------------------------------------------------------ the library


@needs_native
def test_instruction_sets(monkeypatch: pytest.MonkeyPatch):
    library = native_library()
    assert library is not None
    monkeypatch.delenv("SACCADE_ISA", raising=False)
    best = NativeLibrary(library.path)
    for isa in ISAS[: ISAS.index(best.isa) + 1]:
        monkeypatch.setenv("SACCADE_ISA", isa)
        lesser = NativeLibrary(library.path)
        assert lesser.isa == isa
        assert all(lesser.has(name) for name in _backend.NATIVE_FUNCTIONS.values())
        assert not lesser.has("no_such_operator")


@pytest.mark.parametrize(
    ("wanted", "level", "message"),
    [
        ("avx1024", 2, "SACCADE_ISA=avx1024: must be one of baseline, avx2, avx512"),
        ("", 2, "SACCADE_ISA=: must be one of baseline, avx2, avx512"),
        ("avx512", 1, "SACCADE_ISA=avx512: this processor has baseline, avx2$"),
        ("avx2", 0, "SACCADE_ISA=avx2: this processor has baseline$"),
    ],
)
def test_instruction_sets_that_cannot_be(
    wanted: str, level: int, message: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SACCADE_ISA", wanted)
    with pytest.raises(UsageError, match=message):
        _library._chosen_isa(level)


def test_the_best_instruction_set_is_the_default(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SACCADE_ISA", raising=False)
    assert [_library._chosen_isa(level) for level in range(3)] == list(ISAS)


def test_a_named_library_must_load(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    path = tmp_path / "ops.so"
    monkeypatch.setenv("SACCADE_NATIVE_LIBRARY", str(path))
    with pytest.raises(UsageError, match=r"SACCADE_NATIVE_LIBRARY: .*ops.so cannot be loaded"):
        _library.native_library.__wrapped__()
    path.write_bytes(b"no library at all")
    with pytest.raises(UsageError, match=r"SACCADE_NATIVE_LIBRARY: .*ops.so cannot be loaded"):
        _library.native_library.__wrapped__()


@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="no C++ compiler")
def test_with_a_compiler_the_native_operators_are_built():
    """The install goes on without them; the tests that need them would then all be skipped."""
    assert native_library() is not None


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
def test_a_library_of_another_make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    """One that is none of ours, one that lacks an operator, and one whose operator fails."""
    source = """
        #include <stdint.h>
        int saccade_processor_level(void) { return 2; }
        void saccade_use_pool(void *pool) {}
        int saccade_baseline_shift3d_forward(int64_t code, int64_t threads) { return (int)code; }
    """
    monkeypatch.delenv("SACCADE_ISA", raising=False)
    for name, text in (("ours", source), ("foreign", "int nothing(void) { return 0; }")):
        (tmp_path / f"{name}.c").write_text(textwrap.dedent(text))
        command = ["cc", "-shared", "-fPIC", "-o", f"{name}.so", f"{name}.c"]
        subprocess.run(command, cwd=tmp_path, check=True)
    monkeypatch.setenv("SACCADE_NATIVE_LIBRARY", str(tmp_path / "foreign.so"))
    with pytest.raises(UsageError, match=r"foreign.so cannot be loaded: .*saccade_processor_level"):
        _library.native_library.__wrapped__()
    monkeypatch.setenv("SACCADE_NATIVE_LIBRARY", str(tmp_path / "ours.so"))
    library = _library.native_library.__wrapped__()
    assert library.isa == "baseline"
    assert library.has("shift3d_forward")
    monkeypatch.setattr(_backend, "native_library", lambda: library)
    assert choose("cpu", torch.float32, "shift3d") == "native"
    with pytest.warns(RuntimeWarning, match="ours.so has no depthwise_conv3d"):
        assert choose("cpu", torch.float32) == "torch"
    monkeypatch.setitem(_library.SIGNATURES, "shift3d_forward", "i")
    library.call("shift3d_forward", 0)
    for code, message in ((1, "out of memory"), (2, "arguments it does not support"), (9, "code 9")):
        with pytest.raises(RuntimeError, match=f"native operator shift3d_forward: {message}"):
            library.call("shift3d_forward", code)


@needs_native
def test_a_tensor_is_no_integer(monkeypatch: pytest.MonkeyPatch):
    """While tracing, the sizes of a tensor are tensors."""
    library = native_library()
    assert library is not None
    x, weight, y = torch.zeros(1, 3, 2, 5, 5), torch.zeros(3, 1, 1, 1, 1), torch.empty(1, 3, 2, 5, 5)
    numbers = (*x.shape, *y.shape[2:], 1, 1, 1, 1, 1, 1, 0, 0, 0)
    library.call("depthwise_conv3d", 0, x, weight, y, *numbers)
    for traced in (torch.tensor(5), torch.tensor([5]), 5.0, None):
        with pytest.raises(TypeError, match="native operator depthwise_conv3d: argument 9"):
            library.call("depthwise_conv3d", 0, x, weight, y, *numbers[:4], traced, *numbers[5:])
    with pytest.raises(TypeError, match="20 arguments, 21 are needed"):
        library.call("depthwise_conv3d", 0, x, weight, y, *numbers[:-1])
