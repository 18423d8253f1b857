"""Every recipe is built, and trains one step, shrunk to a size at which that takes a moment.

Each network is built once, on the meta device. Every recipe trains and is validated; reports are written of
every task and architecture.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from data.ava_miniature import make_ava
from models.tiny_vit import timm_state
from saccade.cli import main
from saccade.data.motion import make_untrimmed
from saccade.errors import UsageError
from saccade.models import create_model, list_models, save_weights
from saccade.recipes import (
    RECIPES,
    describe,
    get_recipe,
    list_recipes,
    recipe_groups,
    register_recipe,
    summary,
)
from saccade.training import TrainConfig, train
from saccade.training.network import model_options
from saccade.video import write_video

CROP, FRAMES = 32, 4
SHAPELESS = ("dropout", "drop_path", "stride", "gamma_tau")


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


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_is_named_as_its_function_and_says_what_it_is(name: str):
    config = get_recipe(name)
    assert config.recipe == name == RECIPES[name].__name__
    assert config.model.name in list_models()
    told = " ".join(describe(name).split())
    fields = ("Command:", "Hardware:", "Expected:", "Source:", f"train {name}")
    assert all(word in told for word in fields)
    assert summary(name).endswith(".")


def test_what_a_recipe_says_of_results_md_is_there():
    """A recipe that sends its reader to RESULTS.md is named there, with the figure that it states."""
    results = (Path(__file__).parents[2] / "RESULTS.md").read_text(encoding="utf-8")
    sent = [name for name in RECIPES if "RESULTS.md" in describe(name)]
    assert "x3d_motion" in sent
    assert [name for name in sent if not re.search(rf"\b{name}\b", results)] == []
    measured = [name for name in RECIPES if "(measured, one seed" in describe(name)]
    stated = {
        name: re.findall(r"Expected: ([\d.]+ %)", " ".join(describe(name).split())) for name in measured
    }
    assert {name: found for name, found in stated.items() if not found or found[0] not in results} == {}


def test_a_recipe_of_a_table_can_be_imported():
    from saccade.recipes import vov3d_m_k400
    from saccade.recipes.kinetics import x3d_m_k400  # type: ignore[attr-defined]

    assert vov3d_m_k400().recipe == "vov3d_m_k400"
    assert x3d_m_k400() == get_recipe("x3d_m_k400")


def test_help_begins_with_what_the_recipe_is(capsys: pytest.CaptureFixture[str]):
    assert main(["train", "x3d_m_finetune", "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(describe("x3d_m_finetune"))
    assert TrainConfig.__doc__.splitlines()[0] not in shown
    assert "--optim.lr" in shown


def test_without_a_name_the_recipes_are_listed_in_groups(capsys: pytest.CaptureFixture[str]):
    groups = recipe_groups()
    assert [name for names in groups.values() for name in names] == list_recipes()
    start, small, own, published = groups.values()
    assert next(iter(groups)).startswith("start here")
    assert start == ["tsm_finetune", "x3d_motion"]
    assert ("x3d_ucf10" in small, "x3d_m_finetune" in own, "vov3d_m_k400" in published) == (True,) * 3
    main(["train"])
    shown = capsys.readouterr().out
    for title, names in groups.items():
        assert f"{title}:\n  {names[0]} " in shown


# ----------------------------------------------------------------------------------------------- registration


@pytest.fixture
def fresh_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test registers is gone after it."""
    for field in ("_entries", "_owners", "_failed"):
        monkeypatch.setattr(RECIPES, field, dict(getattr(RECIPES, field)))
    monkeypatch.setattr(RECIPES, "_loaded", set(RECIPES._loaded))


@pytest.mark.usefixtures("fresh_registry")
def test_a_function_is_registered_by_its_name(capsys: pytest.CaptureFixture[str]):
    @register_recipe
    def my_clips() -> TrainConfig:
        """X3D on my clips."""
        return get_recipe("x3d_motion").replace(epochs=5)

    assert (get_recipe("my_clips").recipe, get_recipe("my_clips").epochs) == ("my_clips", 5)
    assert (summary("my_clips"), list_recipes("my_*")) == ("X3D on my clips.", ["my_clips"])
    assert main(["train", "my_clips", "--num-clips", "64", "--dry-run"]) == 0
    assert "20 steps of 16 clips" in capsys.readouterr().out

    def x3d_motion() -> TrainConfig:
        return my_clips()

    with pytest.raises(UsageError, match="'x3d_motion'"):
        register_recipe(x3d_motion)


PLUGIN = '''
from saccade.recipes import get_recipe, register_recipe

def short():
    """A short run."""
    return get_recipe("x3d_motion").replace(epochs=2)

def wrong():
    return 3

@register_recipe
def their_other():
    """Another."""
    return short()
'''


@pytest.mark.usefixtures("fresh_registry")
def test_an_installed_package_adds_recipes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "their_recipes.py").write_text(PLUGIN)
    info = tmp_path / "their_recipes-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-recipes\nVersion: 1.0\n")
    points = {"short": "short", "wrong": "wrong", "broken": "absent"}
    lines = [f"their_{name} = their_recipes:{function}" for name, function in points.items()]
    text = "\n".join(["[saccade.recipes]", *lines, "their_module = their_recipes"])
    (info / "entry_points.txt").write_text(f"{text}\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert (get_recipe("their_short").recipe, get_recipe("their_short").epochs) == ("their_short", 2)
    assert get_recipe("their_other").recipe == "their_other"
    assert main(["train"]) == 2
    assert "A short run." in capsys.readouterr().out
    with pytest.raises(UsageError, match="'their_wrong' returned int"):
        get_recipe("their_wrong")
    with pytest.raises(UsageError, match="'their_broken'"):
        get_recipe("their_broken")


# ----------------------------------------------------------------------------------------------------- builds


def network(config: TrainConfig) -> Hashable:
    """What shapes the network and its clip: recipes in which it is the same share one test."""
    shape = (config.clip.num_frames, config.train_crop)
    options = {name: value for name, value in model_options(config).items() if name not in SHAPELESS}
    return (config.task, config.model.name, *shape, *sorted(options.items(), key=str))


def first_of(key: Callable[[TrainConfig], Hashable]) -> list[str]:
    """Of the recipes with the same key, the first."""
    found: dict[Hashable, str] = {}
    for name in RECIPES:
        found.setdefault(key(get_recipe(name)), name)
    return list(found.values())


@pytest.mark.parametrize("name", first_of(network))
def test_a_recipe_s_model_builds_for_its_clip(name: str):
    config = get_recipe(name)
    clip = (1, 3, config.clip.num_frames, config.train_crop, config.train_crop)
    with torch.device("meta"), torch.no_grad():
        model: Any = create_model(config.model.name, 7, **model_options(config)).eval()
        if config.task == "masked":
            grid = tuple(model.token_grid)
            predictions = model.forward_masked(torch.empty(clip), torch.ones(1, *grid, dtype=torch.bool))
            assert predictions.shape[:4] == (1, *grid)
            return
        logits = model(torch.empty(clip))
    moments = (config.clip.num_frames,) if config.task == "localization" else ()
    assert logits.shape == (1, 7, *moments)


def test_every_recipe_s_model_is_among_those_that_are_built():
    built = {network(get_recipe(name)) for name in first_of(network)}
    assert {network(get_recipe(name)) for name in RECIPES} == built


# ------------------------------------------------------------------------------------------------------ steps

# The smallest model of each architecture.
_TOKENS: dict[str, int | float | str] = {"width": 12, "depth": 3, "num_heads": 2, "patch": 4}
_PYRAMID: dict[str, int | float | str] = {"embed_dim": 8, "depth": 3, "widen_at": "1,2", "pool_q_at": "1,2"}
TINY: dict[str, tuple[str, dict[str, int | float | str]]] = {
    "x3d": ("x2d", {"gamma_w": 0.3, "head_width": 16}),
    "vov3d": ("vov3d_m", {"inner_channels": 4, "depths": "1,1,1,1", "num_conv": 1, "head_width": 16}),
    "rubiksnet": ("rubiksnet_tiny", {"width": 8, "depths": "1,1,1,1"}),
    "tsm_efficientnet_lite0": ("tsm_efficientnet_lite0", {"width": 0.25}),
    "tsm_resnet50": ("tsm_resnet50", {"width": 8, "depths": "1,1,1,1"}),
    "rubiksnet_aq": ("rubiksnet_tiny_aq", {"width": 8, "depths": "1,1,1,1"}),
}


def architecture(name: str) -> str:
    """What of a model's name is not its size."""
    family = name.split("_")[0]
    if family in ("x2d", "x3d"):
        return "x3d"
    if family == "rubiksnet":
        return "rubiksnet_aq" if name.endswith("_aq") else family
    shapes = {"mvit_base_32x3": "mvit_base_16x4", "mvitv2_base": "mvitv2_small"}
    return family if family == "vov3d" else shapes.get(name, name)


def tiny_model(name: str) -> tuple[str, dict[str, int | float | str]]:
    kind = architecture(name)
    if kind in TINY:
        return TINY[kind]
    return kind, _PYRAMID if "mvit" in kind else _TOKENS


def shrunk(config: TrainConfig, tmp_path: Path) -> TrainConfig:
    """The recipe with a tiny model and tiny clips, for a single step."""
    tiny, overrides = tiny_model(config.model.name)
    model = replace(config.model, name=tiny, overrides=overrides)
    from_weights = config.model.freeze or config.model.backbone_lr < 1
    if config.recipe.endswith(("_finetune", "_linear_probe")) or from_weights:
        save_weights(create_model(tiny, 400, **overrides), tmp_path / "start.safetensors")
        model = replace(model, weights=str(tmp_path / "start.safetensors"))
    if "--model.image-weights" in (RECIPES[config.recipe].__doc__ or ""):
        safetensors.torch.save_file(timm_state(), tmp_path / "vit.safetensors")
        model = replace(model, image_weights=str(tmp_path / "vit.safetensors"))
    return config.replace(
        model=model,
        clip=config.clip.replace(num_frames=FRAMES, stride=1, crop=CROP, short_side=36),
        augment=replace(config.augment, short_side=(36, 40), crop=CROP),
        masked=replace(config.masked, ratio=0.6, coarse=1, min_patches=1),  # of 2x2x2 tokens
        optim=replace(config.optim, warmup_epochs=0),
        epochs=0.01,
        batch_size=2 * config.augment.repeats,
        multigrid="off",
        workers=0,
        threads=1,
        cache_mb=0,
        val_every=config.val_every if config.optim.schedule == "plateau" else 0,
        test_views="",
        out=str(tmp_path / "run"),
        device="cpu",
    )


@pytest.fixture
def clips_for(few_clips: Path, few_keyframes: Path, few_actions: Path) -> Callable[[TrainConfig], str]:
    folders = {"multi-label": few_actions, "localization": few_actions, "detection": few_keyframes}
    return lambda config: str(folders.get(config.task, few_clips))


def run_one_step(config: TrainConfig) -> None:
    result = train(config)
    assert result.num_steps == 1
    assert (result.run_dir / "best.safetensors").is_file()
    assert (result.run_dir / "image_weights.json").is_file() == bool(config.model.image_weights)


# A report takes as long as the rest: one for each task, architecture, and whether there is a test.
REPORTED = first_of(lambda config: (config.task, architecture(config.model.name), bool(config.test_views)))


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_trains_a_step_and_is_validated(
    name: str, clips_for: Callable[[TrainConfig], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    recipe = get_recipe(name)
    if name not in REPORTED:
        monkeypatch.setattr("saccade.training.run._report", lambda trainer: None)
    config = shrunk(recipe, tmp_path)
    views = recipe.test_views and "2x1"
    run_one_step(config.replace(data=clips_for(config), val_every=1, test_views=views))
    assert (Path(config.run_dir) / "report.html").is_file() == (name in REPORTED)


def test_an_unknown_recipe_names_close_ones():
    with pytest.raises(UsageError, match=r"'x3d_m_400'.* x3d_m_k400"):
        get_recipe("x3d_m_400")
    with pytest.raises(UsageError, match=r"x3d_motion, "):
        get_recipe("zzzzzz")
