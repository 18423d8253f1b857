"""Recipes by name: the library's own, those of a user's code and those of installed packages."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from saccade.errors import UsageError
from saccade.plugins import Registry
from saccade.recipes._files import describe_file, is_recipe_file, read_recipe
from saccade.training.config import TrainConfig

Recipe = Callable[[], TrainConfig]
"""A function without arguments: its name is the recipe's name, its docstring the recipe's help."""


def register_recipe(function: Recipe) -> Recipe:
    """Make a recipe usable by name, in `get_recipe` and in ``saccade train NAME``. Returns the function.

    An installed package registers recipes with entry points of the group ``saccade.recipes``, each of which
    names such a function, or a module that calls `register_recipe`.

    Example:
        >>> @register_recipe
        ... def my_clips() -> TrainConfig:
        ...     '''X3D on my clips.'''
        ...     return get_recipe("x3d_motion").replace(epochs=5)
        >>> get_recipe("my_clips").epochs
        5

    Raises:
        UsageError: another module has registered that name.
    """
    RECIPES.add(function.__name__, function, owner=function.__module__)
    return function


def _adopt(name: str, found: Any) -> None:
    """Register what an entry point names."""
    RECIPES.add(name, found, owner=getattr(found, "__module__", ""))


RECIPES: Registry[Recipe] = Registry("recipe", group="saccade.recipes", adopt=_adopt)
"""All recipes by name."""


def list_recipes(pattern: str = "*") -> list[str]:
    """Names of the recipes that match a shell pattern: the library's own first, then those registered."""
    return [name for name in RECIPES if fnmatchcase(name, pattern)]


def get_recipe(name: str) -> TrainConfig:
    """The config of a recipe, by its name or by its file (.json or .py).

    Raises:
        UsageError: there is no such recipe (names the closest ones), or it does not return a `TrainConfig`.
    """
    if is_recipe_file(name):
        return read_recipe(Path(name))
    config = RECIPES[name]()
    if not isinstance(config, TrainConfig):
        raise UsageError(f"recipe {name!r} returned {type(config).__name__}, not a TrainConfig")
    return config.replace(recipe=name)


def describe(name: str) -> str:
    """A recipe's docstring: what it trains, command, hardware, expected accuracy and source.

    Args:
        name: of a recipe, or its file; a .json file has no docstring.
    """
    if is_recipe_file(name):
        return describe_file(Path(name))
    return inspect.getdoc(RECIPES[name]) or ""


def summary(name: str) -> str:
    """The first line of a recipe's docstring, empty if it has none."""
    return next(iter(describe(name).splitlines()), "")
