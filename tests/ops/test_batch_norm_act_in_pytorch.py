"""batch_norm_act among PyTorch's operators: data types, layouts, autograd, compilers, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.library import opcheck

from saccade.errors import UsageError
from saccade.ops import batch_norm_act, use_backend
from saccade.ops._library import native_library
from saccade.ops.batch_norm_act.custom_op import backward_op, forward_op

needs_native = pytest.mark.skipif(native_library() is None, reason="the native operators are not built")
PLANES, ROWS = torch.contiguous_format, torch.channels_last_3d


# ----------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("backend", [pytest.param("native", marks=needs_native), "torch", "naive"])
def test_weights_may_be_of_full_precision(backend: Any, dtype: torch.dtype, autocast: bool):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 6, 2, 5, 5, generator=generator)
    shapes = [(6,), (6,), (4, 6, 1, 1, 1), (4,), (6, 4, 1, 1, 1), (6,)]
    weight, bias, *fc = (torch.randn(*shape, generator=generator).requires_grad_() for shape in shapes)

    def results(x: Tensor, backend: Any) -> list[Tensor]:
        x = x.clone().requires_grad_()
        with use_backend(backend), torch.autocast("cpu", dtype, enabled=autocast):
            y = batch_norm_act(
                *(x, weight, bias, torch.zeros(6), torch.ones(6)),
                training=True,
                activation="silu",
                squeeze_excite=tuple(fc),  # type: ignore[arg-type]
            )
        assert y.dtype == x.dtype
        return [y, *torch.autograd.grad(y.float().square().sum(), [x, weight, bias, *fc])]

    x = x.to(dtype)
    for ours, wanted in zip(results(x, backend), results(x.float(), "naive"), strict=True):
        error = (ours.detach().float() - wanted.detach().float()).abs().max()
        assert error <= 16 * torch.finfo(dtype).eps * wanted.abs().max()


@needs_native
@pytest.mark.parametrize("layout", [PLANES, ROWS], ids=str)
def test_layouts_of_outputs(layout: torch.memory_format):
    x = torch.randn(2, 6, 3, 4, 5).contiguous(memory_format=layout).requires_grad_()
    residual = torch.randn(2, 6, 3, 5, 4).transpose(3, 4).requires_grad_()
    norm = nn.BatchNorm3d(6)
    y = _apply(norm, x, "relu", residual=residual)
    assert y.is_contiguous(memory_format=layout)
    grads = torch.autograd.grad(y, (x, residual), torch.randn_like(y))
    assert all(grad.is_contiguous(memory_format=layout) for grad in grads)


def _apply(
    norm: nn.BatchNorm3d, x: Tensor, activation: Any, backend: Any = "native", **others: Any
) -> Tensor:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    with use_backend(backend):
        return batch_norm_act(
            *(x, norm.weight, norm.bias, norm.running_mean, norm.running_var),
            training=norm.training,
            activation=activation,
            **others,
        )


@needs_native
def test_other_strides_of_input_and_gradient():
    """Sliced, transposed, expanded: as their dense copies."""
    torch.manual_seed(0)
    norm = nn.BatchNorm3d(5)
    wide = torch.randn(2, 9, 3, 4, 6)
    gradients = [torch.ones(()).expand(2, 5, 3, 4, 6), torch.randn(6, 4, 3, 5, 2).permute(4, 3, 2, 1, 0)]
    for x in (wide[:, 2:7], wide[:, :5].transpose(3, 4).contiguous().transpose(3, 4), wide[:, ::2]):
        for gradient in gradients:
            results = []
            for copy in (x, x.contiguous()):
                leaf = copy.detach().requires_grad_()
                y = _apply(norm, leaf, "silu")
                dense = gradient if copy is x else gradient.contiguous()
                results.append((y, *torch.autograd.grad(y, (leaf, norm.weight, norm.bias), dense)))
            for a, b in zip(*results, strict=True):
                torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-6)


@needs_native
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_wide_excitation_of_strided_parameters(dtype: torch.dtype):
    """More hidden units than a vector holds, and small tensors that do not lie densely in memory."""
    torch.manual_seed(0)
    x = torch.randn(3, 70, 1, 2, 3, dtype=torch.float64)
    pairs = [torch.randn(140, dtype=torch.float64) for _ in range(3)]
    fc1, fc2 = torch.randn(70, 37, dtype=torch.float64) / 8, torch.randn(37, 70, dtype=torch.float64) / 6
    fc1_bias = torch.randn(37, dtype=torch.float64)

    def results(backend: Any, dtype: torch.dtype) -> list[Tensor]:
        leaves = [t.to(dtype).requires_grad_() for t in (x, *pairs, fc1, fc2, fc1_bias)]
        weight, bias, fc2_bias = (pair[::2] for pair in leaves[1:4])
        running = (torch.zeros(70, dtype=dtype), torch.ones(70, dtype=dtype))
        with use_backend(backend):
            y = batch_norm_act(
                *(leaves[0], weight, bias, *running),
                training=True,
                activation="silu",
                squeeze_excite=(leaves[4].T, leaves[6], leaves[5].T, fc2_bias),
                clip_scale=torch.tensor([1.5, 9.0, 0.0, 9.0, 0.5], dtype=dtype)[::2],
            )
        return [y.detach(), *torch.autograd.grad(y.square().sum(), leaves), *running]

    for ours, wanted in zip(results("native", dtype), results("naive", torch.float64), strict=True):
        error = (ours.double() - wanted).abs().max()
        assert error <= 32 * torch.finfo(dtype).eps * wanted.abs().max()


@pytest.mark.parametrize("backend", [pytest.param("native", marks=needs_native), "torch", "naive"])
@pytest.mark.parametrize("training", [True, False])
def test_empty_batch(backend: Any, training: bool):
    norm = nn.BatchNorm3d(4).train(training)
    assert norm.running_mean is not None
    norm.running_mean.fill_(0.5)
    x = torch.randn(0, 4, 2, 3, 3, requires_grad=True)
    residual = torch.randn(0, 4, 2, 3, 3, requires_grad=True)
    fc = (torch.randn(2, 4), torch.randn(2), torch.randn(4, 2), torch.randn(4))
    y = _apply(norm, x, "relu", backend, residual=residual, squeeze_excite=fc)
    y.sum().backward()
    assert y.shape == x.shape
    assert x.grad is not None
    assert x.grad.shape == x.shape
    assert norm.weight.grad is not None
    assert not norm.weight.grad.any()
    assert (norm.running_mean == 0.5).all()


# -------------------------------------------------------------------------------------------------- gradients


@pytest.mark.parametrize("training", [True, False])
def test_gradients_of_the_definition(training: bool):
    torch.manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    inputs = (
        draw(2, 3, 2, 2, 2),
        draw(3),
        draw(3),
        draw(2, 3),
        draw(2),
        draw(3, 2),
        draw(3),
        draw(2, 3, 2, 2, 2),
    )

    def function(x: Tensor, weight: Tensor, bias: Tensor, *rest: Tensor) -> Tensor:
        running = (torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64))
        return batch_norm_act(
            *(x, weight, bias, *running),
            training=training,
            activation="silu",
            squeeze_excite=rest[:4],  # type: ignore[arg-type]
            clip_scale=torch.tensor([0.0, 1.5], dtype=torch.float64),
            residual=rest[4],
        )

    with use_backend("naive"):
        assert torch.autograd.gradcheck(function, inputs)
    if native_library() is not None:
        with use_backend("native"):
            assert torch.autograd.gradcheck(function, inputs)


@needs_native
@pytest.mark.parametrize("activation", ["none", "relu", "silu"])
def test_only_what_is_asked_for(activation: Any):
    """Frozen weights, an input or a residual without gradient: the other gradients stay what they are."""
    torch.manual_seed(0)
    norm = nn.BatchNorm3d(6).double()
    x, residual = (torch.randn(2, 6, 2, 5, 5, dtype=torch.float64) for _ in range(2))
    wanted = [x.clone().requires_grad_(), norm.weight, norm.bias, residual.clone().requires_grad_()]
    y = _apply(norm, wanted[0], activation, residual=wanted[3])
    gradient = torch.randn_like(y)
    grads = torch.autograd.grad(y, wanted, gradient)
    norm.requires_grad_(False)
    for index, names in ((0, (wanted[0], residual)), (3, (x, wanted[3]))):
        y = _apply(norm, names[0], activation, residual=names[1])
        (grad,) = torch.autograd.grad(y, wanted[index], gradient)
        torch.testing.assert_close(grad, grads[index])


@needs_native
def test_a_second_derivative_is_refused():
    x = torch.randn(2, 3, 2, 2, 2, requires_grad=True)
    y = _apply(nn.BatchNorm3d(3), x, "silu")
    (grad,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="autograd"):
        grad.sum().backward()


# -------------------------------------------------------------------------------------------------- compilers


@needs_native
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of opcheck's own
@pytest.mark.parametrize("layout", [PLANES, ROWS], ids=str)
@pytest.mark.parametrize("by_batch", [True, False])
def test_the_registered_operators_are_sound(layout: torch.memory_format, by_batch: bool):
    torch.manual_seed(0)
    x, residual = (torch.randn(2, 5, 2, 3, 4).contiguous(memory_format=layout) for _ in range(2))
    weight, bias, mean, var = (torch.rand(5) + 0.1 for _ in range(4))
    fc = [torch.randn(3, 5, 1, 1, 1), torch.randn(3), torch.randn(5, 3, 1, 1, 1), torch.randn(5)]
    leaves = [tensor.requires_grad_() for tensor in (x, weight, bias, *fc, residual)]
    statistics = (None, None) if by_batch else (mean, var)
    scale = torch.tensor([0.0, 2.0])
    options = (1e-5, "relu", 1, "native")
    opcheck(forward_op, (*leaves[:3], *statistics, *leaves[3:7], scale, leaves[7], *options))
    opcheck(forward_op, (*leaves[:3], *statistics, *[None] * 6, 1e-5, "silu", 1, "native"))
    plain = [tensor.detach() for tensor in leaves]
    y, *saved = forward_op(*plain[:3], *statistics, *plain[3:7], scale, plain[7], *options)
    grad = torch.randn_like(y)
    opcheck(
        backward_op,
        (grad, *plain[:3], *saved, *plain[3:7], scale, y, by_batch, 1e-5, "relu", "native"),
        test_utils=("test_schema", "test_faketensor"),
    )


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm3d(6)

    def forward(self, x: Tensor) -> Tensor:
        assert self.norm.running_mean is not None
        assert self.norm.running_var is not None
        vectors = (self.norm.weight, self.norm.bias, self.norm.running_mean, self.norm.running_var)
        return batch_norm_act(x, *vectors, training=self.training, activation="silu", residual=x)


@needs_native
def test_compile_keeps_it_whole():
    torch.manual_seed(0)
    block, twin = Block(), Block()
    x = torch.randn(2, 6, 3, 4, 5)
    compiled = torch.compile(twin, backend="aot_eager", fullgraph=True)
    for _ in range(2):
        results = []
        for module in (block, compiled):
            leaf = x.clone().requires_grad_()
            y = module(leaf)
            results.append((y, *torch.autograd.grad(y.square().sum(), (leaf,))))
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b)
    for a, b in zip(block.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(a, b)


def test_export_uses_pytorch():
    block = Block().eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(block, (torch.randn(2, 6, 3, 4, 5),), dynamic_shapes=({0: batch},))
    assert not any("saccade" in str(node.target) for node in program.graph.nodes)
    x = torch.randn(5, 6, 3, 4, 5)
    torch.testing.assert_close(program.module()(x), block(x))


# ------------------------------------------------------------------------------------------------------ users


def test_bad_arguments() -> None:
    x = torch.randn(2, 4, 1, 2, 2)
    good = [torch.ones(4) for _ in range(4)]
    with pytest.raises(UsageError, match=r"x has shape \(2, 4\): 5 axes BCTHW are needed"):
        batch_norm_act(torch.randn(2, 4), *good, training=True)
    with pytest.raises(UsageError, match=r"x is torch.int64: one of"):
        batch_norm_act(x.long(), *good, training=True)
    with pytest.raises(UsageError, match=r"bias has shape \(3,\): \(4,\) is needed"):
        batch_norm_act(x, good[0], torch.ones(3), *good[2:], training=True)
    with pytest.raises(UsageError, match="activation is 'gelu': one of none, relu, silu"):
        batch_norm_act(x, *good, training=True, activation="gelu")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"residual has shape \(2, 4, 1, 2, 1\)"):
        batch_norm_act(x, *good, training=True, residual=x[..., :1])
    with pytest.raises(UsageError, match=r"residual is torch\.float64: it must have"):
        batch_norm_act(x, *good, training=True, residual=x.double())
    with pytest.raises(UsageError, match=r"clip_scale has shape \(4,\): \(2,\) is needed"):
        batch_norm_act(x, *good, training=True, clip_scale=good[0])
    fc = (torch.ones(3, 4), torch.ones(3), torch.ones(4, 2), torch.ones(4))
    with pytest.raises(UsageError, match=r"fc2's weight has shape \(4, 2\): \(4, 3\) is needed"):
        batch_norm_act(x, *good, training=True, squeeze_excite=fc)


@pytest.mark.parametrize("backend", [pytest.param("native", marks=needs_native), "torch", "naive"])
def test_a_single_value_per_channel_cannot_train(backend: Any):
    x = torch.randn(1, 4, 1, 1, 1)
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
        _apply(nn.BatchNorm3d(4), x, "none", backend)
    assert _apply(nn.BatchNorm3d(4).eval(), x, "none", backend).shape == x.shape
