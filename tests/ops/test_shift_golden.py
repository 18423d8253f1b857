"""The shift operators against recordings of RubiksNet's own kernels, where those are well defined."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from golden import rule
from saccade.ops import shift2d, shift3d, use_backend
from saccade.ops._library import native_library

CASES = rule.load("rubiks_shift")["cases"]


@pytest.mark.parametrize("backend", ["naive", "torch", "native"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_equals_the_original_kernels(case: dict[str, Any], backend: str):
    if backend == "native" and native_library() is None:
        pytest.skip("the native operators are not built")
    x = torch.from_numpy(rule.normal(f"x:{case['id']}", case["x_shape"])).requires_grad_()
    shift = torch.tensor(case["shift"], dtype=torch.float64).view(case["dim"], -1).requires_grad_()
    with use_backend(backend):
        out = run(case, x, shift)
    out.backward(torch.from_numpy(rule.normal(f"g:{case['id']}", case["out_shape"])))
    assert tuple(out.shape) == tuple(case["out_shape"])
    if "out" in case:
        np.testing.assert_allclose(figures(case, "out", out), case["out"], rtol=0, atol=1e-10)
        np.testing.assert_allclose(figures(case, "x_grad", x.grad), case["x_grad"], rtol=0, atol=1e-10)
    if "shift_grad" in case:
        columns = shift.grad[:, case["smooth_channels"]].T
        np.testing.assert_allclose(columns, case["shift_grad"], rtol=0, atol=1e-10)


def run(case: dict[str, Any], x: Tensor, shift: Tensor) -> Tensor:
    options = {key: case[key] for key in ("stride", "quantize", "normalize_grad")}
    if case["dim"] == 2:
        return shift2d(x, shift, padding=case["pad"], **options)
    out = shift3d(
        x.transpose(1, 2),  # the original has the frames before the channels
        shift,
        padding=case["pad"],
        normalize_t_factor=case["normalize_t_factor"],
        **options,
    )
    return out.transpose(1, 2)


def figures(case: dict[str, Any], name: str, tensor: Tensor) -> list[float]:
    values = tensor.detach().numpy()
    weights = (rule.normal(f"{name}:{case['id']}:{k}", values.shape) for k in range(3))
    return [*(float((values * weight).sum()) for weight in weights), float(np.linalg.norm(values))]


def test_the_recordings_reach_what_matters():
    assert {case["dim"] for case in CASES} == {2, 3}
    assert {case["shift_kind"] for case in CASES} == {"inside", "outside", "integer", "mixed", "zero", "half"}
    assert {tuple(case["stride"]) for case in CASES} >= {(1, 1), (2, 2), (1, 1, 1), (1, 2, 2), (2, 2, 2)}
    assert {case["normalize_t_factor"] for case in CASES} >= {None, 1.0, 0.25, 4.0, "auto"}
