from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from golden import rule
from saccade.errors import ConfigError, UsageError
from saccade.models import X3D, X3DConfig, count_macs, count_params, create_model, list_models, model_info

TINY = {"gamma_w": 0.3, "gamma_d": 0.4, "gamma_b": 1.5, "head_width": 64}


def tiny(num_classes: int = 5, **overrides: object) -> X3D:
    model = create_model("x3d_xs", num_classes, **TINY | overrides)
    assert isinstance(model, X3D)
    return model


# -------------------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("name", "params", "gmacs"),
    [
        ("x2d", 1_633_560, 0.02067),  # the paper: 1.63 M and 20.67 M
        ("x3d_xs", 3_794_322, 0.605),
        ("x3d_s", 3_794_322, 1.963),
        ("x3d_m", 3_794_322, 4.732),
        ("x3d_l", 6_153_432, 18.367),
        ("x3d_xl", 11_095_904, 35.838),
    ],
)
def test_parameters_and_gmacs(name: str, params: int, gmacs: float) -> None:
    with torch.device("meta"):
        model = create_model(name)
    info = model_info(name)
    assert count_params(model) == info.params == params
    assert info.gmacs == pytest.approx(gmacs, rel=0.005)
    for crop, listed in ((info.train_crop, info.gmacs), (info.test_crop, info.gmacs_test)):
        assert count_macs(model, (1, 3, info.frames, crop, crop)) / 1e9 == pytest.approx(listed, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "gmacs"), [("x3d_xs", 0.839), ("x3d_s", 2.722), ("x3d_l", 24.77), ("x3d_xl", 48.407)]
)
def test_gmacs_at_the_test_crop_with_one_window(name: str, gmacs: float) -> None:
    """Figures counted elsewhere have one window in the head; the default head has four, 1.7 M each."""
    info = model_info(name)
    with torch.device("meta"):
        model = create_model(name, head_pool="global")
    counted = count_macs(model, (1, 3, info.frames, info.test_crop, info.test_crop)) / 1e9
    assert counted == pytest.approx(gmacs, rel=0.0005)
    assert info.gmacs_test == pytest.approx(counted, rel=0.007)


@pytest.mark.parametrize("name", ["x3d_xs", "x3d_s", "x3d_m"])
def test_counts_are_those_of_pyslowfast(name: str) -> None:
    recording = rule.load(name)
    assert recording["counts"]["params_all"] == model_info(name).params
    assert recording["macs_train_crop"] == round(model_info(name).gmacs * 1e9)
    assert recording["macs_test_crop"] == round(model_info(name).gmacs_test * 1e9)


def test_counting_changes_nothing() -> None:
    model = tiny().train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    one = count_macs(model, (1, 3, 2, 32, 32))
    assert count_macs(model, (3, 3, 2, 32, 32)) == 3 * one
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


# --------------------------------------------------------------------------------------------------- config


def test_the_named_points() -> None:
    xl = create_model("x3d_xl").config
    assert (xl.widths, xl.inner_widths, xl.depths) == (
        (32, 72, 136, 280),
        (72, 162, 306, 630),
        (5, 10, 25, 15),
    )
    m = create_model("x3d_m").config
    assert (m.widths, m.inner_widths, m.depths) == ((24, 48, 96, 192), (54, 108, 216, 432), (3, 5, 11, 7))
    assert (m.num_frames, m.stride, m.train_crop, m.window) == (16, 5, 224, (16, 7, 7))
    assert X3DConfig() == create_model("x2d").config
    infos = [model_info(name) for name in list_models("x*")]
    crops = [(info.frames, info.stride, info.train_crop) for info in infos]
    assert crops == [(1, 1, 112), (4, 12, 160), (13, 6, 160), (16, 5, 224), (16, 5, 312), (16, 5, 312)]


@pytest.mark.parametrize(
    "factors",
    [
        {"gamma_w": 0.2},
        {"gamma_w": 1.37, "gamma_b": 0.01},
        {"gamma_d": 0.1, "gamma_b": 3.3},
        {"gamma_t": 5.4, "gamma_tau": 2.6, "gamma_s": 0.3},
        {"se_ratio": 0, "head_width": 7, "drop_path": 0.3, "gamma_d": 1.7},
    ],
)
def test_any_point_builds_and_runs(factors: dict) -> None:
    model = X3D(X3DConfig(**factors), 3)
    config = model.config
    logits = model(torch.randn(2, 3, config.num_frames, 40, 56))
    logits.sum().backward()
    assert logits.shape == (2, 3)
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    again = create_model(**json.loads(json.dumps(model.build_args)))
    assert again.config == config  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"gamma_w": 0}, "gamma_w must be a number above 0, got 0"),
        ({"gamma_d": math.nan}, "gamma_d must be a number above 0, got nan"),
        ({"gamma_b": "2"}, "gamma_b must be a number above 0, got '2'"),
        ({"gamma_s": True}, "gamma_s must be a number above 0, got True"),
        ({"gamma_s": 0.001}, "gamma_s=0.001 gives a crop of 0 pixels"),
        ({"gamma_t": 0.5}, "gamma_t counts frames and must be at least 1"),
        ({"dropout": 1.0}, "dropout must be a number at least 0 and below 1"),
        ({"drop_path": -0.1}, "drop_path must be a number at least 0 and below 1"),
        ({"head_pool": "mean"}, "head_pool must be one of pyslowfast, pytorchvideo, global, got 'mean'"),
        ({"init": "xavier"}, "init must be one of pyslowfast, x3d-multigrid, got 'xavier'"),
        ({"head_width": 2.5}, "head_width must be a positive integer"),
        ({"localization": 1}, "localization must be true or false"),
    ],
)
def test_bad_fields(fields: dict, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        X3DConfig(**fields)
    assert str(caught.value).startswith(message)


def test_bad_number_of_classes_and_bad_input() -> None:
    with pytest.raises(ConfigError, match="num_classes must be an integer of at least 0, got -1"):
        create_model("x2d", -1)
    with pytest.raises(UsageError, match=r"shape \(B, 3, T, H, W\), got \(1, 4, 2, 8, 8\)"):
        tiny()(torch.zeros(1, 4, 2, 8, 8))


# ---------------------------------------------------------------------------------------------------- init


def test_init_is_that_of_pyslowfast() -> None:
    """Standard deviations are sqrt(2 / fan-out); those of PySlowFast lie within the sampling error."""
    torch.manual_seed(0)
    state = create_model("x3d_m").state_dict()
    recorded = {
        "stem.conv_s.weight": (0.0986, 648, 24 * 9),
        "stem.conv_t.weight": (0.1192, 120, 24 * 5),
        "res2.0.shortcut_conv.weight": (0.3072, 576, 24),
        "res2.0.conv_a.weight": (0.1906, 1296, 54),
        "res2.0.conv_b.weight": (0.0371, 1458, 54 * 27),
        "res2.0.se.fc1.weight": (0.4917, 432, 8),
        "res2.0.conv_c.weight": (0.2835, 1296, 24),
        "head.hidden.weight": (0.0312, 432 * 2048, 2048),
    }
    for key, (upstream, count, fan_out) in recorded.items():
        expected = math.sqrt(2 / fan_out)
        assert state[key].numel() == count
        assert state[key].std().item() == pytest.approx(expected, rel=4 / math.sqrt(2 * count)), key
        assert upstream == pytest.approx(expected, rel=4 / math.sqrt(2 * count)), key
    assert state["head.classifier.weight"].std().item() == pytest.approx(0.01, rel=0.01)
    zeros = [key for key, value in state.items() if key.endswith("norm_c.weight") and not value.any()]
    assert len(zeros) == 26
    assert not any(state[key].any() for key in state if key.endswith("bias"))


def test_init_of_x3d_multigrid_leaves_the_last_norms_at_one() -> None:
    state = tiny(init="x3d-multigrid").state_dict()
    assert all(bool((value == 1).all()) for key, value in state.items() if key.endswith("norm_c.weight"))
    assert state["head.classifier.bias"].any()


def test_drop_path_rates_grow_with_the_stages() -> None:
    model = tiny(drop_path=0.5)
    rates = [stage[0].drop_path.rate for stage in (model.res2, model.res3, model.res4, model.res5)]
    assert rates == pytest.approx([0.2, 0.3, 0.4, 0.5])
    assert isinstance(tiny().res2[0].drop_path, nn.Identity)


# ---------------------------------------------------------------------------------------------------- verbs


def test_intermediates_and_features() -> None:
    model = tiny().eval()
    x = torch.randn(2, 3, 4, 64, 96)
    outputs = model.forward_intermediates(x)
    assert [tuple(o.shape[2:]) for o in outputs] == [(4, 64 // s, 96 // s) for s in (2, 4, 8, 16, 32)]
    assert [o.shape[1] for o in outputs] == [model.config.widths[0], *model.config.widths]
    assert torch.equal(outputs[-1], model.forward_features(x))
    assert torch.equal(model.head(outputs[-1]), model(x))
    picked = model.forward_intermediates(x, indices=(-2, 0))
    assert torch.equal(picked[0], outputs[0])
    assert torch.equal(picked[1], outputs[3])
    with pytest.raises(UsageError, match="stages 0 to 4"):
        model.forward_intermediates(x, indices=(5,))


def test_reset_classifier() -> None:
    model = tiny(5).double().eval()
    x = torch.randn(2, 3, 4, 64, 64, dtype=torch.float64)
    model.reset_classifier(9)
    assert model(x).shape == (2, 9)
    assert model.build_args["num_classes"] == model.num_classes == 9
    assert model.classifier_parameters() == ["head.classifier.weight", "head.classifier.bias"]
    model.reset_classifier(0)
    assert model(x).shape == (2, 64)
    assert model.classifier_parameters() == []


def test_stages_hold_all_but_the_head() -> None:
    model = tiny()
    inside = {id(p) for stage in [*model.stages(), model.head] for p in stage.parameters()}
    assert inside == {id(p) for p in model.parameters()}
    assert model.stages()[0] is model.stem
    assert model.no_weight_decay() == set()


def test_norm_layer_makes_every_norm() -> None:
    from saccade.layers import SyncBatchNorm3d

    model = create_model("x2d", norm_layer=SyncBatchNorm3d)
    plain = create_model("x2d")
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm3d)]
    assert norms
    assert all(isinstance(m, SyncBatchNorm3d) for m in norms)
    assert model.state_dict().keys() == plain.state_dict().keys()


def test_windows_in_training_average_their_logits() -> None:
    model = tiny(dropout=0.0).double()
    x = torch.randn(2, 3, 6, 192, 192, dtype=torch.float64)
    windows = model.window_logits(x)
    assert windows.shape == (2, 3, 2, 2, 5)
    torch.testing.assert_close(model(x), windows.flatten(1, 3).mean(1))


def test_averaged_windows_stay_finite_for_huge_logits() -> None:
    model = tiny().eval()
    with torch.no_grad():
        model.head.classifier.weight.mul_(1e6)  # type: ignore[operator, union-attr]
        logits = model(torch.randn(1, 3, 4, 192, 192))
    assert logits.isfinite().all()
    assert logits.softmax(1).sum().item() == pytest.approx(1.0, abs=1e-5)


# --------------------------------------------------------------------------------------- compile, export,
# layout


def test_compile_has_no_graph_breaks() -> None:
    torch.manual_seed(0)
    model = tiny(drop_path=0.1).eval()
    x = torch.randn(2, 3, 4, 192, 192)  # four windows
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(x), model(x), rtol=1e-4, atol=1e-5)


def test_compile_trains() -> None:
    model = tiny(drop_path=0.1)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    compiled(torch.randn(2, 3, 4, 64, 64)).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@pytest.mark.parametrize("crop", [64, 192])
def test_export_with_any_batch(crop: int) -> None:
    torch.manual_seed(0)
    model = tiny().eval()
    batch = torch.export.Dim("batch", min=1, max=64)
    program = torch.export.export(model, (torch.randn(2, 3, 4, crop, crop),), dynamic_shapes=({0: batch},))
    x = torch.randn(5, 3, 4, crop, crop)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), model(x), rtol=1e-4, atol=1e-5)


def test_channels_last_is_kept_through_the_network() -> None:
    torch.manual_seed(0)
    layout = torch.channels_last_3d
    model = tiny(init="x3d-multigrid")
    x = torch.randn(2, 3, 4, 64, 64)
    expected = [o.detach() for o in model.forward_intermediates(x)]
    model = model.to(memory_format=layout)  # type: ignore[call-overload]
    outputs = model.forward_intermediates(x.to(memory_format=layout))
    for output, wanted in zip(outputs, expected, strict=True):
        assert output.is_contiguous(memory_format=layout)
        torch.testing.assert_close(output, wanted, rtol=1e-3, atol=1e-3)
