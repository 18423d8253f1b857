"""Attention as rows of maps, and attention in time as a chart."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import Any

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from saccade.visualize.charts import GREY, styled
from saccade.visualize.overlay import HEAT, MapRow

_LEFT, _TOP, _SIDE, _STEP = 0.9, 0.98, 1.16, 1.5  # inches


def look(title: str, weights: NDArray[Any], steps: tuple[int, int] | None) -> MapRow:
    """Attention weights (T, h, w) as a row: from the least, 0, to the most, 1, with how many times the even
    share the most is.
    """
    least, most = float(weights.min()), float(weights.max())
    total = float(weights.sum())
    spread = (weights - least) / (most - least) if most > least else np.zeros_like(weights)
    times = most * weights.size / total if total > 0 else 1.0
    return MapRow(title, np.asarray(spread, np.float32), f"≤ {times:.1f}× even", steps)


def time_chart(
    in_time: NDArray[Any], seconds: Sequence[float] | NDArray[Any], *, title: str, subtitle: str = ""
) -> Figure:
    """Which moment looks at which: a square for each head and one for their mean. Each row of a square is a
    moment that looks; its weights add up to 1 where there is no class token.

    Args:
        in_time: (heads, T, T), the moment that looks first.
        seconds: when the moments are.
    """
    panels = [("mean of heads", in_time.mean(0))]
    panels += [(f"head {number}", weights) for number, weights in enumerate(in_time)]
    columns = min(len(panels), 7)
    rows = ceil(len(panels) / columns)
    width, height = max(_LEFT + columns * _STEP + 0.8, 5.4), _TOP + rows * _STEP + 0.3
    highest = float(in_time.max())
    with styled():
        figure = Figure(figsize=(width, height))

        def box(x: float, y: float, wide: float, tall: float) -> tuple[float, float, float, float]:
            return x / width, 1 - (y + tall) / height, wide / width, tall / height

        figure.text(*box(0.12, 0.1, 0, 0)[:2], title, fontsize=14, fontweight="bold", va="top")
        figure.text(*box(0.12, 0.37, 0, 0)[:2], subtitle, fontsize=11, color=GREY, va="top")
        for place, (name, weights) in enumerate(panels):
            row, column = divmod(place, columns)
            axes = figure.add_axes(box(_LEFT + column * _STEP, _TOP + row * _STEP, _SIDE, _SIDE))
            axes.imshow(weights, cmap=HEAT, vmin=0, vmax=highest, interpolation="nearest")
            axes.set_title(name, fontsize=10.5, fontweight="normal", pad=4)
            axes.grid(visible=False)
            ends = [0, len(seconds) - 1]
            names = [f"{seconds[end]:.1f} s" for end in ends] if place == 0 else ["", ""]
            axes.set_xticks(ends, names, fontsize=9)
            axes.set_yticks(ends, names, fontsize=9)
            if place == 0:
                axes.set_ylabel("looks", fontsize=10.5, labelpad=-14)
                axes.set_xlabel("looked at", fontsize=10.5, labelpad=-1)
        tall = rows * _STEP - (_STEP - _SIDE)
        bar_axes = figure.add_axes(box(_LEFT + columns * _STEP - 0.06, _TOP, 0.13, tall))
        bar: Any = figure.colorbar(ScalarMappable(Normalize(0, highest), HEAT), cax=bar_axes)
        bar.locator = MaxNLocator(3)
        bar.update_ticks()
        bar.outline.set_visible(False)
        bar_axes.tick_params(labelsize=9.5, pad=2)
        return figure
