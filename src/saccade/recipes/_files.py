"""Recipes in files: what ``saccade train PATH`` takes beside the names of recipes."""

from __future__ import annotations

import inspect
import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

from saccade.errors import ConfigError, UsageError
from saccade.training.config import TrainConfig

SUFFIXES = (".json", ".py")


def is_recipe_file(name: str) -> bool:
    """Whether a recipe is named by its file."""
    return name.endswith(SUFFIXES)


def read_recipe(path: Path) -> TrainConfig:
    """The config in a recipe file.

    A ``.json`` file holds the fields of a `TrainConfig`, or has them under ``config``, as the recipe of a
    search and the config.json of a run do. A ``.py`` file is run; it holds a function without arguments that
    returns a `TrainConfig` and is named as the file is, or is the only one.

    Raises:
        UsageError: there is no such file, or no recipe in it.
        ConfigError: a field is unknown.
    """
    return _from_json(path) if path.suffix == ".json" else _from_python(path)


def _from_json(path: Path) -> TrainConfig:
    if not path.is_file():
        raise UsageError(f"recipe {str(path)!r}: no such file")
    try:
        values: Any = json.loads(path.read_text(encoding="utf-8"))
        values = values.get("config", values)
        return TrainConfig.from_dict(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, TypeError) as error:
        raise UsageError(f"{path}: not readable as a recipe ({error})") from None


def describe_file(path: Path) -> str:
    """The docstring of the function in a .py file; "" for a .json file."""
    return "" if path.suffix == ".json" else inspect.getdoc(_function_of(path)) or ""


def _from_python(path: Path) -> TrainConfig:
    chosen = _function_of(path)
    config = chosen()
    if not isinstance(config, TrainConfig):
        raise UsageError(f"{path}: {chosen.__name__}() returned {type(config).__name__}, not a TrainConfig")
    return config


def _function_of(path: Path) -> Callable[[], Any]:
    """The recipe's function in a .py file."""
    if not path.is_file():
        raise UsageError(f"recipe {str(path)!r}: no such file")
    try:
        names = runpy.run_path(str(path), run_name=path.stem)
    except Exception as error:
        raise UsageError(f"{path}: running it failed: {type(error).__name__}: {error}") from error
    own = {
        name: entry
        for name, entry in names.items()
        if inspect.isfunction(entry)
        and entry.__module__ == path.stem
        and not inspect.signature(entry).parameters
    }
    chosen = own.get(path.stem) or (next(iter(own.values())) if len(own) == 1 else None)
    if chosen is None:
        found = f"has {', '.join(own)}" if own else "has no function without arguments"
        raise UsageError(f"{path}: {found}; name the recipe's function {path.stem}")
    return chosen
