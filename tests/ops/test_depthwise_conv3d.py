"""depthwise_conv3d: every backend against the definition, output and both gradients.

``python tests/ops/test_depthwise_conv3d.py 200`` tries 200 random cases of every data type on the native
kernels (SACCADE_ISA chooses the instruction set).
"""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.library import opcheck
from torch.utils.flop_counter import FlopCounterMode

from saccade.errors import UsageError
from saccade.layers.depthwise_conv import DepthwiseConv3d
from saccade.ops import depthwise_conv3d, use_backend
from saccade.ops._library import ISAS, native_library
from saccade.ops.depthwise_conv3d import native
from saccade.ops.depthwise_conv3d.naive import output_size
from saccade.ops.depthwise_conv3d.op import backward_op, forward_op

needs_native = pytest.mark.skipif(native_library() is None, reason="the native operators are not built")
BACKENDS = [pytest.param("native", marks=needs_native), "torch"]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
PLANES, ROWS = torch.contiguous_format, torch.channels_last_3d
Sizes = tuple[int, int, int]
ONE, HALVED, ALL_HALVED = (1, 1, 1), (1, 2, 2), (2, 2, 2)


@dataclass(frozen=True)
class Case:
    """Inputs in float64, drawn from a seed."""

    shape: tuple[int, int, int, int, int]
    kernel: Sizes = (3, 3, 3)
    stride: Sizes = ONE
    padding: Sizes = (1, 1, 1)
    layout: torch.memory_format = ROWS
    causal: bool = False

    def inputs(self, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
        """x, weight and the gradient that comes in."""
        generator = torch.Generator().manual_seed(11)
        channels = self.shape[1]
        size = output_size(self.shape[2:], self.kernel, self.stride, self.padding, self.causal)
        shapes = (self.shape, (channels, 1, *self.kernel), (*self.shape[:2], *size))
        x, weight, grad = (torch.randn(s, generator=generator, dtype=torch.float64).to(dtype) for s in shapes)
        return x.contiguous(memory_format=self.layout), weight, grad.contiguous(memory_format=self.layout)

    def options(self) -> dict[str, Any]:
        return {"stride": self.stride, "padding": self.padding, "causal": self.causal}


CASES = {
    "one_position": Case((1, 1, 1, 1, 1)),
    "1_wide": Case((2, 3, 2, 5, 1)),
    "7_wide": Case((2, 54, 3, 7, 7)),
    "7_wide_planes": Case((2, 54, 3, 7, 7), layout=PLANES),
    "63_wide": Case((1, 17, 2, 4, 63)),
    "63_wide_1_channel": Case((2, 1, 3, 5, 63)),
    "63_wide_halved": Case((1, 17, 2, 6, 63), stride=HALVED),
    "16_channels": Case((1, 16, 2, 5, 9)),
    "halved": Case((2, 54, 3, 8, 8), stride=HALVED),
    "halved_planes": Case((2, 3, 3, 9, 7), stride=HALVED, layout=PLANES),
    "halved_unpadded": Case((1, 5, 3, 8, 11), stride=HALVED, padding=(0, 0, 0)),
    "all_halved": Case((1, 17, 7, 7, 7), stride=ALL_HALVED),
    "strides_3_1_2": Case((2, 3, 8, 5, 9), stride=(3, 1, 2)),
    "width_stride_3": Case((1, 17, 3, 5, 20), stride=(1, 1, 3)),
    "stride_above_kernel": Case((1, 4, 3, 9, 9), (1, 1, 1), (2, 3, 4), (0, 0, 0)),
    "stride_above_kernel_2": Case((1, 4, 3, 9, 9), (3, 1, 1), (2, 2, 2), (1, 0, 0)),
    "causal": Case((2, 17, 4, 5, 9), padding=(2, 1, 1), causal=True),
    "causal_halved": Case((1, 54, 3, 8, 7), stride=HALVED, padding=(2, 1, 1), causal=True),
    "causal_one_frame": Case((2, 3, 1, 5, 6), padding=(2, 1, 1), causal=True),
    "causal_time_5": Case((2, 24, 6, 6, 6), (5, 1, 1), padding=(4, 0, 0), causal=True),
    "time_5": Case((2, 24, 13, 6, 6), (5, 1, 1), padding=(2, 0, 0)),
    "time_5_of_3_frames": Case((1, 24, 3, 4, 4), (5, 1, 1), padding=(2, 0, 0)),
    "time_3": Case((1, 17, 5, 6, 7), (3, 1, 1), padding=(1, 0, 0)),
    "space_3": Case((2, 3, 2, 7, 9), (1, 3, 3), padding=(0, 1, 1)),
    "space_3_halved": Case((2, 54, 2, 9, 7), (1, 3, 3), HALVED, (0, 1, 1)),
    "space_5": Case((1, 3, 2, 9, 15), (1, 5, 5), padding=(0, 2, 2)),
    "5_cubed": Case((1, 17, 6, 7, 10), (5, 5, 5), padding=(2, 2, 2)),
    "5_cubed_halved": Case((1, 3, 7, 9, 11), (5, 5, 5), ALL_HALVED, (2, 2, 2)),
    "5_3_1": Case((1, 3, 6, 5, 7), (5, 3, 1), padding=(2, 1, 0)),
    "1_5_3": Case((1, 3, 2, 6, 7), (1, 5, 3), (1, 1, 2), (0, 2, 1)),
    "unpadded": Case((2, 17, 4, 6, 9), padding=(0, 0, 0)),
    "padded_beyond_the_kernel": Case((1, 17, 2, 3, 5), padding=(3, 4, 5)),
    "padded_beyond_the_kernel_halved": Case((1, 3, 2, 4, 6), stride=HALVED, padding=(2, 3, 4)),
    "padding_alone_is_seen": Case((1, 3, 1, 2, 2), (3, 1, 1), (2, 1, 1), (4, 3, 3)),
    "several_tasks": Case((2, 33, 4, 21, 19)),
}


def run(
    backend: str, case: Case, x: Tensor, weight: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
    with use_backend(backend):  # type: ignore[arg-type]
        y = depthwise_conv3d(x, weight, **case.options())
    y.backward(grad)
    return y.detach(), x.grad, weight.grad


def assert_no_worse_than_pytorch(backend: str, case: Case, dtype: torch.dtype) -> None:
    """Errors against float64 at most twice PyTorch's in ``dtype``, or a few units in the last place.

    Those are units of the largest value, or of the largest root of a sum of squared terms if that is more:
    what a single sum cancels to says nothing about its rounding. One in 16 bits, where all is summed in
    float32, else four, as luck with the order of a sum differs from case to case. PyTorch itself is held
    against the definition in ``dtype``; its weight gradients need 16.
    """
    inputs = case.inputs(dtype)
    wide = [value.double() for value in inputs]
    exact = run("naive", case, *wide)
    scales = run("naive", case, *(value.square() for value in wide))
    plain = run("naive" if backend == "torch" else "torch", case, *inputs)
    units = 1 if dtype in (torch.bfloat16, torch.float16) else 16 if backend == "torch" else 4
    got = run(backend, case, *inputs)
    for name, value, other, wanted, squares in zip(
        ("y", "x", "weight"), got, plain, exact, scales, strict=True
    ):
        assert value.dtype == dtype
        assert value.shape == wanted.shape
        error, allowed = ((result.double() - wanted).abs().max().item() for result in (value, other))
        unit = units * torch.finfo(dtype).eps * max(wanted.abs().max().item(), squares.max().sqrt().item())
        assert error <= max(2 * allowed, unit), f"{name}: {error:.2e} of {max(2 * allowed, unit):.2e}: {case}"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_the_definition(backend: str, name: str, dtype: torch.dtype):
    assert_no_worse_than_pytorch(backend, CASES[name], dtype)


@needs_native
@pytest.mark.parametrize("kernel", list(itertools.product((1, 3, 5), repeat=3)), ids=str)
def test_every_kernel_size(kernel: Sizes):
    half = tuple(k // 2 for k in kernel)
    paddings = (half, (0, 0, 0), tuple(p + 1 for p in half), half)
    for stride, padding in zip((ONE, HALVED, ALL_HALVED, (3, 1, 2)), paddings, strict=True):
        case = Case((1, 9, 5, 6, 13), kernel, stride, padding)  # type: ignore[arg-type]
        assert_no_worse_than_pytorch("native", case, torch.float32)


def test_the_definition_is_the_written_sum():
    """y[o] = sum of weight[k] * x[o * stride - padding + k], added up one by one in Python."""
    case = Case((1, 2, 3, 4, 5), (3, 1, 3), (2, 1, 2), (1, 0, 2))
    x, weight, grad = case.inputs(torch.float64)
    with use_backend("naive"):
        y = depthwise_conv3d(x, weight, **case.options())
    for c, *o in itertools.product(*(range(n) for n in grad.shape[1:])):
        total = 0.0
        for k in itertools.product(*(range(n) for n in case.kernel)):
            q = [a * s - p + b for a, s, p, b in zip(o, case.stride, case.padding, k, strict=True)]
            if all(0 <= place < n for place, n in zip(q, case.shape[2:], strict=True)):
                total += weight[c, 0, k[0], k[1], k[2]].item() * x[0, c, q[0], q[1], q[2]].item()
        assert y[0, c, o[0], o[1], o[2]].item() == pytest.approx(total, abs=1e-12)


# ----------------------------------------------------------------------------------------------- random cases


def random_case(choice: random.Random) -> Case:
    """Any kernel, stride, padding, layout and size that the native kernels take; small."""
    kernel, stride = ([choice.choice(values) for _ in range(3)] for values in ((1, 3, 5), (1, 1, 2, 2, 3)))
    padding = [choice.randint(0, k // 2 + choice.choice((0, 0, 2))) for k in kernel]
    least = [max(1, k - 2 * p) for k, p in zip(kernel, padding, strict=True)]
    t, h, w = (n + choice.randint(0, more) for n, more in zip(least, (5, 9, 30), strict=True))
    shape = (choice.randint(1, 2), choice.choice((1, 3, 5, 8, 16, 17, 24, 33)), t, h, w)
    return Case(shape, tuple(kernel), tuple(stride), tuple(padding), choice.choice((PLANES, ROWS)))  # type: ignore[arg-type]


def fuzz(count: int, seed: int = 0) -> None:
    choice = random.Random(seed)
    for _ in range(count):
        case = random_case(choice)
        for dtype in DTYPES:
            assert_no_worse_than_pytorch("native", case, dtype)


@needs_native
@pytest.mark.parametrize("isa", ISAS)
def test_every_instruction_set(isa: str):
    library = native_library()
    assert library is not None
    if ISAS.index(isa) > ISAS.index(library.isa):
        pytest.skip(f"this processor has no {isa}")
    environment = os.environ | {"SACCADE_ISA": isa, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "error", __file__, "12"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr[-3000:]
    assert run.stdout.strip() == f"12 cases on {isa}"


# ----------------------------------------------------------------------------------------------------- memory


@needs_native
@pytest.mark.parametrize("name", CASES)
def test_every_element_is_written(name: str, monkeypatch: pytest.MonkeyPatch):
    poisoned = []
    allocate = native.allocate

    def poison(like: Tensor, shape: Any, layout: torch.memory_format) -> Tensor:
        poisoned.append(allocate(like, shape, layout).fill_(torch.nan))
        return poisoned[-1]

    monkeypatch.setattr(native, "allocate", poison)
    results = run("native", CASES[name], *CASES[name].inputs())
    assert len(poisoned) == 3
    assert all(result is not None and result.isfinite().all() for result in results)


@needs_native
@pytest.mark.parametrize("name", ["7_wide", "63_wide", "halved", "strides_3_1_2", "time_5", "several_tasks"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_same_bits_on_any_number_of_threads(name: str, dtype: torch.dtype):
    inputs = CASES[name].inputs(dtype)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = run("native", CASES[name], *inputs)
        for threads in (1, 2, 2, 3):
            torch.set_num_threads(threads)
            assert all(map(torch.equal, alone, run("native", CASES[name], *inputs)))
    finally:
        torch.set_num_threads(before)


def _strided(value: Tensor) -> Tensor:
    return torch.stack([value, torch.full_like(value, torch.nan)], dim=-1)[..., 0]


def _transposed(value: Tensor) -> Tensor:
    return value.transpose(1, 4).contiguous().transpose(1, 4)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("lay_out", [_strided, _transposed])
@pytest.mark.parametrize("stride", [ONE, HALVED], ids=str)
def test_any_memory_layout(backend: str, lay_out: Any, stride: Sizes):
    case = Case((2, 5, 3, 6, 7), stride=stride)
    inputs = case.inputs()
    laid_out = run(backend, case, *map(lay_out, inputs))
    torch.testing.assert_close(laid_out, run(backend, case, *inputs))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("stride", [ONE, HALVED], ids=str)
def test_expanded_inputs_and_gradients(backend: str, stride: Sizes):
    case = Case((2, 5, 3, 6, 7), stride=stride)
    x, weight, grad = case.inputs()
    expanded = (x[:1].expand_as(x), weight[:1].expand_as(weight), grad[:1, :1, :1, :1, :1].expand_as(grad))
    dense = (value.clone(memory_format=torch.contiguous_format) for value in expanded)
    torch.testing.assert_close(run(backend, case, *expanded), run(backend, case, *dense))


@needs_native
@pytest.mark.parametrize("layout", [PLANES, ROWS], ids=str)
def test_results_are_channels_last(layout: torch.memory_format):
    case = Case((2, 5, 3, 6, 7), layout=layout)
    y, grad_x, grad_weight = run("native", case, *case.inputs())
    assert y.is_contiguous(memory_format=ROWS)
    assert grad_x is not None
    assert grad_x.shape == case.shape
    assert grad_weight is not None
    assert grad_weight.is_contiguous()


@pytest.mark.parametrize("backend", ["naive", *BACKENDS])
@pytest.mark.parametrize("stride", [ONE, HALVED, (3, 1, 2)], ids=str)
def test_empty_batch(backend: str, stride: Sizes):
    case = Case((0, 3, 4, 6, 6), stride=stride)
    x, weight, grad = case.inputs()
    y, grad_x, grad_weight = run(backend, case, x, weight, grad)
    assert y.shape == grad.shape
    assert grad_x is not None
    assert grad_x.shape == x.shape
    assert grad_weight is not None
    assert torch.equal(grad_weight, torch.zeros_like(weight))


# -------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("backend", ["naive", *BACKENDS])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding"),
    [
        ((3, 3, 3), ONE, (1, 1, 1)),
        ((3, 3, 3), HALVED, (1, 1, 1)),
        ((1, 3, 5), (3, 1, 2), (0, 2, 1)),
    ],
    ids=str,
)
def test_gradients_against_differences(backend: str, kernel: Sizes, stride: Sizes, padding: Sizes):
    x, weight, _ = Case((1, 2, 3, 4, 5), kernel, stride, padding).inputs(torch.float64)

    def function(x: Tensor, weight: Tensor) -> Tensor:
        return depthwise_conv3d(x, weight, stride=stride, padding=padding)

    with use_backend(backend):  # type: ignore[arg-type]
        assert torch.autograd.gradcheck(function, (x.requires_grad_(), weight.requires_grad_()))


@needs_native
@pytest.mark.parametrize("stride", [ONE, HALVED, (3, 1, 2)], ids=str)
def test_either_gradient_alone(stride: Sizes):
    case = Case((2, 17, 4, 9, 10), stride=stride)
    x, weight, grad = case.inputs()
    _, grad_x, grad_weight = run("native", case, x, weight, grad)
    for need_x, need_weight in ((True, False), (False, True)):
        ours, theirs = x.clone().requires_grad_(need_x), weight.clone().requires_grad_(need_weight)
        with use_backend("native"):
            depthwise_conv3d(ours, theirs, **case.options()).backward(grad)
        assert torch.equal(ours.grad, grad_x) if need_x else ours.grad is None
        assert torch.equal(theirs.grad, grad_weight) if need_weight else theirs.grad is None


# ------------------------------------------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(3, 2, 4, 4)}, r"x has shape \(3, 2, 4, 4\): 5 axes BCTHW"),
        ({"x": torch.zeros(1, 3, 2, 4, 4, dtype=torch.int32)}, "x is torch.int32: one of torch.float32"),
        ({"x": torch.zeros(1, 3, 0, 4, 4)}, "x has 0 on T"),
        ({"weight": torch.zeros(4, 1, 3, 3, 3)}, r"weight has shape \(4, 1, 3, 3, 3\): \(3, 1, KT, KH, KW\)"),
        ({"weight": torch.zeros(3, 3, 3, 3, 3)}, r"weight has shape \(3, 3, 3, 3, 3\)"),
        ({"weight": torch.zeros(3, 1, 3, 3)}, r"weight has shape \(3, 1, 3, 3\)"),
        ({"weight": torch.zeros(3, 1, 3, 0, 3)}, "at least one tap on H"),
        ({"weight": torch.zeros(3, 1, 3, 3, 3).double()}, "weight is torch.float64 and x torch.float32"),
        ({"weight": torch.zeros(3, 1, 3, 3, 3, device="meta")}, "weight is on meta and x on cpu"),
        ({"weight": torch.zeros(3, 1, 3, 3, 7)}, "x has 4 on W and padding 1 there: too few for"),
        ({"stride": (1, 0, 1)}, r"stride is \(1, 0, 1\): 3 whole numbers of at least 1"),
        ({"stride": 2}, "stride is 2: 3 whole numbers of at least 1"),
        ({"stride": (1, 1.5, 1)}, r"stride is \(1, 1.5, 1\): 3 whole numbers"),
        ({"stride": "abc"}, "stride is abc: 3 whole numbers"),
        ({"padding": (0, 0)}, r"padding is \(0, 0\): 3 whole numbers of at least 0"),
        ({"padding": (0, -1, 0)}, r"padding is \(0, -1, 0\)"),
        ({"padding": None}, "padding is None"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], message: str):
    arguments = {"x": torch.zeros(1, 3, 2, 4, 4), "weight": torch.zeros(3, 1, 3, 3, 3)}
    arguments |= {"padding": (1, 1, 1)} | change  # type: ignore[dict-item]
    with pytest.raises(UsageError, match=message):
        depthwise_conv3d(arguments.pop("x"), arguments.pop("weight"), **arguments)  # type: ignore[arg-type]


@needs_native
def test_kernel_sizes_that_no_native_kernel_has():
    x, weight = torch.randn(1, 3, 4, 5, 9), torch.randn(3, 1, 2, 3, 7)
    expected = F.conv3d(x, weight, groups=3)
    torch.testing.assert_close(depthwise_conv3d(x, weight), expected)
    with use_backend("native"), pytest.raises(UsageError, match="no kernel of 2x3x7: it takes sizes of 1, 3"):
        depthwise_conv3d(x, weight)


# ---------------------------------------------------------------------------- what else of PyTorch it runs in


@needs_native
@pytest.mark.parametrize(
    ("stride", "dtype"), [(ONE, torch.float32), (HALVED, torch.float32), (HALVED, torch.bfloat16)], ids=str
)
def test_registered_as_an_operator(stride: Sizes, dtype: torch.dtype):
    case = Case((1, 3, 2, 6, 6), stride=stride)
    x, weight, grad = case.inputs(dtype)
    options = (stride, case.padding)
    opcheck(
        forward_op, (x.clone().requires_grad_(), weight.clone().requires_grad_(), *options, False, "native")
    )
    for needs in ((True, True), (True, False), (False, True)):
        opcheck(backward_op, (grad, x, weight, *options, *needs, "native"))


@needs_native
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # PyTorch does it
def test_compiles_in_one_graph():
    case = Case((1, 3, 2, 6, 6), stride=HALVED)
    x, weight, grad = case.inputs()

    def call(x: Tensor, weight: Tensor) -> Tensor:
        return depthwise_conv3d(x, weight, **case.options()) + 1

    results = []
    for function in (call, torch.compile(call, fullgraph=True, backend="aot_eager")):
        x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
        y = function(x, weight)
        y.backward(grad)
        results.append((y, x.grad, weight.grad))
    assert all(map(torch.equal, *results))


def test_export_uses_pytorch():
    layer = DepthwiseConv3d(3, 3, stride=HALVED, padding=1).eval()
    x = torch.randn(1, 3, 2, 6, 6)
    program = torch.export.export(layer, (x,))
    assert not any("saccade" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(x), layer(x))


@needs_native
@pytest.mark.parametrize("stride", [ONE, HALVED], ids=str)
def test_operations_are_counted(stride: Sizes):
    """Two for each tap and output; as many again for each of the gradients."""
    case = Case((2, 6, 4, 8, 8), stride=stride)
    x, weight, grad = case.inputs()
    once = 2 * 27 * grad.numel()
    for needs, times in (((False, False), 1), ((False, True), 2), ((True, True), 3)):
        leaves = [value.clone().requires_grad_(need) for value, need in zip((x, weight), needs, strict=True)]
        with use_backend("native"), FlopCounterMode(display=False) as counter:
            y = depthwise_conv3d(*leaves, **case.options())
            if any(needs):
                y.backward(grad)
        assert counter.get_total_flops() == times * once


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_under_autocast(backend: str, dtype: torch.dtype):
    case = Case((1, 5, 3, 6, 7), stride=HALVED)
    x, weight, grad = case.inputs()
    with torch.autocast("cpu", dtype=dtype):
        y, grad_x, grad_weight = run(backend, case, x, weight, grad.to(dtype))
        wide = run(backend, case, x.double(), weight.double(), grad.double())[0]
    assert (y.dtype, wide.dtype) == (dtype, torch.float64)
    assert grad_x is not None
    assert grad_weight is not None
    assert (grad_x.dtype, grad_weight.dtype) == (torch.float32, torch.float32)
    rounded = run(backend, case, *(value.to(dtype) for value in (x, weight, grad)))
    assert torch.equal(y, rounded[0])
    assert torch.equal(grad_x.to(dtype), rounded[1])
    assert torch.equal(grad_weight.to(dtype), rounded[2])


def test_on_the_meta_device():
    x, weight = torch.empty(2, 6, 5, 9, 7, device="meta"), torch.empty(6, 1, 3, 3, 3, device="meta")
    y = depthwise_conv3d(x, weight, stride=(2, 2, 1), padding=(1, 1, 0))
    assert y.device.type == "meta"
    assert y.shape == (2, 6, 3, 5, 5)


def test_the_layer_is_a_grouped_convolution():
    torch.manual_seed(0)
    layer = DepthwiseConv3d(6, (3, 1, 3), stride=(1, 2, 1), padding=(1, 0, 1))
    plain = torch.nn.Conv3d(6, 6, (3, 1, 3), (1, 2, 1), (1, 0, 1), groups=6, bias=False)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(2, 6, 3, 5, 7)
    torch.testing.assert_close(layer(x), plain(x))


if __name__ == "__main__":
    library = native_library()
    assert library is not None
    fuzz(int(sys.argv[1]))
    print(f"{sys.argv[1]} cases on {library.isa}")
