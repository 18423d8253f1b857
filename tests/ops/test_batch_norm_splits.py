"""batch_norm_act with splits: clips of a batch that are normalised apart from each other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.library import opcheck

from saccade.errors import UsageError
from saccade.ops import batch_norm_act, use_backend
from saccade.ops._library import native_library
from saccade.ops.batch_norm_act.custom_op import forward_op

needs_native = pytest.mark.skipif(native_library() is None, reason="the native operators are not built")
SPLITS, BATCH, CHANNELS, HIDDEN = 3, 12, 5, 4


def run(backend: Any, layout: torch.memory_format, *, excite: bool, dtype: torch.dtype) -> list[Tensor]:
    """Output, every gradient and the moved statistics."""
    torch.manual_seed(0)

    def leaf(*shape: int) -> Tensor:
        return torch.randn(shape, dtype=dtype).requires_grad_()

    shape = (BATCH, CHANNELS, 2, 3, 4)
    x = (5 + torch.randn(shape, dtype=dtype)).contiguous(memory_format=layout).requires_grad_()
    weight, bias, residual = leaf(CHANNELS), leaf(CHANNELS), leaf(*shape)
    fc = (leaf(HIDDEN, CHANNELS, 1, 1, 1), leaf(HIDDEN), leaf(CHANNELS, HIDDEN, 1, 1, 1), leaf(CHANNELS))
    statistics = [torch.rand(SPLITS, CHANNELS, dtype=dtype) for _ in range(2)]
    with use_backend(backend):
        y = batch_norm_act(
            *(x, weight, bias, *statistics),
            training=True,
            activation="silu",
            squeeze_excite=fc if excite else None,
            clip_scale=torch.tensor([0.0, 2.0] * (BATCH // 2), dtype=dtype),
            residual=residual,
            num_splits=SPLITS,
        )
    (y * torch.randn(shape, dtype=dtype)).sum().backward()
    leaves = (x, weight, bias, residual, *(fc if excite else ()))
    return [y.detach(), *(tensor.grad for tensor in leaves if tensor.grad is not None), *statistics]


@pytest.mark.parametrize("backend", [pytest.param("native", marks=needs_native), "torch"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d], ids=str)
@pytest.mark.parametrize("excite", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)], ids=str)
def test_as_defined(
    backend: str, layout: torch.memory_format, excite: bool, dtype: torch.dtype, tolerance: float
):
    expected = run("naive", layout, excite=excite, dtype=dtype)
    got = run(backend, layout, excite=excite, dtype=dtype)
    assert len(got) == len(expected) == (11 if excite else 7)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("backend", [pytest.param("native", marks=needs_native), "torch", "naive"])
def test_splits_do_not_know_of_each_other(backend: Any):
    x = torch.randn(6, 5, 2, 3, 3)
    statistics = [torch.zeros(2, 5), torch.ones(2, 5)]
    affine = (torch.ones(5), torch.zeros(5))
    with use_backend(backend):
        y = batch_norm_act(x, *affine, *statistics, training=True, num_splits=2)
    norms = [torch.nn.BatchNorm3d(5) for _ in range(2)]
    for split, norm in enumerate(norms):
        torch.testing.assert_close(y[split::2], norm(x[split::2]), rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(statistics[0][split], norm.running_mean)
        torch.testing.assert_close(statistics[1][split], norm.running_var)


@needs_native
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_registered_operator_is_sound_with_splits():
    x, weight, bias = torch.randn(6, 5, 2, 3, 4), torch.rand(5), torch.rand(5)
    leaves = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    opcheck(forward_op, (*leaves, *(None,) * 8, 1e-5, "relu", 3, "native"))


@pytest.mark.parametrize(
    ("batch", "num_splits", "training", "rows", "message"),
    [
        (6, 4, True, 4, "num_splits is 4: it must divide"),
        (6, 0, True, 1, "num_splits is 0"),
        (6, 2, False, 2, "num_splits is 2: it must be 1"),
        (6, 2, True, 3, r"running_mean has shape \(3, 5\): \(2, 5\) is needed"),
    ],
)
def test_what_cannot_be_split_is_refused(
    batch: int, num_splits: int, training: bool, rows: int, message: str
):
    x = torch.randn(batch, 5, 1, 2, 2)
    vectors = (torch.ones(5), torch.zeros(5), torch.zeros(rows, 5), torch.ones(rows, 5))
    with pytest.raises(UsageError, match=message):
        batch_norm_act(x, *vectors, training=training, num_splits=num_splits)
