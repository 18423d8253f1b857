"""batch_norm_act: every backend against the definition, values, gradients and running statistics.

What it does with PyTorch's tensors, autograd and compilers: test_batch_norm_act_in_pytorch.py.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
from dataclasses import dataclass
from decimal import Decimal, localcontext
from typing import Any

import pytest
import torch
from torch import Tensor

from saccade.ops import batch_norm_act, use_backend
from saccade.ops._library import ISAS, native_library

needs_native = pytest.mark.skipif(native_library() is None, reason="the native operators are not built")
PLANES, ROWS = torch.contiguous_format, torch.channels_last_3d
HIDDEN = 8


@dataclass(frozen=True)
class Case:
    """Inputs in float64, drawn from a seed; `run` rounds them to a data type first."""

    shape: tuple[int, int, int, int, int]
    activation: str = "none"
    training: bool = True
    excite: bool = False
    clip_scale: bool = False
    residual: bool = False
    offset: float = 0.0
    layout: torch.memory_format = ROWS

    def __str__(self) -> str:
        words = ["x".join(map(str, self.shape)), self.activation, "train" if self.training else "eval"]
        words += [name for name in ("excite", "clip_scale", "residual") if getattr(self, name)]
        return "-".join([*words, "planes" if self.layout == PLANES else "rows"])

    def run(
        self, backend: Any, rounded: torch.dtype, compute: torch.dtype | None = None
    ) -> dict[str, Tensor]:
        """Output, running statistics and every gradient."""
        generator = torch.Generator().manual_seed(0)

        def draw(*shape: int) -> Tensor:
            value = torch.randn(*shape, generator=generator, dtype=torch.float64)
            return value.to(rounded).to(compute or rounded)

        batch, channels = self.shape[:2]
        leaves = {
            "x": (draw(*self.shape) * 2 + self.offset).contiguous(memory_format=self.layout),
            "weight": draw(channels),
            "bias": draw(channels),
        }
        running = [draw(channels), draw(channels).abs() + 0.5]
        fc = [
            draw(HIDDEN, channels, 1, 1, 1) / 4,
            draw(HIDDEN),
            draw(channels, HIDDEN, 1, 1, 1),
            draw(channels),
        ]
        if self.excite:
            leaves |= dict(zip(("fc1", "fc1_bias", "fc2", "fc2_bias"), fc, strict=True))
        if self.residual:
            leaves["residual"] = draw(*self.shape)
        for leaf in leaves.values():
            leaf.requires_grad_()
        with use_backend(backend):
            y = batch_norm_act(
                *(leaves["x"], leaves["weight"], leaves["bias"], *running),
                training=self.training,
                activation=self.activation,  # type: ignore[arg-type]
                squeeze_excite=tuple(fc) if self.excite else None,  # type: ignore[arg-type]
                clip_scale=draw(batch).abs() if self.clip_scale else None,
                residual=leaves.get("residual"),
            )
        grads = torch.autograd.grad(y, list(leaves.values()), draw(*self.shape))
        return {
            "y": y.detach(),
            "running_mean": running[0],
            "running_var": running[1],
            **{f"gradient of {name}": grad for name, grad in zip(leaves, grads, strict=True)},
        }


def assert_no_worse_than_torch(case: Case, backend: str, dtype: torch.dtype) -> None:
    """Errors against float64 are at most twice those of PyTorch's own operators, or of a few roundings."""
    exact = case.run("naive", dtype, torch.float64)
    got = case.run(backend, dtype)
    plain = [case.run("torch", dtype), case.run("naive", dtype)]
    rounding = torch.finfo(dtype).eps * (4 if dtype in (torch.bfloat16, torch.float16) else 16)
    for name, wanted in exact.items():
        assert got[name].dtype == dtype
        assert got[name].shape == wanted.shape
        scale = max(wanted.abs().max().item(), 1e-6)
        error = (got[name].double() - wanted).abs().max().item()
        allowed = max((other[name].double() - wanted).abs().max().item() for other in plain)
        assert error <= max(2 * allowed, rounding * scale), f"{name}: {error:.3g} > 2 * {allowed:.3g}"


SIZES = [(2, 54, 3, 7, 5), (3, 7, 2, 9, 7), (2, 3, 1, 1, 63), (1, 24, 2, 16, 16), (2, 1, 1, 3, 7)]
FORMS = [
    {"activation": "relu"},
    {"activation": "silu", "excite": True},
    {"activation": "none"},
    {"activation": "relu", "clip_scale": True, "residual": True},
    {"activation": "silu", "clip_scale": True, "residual": True, "excite": True},
    {"activation": "none", "residual": True},
    {"activation": "silu", "training": False, "excite": True},
    {"activation": "relu", "training": False, "residual": True},
]
CASES = [
    Case(size, layout=layout, **form)  # type: ignore[arg-type]
    for size in SIZES
    for form in FORMS
    for layout in (PLANES, ROWS)
]


@needs_native
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_native_is_as_defined(case: Case, dtype: torch.dtype):
    assert_no_worse_than_torch(case, "native", dtype)


@pytest.mark.parametrize("case", CASES[::3], ids=str)
def test_torch_is_as_defined(case: Case):
    wanted, got = case.run("naive", torch.float64), case.run("torch", torch.float64)
    for name in wanted:
        torch.testing.assert_close(got[name], wanted[name], rtol=1e-9, atol=1e-10, msg=name)


@needs_native
@pytest.mark.parametrize("layout", [PLANES, ROWS], ids=str)
def test_far_from_zero(layout: torch.memory_format):
    """A mean a thousand times the deviation: a difference of sums of squares would have no digit left."""
    case = Case((2, 5, 4, 33, 33), "silu", excite=True, offset=2000.0, layout=layout)
    assert_no_worse_than_torch(case, "native", torch.float32)


@needs_native
@pytest.mark.parametrize("isa", ISAS)
def test_lesser_instruction_sets(isa: str):
    library = native_library()
    assert library is not None
    if ISAS.index(isa) >= ISAS.index(library.isa):
        pytest.skip(f"the other tests run on {library.isa}")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", __file__]
    command += ["-k", "54x3x7x5 and as_defined or exp or far_from_zero"]
    environment = os.environ | {"SACCADE_ISA": isa, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout[-3000:]
    assert "skipped" not in run.stdout


# --------------------------------------------------------------------------------------------- single kernels


@needs_native
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_silu_and_its_exp_to_the_last_digits(dtype: torch.dtype):
    """x * sigmoid(x) within four units in the last place, from the smallest to the largest numbers."""
    largest = 700.0 if dtype == torch.float64 else 85.0
    powers = torch.logspace(-30, 1, 1001, dtype=torch.float64)
    grid = torch.linspace(-largest, largest, 200_001 if dtype == torch.float32 else 5001, dtype=torch.float64)
    x = torch.cat([grid, powers, -powers]).to(dtype)
    y = _activated(x, "silu")
    exact = _silu_of(x)
    unit = torch.finfo(dtype).eps * exact.abs() + torch.finfo(dtype).tiny
    assert ((y.double() - exact).abs() / unit).max() <= 4
    ends = _activated(torch.tensor([-1e5, 1e5, math.inf, math.nan, 0.0], dtype=dtype), "silu")
    assert ends[0] == 0
    assert ends[1] == 1e5
    assert ends[2] == math.inf
    assert ends[3].isnan()
    assert ends[4] == 0


def _silu_of(x: Tensor) -> Tensor:
    if x.dtype == torch.float32:
        wide = x.double()
        return wide / (1 + (-wide).exp())
    with localcontext(prec=30):
        values = [float(Decimal(v) / (1 + (-Decimal(v)).exp())) for v in x.tolist()]
    return torch.tensor(values, dtype=torch.float64)


def _activated(x: Tensor, activation: Any) -> Tensor:
    one, zero = torch.ones(1, dtype=x.dtype), torch.zeros(1, dtype=x.dtype)
    with use_backend("native"):
        y = batch_norm_act(
            *(x.view(1, 1, 1, 1, -1), one, zero, zero, one), training=False, eps=0.0, activation=activation
        )
    return y.view(-1)


@needs_native
@pytest.mark.parametrize("activation", ["none", "relu", "silu"])
@pytest.mark.parametrize("layout", [PLANES, ROWS], ids=str)
def test_nan_and_infinity_stay(activation: Any, layout: torch.memory_format):
    x = torch.zeros(1, 2, 1, 1, 33).contiguous(memory_format=layout)
    x[0, 0, 0, 0, 17], x[0, 0, 0, 0, 32], x[0, 1, 0, 0, 3] = math.nan, math.inf, math.inf
    vectors = (torch.ones(2), torch.zeros(2), torch.zeros(2), torch.ones(2))
    with use_backend("native"):
        y = batch_norm_act(x, *vectors, training=False, activation=activation)
        trained = batch_norm_act(x, *vectors, training=True, activation=activation)
    assert y.isnan().nonzero().tolist() == [[0, 0, 0, 0, 17]]
    assert y.isinf().nonzero().tolist() == [[0, 0, 0, 0, 32], [0, 1, 0, 0, 3]]
    assert trained[0, 0].isnan().all()


@needs_native
@pytest.mark.parametrize("layout", [PLANES, ROWS], ids=str)
def test_same_bits_whatever_the_threads(layout: torch.memory_format):
    case = Case((2, 54, 5, 31, 33), "silu", excite=True, residual=True, layout=layout)
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 2, 3):
            torch.set_num_threads(threads)
            results.append(case.run("native", torch.float32))
    finally:
        torch.set_num_threads(before)
    for other in results[1:]:
        assert all(torch.equal(other[name], value) for name, value in results[0].items())


# ----------------------------------------------------------------------------------------------------- memory


@pytest.fixture
def poisoned():
    """Memory that nothing has written holds NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@needs_native
@pytest.mark.parametrize("layout", [PLANES, ROWS], ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_element_is_written(poisoned: None, size: Any, layout: torch.memory_format):
    assert torch.empty(3).isnan().all()
    for form in FORMS:
        for name, value in Case(size, layout=layout, **form).run("native", torch.float32).items():  # type: ignore[arg-type]
            assert value.isfinite().all(), (form, name)
