"""norm_act: one operator gives what the modules give one after the other."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from saccade.layers import DropPath, SqueezeExcite, SyncBatchNorm3d, norm_act
from saccade.ops import use_backend
from saccade.ops._library import native_library

BACKENDS = ["torch", "naive"] + (["native"] if native_library() is not None else [])


class Tail(nn.Module):
    """What ends a block: norm, squeeze-excitation, stochastic depth, addition, activation."""

    def __init__(self, activation: Any, norm: nn.Module, *, excite: bool = True, rate: float = 0.5) -> None:
        super().__init__()
        self.activation = activation
        self.norm = norm
        self.se = SqueezeExcite(6, 4) if excite else nn.Identity()
        self.drop_path = DropPath(rate)

    def forward(self, x: Tensor, residual: Tensor | None) -> Tensor:
        others = {"squeeze_excite": self.se, "drop_path": self.drop_path, "residual": residual}
        return norm_act(x, self.norm, self.activation, **others)  # type: ignore[arg-type]


class ByHand(Tail):
    def forward(self, x: Tensor, residual: Tensor | None) -> Tensor:
        x = self.drop_path(self.se(self.norm(x)))
        x = x if residual is None else residual + x
        activations: dict[str, Callable[[Tensor], Tensor]] = {
            "relu": F.relu,
            "silu": F.silu,
            "none": nn.Identity(),
        }
        return activations[self.activation](x)


def pair(activation: Any, make: Callable[[], nn.Module] | None = None, **options: Any) -> tuple[Tail, ByHand]:
    make = make or (lambda: nn.BatchNorm3d(6, eps=1e-3, momentum=0.3))
    torch.manual_seed(0)
    ours, by_hand = Tail(activation, make(), **options), ByHand(activation, make(), **options)
    with torch.no_grad():
        for value in ours.parameters():
            value.normal_()
    by_hand.load_state_dict(ours.state_dict())
    return ours.double(), by_hand.double()


def assert_equal(
    ours: nn.Module, by_hand: nn.Module, *, residual: bool = True, tolerance: float = 1e-10
) -> None:
    """Two batches: outputs, gradients of input and parameters, buffers; the same seed before each."""
    for batch in range(2):
        results = []
        for module in (ours, by_hand):
            torch.manual_seed(batch)
            dtype = next(module.parameters()).dtype
            x = torch.randn(8, 6, 2, 5, 3, dtype=dtype, requires_grad=True)
            shortcut = torch.randn(8, 6, 2, 5, 3, dtype=dtype, requires_grad=True) if residual else None
            y = module(x, shortcut)
            inputs = [x, *([shortcut] if shortcut is not None else []), *module.parameters()]
            results.append([y, *torch.autograd.grad(y, inputs, torch.randn_like(y)), *module.buffers()])
        for got, wanted in zip(*results, strict=True):
            torch.testing.assert_close(got, wanted, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("activation", ["none", "relu", "silu"])
@pytest.mark.parametrize(("excite", "residual"), [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize("training", [True, False])
def test_as_the_modules(backend: Any, activation: str, excite: bool, residual: bool, training: bool):
    ours, by_hand = pair(activation, excite=excite)
    with use_backend(backend):
        assert_equal(ours.train(training), by_hand.train(training), residual=residual)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_mean_of_all_batches(backend: Any):
    """momentum=None is PyTorch's word for it."""
    ours, by_hand = pair("relu", lambda: nn.BatchNorm3d(6, momentum=None))
    with use_backend(backend):
        assert_equal(ours, by_hand)
        assert_equal(ours.eval(), by_hand.eval())


@pytest.fixture
def fused(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Grows by an element with every call of the operator."""
    calls: list[bool] = []
    layer = sys.modules["saccade.layers.norm_act"]  # the package has a function of this name
    original = layer.batch_norm_act

    def counted(*args: Any, **options: Any) -> Tensor:
        calls.append(True)
        return original(*args, **options)

    monkeypatch.setattr(layer, "batch_norm_act", counted)
    return calls


class OwnNorm(nn.BatchNorm3d):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) * 2


@pytest.mark.parametrize(
    "make",
    [
        lambda: OwnNorm(6),
        lambda: SyncBatchNorm3d(6),
        lambda: nn.BatchNorm3d(6, track_running_stats=False),
        lambda: nn.GroupNorm(2, 6),
    ],
)
def test_other_norms_run_as_they_are(fused: list[bool], make: Callable[[], nn.Module]):
    assert_equal(*pair("silu", make))
    assert not fused


@pytest.mark.parametrize("name", ["norm", "se", "se.fc1", "drop_path"])
def test_hooks_are_called(fused: list[bool], name: str):
    ours, by_hand = pair("relu")
    seen: list[nn.Module] = []
    handle = ours.get_submodule(name).register_forward_hook(lambda module, *_: seen.append(module))
    assert_equal(ours, by_hand)
    assert seen == [ours.get_submodule(name)] * 2
    assert not fused
    handle.remove()
    assert_equal(ours, by_hand)
    assert len(seen) == 2
    assert len(fused) == 2


def test_hooks_on_all_modules_are_called(fused: list[bool]):
    ours, by_hand = pair("relu")
    seen: list[nn.Module] = []
    handle = register_module_forward_hook(lambda module, *_: seen.append(module))
    try:
        assert_equal(ours, by_hand)
    finally:
        handle.remove()
    assert ours.norm in seen
    assert not fused


def test_other_gates_and_branches_run_as_they_are(fused: list[bool]):
    for change in ("per_frame", "bias", "drop_path"):
        ours, by_hand = pair("silu")
        for module in (ours, by_hand):
            if change == "drop_path":
                module.drop_path = nn.Dropout(0.0)  # type: ignore[assignment]
            else:
                torch.manual_seed(1)
                module.se = SqueezeExcite(6, 4, **{change: change == "per_frame"}).double()  # type: ignore[arg-type]
        assert_equal(ours, by_hand)
    assert not fused


def test_a_residual_of_another_type_is_promoted(fused: list[bool]):
    ours, by_hand = pair("relu", rate=0.0)
    x = torch.randn(2, 6, 2, 3, 3)
    residual = torch.randn(2, 6, 2, 3, 3, dtype=torch.float64)
    y = ours.float()(x, residual)
    assert y.dtype == torch.float64
    torch.testing.assert_close(y, by_hand.float()(x, residual))
    assert not fused


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("incoming", [torch.bfloat16, torch.float32])
def test_autocast(backend: Any, incoming: torch.dtype):
    """The types are those of the modules, and the values no further from those without autocast."""
    ours, by_hand = pair("silu", rate=0.0)
    ours, by_hand = ours.float(), by_hand.float()
    x, residual = (torch.randn(2, 6, 2, 9, 9).to(incoming).requires_grad_() for _ in range(2))

    def run(module: nn.Module, *inputs: Tensor) -> list[Tensor]:
        y = module(*inputs)
        return [y, *torch.autograd.grad(y.float().square().mean(), [inputs[0], *module.parameters()])]

    exact = run(by_hand, *(tensor.detach().float().requires_grad_() for tensor in (x, residual)))
    with torch.autocast("cpu", torch.bfloat16), use_backend(backend):
        results = run(ours, x, residual), run(by_hand, x, residual)
    for got, modules, wanted in zip(*results, exact, strict=True):
        assert got.dtype == modules.dtype
        error, theirs = (((value.float() - wanted).norm() / wanted.norm()).item() for value in (got, modules))
        assert error <= 1.5 * theirs + 1e-5


@pytest.mark.parametrize("shape", [(4, 6, 2, 3, 3), (4, 6)])
def test_draws_of_drop_path_are_those_of_its_forward(shape: tuple[int, ...]):
    drop = DropPath(0.4)
    x = torch.randn(shape)
    torch.manual_seed(3)
    y = drop(x)
    torch.manual_seed(3)
    scale = drop.draw(x)
    assert scale is not None
    assert torch.equal(y, x * scale.view(-1, *(1,) * (x.ndim - 1)))
    assert DropPath(0.4).eval().draw(x) is None
    assert DropPath(0.0).draw(x) is None
