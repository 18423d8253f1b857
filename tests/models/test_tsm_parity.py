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

slow = pytest.mark.slow

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


MOBILE_ENDS = {1: 1, 3: 2, 6: 3, 10: 4, 13: 5, 16: 6, 17: 7}
MOBILE = Case(
    "mobilenetv2",
    "tsm_mobilenetv2",
    20,
    modules={
        "features.0.0": "stem.conv",
        **{f"features.{index}": f"stage{stage}" for index, stage in MOBILE_ENDS.items()},
        "features.18.0": "head.conv",
    },
)
RESNET = Case(
    "tsm_resnet50",
    "tsm_resnet50",
    20,
    modules={
        "base_model.conv1": "stem.conv",
        **{f"base_model.layer{stage}": f"res{stage + 1}" for stage in (1, 2, 3, 4)},
    },
)
RUNS = [
    (LITE, "small"),
    (MOBILE, "small"),
    (RESNET, "small"),
    pytest.param(LITE, "train_small", marks=slow),
    pytest.param(MOBILE, "train_small", marks=slow),
    pytest.param(RESNET, "train_small", marks=slow),
]


@pytest.mark.parametrize(("case", "run"), RUNS, ids=str)
def test_run(case: Case, run: str) -> None:
    """Logits to 1e-9; statistics of the stages; the gradient of every parameter and of the input to 1e-8;
    in the training run also the running statistics after one step.

    EfficientNet-Lite (EfficientNet-Lite-PyTorch) and MobileNetV2 (torchvision) are recorded on images, clips
    of one frame without a shift; TSM-ResNet50 (torchvision and TSM's wrapper) on clips (B, T, 3, H, W).
    """
    recorded = case.run(run)
    images = len(recorded["input_shape"]) == 4
    plain = {"shift_place": "none"} if images else {}
    model, report = Case(case.recording, case.model, case.num_classes, plain).build()
    model.train(run.startswith("train"))
    before = {key: value.clone() for key, value in model.state_dict().items()}
    outputs = record_outputs(model, list(case.modules.values()))
    x = torch.from_numpy(rule.input_clip(case.recording, recorded["input_shape"])).requires_grad_()
    logits = model(x.unsqueeze(2) if images else x.transpose(1, 2))
    assert_close(logits, recorded["logits"], rtol=1e-9, atol=1e-11)
    stages = {stage["module"]: stage for stage in recorded["stages"]}
    for theirs, ours in case.modules.items():
        assert_statistics(outputs[ours].transpose(1, 2).flatten(0, 1), stages[theirs], rtol=1e-9)
    check_gradients(case, model, report.mapped, x, logits, recorded)
    if run.startswith("train"):
        check_running_statistics(report.mapped, before, model.state_dict(), recorded)


@pytest.mark.parametrize(
    ("case", "name"), [(LITE, "EfficientNet-PyTorch"), (MOBILE, "torchvision"), (RESNET, "TSM")], ids=str
)
def test_every_tensor_is_mapped(case: Case, name: str) -> None:
    model, report = case.build()
    assert report.format == name
    assert sorted(report.mapped) == sorted(theirs for theirs, _ in rule.load(case.recording)["state_dict"])
    assert set(report.mapped.values()) == set(model.state_dict())
    assert not report.left_out
    assert not report.notes


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
