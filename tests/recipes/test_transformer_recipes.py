"""The recipes of transformers say what their sources say."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise

import pytest

from saccade.recipes import RECIPES, get_recipe, mvit, timesformer, vivit
from saccade.training.schedule import learning_rate
from saccade.training.validate import validate

TOP1 = {
    "timesformer_k400": 77.9,
    "timesformer_joint_k400": 77.0,
    "timesformer_space_k400": 76.9,
    "timesformer_hr_k400": 79.6,
    "timesformer_l_k400": 80.6,
    "timesformer_k600": 79.1,
    "timesformer_hr_k600": 81.8,
    "timesformer_l_k600": 82.2,
    "timesformer_ssv2": 59.1,
    "timesformer_hr_ssv2": 61.8,
    "timesformer_l_ssv2": 62.0,
    "timesformer_k600_vt": 78.4,
    "timesformer_k600_vt_interval24": 77.7,
    "timesformer_k600_vt_batch8": 75.8,
    "timesformer_k600_vt_crop_flip": 75.7,
    "timesformer_k600_vt_interval16": 72.9,
    "timesformer_k600_vt_base": 68.2,
    "vivit_k400_vt": 75.2,
    "mvit_b_16x4_k400": 78.4,
    "mvit_b_32x3_k400": 80.4,
    "mvit_b_32x3_k600": 83.9,
    "mvitv2_s_k400": 81.0,
    "mvitv2_b_k400": 82.9,
}
UNPUBLISHED = {
    "timesformer_k400_vt",
    "timesformer_probe",
    "vivit_joint_k400_vt",
    "vivit_divided_k400_vt",
    "vivit_probe",
}
NAMES = [recipe.__name__ for recipe in (*timesformer.PUBLISHED, *vivit.PUBLISHED, *mvit.PUBLISHED)]


def test_every_published_accuracy_has_a_recipe() -> None:
    assert set(NAMES) == set(TOP1) | UNPUBLISHED
    for name in NAMES:
        told = re.search(r"Expected:\s+([\d.]+) % top-1", RECIPES[name].__doc__ or "")
        assert (told and float(told[1])) == TOP1.get(name), name


@pytest.mark.parametrize("name", [*NAMES, "timesformer_motion", "timesformer_ucf10"])
def test_every_field_can_work(name: str) -> None:
    config = get_recipe(name)
    if config.model.freeze:
        config = config.replace(model=replace(config.model, weights="start.safetensors"))
    validate(config)


def rates(name: str, *epochs: float, batch_size: int = 0) -> list[float]:
    config = get_recipe(name)
    batch = batch_size or config.batch_size
    return [learning_rate(epoch, config.optim, epochs=config.epochs, batch_size=batch) for epoch in epochs]


def test_learning_rates() -> None:
    assert rates("timesformer_k400", 0, 10.9, 11, 14) == pytest.approx([5e-3, 5e-3, 5e-4, 5e-5])
    assert rates("timesformer_k600_vt", 0, 4.9, 5, 11) == pytest.approx([5e-3, 5e-3, 5e-4, 5e-5])
    assert rates("timesformer_k600_vt_base", 0) == pytest.approx([5e-3])
    # 0.005 for 256 clips, of which a fifth in the first epoch, and 1e-6 at the end
    assert rates("timesformer_k400_vt", 0, 5, 30) == pytest.approx([0.00125 / 5, 0.00125, 1e-6])
    assert rates("vivit_k400_vt", 5, 17.5) == pytest.approx([0.00125, (0.00125 + 1e-6) / 2])
    for recipe in mvit.PUBLISHED:
        name = recipe.__name__
        assert rates(name, 0, 60, 230, 400) == pytest.approx([1e-6, 1e-4, 5.05e-5, 1e-6])
        assert rates(name, 60, batch_size=512) == pytest.approx([1.6e-3])


def test_each_step_of_the_ablation_changes_what_it_is_named_after() -> None:
    steps = ["base", "interval16", "crop_flip", "batch8", "interval24"]
    names = [*(f"timesformer_k600_vt_{step}" for step in steps), "timesformer_k600_vt"]
    configs = [get_recipe(name).to_dict() for name in names]
    changed = []
    for before, after in pairwise(configs):
        pairs = [(key, before[key], after[key]) for key in before if key != "recipe"]
        changed.append({key for key, old, new in pairs if old != new})
    # the rate is that of the repository whatever the batch, so the batch it is stated for changes with it
    assert changed == [{"clip"}, {"augment"}, {"batch_size", "optim"}, {"clip"}, {"clip"}]
    assert [config["clip"]["stride"] for config in configs] == [4, 16, 16, 16, 24, 32]
    assert [config["batch_size"] for config in configs] == [128, 128, 128, 64, 64, 64]
    assert [config["augment"]["flip"] for config in configs] == [0.0, 0.0, None, None, None, None]
    assert all(config["clip"]["mean"] == [0.5, 0.5, 0.5] for config in configs)


def test_clips() -> None:
    for name, frames, stride, crop in (
        ("timesformer_k400", 8, 32, 224),
        ("timesformer_hr_k400", 16, 16, 448),
        ("timesformer_l_k400", 96, 4, 224),
        ("vivit_k400_vt", 16, 16, 224),
        ("mvit_b_16x4_k400", 16, 4, 224),
        ("mvitv2_b_k400", 32, 3, 224),
    ):
        config = get_recipe(name)
        assert (config.clip.num_frames, config.clip.stride) == (frames, stride)
        assert config.train_crop == config.clip.crop == crop
    for name in ("timesformer_ssv2", "timesformer_hr_ssv2", "timesformer_l_ssv2", "timesformer_motion"):
        assert get_recipe(name).augment.flip == 0.0
