"""shift3d and shift2d: every backend against the definition, output and every gradient."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.library import opcheck

from saccade.errors import UsageError
from saccade.ops import shift2d, shift3d, use_backend
from saccade.ops._library import ISAS, NativeLibrary, native_library
from saccade.ops.shift import native
from saccade.ops.shift.naive import output_size
from saccade.ops.shift.op import backward_op, forward_op

needs_native = pytest.mark.skipif(native_library() is None, reason="the native operators are not built")
BACKENDS = [pytest.param("native", marks=needs_native), "torch"]
DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]
ONE, NONE, HALVED = (1, 1, 1), (0, 0, 0), (1, 2, 2)


@dataclass(frozen=True)
class Case:
    """Inputs in float64, drawn from a seed. ``reach``: the largest shift; ``halves``: only 0, 0.5, 1 ..."""

    shape: tuple[int, int, int, int, int]
    stride: tuple[int, int, int] = ONE
    padding: tuple[int, int, int] = NONE
    quantize: bool = False
    reach: float = 1.5
    halves: bool = False

    def inputs(self) -> tuple[Tensor, Tensor, Tensor]:
        generator = torch.Generator().manual_seed(7)
        size = output_size(self.shape[2:], self.stride, self.padding)
        x = torch.randn(self.shape, generator=generator, dtype=torch.float64)
        shift = (torch.rand(3, self.shape[1], generator=generator) * 2 - 1) * self.reach
        if self.halves:
            shift = (shift * 2).round() / 2
        grad = torch.randn(*self.shape[:2], *size, generator=generator, dtype=torch.float64)
        return x, shift, grad  # the shift is drawn in float32: it is the same number in every precision

    def options(self) -> dict[str, Any]:
        return {"stride": self.stride, "padding": self.padding, "quantize": self.quantize}


CASES = {
    "one_pixel": Case((1, 1, 1, 1, 1)),
    "7_wide": Case((2, 54, 3, 7, 7)),
    "7_wide_tall": Case((1, 3, 2, 40, 7), reach=2),
    "14_wide_halved": Case((2, 5, 3, 14, 14), HALVED),
    "63_wide": Case((1, 3, 2, 9, 63)),
    "63_wide_halved": Case((1, 3, 2, 9, 63), HALVED, reach=3),
    "33_wide_halved_padded": Case((1, 4, 3, 6, 33), (2, 2, 2), (1, 1, 1)),
    "large_plane": Case((1, 2, 3, 70, 65)),
    "large_plane_padded": Case((1, 2, 2, 66, 64), padding=(1, 2, 3), reach=3),
    "rows_padded_in_height": Case((1, 3, 3, 5, 9), padding=(0, 2, 0)),
    "only_width_strided": Case((1, 3, 2, 5, 20), (1, 1, 2)),
    "only_height_strided": Case((1, 3, 2, 8, 17), (1, 2, 1)),
    "strides_2_3_4": Case((1, 4, 5, 10, 19), (2, 3, 4), (1, 0, 2)),
    "height_3_width_2": Case((1, 4, 2, 11, 20), (1, 3, 2), (0, 1, 1)),
    "far": Case((1, 30, 4, 6, 8), reach=15),
    "far_halved": Case((1, 30, 4, 6, 8), HALVED, reach=15),
    "halves": Case((1, 30, 4, 6, 8), halves=True),
    "halves_strided": Case((1, 30, 4, 6, 9), HALVED, halves=True),
    "still": Case((1, 2, 3, 4, 5), reach=0),
}
CASES |= {
    f"{name}_quantized": replace(CASES[name], quantize=True)
    for name in (
        "7_wide",
        "14_wide_halved",
        "large_plane",
        "strides_2_3_4",
        "far",
        "halves",
        "halves_strided",
    )
}


def run(backend: str, case: Case, x: Tensor, shift: Tensor, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x, shift = x.detach().requires_grad_(), shift.detach().requires_grad_()
    with use_backend(backend):
        out = shift3d(x, shift, **case.options())
    out.backward(grad)
    return out.detach(), x.grad, shift.grad


def assert_close(got: tuple[Tensor, ...], case: Case, x: Tensor, shift: Tensor, grad: Tensor) -> None:
    """Errors at most twice those of the definition in the same precision, and a rounding or two."""
    exact = run("naive", case, x.double(), shift.double(), grad.double())
    plain = run("naive", case, x, shift, grad)
    # in float64 the definition is its own reference
    roundings = 4 if x.dtype == torch.float64 else 1
    scales = (exact[0].abs().max(), exact[1].abs().max(), x.double().norm() * grad.double().norm())
    for name, value, reference, other, scale in zip(
        ("out", "x", "shift"), got, exact, plain, scales, strict=True
    ):
        assert value.dtype == other.dtype
        error = (value - reference).abs().max()
        allowed = 2 * (other - reference).abs().max() + roundings * torch.finfo(value.dtype).eps * scale
        assert error <= allowed, f"{name}: {error:.1e} of {allowed:.1e}"


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_equals_the_definition(backend: str, name: str, dtype: torch.dtype):
    case = CASES[name]
    x, shift, grad = (value.to(dtype) for value in case.inputs())
    shift = case.inputs()[1].to(torch.float64 if dtype == torch.float64 else torch.float32)
    assert_close(run(backend, case, x, shift, grad), case, x, shift, grad)


@needs_native
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    "name", ["7_wide", "14_wide_halved", "large_plane", "strides_2_3_4", "halves_quantized"]
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_instruction_set(isa: str, name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("SACCADE_ISA", isa)
    try:
        library = NativeLibrary(native_library().path)
    except UsageError as error:
        pytest.skip(str(error))
    assert library.isa == isa
    monkeypatch.setattr(native, "native_library", lambda: library)
    case = CASES[name]
    x, _, grad = (value.to(dtype) for value in case.inputs())
    shift = case.inputs()[1].to(torch.float64 if dtype == torch.float64 else torch.float32)
    assert_close(run("native", case, x, shift, grad), case, x, shift, grad)


@needs_native
@pytest.mark.parametrize("name", CASES)
def test_every_element_is_written(name: str, monkeypatch: pytest.MonkeyPatch):
    poisoned = []

    def poison(like: Tensor, shape: Any) -> Tensor:
        poisoned.append(like.new_full(shape, torch.nan))
        return poisoned[-1]

    monkeypatch.setattr(native, "allocate", poison)
    results = run("native", CASES[name], *(value.float() for value in CASES[name].inputs()))
    assert len(poisoned) == 3
    assert all(result.isfinite().all() for result in results)


@needs_native
@pytest.mark.parametrize("name", ["7_wide", "14_wide_halved", "large_plane", "63_wide_halved"])
def test_same_bits_on_any_number_of_threads(name: str):
    inputs = [value.float() for value in CASES[name].inputs()]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = run("native", CASES[name], *inputs)
        torch.set_num_threads(2)
        for _ in range(3):
            together = run("native", CASES[name], *inputs)
            assert all(map(torch.equal, alone, together))
    finally:
        torch.set_num_threads(before)


def _strided(value: Tensor) -> Tensor:
    return torch.stack([value, torch.full_like(value, torch.nan)], dim=-1)[..., 0]


def _channels_last(value: Tensor) -> Tensor:
    return value.contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("lay_out", [_strided, _channels_last])
@pytest.mark.parametrize("stride", [ONE, HALVED])
def test_any_memory_layout(backend: str, lay_out: Any, stride: tuple[int, int, int]):
    case = Case((2, 3, 4, 5, 6), stride)
    x, shift, grad = (value.float() for value in case.inputs())
    laid_out = run(backend, case, lay_out(x), shift.T.contiguous().T, lay_out(grad))
    torch.testing.assert_close(laid_out, run(backend, case, x, shift, grad))


@pytest.mark.parametrize("backend", BACKENDS)
def test_expanded_inputs_and_gradients(backend: str):
    case = Case((2, 3, 4, 5, 6))
    x, shift, grad = (value.float() for value in case.inputs())
    x, shift, grad = x[:1].expand(2, -1, -1, -1, -1), shift[:, :1].expand(-1, 3), grad[:1, :1].expand_as(grad)
    dense = (value.clone(memory_format=torch.contiguous_format) for value in (x, shift, grad))
    assert all(map(torch.equal, run(backend, case, x, shift, grad), run(backend, case, *dense)))


@pytest.mark.parametrize("backend", ["naive", *BACKENDS])
@pytest.mark.parametrize("stride", [ONE, HALVED])
def test_empty_batch(backend: str, stride: tuple[int, int, int]):
    case = Case((0, 3, 4, 6, 6), stride)
    out, grad_x, grad_shift = run(backend, case, *(value.float() for value in case.inputs()))
    assert tuple(out.shape) == (0, 3, 4, *((3, 3) if stride == HALVED else (6, 6)))
    assert grad_x.shape == case.shape
    assert torch.equal(grad_shift, torch.zeros(3, 3))


@pytest.mark.parametrize("backend", ["naive", "torch"])
@pytest.mark.parametrize(
    ("stride", "padding"), [(ONE, NONE), (HALVED, (0, 1, 1)), ((2, 3, 1), (1, 0, 2))], ids=str
)
def test_gradients_by_autograd(backend: str, stride: tuple[int, ...], padding: tuple[int, ...]):
    torch.manual_seed(3)
    x = torch.randn(2, 3, 3, 4, 5, dtype=torch.float64, requires_grad=True)
    shift = (torch.rand(3, 3, dtype=torch.float64) * 4 - 2).requires_grad_()
    with use_backend(backend):
        assert torch.autograd.gradcheck(
            lambda x, s: shift3d(x, s, stride=stride, padding=padding), (x, shift)
        )


@pytest.mark.parametrize("backend", ["naive", *BACKENDS])
@pytest.mark.parametrize("stride", [ONE, HALVED, (1, 3, 3)])
def test_quantized_input_gradient_is_the_adjoint(backend: str, stride: tuple[int, int, int]):
    case = Case((2, 30, 4, 6, 9), stride, quantize=True, halves=True)
    x, shift, grad = case.inputs()
    out, grad_x, grad_shift = run(backend, case, x, shift, grad)
    torch.testing.assert_close((out * grad).sum(), (x * grad_x).sum(), rtol=1e-12, atol=0)
    smooth = run(backend, replace(case, quantize=False), x, shift, grad)
    torch.testing.assert_close(grad_shift, smooth[2], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", ["naive", *BACKENDS])
def test_quantized_rounds_halves_up(backend: str):
    shift = torch.tensor([-1.5, -0.5, -0.25, 0.49999997, 0.5, 1.5, 2.49])
    x = torch.arange(5.0).expand(1, 7, 1, 1, 5)
    rows = torch.stack([torch.zeros(7), torch.zeros(7), shift])
    with use_backend(backend):
        middle = shift3d(x, rows, quantize=True)[0, :, 0, 0, 2]
    assert (middle - 2).tolist() == [-1, 0, 0, 0, 1, 2, 2]


@pytest.mark.parametrize("backend", ["naive", *BACKENDS])
def test_a_positive_shift_reads_later_frames_and_larger_coordinates(backend: str):
    x = torch.arange(24.0).view(1, 1, 2, 3, 4)
    with use_backend(backend):
        out = shift3d(x, torch.tensor([[1.0], [1.0], [0.25]]))
    expected = torch.zeros_like(x)
    expected[0, 0, 0, :2] = 0.75 * x[0, 0, 1, 1:] + 0.25 * torch.nn.functional.pad(x[0, 0, 1, 1:, 1:], (0, 1))
    assert torch.equal(out, expected)


@pytest.mark.parametrize("backend", ["naive", *BACKENDS])
def test_a_whole_shift_has_the_right_derivative(backend: str):
    case = Case((1, 4, 5, 6, 7))
    x, _, grad = case.inputs()
    shift = torch.tensor([[0, 1, -1, 2], [0, -2, 0, 1], [0, 0, 3, -1]], dtype=torch.float64)
    out, _, grad_shift = run(backend, case, x, shift, grad)
    for axis in range(3):
        step = torch.zeros_like(shift)
        step[axis] = 1
        moved = run(backend, case, x, shift + step, grad)[0]
        expected = ((moved - out) * grad).sum(dim=(0, 2, 3, 4))
        torch.testing.assert_close(grad_shift[axis], expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("backend", ["naive", *BACKENDS])
@pytest.mark.parametrize("shift", [1e3, -1e3, 3e9, -3e9, 1e30, -1e30])
@pytest.mark.parametrize("stride", [ONE, HALVED, (1, 3, 3)])
def test_beyond_the_frame_there_are_zeros(backend: str, shift: float, stride: tuple[int, int, int]):
    for axis in range(3):
        rows = torch.zeros(3, 2)
        rows[axis] = shift
        case = Case((1, 2, 3, 7, 8), stride)
        x, _, grad = case.inputs()
        results = run(backend, case, x.float(), rows, grad.float())
        assert all(torch.equal(result, torch.zeros_like(result)) for result in results)


@pytest.mark.parametrize("backend", ["naive", *BACKENDS])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_shift_that_is_no_number_shows(backend: str, value: float):
    shift = torch.zeros(3, 2)
    shift[1, 0] = value
    with use_backend(backend):
        out = shift3d(torch.ones(1, 2, 3, 4, 5), shift)
    assert out[:, 0].isnan().all()
    assert torch.equal(out[:, 1], torch.ones(1, 3, 4, 5))


@needs_native
@pytest.mark.parametrize("stride", [ONE, HALVED, (1, 3, 3)])
@pytest.mark.parametrize("quantize", [False, True])
def test_either_gradient_alone(stride: tuple[int, int, int], quantize: bool):
    case = Case((2, 3, 4, 9, 10), stride, quantize=quantize)
    x, shift, grad = (value.float() for value in case.inputs())
    _, grad_x, grad_shift = run("native", case, x, shift, grad)
    for need_x, need_shift in ((True, False), (False, True)):
        ours, theirs = x.clone().requires_grad_(need_x), shift.clone().requires_grad_(need_shift)
        with use_backend("native"):
            shift3d(ours, theirs, **case.options()).backward(grad)
        assert ours.grad is None if not need_x else torch.allclose(ours.grad, grad_x, atol=1e-6)
        assert theirs.grad is None if not need_shift else torch.allclose(theirs.grad, grad_shift, atol=1e-4)


@needs_native
@pytest.mark.parametrize("registered", [False, True])
@pytest.mark.parametrize("need_shift", [False, True])
def test_the_clip_is_kept_for_the_gradient_of_the_shift_alone(need_shift: bool, registered: bool):
    case = Case((2, 3, 4, 9, 10))
    x, shift, _ = (value.float() for value in case.inputs())
    x, shift = x.requires_grad_(), shift.requires_grad_(need_shift)
    kept: list[Tensor] = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor), lambda _: None):
        if registered:
            forward_op(x, shift, ONE, NONE, False, "native")
        else:
            with use_backend("native"):
                shift3d(x, shift)
    assert [tuple(tensor.shape) for tensor in kept] == [tuple(x.shape)] * need_shift + [tuple(shift.shape)]


@pytest.mark.parametrize("backend", ["naive", *BACKENDS])
@pytest.mark.parametrize("stride", [(1, 1), (2, 2)])
def test_two_axes_are_three_with_one_frame(backend: str, stride: tuple[int, int]):
    torch.manual_seed(5)
    x, shift = torch.randn(2, 3, 6, 7, requires_grad=True), (torch.rand(2, 3) * 3 - 1.5).requires_grad_()
    options = {"quantize": False, "normalize_grad": True}
    with use_backend(backend):
        out = shift2d(x, shift, stride=stride, padding=(1, 0), **options)
        grads = torch.autograd.grad(out.square().sum(), (x, shift))
        row = torch.zeros(1, 3)
        full = torch.cat([row, shift])
        same = shift3d(x[:, :, None], full, stride=(1, *stride), padding=(0, 1, 0))[:, :, 0]
        other = torch.autograd.grad(same.square().sum(), (x, shift))
    assert torch.equal(out, same)
    assert torch.equal(grads[0], other[0])
    torch.testing.assert_close(grads[1], other[1] / other[1].norm(dim=0))


@pytest.mark.parametrize("factor", [1.0, 0.25, -1.0, "auto"])
def test_normalized_gradients_have_length_one(factor: Any):
    case = Case((2, 3, 4, 8, 6))
    x, shift, grad = (value.float() for value in case.inputs())
    grad[:, 2] = 0
    raw = run("naive", case, x, shift, grad)[2]
    shift = shift.requires_grad_()
    with use_backend("naive"):
        shift3d(x, shift, normalize_grad=True, normalize_t_factor=factor).backward(grad)
    scale = torch.tensor([[4 / 8 if factor == "auto" else factor], [1.0], [1.0]])
    expected = raw * (torch.tensor([[1.0], [0.0], [0.0]]) if factor == -1.0 else scale)
    expected[:, :2] /= expected[:, :2].norm(dim=0)
    torch.testing.assert_close(shift.grad, expected)
    assert torch.equal(shift.grad[:, 2], torch.zeros(3))


@pytest.mark.parametrize("backend", ["naive", *BACKENDS])
def test_the_shift_may_be_of_another_type(backend: str):
    case = Case((1, 3, 2, 5, 6))
    x, shift, grad = case.inputs()
    for x_dtype, shift_dtype in ((torch.bfloat16, torch.float32), (torch.float32, torch.float64)):
        results = run(backend, case, x.to(x_dtype), shift.to(shift_dtype), grad.to(x_dtype))
        assert [result.dtype for result in results] == [x_dtype, x_dtype, shift_dtype]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(2, 3, 4, 5)}, r"x has shape \(2, 3, 4, 5\): 5 axes BCTHW"),
        ({"x": torch.zeros(1, 3, 2, 4, 4, dtype=torch.int32)}, r"x is torch.int32: one of torch.float32"),
        ({"x": torch.zeros(1, 3, 0, 4, 4)}, "at least one frame and one pixel"),
        ({"shift": torch.zeros(3, 4)}, r"shift has shape \(3, 4\): \(3, 3\) is needed"),
        ({"shift": torch.zeros(2, 3)}, r"shift has shape \(2, 3\)"),
        ({"shift": torch.zeros(3, 3, dtype=torch.long)}, "shift is torch.int64: a floating point type"),
        ({"shift": torch.zeros(3, 3, device="meta")}, "shift is on meta and x on cpu"),
        ({"stride": (1, 0, 1)}, r"stride is \(1, 0, 1\): 3 whole numbers of at least 1"),
        ({"stride": 2}, "stride is 2: 3 whole numbers"),
        ({"padding": (0, 0)}, r"padding is \(0, 0\): 3 whole numbers of at least 0"),
        ({"normalize_grad": True, "normalize_t_factor": "T"}, "normalize_t_factor is 'T': a number or"),
    ],
)
def test_wrong_arguments_are_named(change: dict[str, Any], message: str):
    arguments = {"x": torch.zeros(1, 3, 2, 4, 4), "shift": torch.zeros(3, 3)} | change
    with pytest.raises(UsageError, match=message):
        shift3d(arguments.pop("x"), arguments.pop("shift"), **arguments)
    with pytest.raises(UsageError, match="4 axes BCHW"):
        shift2d(torch.zeros(1, 3, 2, 4, 4), torch.zeros(2, 3))


@needs_native
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # PyTorch does it
@pytest.mark.parametrize("normalize", [False, True])
def test_compiles_in_one_graph(normalize: bool):
    case = Case((1, 3, 2, 6, 6), HALVED)
    x, shift, grad = (value.float() for value in case.inputs())

    def call(x: Tensor, shift: Tensor) -> Tensor:
        return shift3d(x, shift, **case.options(), normalize_grad=normalize) + 1

    results = []
    for function in (call, torch.compile(call, fullgraph=True, backend="aot_eager")):
        x, shift = x.detach().requires_grad_(), shift.detach().requires_grad_()
        out = function(x, shift)
        out.backward(grad)
        results.append((out, x.grad, shift.grad))
    assert all(map(torch.equal, *results))


@needs_native
@pytest.mark.parametrize("stride", [ONE, HALVED])
def test_registered_as_an_operator(stride: tuple[int, int, int]):
    case = Case((1, 3, 2, 6, 6), stride)
    x, shift, grad = (value.float() for value in case.inputs())
    options = (stride, NONE, False)
    opcheck(forward_op, (x.requires_grad_(), shift.requires_grad_(), *options, "native"))
    x, shift = x.detach(), shift.detach()
    for data, need_input in ((x, True), (None, True), (x, False)):
        opcheck(backward_op, (grad, data, shift, x.shape[2:], *options, need_input, "native"))


def test_export_uses_pytorch():
    class Shift(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift = torch.nn.Parameter(torch.full((3, 3), 0.3))

        def forward(self, x: Tensor) -> Tensor:
            return shift3d(x, self.shift, stride=HALVED, normalize_grad=True)

    x = torch.randn(1, 3, 2, 6, 6)
    program = torch.export.export(Shift(), (x,))
    assert not any("saccade" in str(node.target) for node in program.graph.nodes)
    torch.testing.assert_close(program.module()(x), Shift()(x))


@needs_native
@pytest.mark.parametrize("stride", [ONE, HALVED])
def test_the_short_way_around_the_dispatcher_is_the_same(stride: tuple[int, int, int]):
    case = Case((2, 3, 4, 6, 6), stride)
    x, shift, grad = (value.float() for value in case.inputs())
    eager = run("native", case, x, shift, grad)
    x, shift = x.requires_grad_(), shift.requires_grad_()
    out = forward_op(x, shift, stride, NONE, False, "native")
    out.backward(grad)
    assert all(map(torch.equal, eager, (out, x.grad, shift.grad)))
