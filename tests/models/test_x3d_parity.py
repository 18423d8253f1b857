"""X3D against recordings of PySlowFast, PyTorchVideo, X3D-Multigrid, through the production converter."""

from __future__ import annotations

import pytest
import torch

from models.parity import (
    KK_CLASS,
    KK_LOC,
    S_PTV,
    XS,
    Case,
    M,
    S,
    assert_close,
    check_gradients,
    check_running_statistics,
    check_stages,
    dropout_off,
    record_outputs,
)
from saccade.models import X3D, create_model

slow = pytest.mark.slow


EVAL_RUNS = [
    (XS, "small"),
    pytest.param(S, "small", marks=slow),
    (M, "small"),
    pytest.param(KK_CLASS, "small", marks=slow),
    (KK_LOC, "small"),
    (XS, "published"),
    pytest.param(S, "published", marks=slow),
    pytest.param(M, "published", marks=slow),
    pytest.param(S_PTV, "published", marks=slow),
    pytest.param(KK_CLASS, "published", marks=slow),
    pytest.param(KK_LOC, "published", marks=slow),
]


@pytest.mark.parametrize(("case", "run"), EVAL_RUNS, ids=str)
def test_eval_run(case: Case, run: str) -> None:
    """Logits to 1e-9, stage statistics, and the gradient of every parameter and of the input to 1e-8."""
    model, report = case.build()
    recorded = case.run(run)
    outputs = record_outputs(model, list(case.modules.values()))
    x = case.clip(run).requires_grad_()
    logits = model(x)
    assert_close(logits, recorded["logits"], rtol=1e-9, atol=1e-11)
    if "output" in recorded:
        assert_close(logits.softmax(1), recorded["output"], rtol=1e-9)
    check_stages(case, outputs, recorded)
    check_gradients(case, model, report.mapped, x, logits, recorded)


TRAIN_RUNS = [
    (XS, "train_small"),
    (KK_CLASS, "train_small"),
    pytest.param(KK_LOC, "train_small", marks=slow),
    pytest.param(XS, "train", marks=slow),
]


@pytest.mark.parametrize(("case", "run"), TRAIN_RUNS, ids=str)
def test_train_run(case: Case, run: str) -> None:
    """Batch statistics, running statistics after one forward pass, gradients through them."""
    model, report = case.build()
    dropout_off(model.train())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    recorded = case.run(run)
    outputs = record_outputs(model, list(case.modules.values()))
    x = case.clip(run).requires_grad_()
    logits = model(x)
    assert_close(logits, recorded["logits"], rtol=1e-9, atol=1e-11)
    check_stages(case, outputs, recorded)
    check_gradients(case, model, report.mapped, x, logits, recorded)
    check_running_statistics(report.mapped, before, model.state_dict(), recorded)


@pytest.mark.parametrize("case", [XS, KK_LOC], ids=str)
def test_float32_and_channels_last(case: Case) -> None:
    model, _ = case.build(torch.float32)
    x = case.clip("small", torch.float32)
    recorded = case.run("small")
    layout = torch.channels_last_3d
    with torch.inference_mode():
        assert_close(model(x), recorded["logits"], rtol=1e-4, atol=1e-4)
        logits = model.to(memory_format=layout)(x.to(memory_format=layout))
    assert_close(logits, recorded["logits"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("case", "run"),
    [pytest.param(S_PTV, "published"), *(pytest.param(c, "published", marks=slow) for c in (S, M, KK_CLASS))],
    ids=str,
)
def test_published_size_in_float32(case: Case, run: str) -> None:
    model, _ = case.build(torch.float32)
    with torch.inference_mode():
        assert_close(model(case.clip(run, torch.float32)), case.run(run)["logits"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", [XS, pytest.param(S, marks=slow), pytest.param(M, marks=slow)], ids=str)
def test_windows_at_the_test_crop(case: Case) -> None:
    """PySlowFast recorded the logits of 2×2 windows and the mean of their softmax."""
    model, _ = case.build()
    assert isinstance(model, X3D)
    recorded = case.run("test_crop")
    x = case.clip("test_crop")
    with torch.inference_mode():
        windows = model.window_logits(x)
        logits = model(x)
        model.head.pool = "pytorchvideo"
        mean_logits = model(x)
    assert list(windows.shape) == recorded["logits_shape"]
    assert_close(windows, recorded["logits"], rtol=1e-9, atol=1e-11)
    assert_close(logits.softmax(1), recorded["output"], rtol=1e-9)
    expected = torch.tensor(recorded["logits"], dtype=torch.float64).view(4, -1).mean(0, keepdim=True)
    assert_close(mean_logits, expected, rtol=1e-9, atol=1e-11)


def test_global_pooling_is_one_window_over_the_whole_map() -> None:
    """A network trained at the test crop has such a window; that case is the recorded one elsewhere."""
    model, _ = XS.build(torch.float32)
    assert isinstance(model, X3D)
    trained_there = create_model("x3d_xs", gamma_s=182 / 112).eval()
    trained_there.load_state_dict(model.state_dict())
    x = XS.clip("test_crop", torch.float32)
    with torch.inference_mode():
        assert tuple(trained_there.window_logits(x).shape) == (1, 1, 1, 1, 400)
        model.head.pool = "global"
        torch.testing.assert_close(model(x), trained_there(x), rtol=1e-5, atol=1e-6)
        model.head.pool = "pyslowfast"
        assert not torch.allclose(model(x), trained_there(x), rtol=1e-3, atol=1e-3)


def test_per_frame_logits_have_classes_before_frames() -> None:
    model, _ = KK_LOC.build(torch.float32)
    with torch.inference_mode():
        assert model(torch.zeros(2, 3, 5, 48, 40)).shape == (2, 157, 5)
