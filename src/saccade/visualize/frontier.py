"""Charts of accuracy against cost: the path of an expansion search (Figure 2 of the X3D paper, arXiv
2004.04730) and the Pareto front of trained models.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullFormatter, NullLocator
from numpy.typing import NDArray

from saccade.evaluation.pareto import pareto_front
from saccade.visualize.charts import BLUE, GREY, INK, ORANGE, TEAL, shorten, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes


# (colour, marker)
AXIS_STYLES: dict[str, tuple[str, str]] = {
    "start": (INK, "o"),
    "fast": ("#e8762d", "^"),
    "temporal": ("#b5477c", "D"),
    "spatial": ("#2f6fde", "s"),
    "depth": ("#149b84", "o"),
    "width": ("#8a6d1d", "P"),
    "bottleneck": ("#7b57c8", "v"),
}
GROUP_STYLES = ((BLUE, "o"), (ORANGE, "s"), (TEAL, "D"), ("#7b57c8", "^"), ("#b5477c", "v"), (GREY, "P"))
MAX_LABELS = 24
RING = "no evidence that it differs from the best"
COST_LABELS = {
    "gmacs": "GMACs per clip",
    "gmacs_per_video": "GMACs per video",
    "params": "parameters (M)",
    "latency_ms": "latency (ms)",
    "memory_mb": "memory (MB)",
}


@dataclass(frozen=True, kw_only=True)
class Dot:
    """One trained network.

    Attributes:
        cost: cost in the unit of the chart's axis; see `COST_LABELS`.
        accuracy: 0..1.
        spread: standard error of the accuracy, 0..1; 0 draws no error bar.
        group: expansion axis or model family, which selects the colour.
        ringed: draw a ring around it: it may be as accurate as the best (`RING`).
    """

    name: str
    cost: float
    accuracy: float
    spread: float = 0.0
    group: str = ""
    ringed: bool = False


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a search: the selected network, and the other candidates of the same parent.

    Attributes:
        label: text next to the selected network.
        in_noise: another candidate was within noise of the selected one.
    """

    selected: Dot
    label: str
    rejected: Sequence[Dot] = field(default_factory=tuple)
    in_noise: bool = False


def plain_number(value: float) -> str:
    """Format with three significant digits and no exponent: ``0.0207``, ``35.8``, ``12,400``."""
    return f"{value:.3g}" if value < 1000 else f"{float(f'{value:.3g}'):,.0f}"


def expansion_chart(
    steps: Sequence[Step],
    *,
    cost: str = "gmacs",
    target: float | None = None,
    figure_name: str = "top-1",
    title: str = "Progressive expansion",
    last_rejected: Sequence[Dot] = (),
    result: str = "",
) -> Figure:
    """The path of a search: selected networks joined by a line and labelled with the expanded axis; rejected
    ones faint, joined to the network they were expanded from.

    Args:
        steps: the steps in order; the first is the network that the search started from.
        cost: a key of `COST_LABELS`, or the label of the (logarithmic) cost axis.
        target: drawn as a vertical line.
        figure_name: name of the metric.
        last_rejected: candidates expanded from the last selected network, none of which was selected.
        result: name of the network that the search ended with, drawn with a ring.
    """
    with styled():
        figure = Figure(figsize=(8.6, 4.4), layout="constrained")
        axes = figure.add_subplot()
        path = [step.selected for step in steps]
        axes.plot(
            [d.cost for d in path], [100 * d.accuracy for d in path], color=INK, linewidth=1.5, zorder=3
        )
        for number, step in enumerate(steps):
            parent = path[number - 1] if number else None
            for dot in step.rejected:
                _draw_rejected(axes, dot, parent)
            _draw_dot(axes, step.selected, AXIS_STYLES.get(step.selected.group, (GREY, "o")), size=7.5)
        for dot in last_rejected:
            _draw_rejected(axes, dot, path[-1])
        for dot in path:
            if dot.name == result:
                axes.plot(
                    [dot.cost], [100 * dot.accuracy], marker="o", markersize=15, color=INK, fillstyle="none",
                    markeredgewidth=1.1, linestyle="none", zorder=3,
                )  # fmt: skip
        all_dots = [*path, *(dot for step in steps for dot in step.rejected), *last_rejected]
        _set_scales(axes, all_dots, cost, figure_name, extra=[target] if target else [])
        axes.set_title(title)
        if target:
            _draw_target(axes, target)
        _axis_legend(axes, all_dots, in_noise=any(step.in_noise for step in steps))
        texts = [
            (f"{number} {step.label}" if number else step.label) + ("*" if step.in_noise else "")
            for number, step in enumerate(steps)
        ]
        _label(figure, axes, path, texts, obstacles=all_dots, line=path)
        return figure


def pareto_chart(
    panels: Sequence[tuple[str, Sequence[Dot]]],
    *,
    figure_name: str = "top-1",
    title: str = "Accuracy against cost",
    named: Collection[str] | None = None,
    styles: Mapping[str, tuple[str, str]] | None = None,
) -> Figure:
    """A panel for each cost with the networks and their Pareto front.

    Args:
        panels: (key of `COST_LABELS` or label of the cost axis, networks with that cost).
        named: names of the networks to label; default: all, or only those on the front if there are more than
            `MAX_LABELS`.
        styles: (colour, marker) of each group; default: `GROUP_STYLES` in turn.
    """
    groups = list(dict.fromkeys(dot.group for _, dots in panels for dot in dots))
    if styles is None:
        styles = {group: GROUP_STYLES[i % len(GROUP_STYLES)] for i, group in enumerate(groups)}
    with styled():
        figure = Figure(figsize=(0.6 + 4.3 * len(panels), 4.0), layout="constrained")
        for number, (cost, dots) in enumerate(panels):
            axes = figure.add_subplot(1, len(panels), number + 1)
            _draw_panel(axes, cost, dots, styles, figure_name if number == 0 else "")
        handles = [_handle(name or "other", *styles[name]) for name in groups if len(groups) > 1]
        if any(dot.ringed for _, dots in panels for dot in dots):
            handles.append(
                _handle(RING, INK, "o", markersize=10, markerfacecolor="none", markeredgecolor=INK)
            )
        if handles:
            figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 7))
        figure.suptitle(title, fontweight="bold", fontsize=11, x=0.012, ha="left")
        for axes, (_, dots) in zip(figure.axes, panels, strict=True):
            front = pareto_front([d.cost for d in dots], [d.accuracy for d in dots])
            if named is not None:
                labelled = [dot for dot in dots if dot.name in named]
            else:
                labelled = list(dots) if len(dots) <= MAX_LABELS else [dots[i] for i in front]
            line = _staircase(dots, front, axes.get_xlim()[1])
            texts = [shorten(dot.name, 26) for dot in labelled]
            _label(figure, axes, labelled, texts, obstacles=dots, line=line)
        return figure


# -------------------------------------------------------------------------------------------------- drawing


def _draw_dot(axes: Axes, dot: Dot, style: tuple[str, str], *, size: float, alpha: float = 1.0) -> None:
    colour, marker = style
    if dot.ringed:
        ring: dict[str, Any] = {"marker": "o", "markersize": size + 6, "markerfacecolor": "none"}
        axes.plot([dot.cost], [100 * dot.accuracy], linestyle="none", markeredgecolor=INK, zorder=3, **ring)
    if dot.spread:
        axes.errorbar(
            [dot.cost], [100 * dot.accuracy], yerr=[100 * dot.spread], color=colour, alpha=0.55 * alpha,
            linewidth=1.1, capsize=2.5, zorder=3,
        )  # fmt: skip
    axes.plot(
        [dot.cost],
        [100 * dot.accuracy],
        color=colour,
        marker=marker,
        markersize=size,
        markeredgecolor="white",
        markeredgewidth=0.8,
        linestyle="none",
        alpha=alpha,
        zorder=4,
    )


def _draw_rejected(axes: Axes, dot: Dot, parent: Dot | None) -> None:
    colour, marker = AXIS_STYLES.get(dot.group, (GREY, "o"))
    if parent is not None:
        ends = [parent.cost, dot.cost], [100 * parent.accuracy, 100 * dot.accuracy]
        axes.plot(*ends, color=colour, linewidth=0.8, alpha=0.3, zorder=1)
    axes.plot(
        [dot.cost],
        [100 * dot.accuracy],
        color=colour,
        marker=marker,
        markersize=5,
        markeredgewidth=0,
        linestyle="none",
        alpha=0.45,
        zorder=2,
    )


def _draw_target(axes: Axes, target: float) -> None:
    axes.axvline(target, color=GREY, linestyle=(0, (4, 3)), linewidth=1.1, zorder=1)
    axes.annotate(
        "target",
        (target, 1),
        xycoords=("data", "axes fraction"),
        xytext=(-4, -9),
        textcoords="offset points",
        color=GREY,
        fontsize=8.5,
        ha="right",
    )


def _draw_panel(
    axes: Axes, cost: str, dots: Sequence[Dot], styles: Mapping[str, tuple[str, str]], figure_name: str
) -> None:
    front = pareto_front([dot.cost for dot in dots], [dot.accuracy for dot in dots])
    _set_scales(axes, dots, cost, figure_name)
    corners = _staircase(dots, front, axes.get_xlim()[1])
    axes.plot(
        [dot.cost for dot in corners],
        [100 * dot.accuracy for dot in corners],
        color=INK,
        linewidth=1.2,
        alpha=0.8,
        zorder=2,
    )
    for index, dot in enumerate(dots):
        _draw_dot(
            axes,
            dot,
            styles[dot.group],
            size=7 if index in front else 5.5,
            alpha=1 if index in front else 0.5,
        )


def _staircase(dots: Sequence[Dot], front: Sequence[int], end: float) -> list[Dot]:
    """The corners of the line of the best accuracy up to each cost, ending at cost ``end``."""
    corners: list[Dot] = []
    for index in front:
        if corners:
            corners.append(Dot(name="", cost=dots[index].cost, accuracy=corners[-1].accuracy))
        corners.append(dots[index])
    return [*corners, Dot(name="", cost=end, accuracy=corners[-1].accuracy)]


def _set_scales(
    axes: Axes, dots: Sequence[Dot], cost: str, figure_name: str, extra: Sequence[float] = ()
) -> None:
    x = np.array([*(dot.cost for dot in dots), *extra], float)
    low = np.array([100 * (dot.accuracy - dot.spread) for dot in dots])
    high = np.array([100 * (dot.accuracy + dot.spread) for dot in dots])
    axes.set_xscale("log")
    ratio = max(x.max() / x.min(), 1.5)
    axes.set_xlim(x.min() / ratio**0.13, x.max() * ratio**0.13)
    span = max(high.max() - low.min(), 2.0)
    axes.set_ylim(max(low.min() - 0.1 * span, -2), min(high.max() + 0.2 * span, 100 + 0.2 * span))
    axes.set_xlabel(f"{COST_LABELS.get(cost, cost)}, log scale")
    if figure_name:
        axes.set_ylabel(f"{figure_name} (%)")
    ticks = _log_ticks(*axes.get_xlim())
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: plain_number(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_major_locator(MaxNLocator(7, steps=[1, 2, 2.5, 5, 10]))


def _log_ticks(low: float, high: float) -> list[float]:
    """At least four round values between the limits, about evenly spaced on a logarithmic axis."""
    if high < 4 * low:
        return [tick for tick in MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high) if tick > 0]
    for mantissas in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7)):
        decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
        ticks = [m * 10.0**d for d in decades for m in mantissas if low <= m * 10.0**d <= high]
        if len(ticks) >= 4:
            return ticks
    return list(MaxNLocator(5).tick_values(low, high))


def _axis_legend(axes: Axes, dots: Sequence[Dot], *, in_noise: bool) -> None:
    """A legend to the right of the axes."""
    present = {dot.group for dot in dots}
    handles = [_handle(name, *AXIS_STYLES[name]) for name in AXIS_STYLES if name in present - {"start"}]
    handles.append(
        Line2D([], [], color=GREY, marker="o", linestyle="none", alpha=0.45, label="faint: rejected")
    )
    if in_noise:
        handles.append(Line2D([], [], linestyle="none", label="* within noise of another"))
    axes.legend(
        handles=handles,
        loc="upper left",
        bbox_to_anchor=(1.01, 1.0),
        handletextpad=0.4,
        borderaxespad=0.0,
        labelspacing=0.35,
    )


def _handle(label: str, colour: str, marker: str, **style: Any) -> Line2D:
    filled = {"markersize": 6.5, "markeredgecolor": "white"}
    return Line2D([], [], color=colour, marker=marker, linestyle="none", label=label, **(style or filled))


def _label(
    figure: Figure,
    axes: Axes,
    dots: Sequence[Dot],
    texts: Sequence[str],
    *,
    obstacles: Sequence[Dot],
    line: Sequence[Dot],
) -> None:
    """Label dots without covering dots, error bars and the line."""

    def coordinates(those: Sequence[Dot], *, bars: bool = False) -> list[Point]:
        ends = (-1.0, -0.5, 0.0, 0.5, 1.0) if bars else (0.0,)
        return [(dot.cost, 100 * (dot.accuracy + end * dot.spread)) for dot in those for end in ends]

    if figure.get_layout_engine() is not None:
        FigureCanvasAgg(figure)
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    avoid = coordinates(obstacles, bars=True)
    place_labels(axes, coordinates(dots), texts, obstacles=avoid, line=coordinates(line), leader_colour=GREY)


# ------------------------------------------------------------------------------------------- label placement


Point = tuple[float, float]

_ANGLES = (135, 90, 180, 45, 225, 270, 0, 315)  # in order of preference: above and left first
_DISTANCES = (8.0, 16.0, 26.0, 40.0)  # points from the centre of the dot to the nearest edge of the text
_DOT = 9.0  # width of the square around a dot that labels avoid, in pixels


def place_labels(
    axes: Axes,
    points: Sequence[Point],
    texts: Sequence[str],
    *,
    obstacles: Sequence[Point],
    line: Sequence[Point] = (),
    leader_colour: str,
    size: float = 8.5,
) -> None:
    """Write each text next to its point, at the candidate position with the lowest cost.

    Positions cost most if they leave the axes, then if they cover other labels, cover dots, are nearer to
    another dot than to their point, cover the line, or are far away. A label that is not next to its point
    gets a leader line. The layout of the figure must be final.

    Args:
        points: points to label, in data coordinates.
        obstacles: points that labels avoid, including ``points``.
        line: corners of a line that labels avoid.
        leader_colour: colour of the leader lines.
    """
    figure = axes.get_figure(root=True)
    assert isinstance(figure, Figure)
    canvas = figure.canvas
    renderer = (canvas if isinstance(canvas, FigureCanvasAgg) else FigureCanvasAgg(figure)).get_renderer()
    scale = figure.dpi / 72
    dots = axes.transData.transform(np.asarray(obstacles, float).reshape(-1, 2))
    centres = axes.transData.transform(np.asarray(points, float).reshape(-1, 2))
    path = _densify(axes.transData.transform(np.asarray(line, float).reshape(-1, 2)))
    inside, legend = axes.get_window_extent(renderer), axes.get_legend()
    taken = [] if legend is None else [np.array(legend.get_window_extent(renderer).extents)]
    for point, centre, text in zip(points, centres, texts, strict=True):
        note = axes.annotate(text, point, xytext=(0, 0), textcoords="offset points", fontsize=size, zorder=6)
        extent = note.get_window_extent(renderer)
        positions = _label_positions(centre, extent.width, extent.height, scale)
        costs = [
            0.6 * rank
            + _cost(box, dots, path, taken, np.array(inside.extents))
            + (10.0 if _is_nearer_to_another(box, centre, centres) else 0.0)
            for rank, (_, box) in enumerate(positions)
        ]
        distance, box = positions[int(np.argmin(costs))]
        taken.append(box)
        note.set_position(tuple((box[:2] - centre) / scale))
        note.set_horizontalalignment("left")
        note.set_verticalalignment("bottom")
        if distance >= _DISTANCES[1]:
            _draw_leader(axes, centre, box, leader_colour)


def _label_positions(
    centre: NDArray[np.float64], width: float, height: float, scale: float
) -> list[tuple[float, NDArray]]:
    """Candidate positions of a text, best first: (distance in points, box in pixels)."""
    return [
        (distance, _box(centre, angle, distance * scale, width, height))
        for distance in _DISTANCES
        for angle in _ANGLES
    ]


def _box(centre: NDArray[np.float64], angle: float, distance: float, width: float, height: float) -> NDArray:
    """(left, bottom, right, top) of a text at this angle and distance from a point, in pixels."""
    x, y = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    left = centre[0] + distance * x - width * (1 - np.sign(np.round(x, 6))) / 2
    bottom = centre[1] + distance * y - height * (1 - np.sign(np.round(y, 6))) / 2
    return np.array([left, bottom, left + width, bottom + height])


def _cost(
    box: NDArray[np.float64],
    dots: NDArray[np.float64],
    path: NDArray[np.float64],
    taken: Sequence[NDArray[np.float64]],
    inside: NDArray[np.float64],
) -> float:
    low, high = box[:2], box[2:]
    covered = np.all((dots > low - _DOT / 2) & (dots < high + _DOT / 2), axis=1).sum() if len(dots) else 0
    crossed = np.all((path > low - 1) & (path < high + 1), axis=1).sum() if len(path) else 0
    others = sum(bool(np.all(low < other[2:] + 2) and np.all(high > other[:2] - 2)) for other in taken)
    outside = bool(np.any(low < inside[:2] - 2) or np.any(high > inside[2:] + 14))
    return 40.0 * others + 14.0 * covered + (6.0 + 0.4 * crossed if crossed else 0.0) + 60.0 * outside


def _is_nearer_to_another(
    box: NDArray[np.float64], centre: NDArray[np.float64], centres: NDArray[np.float64]
) -> bool:
    distances = np.hypot(*(np.clip(centres, box[:2], box[2:]) - centres).T)
    distance = np.hypot(*(np.clip(centre, box[:2], box[2:]) - centre))
    return bool(np.any(distances < distance - 1e-6))


def _densify(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points every few pixels along a line."""
    parts = [
        start + (end - start) * np.linspace(0, 1, max(2, int(np.hypot(*(end - start)) / 4)))[:, None]
        for start, end in pairwise(corners)
    ]
    return np.concatenate(parts) if parts else corners


def _draw_leader(axes: Axes, centre: NDArray[np.float64], box: NDArray[np.float64], colour: str) -> None:
    """Draw a thin line from a dot to the nearest point of its label."""
    end = np.clip(centre, box[:2], box[2:])
    inverse = axes.transData.inverted()
    (x0, y0), (x1, y1) = inverse.transform(centre), inverse.transform(end)
    axes.plot([x0, x1], [y0, y1], color=colour, linewidth=0.9, zorder=1.5, scalex=False, scaley=False)
