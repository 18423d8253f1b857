"""X3D with split batch norm against recordings of PySlowFast and X3D-Multigrid, with gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from golden import rule
from models.parity import KK_CLASS, XS, Case, assert_close, check_gradients, dropout_off
from saccade.layers import SubBatchNorm3d, split_batch_norm

RECORDED = rule.load("sub_batch_norm")


@pytest.mark.parametrize("case", [XS, pytest.param(KK_CLASS, marks=pytest.mark.slow)], ids=str)
def test_two_splits(case: Case):
    recorded: dict[str, Any] = RECORDED[case.recording]
    model, report = case.build()
    split_batch_norm(model, 2)
    if case is XS:
        split_batch_norm(model.head, 1)  # PySlowFast's head keeps a plain norm
    norms = {name: module for name, module in model.named_modules() if isinstance(module, SubBatchNorm3d)}
    theirs = {
        mine.removesuffix(".weight"): key.removesuffix(".weight") for key, mine in report.mapped.items()
    }
    for name, norm in norms.items():  # the recording's splits begin with values of their own
        for leaf, value in (("running_mean", norm.split_mean), ("running_var", norm.split_var)):
            value.copy_(_start(f"{theirs[name]}.split_bn.{leaf}", value))
    dropout_off(model.train())
    x = torch.from_numpy(rule.input_clip(case.recording, recorded["input_shape"])).requires_grad_()
    logits = model(x)
    assert_close(logits, recorded["logits"], rtol=1e-9, atol=1e-11)
    check_gradients(case, model, report.mapped, x, logits, recorded)
    moved = recorded["running_stats_l2_after_one_forward"]
    for name, norm in norms.items():
        for leaf, value in (("running_mean", norm.split_mean), ("running_var", norm.split_var)):
            assert float(value.norm()) == pytest.approx(moved[f"{theirs[name]}.split_bn.{leaf}"], rel=1e-9)
    model.eval()
    for name, norm in norms.items():
        for leaf in ("running_mean", "running_var"):
            wanted = recorded["aggregated"][f"{theirs[name]}.bn.{leaf}"]
            assert float(getattr(norm, leaf).norm()) == pytest.approx(wanted, rel=1e-9)
    with torch.inference_mode():
        assert_close(model(x), recorded["eval_logits_after_aggregate"], rtol=1e-9, atol=1e-11)


def _start(name: str, like: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(rule.param(name, (like.numel(),))).view_as(like)
