from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from golden import rule
from saccade.cli import main
from saccade.errors import ConfigError, UsageError, WeightsError
from saccade.layers import AttentionShift
from saccade.models import (
    RubiksNet,
    count_macs,
    count_params,
    create_model,
    load_model,
    load_weights,
    model_info,
    save_weights,
)

TIERS = ["tiny", "small", "medium", "large"]
SMALL: dict[str, Any] = {"width": 16, "depths": (1, 2, 1, 1)}


def small(name: str = "rubiksnet_tiny", num_classes: int = 5, **overrides: Any) -> RubiksNet:
    model = create_model(name, num_classes, **SMALL | overrides)
    assert isinstance(model, RubiksNet)
    return model


def choices(model: nn.Module) -> list[AttentionShift]:
    return [m for m in model.modules() if isinstance(m, AttentionShift)]


# -------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("tier", "params_174", "params_400", "gmacs", "num_shifts", "num_keys"),
    [
        ("tiny", 1_898_760, 1_996_618, 3.695, 9_720, 233),
        ("small", 3_597_366, 3_727_768, 6.506, 12_960, 267),
        ("medium", 6_185_622, 6_316_024, 10.926, 27_648, 454),
        ("large", 8_538_294, 8_668_696, 15.347, 40_608, 675),
    ],
)
def test_parameters_and_gmacs(
    tier: str, params_174: int, params_400: int, gmacs: float, num_shifts: int, num_keys: int
) -> None:
    info = model_info(f"rubiksnet_{tier}")
    with torch.device("meta"):
        model = create_model(info.name, 174)
        assert count_params(create_model(info.name)) == info.params == params_400
    assert count_params(model) == params_174
    assert count_macs(model, (1, 3, 8, 224, 224)) / 1e9 == pytest.approx(gmacs, abs=0.0006)
    assert sum(model.get_parameter(name).numel() for name in model.lr_multipliers()) == num_shifts
    assert len(model.state_dict()) == num_keys


@pytest.mark.parametrize("name", [f"rubiksnet_{tier}{kind}" for tier in TIERS for kind in ("", "_aq")])
def test_listed_figures(name: str) -> None:
    info = model_info(name)
    with torch.device("meta"):
        model = create_model(name)
    assert count_params(model) == info.params
    assert count_macs(model, (1, 3, 8, 224, 224)) / 1e9 == pytest.approx(info.gmacs, rel=1e-9)
    clip = info.clip_spec()
    assert (clip.num_frames, clip.crop, clip.short_side, info.temporal_rule) == (8, 224, 256, "tsm")
    assert clip.mean == (0.485, 0.456, 0.406)
    assert clip.std == (0.229, 0.224, 0.225)


@pytest.mark.parametrize("tier", ["tiny_aq", "large_aq", "tiny", "large"])
def test_counts_are_those_of_the_original(tier: str) -> None:
    """Which does not count the three multiply-adds of every value that -AQ blends in time."""
    recording = rule.load(f"rubiksnet_{tier}")
    with torch.device("meta"):
        model = create_model(f"rubiksnet_{tier}", 174)
    assert count_params(model) == recording["counts"]["params_trainable"]
    blended = sum(
        3 * m.weight.shape[0] * 8 * side**2
        for stage, sides in ((1, (112, 112)), (2, (112, 56)), (3, (56, 28)), (4, (28, 14)), (5, (14, 7)))
        for i, block in enumerate(getattr(model, f"res{stage}"))
        for m, side in ((block.time, sides[min(i, 1)]),)
        if isinstance(m, AttentionShift)
    )
    assert count_macs(model, (1, 3, 8, 224, 224)) == recording["macs_train_crop"] + blended


# ------------------------------------------------------------------------------------------------- networks


@pytest.mark.parametrize("name", ["rubiksnet_tiny", "rubiksnet_tiny_aq"])
@pytest.mark.parametrize("shape", [(1, 3, 1, 33, 47), (2, 3, 5, 32, 32), (1, 3, 16, 40, 64)])
def test_any_clip_will_do(name: str, shape: tuple[int, ...]) -> None:
    model = small(name, se_reduction=4, drop_path=0.2, dropout=0.1)
    logits = model(torch.randn(shape))
    logits.sum().backward()
    assert logits.shape == (shape[0], 5)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_order_of_frames_matters_through_the_shifts_alone() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 3, 6, 32, 32)
    still = small(time_init="none").eval()
    torch.testing.assert_close(still(x), still(x.flip(2)), rtol=1e-4, atol=1e-6)
    frame_by_frame = torch.stack([still(x[:, :, t : t + 1]) for t in range(6)]).mean(0)
    torch.testing.assert_close(still(x), frame_by_frame, rtol=1e-4, atol=1e-6)
    for other in (small(time_init="tsm").eval(), small("rubiksnet_tiny_aq").eval()):
        assert (other(x) - other(x.flip(2))).abs().max() > 1e-3


def test_intermediates_and_classifier() -> None:
    model = small().eval()
    x = torch.randn(2, 3, 4, 64, 96)
    outputs = model.forward_intermediates(x)
    assert [tuple(o.shape[2:]) for o in outputs] == [(4, 64 // s, 96 // s) for s in (2, 2, 4, 8, 16, 32)]
    assert [o.shape[1] for o in outputs] == [16, *model.config.widths]
    assert torch.equal(model.head(outputs[-1]), model(x))
    model.reset_classifier(9)
    assert model(x).shape == (2, 9)
    assert model.classifier_parameters() == ["head.classifier.weight", "head.classifier.bias"]
    model.reset_classifier(0)
    assert model(x).shape == (2, 128)


def test_build_args_come_back_from_json() -> None:
    model = small("rubiksnet_small_aq", depths="1,1,2,1", shift_budget=0.5)
    assert model.config.depths == (1, 1, 2, 1)
    again = create_model(**json.loads(json.dumps(model.build_args)))
    assert isinstance(again, RubiksNet)
    assert again.config == model.config
    assert again.state_dict().keys() == model.state_dict().keys()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"width": 0}, "width must be a positive integer, got 0"),
        ({"depths": (1, 2, 3)}, "depths must be 4 positive integers"),
        ({"depths": "1,2,x,1"}, "depths must be 4 positive integers"),
        ({"depths": (1, 2, 0, 1)}, "depths must be 4 positive integers"),
        ({"se_reduction": -1}, "se_reduction must be an integer of 0 to width"),
        ({"temperature": 0}, "temperature must be a number above 0"),
        ({"harden_at": 1.2}, "harden_at must be a fraction"),
        ({"shift_budget": -0.1}, "shift_budget must be a number at least 0"),
        ({"normalize_t_factor": "always"}, 'normalize_t_factor, if not "auto", must be a'),
        ({"space_init": "group4"}, "space_init must be one of"),
        ({"time_init": "tms"}, "time_init must be one of"),
        ({"attention": 1}, "attention must be true or false"),
        ({"dropout": 1.0}, "dropout must be a number at least 0 and below 1"),
    ],
)
def test_bad_fields(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        create_model("rubiksnet_tiny", **fields)
    assert str(caught.value).startswith(message)
    with pytest.raises(UsageError, match="has no option gamma_w"):
        create_model("rubiksnet_tiny", gamma_w=1)


def test_init_is_that_of_the_original() -> None:
    torch.manual_seed(0)
    state = create_model("rubiksnet_tiny").state_dict()
    for key, fan_out in (
        ("stem.weight", 9 * 54),
        ("res4.2.conv_a.weight", 216),
        ("res5.0.conv_b.weight", 432),
    ):
        count = state[key].numel()
        assert state[key].std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=4 / math.sqrt(2 * count))
    assert state["head.classifier.weight"].std().item() == pytest.approx(0.01, rel=0.02)
    assert bool((state["res5.2.norm_b.weight"] == 1).all())
    assert bool((state["res3.1.shift.shift"].abs() <= 1).all())
    assert create_model("rubiksnet_tiny_aq").state_dict()["res1.0.time.temperature"] == 2


@pytest.mark.parametrize("name", ["rubiksnet_tiny", "rubiksnet_tiny_aq"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_bfloat16_autocast_trains(name: str, layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    model = small(name, dropout=0.1).eval()
    x = torch.randn(2, 3, 4, 32, 32)
    expected = model(x).detach()
    model = model.to(memory_format=layout)  # type: ignore[call-overload]
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(x.to(memory_format=layout))
    logits.float().sum().backward()
    torch.testing.assert_close(logits.float(), expected, rtol=0, atol=0.03 * float(expected.abs().max()))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


# PyTorch's compiler makes an instance of every autograd function it meets, and its own warning says not to
@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")
@pytest.mark.parametrize(
    "name", [pytest.param("rubiksnet_tiny", marks=pytest.mark.slow), "rubiksnet_tiny_aq"]
)
def test_compile_and_export(name: str) -> None:
    torch.manual_seed(0)
    model = small(name).eval()
    x = torch.randn(2, 3, 4, 32, 32)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
    compiled(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    batch = torch.export.Dim("batch", min=1, max=16)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: batch},))
    y = torch.randn(3, 3, 4, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(y), model(y), rtol=1e-4, atol=1e-5)


# --------------------------------------------------------------------------------- attention-quantised: time


def test_annealing_ends_in_one_hot_taps_within_the_budget() -> None:
    torch.manual_seed(0)
    model = small("rubiksnet_tiny_aq", harden_at=0.8).eval()
    temperatures = []
    for fraction in (0.0, 0.4, 0.79999):
        model.on_train_progress(fraction)
        temperatures.append([float(choice.temperature) for choice in choices(model)])
        assert not model.in_final_form()
    assert temperatures == [pytest.approx([t] * 6) for t in (2.0, math.sqrt(2.0 * 0.1), 0.1 * 20**1.25e-5)]
    wish = torch.cat([choice.preference() for choice in choices(model)])
    model.on_train_progress(0.8)
    assert model.is_hard()
    assert model.in_final_form()
    offsets = torch.cat([choice.offset for choice in choices(model)])
    taps = torch.cat([choice.taps() for choice in choices(model)])
    assert torch.equal(taps, nn.functional.one_hot(offsets + 1, 3).float())
    budget = int(0.125 * len(offsets))
    assert int((offsets != 0).sum()) == budget  # many more want to move at the start
    assert set(wish[offsets != 0].tolist()) == set(wish.topk(budget).values.tolist())
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.on_train_progress(0.1)  # a hard model that is trained further stays hard
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


def test_a_hard_network_is_one_of_whole_shifts(tmp_path: Path) -> None:
    """Its block computes what a block with slices in place of the choice computes; so does the saved one."""
    torch.manual_seed(0)
    model = small("rubiksnet_tiny_aq", shift_budget=0.5).eval()
    model.on_train_progress(1.0)
    x = torch.randn(2, 3, 6, 32, 32)
    expected = model(x).detach()
    save_weights(model, tmp_path / "hard.safetensors")
    loaded, _ = load_model(tmp_path / "hard.safetensors")
    assert torch.equal(loaded(x), expected)
    for block in (block for stage in model.stages()[1:] for block in stage):  # type: ignore[attr-defined]
        block.time = Sliced(block.time.offset)
    torch.testing.assert_close(model(x), expected, rtol=0, atol=0)


class Sliced(nn.Module):
    def __init__(self, offset: Tensor) -> None:
        super().__init__()
        self.offset = offset.tolist()

    def forward(self, x: Tensor) -> Tensor:
        padded = nn.functional.pad(x, (0, 0, 0, 0, 1, 1))
        num = x.shape[2]
        return torch.stack([padded[:, c, 1 + o : 1 + o + num] for c, o in enumerate(self.offset)], dim=1)


def test_never_hard_and_frozen_layers_stay() -> None:
    forever = small("rubiksnet_tiny_aq", harden_at=0.0)
    forever.on_train_progress(1.0)
    assert forever.in_final_form()
    assert forever.regularization() is None
    assert all(choice.temperature == 2 for choice in choices(forever))
    partly = small("rubiksnet_tiny_aq")
    partly.res1.requires_grad_(False)
    partly.on_train_progress(1.0)
    assert [float(choice.temperature) for choice in choices(partly)] == [2.0, 0, 0, 0, 0, 0]
    plain = small()
    plain.on_train_progress(1.0)
    assert plain.in_final_form()
    assert not plain.is_hard()
    assert plain.regularization() is None


def test_the_penalty_leads_to_the_budget() -> None:
    torch.manual_seed(0)
    model = small("rubiksnet_tiny_aq", shift_budget=0.25)
    weights = [choice.weight for choice in choices(model)]
    optimizer = torch.optim.SGD(weights, lr=0.1)

    def share() -> float:
        return float(torch.cat([choice.moving() for choice in choices(model)]).detach().mean())

    assert share() > 0.6
    model.on_train_progress(0.0)
    penalty = model.regularization()
    assert penalty is not None
    assert not penalty.detach().any()  # all channels may move at first
    model.on_train_progress(0.79)
    for _ in range(500):
        penalty = model.regularization()
        assert penalty is not None
        optimizer.zero_grad()
        penalty.backward()
        optimizer.step()
    assert 0.26 < share() < 0.3  # 26 % are allowed at this point; the last ones stay by `harden`


def test_what_does_not_decay_and_what_learns_slowly() -> None:
    model = small("rubiksnet_tiny_aq")
    slow = model.lr_multipliers()
    assert set(slow.values()) == {0.01}
    assert set(slow) == {name for name, _ in model.named_parameters() if name.endswith(".shift.shift")}
    taps = {name for name, _ in model.named_parameters() if name.endswith(".time.weight")}
    assert model.no_weight_decay() == taps | set(slow)
    assert len(taps) == len(slow) == 6


# ------------------------------------------------------------------------------------------------- weights


def upstream(tier: str, frames: int = 8) -> dict[str, Any]:
    """A file of the original: its dict round the state dict of a rule's weights."""
    recording = rule.load(f"rubiksnet_{tier}")
    state = {
        name: torch.from_numpy(rule.param(name, shape)).float() for name, shape in recording["state_dict"]
    }
    config = recording["config"]
    return {
        "tier": config["tier"],
        "num_classes": 174,
        "num_frames": frames,
        "variant": config["variant"],
        "model": state,
    }


@pytest.mark.parametrize("tier", ["tiny", "tiny_aq"])
def test_convert_recognises_the_original_s_files(
    tier: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    content = upstream(tier)
    torch.save(content, tmp_path / "ssv2.pth.tar")
    assert main(["convert", str(tmp_path / "ssv2.pth.tar"), str(tmp_path / "ssv2.safetensors")]) == 0
    assert f"rubiksnet_{tier}, 174 classes" in capsys.readouterr().out
    model, metadata = load_model(tmp_path / "ssv2.safetensors")
    assert metadata["converted_from"] == "RubiksNet"
    other = create_model(f"rubiksnet_{tier}", 174).eval()
    load_weights(other, {f"module.{key}": value for key, value in content["model"].items()})
    x = torch.randn(1, 3, 8, 32, 32)
    with torch.inference_mode():
        assert torch.equal(model(x), other(x))


def test_other_classes_leave_the_classifier_out(caplog: pytest.LogCaptureFixture) -> None:
    report = load_weights(create_model("rubiksnet_tiny", 7), upstream("tiny"))
    assert sorted(report.left_out) == ["new_fc.bias", "new_fc.weight"]
    assert "174 classes in the file, 7 in the model" in report.summary()
    assert "classifier was not loaded" in caplog.text


def test_a_file_of_another_tier_is_refused_with_its_name() -> None:
    with pytest.raises(WeightsError, match=r"They are those of rubiksnet_tiny$"):
        load_weights(create_model("rubiksnet_large", 174), upstream("tiny"))


def for_images(num_classes: int = 1000) -> dict[str, Tensor]:
    """The state dict of the original's backbone, a network for images."""
    state = {}
    for name, value in upstream("tiny")["model"].items():
        if name.endswith("as3.rubiks3d.shift"):
            name, value = name.replace("rubiks3d.", ""), value[1:]
        state[name.removeprefix("backbone.").replace("new_fc.", "fc.")] = value
    state["fc.weight"], state["fc.bias"] = torch.randn(num_classes, 432), torch.randn(num_classes)
    return state


@pytest.mark.parametrize("time_init", ["tsm", "tsm-g0.01", "uniform", "none"])
def test_weights_for_images_are_lifted_to_clips(time_init: str) -> None:
    torch.manual_seed(0)
    model = create_model("rubiksnet_tiny", 10, time_init=time_init)
    report = load_weights(model, for_images())
    assert report.format == "RubiksNet for images"
    assert sorted(report.left_out) == ["fc.bias", "fc.weight"]
    key = "res3.1.shift.shift"
    assert f"row T new, time_init={time_init}" in report.filled[key]
    row, space = model.state_dict()[key][0], model.state_dict()[key][1:]
    theirs = upstream("tiny")["model"]["backbone.layer2.1.as3.rubiks3d.shift"]
    assert torch.equal(space, theirs[1:])
    fold = len(row) // 8
    assert {
        "tsm": row.tolist() == [1.0] * fold + [-1.0] * fold + [0.0] * (len(row) - 2 * fold),
        "tsm-g0.01": bool(((row[:fold] - 1).abs() < 0.1).all()) and bool(row.abs().min() > 0),
        "uniform": bool((row.abs() <= 1).all()) and row.std() > 0.4,
        "none": not row.any(),
    }[time_init]


def test_a_network_for_images_gives_the_same_on_a_clip_of_it() -> None:
    """With no temporal shift a clip of one repeated image has the image's logits."""
    model = create_model("rubiksnet_tiny", 1000, time_init="none").eval()
    load_weights(model, for_images())
    image = torch.randn(1, 3, 1, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(model(image.expand(1, 3, 4, 64, 64)), model(image), rtol=1e-4, atol=1e-5)


def test_weights_for_images_in_the_attention_variant() -> None:
    model = create_model("rubiksnet_tiny_aq", 1000)
    before = {name: value.clone() for name, value in model.state_dict().items() if ".time." in name}
    report = load_weights(model, for_images())
    after = model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert set(report.filled) == set(before)


def test_loading_the_original_into_a_hard_model_softens_it() -> None:
    model = create_model("rubiksnet_tiny_aq", 174)
    assert isinstance(model, RubiksNet)
    model.harden()
    content = upstream("tiny_aq")
    load_weights(model, content)
    assert not model.is_hard()
    recorded = content["model"]["backbone.layer1.0.conv2.0.T"]
    assert torch.equal(model.state_dict()["res2.0.time.temperature"], recorded)
