"""Networks of others: registered by name, asked through the contract, saved and rebuilt."""

from __future__ import annotations

import doctest
import importlib
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import saccade
from saccade.clip import ClipSpec
from saccade.errors import ConfigError, UsageError, WeightsError
from saccade.models import (
    CheckpointFormat,
    contract,
    create_model,
    create_on_meta,
    list_models,
    load_model,
    load_weights,
    model_info,
    register_checkpoint_format,
    register_model,
    registry,
    save_weights,
)
from test_plugins import install

CLIP = ClipSpec(num_frames=4, stride=2, crop=16, short_side=20)


class Net(nn.Module):
    """A small network for clips that knows nothing of Saccade."""

    def __init__(self, num_classes: int, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv3d(3, width, 3, padding=1), nn.ReLU())
        self.fc = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.fc(self.body(x).mean((2, 3, 4)))
        return logits


@pytest.fixture(autouse=True)
def own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    monkeypatch.setattr(registry._MODELS, "_entries", dict(registry._MODELS._entries))
    monkeypatch.setattr(registry._MODELS, "_owners", dict(registry._MODELS._owners))


def net(num_classes: int = 400, width: int = 8) -> nn.Module:
    """The entry point that a user writes."""
    return Net(num_classes, width)


def test_a_function_is_all_it_takes() -> None:
    assert register_model(net) is net
    assert list_models()[-1] == "net"
    model = saccade.create_model("net", num_classes=5, width=6)
    assert model(torch.zeros(2, 3, 4, 16, 16)).shape == (2, 5)
    assert model.build_args == {"name": "net", "num_classes": 5, "width": 6}
    assert create_on_meta("net").fc.weight.is_meta
    info = saccade.model_info("net")
    assert (info.frames, info.stride, info.train_crop, info.test_crop) == (16, 4, 224, 224)


def test_facts_are_given_or_counted() -> None:
    register_model(net, name="my_net", clip=CLIP, source="me", licence="MIT")
    info = model_info("my_net")
    assert info.clip_spec() == CLIP
    assert info.train_short_side == (20, 25)
    assert info.params == 8 * 3 * 27 + 8 + 400 * 8 + 400
    assert info.gmacs == info.gmacs_test == pytest.approx((8 * 3 * 27 * 4 * 16 * 16 + 400 * 8) / 1e9)
    assert (info.source, info.licence) == ("me", "MIT")


def test_a_network_that_the_meta_device_cannot_run_has_no_gmacs() -> None:
    class Picky(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * float(x.sum() == 0)

    @register_model(clip=CLIP)
    def picky(num_classes: int = 400) -> nn.Module:
        return Picky(num_classes, 4)

    assert math.isnan(model_info("picky").gmacs)
    assert model_info("picky").params > 0


def test_options_are_checked() -> None:
    register_model(net)
    with pytest.raises(UsageError, match=r"widht.*width"):
        create_model("net", widht=3)
    with pytest.raises(UsageError, match="num_classes"):

        @register_model
        def without_classes(width: int = 8) -> nn.Module:
            return Net(2, width)

    with pytest.raises(UsageError, match="parameters"):
        register_model(net, name="other", parameters=3)
    with pytest.raises(UsageError, match="x3d_s"):
        register_model(net, name="x3d_s")
    register_model(lambda num_classes=2: {}, name="no_module")
    with pytest.raises(UsageError, match="dict"):
        create_model("no_module")
    with pytest.raises(ConfigError, match="norm_layer"):
        create_model("x3d_s", norm_layer="batch")


def test_the_contract_answers_for_any_module() -> None:
    register_model(net, clip=CLIP)
    model = create_model("net", 5)
    assert contract.model_name(model) == "net"
    assert contract.num_classes(model) == 5
    assert contract.classifier_parameters(model) == ["fc.weight", "fc.bias"]
    assert contract.classifier(model) is model.fc
    assert contract.stages(model) == [model.body]
    assert contract.layer_ids(model) == {"body.0.weight": 0, "body.0.bias": 0, "fc.weight": 1, "fc.bias": 1}
    assert contract.clip_spec(model) == CLIP
    assert contract.clip_multiple(model) == (1, 1)
    assert contract.memory_format(model) is torch.channels_last_3d
    assert contract.memory_format(model, channels_last=False) is torch.contiguous_format
    assert contract.blocks(model) == []
    assert contract.no_weight_decay(model) == contract.not_averaged(model) == set()
    assert contract.lr_multipliers(model) == {}
    assert contract.regularization(model) is None
    assert contract.in_final_form(model)
    contract.on_train_progress(model, 0.5)
    bare = Net(3, 4)
    assert contract.model_name(bare) == "Net"
    assert contract.num_classes(bare) == 3
    assert contract.clip_spec(bare) is None
    assert contract.build_args(bare) is None
    assert contract.unwrap(torch.compile(bare, backend="eager")) is bare


def test_the_contract_asks_methods_and_no_submodules() -> None:
    class Timm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.num_classes = 7
            self.blocks = nn.Sequential(nn.Linear(4, 4))
            self.stages = nn.Sequential(nn.Linear(4, 4))
            self.head = nn.Linear(4, 7)
            self.aux = nn.Linear(4, 7)

        def get_classifier(self) -> nn.Module:
            return self.head

        def no_weight_decay(self) -> set[str]:
            return {"blocks.0.weight"}

    model = Timm()
    assert contract.blocks(model) == []
    assert contract.no_weight_decay(model) == {"blocks.0.weight"}
    assert contract.classifier_parameters(model) == ["head.weight", "head.bias"]


def test_the_contract_gives_the_clip_of_this_very_model() -> None:
    assert contract.clip_spec(create_on_meta("x3d_xs")) == model_info("x3d_xs").clip_spec()
    changed = create_on_meta("x3d_xs", 5, gamma_t=8, gamma_tau=2, gamma_s=1.0)
    clip = contract.clip_spec(changed)
    assert clip is not None
    assert (clip.num_frames, clip.stride, clip.crop, clip.short_side) == (8, 2, 127, 127)
    train = contract.clip_spec(changed, train=True)
    assert train is not None
    assert train.crop == changed.config.train_crop == 112
    small = contract.clip_spec(create_on_meta("timesformer_base", train_crop=64, num_frames=4))
    assert small is not None
    assert (small.num_frames, small.crop) == (4, 64)
    assert small.short_side >= 64


def test_weights_are_saved_loaded_and_rebuilt(tmp_path: Path) -> None:
    register_model(net)
    source = create_model("net", 5, width=6)
    file = tmp_path / "net.safetensors"
    save_weights(source, file, {"dataset": "mine"})
    model, metadata = load_model(file)
    assert metadata["dataset"] == "mine"
    clip = torch.randn(1, 3, 4, 16, 16)
    torch.testing.assert_close(model(clip), source.eval()(clip), rtol=0, atol=0)
    report = load_weights(create_model("net", 3, width=6), file)
    assert report.missing == ("fc.weight", "fc.bias")
    assert "5 classes in the file, 3 in the model" in report.notes[0]


def test_load_model_sends_a_foreign_file_to_convert(tmp_path: Path) -> None:
    torch.save(Net(2, 3).state_dict(), tmp_path / "net.pt")
    with pytest.raises(WeightsError, match="saccade convert"):
        load_model(tmp_path / "net.pt")
    save_weights(Net(2, 3), tmp_path / "bare.safetensors")
    with pytest.raises(WeightsError, match="saccade convert"):
        load_model(tmp_path / "bare.safetensors")


def test_a_format_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from saccade.models.checkpoints import formats

    monkeypatch.setattr(formats, "_FORMATS", list(formats._FORMATS))
    register_checkpoint_format(
        CheckpointFormat(
            name="my lab",
            models=Net,
            marker=lambda state: any(key.startswith("trunk") for key in state),
            prefixes={"logits.": "fc."},
            block=r"trunk(?P<index>\d+)\.",
            block_name="body.{index}.",
            parts={"w": "weight", "b": "bias"},
        )
    )
    source, model = Net(4, 3), Net(4, 3)
    names = {"body.0.weight": "trunk0.w", "body.0.bias": "trunk0.b"}
    state = {names.get(key, f"logits.{key[3:]}"): value for key, value in source.state_dict().items()}
    report = load_weights(model, state)
    assert report.format == "my lab"
    assert report.num_loaded == 4
    for key, value in source.state_dict().items():
        assert torch.equal(model.state_dict()[key], value)


def test_an_installed_package_adds_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decorated = """
from torch import nn
from saccade import register_model

@register_model
def plug_net(num_classes=400, width=8):
    return nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(3, num_classes))

def plain_net(num_classes=400):
    return plug_net(num_classes)
"""
    points = {"plug_net": "plug_models:plug_net", "plug_plain": "plug_models:plain_net"}
    install(tmp_path, "plug_models", decorated, "saccade.models", points)
    monkeypatch.setattr(registry._MODELS, "_loaded", set(registry._MODELS._loaded))
    monkeypatch.syspath_prepend(tmp_path)
    assert create_model("plug_plain", 3)(torch.zeros(1, 3, 2, 4, 4)).shape == (1, 3)
    assert list_models("plug_*") == ["plug_net", "plug_plain"]
    assert create_model("plug_net", num_classes=2, width=3).num_classes == 2


def test_a_network_that_the_meta_device_cannot_build(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those that read their rates of stochastic depth from ``torch.linspace``."""
    from saccade.models.checkpoints.load import guess_models
    from saccade.recipes import get_recipe
    from saccade.training import ModelConfig
    from saccade.training.network import has_batch_norm

    for field in ("_entries", "_owners"):
        monkeypatch.setattr(registry._MODELS, field, dict(getattr(registry._MODELS, field)))

    def add(norm: type[nn.Module], works: bool = True) -> None:
        @register_model(name="test_linspace")
        def build(num_classes: int = 400) -> nn.Module:
            rates = [rate.item() for rate in torch.linspace(0, 0.1, 2)]
            if not works:
                raise RuntimeError("no such luck")
            return nn.Sequential(nn.Conv3d(3, 4, 1), norm(4), nn.Dropout(rates[1]), nn.Linear(4, num_classes))

    config = get_recipe("x3d_motion").replace(model=ModelConfig(name="test_linspace"))
    add(nn.BatchNorm3d)
    assert model_info("test_linspace").params
    assert has_batch_norm(config)
    add(nn.Identity)  # registered anew, as by a notebook's cell that is run again
    assert not has_batch_norm(config)
    add(nn.Identity, works=False)
    assert guess_models(create_model("x2d", 5).state_dict()) == ["x2d"]


@pytest.mark.parametrize(
    "module", ["registry", "checkpoints.formats", "checkpoints.load", "checkpoints.files"]
)
def test_the_examples_of_the_docstrings_run(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from saccade.models.checkpoints import formats

    monkeypatch.setattr(formats, "_FORMATS", list(formats._FORMATS))
    result = doctest.testmod(importlib.import_module(f"saccade.models.{module}"))
    assert result.attempted
    assert not result.failed
