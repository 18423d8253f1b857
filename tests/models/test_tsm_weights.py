"""TSM's checkpoints and those of its image networks in the names of other code bases."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from golden import rule
from saccade.models import create_model, init_from_image, load_weights
from saccade.models.registry import create_on_meta

State = dict[str, Tensor]


def recorded(name: str) -> State:
    """Weights with torchvision's names, by the rule."""
    names = rule.load(name)["state_dict"]
    state = {key: torch.from_numpy(rule.param(key, shape)).float() for key, shape in names}
    return {re.sub(r"^base_model\.|\.net\b", "", key).replace("new_fc", "fc"): v for key, v in state.items()}


def renamed(state: State, *rules: tuple[str, str | Callable[[Any], str]]) -> State:
    """The keys rewritten by the first rule that fits: a pattern of the whole key and its replacement."""
    result = {}
    for key, value in state.items():
        pattern, new = next(rule for rule in rules if re.fullmatch(rule[0], key))
        result[re.sub(pattern, new, key, count=1)] = value
    assert len(result) == len(state)
    return result


# Read in ops/temporal_shift.py and ops/models.py of TSM, in mobilenet_v2_tsm.py, resnet_tsm.py and mmcv's
# ConvModule of MMAction2, and in modeling_resnet.py and modeling_mobilenet_v2.py of Hugging Face.
RESNET: dict[str, tuple[tuple[str, Any], ...]] = {
    "torchvision or timm": ((r"(.*)", r"\1"),),
    "TSM": (
        (r"fc\.(.*)", r"module.new_fc.\1"),
        (r"(layer.*)\.conv1\.(.*)", r"module.base_model.\1.conv1.net.\2"),
        (r"(.*)", r"module.base_model.\1"),
    ),
    "MMAction2": (
        (r"fc\.(.*)", r"cls_head.fc_cls.\1"),
        (r"(layer.*)\.conv1\.(.*)", r"backbone.\1.conv1.conv.net.\2"),
        (r"(.*downsample)\.0\.(.*)", r"backbone.\1.conv.\2"),
        (r"(.*downsample)\.1\.(.*)", r"backbone.\1.bn.\2"),
        (r"(.*conv.)\.(.*)", r"backbone.\1.conv.\2"),
        (r"(.*)bn(.)\.(.*)", r"backbone.\1conv\2.bn.\3"),
    ),
    "Hugging Face": (
        (r"fc\.(.*)", r"classifier.1.\1"),
        (r"conv1\.(.*)", r"resnet.embedder.embedder.convolution.\1"),
        (r"bn1\.(.*)", r"resnet.embedder.embedder.normalization.\1"),
        (r"layer(\d)\.(\d+)\.downsample\.0\.(.*)", lambda m: _hf(m, "shortcut.convolution")),
        (r"layer(\d)\.(\d+)\.downsample\.1\.(.*)", lambda m: _hf(m, "shortcut.normalization")),
        (r"layer(\d)\.(\d+)\.conv(\d)\.(.*)", lambda m: _hf(m, f"layer.{int(m[3]) - 1}.convolution")),
        (r"layer(\d)\.(\d+)\.bn(\d)\.(.*)", lambda m: _hf(m, f"layer.{int(m[3]) - 1}.normalization")),
    ),
}


def _hf(m: re.Match[str], part: str) -> str:
    return f"resnet.encoder.stages.{int(m[1]) - 1}.layers.{m[2]}.{part}.{m[m.lastindex or 0]}"


@pytest.fixture(scope="module")
def resnet() -> State:
    return recorded("tsm_resnet50")


@pytest.mark.parametrize("name", list(RESNET))
def test_resnet_names(resnet: State, name: str) -> None:
    with torch.device("meta"):
        model = create_model("tsm_resnet50", 20)
    model = model.to_empty(device="cpu")
    report = load_weights(model, renamed(resnet, *RESNET[name]))
    assert report.format == name
    assert not report.missing
    loaded = {key.replace("module.", ""): ours for key, ours in report.mapped.items()}
    assert len(loaded) == len(resnet)
    own = model.state_dict()
    assert torch.equal(own["res3.0.shortcut_conv.weight"].squeeze(2), resnet["layer2.0.downsample.0.weight"])
    assert torch.equal(own["res5.2.conv_b.weight"].squeeze(2), resnet["layer4.2.conv2.weight"])
    assert torch.equal(own["res2.1.norm_c.running_var"], resnet["layer1.1.bn3.running_var"])
    assert torch.equal(own["stem.norm.bias"], resnet["bn1.bias"])
    assert torch.equal(own["head.classifier.weight"], resnet["fc.weight"])


BLOCK = r"features\.(\d+)\.conv\."
_TONY = {"0.0": "0", "0.1": "1", "1.0": "3", "1.1": "4", "2": "6", "3": "7"}  # of blocks that widen
_TONY_NARROW = {"0.0": "0", "0.1": "1", "1": "3", "2": "4"}


def _mobile(state: State, name: str) -> State:
    """torchvision's names -> those of another code base."""
    counts = (1, 2, 3, 4, 3, 3, 1)
    places = [(stage, i) for stage, count in enumerate(counts) for i in range(count)]
    result = {}
    for key, value in state.items():
        match = re.fullmatch(BLOCK + r"([\d.]+)\.(\w+)", key)
        if match is None:
            end, leaf = key.rsplit(".", 1)
            new = {
                "tonylins/pytorch-mobilenet-v2": {"classifier.1": "classifier"},
                "TSM": {"classifier.1": "module.new_fc"},
                "MMAction2": {
                    "features.0.0": "backbone.conv1.conv",
                    "features.0.1": "backbone.conv1.bn",
                    "features.18.0": "backbone.conv2.conv",
                    "features.18.1": "backbone.conv2.bn",
                    "classifier.1": "cls_head.fc_cls",
                },
                "Hugging Face": {
                    "features.0.0": "mobilenet_v2.conv_stem.first_conv.convolution",
                    "features.0.1": "mobilenet_v2.conv_stem.first_conv.normalization",
                    "features.18.0": "mobilenet_v2.conv_1x1.convolution",
                    "features.18.1": "mobilenet_v2.conv_1x1.normalization",
                    "classifier.1": "classifier",
                },
            }[name].get(end, f"module.base_model.{end}" if name == "TSM" else end)
        else:
            number, part, leaf = int(match[1]), match[2], match[3]
            stage, index = places[number - 1]
            table = _TONY_NARROW if number == 1 else _TONY
            layer, is_norm = divmod(list(table).index(part), 2)
            shifts = index > 0 and layer == 0  # the blocks with a shortcut
            if name == "Hugging Face":
                layers = (
                    ["conv_3x3", "reduce_1x1"] if number == 1 else ["expand_1x1", "conv_3x3", "reduce_1x1"]
                )
                where = "conv_stem" if number == 1 else f"layer.{number - 2}"
                kind = "normalization" if is_norm else "convolution"
                new = f"mobilenet_v2.{where}.{layers[layer]}.{kind}"
            elif name == "MMAction2":
                net = ".net" if shifts else ""
                new = f"backbone.layer{stage + 1}.{index}.conv.{layer}{net}.{'bn' if is_norm else 'conv'}"
            else:
                net = ".net" if shifts and not is_norm and name == "TSM" else ""
                base = "module.base_model." if name == "TSM" else ""
                new = f"{base}features.{number}.conv.{table[part]}{net}"
        result[f"{new}.{leaf}"] = value
    assert len(result) == len(state)
    return result


@pytest.fixture(scope="module")
def mobile() -> State:
    return recorded("mobilenetv2")


@pytest.mark.parametrize("name", ["tonylins/pytorch-mobilenet-v2", "TSM", "MMAction2", "Hugging Face"])
def test_mobilenet_names(mobile: State, name: str) -> None:
    """What is loaded from the names of another code base is what is loaded from torchvision's."""
    wanted, model = create_model("tsm_mobilenetv2", 20), create_model("tsm_mobilenetv2", 20)
    assert load_weights(wanted, mobile).format == "torchvision"
    report = load_weights(model, _mobile(mobile, name))
    assert report.format == name
    assert not report.missing
    assert not report.notes
    for key, value in wanted.state_dict().items():
        assert torch.equal(model.state_dict()[key], value), key


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("tf_efficientnet_lite0", "tsm_efficientnet_lite0"),
        ("mobilenetv2_100", "tsm_mobilenetv2"),
        ("resnet50", "tsm_resnet50"),
    ],
)
def test_timm_image_networks(name: str, model: str) -> None:
    """timm's names, recorded with the logits of an image at the rule's weights, by init_from_image."""
    recording = rule.load("timm_images")["networks"][name]
    state = {key: torch.from_numpy(rule.param(key, shape)) for key, shape in recording["state_dict"]}
    network = create_model(model, 5, shift_place="none").double().eval()
    report = init_from_image(network, state)
    assert all(origin.sources for origin in report.origins.values())
    assert not report.unused
    x = torch.from_numpy(rule.input_clip(name, recording["input_shape"]))
    with torch.inference_mode():
        logits = network(x.unsqueeze(2))[0]
    torch.testing.assert_close(logits, torch.tensor(recording["logits"]).double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "theirs"),
    [({"shift_place": "none"}, "residual"), ({"shift_place": "inplace"}, "residual"), ({}, None)],
)
def test_a_shift_elsewhere_is_noted(resnet: State, options: dict[str, Any], theirs: str | None) -> None:
    state = renamed(resnet, *RESNET["TSM"])
    network = create_on_meta("tsm_resnet50", 20, **options).to_empty(device="cpu")
    notes = load_weights(network, state).notes
    assert [f"shift_place={theirs}" in note for note in notes] == ([True] if theirs else [])


def test_a_block_shift_is_recognised(resnet: State) -> None:
    state = {re.sub(r"^(layer\d\.\d+)\.", r"base_model.\1.net.", key): v for key, v in resnet.items()}
    state = {key if key.startswith("base_model") else f"base_model.{key}": v for key, v in state.items()}
    network = create_on_meta("tsm_resnet50", 20, shift_place="inplace").to_empty(device="cpu")
    report = load_weights(network, state)
    assert (report.format, report.notes, report.missing) == ("TSM", (), ())
