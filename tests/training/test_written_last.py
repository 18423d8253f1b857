"""A config that cannot work is refused before its run folder is touched."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from saccade.cli.train import parse_fields
from saccade.errors import ConfigError, SaccadeError, UsageError
from saccade.models import load_model
from saccade.recipes import get_recipe
from saccade.training import TrainConfig, train
from saccade.training.config import parse_override

MakeConfig = Callable[..., TrainConfig]

WRONG = [
    ("augment.brightness", "2"),
    ("augment.contrast", "-1"),
    ("augment.saturation", "1.5"),
    ("augment.erasing", "1.1"),
    ("augment.rand-magnitude", "11"),
    ("augment.mix-probability", "1.2"),
    ("augment.flip", "2"),
    ("augment.transform", "nowhere"),
    ("optim.shift-lr", "0.1"),
    ("optim.lr", "inf"),
    ("optim.momentum", "1"),
    ("model.drop-path", "1"),
    ("model.freeze", "99"),
    ("model.backbone-lr", "0"),
    ("clip.num-frames", "0"),
    ("clip.target-fps", "0"),
    ("frames-fps", "0"),
    ("masked.ratio", "1"),
    ("people.min-score", "2"),
    ("val-views", "many"),
    ("batch-size", "1000"),
]


@pytest.mark.parametrize(("flag", "value"), WRONG, ids=[flag for flag, _ in WRONG])
def test_nothing_is_written(tiny_config: MakeConfig, flag: str, value: str):
    config = tiny_config("run", f"--{flag}", value)
    field = flag.replace("-", "_")
    with pytest.raises(ConfigError, match=f"^{field}: "):
        train(config)
    assert not Path(config.out).exists()


@pytest.mark.parametrize(
    ("overrides", "named"),
    [
        ({"norm_layer": "batch"}, "norm_layer"),
        ({"gamma_w": "wide"}, "gamma_w"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_an_override_that_cannot_work(tiny_config: MakeConfig, overrides: dict, named: str):
    config = tiny_config("run")
    model = {**config.to_dict()["model"], "overrides": overrides}
    config = TrainConfig.from_dict({**config.to_dict(), "model": model})
    with pytest.raises(SaccadeError, match=named):
        train(config)
    assert not Path(config.out).exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [("batch_size", 4.0), ("multigrid", "medium"), ("sync_bn", "yes"), ("epochs", True), ("data", 3)],
)
def test_a_value_of_another_type(tiny_config: MakeConfig, name: str, value: object):
    with pytest.raises(ConfigError, match=f"^{name}: "):
        train(tiny_config("run").replace(**{name: value}))


def test_fine_tuning_needs_weights(tiny_config: MakeConfig):
    config = tiny_config("run", "--model.backbone-lr", "0.1", "--epochs", "1")
    with pytest.raises(ConfigError, match=r"^model\.weights: "):
        train(config)
    assert not Path(config.out).exists()
    train(tiny_config("run", "--model.backbone-lr", "0.1", "--epochs", "1", "--model.weights", "scratch"))


def test_a_fine_tuning_run_that_began_without_weights_is_resumed(tiny_config: MakeConfig):
    """As d3891ba began one without a word: its settings ask for no weights, and last.pt has some."""
    flags = ("run", "--epochs", "2", "--val-every", "1")
    train(tiny_config(*flags), fraction=0.5)
    last = Path(tiny_config(*flags).out) / "last.pt"
    state = torch.load(last, weights_only=True)
    state["config"]["model"]["backbone_lr"] = 0.1
    torch.save(state, last)
    run = train(tiny_config(*flags, "--model.backbone-lr", "0.1"), resume=True)
    assert run.num_steps == 2 * state["progress"]["step"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("null", None),
        ("None", None),
        ("3", 3),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("[1, 2]", [1, 2]),
        ('"3"', "3"),
        ("soft", "soft"),
    ],
)
def test_overrides_on_the_command_line(text: str, value: object):
    parsed = parse_override(text)
    assert parsed == value
    assert type(parsed) is type(value)


def test_a_switch_of_the_architecture_can_be_set():
    args = ["--model.overrides", "localization", "true", "gamma_w", "0.5"]
    config = parse_fields(get_recipe("x3d_ucf10"), args, prog="test")
    assert config is not None
    inherited = get_recipe("x3d_ucf10").model.overrides
    assert config.model.overrides == {**inherited, "localization": True, "gamma_w": 0.5}
    assert TrainConfig.from_dict(config.to_dict()) == config


def test_the_decoder_can_be_chosen(tiny_config: MakeConfig):
    config = tiny_config("run", "--backend", "pyav", "--frames-fps", "12.5")
    assert (config.backend, config.frames_fps) == ("pyav", 12.5)
    with pytest.raises((ConfigError, UsageError)):
        train(config.replace(backend="vhs"))


def test_the_rate_of_folders_of_images(tiny_config: MakeConfig, tmp_path: Path):
    from PIL import Image

    for number in range(4):
        for label in ("a", "b"):
            folder = tmp_path / "frames" / "train" / label / f"{number}"
            folder.mkdir(parents=True)
            for index in range(8):
                Image.new("RGB", (40, 36), (30 * index, 0, 0)).save(folder / f"{index:03}.png")
    from saccade.training.run import load_data

    config = tiny_config("run", "--frames-fps", "15", "--val-every", "0", data=tmp_path / "frames")
    dataset, _ = load_data(config)
    assert {item.fps for item in dataset.items} == {15.0}
    run = train(config.replace(epochs=1.0, optim=config.optim))
    assert run.best_score is None
    assert torch.isfinite(next(load_model(run.best)[0].parameters())).all()
