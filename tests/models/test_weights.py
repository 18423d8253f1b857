from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from golden import rule
from saccade.errors import WeightsError
from saccade.models import X3D, create_model, load_model, load_weights, read_weights, save_weights

TINY = {"gamma_w": 0.3, "gamma_d": 0.4, "gamma_b": 1.5, "head_width": 64}


def tiny(num_classes: int = 5, **overrides: object) -> X3D:
    model = create_model("x3d_xs", num_classes, **TINY | overrides)
    assert isinstance(model, X3D)
    return model


@pytest.fixture(scope="module")
def multigrid_state() -> dict[str, Tensor]:
    """X3D-M with 157 classes as X3D-Multigrid saves it."""
    names = rule.load("x3d_kk_m_class")["state_dict"]
    return {name: torch.from_numpy(rule.param(name, shape)).float() for name, shape in names}


def mmaction2_state(multigrid: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same weights under MMAction2's names: convolution and norm are one module there."""
    state = {}
    for name, value in multigrid.items():
        if ".split_bn." in name:
            continue
        new = name.replace(".bn.running", ".running").replace(".bn.num_b", ".num_b")
        new = re.sub(r"^bn1\.", "backbone.conv1_t.bn.", new)
        new = re.sub(r"^conv(1_s|1_t|5)\.", r"backbone.conv\1.conv.", new)
        new = re.sub(r"^bn5\.", "backbone.conv5.bn.", new)
        new = re.sub(r"^fc([12])\.", r"cls_head.fc\1.", new)
        new = re.sub(r"^(layer\d\.\d+)\.downsample\.0\.", r"backbone.\1.downsample.conv.", new)
        new = re.sub(r"^(layer\d\.\d+)\.downsample\.1\.", r"backbone.\1.downsample.bn.", new)
        new = re.sub(r"^(layer\d\.\d+)\.conv(\d)\.", r"backbone.\1.conv\2.conv.", new)
        new = re.sub(r"^(layer\d\.\d+)\.bn(\d)\.", r"backbone.\1.conv\2.bn.", new)
        new = re.sub(r"^(layer\d\.\d+)\.fc(\d)\.", r"backbone.\1.se_module.fc\2.", new)
        state[new] = value
    state["cls_head.fc1.weight"] = state["cls_head.fc1.weight"].flatten(1)  # a Linear there
    return state


# ------------------------------------------------------------------------------------------------- formats


def test_multigrid_and_mmaction2_give_the_same_network(multigrid_state: dict[str, Tensor]) -> None:
    one, other = create_model("x3d_m", 157), create_model("x3d_m", 157)
    report = load_weights(one, multigrid_state)
    assert report.format == "X3D-Multigrid"
    assert report.num_loaded == len(one.state_dict()) == 568
    assert len(report.left_out) == 820 - 568
    assert all(".split_bn." in name for name in report.left_out)
    assert "left out: bn1.split_bn.running_mean" in report.summary()
    assert "and 248 more" in report.summary()
    report = load_weights(other, mmaction2_state(multigrid_state))
    assert report.format == "MMAction2 X3D"
    assert not report.left_out
    for key, value in one.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key


def test_statistics_that_were_never_aggregated_are_told(
    multigrid_state: dict[str, Tensor], caplog: pytest.LogCaptureFixture
) -> None:
    stale = {
        key: torch.zeros_like(value) if key.endswith(".bn.running_mean") else value
        for key, value in multigrid_state.items()
    }
    report = load_weights(create_model("x3d_m", 157), stale)
    assert any("aggregate" in note for note in report.notes)
    assert "aggregate" in caplog.text


def test_pytorchvideo_gets_an_identity_norm() -> None:
    names = rule.load("x3d_s_ptv")["state_dict"]
    model = create_model("x3d_s").double().eval()
    report = load_weights(model, {name: torch.from_numpy(rule.param(name, shape)) for name, shape in names})
    assert report.num_loaded == 563
    assert set(report.filled) == {f"res2.0.shortcut_norm.{leaf}" for leaf in rule_norm_leaves()}
    assert "PyTorchVideo has no norm here" in report.summary()
    norm = model.get_submodule("res2.0.shortcut_norm")
    x = torch.randn(2, 24, 2, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(norm(x), x, rtol=1e-15, atol=0)


def rule_norm_leaves() -> tuple[str, ...]:
    return ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "_orig_mod.", "module.model."])
@pytest.mark.parametrize("wrapper", ["", "model_state", "model_state_dict", "state_dict", "model"])
def test_wrappers_and_prefixes(prefix: str, wrapper: str) -> None:
    source, model = tiny(), tiny()
    state = {prefix + key: value for key, value in source.state_dict().items()}
    content = {wrapper: state, "epoch": 7, "cfg": "NUM_GPUS: 8"} if wrapper else state
    report = load_weights(model, content)
    assert report.format == "Saccade"
    assert report.mapped == {key: key for key in source.state_dict()}
    assert torch.equal(model.head.hidden.weight, source.head.hidden.weight)


def test_values_are_cast_to_the_type_of_the_model() -> None:
    for kind in (torch.float64, torch.float16, torch.bfloat16):
        source, model = tiny().to(kind), tiny()
        load_weights(model, source.state_dict())
        assert model.stem.conv_s.weight.dtype == torch.float32
        assert torch.equal(model.stem.conv_s.weight, source.stem.conv_s.weight.float())


def test_a_checkpoint_without_batch_counters_loads() -> None:
    state = {key: v for key, v in tiny().state_dict().items() if not key.endswith("num_batches_tracked")}
    report = load_weights(tiny(), state)
    assert not report.missing
    assert all(key.endswith("num_batches_tracked") for key in report.filled)
    assert "does not count its batches" in report.summary()


# ------------------------------------------------------------------------------------------ what does not fit


@pytest.mark.parametrize("num_classes", [3, 0])
def test_other_classes_drop_the_classifier_alone_and_aloud(
    num_classes: int, caplog: pytest.LogCaptureFixture
) -> None:
    source, model = tiny(5), tiny(num_classes)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    report = load_weights(model, source.state_dict())
    counts = f"5 classes in the file, {num_classes} in the model"
    assert report.left_out == {"head.classifier.weight": counts, "head.classifier.bias": counts}
    assert counts in report.summary()
    assert f"the classifier was not loaded: {counts}" in caplog.text
    for key, value in model.state_dict().items():
        kept = key.startswith("head.classifier.")
        assert torch.equal(value, before[key] if kept else source.state_dict()[key]), key


def test_strict_names_what_is_missing_unexpected_and_misshapen() -> None:
    state = dict(tiny().state_dict())
    del state["stem.norm.bias"]
    state["stem.extra"] = torch.zeros(1)
    state["res3.0.conv_c.weight"] = torch.zeros(3, 4)
    model = tiny()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(WeightsError) as caught:
        load_weights(model, state)
    message = str(caught.value)
    assert "1 missing: stem.norm.bias" in message
    assert "1 unexpected: stem.extra" in message
    assert re.search(
        r"1 of another shape or type: res3.0.conv_c.weight: 3×4 in the file, \d+×\d+×1×1×1", message
    )
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())

    report = load_weights(model, state, strict=False)
    assert set(report.missing) == {"stem.norm.bias", "res3.0.conv_c.weight"}
    assert set(report.left_out) == {"stem.extra", "res3.0.conv_c.weight"}
    assert torch.equal(model.stem.norm.bias, before["stem.norm.bias"])
    assert torch.equal(model.stem.conv_s.weight, state["stem.conv_s.weight"])


def test_weights_of_another_model_are_named(multigrid_state: dict[str, Tensor]) -> None:
    with pytest.raises(WeightsError, match=r"do not fit x3d_l: \d+ missing: .*They are those of .*x3d_m"):
        load_weights(create_model("x3d_l", 157), multigrid_state)


def test_a_multigrid_key_that_means_nothing_is_unexpected(multigrid_state: dict[str, Tensor]) -> None:
    with pytest.raises(WeightsError, match=r"1 unexpected: layer1\.0\.conv9\.weight"):
        load_weights(create_model("x3d_m", 157), {**multigrid_state, "layer1.0.conv9.weight": torch.zeros(1)})


def test_an_unknown_format_is_named() -> None:
    with pytest.raises(WeightsError, match=r"x3d_xs \(Saccade, .*PySlow.*layer9.w"):
        load_weights(tiny(), {"layer9.w": torch.zeros(1)})


# --------------------------------------------------------------------------------------------------- files


class Custom:
    pass


def test_files_that_are_not_checkpoints(tmp_path: Path) -> None:
    noise, code, number = tmp_path / "noise.pt", tmp_path / "code.pyth", tmp_path / "number.pt"
    noise.write_bytes(b"certainly no checkpoint")
    torch.save({"model_state": tiny().state_dict(), "object": Custom()}, code)
    torch.save(7, number)
    foreign = tmp_path / "foreign.safetensors"
    foreign.write_bytes(b"\x00" * 40)
    empty = tmp_path / "empty.pt"
    torch.save({"epoch": 3}, empty)
    for path, words in [
        (tmp_path / "absent.pt", "no such file"),
        (tmp_path / "absent.safetensors", "no such file"),
        (tmp_path, "a folder without best.safetensors"),
        (noise, "not a PyTorch checkpoint"),
        (code, "Custom) besides tensors, and reading one can run code"),
        (number, "holds a int, not a state dict"),
        (foreign, "not a readable safetensors file"),
        (empty, "no tensors found"),
    ]:
        with pytest.raises(WeightsError) as caught:
            load_weights(tiny(), path)
        assert str(caught.value).startswith(str(path))
        assert words in str(caught.value)


def test_a_pickle_and_a_safetensors_file_load_alike(tmp_path: Path) -> None:
    source = tiny()
    extras = {"epoch": 1, "lr": np.float64(0.1), "losses": [np.float32(2)]}
    torch.save({"model_state": source.state_dict(), **extras}, tmp_path / "a.pyth")
    save_weights(source, tmp_path / "a.safetensors")
    for name in ("a.pyth", "a.safetensors"):
        model = tiny()
        report = load_weights(model, tmp_path / name)
        assert report.source == str(tmp_path / name)
        assert torch.equal(model.head.hidden.weight, source.head.hidden.weight)


def test_save_and_rebuild_from_the_file_alone(tmp_path: Path) -> None:
    source = tiny(3, head_pool="global", drop_path=0.1).to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    file = tmp_path / "deeper" / "w.safetensors"
    save_weights(source, file, {"class_names": ["où", "b", "c"], "metrics": {"top1": 0.5}})
    state, metadata = read_weights(file)
    assert metadata["class_names"] == ["où", "b", "c"]
    assert metadata["model"] == source.build_args
    assert state.keys() == source.state_dict().keys()
    model, again = load_model(file)
    assert again == metadata
    assert not model.training
    assert model.build_args == source.build_args
    x = torch.randn(1, 3, 4, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(x), source.eval()(x), rtol=1e-4, atol=1e-5)
    assert [path.name for path in file.parent.iterdir()] == ["w.safetensors"]


def test_a_compiled_model_loads_and_saves_like_the_model_inside(tmp_path: Path) -> None:
    source = tiny()
    save_weights(torch.compile(source, backend="eager"), tmp_path / "w.safetensors")  # type: ignore[arg-type]
    assert read_weights(tmp_path / "w.safetensors")[0].keys() == source.state_dict().keys()
    model = tiny()
    load_weights(torch.compile(model, backend="eager"), tmp_path / "w.safetensors")  # type: ignore[arg-type]
    assert torch.equal(model.head.hidden.weight, source.head.hidden.weight)


def test_a_failed_save_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    save_weights(tiny(), file)
    before = file.read_bytes()
    with pytest.raises(TypeError):
        save_weights(tiny(), file, {"bad": object()})
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("metadata", "words"),
    [
        (None, "does not say which model"),
        ({"saccade": "{}"}, "does not say which model"),
        ({"saccade": "[1]"}, "should be a JSON object"),
        ({"saccade": "{"}, "not a readable safetensors file"),
        ({"saccade": json.dumps({"model": {"name": "x9d"}})}, "cannot be built: unknown model 'x9d'"),
        ({"saccade": json.dumps({"model": {"name": "x2d"}})}, "Saccade weights do not fit x2d"),
    ],
)
def test_load_model_of_a_file_that_is_not_ours(tmp_path: Path, metadata: dict | None, words: str) -> None:
    file = tmp_path / "w.safetensors"
    safetensors.torch.save_file({"stem.norm.bias": torch.zeros(24)}, file, metadata=metadata)
    with pytest.raises(WeightsError) as caught:
        load_model(file)
    assert str(caught.value).startswith(str(file))
    assert words in str(caught.value)


# -------------------------------------------------------------------------------------------- classes by name


def saved_run(path: Path, *class_names: str) -> X3D:
    model = tiny(len(class_names))
    save_weights(model, path, {"class_names": list(class_names)})
    return model


def test_rows_of_the_classes_that_stay_are_loaded_by_name(tmp_path: Path, caplog) -> None:
    before = saved_run(tmp_path / "a.safetensors", "jump", "Throw_ball", "run")
    after = tiny(4)
    fresh = after.head.classifier.weight.detach().clone()
    names = ("crawl", "run", "throw ball", "jump")
    report = load_weights(after, tmp_path / "a.safetensors", class_names=names)
    weight, bias = after.head.classifier.weight, after.head.classifier.bias
    assert torch.equal(weight[1:], before.head.classifier.weight[[2, 1, 0]])
    assert torch.equal(bias[1:], before.head.classifier.bias[[2, 1, 0]])
    assert torch.equal(weight[0], fresh[0])
    assert not report.missing
    (note,) = report.notes
    assert "3 of 4" in note
    assert "crawl" in note


def test_the_same_number_of_classes_in_another_order_is_not_mixed_up(tmp_path: Path) -> None:
    before = saved_run(tmp_path / "a.safetensors", "a", "b", "c")
    after = tiny(3)
    load_weights(after, tmp_path / "a.safetensors", class_names=("c", "a", "b"))
    assert torch.equal(after.head.classifier.weight, before.head.classifier.weight[[2, 0, 1]])
    same = tiny(3)
    load_weights(same, tmp_path / "a.safetensors", class_names=("a", "b", "c"))
    assert torch.equal(same.head.classifier.weight, before.head.classifier.weight)


def test_a_classifier_of_other_classes_is_left_out(tmp_path: Path) -> None:
    saved_run(tmp_path / "a.safetensors", "a", "b", "c")
    after = tiny(3)
    fresh = after.head.classifier.weight.detach().clone()
    report = load_weights(after, tmp_path / "a.safetensors", class_names=("x", "y", "z"))
    assert torch.equal(after.head.classifier.weight, fresh)
    assert "head.classifier.weight" in report.left_out


def test_numbers_instead_of_names_say_nothing_about_the_classes(tmp_path: Path) -> None:
    before = saved_run(tmp_path / "a.safetensors", "0", "1", "2")
    after = tiny(3)
    load_weights(after, tmp_path / "a.safetensors", class_names=("x", "y", "z"))
    assert torch.equal(after.head.classifier.weight, before.head.classifier.weight)
