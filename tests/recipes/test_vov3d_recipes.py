"""The rows of the VoV3D tables as recipes, and the small model for the motion clips."""

from __future__ import annotations

import re

import pytest
import torch

from saccade.models import count_macs, create_model, load_weights
from saccade.recipes import RECIPES, get_recipe
from saccade.recipes.vov3d import PUBLISHED
from saccade.training.config import TrainConfig
from saccade.training.network import model_options
from saccade.training.schedule import learning_rate

NAMES = [recipe.__name__ for recipe in PUBLISHED]
SOMETHING = [name for name in NAMES if "_ssv" in name]

TOP1 = {
    "vov3d_m_k400": 74.7,
    "vov3d_l_k400": 76.3,
    "x3d_m_k400_256e": 75.1,
    "x3d_l_k400_256e": 76.1,
    "vov3d_m_ssv1_f16": 49.0,
    "vov3d_m_ssv1_f32": 50.1,
    "vov3d_m_ssv1_f16_finetune": None,
    "vov3d_m_ssv1_f32_finetune": 53.3,
    "vov3d_l_ssv1_f16": 49.5,
    "vov3d_l_ssv1_f32": 50.6,
    "vov3d_l_ssv1_f16_finetune": None,
    "vov3d_l_ssv1_f32_finetune": 54.7,
    "vov3d_m_ssv2_f16": 63.6,
    "vov3d_m_ssv2_f32": 64.3,
    "vov3d_m_ssv2_f16_finetune": None,
    "vov3d_m_ssv2_f32_finetune": 65.8,
    "vov3d_l_ssv2_f16": 64.5,
    "vov3d_l_ssv2_f32": 65.9,
    "vov3d_l_ssv2_f16_finetune": None,
    "vov3d_l_ssv2_f32_finetune": 67.4,
    "x3d_m_ssv1": 46.4,
    "x3d_l_ssv1": 47.1,
    "x3d_m_ssv2": 63.1,
    "x3d_l_ssv2": 62.7,
}


def test_every_row_has_a_recipe() -> None:
    assert set(NAMES) == set(TOP1)
    for name, top1 in TOP1.items():
        if top1 is None:
            assert "Expected: not published." in (RECIPES[name].__doc__ or ""), name
            continue
        expected = re.search(r"Expected: ([\d.]+) % top-1", RECIPES[name].__doc__ or "")
        assert expected is not None, name
        assert float(expected[1]) == top1, name


@pytest.mark.parametrize("name", NAMES)
def test_model_and_frames_are_those_of_the_name(name: str) -> None:
    config = get_recipe(name)
    assert config.model.name == "_".join(name.split("_")[:2])
    assert config.clip.num_frames == (32 if "_f32" in name else 16)
    assert (config.train_crop, config.clip.crop, config.augment.short_side) == (224, 256, (256, 320))
    with torch.device("meta"):
        model = create_model(config.model.name, 174, **model_options(config))
    window = model.config.window  # type: ignore[union-attr]
    assert window == (config.clip.num_frames, 7, 7)


@pytest.mark.parametrize("name", SOMETHING)
def test_something_something_is_never_flipped(name: str) -> None:
    config = get_recipe(name)
    assert config.augment.flip == 0.0
    assert config.augment.inverse_uniform
    assert (config.temporal_rule, config.test_views) == ("vov3d-ssv", "6-view")


def test_learning_rates() -> None:
    scratch, finetune = get_recipe("vov3d_m_ssv2_f16"), get_recipe("vov3d_m_ssv2_f32_finetune")

    def rate(config: TrainConfig, epoch: float) -> float:
        return learning_rate(epoch, config.optim, epochs=config.epochs, batch_size=config.batch_size)

    assert rate(scratch, 0) == pytest.approx(0.01)
    assert rate(scratch, 50) == pytest.approx(0.05)
    assert [rate(finetune, epoch) for epoch in (0, 1, 34.9, 35, 45, 49.9)] == pytest.approx(
        [1e-4, 0.05, 0.05, 0.005, 0.0005, 0.0005]
    )


def test_fine_tuning_takes_all_but_the_classifier_from_16_frames() -> None:
    """The weights of the 16-frame Kinetics model load into the 32-frame one."""
    config = get_recipe("vov3d_m_ssv1_f32_finetune")
    start = create_model("vov3d_m", 400)
    model = create_model("vov3d_m", 174, **model_options(config))
    report = load_weights(model, start.state_dict())
    assert set(report.left_out) == {"head.classifier.weight", "head.classifier.bias"}
    assert set(report.missing) == set(report.left_out)


def test_the_motion_models_cost_the_same() -> None:
    macs = {}
    for name in ("x3d_motion", "vov3d_m_motion"):
        config = get_recipe(name)
        with torch.device("meta"):
            model = create_model(config.model.name, 12, **model_options(config))
        clip = config.clip
        macs[name] = count_macs(model, (1, 3, clip.num_frames, config.train_crop, config.train_crop))
    assert macs["vov3d_m_motion"] == pytest.approx(macs["x3d_motion"], rel=0.03)
    x3d, vov3d = get_recipe("x3d_motion"), get_recipe("vov3d_m_motion")
    assert vov3d.replace(recipe=x3d.recipe, model=x3d.model) == x3d
