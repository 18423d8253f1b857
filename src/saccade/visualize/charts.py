"""Charts in a common style, drawn with matplotlib's object interface (no window, no global state).

Every function returns a `matplotlib.figure.Figure`. `save_figure` writes an image file with a white
background. `inline_svg` returns an SVG with a transparent background that uses the page's ``--ink`` and
``--line`` colours.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike
from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import ArrayLike

from saccade.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from saccade.tasks.metrics import ConfidenceBin


INK, LINE = "#1c2430", "#dfe3e8"  # `inline_svg` replaces them by the page's colours
BLUE, ORANGE, TEAL, GREY = "#2f6fde", "#e8762d", "#149b84", "#8a94a3"
SMALL = (3.5, 2.4)
SIZE = (4.8, 3.0)  # inches: legible at the width of a phone

_STYLE: Any = {
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.edgecolor": LINE,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "saccade",
}
_HEAT = LinearSegmentedColormap.from_list("heat", [(0.18, 0.44, 0.87, 0.0), (0.12, 0.34, 0.76, 1.0)])


@contextmanager
def styled() -> Iterator[None]:
    """Use our matplotlib style within the context."""
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")  # class names in other scripts
        yield


def line_chart(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    title: str,
    xlabel: str = "epoch",
    percent: bool = False,
    bottom: float | None = None,
    small: bool = False,
) -> Figure:
    """A line chart.

    Args:
        series: name -> (x values, y values). The first of several is grey.
        percent: show fractions as percentages.
        bottom: lower limit of the y axis.
        small: for a chart that fills a third of a page.
    """
    with styled():
        figure = Figure(figsize=SMALL if small else SIZE, layout="constrained")
        axes = figure.add_subplot()
        colours = [GREY, BLUE, ORANGE, TEAL] if len(series) > 1 else [BLUE]
        for (name, (x, y)), colour in zip(series.items(), colours, strict=False):
            marker = "o" if len(x) <= 40 and colour != GREY else None
            axes.plot(x, y, color=colour, label=name, marker=marker, markersize=3.2)
        axes.set(title=title, xlabel=xlabel)
        if xlabel == "epoch":
            axes.xaxis.set_major_locator(MaxNLocator(5 if small else 8, integer=True))
        if percent:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
        if bottom is not None:
            axes.set_ylim(bottom=bottom)
        if percent:
            axes.set_ylim(top=1.02)
        axes.grid(axis="x", visible=False)
        if len(series) > 1:
            axes.legend(loc="best", ncols=len(series), handlelength=1.2)
        return figure


def confusion_chart(
    table: ArrayLike, class_names: Sequence[str], *, title: str = "Confusion matrix"
) -> Figure:
    """A confusion matrix with rows normalised to 1; up to 20 classes with counts.

    Args:
        table: counts (num_classes, num_classes), rows are true classes, columns predictions.
    """
    counts = np.asarray(table)
    num = len(counts)
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = float(np.clip(2.2 + 0.3 * num, 4.2, 9.0))
    with styled():
        figure = Figure(figsize=(side, side), layout="constrained")
        axes = figure.add_subplot()
        axes.imshow(fractions, cmap=_HEAT, vmin=0, vmax=1, interpolation="nearest")
        axes.set(title=title, xlabel="predicted", ylabel="true")
        axes.grid(visible=False)
        if num <= 60:
            _name_ticks(axes, class_names, size=9 if num <= 20 else 6)
            axes.set_xticks(np.arange(num + 1) - 0.5, minor=True)
            axes.set_yticks(np.arange(num + 1) - 0.5, minor=True)
            axes.grid(which="minor", color=LINE, linewidth=0.5)
        if num <= 20:
            for row, column in np.argwhere(counts):
                colour = "white" if fractions[row, column] > 0.45 else INK
                axes.text(
                    column, row, str(counts[row, column]), ha="center", va="center", color=colour, fontsize=8
                )
        return figure


def reliability_chart(bins: Sequence[ConfidenceBin], *, error: float, title: str = "Reliability") -> Figure:
    """Accuracy against confidence in bins, with the number of videos of each; on the diagonal a model is as
    often right as it is sure.
    """
    with styled():
        figure = Figure(figsize=(4.2, 3.8), layout="constrained")
        axes, counts = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        axes.plot([0, 1], [0, 1], color=GREY, linewidth=1.0, linestyle="--", label="calibrated")
        confidence, accuracy = [b.confidence for b in bins], [b.accuracy for b in bins]
        for each in bins:
            axes.plot([each.confidence] * 2, [each.confidence, each.accuracy], color=ORANGE, linewidth=1.2)
        label = f"ECE {100 * error:.1f} %, {sum(b.num_videos for b in bins)} videos"
        axes.plot(confidence, accuracy, color=BLUE, marker="o", markersize=4, label=label)
        axes.set(title=title, ylabel="accuracy", xlim=(0, 1.02), ylim=(-0.02, 1.02))
        axes.legend(loc="upper left")
        counts.bar(confidence, [b.num_videos for b in bins], width=0.03, color=BLUE)
        counts.set(xlabel="score of the predicted class", ylabel="videos")
        counts.yaxis.set_major_locator(MaxNLocator(2, integer=True))
        percent = FuncFormatter(lambda value, _: f"{100 * value:g} %")
        axes.yaxis.set_major_formatter(percent)
        counts.xaxis.set_major_formatter(percent)
        return figure


def per_class_chart(
    names: Sequence[str], recalls: Sequence[float], *, title: str = "Accuracy per class"
) -> Figure:
    """A bar for each class, in the given order."""
    with styled():
        figure = Figure(figsize=(SIZE[0], 0.9 + 0.24 * len(names)), layout="constrained")
        axes = figure.add_subplot()
        values = np.asarray(recalls, float)
        axes.barh(np.arange(len(names)), values, color=BLUE, height=0.66)
        axes.set_yticks(np.arange(len(names)), [shorten(name) for name in names])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(0, 1.12)
        axes.set_xticks(np.linspace(0, 1, 5))
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
        axes.grid(axis="y", visible=False)
        for position, value in enumerate(values):
            axes.text(value + 0.015, position, f"{100 * value:.0f}", va="center", fontsize=8.5)
        axes.set_title(title)
        return figure


def sparse_view_chart(
    points: Sequence[tuple[str, float, float]],
    *,
    label: str = "",
    title: str = "Accuracy against cost per video",
    figure_name: str = "top-1",
) -> Figure:
    """The sparse-view curve of the X3D paper: accuracy against GMACs per video on a logarithmic axis.

    Args:
        points: (views as CLIPSxCROPS, GMACs per video, accuracy in 0..1), in any order.
        label: name of the model.
        figure_name: name of the metric.
    """
    with styled():
        figure = Figure(figsize=(5.4, 3.5), layout="constrained")
        axes = figure.add_subplot()
        ordered = sorted(points, key=lambda point: point[1])
        x, y = [p[1] for p in ordered], [100 * p[2] for p in ordered]
        axes.plot(x, y, color=BLUE, marker="o", markersize=5.5, label=label or None)
        axes.set_xscale("log")
        axes.set(title=title, xlabel="GMACs per video (log scale)", ylabel=f"{figure_name} (%)")
        span = max(max(y) - min(y), 2.0)
        axes.set_ylim(min(y) - 0.25 * span, max(y) + 0.3 * span)
        low, high = min(x), max(x)
        axes.set_xlim(low / 1.5, high * 1.6)
        axes.set_xticks(x, [f"{value:.3g}" for value in x])
        axes.xaxis.set_minor_formatter(NullFormatter())
        for views, gmacs, top1 in ordered:
            axes.annotate(
                f"{views}\n{100 * top1:.1f}",
                (gmacs, 100 * top1),
                xytext=(0, 7),
                textcoords="offset points",
                ha="center",
                fontsize=8.5,
            )
        axes.yaxis.set_major_locator(MaxNLocator(6))
        if label:
            axes.legend(loc="lower right")
        return figure


def save_figure(figure: Figure, path: str | PathLike[str], *, dpi: int = 160) -> None:
    """Write the figure with a white background; the suffix (.svg, .png, .pdf) selects the format."""
    with styled(), atomic_path(path) as temporary:
        options: dict[str, Any] = {"metadata": {"Date": None}} if temporary.suffix == ".svg" else {}
        with matplotlib.rc_context({"svg.fonttype": "path"}):
            figure.savefig(temporary, dpi=dpi, facecolor="white", **options)


def inline_svg(figure: Figure, *, label: str) -> str:
    """The figure as an ``<svg>`` element for a page that defines ``--ink`` and ``--line``.

    Args:
        label: the alternative text.
    """
    stream = io.StringIO()
    with styled():
        figure.savefig(stream, format="svg", metadata={"Date": None})
    svg = stream.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace(INK, "var(--ink)").replace(LINE, "var(--line)")
    svg = re.sub(r"font-family: [^;]*", "font-family: system-ui, sans-serif", svg)
    svg = _unique_ids(svg, label)
    head, rest = svg.split(">", 1)
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    return f'{head} role="img" aria-label="{_escape(label)}">{rest}'


def shorten(name: str, width: int = 22) -> str:
    """Truncate a name to ``width`` characters, with an ellipsis."""
    return name if len(name) <= width else name[: width - 1].rstrip() + "…"


def _name_ticks(axes: Axes, names: Sequence[str], *, size: float) -> None:
    positions, labels = np.arange(len(names)), [shorten(name, 18) for name in names]
    axes.set_xticks(positions, labels, rotation=90, fontsize=size)
    axes.set_yticks(positions, labels, fontsize=size)


def _unique_ids(svg: str, label: str) -> str:
    """Prefix every id, since several charts may be in one page."""
    prefix = re.sub(r"\W+", "-", label.lower())
    svg = re.sub(r'id="([^"]+)"', rf'id="{prefix}-\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}-\1)", svg)
    return re.sub(r'href="#([^"]+)"', rf'href="#{prefix}-\1"', svg)


def _escape(text: str) -> str:
    return text.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")


# ------------------------------------------------------------------------------------- plan of a training run


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
    """The batch size, frames, crop and learning rate of a run against the epoch.

    Args:
        edges: epochs at which the phases start, and the end of the last.
        batches, crops: for each phase, the sizes that its batches cycle through; the last is highlighted.
        frames: frames per clip of each phase.
        rates: epochs and learning rates.
        validations: epochs after which a validation runs.
    """
    with styled():
        figure = Figure(figsize=(7.0, 6.4), layout="constrained")
        axes: list[Axes] = list(figure.subplots(4, 1, sharex=True, height_ratios=[3, 2, 3, 3]))
        _stairs(axes[0], edges, batches, BLUE)
        _stairs(axes[1], edges, [[count] for count in frames], TEAL)
        _stairs(axes[2], edges, crops, ORANGE)
        axes[3].plot(*rates, color=GREY)
        axes[0].set_title(title)
        for each, name in zip(axes, ("batch size", "frames", "crop (pixels)", "learning rate"), strict=True):
            each.set_ylabel(name)
            each.grid(axis="x", visible=False)
        for each, values in zip(axes[:3], (batches, [[count] for count in frames], crops), strict=True):
            present = sorted({value for sizes in values for value in sizes})
            each.set_yscale("log", base=2)
            each.yaxis.set_major_locator(FixedLocator(_spaced(present)))
            each.yaxis.set_minor_locator(NullLocator())
            each.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            each.set_ylim(present[0] / 1.3, present[-1] * 1.3)
        _lr_axis(axes[3], rates[1])
        for epoch in validations:
            low = axes[3].get_xaxis_transform()
            axes[3].plot(epoch, 0, marker="|", color=BLUE, markersize=9, clip_on=False, transform=low)
        axes[3].set_xlabel("epoch" + (" (marks: validations)" if validations else ""))
        axes[3].set_xlim(0, edges[-1])
        return figure


def _lr_axis(axes: Axes, rates: Sequence[float]) -> None:
    """Scale the learning rate axis: linear from 0, or logarithmic over four decades if at least a fifth of
    the rates are below 5 % of the highest.
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


def _spaced(values: Sequence[int]) -> list[int]:
    """The values whose labels do not overlap on a logarithmic axis."""
    spaced: list[int] = []
    for value in values:
        if not spaced or value > 1.25 * spaced[-1]:
            spaced.append(value)
    return spaced
