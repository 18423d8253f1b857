"""TimeSformer and ViViT against recordings of VideoTransformer-pytorch, through the production converter."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from golden import rule
from models.parity import (
    Case,
    assert_close,
    check_gradients,
    check_stages,
    record_outputs,
)
from saccade.models import count_macs, count_params, create_model, load_weights

slow = pytest.mark.slow

SMALL: dict[str, Any] = {"train_crop": 32, "width": 48, "depth": 2, "num_heads": 4}


def modules(depth: int, *, factorised: bool = False) -> dict[str, str]:
    """Their blocks, and the classifier, in ours; theirs have the patches of a moment apart in their order."""
    layers = "model.transformer_layers." + ("0." if factorised else "")
    theirs = {f"{layers}layers.{i}": f"layers.{i}" for i in range(depth)}
    if factorised:
        theirs |= {f"model.transformer_layers.1.layers.{i}": f"time_layers.{i}" for i in range(4)}
    return theirs | {"cls_head.cls_head": "head.classifier"}


DIVIDED_SMALL = Case(
    "timesformer_small_divided_space_time",
    "timesformer_base",
    10,
    {**SMALL, "num_frames": 4},
    modules(2),
)
SPACE_SMALL = Case(
    "timesformer_small_space_only", "timesformer_base_space", 10, {**SMALL, "num_frames": 4}, modules(2)
)
FACTORISED_SMALL = Case(
    "vivit_small_fact_encoder",
    "vivit_base",
    10,
    {**SMALL, "num_frames": 8},
    modules(2, factorised=True),
)
JOINT_SMALL = Case(
    "vivit_small_joint_space_time", "vivit_base_joint", 10, {**SMALL, "num_frames": 8}, modules(2)
)
DIVIDED = Case("timesformer_b_divided_space_time", "timesformer_base", modules=modules(12))
SPACE = Case("timesformer_b_space_only", "timesformer_base_space", modules=modules(12))
FACTORISED = Case("vivit_b_fact_encoder", "vivit_base", modules=modules(12, factorised=True))
JOINT = Case("vivit_b_joint_space_time", "vivit_base_joint", modules=modules(12))


def leaking(case: Case) -> Case:
    """Recorded with a batch of two, of which the second clip has a class token of the first."""
    return dataclasses.replace(case, overrides={**case.overrides, "class_token_leak": True})


RUNS = [
    (DIVIDED_SMALL, "small"),
    (SPACE_SMALL, "small"),
    (FACTORISED_SMALL, "small_batch1"),
    (leaking(FACTORISED_SMALL), "small_batch1"),
    (leaking(FACTORISED_SMALL), "small"),
    (JOINT_SMALL, "small"),
    *(pytest.param(case, "published", marks=slow) for case in (DIVIDED, SPACE, FACTORISED, JOINT)),
]


@pytest.mark.parametrize(("case", "run"), RUNS, ids=str)
def test_run(case: Case, run: str) -> None:
    """Logits to 1e-9; statistics of the blocks; gradients of every parameter and the input to 1e-8."""
    model, report = case.build()
    recorded = case.run(run)
    outputs = record_outputs(model, list(case.modules.values()))
    x = case.clip(run).requires_grad_()  # (B, T, 3, H, W), as upstream has it
    logits = model(x.transpose(1, 2))
    assert_close(logits, recorded["logits"], rtol=1e-9, atol=1e-11)
    check_stages(case, outputs, recorded)
    check_gradients(case, model, report.mapped, x, logits, recorded)


@slow
def test_published_size_with_the_leak() -> None:
    case = leaking(FACTORISED)
    model, _ = case.build()
    with torch.inference_mode():
        logits = model(case.clip("published_batch2").transpose(1, 2))
    assert_close(logits, case.run("published_batch2")["logits"], rtol=1e-9, atol=1e-11)


def test_without_the_leak_a_batch_is_its_clips() -> None:
    """The first clip of the recorded batch has its own token, so it is right; the second is not."""
    model, _ = FACTORISED_SMALL.build()
    clips = FACTORISED_SMALL.clip("small").transpose(1, 2)
    with torch.inference_mode():
        logits, single = model(clips), torch.cat([model(clip[None]) for clip in clips])
    recorded = torch.tensor(FACTORISED_SMALL.run("small")["logits"], dtype=torch.float64).reshape(2, 10)
    torch.testing.assert_close(logits, single, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(logits[0], recorded[0], rtol=1e-9, atol=1e-11)
    assert (logits[1] - recorded[1]).abs().max() > 0.1


@pytest.mark.parametrize("case", [DIVIDED_SMALL, SPACE_SMALL, FACTORISED_SMALL, JOINT_SMALL], ids=str)
def test_float32_and_every_tensor_is_mapped(case: Case) -> None:
    run = "small_batch1" if case is FACTORISED_SMALL else "small"
    model, report = case.build(torch.float32)
    recording = rule.load(case.recording)
    assert report.format == "VideoTransformer-pytorch"
    assert sorted(report.mapped) == sorted(name for name, _ in recording["state_dict"])
    assert not report.left_out
    assert not report.filled
    assert not report.notes
    with torch.inference_mode():
        logits = model(case.clip(run, torch.float32).transpose(1, 2))
    assert_close(logits, case.run(run)["logits"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", [DIVIDED, SPACE, FACTORISED, JOINT], ids=str)
def test_counts_are_those_of_the_original(case: Case) -> None:
    recording = rule.load(case.recording)
    with torch.device("meta"):
        model = create_model(case.model)
    assert count_params(model) == recording["counts"]["params_trainable"]
    assert count_macs(model, (1, 3, model.config.num_frames, 224, 224)) == recording["macs"]


@pytest.mark.parametrize("case", [DIVIDED_SMALL, SPACE_SMALL, FACTORISED_SMALL, JOINT_SMALL], ids=str)
@pytest.mark.parametrize("prefix", ["without", "without head", "first names"])
def test_other_names_of_the_same_weights(case: Case, prefix: str) -> None:
    """Without Lightning's prefix, the network without its head, and PyTorch's own names for attention."""
    reference, _ = case.build()
    names = rule.load(case.recording)["state_dict"]
    state = {name: torch.from_numpy(rule.param(name, shape)) for name, shape in names}
    if prefix == "without head":
        state = {name: value for name, value in state.items() if name.startswith("model.")}
        reference.reset_classifier(0)
    elif prefix == "without":
        state = {name.removeprefix("model."): value for name, value in state.items()}
    else:
        renamed = (("attn.qkv.", "attn.in_proj_"), ("attn.proj.", "attn.out_proj."))
        for theirs, older in renamed:
            state = {name.replace(theirs, older): value for name, value in state.items()}
    num_classes = reference.num_classes
    model = create_model(case.model, num_classes, **case.overrides).double().eval()
    report = load_weights(model, {"state_dict": state, "epoch": 3})
    assert report.format == "VideoTransformer-pytorch"
    assert report.num_loaded == len(state)
    for name, value in reference.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], value, rtol=0, atol=0)
