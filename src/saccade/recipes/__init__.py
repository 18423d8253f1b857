"""Recipes: functions that return the frozen config of one experiment, by name.

A recipe is changed from the command line (``saccade train x3d_ucf10 --optim.lr 0.1``) or in Python
(``get_recipe("x3d_ucf10").replace(epochs=5)``). Each docstring says command, hardware, expected accuracy and
source. Your own recipe is a file (``saccade train my_recipe.py``), or a function that `register_recipe` or an
entry point of the group ``saccade.recipes`` makes known by name.
"""

from __future__ import annotations

from saccade.recipes import distill, kinetics, maskfeat, mvit, rubiksnet, timesformer, tsm, vivit, vov3d
from saccade.recipes._registry import (
    RECIPES,
    Recipe,
    describe,
    get_recipe,
    list_recipes,
    register_recipe,
    summary,
)
from saccade.recipes.ava import x3d_m_ava, x3d_xl_ava
from saccade.recipes.charades import x3d_m_charades, x3d_m_charades_loc, x3d_xl_charades
from saccade.recipes.expansion import x2d_expand
from saccade.recipes.finetune import tsm_finetune, x3d_m_finetune, x3d_m_linear_probe
from saccade.recipes.motion import x3d_motion, x3d_motion_loc, x3d_motion_multilabel
from saccade.recipes.ucf import x3d_ucf10, x3d_ucf10_strong

__all__ = [
    "RECIPES",
    "describe",
    "get_recipe",
    "list_recipes",
    "recipe_groups",
    "register_recipe",
    "summary",
]

_START = (tsm_finetune, x3d_motion)
_SMALL = (
    x3d_motion_multilabel,
    x3d_motion_loc,
    x3d_ucf10,
    x3d_ucf10_strong,
    x2d_expand,
    vov3d.vov3d_m_motion,
    rubiksnet.rubiksnet_tiny_motion,
    rubiksnet.rubiksnet_tiny_aq_motion,
    rubiksnet.rubiksnet_tiny_ucf10,
    tsm.tsm_motion,
    timesformer.timesformer_motion,
    timesformer.timesformer_ucf10,
    *maskfeat.SMALL,
)
_OWN_CLIPS = (
    tsm.tsm_efficientnet_lite0_finetune,
    x3d_m_finetune,
    x3d_m_linear_probe,
    rubiksnet.rubiksnet_tiny_finetune,
    *distill.STUDENTS,
)
_PUBLISHED = (
    *kinetics.PUBLISHED,
    x3d_m_charades,
    x3d_m_charades_loc,
    x3d_xl_charades,
    x3d_m_ava,
    x3d_xl_ava,
    *vov3d.PUBLISHED,
    *rubiksnet.PUBLISHED,
    *tsm.PUBLISHED,
    *timesformer.PUBLISHED,
    *vivit.PUBLISHED,
    *mvit.PUBLISHED,
    *maskfeat.PUBLISHED,
)
for _recipe in (*_START, *_SMALL, *_OWN_CLIPS, *_PUBLISHED):
    register_recipe(_recipe)


def recipe_groups() -> dict[str, list[str]]:
    """Names of all recipes by what they are for; those of files and packages come last."""
    groups = {
        "start here (saccade fit CLIPS chooses for you)": [recipe.__name__ for recipe in _START],
        "small recipes, to run here": [recipe.__name__ for recipe in _SMALL],
        "recipes for your own clips, starting from published weights or a teacher": [
            recipe.__name__ for recipe in _OWN_CLIPS
        ],
        "published recipes, on Kinetics, Something-Something, Charades and AVA": [
            recipe.__name__ for recipe in _PUBLISHED
        ],
    }
    own = set().union(*groups.values())
    added = [name for name in RECIPES if name not in own]
    return groups | ({"recipes from plug-ins": added} if added else {})


def __getattr__(name: str) -> Recipe:
    """``from saccade.recipes import vov3d_m_k400``: the recipes that are rows of tables too."""
    if name in RECIPES:
        return RECIPES[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
