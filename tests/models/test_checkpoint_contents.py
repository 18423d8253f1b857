"""What training scripts leave in a checkpoint beside the weights, and files that are no checkpoint."""

from __future__ import annotations

import io
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_weights import tiny
from torch import Tensor, nn

from saccade.errors import WeightsError
from saccade.models import create_model, load_model, load_weights, save_weights
from saccade.models.checkpoints import guess_models, read_state

State = dict[str, Tensor]


@pytest.fixture(scope="module")
def state() -> State:
    return {key: value.clone() for key, value in tiny().state_dict().items()}


def behind(prefix: str, state: State) -> State:
    return {prefix + key: value for key, value in state.items()}


def scaled(state: State) -> State:
    return {key: 0 * value for key, value in state.items()}


def assert_loaded(content: Any, state: State) -> Any:
    model = tiny()
    report = load_weights(model, content)
    assert report.num_loaded == len(state) == 164
    assert not report.missing
    for key, value in model.state_dict().items():
        assert torch.equal(value, state[key]), key
    return report


# --------------------------------------------------------------------------------------------------- prefixes


@pytest.mark.parametrize(
    "prefix", ["net.", "backbone.", "encoder.", "student.", "module.model.net.", "a.b.c."]
)
def test_a_prefix_that_most_keys_share_is_ignored(state: State, prefix: str) -> None:
    assert_loaded(behind(prefix, state), state)
    report = assert_loaded({"state_dict": behind(prefix, state) | {"loss.weight": torch.ones(5)}}, state)
    assert report.left_out == {"loss.weight": "not a part of the network"}


def test_wrappers_inside_the_network_are_ignored(state: State) -> None:
    for wrapper in ("_orig_mod", "_checkpoint_wrapped_module", "_fsdp_wrapped_module"):
        assert_loaded(
            {key.replace("res2.", f"res2.{wrapper}.", 1): value for key, value in state.items()}, state
        )


def test_a_trunk_and_a_head_that_were_saved_apart(state: State) -> None:
    head = {key: value for key, value in state.items() if key.startswith("head.")}
    trunk = {key: value for key, value in state.items() if key not in head}
    assert_loaded(behind("backbone.", trunk) | head, state)
    named = {key.removeprefix("head."): value for key, value in head.items()}
    assert_loaded({"backbone": trunk, "head": named, "epoch": 3}, state)


def test_a_prefix_of_another_code_base_and_of_image_weights() -> None:
    from models import tiny_vit
    from models.test_image_weights import build
    from saccade.models import init_from_image

    image = {f"student.backbone.{key}": value for key, value in tiny_vit.timm_state().items()}
    report = init_from_image(build("timesformer_base"), {**image, "dino_loss.center": torch.zeros(1, 4)})
    assert report.format == "timm"
    assert "dino_loss.center" in report.unused


def test_the_model_is_guessed_behind_a_prefix(state: State) -> None:
    whole = create_model("rubiksnet_tiny", 3).state_dict()
    assert guess_models(behind("net.", whole) | {"criterion.weight": torch.ones(3)}) == ["rubiksnet_tiny"]


# ------------------------------------------------------------------------------------ beside the weights


def test_tensors_outside_the_network_are_left_out_in_one_line(
    state: State, caplog: pytest.LogCaptureFixture
) -> None:
    foreign = {
        "criterion.weight": torch.ones(5),
        "loss_weights": torch.ones(2),
        "train_acc.tp": torch.zeros(5),
        "projector.0.weight": torch.zeros(4, 4),
        "n_averaged": torch.tensor(3),
    }
    report = assert_loaded({"state_dict": {**behind("model.", state), **foreign}}, state)
    assert set(report.left_out) == set(foreign)
    assert len(caplog.records) == 1
    assert "criterion.weight" in caplog.text
    with pytest.raises(WeightsError, match=r"1 missing: stem\.norm\.bias$"):
        load_weights(tiny(), {k: v for k, v in state.items() if k != "stem.norm.bias"} | foreign)


def test_a_part_of_the_network_that_the_model_does_not_have_is_refused(state: State) -> None:
    with pytest.raises(WeightsError, match=r"1 unexpected: res2\.9\.x"):
        load_weights(tiny(), {**state, "res2.9.x": torch.ones(3)})


def test_optimisers_are_not_weights(state: State) -> None:
    moments = {"exp_avg": scaled(state), "step": torch.ones(1)}
    content = {"optimizer": {"state": moments}, "lr_scheduler": {"last": torch.ones(1)}, "net": state}
    assert not assert_loaded(content, state).left_out
    with pytest.raises(WeightsError, match=r"no tensors found.* optimizer \(dict\), epoch \(int\)"):
        load_weights(tiny(), {"optimizer": {"state": moments}, "epoch": 3})


@pytest.mark.parametrize("wrap", [
    lambda s: {"checkpoint": {"model_state": behind("module.", s)}, "epoch": 3},
    lambda s: {"module": s, "ds_config": {"a": 1}},
    lambda s: {"a": {"b": {"weights": s}}},
    lambda s: {"model": {key: value.numpy() for key, value in s.items()}},
], ids=["two deep", "DeepSpeed", "three deep", "numpy"])  # fmt: skip
def test_dictionaries_inside_each_other(
    state: State, wrap: Callable[[State], dict[str, Any]], tmp_path: Path
) -> None:
    assert_loaded(wrap(state), state)
    torch.save(wrap(state), tmp_path / "w.bin")
    assert_loaded(tmp_path / "w.bin", state)
    torch.save((state, 7), tmp_path / "pair.pt")
    assert_loaded(tmp_path / "pair.pt", state)


# --------------------------------------------------------------------------------------------------- averages


@pytest.mark.parametrize("name", ["model_ema", "state_dict_ema", "ema_state_dict", "ema", "shadow"])
def test_an_average_is_used_where_there_is_nothing_else(
    state: State, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    report = assert_loaded({name: {"module": state, "decay": 0.9}}, state)
    assert any(name in note and "averaged" in note for note in report.notes)
    assert name in caplog.text
    report = assert_loaded({name: scaled(state), "state_dict": behind("module.", state)}, state)
    assert any(name in note and "not their average" in note for note in report.notes)
    assert_loaded(behind(f"{name}.module.", state), state)
    both = behind("model.", state) | behind(f"{name}.module.", scaled(state))
    report = assert_loaded(both, state)
    assert len(report.left_out) == len(state)


def test_of_student_and_teacher_the_first_in_the_file_is_loaded(state: State) -> None:
    both = behind("student.backbone.", state) | behind("teacher.backbone.", scaled(state))
    report = assert_loaded(both, state)
    assert all(key.startswith("teacher.") for key in report.left_out)


# ------------------------------------------------------------------------------------------- what is refused


def test_an_unknown_format_shows_the_keys_and_the_nearest() -> None:
    keys = {"s1.pathway0_stem.bn.weight": torch.ones(8), "head.projection.weight": torch.ones(5, 64)}
    with pytest.raises(WeightsError) as caught:
        load_weights(tiny(), keys)
    assert "s1.pathway0_stem.bn.weight 8, head.projection.weight 5×64" in str(caught.value)
    assert "nearest is PySlowFast X3D, which has names for 2 of the model's 164 tensors" in str(caught.value)
    assert "missing are stem.conv_s.weight" in str(caught.value)


def test_integers_are_no_weights(state: State) -> None:
    quantised = {k: v.to(torch.int8) if v.is_floating_point() else v for k, v in state.items()}
    with pytest.raises(WeightsError, match=r"stem\.conv_s\.weight: 8×3×1×3×3 int8 in the file"):
        load_weights(tiny(), quantised)


def test_tensors_that_hold_no_values_are_refused(state: State) -> None:
    key = "head.hidden.weight"
    for value, words in ((state[key].to("meta"), "without values"), (state[key].to_sparse(), "sparse")):
        with pytest.raises(WeightsError, match=rf"{re.escape(key)}: \S+ {words} in the file"):
            load_weights(tiny(), {**state, key: value})


def test_shapes_that_no_network_has_are_one_error() -> None:
    model = create_model("rubiksnet_tiny", 3)
    state = dict(model.state_dict())
    shift = next(key for key in state if key.endswith(".shift"))
    with pytest.raises(WeightsError, match="state dict: "):
        load_weights(model, {**state, shift: torch.zeros(2, 2, 2, 2)})


def test_a_shard_is_called_one(state: State, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"DeepSpeed ZeRO-3; .*zero_to_fp32"):
        load_weights(tiny(), {"module": {key: torch.zeros(0) for key in state}})
    with pytest.raises(WeightsError, match=r"FSDP; .*full state dict"):
        load_weights(tiny(), {"_flat_param": torch.zeros(10)})
    for name, words in (
        (".metadata", "torch.distributed.checkpoint"),
        ("mp_rank_00_model_states.pt", "DeepSpeed"),
        ("model.safetensors.index.json", "several files"),
        ("model.safetensors", "name the file in it: model.safetensors"),
    ):
        folder = tmp_path / words[:4]
        folder.mkdir()
        (folder / name).write_text("{}")
        with pytest.raises(WeightsError, match=words):
            load_weights(tiny(), folder)


class _Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("echo this must not run",)


def test_files_that_are_no_checkpoint_are_named_in_one_line(
    state: State, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    source = tiny()
    torch.save(state, tmp_path / "whole.pth")
    torch.save(state, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_weights(source, tmp_path / "whole.safetensors")
    torch.save({"state_dict": state, "hook": _Code()}, tmp_path / "code.pth")
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "script.pt")
    whole, old, tensors = (
        (tmp_path / name).read_bytes() for name in ("whole.pth", "old.pth", "whole.safetensors")
    )
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("readme.txt", "x")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    files = {
        "lfs.pth": (pointer, "Git LFS pointer"),
        "lfs.safetensors": (pointer, "Git LFS pointer"),
        "page.pth": (b"<!DOCTYPE html>\n<html>", "web page"),
        "page.safetensors": (b"\n<html>", "web page"),
        "archive.pth": (archive.getvalue(), r"zip archive without a checkpoint; it holds readme\.txt"),
        "empty.pth": (b"", "is empty"),
        "empty.safetensors": (b"", "is empty"),
        "cut.pth": (whole[: len(whole) // 2], "damaged or incomplete"),
        "cut_old.pth": (old[: len(old) // 2], "damaged or incomplete"),
        "cut.safetensors": (tensors[: len(tensors) // 2], "damaged or incomplete"),
        "header.safetensors": (tensors[:50], "damaged or incomplete"),
        "plain.pkl": (pickle.dumps({"a": 1}), "plain pickle"),
        "config.pth": (b'{"model": 1}', "JSON"),
        "keras.pth": (b"\x89HDF\r\n\x1a\n" + bytes(64), "HDF5"),
    }
    for name, (content, _) in files.items():
        (tmp_path / name).write_bytes(content)
    known = {name: words for name, (_, words) in files.items()}
    known |= {"code.pth": r"Python object \(\w+\.system\)", "script.pt": "TorchScript"}
    recwarn.clear()  # of torch.jit
    for name, words in known.items():
        with pytest.raises(WeightsError, match=words) as caught:
            load_weights(source, tmp_path / name)
        assert str(caught.value).startswith(str(tmp_path / name))
        assert "\n" not in str(caught.value)
    assert not recwarn.list


def test_the_content_of_a_file_counts_not_its_suffix(state: State, tmp_path: Path) -> None:
    source = tiny()
    save_weights(source, tmp_path / "w.safetensors")
    torch.save(state, tmp_path / "w.pth")
    (tmp_path / "w.safetensors").rename(tmp_path / "tensors.pth")
    (tmp_path / "w.pth").rename(tmp_path / "pickle.safetensors")
    assert read_state(tmp_path / "tensors.pth").keys() == state.keys()
    assert_loaded(tmp_path / "pickle.safetensors", state)


def test_a_header_of_any_length_is_read(tmp_path: Path) -> None:
    """The file begins with the header's length, a multiple of 8: 0x80 is how a pickle begins, 0x50 a zip."""
    source = create_model("x2d", num_classes=2, gamma_w=0.3, gamma_d=1)
    path, begins = tmp_path / "best.safetensors", set()
    for length in range(0, 264, 8):
        save_weights(source, path, {"note": "x" * length})
        begins.add(path.read_bytes()[0])
        state = read_state(path)
        assert all(torch.equal(state[key], value) for key, value in source.state_dict().items())
    model, metadata = load_model(path)
    assert metadata["note"] == "x" * length
    assert all(torch.equal(model.state_dict()[key], value) for key, value in source.state_dict().items())
    assert begins == set(range(0, 256, 8))
