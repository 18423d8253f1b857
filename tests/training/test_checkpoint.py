from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from saccade.errors import ConfigError, WeightsError
from saccade.recipes import get_recipe
from saccade.training.checkpoint import check_same_run, load_checkpoint, save_checkpoint
from saccade.training.config import TrainConfig


def test_round_trip_leaves_nothing_else_behind(tmp_path: Path):
    state = {"model": {"a": torch.arange(3.0)}, "progress": {"step": 4, "due": False}, "average": None}
    save_checkpoint(tmp_path / "last.pt", state)
    save_checkpoint(tmp_path / "last.pt", state)
    back = load_checkpoint(tmp_path / "last.pt")
    assert back["model"]["a"].equal(state["model"]["a"])
    assert back["progress"] == state["progress"]
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


def test_a_failed_writing_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    save_checkpoint(tmp_path / "last.pt", {"step": 1})

    def half(state, stream):
        stream.write(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", half)
    with pytest.raises(OSError, match=r"No space left on device: .*last\.pt") as caught:
        save_checkpoint(tmp_path / "last.pt", {"step": 2})
    assert caught.value.filename == str(tmp_path / "last.pt")
    assert load_checkpoint(tmp_path / "last.pt")["step"] == 1
    assert [path.name for path in tmp_path.iterdir()] == ["last.pt"]


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_a_damaged_checkpoint_is_one_clear_error(tmp_path: Path, content: bytes | None):
    path = tmp_path / "last.pt"
    if content is None:
        torch.save({"something": "else"}, path)
    else:
        path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"last\.pt: not "):
        load_checkpoint(path)


def test_a_missing_checkpoint(tmp_path: Path):
    with pytest.raises(WeightsError, match="no checkpoint to resume from"):
        load_checkpoint(tmp_path / "last.pt")


def test_code_in_a_checkpoint_is_refused(tmp_path: Path):
    class Bad:
        def __reduce__(self):
            return (print, ("this must not run",))

    torch.save({"format": 1, "x": Bad()}, tmp_path / "last.pt")
    with pytest.raises(WeightsError, match="not readable"):
        load_checkpoint(tmp_path / "last.pt")


def test_changed_settings_are_named():
    config = get_recipe("x3d_ucf10")
    saved = config.to_dict()
    optim = replace(config.optim, lr=0.7)
    changed = config.replace(epochs=3, workers=7, data="elsewhere", device="cuda", optim=optim)
    message = r"epochs \(was .*, now 3\).*optim\.lr \(was .*, now 0\.7\)"
    with pytest.raises(ConfigError, match=message) as error:
        check_same_run(saved, changed)
    assert "workers" not in str(error.value)


def test_harmless_changes_pass():
    config = get_recipe("x3d_ucf10")
    check_same_run(config.to_dict(), config.replace(workers=0, data="moved", save_minutes=1, out="there"))


@pytest.mark.parametrize("name", ["x3d_ucf10", "x3d_m_finetune"])
def test_config_survives_json(name: str):
    import json

    config = get_recipe(name)
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_a_config_of_another_version_names_the_field():
    values = get_recipe("x3d_ucf10").to_dict()
    values["optim"]["magic"] = 3
    with pytest.raises(ConfigError, match=r"optim\.magic"):
        TrainConfig.from_dict(values)
