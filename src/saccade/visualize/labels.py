"""Names beside points, where they hide neither points nor lines nor each other."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Place = tuple[float, float]

_ANGLES = (135, 90, 180, 45, 225, 270, 0, 315)  # the first that is free is taken: above and left
_DISTANCES = (8.0, 16.0, 26.0, 40.0)  # points from the middle of the dot to the nearest edge of the text
_DOT = 9.0  # pixels on each side of a dot's middle that a name keeps off, at 100 dpi


def place_labels(
    axes: Axes,
    places: Sequence[Place],
    texts: Sequence[str],
    *,
    obstacles: Sequence[Place],
    line: Sequence[Place] = (),
    lines_colour: str,
    size: float = 8.5,
) -> None:
    """Write each text beside its place, in data coordinates, at the free spot nearest to it.

    What makes a spot bad is what it would cover, other names most, then dots and the line; that it is outside
    the axes, nearer to another dot than to its own, or far. A name that had to move away gets a thin line to
    its dot. The figure's layout must be final.

    Args:
        obstacles: dots that names keep off, those of the places included.
        line: corners of a line that names had better not cross.
        lines_colour: of the thin lines.
    """
    figure = axes.get_figure(root=True)
    assert isinstance(figure, Figure)
    canvas = figure.canvas
    renderer = (canvas if isinstance(canvas, FigureCanvasAgg) else FigureCanvasAgg(figure)).get_renderer()
    scale = figure.dpi / 72
    dots = axes.transData.transform(np.asarray(obstacles, float).reshape(-1, 2))
    named = axes.transData.transform(np.asarray(places, float).reshape(-1, 2))
    path = _dense(axes.transData.transform(np.asarray(line, float).reshape(-1, 2)))
    inside, legend = axes.get_window_extent(renderer), axes.get_legend()
    taken = [] if legend is None else [np.array(legend.get_window_extent(renderer).extents)]
    for place, middle, text in zip(places, named, texts, strict=True):
        note = axes.annotate(text, place, xytext=(0, 0), textcoords="offset points", fontsize=size, zorder=6)
        extent = note.get_window_extent(renderer)
        spots = _spots(middle, extent.width, extent.height, scale)
        costs = [
            0.6 * rank
            + _cost(box, dots, path, taken, np.array(inside.extents))
            + (10.0 if _is_nearer_to_another(box, middle, named) else 0.0)
            for rank, (_, box) in enumerate(spots)
        ]
        distance, box = spots[int(np.argmin(costs))]
        taken.append(box)
        note.set_position(tuple((box[:2] - middle) / scale))
        note.set_horizontalalignment("left")
        note.set_verticalalignment("bottom")
        if distance >= _DISTANCES[1]:
            _leader(axes, middle, box, lines_colour)


def _spots(
    middle: NDArray[np.float64], width: float, height: float, scale: float
) -> list[tuple[float, NDArray]]:
    """Where a text of that size may stand, best first: its distance in points, its box in pixels."""
    return [
        (distance, _box(middle, angle, distance * scale, width, height))
        for distance in _DISTANCES
        for angle in _ANGLES
    ]


def _box(middle: NDArray[np.float64], angle: float, distance: float, width: float, height: float) -> NDArray:
    """(left, bottom, right, top) of a text seen at that angle and distance from a point, all in pixels."""
    x, y = np.cos(np.radians(angle)), np.sin(np.radians(angle))
    left = middle[0] + distance * x - width * (1 - np.sign(np.round(x, 6))) / 2
    bottom = middle[1] + distance * y - height * (1 - np.sign(np.round(y, 6))) / 2
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
    box: NDArray[np.float64], middle: NDArray[np.float64], named: NDArray[np.float64]
) -> bool:
    distances = np.hypot(*(np.clip(named, box[:2], box[2:]) - named).T)
    own = np.hypot(*(np.clip(middle, box[:2], box[2:]) - middle))
    return bool(np.any(distances < own - 1e-6))


def _dense(corners: NDArray[np.float64]) -> NDArray[np.float64]:
    """Points every few pixels along a line."""
    parts = [
        start + (end - start) * np.linspace(0, 1, max(2, int(np.hypot(*(end - start)) / 4)))[:, None]
        for start, end in pairwise(corners)
    ]
    return np.concatenate(parts) if parts else corners


def _leader(axes: Axes, middle: NDArray[np.float64], box: NDArray[np.float64], colour: str) -> None:
    """A thin line from the dot to the nearest point of its name."""
    end = np.clip(middle, box[:2], box[2:])
    inverse = axes.transData.inverted()
    (x0, y0), (x1, y1) = inverse.transform(middle), inverse.transform(end)
    axes.plot([x0, x1], [y0, y1], color=colour, linewidth=0.9, zorder=1.5, scalex=False, scaley=False)
