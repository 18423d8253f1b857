"""Experiments, each a function that returns its frozen config. The name of the function is the name of the
recipe.

A recipe is changed from the command line (``saccade train x3d_ucf10 --optim.lr 0.1``) or by derivation
(``x3d_ucf10().replace(epochs=5)``). Each docstring says command, hardware, time, expected accuracy and
source.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path

from saccade.errors import UsageError
from saccade.recipes import maskfeat, mvit, rubiksnet, timesformer, vivit, vov3d
from saccade.recipes._files import is_recipe_file, read_recipe
from saccade.recipes.ava import x3d_m_ava
from saccade.recipes.charades import x3d_m_charades, x3d_m_charades_loc
from saccade.recipes.expansion import x2d_expand
from saccade.recipes.finetune import x3d_m_finetune, x3d_m_linear_probe
from saccade.recipes.kinetics import x3d_l_k400, x3d_m_k400, x3d_s_k400, x3d_xl_k400, x3d_xs_k400
from saccade.recipes.motion import x3d_motion, x3d_motion_loc, x3d_motion_multilabel
from saccade.recipes.ucf import x3d_ucf10, x3d_ucf10_strong
from saccade.training.config import TrainConfig

RECIPES: dict[str, Callable[[], TrainConfig]] = {
    recipe.__name__: recipe
    for recipe in (
        x3d_motion,
        x3d_motion_multilabel,
        x3d_motion_loc,
        x3d_ucf10,
        x3d_ucf10_strong,
        x2d_expand,
        vov3d.vov3d_m_motion,
        rubiksnet.rubiksnet_tiny_motion,
        rubiksnet.rubiksnet_tiny_aq_motion,
        rubiksnet.rubiksnet_tiny_ucf10,
        timesformer.timesformer_motion,
        timesformer.timesformer_ucf10,
        *maskfeat.SMALL,
        x3d_m_finetune,
        x3d_m_linear_probe,
        x3d_xs_k400,
        x3d_s_k400,
        x3d_m_k400,
        x3d_l_k400,
        x3d_xl_k400,
        x3d_m_charades,
        x3d_m_charades_loc,
        x3d_m_ava,
        *vov3d.PUBLISHED,
        *rubiksnet.PUBLISHED,
        *timesformer.PUBLISHED,
        *vivit.PUBLISHED,
        *mvit.PUBLISHED,
        *maskfeat.PUBLISHED,
    )
}


def get_recipe(name: str) -> TrainConfig:
    """The config of a recipe, by its name or by its file (.json or .py).

    Raises:
        UsageError: there is no such recipe; names the closest ones.
    """
    if is_recipe_file(name):
        return read_recipe(Path(name))
    if name not in RECIPES:
        close = difflib.get_close_matches(name, RECIPES, n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else f"recipes are {', '.join(RECIPES)}"
        raise UsageError(f"unknown recipe {name!r}; {hint}")
    return RECIPES[name]()


def summary(name: str) -> str:
    """The first line of a recipe's docstring."""
    return (RECIPES[name].__doc__ or "").strip().splitlines()[0]
