"""MViT and MaskFeat against recordings of VideoTransformer-pytorch, through the production converter.

Its layers are PyTorchVideo's.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from golden import rule
from models.parity import assert_close, assert_statistics
from saccade.models import (
    LoadReport,
    MaskFeat,
    VideoModel,
    count_macs,
    count_params,
    create_model,
    load_weights,
)
from saccade.models.mvit import Tokens
from saccade.training.optim import parameter_groups

slow = pytest.mark.slow

MODELS: dict[str, tuple[str, int, dict[str, int]]] = {
    "mvit_small": ("mvit_base_maskfeat", 10, {"num_frames": 4, "train_crop": 64}),
    "mvit_b": ("mvit_base_maskfeat", 400, {}),
    "maskfeat_small": ("maskfeat_mvit_base", 0, {"num_frames": 8, "train_crop": 64}),
    "maskfeat": ("maskfeat_mvit_base", 0, {}),
}
SMALL = ("mvit_small", "maskfeat_small")
EACH = [*SMALL, pytest.param("mvit_b", marks=slow), pytest.param("maskfeat", marks=slow)]


@cache
def _weight(name: str, shape: tuple[int, ...]) -> Tensor:
    return torch.from_numpy(rule.param(name, shape))


def their_state(recording: str) -> dict[str, Tensor]:
    return {name: _weight(name, tuple(shape)) for name, shape in rule.load(recording)["state_dict"]}


def build(recording: str, dtype: torch.dtype = torch.float64) -> tuple[VideoModel, LoadReport]:
    name, num_classes, overrides = MODELS[recording]
    model = create_model(name, num_classes, **overrides).to(dtype)
    report = load_weights(model, their_state(recording))
    return model.eval(), report


def recorded_run(recording: str) -> dict[str, Any]:
    (run,) = rule.load(recording)["runs"].values()
    recorded: dict[str, Any] = run
    return recorded


def clip(recording: str, dtype: torch.dtype = torch.float64) -> Tensor:
    """(B, T, 3, H, W), as theirs takes it."""
    shape = recorded_run(recording)["input_shape"]
    return torch.from_numpy(rule.input_clip(recording, shape)).to(dtype)


def run(recording: str, model: VideoModel, x: Tensor) -> tuple[Tensor, Tensor]:
    """What theirs gives, logits or predictions (B, T, h, w, 108), and the loss."""
    recorded = recorded_run(recording)
    if isinstance(model, MaskFeat):
        mask = masked(recorded, model)
        predictions = model.forward_masked(x.transpose(1, 2), mask)
        b, t, h, w, _ = predictions.shape
        per_frame = predictions.view(b, t, h, w, 2, 108).movedim(4, 2).flatten(1, 2)
        return per_frame, masked_loss(recording, recorded, per_frame, mask)
    logits = model(x.transpose(1, 2))
    r = torch.from_numpy(rule.loss_vector(recording, recorded["logits_shape"]))
    return logits, (logits * r).sum()


def masked(recorded: dict[str, Any], model: MaskFeat) -> Tensor:
    mask = torch.zeros(len(recorded["mask_spans"]), *model.token_grid, dtype=torch.bool)
    for clip_mask, spans in zip(mask, recorded["mask_spans"], strict=True):
        for start, length, top, bottom, left, right in spans:
            clip_mask[start : start + length, top:bottom, left:right] = True
    return mask


def masked_loss(recording: str, recorded: dict[str, Any], per_frame: Tensor, mask: Tensor) -> Tensor:
    """Theirs: squared errors of the masked tokens of the middle frame of each cube, averaged."""
    target = torch.from_numpy(rule.uniform(f"target:{recording}", recorded["target_shape"], 0.0, 1.0))
    of_frames = mask.repeat_interleave(2, 1)
    counted = torch.zeros_like(of_frames)
    for i, cubes in enumerate(recorded["cube_marker"]):
        for start, length in cubes:
            middle = 2 * start + length
            counted[i, middle] = of_frames[i, middle]
    errors = (per_frame - target).square().mean(-1)
    return (errors * counted).sum() / (counted.sum() + 1e-5)


def our_module(theirs: str) -> str:
    name = theirs.removeprefix("model.").removeprefix("mvit.")
    if name.startswith("blocks."):
        return name.replace("blocks.", "layers.")
    return {"cls_positional_encoding": "stem", "cls_head.cls_head": "head.classifier"}[name]


def record_stages(model: nn.Module, recorded: dict[str, Any]) -> dict[str, Tensor]:
    """A dict that the next forward pass fills: their module -> the tokens ours gives."""
    outputs: dict[str, Tensor] = {}
    modules = dict(model.named_modules())
    for stage in recorded["stages"]:

        def keep(_module: nn.Module, _inputs: Any, output: Any, theirs: str = stage["module"]) -> None:
            outputs[theirs] = (output.x if isinstance(output, Tokens) else output).detach().clone()

        modules[our_module(stage["module"])].register_forward_hook(keep)
    return outputs


def gradients(model: nn.Module, mapped: dict[str, str]) -> dict[str, Tensor]:
    """Their parameter -> the gradient; three of theirs are the rows of one of ours."""
    parameters = dict(model.named_parameters())
    found = {}
    for theirs, ours in mapped.items():
        gradient = parameters[ours].grad
        assert gradient is not None
        for place, part in enumerate("qkv"):
            if f".attn.{part}." in theirs:
                gradient = gradient.chunk(3)[place]
        found[theirs] = gradient
    return found


def in_report(name: str, model: VideoModel) -> str:
    """Lightning's prefix is taken off where all names have it: where there is no classifier."""
    return name.removeprefix("model.") if isinstance(model, MaskFeat) else name


@pytest.mark.parametrize("recording", EACH)
def test_run(recording: str) -> None:
    """Logits or predictions, and loss, to 1e-9; statistics of every block; every gradient to 1e-8."""
    model, report = build(recording)
    recorded = recorded_run(recording)
    outputs = record_stages(model, recorded)
    x = clip(recording).requires_grad_()
    output, loss = run(recording, model, x)
    if isinstance(model, MaskFeat):
        assert_statistics(output, recorded["predictions"], rtol=1e-9)
        assert loss.item() == pytest.approx(recorded["loss"], rel=1e-9)
        if "every_37th" in recorded:
            assert_close(output.flatten()[::37], recorded["every_37th"], rtol=1e-9, atol=1e-11)
    else:
        assert_close(output, recorded["logits"], rtol=1e-9, atol=1e-11)
    assert len(recorded["stages"]) >= 17
    for stage in recorded["stages"]:
        assert_statistics(outputs[stage["module"]], stage, rtol=1e-9)
    loss.backward()
    got = {name: gradient.norm() for name, gradient in gradients(model, report.mapped).items()}
    wanted = {
        in_report(name, model): torch.tensor(norm, dtype=torch.float64)
        for name, norm in recorded["grad_norm"].items()
        if norm is not None
    }
    torch.testing.assert_close(got, wanted, rtol=1e-8, atol=1e-12)
    assert {name for name, _ in model.named_parameters()} == set(report.mapped.values())
    assert x.grad is not None
    assert_statistics(x.grad, recorded["input_grad"], rtol=1e-8)


@pytest.mark.parametrize("recording", SMALL)
def test_every_tensor_is_mapped_or_left_out_aloud(recording: str, caplog: pytest.LogCaptureFixture) -> None:
    model, report = build(recording)
    theirs = {in_report(name, model) for name, _ in rule.load(recording)["state_dict"]}
    assert report.format == "VideoTransformer-pytorch"
    assert report.num_loaded == len(model.state_dict())
    dropped = {"model.mask_token", "model.decoder_pred.weight", "model.decoder_pred.bias"}
    assert set(report.left_out) == (set() if isinstance(model, MaskFeat) else dropped)
    assert set(report.mapped) == theirs - set(report.left_out)
    assert not report.filled
    said = "mask token and decoder are left out" in caplog.text
    assert said == (not isinstance(model, MaskFeat))


@pytest.mark.parametrize("recording", ["mvit_small", "maskfeat_small"])
def test_float32(recording: str) -> None:
    model, _ = build(recording, torch.float32)
    with torch.inference_mode():
        output, _ = run(recording, model, clip(recording, torch.float32))
    recorded = recorded_run(recording)
    if isinstance(model, MaskFeat):
        assert_close(output.flatten()[::37], recorded["every_37th"], rtol=1e-4, atol=1e-4)
    else:
        assert_close(output, recorded["logits"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("recording", list(MODELS))
def test_counts_are_those_of_the_original(recording: str) -> None:
    """Theirs keeps mask token and decoder, 166,104 weights, in a network with classes."""
    name, num_classes, overrides = MODELS[recording]
    recorded = rule.load(recording)
    with torch.device("meta"):
        model = create_model(name, num_classes, **overrides)
    frames, crop = model.config.num_frames, model.config.train_crop
    batch = 2 if recording == "mvit_small" else 1
    macs = count_macs(model, (batch, 3, frames, crop, crop))
    if isinstance(model, MaskFeat):
        tokens = batch * model.token_grid[0] * model.token_grid[1] * model.token_grid[2]
        assert count_params(model) == recorded["counts"]["params_all"]
        assert macs - tokens * 768 * 216 == recorded["macs"]
    else:
        assert count_params(model) + 96 + 166_104 == recorded["counts"]["params_all"]
        assert macs == recorded["macs"]


def test_groups_of_layer_decay() -> None:
    """(numbers, of which decayed) and the factor of each layer, as recorded for fine-tuning at 0.75."""
    with torch.device("meta"):
        model = create_model("mvit_base_maskfeat")
    groups = parameter_groups(model, weight_decay=0.05, layer_decay=0.75)
    found: dict[float, list[int]] = {}
    for group in groups:
        sizes = found.setdefault(round(group["lr_scale"], 12), [0, 0])
        sizes[group["weight_decay"] > 0] += sum(p.numel() for p in group["params"])
    block_5_to_13 = [[5376, 1_774_656]] * 9
    wanted = [[302_208 - 96, 42_336], [1920, 171_072], [3072, 450_144], [3456, 668_736], [5568, 1_777_248]]
    wanted += [*block_5_to_13, [6528, 2_659_392], [10_368, 7_083_072], [10_368, 7_083_072], [1936, 307_200]]
    assert [found[scale] for scale in sorted(found)] == wanted
    assert sorted(found) == [pytest.approx(0.75 ** (17 - layer)) for layer in range(18)]
