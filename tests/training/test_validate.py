from __future__ import annotations

from dataclasses import replace

import pytest

from saccade.errors import ConfigError
from saccade.recipes import RECIPES, get_recipe
from saccade.training.config import TrainConfig
from saccade.training.timetable import make_timetable
from saccade.training.validate import validate


def changed(**changes) -> TrainConfig:
    """x3d_ucf10 with changes such as ``optim__lr=0``."""
    config = get_recipe("x3d_ucf10")
    for name, value in changes.items():
        section, _, field = name.rpartition("__")
        if section:
            config = config.replace(**{section: replace(getattr(config, section), **{field: value})})
        else:
            config = config.replace(**{field: value})
    return config


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_recipe_takes_multigrid(name: str):
    config = get_recipe(name)
    config = config.replace(multigrid="both", model=replace(config.model, weights="some.pt"))
    validate(config)
    plan = make_timetable(config, 20_000)
    assert len({(shape.num_frames, shape.crop) for shape in plan.shapes}) > 2


def test_a_transformer_may_have_one_clip_a_pass():
    config = get_recipe("mvit_ucf10")
    validate(config.replace(batch_size=4, accumulate=4))
    validate(config.replace(batch_size=1))


@pytest.mark.parametrize("name", list(RECIPES))
def test_every_recipe_is_valid_but_for_its_weights(name: str):
    config = get_recipe(name)
    validate(config.replace(model=replace(config.model, weights="some.pt")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"clip__crop": 500}, r"^clip\.crop: 500 does not fit"),
        ({"clip__num_frames": 0}, r"^clip\.num_frames: must be 1 or more \(is 0\)"),
        ({"augment__short_side": (50, 60)}, r"^augment\.short_side: its smallest value 50 is less than"),
        ({"augment__short_side": (300, 200)}, r"^augment\.short_side: "),
        ({"augment__flip": 2.0}, r"^augment\.flip: "),
        ({"model__name": ""}, r"^model\.name: give a name"),
        ({"model__dropout": 1.0}, r"^model\.dropout: "),
        ({"model__freeze": 1}, r"^model\.freeze: "),
        ({"model__freeze": -2}, r"^model\.freeze: "),
        ({"model__backbone_lr": 0.0}, r"^model\.backbone_lr: must be above 0"),
        ({"optim__lr": 0.0}, r"^optim\.lr: must be above 0"),
        ({"optim__lr": float("nan")}, r"^optim\.lr: must be finite"),
        ({"optim__warmup_epochs": 1000.0}, r"^optim\.warmup_epochs: 1000 is more than epochs"),
        (
            {"epochs": 1.0, "optim__warmup_epochs": 4.0},
            "; give --optim.warmup-epochs 0.1 or so, or more --ep",
        ),
        ({"optim__schedule": "step"}, r"^optim\.steps: "),
        ({"optim__steps": (5.0, 3.0)}, r"^optim\.steps: must increase"),
        ({"optim__steps": (-1.0, 3.0)}, r"^optim\.steps: must be above 0"),
        ({"seed": 2**64}, r"^seed: "),
        ({"optim__momentum": 1.0}, r"^optim\.momentum"),
        ({"epochs": 0.0, "optim__warmup_epochs": 0.0}, r"^epochs: must be above 0"),
        ({"batch_size": 0}, r"^batch_size: must be 1 or more"),
        (
            {"batch_size": 10, "accumulate": 4, "multigrid": "both"},
            r"^batch_size: 10 .* 4 \(1 process x accumulate 4\)",
        ),
        ({"batch_size": 4, "accumulate": 5}, r"^accumulate: 5 is more than the 4 clips"),
        ({"batch_size": 7, "accumulate": 4}, r"^batch_size: batch norm needs at least 2 clips"),
        ({"batch_size": 4, "accumulate": 4}, r"^batch_size: batch norm needs at least 2 clips"),
        ({"label_smoothing": 1.0}, r"^label_smoothing: "),
        ({"ema": -0.1}, r"^ema: "),
        ({"val_fraction": 1.0}, r"^val_fraction: "),
        ({"val_every": -1.0}, r"^val_every: must be 0 or more"),
        ({"val_every": 0.0, "test_views": "1x1"}, r"^test_views: "),
        ({"val_views": "ten"}, r"^val_views: "),
        ({"test_views": "3x2"}, r"^test_views: "),
        ({"augment__rand_ops": -1}, r"^augment\.rand_ops: must be 0 or more \(is -1\)"),
        ({"augment__rand_magnitude": 11.0}, r"^augment\.rand_magnitude: "),
        ({"augment__rand_magnitude_std": -1.0}, r"^augment\.rand_magnitude_std: must be 0 or more"),
        ({"augment__erasing": 1.1}, r"^augment\.erasing: "),
        ({"augment__mixup": -0.5}, r"^augment\.mixup: must be 0 or more"),
        ({"augment__cutmix": float("nan")}, r"^augment\.cutmix: must be finite"),
        ({"augment__mix_switch": 2.0}, r"^augment\.mix_switch: "),
        ({"augment__mix_probability": -1.0}, r"^augment\.mix_probability: "),
        ({"augment__repeats": 0}, r"^augment\.repeats: must be 1 or more"),
        ({"augment__repeats": 3}, r"^augment\.repeats: batch_size 8 is not divisible by 3"),
        (
            {"augment__repeats": 4, "augment__mixup": 0.8, "accumulate": 2},
            r"^augment\.repeats: a pass of 4 clips",
        ),
        ({"model__layer_decay": 0.0}, r"^model\.layer_decay: "),
        (
            {"checkpoint_activations": True, "compile": True},
            r"^checkpoint_activations: .*compile",
        ),
        ({"shard": True}, r"^shard: .*torchrun"),
        ({"temporal_rule": "random"}, r"^temporal_rule: .*'random'"),
    ],
)
def test_what_cannot_work_is_named(changes: dict, message: str):
    with pytest.raises(ConfigError, match=message):
        validate(changed(**changes))


def test_the_batch_is_divided_among_processes():
    validate(changed(batch_size=16), world_size=8)
    with pytest.raises(ConfigError, match=r"^batch_size: 16 .* 3 processes"):
        validate(changed(batch_size=16), world_size=3)


def test_uneven_passes_are_fine():
    validate(changed(batch_size=10, accumulate=4))


@pytest.mark.parametrize("field", ["compile", "multigrid", "precise_bn"])
def test_what_does_not_go_with_shards_is_named(field: str):
    value = {"compile": True, "multigrid": "long", "precise_bn": 8}[field]
    validate(changed(shard=True), world_size=2)
    with pytest.raises(ConfigError, match=rf"^shard: .*{field}: "):
        validate(changed(shard=True, **{field: value}), world_size=2)


def test_tensorboard_missing_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("saccade.training.validate.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"^tensorboard: .* pip install .saccade\[tensorboard\]"):
        validate(changed(tensorboard=True))
