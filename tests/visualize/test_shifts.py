from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from golden import rule
from saccade.cli import main
from saccade.errors import UsageError
from saccade.models import RubiksNet, create_model, save_weights
from saccade.visualize.shifts import learned_shifts, shift_chart


def small(name: str) -> RubiksNet:
    torch.manual_seed(0)
    model = create_model(name, 3, width=16, depths=(1, 2, 1, 1))
    assert isinstance(model, RubiksNet)
    return model


def test_shifts_of_a_network() -> None:
    model = small("rubiksnet_tiny")
    with torch.no_grad():
        model.res2[0].shift.shift.copy_(torch.tensor([[-1.0], [3.0], [4.0]]).expand(3, 16))  # type: ignore[union-attr]
    layers = learned_shifts(model)
    assert [layer.name for layer in layers] == ["res1.0", "res2.0", "res3.0", "res3.1", "res4.0", "res5.0"]
    assert [layer.space.shape for layer in layers] == [(2, c) for c in (16, 16, 32, 32, 64, 128)]
    summary = layers[1].summary()
    assert summary == {
        "layer": "res2.0",
        "channels": 16,
        "earlier": 1.0,
        "later": 0.0,
        "mean_frames": 1.0,
        "most_frames": 1.0,
        "mean_pixels": 5.0,
        "most_pixels": 5.0,
    }


def test_time_of_the_attention_variant_is_the_mean_of_its_taps() -> None:
    model = small("rubiksnet_tiny_aq")
    soft = learned_shifts(model)
    taps = model.res3[0].time.taps().detach()  # type: ignore[union-attr]
    assert soft[2].time == pytest.approx((taps[:, 2] - taps[:, 0]).double().numpy())
    assert not soft[2].paired
    model.harden()
    hard = np.concatenate([layer.time for layer in learned_shifts(model)])
    assert set(hard) == {-1.0, 0.0, 1.0}


def test_a_model_without_shifts_is_refused() -> None:
    with pytest.raises(UsageError, match="x2d has no learned shifts; only RubiksNet has"):
        learned_shifts(create_model("x2d", 3))


@pytest.mark.parametrize("name", ["rubiksnet_tiny", "rubiksnet_tiny_aq"])
def test_the_chart_has_a_panel_for_every_layer_with_a_dot_for_every_channel(name: str) -> None:
    layers = learned_shifts(small(name))
    figure = shift_chart(layers)
    panels = {
        axes.get_title(loc="left"): axes.collections[0]
        for part in figure.subfigs
        for axes in part.axes
        if axes.get_title(loc="left").startswith("res")
    }
    assert list(panels) == [layer.name for layer in layers]
    for layer in layers:
        dots = np.asarray(panels[layer.name].get_offsets())
        assert sorted(map(tuple, dots)) == sorted(zip(layer.space[1], layer.space[0], strict=True))


def test_the_command_draws_a_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_weights(small("rubiksnet_tiny"), tmp_path / "best.safetensors")
    assert main(["visualize", "shifts", str(tmp_path)]) == 0
    text = capsys.readouterr().out
    assert sum(line.startswith("res") for line in text.splitlines()) == 6
    assert str(tmp_path / "shifts.png") in text
    with Image.open(tmp_path / "shifts.png") as image:
        assert min(image.size) > 500
        assert len(image.convert("RGB").getcolors(10**6) or []) > 50
    assert main(["visualize", "shifts", str(tmp_path), "--json", "--out", str(tmp_path / "a.svg")]) == 0
    (first, *others) = json.loads(capsys.readouterr().out)
    assert len(others) == 5
    assert len(first["time"]) == len(first["space"][0]) == first["channels"] == 16
    assert (tmp_path / "a.svg").read_text().startswith("<?xml")


def test_a_file_of_the_original(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names = rule.load("rubiksnet_tiny")["state_dict"]
    state = {name: torch.from_numpy(rule.param(name, shape)).float() for name, shape in names}
    torch.save({"tier": "tiny", "num_classes": 174, "model": state}, "ssv2_tiny.pth.tar")
    monkeypatch.setattr("saccade.visualize.shifts.shift_chart", lambda layers, title: shift_chart(layers[:2]))
    assert main(["visualize", "shifts", "ssv2_tiny.pth.tar"]) == 0
    assert Path("ssv2_tiny_shifts.png").is_file()


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["visualize"], "WHAT"),
        (["visualize", "shift"], "invalid choice: 'shift'"),
        (["visualize", "shifts", "absent"], "absent: no such file; give a run folder or weights"),
        (["visualize", "shifts", "absent", "--out", "a.gif"], "--out a.gif: the chart must end in"),
    ],
)
def test_errors_are_one_line(args: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(args) == 2
    error = capsys.readouterr().err
    assert words in error
    assert error.count("\n") == 1
