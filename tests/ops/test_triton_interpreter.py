"""The Triton kernels without a GPU: run by Triton's interpreter at tiny sizes, and compiled for a GPU.

Triton decides when it is imported whether it interprets, so the interpreter runs in a process of its own.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
import triton_checks as checks

from saccade.errors import UsageError
from saccade.ops import use_backend
from saccade.ops.depthwise_conv3d import depthwise_conv3d

triton = pytest.importorskip("triton", reason="Triton is not installed (it has no build for this system)")

Check = Callable[..., None]
SIXTEEN_BITS = pytest.mark.parametrize(
    ("dtype", "gradient"),
    [(torch.bfloat16, "expanded"), (torch.bfloat16, "transposed"), (torch.float16, "dense")],
    ids=str,
)


@pytest.fixture(scope="module")
def interpreted() -> Iterator[Check]:
    """Calls a function of triton_checks in a process where Triton interprets."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TRITON_INTERPRET", "1")
            pool.submit(os.getpid).result()

        def call(check: Check, *args: Any, **kwargs: Any) -> None:
            pool.submit(check, *args, **kwargs).result()

        yield call


# ----------------------------------------------------------------------------------------- in the interpreter


@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "padding"),
    [
        ((2, 5, 2, 5, 9), (3, 3, 3), (1, 1, 1), (1, 1, 1)),
        ((1, 54, 2, 5, 7), (3, 3, 3), (1, 2, 2), (1, 1, 1)),
        ((1, 3, 7, 6, 3), (5, 1, 3), (2, 3, 1), (2, 0, 2)),
        ((1, 66, 5, 1, 1), (5, 1, 1), (1, 1, 1), (2, 0, 0)),
        ((1, 2, 3, 9, 5), (1, 5, 1), (1, 1, 1), (0, 4, 1)),
        ((1, 1, 1, 1, 1), (1, 1, 1), (1, 1, 1), (0, 0, 0)),
        ((0, 4, 2, 3, 3), (3, 3, 3), (1, 1, 1), (1, 1, 1)),
    ],
    ids=str,
)
def test_depthwise(interpreted: Check, shape: Any, kernel: Any, stride: Any, padding: Any) -> None:
    interpreted(checks.check_depthwise, shape, kernel, stride, padding)


@SIXTEEN_BITS
def test_depthwise_in_16_bits(interpreted: Check, dtype: torch.dtype, gradient: str) -> None:
    interpreted(checks.check_depthwise, (2, 7, 3, 4, 5), dtype=dtype, channels_last=False, gradient=gradient)


@pytest.mark.parametrize("quantize", [False, True], ids=["smooth", "quantised"])
@pytest.mark.parametrize(
    ("shape", "stride", "padding"),
    [
        ((2, 5, 4, 7, 9), (1, 1, 1), (0, 0, 0)),
        ((1, 4, 3, 7, 6), (1, 2, 2), (0, 0, 0)),
        ((1, 5, 5, 4, 7), (2, 3, 1), (1, 0, 2)),
        ((2, 1, 1, 1, 1), (1, 1, 1), (0, 0, 0)),
        ((0, 4, 2, 3, 3), (1, 1, 1), (0, 0, 0)),
    ],
    ids=str,
)
def test_shift(interpreted: Check, shape: Any, stride: Any, padding: Any, quantize: bool) -> None:
    interpreted(checks.check_shift, shape, stride, padding, quantize=quantize)


def test_shift_of_frames_with_more_positions_than_a_program_takes(interpreted: Check) -> None:
    interpreted(checks.check_shift, (1, 6, 2, 33, 35))


@SIXTEEN_BITS
def test_shift_in_16_bits(interpreted: Check, dtype: torch.dtype, gradient: str) -> None:
    interpreted(checks.check_shift, (2, 5, 3, 5, 3), dtype=dtype, gradient=gradient)


@pytest.mark.parametrize("channels_last", [True, False], ids=["channels_last_3d", "contiguous"])
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((3, 5, 2, 7, 9), {"activation": "relu", "residual": True, "stochastic_depth": True}),
        ((3, 3, 3, 5, 5), {"activation": "silu", "residual": True, "hidden": 2, "stochastic_depth": True}),
        ((4, 3, 2, 3, 3), {"activation": "relu", "num_splits": 2}),
        ((2, 3, 2, 5, 5), {"activation": "silu", "training": False}),
        ((0, 3, 2, 2, 2), {"activation": "relu", "hidden": 2}),
        ((2, 5, 2, 9, 7), {"activation": "relu", "tile": 32}),  # several tiles a clip
    ],
    ids=str,
)
def test_batch_norm(interpreted: Check, shape: Any, options: dict[str, Any], channels_last: bool) -> None:
    interpreted(checks.check_batch_norm, shape, channels_last=channels_last, **options)


def test_batch_norm_of_many_channels(interpreted: Check) -> None:
    interpreted(checks.check_batch_norm, (2, 70, 1, 3, 3), "silu", hidden=4)


@SIXTEEN_BITS
def test_batch_norm_in_16_bits(interpreted: Check, dtype: torch.dtype, gradient: str) -> None:
    interpreted(
        checks.check_batch_norm, (2, 6, 3, 5, 5), "silu", dtype, hidden=3, residual=True, gradient=gradient
    )


def test_compiled_by_pytorch(interpreted: Check) -> None:
    interpreted(checks.check_compiled, "aot_eager")


# --------------------------------------------------------------------------------------- without a GPU at all


def test_asking_for_triton_without_a_gpu_is_refused() -> None:
    with use_backend("triton"), pytest.raises(UsageError, match="the tensor is on cpu: Triton runs on CUDA"):
        depthwise_conv3d(torch.zeros(1, 1, 1, 1, 1), torch.zeros(1, 1, 1, 1, 1))


class Compiled:
    """Stands for a kernel: compiles it for what it is called with, for a GPU of compute capability 9.0."""

    def __init__(self, kernel: Any) -> None:
        self.function = getattr(kernel, "fn", kernel) if hasattr(kernel, "configs") else kernel
        self.options = kernel.configs[0].all_kwargs() if hasattr(kernel, "configs") else {}
        self.calls = 0

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return self.compile

    def compile(self, *args: Any, **kwargs: Any) -> None:
        names = [parameter.name for parameter in self.function.params]
        values = dict(zip(names, args, strict=False)) | kwargs | self.options
        constants = {p.name: values[p.name] for p in self.function.params if p.is_constexpr}
        types = {torch.float32: "*fp32", torch.bfloat16: "*bf16"}
        signature = {
            name: "constexpr"
            if name in constants
            else (types[values[name].dtype] if isinstance(values[name], torch.Tensor) else "i32")
            for name in names
        }
        triton.compile(
            triton.compiler.ASTSource(self.function, signature, constants),
            target=triton.backends.compiler.GPUTarget("cuda", 90, 32),
            options={"num_warps": values.get("num_warps", 4)},
        )
        self.calls += 1


def launch_depthwise(kernels: Any) -> None:
    x, weight = torch.zeros(1, 54, 2, 3, 3).bfloat16(), torch.zeros(54, 1, 3, 1, 1).bfloat16()
    for stride in ((1, 1, 1), (1, 2, 2)):
        y = kernels.forward(x, weight, stride, (1, 0, 0))
        kernels.backward(y, x, weight, stride, (1, 0, 0), True, True)


def launch_shift(kernels: Any) -> None:
    x, shift = torch.zeros(1, 2, 2, 3, 3).bfloat16(), torch.zeros(3, 2)
    for quantize in (False, True):
        y = kernels.forward(x, shift, (1, 1, 1), (0, 0, 0), quantize)
        kernels.backward(y, x, shift, (2, 3, 3), (1, 1, 1), (0, 0, 0), quantize, True)


def launch_batch_norm(kernels: Any) -> None:
    x, row = torch.zeros(1, 54, 2, 5, 5).bfloat16(), torch.zeros(1, 54)
    x = x.contiguous(memory_format=torch.channels_last_3d)
    kernels.row_stats(x)
    kernels.affine_act(x, row, row, x, "silu")
    kernels.affine_act_reduce(x, x, x, row, row, row, "silu")
    kernels.affine_act_backward(x, x, row, row, row, row, row, "relu")


@pytest.mark.parametrize(
    ("operator", "names", "launch"),
    [
        pytest.param(
            *("depthwise_conv3d", ["_forward", "_input_gradient", "_weight_gradient"], launch_depthwise),
            marks=pytest.mark.slow,
        ),
        ("shift", ["_forward", "_backward"], launch_shift),
        pytest.param(
            "batch_norm_act",
            ["_tile_stats", "_merge_stats", "_affine_act", "_reduce", "_affine_act_backward"],
            launch_batch_norm,
            marks=pytest.mark.slow,
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:TRITON_DEFAULT_FP_FUSION:UserWarning")  # newer ones than 3.6
def test_the_kernels_compile_for_a_gpu(
    operator: str,
    names: list[str],
    launch: Callable[[Any], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """To machine code, by the assembler that Triton brings: not all that is interpreted compiles."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernels = checks.kernels(operator)
    compiled = {name: Compiled(getattr(kernels, name)) for name in names}
    for name, kernel in compiled.items():
        monkeypatch.setattr(kernels, name, kernel)
    launch(kernels)
    assert all(kernel.calls for kernel in compiled.values())
