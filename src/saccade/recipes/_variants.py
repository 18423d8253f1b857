"""Recipes that are the rows of a table: one function builds their configs, one their docstrings."""

from __future__ import annotations

import textwrap
from collections.abc import Callable

from saccade.recipes._registry import Recipe
from saccade.training.config import TrainConfig


def variant(
    name: str,
    build: Callable[[], TrainConfig],
    summary: str,
    *,
    hardware: str,
    expected: str,
    source: str,
    data: str = "",
    flags: str = "",
    launch: str = "torchrun --nproc_per_node 8 -m saccade",
    command: str = "",
) -> Recipe:
    """A recipe called ``name`` whose config is that of ``build`` and whose docstring says the rest.

    Args:
        summary: one sentence, the first line of the docstring.
        data: what ``--data`` is in the command.
        flags: what follows it.
        launch: what stands before ``train NAME``.
        command: the whole command instead.
    """

    def recipe() -> TrainConfig:
        return build().replace(recipe=name)

    command = command or f"{launch} train {name} --data {data} {flags}".strip()
    fields = {"Command": f"``{command}``", "Hardware": hardware, "Expected": expected, "Source": source}
    wrap = textwrap.TextWrapper(width=106, break_long_words=False, break_on_hyphens=False)
    paragraphs = [summary, "", *(wrap.fill(f"{title}: {text}") for title, text in fields.items())]
    recipe.__name__ = recipe.__qualname__ = name
    recipe.__module__ = "saccade.recipes"
    recipe.__doc__ = "\n".join(paragraphs) + "\n"
    return recipe
