"""VoV3D against recordings of its authors' code, through the production converter."""

from __future__ import annotations

import pytest
import torch

from models.parity import (
    VOV_M,
    VOV_M_SSV2,
    Case,
    assert_close,
    check_gradients,
    check_running_statistics,
    check_stages,
    dropout_off,
    record_outputs,
)

slow = pytest.mark.slow


@pytest.mark.parametrize(
    ("case", "run"),
    [
        (VOV_M, "small"),
        (VOV_M_SSV2, "small"),
        pytest.param(VOV_M, "published", marks=slow),
        pytest.param(VOV_M_SSV2, "published", marks=slow),
    ],
    ids=str,
)
def test_eval_run(case: Case, run: str) -> None:
    """Logits to 1e-9, stage statistics, and the gradient of every parameter and of the input to 1e-8."""
    model, report = case.build()
    assert report.format == "VoV3D"
    assert report.num_loaded == len(report.mapped) == len(model.state_dict()) == 944
    recorded = case.run(run)
    outputs = record_outputs(model, list(case.modules.values()))
    x = case.clip(run).requires_grad_()
    logits = model(x)
    assert_close(logits, recorded["logits"], rtol=1e-9, atol=1e-11)
    assert_close(logits.softmax(1), recorded["output"], rtol=1e-9)
    check_stages(case, outputs, recorded)
    check_gradients(case, model, report.mapped, x, logits, recorded)


def test_train_run() -> None:
    """Batch statistics, running statistics after one forward pass, gradients through them."""
    model, report = VOV_M_SSV2.build()
    dropout_off(model.train())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    recorded = VOV_M_SSV2.run("train_small")
    outputs = record_outputs(model, list(VOV_M_SSV2.modules.values()))
    x = VOV_M_SSV2.clip("train_small").requires_grad_()
    logits = model(x)
    assert_close(logits, recorded["logits"], rtol=1e-9, atol=1e-11)
    check_stages(VOV_M_SSV2, outputs, recorded)
    check_gradients(VOV_M_SSV2, model, report.mapped, x, logits, recorded)
    check_running_statistics(report.mapped, before, model.state_dict(), recorded)


@pytest.mark.parametrize("case", [VOV_M, VOV_M_SSV2], ids=str)
def test_float32_and_channels_last(case: Case) -> None:
    model, _ = case.build(torch.float32)
    x = case.clip("small", torch.float32)
    recorded = case.run("small")
    layout = torch.channels_last_3d
    with torch.inference_mode():
        assert_close(model(x), recorded["logits"], rtol=1e-4, atol=1e-4)
        logits = model.to(memory_format=layout)(x.to(memory_format=layout))
    assert_close(logits, recorded["logits"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", [VOV_M, pytest.param(VOV_M_SSV2, marks=slow)], ids=str)
def test_published_size_in_float32(case: Case) -> None:
    model, _ = case.build(torch.float32)
    with torch.inference_mode():
        logits = model(case.clip("published", torch.float32))
    assert_close(logits, case.run("published")["logits"], rtol=1e-4, atol=1e-4)


def test_gradients_in_float32() -> None:
    model, report = VOV_M_SSV2.build(torch.float32)
    recorded = VOV_M_SSV2.run("small")
    x = VOV_M_SSV2.clip("small", torch.float32).requires_grad_()
    check_gradients(VOV_M_SSV2, model, report.mapped, x, model(x), recorded, rtol=1e-4)
