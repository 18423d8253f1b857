"""What Triton kernels must do, on a GPU and in the interpreter: the checks that both test files run.

Every output and every gradient is held against the definition in float64. It may be up to twice as wrong as
PyTorch's own operators are in the same data type, or be wrong by one unit in the last place of the largest
value (by 2^-20 of it in float32: PyTorch may be lucky with a sum). All memory that the kernels are given to
write holds NaN before.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from saccade.ops import use_backend
from saccade.ops._backend import interpreting
from saccade.ops.batch_norm_act import batch_norm_act
from saccade.ops.depthwise_conv3d import depthwise_conv3d
from saccade.ops.shift import shift3d

GRADIENTS = ("dense", "expanded", "transposed")  # how the gradient that comes in may lie in memory


def kernels(operator: str) -> Any:
    return importlib.import_module(f"saccade.ops.{operator}.triton_kernel")


@contextmanager
def poisoned_memory(operator: str) -> Iterator[None]:
    module = kernels(operator)
    allocate = module.allocate
    with mock.patch.object(module, "allocate", lambda *args: allocate(*args).fill_(float("nan"))):
        yield


def assert_as_good(ours: Sequence[Tensor], plain: Sequence[Tensor], exact: Sequence[Tensor]) -> None:
    for index, (a, b, c) in enumerate(zip(ours, plain, exact, strict=True)):
        assert a.shape == c.shape, f"result {index}: {tuple(a.shape)} for {tuple(c.shape)}"
        if not c.numel():
            continue
        error, allowed = ((value.double() - c).abs().max().item() for value in (a, b))
        unit = max(torch.finfo(a.dtype).eps, 2**-20) * c.abs().max().item()
        if interpreting() and a.dtype == torch.bfloat16:
            unit *= 2  # the interpreter does not round to bfloat16, it cuts off
        assert error <= max(2 * allowed, unit), (
            f"result {index}: off by {error:.3g}, PyTorch by {allowed:.3g}"
        )


def incoming_gradient(like: Tensor, kind: str) -> Tensor:
    if kind == "expanded":
        return torch.randn((), device=like.device).to(like.dtype).expand_as(like)
    if kind == "transposed":
        return torch.randn_like(like.transpose(1, 4).contiguous()).transpose(1, 4)
    return torch.randn_like(like.contiguous())


def run(
    function: Callable[..., Tensor],
    inputs: Sequence[Tensor],
    grad: Tensor | None,
    backend: str,
    dtype: torch.dtype | None = None,
) -> tuple[Tensor, ...]:
    """Output and gradients of every input, in ``dtype`` or as they are."""
    inputs = [t.detach().clone().to(dtype or t.dtype).requires_grad_() for t in inputs]
    with use_backend(backend):  # type: ignore[arg-type]
        y = function(*inputs)
        if grad is None:
            return (y.detach(),)
        return (y.detach(), *torch.autograd.grad(y, inputs, grad.to(y.dtype)))


def compare(
    operator: str, function: Callable[..., Tensor], inputs: Sequence[Tensor], gradient: str = "dense"
) -> None:
    """Triton (on a GPU twice: the same bits) against PyTorch and the definition."""
    (y,) = run(function, inputs, None, "torch")
    grad = incoming_gradient(y, gradient)
    with poisoned_memory(operator):
        ours = run(function, inputs, grad, "triton")
        if y.is_cuda:
            again = run(function, inputs, grad, "triton")
            assert all(torch.equal(a, b) for a, b in zip(ours, again, strict=True)), "not the same bits twice"
    plain = run(function, inputs, grad, "torch")
    exact = run(function, inputs, grad, "naive", torch.float64)
    assert [t.dtype for t in ours] == [t.dtype for t in plain]
    assert_as_good(ours, plain, exact)


def check_depthwise(
    shape: tuple[int, ...],
    kernel: tuple[int, ...] = (3, 3, 3),
    stride: tuple[int, ...] = (1, 1, 1),
    padding: tuple[int, ...] = (1, 1, 1),
    dtype: torch.dtype = torch.float32,
    *,
    channels_last: bool = True,
    gradient: str = "dense",
    device: str = "cpu",
) -> None:
    torch.manual_seed(0)
    x = torch.randn(shape, device=device).to(dtype)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last_3d)
    weight = torch.randn(shape[1], 1, *kernel, device=device).to(dtype)

    def function(x: Tensor, weight: Tensor) -> Tensor:
        return depthwise_conv3d(x, weight, stride=stride, padding=padding)

    compare("depthwise_conv3d", function, (x, weight), gradient)


def check_shift(
    shape: tuple[int, ...],
    stride: tuple[int, ...] = (1, 1, 1),
    padding: tuple[int, ...] = (0, 0, 0),
    dtype: torch.dtype = torch.float32,
    *,
    quantize: bool = False,
    gradient: str = "dense",
    device: str = "cpu",
) -> None:
    """Shifts of all kinds: fractions, whole numbers, halves, further than the clip is long."""
    torch.manual_seed(0)
    x = torch.randn(shape, device=device).to(dtype)
    shift = torch.rand(3, shape[1], device=device) * 5 - 2.5
    special = torch.tensor([[0.0, 1.0, -1.5, 1e9], [-1.0, 0.5, 2.0, 0.3], [0.0, -0.5, 0.25, -2e9]])
    shift[:, : min(shape[1], 4)] = special[:, : shape[1]].to(device)

    def function(x: Tensor, shift: Tensor) -> Tensor:
        return shift3d(x, shift, stride=stride, padding=padding, quantize=quantize)

    compare("shift", function, (x, shift), gradient)


def check_batch_norm(
    shape: tuple[int, ...],
    activation: str = "none",
    dtype: torch.dtype = torch.float32,
    *,
    training: bool = True,
    hidden: int = 0,
    stochastic_depth: bool = False,
    residual: bool = False,
    channels_last: bool = True,
    num_splits: int = 1,
    tile: int = 4096,
    gradient: str = "dense",
    device: str = "cpu",
) -> None:
    """Squeeze-excitation weights are in ``dtype``, as PyTorch's linear layers need them."""
    torch.manual_seed(0)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, device=device)

    channels = shape[1]
    x = (normal(*shape) + normal(channels, 1, 1, 1)).to(dtype)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last_3d)
    inputs = [x, (normal(channels) + 2).to(dtype), normal(channels).to(dtype)]
    if hidden:
        sizes = ((hidden, channels), (hidden,), (channels, hidden), (channels,))
        inputs += [(normal(*size) / 2).to(dtype) for size in sizes]
    if residual:
        inputs.append(normal(*shape).to(dtype))
    clip_scale = torch.arange(shape[0], device=device) % 2 * 1.25 if stochastic_depth else None
    rows = (num_splits, channels) if num_splits > 1 else (channels,)
    statistics = (normal(*rows), normal(*rows).square() + 0.5)
    moved: list[tuple[Tensor, Tensor]] = []

    def function(x: Tensor, weight: Tensor, bias: Tensor, *rest: Tensor) -> Tensor:
        mean, var = (t.to(torch.promote_types(weight.dtype, torch.float32), copy=True) for t in statistics)
        moved.append((mean, var))
        return batch_norm_act(
            *(x, weight.to(mean.dtype), bias.to(mean.dtype), mean, var),
            training=training,
            activation=activation,  # type: ignore[arg-type]
            squeeze_excite=rest[:4] if hidden else None,  # type: ignore[arg-type]
            clip_scale=clip_scale,
            residual=rest[-1] if residual else None,
            num_splits=num_splits,
        )

    with mock.patch.object(kernels("batch_norm_act"), "TILE", tile):
        compare("batch_norm_act", function, inputs, gradient)
    ours, plain, exact = moved[1], *moved[-2:]
    assert_as_good(ours, plain, exact)


def _block(x: Tensor, weight: Tensor, shift: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    mean, var = torch.zeros_like(scale), torch.ones_like(scale)
    x = depthwise_conv3d(x, weight, padding=(1, 1, 1))
    x = batch_norm_act(x, scale, bias, mean, var, training=True, activation="silu", residual=x)
    return shift3d(x, shift)


def check_compiled(compiler: str, device: str = "cpu") -> None:
    """All three operators in one graph of PyTorch's compiler, with gradients."""
    torch.manual_seed(0)
    shapes = ((2, 6, 4, 5, 3), (6, 1, 3, 3, 3), (3, 6), (6,), (6,))
    inputs = [torch.randn(shape, device=device) for shape in shapes]
    grad = torch.randn(shapes[0], device=device)
    compiled = torch.compile(_block, fullgraph=True, backend=compiler)
    eager, whole = (run(function, inputs, grad, "triton") for function in (_block, compiled))
    for a, b in zip(eager, whole, strict=True):
        torch.testing.assert_close(a, b)
