from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from golden import rule
from saccade.cli import main
from saccade.errors import ConfigError, UsageError, WeightsError
from saccade.layers import SyncBatchNorm3d
from saccade.models import (
    VoV3D,
    VoV3DConfig,
    count_macs,
    count_params,
    create_model,
    load_model,
    load_weights,
    model_info,
)
from saccade.models.checkpoints.formats import convert
from saccade.training.optim import parameter_groups

TINY = {"inner_channels": 8, "depths": (1, 2, 1, 1), "num_conv": 3, "head_width": 32}


def tiny(num_classes: int = 5, **overrides: object) -> VoV3D:
    model = create_model("vov3d_m", num_classes, **TINY | overrides)
    assert isinstance(model, VoV3D)
    return model


@pytest.fixture(scope="module")
def authors_state() -> dict[str, Tensor]:
    """VoV3D-M with 400 classes under the authors' names."""
    names = rule.load("vov3d_m_k400")["state_dict"]
    return {name: torch.from_numpy(rule.param(name, shape)).float() for name, shape in names}


# -------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("name", "num_classes", "params", "tensors"),
    [
        ("vov3d_m", 400, 3_667_360, 944),
        ("vov3d_m", 174, 3_204_286, 944),
        ("vov3d_l", 400, 6_297_168, 1283),
        ("vov3d_l", 174, 5_834_094, 1283),
        ("vov3d_m_v1", 400, 3_800_448, 580),
        ("vov3d_m_v1", 174, 3_337_374, 580),
    ],
)
def test_parameters_and_tensors(name: str, num_classes: int, params: int, tensors: int) -> None:
    with torch.device("meta"):
        model = create_model(name, num_classes)
    assert count_params(model) == params
    assert len(model.state_dict()) == tensors
    if num_classes == 400:
        assert model_info(name).params == params


@pytest.mark.parametrize(
    ("name", "frames", "gmacs", "gmacs_test"),
    [
        ("vov3d_m", 16, 4.916, 6.423),
        ("vov3d_m", 32, 9.83, 12.84),
        ("vov3d_l", 16, 9.306, 12.157),
        ("vov3d_l", 32, 18.61, 24.31),  # the authors' README: 24.3 at 256
        ("vov3d_m_v1", 16, 4.42, 5.774),  # their first README: 4.4 with 400 classes, 5.7 with 174
    ],
)
def test_gmacs(name: str, frames: int, gmacs: float, gmacs_test: float) -> None:
    """At the test crop the head classifies four windows, 0.04 % more than these figures of one."""
    with torch.device("meta"):
        model = create_model(name, num_frames=frames)
    for crop, expected in ((224, gmacs), (256, gmacs_test)):
        counted = count_macs(model, (1, 3, frames, crop, crop)) / 1e9
        assert counted == pytest.approx(expected, rel=0.0008)
        if frames == 16:
            info = model_info(name)
            listed = info.gmacs if crop == info.train_crop else info.gmacs_test
            assert counted == pytest.approx(listed, rel=1e-9)


@pytest.mark.parametrize("recording", ["vov3d_m_k400", "vov3d_m_ssv2"])
def test_counts_are_those_of_the_authors(recording: str) -> None:
    recorded = rule.load(recording)
    num_classes = 400 if recording.endswith("k400") else 174
    with torch.device("meta"):
        model = create_model("vov3d_m", num_classes)
    assert recorded["counts"]["params_all"] == count_params(model)
    assert recorded["macs_train_crop"] == count_macs(model, (1, 3, 16, 224, 224))
    assert recorded["macs_test_crop"] == count_macs(model, (1, 3, 16, 256, 256))


def test_the_earlier_vov3d_m_is_a_point_of_the_config() -> None:
    """Weights published before the model was changed: 3.8 M parameters, 4.4 GMACs at 224, 5.7 at 256."""
    earlier = {"inner_channels": 48, "depths": "1,1,2,2", "num_conv": 4}
    with torch.device("meta"):
        model, ssv = create_model("vov3d_m", **earlier), create_model("vov3d_m", 174, **earlier)
    assert count_params(model) / 1e6 == pytest.approx(3.8, abs=0.05)
    assert count_params(ssv) / 1e6 == pytest.approx(3.3, abs=0.05)
    assert count_macs(model, (1, 3, 16, 224, 224)) / 1e9 == pytest.approx(4.4, abs=0.05)
    assert count_macs(ssv, (1, 3, 16, 256, 256)) / 1e9 == pytest.approx(5.7, abs=0.1)


# --------------------------------------------------------------------------------------------------- config


def test_the_named_shapes() -> None:
    m, large = VoV3DConfig(), create_model("vov3d_l", 0).config
    assert (m.widths, m.inner_widths) == ((20, 40, 80, 160), (40, 80, 160, 320))
    assert (large.widths, large.inner_widths) == ((24, 48, 96, 192), (48, 96, 192, 384))  # type: ignore[union-attr]
    assert m.window == (16, 7, 7)


def test_what_a_block_aggregates() -> None:
    """All layers, and the input of a block that keeps the size."""
    with torch.device("meta"):
        model = create_model("vov3d_m")
    joined = [[block.conv.in_channels for block in stage] for stage in model.stages()[1:]]
    assert joined == [[100], [200, 240], [400, 480, 480], [800, 960]]
    hidden = [stage[0].layers[0].se.fc1.out_channels for stage in model.stages()[1:]]
    assert hidden == [8, 8, 16, 24]
    for stage in model.stages()[1:]:
        for number, block in enumerate(stage):
            assert [isinstance(layer.se, nn.Identity) for layer in block.layers] == [
                i % 2 == 1 for i in range(5)
            ]
            assert [layer.is_residual for layer in block.layers] == [number > 0, True, True, True, True]


@pytest.mark.parametrize(
    "shape",
    [
        {"inner_channels": 6, "num_conv": 1},
        {"inner_channels": 9, "depths": [2, 1, 1, 2]},
        {"num_frames": 32, "train_crop": 112, "se_ratio": 0, "drop_path": 0.3},
        {"depths": "1, 1,1,1", "num_conv": 7, "head_width": 3},
    ],
)
def test_any_shape_builds_and_runs(shape: dict) -> None:
    model = VoV3D(VoV3DConfig(**TINY | shape), 3)
    logits = model(torch.randn(2, 3, 4, 40, 56))
    logits.sum().backward()
    assert logits.shape == (2, 3)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert json.loads(json.dumps(model.build_args)) == model.build_args
    again = create_model(**model.build_args)
    assert again.config == model.config  # type: ignore[attr-defined]


@pytest.mark.parametrize("frames", [1, 8, 16, 32])
def test_any_number_of_frames(frames: int) -> None:
    model = tiny(num_frames=frames).eval()
    with torch.inference_mode():
        assert model(torch.randn(1, 3, frames, 64, 64)).shape == (1, 5)
        assert model.window_logits(torch.randn(1, 3, 2 * frames, 64, 64)).shape[1] == frames + 1


def test_per_frame_logits() -> None:
    with torch.inference_mode():
        assert tiny(localization=True).eval()(torch.randn(2, 3, 6, 64, 48)).shape == (2, 5, 6)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"inner_channels": 0}, "inner_channels must be a positive integer, got 0"),
        ({"inner_channels": 1}, "inner_channels must be at least 2"),
        ({"num_conv": 2.0}, "num_conv must be a positive integer, got 2.0"),
        ({"depths": (1, 2, 3)}, "depths must be 4 positive integers"),
        ({"depths": "1,2,x,2"}, "depths must be 4 positive integers, the blocks of the stages, e.g. 1,2,3,2"),
        ({"depths": 4}, "depths must be 4 positive integers"),
        ({"depths": (1, 2, 0, 2)}, "depths must be 4 positive integers"),
        ({"depths": (1, 2, True, 2)}, "depths must be 4 positive integers"),
        ({"num_frames": 0}, "num_frames must be a positive integer"),
        ({"train_crop": "224"}, "train_crop must be a positive integer, got '224'"),
        ({"dropout": 1.0}, "dropout must be a number at least 0 and below 1"),
        ({"drop_path": math.nan}, "drop_path must be a number at least 0 and below 1"),
        ({"se_ratio": -1}, "se_ratio must be a number at least 0"),
        ({"bn_eps": 0}, "bn_eps must be a number above 0"),
        ({"head_pool": "max"}, "head_pool must be one of pyslowfast, pytorchvideo, global, got 'max'"),
        ({"localization": "yes"}, "localization must be true or false"),
    ],
)
def test_bad_fields(fields: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        VoV3DConfig(**fields)
    assert str(caught.value).startswith(message)


def test_bad_options_and_input() -> None:
    with pytest.raises(UsageError, match=r"vov3d_m has no option inner_chanels \(did you mean inner_ch"):
        create_model("vov3d_m", inner_chanels=8)
    with pytest.raises(UsageError, match=r"shape \(B, 3, T, H, W\), got \(3, 4, 8, 8\)"):
        tiny()(torch.zeros(3, 4, 8, 8))


# ----------------------------------------------------------------------------------- init, norms, drop path


def test_init() -> None:
    """Fan-out normals; only the norm behind each aggregation is 0, so that a block starts as its shortcut."""
    torch.manual_seed(0)
    model = create_model("vov3d_m")
    state = model.state_dict()
    for key, fan_out in (
        ("stem.conv_s.weight", 20 * 9),
        ("res2.0.layers.0.conv_s.weight", 40 * 9),
        ("res3.1.layers.2.conv_t.weight", 80 * 3),
        ("res4.2.layers.4.conv_c.weight", 80),
        ("res5.1.conv.weight", 160),
        ("head.hidden.weight", 2048),
    ):
        expected, count = math.sqrt(2 / fan_out), state[key].numel()
        assert state[key].std().item() == pytest.approx(expected, rel=4 / math.sqrt(2 * count)), key
    assert state["head.classifier.weight"].std().item() == pytest.approx(0.01, rel=0.01)
    zero = {
        name for name, p in model.named_parameters() if p.ndim == 1 and "bias" not in name and not p.any()
    }
    assert zero == {f"res{k + 2}.{i}.norm.weight" for k, n in enumerate((1, 2, 3, 2)) for i in range(n)}
    assert not any(state[key].any() for key in state if key.endswith("bias"))


def test_no_norm_and_no_bias_decays() -> None:
    """The authors' rule, "bn" in the name, misses the norms inside the layers."""
    model = create_model("vov3d_m", 174)
    norms = {
        id(p) for module in model.modules() if isinstance(module, nn.BatchNorm3d) for p in module.parameters()
    }
    assert len(norms) == 2 * 134
    groups = {group["name"]: group for group in parameter_groups(model, weight_decay=1e-4)}
    decayed = [p for name, group in groups.items() if group["weight_decay"] > 0 for p in group["params"]]
    assert decayed
    assert not norms & {id(p) for p in decayed}
    assert all(p.ndim > 1 for p in decayed)


def test_drop_path_rates_grow_with_the_stages() -> None:
    model = tiny(drop_path=0.5)
    rates = [stage[0].drop_path.rate for stage in (model.res2, model.res3, model.res4, model.res5)]
    assert rates == pytest.approx([0.2, 0.3, 0.4, 0.5])
    assert isinstance(tiny().res2[0].drop_path, nn.Identity)


def test_drop_path_leaves_the_shortcut() -> None:
    block = tiny(drop_path=0.9).res3[1].train()
    nn.init.ones_(block.norm.weight)
    x = torch.rand(64, 8, 2, 4, 4)
    torch.manual_seed(0)
    kept = (block(x) - x).flatten(1).abs().amax(1) > 0
    assert 0 < kept.sum() < 50


def test_norm_layer_makes_every_norm() -> None:
    model = tiny(norm_layer=SyncBatchNorm3d)
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm3d)]
    assert norms
    assert all(isinstance(module, SyncBatchNorm3d) for module in norms)
    assert model.state_dict().keys() == tiny().state_dict().keys()


# ---------------------------------------------------------------------------------------------------- verbs


def test_stages_and_intermediates() -> None:
    model = tiny().eval()
    inside = {id(p) for stage in [*model.stages(), model.head] for p in stage.parameters()}
    assert inside == {id(p) for p in model.parameters()}
    x = torch.randn(2, 3, 4, 64, 96)
    outputs = model.forward_intermediates(x)
    assert [tuple(o.shape[2:]) for o in outputs] == [(4, 64 // s, 96 // s) for s in (2, 4, 8, 16, 32)]
    assert [o.shape[1] for o in outputs] == [4, 4, 8, 16, 32]
    assert torch.equal(model.head(outputs[-1]), model(x))


def test_reset_classifier() -> None:
    model = tiny(5).double().eval()
    x = torch.randn(2, 3, 4, 64, 64, dtype=torch.float64)
    model.reset_classifier(9)
    assert model(x).shape == (2, 9)
    assert model.build_args["num_classes"] == 9
    assert model.classifier_parameters() == ["head.classifier.weight", "head.classifier.bias"]
    model.reset_classifier(0)
    assert model(x).shape == (2, 32)


def test_the_reach_in_time_grows_with_the_layers() -> None:
    """One block of n layers sees n frames to either side, and each layer one more than that before it."""
    block = tiny(num_conv=3, se_ratio=0).double().eval().res2[0]
    for norm in (module for module in block.modules() if isinstance(module, nn.BatchNorm3d)):
        nn.init.ones_(norm.weight)
    x = torch.randn(1, 4, 11, 8, 8, dtype=torch.float64)
    changed = x.clone()
    changed[:, :, 5] += 1
    one, other = x, changed
    for layer, reach in zip(block.layers, (1, 2, 3), strict=True):
        one, other = layer(one), layer(other)
        assert _frames_that_differ(one, other) == list(range(5 - reach, 6 + reach))
    assert _frames_that_differ(block(x), block(changed)) == list(range(2, 9))


def _frames_that_differ(one: Tensor, other: Tensor) -> list[int]:
    return [t for t in range(one.shape[2]) if not torch.equal(one[:, :, t], other[:, :, t])]


# -------------------------------------------------------------------------------------------------- weights


def test_a_checkpoint_file_of_the_authors(authors_state: dict[str, Tensor], tmp_path: Path) -> None:
    path = tmp_path / "vov3d_M_k400.pyth"
    content = {"epoch": 255, "model_state": authors_state, "optimizer_state": {}, "cfg": "NUM_GPUS: 8\n"}
    torch.save(content, path)
    model = create_model("vov3d_m")
    report = load_weights(model, path)
    assert (report.format, report.num_loaded) == ("VoV3D", 944)
    assert not report.left_out
    assert set(report.mapped) == set(authors_state)
    assert set(report.mapped.values()) == set(model.state_dict())
    for theirs, ours in report.mapped.items():
        value = authors_state[theirs]
        assert torch.equal(model.state_dict()[ours], value.reshape(model.state_dict()[ours].shape)), ours


def test_every_tensor_of_l_is_mapped() -> None:
    """The names of the larger model follow from those of the smaller: more blocks in res4 and res5."""
    with torch.device("meta"):
        model = create_model("vov3d_l")
    theirs = [_authors_name(key) for key in model.state_dict()]
    assert len(set(theirs)) == 1283
    state = dict(zip(theirs, model.state_dict().values(), strict=True))
    conversion = convert(state, model, "state dict")[1]
    assert not conversion.unexpected
    assert list(conversion.mapped.values()) == list(model.state_dict())


def _authors_name(key: str) -> str:
    stage, _, rest = key.partition(".")
    if stage == "stem":
        part, leaf = rest.split(".")
        return f"s1.pathway0_stem.{ {'conv_s': 'conv_xy', 'conv_t': 'conv', 'norm': 'bn'}[part] }.{leaf}"
    if stage == "head":
        part, leaf = rest.split(".")
        names = {"conv": "conv_5", "norm": "conv_5_bn", "hidden": "lin_5", "classifier": "projection"}
        return f"head.{names[part]}.{leaf}"
    index, part, *more = rest.split(".")
    block = f"s{stage[-1]}.pathway0_res{index}"
    if part != "layers":
        names = {
            "conv": "branch2.c",
            "norm": "branch2.c_bn",
            "shortcut_conv": "branch1",
            "shortcut_norm": "branch1_bn",
        }
        return f"{block}.{names[part]}.{more[0]}"
    layer, part, *leaves = more
    names = {"conv_a": "a.0", "norm_a": "a.1", "conv_s": "b1", "conv_t": "b2", "norm_b": "b_bn"}
    names |= {"conv_c": "c.0", "norm_c": "c.1", "se": "se"}
    return ".".join([block, "branch2.layers", layer, names[part], *leaves])


def test_the_authors_names_of_m_are_the_recorded_ones(authors_state: dict[str, Tensor]) -> None:
    with torch.device("meta"):
        assert {_authors_name(key) for key in create_model("vov3d_m").state_dict()} == set(authors_state)


def test_other_classes_drop_the_classifier_alone_and_aloud(
    authors_state: dict[str, Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    model = create_model("vov3d_m", 174)
    classifier = model.get_parameter("head.classifier.weight").clone()
    report = load_weights(model, authors_state)
    counts = "400 classes in the file, 174 in the model"
    assert report.left_out == {"head.projection.weight": counts, "head.projection.bias": counts}
    assert report.num_loaded == 942
    assert f"the classifier was not loaded: {counts}" in caplog.text
    assert torch.equal(model.get_parameter("head.classifier.weight"), classifier)


def test_weights_that_do_not_fit(authors_state: dict[str, Tensor]) -> None:
    with pytest.raises(WeightsError, match=r"VoV3D weights do not fit vov3d_l: .*They are those of vov3d_m"):
        load_weights(create_model("vov3d_l"), authors_state)
    extra = {"s2.pathway0_res0.branch2.layers.0.d.weight": torch.zeros(1)}
    with pytest.raises(WeightsError, match=r"1 unexpected: s2\.pathway0_res0\.branch2\.layers\.0\.d\.weight"):
        load_weights(create_model("vov3d_m"), authors_state | extra)
    with pytest.raises(WeightsError, match=r"format of vov3d_m \(Saccade, VoV3D\)"):
        load_weights(create_model("vov3d_m"), {"s1.pathway0_stem.conv_xy.weight": torch.zeros(1)})


def test_convert_guesses_the_model(
    authors_state: dict[str, Tensor], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"model_state": authors_state}, tmp_path / "weights.pth")
    assert main(["convert", str(tmp_path / "weights.pth"), str(tmp_path / "m.safetensors")]) == 0
    assert "vov3d_m, 400 classes" in capsys.readouterr().out
    model, metadata = load_model(tmp_path / "m.safetensors")
    assert (model.model_name, metadata["converted_from"]) == ("vov3d_m", "VoV3D")


# ------------------------------------------------------------------------------------------ compile, export


def test_compile_and_export() -> None:
    torch.manual_seed(0)
    model = tiny(drop_path=0.1).eval()
    x = torch.randn(2, 3, 4, 64, 64)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (x,), dynamic_shapes=({0: batch},))
    more = torch.randn(5, 3, 4, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(program.module()(more), model(more), rtol=1e-4, atol=1e-5)
