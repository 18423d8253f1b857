"""MViT, MViTv2 and MaskFeat against PySlowFast, through the production converter.

Recorded from its classes MViT and MaskMViT (commit 287ec007) with weights and inputs of `golden.rule`,
float64: narrow networks of six blocks with every gradient, and those of its configurations, full width and
depth on small clips.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from golden import rule
from models.parity import assert_close, assert_statistics
from saccade.models import MaskFeat, VideoModel, count_params, create_model, load_weights
from saccade.models.mvit import Tokens

CLIP: dict[str, Any] = {"num_frames": 4, "train_crop": 64}
NARROW = {**CLIP, "depth": 6, "embed_dim": 16, "widen_at": (1, 3, 4), "pool_q_at": (1, 3, 4)}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "mvit_pyslowfast": ("mvit_base_16x4", NARROW),
    "mvit_pyslowfast_32x3": ("mvit_base_32x3", NARROW),
    "mvitv2": ("mvitv2_small", NARROW),
    "mvitv2_maskfeat": ("mvitv2_small_maskfeat", NARROW),
    "maskfeat_mvitv2": ("maskfeat_mvitv2_small", NARROW | {"pool_q_at": (1, 3)}),
}
WIDE = [
    "mvit_base_16x4",
    "mvit_base_32x3",
    "mvitv2_small",
    "mvitv2_base",
    "mvitv2_small_maskfeat",
    "maskfeat_mvitv2_small",
]


def recorded_run(recording: str) -> dict[str, Any]:
    (run,) = rule.load(recording)["runs"].values()
    recorded: dict[str, Any] = run
    return recorded


def build(recording: str) -> tuple[VideoModel, dict[str, str]]:
    """The model with their weights, and their names -> ours."""
    name, overrides = CASES.get(recording, (recording, CLIP))
    num_classes = recorded_run(recording).get("logits_shape", [0, 0])[1]
    model = create_model(name, num_classes, **overrides).double()
    names = rule.load(recording)["state_dict"]
    report = load_weights(model, {name: torch.from_numpy(rule.param(name, shape)) for name, shape in names})
    pretrained = isinstance(model, MaskFeat)
    assert report.format == ("PySlowFast MaskFeat" if pretrained else "PySlowFast")
    assert set(report.left_out) == ({"hogs.0.weight_x", "hogs.0.weight_y"} if pretrained else set())
    assert set(report.mapped) == {name for name, _ in names} - set(report.left_out)
    assert set(report.mapped.values()) == set(model.state_dict())
    return model.eval(), report.mapped


def run(recording: str, model: VideoModel, x: Tensor) -> Tensor:
    if not isinstance(model, MaskFeat):
        return model(x)
    draws = rule.uniform(f"mask:{recording}", [len(x), *model.token_grid], 0.0, 1.0)
    return model.forward_masked(x, torch.from_numpy(draws) < 0.4)


def check(recording: str, model: VideoModel, x: Tensor) -> Tensor:
    """Run, and compare outputs of the network and of every block."""
    recorded = recorded_run(recording)
    outputs: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, tokens: Tokens) -> None:
        outputs.append(tokens.x.detach())

    for block in model.blocks()[1:]:
        block.register_forward_hook(keep)
    output = run(recording, model, x)
    if "logits" in recorded:
        assert_close(output, recorded["logits"], rtol=1e-9, atol=1e-11)
    else:
        assert_statistics(output, recorded["predictions"], rtol=1e-9)
        assert_close(output.flatten()[::37], recorded["every_37th"], rtol=1e-9, atol=1e-11)
    for tokens, stage in zip(outputs, recorded["stages"], strict=True):
        assert_statistics(tokens, stage, rtol=1e-9)
    return output


@pytest.mark.parametrize("recording", CASES)
def test_narrow_networks_with_gradients(recording: str) -> None:
    model, mapped = build(recording)
    recorded = recorded_run(recording)
    assert count_params(model) == rule.load(recording)["counts"]["params_all"]
    x = torch.from_numpy(rule.input_clip(recording, recorded["input_shape"])).requires_grad_()
    output = check(recording, model, x)
    loss = (output * torch.from_numpy(rule.loss_vector(recording, output.shape))).sum()
    assert loss.item() == pytest.approx(recorded["loss"], rel=1e-9)
    loss.backward()
    parameters = dict(model.named_parameters())
    got = {theirs: parameters[mapped[theirs]].grad.norm() for theirs in recorded["grad_norm"]}
    wanted = {
        theirs: torch.tensor(norm, dtype=torch.float64) for theirs, norm in recorded["grad_norm"].items()
    }
    torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-12)
    assert {mapped[theirs] for theirs in wanted} == set(parameters)
    assert_statistics(x.grad, recorded["input_grad"], rtol=1e-8)


@pytest.mark.slow
@pytest.mark.parametrize("recording", WIDE)
def test_networks_of_full_width(recording: str) -> None:
    model, _ = build(recording)
    assert count_params(model) == rule.load(recording)["counts"]["params_all"]
    x = torch.from_numpy(rule.input_clip(recording, recorded_run(recording)["input_shape"]))
    with torch.inference_mode():
        check(recording, model, x)
