"""The picture of a training plan whose batches change their shape."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from saccade.visualize.charts import BLUE, GREY, ORANGE, TEAL, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plan_chart(
    *,
    edges: Sequence[float],
    batches: Sequence[Sequence[int]],
    crops: Sequence[Sequence[int]],
    frames: Sequence[int],
    rates: tuple[Sequence[float], Sequence[float]],
    validations: Sequence[float] = (),
    title: str,
) -> Figure:
    """Clips of a batch, frames, crops and learning rate over the epochs of a run.

    Args:
        edges: epochs at which the phases begin, and the end of the last.
        batches, crops: of each phase, the sizes that its batches take in turn; the last is drawn strongly.
        frames: of each phase.
        rates: epochs and learning rates.
        validations: epochs after which there is one.
    """
    with styled():
        figure = Figure(figsize=(7.0, 6.4), layout="constrained")
        axes: list[Axes] = list(figure.subplots(4, 1, sharex=True, height_ratios=[3, 2, 3, 3]))
        _stairs(axes[0], edges, batches, BLUE)
        _stairs(axes[1], edges, [[count] for count in frames], TEAL)
        _stairs(axes[2], edges, crops, ORANGE)
        axes[3].plot(*rates, color=GREY)
        axes[0].set_title(title)
        for each, name in zip(
            axes, ("clips a batch", "frames", "crop (pixels)", "learning rate"), strict=True
        ):
            each.set_ylabel(name)
            each.grid(axis="x", visible=False)
        for each, values in zip(axes[:3], (batches, [[count] for count in frames], crops), strict=True):
            present = sorted({value for sizes in values for value in sizes})
            each.set_yscale("log", base=2)
            each.yaxis.set_major_locator(FixedLocator(_apart(present)))
            each.yaxis.set_minor_locator(NullLocator())
            each.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            each.set_ylim(present[0] / 1.3, present[-1] * 1.3)
        _rate_axis(axes[3], rates[1])
        for epoch in validations:
            low = axes[3].get_xaxis_transform()
            axes[3].plot(epoch, 0, marker="|", color=BLUE, markersize=9, clip_on=False, transform=low)
        axes[3].set_xlabel("epoch" + (" (marks: validations)" if validations else ""))
        axes[3].set_xlim(0, edges[-1])
        return figure


def _rate_axis(axes: Axes, rates: Sequence[float]) -> None:
    """From 0; over four decades where a linear axis would show a fifth of the run or more as next to nothing,
    as it does after long cycles, whose batches have rates of their own.
    """
    highest = max(rates, default=0)
    if not highest or sum(rate < highest / 20 for rate in rates) < len(rates) / 5:
        axes.set_ylim(bottom=0)
        return
    lowest = min(rate for rate in rates if rate > 0)
    axes.set_yscale("log")
    axes.set_ylim(max(lowest / 2, highest / 2e4), highest * 1.5)
    axes.yaxis.set_minor_locator(NullLocator())


def _stairs(axes: Axes, edges: Sequence[float], sizes: Sequence[Sequence[int]], colour: str) -> None:
    for start, end, values in zip(edges[:-1], edges[1:], sizes, strict=True):
        axes.fill_between([start, end], min(values), max(values), color=colour, alpha=0.12, linewidth=0)
        for value in values[:-1]:
            axes.plot([start, end], [value, value], color=colour, alpha=0.45, linewidth=1)
        axes.plot([start, end], [values[-1]] * 2, color=colour, linewidth=2.2)


def _apart(values: Sequence[int]) -> list[int]:
    """Those of ``values`` that have room for a label on a logarithmic axis."""
    kept: list[int] = []
    for value in values:
        if not kept or value > 1.25 * kept[-1]:
            kept.append(value)
    return kept
