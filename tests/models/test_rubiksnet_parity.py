"""RubiksNet against recordings of the authors' code, through the production converter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from golden import rule
from models.parity import Case, assert_close, assert_statistics, record_outputs
from saccade.models import VideoModel

slow = pytest.mark.slow

MODULES = {
    "backbone.conv1": "stem",
    **{f"backbone.layer{i}": f"res{i + 1}" for i in range(5)},
    "backbone.bn_last": "head.norm",
}


@dataclass(frozen=True)
class FramesCase(Case):
    """Upstream has clips of (B, T, 3, H, W) and maps of (B T, C, H, W)."""

    def clip(self, run: str, dtype: torch.dtype = torch.float64) -> Tensor:
        return super().clip(run, dtype).transpose(1, 2).contiguous()


def case(tier: str) -> FramesCase:
    return FramesCase(f"rubiksnet_{tier}", f"rubiksnet_{tier}", 174, modules=MODULES)


TINY, LARGE, TINY_AQ, LARGE_AQ = map(case, ("tiny", "large", "tiny_aq", "large_aq"))
RUNS = [
    (TINY, "small"),
    (TINY_AQ, "small"),
    (TINY, "train_small"),
    (TINY_AQ, "train_small"),
    pytest.param(LARGE, "small", marks=slow),
    pytest.param(LARGE_AQ, "small", marks=slow),
    *(pytest.param(c, "published", marks=slow) for c in (TINY, LARGE, TINY_AQ, LARGE_AQ)),
]


@pytest.mark.parametrize(("case", "run"), RUNS, ids=str)
def test_run(case: FramesCase, run: str) -> None:
    """Logits to 1e-9; statistics of the stages; the gradient of every parameter and of the input to 1e-8.

    In ``train`` runs batch statistics are used, and one forward pass moves the running ones.
    """
    model, report = case.build()
    model.train(run.startswith("train"))
    recorded = case.run(run)
    outputs = record_outputs(model, list(case.modules.values()))
    x = case.clip(run).requires_grad_()
    logits = model(x)
    assert_close(logits, recorded["logits"], rtol=1e-9, atol=1e-11)
    stages = {stage["module"]: stage for stage in recorded["stages"]}
    for theirs, ours in case.modules.items():
        assert_statistics(by_frames(outputs[ours]), stages[theirs], rtol=1e-9)
    check_gradients(case, model, report.mapped, logits, recorded)
    assert x.grad is not None
    assert_statistics(x.grad.transpose(1, 2), recorded["input_grad"], rtol=1e-8)
    state = model.state_dict()
    for name, norm in recorded.get("running_stats_l2_after_one_forward", {}).items():
        assert float(state[report.mapped[name]].norm()) == pytest.approx(norm, rel=1e-9), name


def by_frames(maps: Tensor) -> Tensor:
    return maps.transpose(1, 2).flatten(0, 1)


def check_gradients(
    case: Case, model: VideoModel, mapped: dict[str, str], logits: Tensor, recorded: dict[str, Any]
) -> None:
    """Every gradient's length; of the shifts, whose columns have length 1, also the first values."""
    r = torch.from_numpy(rule.loss_vector(case.recording, recorded["logits_shape"]))
    (logits * r).sum().backward()
    parameters = dict(model.named_parameters())
    wanted = {key: value for key, value in recorded["grad_norm"].items() if value is not None}
    got = {key: float(parameters[mapped[key]].grad.norm()) for key in wanted}  # type: ignore[union-attr]
    assert got == pytest.approx(wanted, rel=1e-8)
    assert {mapped[key] for key in wanted} == set(parameters)
    shifts = {key: values for key, values in recorded["grad_first"].items() if key.endswith(".shift")}
    assert len(shifts) == len(model.lr_multipliers())
    for key, values in shifts.items():
        grad = parameters[mapped[key]].grad
        assert grad is not None
        assert_close(grad.flatten()[: len(values)], values, rtol=1e-8, atol=1e-9)
        lengths = grad.norm(dim=0)
        torch.testing.assert_close(lengths, (lengths > 0.5).double())  # 0 where nothing reaches a channel


@pytest.mark.parametrize("case", [TINY, TINY_AQ, pytest.param(LARGE, marks=slow)], ids=str)
def test_float32(case: FramesCase) -> None:
    model, _ = case.build(torch.float32)
    with torch.inference_mode():
        logits = model(case.clip("small", torch.float32))
    assert_close(logits, case.run("small")["logits"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", [TINY, LARGE, TINY_AQ, LARGE_AQ], ids=str)
def test_every_tensor_is_mapped(case: FramesCase) -> None:
    recording = rule.load(case.recording)
    model, report = case.build()
    assert report.format == "RubiksNet"
    assert sorted(report.mapped) == sorted(name for name, _ in recording["state_dict"])
    assert not report.left_out
    added = {name for name in model.state_dict() if name.endswith(".time.offset")}
    assert set(report.filled) == added == set(model.state_dict()) - set(report.mapped.values())
