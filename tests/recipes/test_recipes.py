"""Every recipe is built and trains one step, shrunk to a size at which that takes a second."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from data.ava_miniature import make_ava
from saccade.data.motion import make_untrimmed
from saccade.errors import UsageError
from saccade.models import create_model, list_models, save_weights
from saccade.recipes import RECIPES, get_recipe, summary
from saccade.training import train
from saccade.training.run import model_options
from saccade.video import write_video


@pytest.fixture(scope="module")
def few_clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("few")
    noise = torch.Generator().manual_seed(0)
    for name in ("a", "b"):
        for split, count in (("train", 2), ("val", 1)):
            for number in range(count):
                frames = torch.randint(0, 255, (6, 40, 48, 3), generator=noise, dtype=torch.uint8)
                folder = root / split / name
                folder.mkdir(parents=True, exist_ok=True)
                write_video(folder / f"{number}.mp4", frames, fps=30, options={"preset": "ultrafast"})
    return root


@pytest.fixture(scope="module")
def few_keyframes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_ava(tmp_path_factory.mktemp("ava") / "ava", num_videos=2, seconds=(902, 904))


@pytest.fixture(scope="module")
def few_actions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_untrimmed(
        tmp_path_factory.mktemp("actions") / "set",
        num_videos=4,
        num_val_videos=2,
        size=(40, 48),
        num_frames=(20, 24),
        num_event_frames=(6, 8),
        workers=0,
    )


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_is_named_as_its_function_and_says_what_it_is(name: str):
    config = get_recipe(name)
    assert config.recipe == name == RECIPES[name].__name__
    assert config.model.name in list_models()
    told = RECIPES[name].__doc__ or ""
    assert all(word in told for word in ("Command:", "Hardware:", "Source:", f"train {name}"))
    assert summary(name).endswith(".")


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_s_model_builds_for_its_clip(name: str):
    config = get_recipe(name)
    with torch.device("meta"):
        model = create_model(config.model.name, 7, **model_options(config))
        logits = model.eval()(torch.empty(1, 3, config.clip.num_frames, config.train_crop, config.train_crop))
    moments = (config.clip.num_frames,) if config.task == "localization" else ()
    assert logits.shape == (1, 7, *moments)


# The smallest model of each family.
TINY: dict[str, tuple[str, dict[str, int | float | str]]] = {
    "x3d": ("x2d", {"gamma_w": 0.3, "head_width": 16}),
    "vov3d": ("vov3d_m", {"inner_channels": 4, "depths": "1,1,1,1", "num_conv": 1, "head_width": 16}),
    "rubiksnet": ("rubiksnet_tiny", {"width": 8, "depths": "1,1,1,1"}),
}
# Recipes that differ from one that is run only in the size of the model, the frames or the data set.
SIBLINGS = {
    *("rubiksnet_small_ssv2", "rubiksnet_medium_ssv2", "rubiksnet_large_ssv2", "rubiksnet_large_aq_ssv2"),
    *("rubiksnet_small_k400", "rubiksnet_medium_k400", "rubiksnet_large_k400"),
    *("vov3d_l_k400", "x3d_m_k400_256e", "x3d_l_k400_256e", "x3d_l_ssv1", "x3d_m_ssv2", "x3d_l_ssv2"),
    *("vov3d_m_ssv1_f16", "vov3d_m_ssv1_f32", "vov3d_m_ssv1_f32_finetune", "vov3d_m_ssv2_f32"),
    *("vov3d_l_ssv1_f16", "vov3d_l_ssv1_f32", "vov3d_l_ssv1_f32_finetune"),
    *("vov3d_l_ssv2_f16", "vov3d_l_ssv2_f32", "vov3d_l_ssv2_f32_finetune"),
}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in SIBLINGS else name for name in RECIPES]
)
def test_a_recipe_trains_a_step(
    name: str, few_clips: Path, few_keyframes: Path, few_actions: Path, tmp_path: Path
):
    config = get_recipe(name)
    data = {
        "single-label": few_clips,
        "multi-label": few_actions,
        "localization": few_actions,
        "detection": few_keyframes,
    }
    tiny, overrides = TINY[config.model.name.split("_")[0]]
    model = replace(config.model, name=tiny, overrides=overrides)
    if name.endswith(("_finetune", "_linear_probe")):
        save_weights(create_model(tiny, 400, **overrides), tmp_path / "start.safetensors")
        model = replace(model, weights=str(tmp_path / "start.safetensors"))
    small = config.replace(
        model=model,
        clip=config.clip.replace(num_frames=2, stride=1, crop=36, short_side=36),
        augment=replace(config.augment, short_side=(36, 40), crop=32 if config.augment.crop else 0),
        optim=replace(config.optim, warmup_epochs=min(1, config.optim.warmup_epochs)),
        epochs=1,
        batch_size=4,
        workers=0,
        threads=1,
        cache_mb=min(config.cache_mb, 8),
        val_every=1,
        test_views=config.test_views and "2x1",
        data=str(data[config.task]),
        out=str(tmp_path / "run"),
        device="cpu",
    )
    result = train(small)
    assert result.num_steps == 1
    assert (tmp_path / "run" / "best.safetensors").is_file()


def test_an_unknown_recipe_names_close_ones():
    with pytest.raises(UsageError, match=r"unknown recipe 'x3d_m_400'; did you mean x3d_m_k400"):
        get_recipe("x3d_m_400")
    with pytest.raises(UsageError, match=r"recipes are x3d_motion, "):
        get_recipe("resnet")
