"""The Triton kernels on a GPU: at odd sizes and at models' sizes, compiled, on large tensors, in models."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import triton_checks as checks
from torch import Tensor, nn

import saccade
from saccade.ops import use_backend
from saccade.ops.batch_norm_act import batch_norm_act
from saccade.ops.depthwise_conv3d import depthwise_conv3d
from saccade.ops.shift import shift3d

pytestmark = [
    pytest.mark.gpu,
    # PyTorch's and Triton's own, when they compile
    pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning", "ignore::FutureWarning"),
]
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)


@pytest.fixture(autouse=True)
def device(cuda: torch.device, monkeypatch: pytest.MonkeyPatch) -> torch.device:
    """Needed by every test, so that none passes without a GPU; convolutions to compare with are exact."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    return cuda


# ------------------------------------------------------------------------- against PyTorch and the definition


@DTYPES
@pytest.mark.parametrize("gradient", checks.GRADIENTS)
@pytest.mark.parametrize(
    ("shape", "kernel", "stride", "padding"),
    [
        ((2, 5, 4, 7, 9), (3, 3, 3), (1, 1, 1), (1, 1, 1)),
        ((2, 54, 5, 29, 31), (3, 3, 3), (1, 2, 2), (1, 1, 1)),
        ((2, 24, 7, 33, 17), (5, 1, 1), (1, 1, 1), (2, 0, 0)),
        ((1, 3, 9, 12, 13), (5, 1, 3), (2, 3, 1), (2, 0, 2)),
        ((3, 108, 4, 14, 14), (3, 3, 3), (1, 1, 1), (1, 1, 1)),
        ((3, 432, 4, 7, 7), (3, 3, 3), (1, 1, 1), (1, 1, 1)),
        ((1, 63, 1, 1, 1), (1, 1, 1), (1, 1, 1), (0, 0, 0)),
        ((2, 2, 3, 9, 7), (5, 5, 5), (1, 1, 1), (2, 4, 1)),
        ((0, 4, 2, 3, 3), (3, 3, 3), (1, 1, 1), (1, 1, 1)),
    ],
    ids=str,
)
def test_depthwise(
    shape: Any, kernel: Any, stride: Any, padding: Any, gradient: str, dtype: torch.dtype
) -> None:
    checks.check_depthwise(shape, kernel, stride, padding, dtype, gradient=gradient, device="cuda")


@DTYPES
@pytest.mark.parametrize("gradient", checks.GRADIENTS)
@pytest.mark.parametrize("quantize", [False, True], ids=["smooth", "quantised"])
@pytest.mark.parametrize(
    ("shape", "stride", "padding"),
    [
        ((2, 5, 4, 7, 9), (1, 1, 1), (0, 0, 0)),
        ((2, 54, 8, 56, 56), (1, 1, 1), (0, 0, 0)),
        ((2, 54, 8, 57, 55), (1, 2, 2), (0, 0, 0)),
        ((3, 63, 9, 13, 7), (2, 3, 1), (1, 0, 2)),
        ((2, 432, 8, 7, 7), (1, 1, 1), (0, 0, 0)),
        ((1, 7, 1, 1, 1), (1, 1, 1), (0, 0, 0)),
        ((0, 4, 2, 3, 3), (1, 1, 1), (0, 0, 0)),
    ],
    ids=str,
)
def test_shift(
    shape: Any, stride: Any, padding: Any, quantize: bool, gradient: str, dtype: torch.dtype
) -> None:
    checks.check_shift(shape, stride, padding, dtype, quantize=quantize, gradient=gradient, device="cuda")


@DTYPES
@pytest.mark.parametrize("channels_last", [True, False], ids=["channels_last_3d", "contiguous"])
@pytest.mark.parametrize("gradient", checks.GRADIENTS)
@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((3, 5, 2, 7, 9), {"activation": "relu"}),
        ((4, 54, 4, 29, 31), {"activation": "silu", "hidden": 8}),
        ((4, 24, 4, 28, 28), {"activation": "relu", "residual": True, "stochastic_depth": True}),
        ((4, 63, 4, 13, 7), {"activation": "silu", "residual": True, "hidden": 8, "stochastic_depth": True}),
        ((4, 432, 4, 7, 7), {"residual": True, "hidden": 32}),
        ((4, 24, 3, 9, 9), {"activation": "relu", "num_splits": 2}),
        ((2, 24, 3, 9, 9), {"activation": "silu", "training": False}),
        ((1, 24, 16, 56, 56), {"activation": "relu"}),
        ((0, 3, 2, 2, 2), {"activation": "relu", "hidden": 2}),
    ],
    ids=str,
)
def test_batch_norm(
    shape: Any, options: dict[str, Any], gradient: str, channels_last: bool, dtype: torch.dtype
) -> None:
    checks.check_batch_norm(
        shape, dtype=dtype, channels_last=channels_last, gradient=gradient, device="cuda", **options
    )


def test_float16() -> None:
    checks.check_depthwise((2, 54, 3, 9, 7), dtype=torch.float16, device="cuda")
    checks.check_shift((2, 54, 3, 9, 7), dtype=torch.float16, device="cuda")
    checks.check_batch_norm((2, 54, 3, 9, 7), "silu", torch.float16, hidden=8, residual=True, device="cuda")


# ------------------------------------------------------------------------------------- compiled, large, whole


def test_compiled_by_pytorch() -> None:
    checks.check_compiled("inductor", "cuda")


def test_more_than_two_thousand_million_values(device: torch.device) -> None:
    """Offsets need 64 bits there: the last clip must come out as it does alone."""
    if torch.cuda.mem_get_info()[0] < 40 * 2**30:
        pytest.skip("needs 40 GB of free GPU memory")
    torch.manual_seed(0)
    x = torch.zeros(22, 64, 16, 312, 312, dtype=torch.bfloat16, device=device)
    assert x.numel() > 2**31
    last = torch.randn_like(x[-1:])
    weight = torch.randn(64, 1, 3, 1, 1, device=device).bfloat16()
    scale, shift = torch.rand(2, 64, device=device)
    mean, var = torch.zeros(64, device=device), torch.ones(64, device=device)

    def results(x: Tensor) -> list[Tensor]:
        fused = batch_norm_act(x, scale, shift, mean, var, training=False, activation="relu")
        found = [fused[-1:].clone()]
        del fused
        moved = shift3d(x, torch.full((3, 64), 0.5, device=device))
        found.append(moved[-1:].clone())
        del moved
        return [*found, depthwise_conv3d(x, weight, padding=(1, 0, 0))[-1:].clone()]

    x[-1:] = last
    with torch.no_grad(), use_backend("triton"):
        for many, alone in zip(results(x), results(last), strict=True):
            assert torch.equal(many, alone)


@pytest.mark.parametrize("name", ["x3d_xs", "rubiksnet_tiny", "vov3d_m"])
def test_a_model_trains_alike(name: str, device: torch.device) -> None:
    """Logits and all gradients of a small batch, in float32, against PyTorch's operators."""
    torch.manual_seed(0)
    model = saccade.create_model(name, num_classes=7).to(device).train()
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    clips = torch.randn(2, 3, saccade.model_info(name).frames, 96, 96, device=device)
    results = []
    for backend in ("triton", "torch"):
        model.zero_grad(set_to_none=True)
        with use_backend(backend):  # type: ignore[arg-type]
            logits = model(clips)
            nn.functional.cross_entropy(logits, torch.tensor([1, 5], device=device)).backward()
        gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
        results.append((logits.detach(), torch.cat(gradients)))
    (logits, gradient), (plain_logits, plain_gradient) = results
    torch.testing.assert_close(logits, plain_logits, rtol=1e-3, atol=1e-3)
    assert (gradient - plain_gradient).norm() < 1e-2 * plain_gradient.norm()
