"""The learned shifts of each layer of a RubiksNet, in time and space."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LinearSegmentedColormap, Normalize, PowerNorm
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from saccade.errors import UsageError
from saccade.layers import AttentionShift, RubiksShift2d, RubiksShift3d
from saccade.visualize.charts import BLUE, GREY, INK, LINE, ORANGE, styled

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TIME_COLOURS = LinearSegmentedColormap.from_list("time", [BLUE, "#c3c8cf", ORANGE])
_FRACTION_COLOURS = LinearSegmentedColormap.from_list("fraction", ["#ffffff", "#9dc3d6", "#1d5a78", INK])
_NUM_BINS = 41

Shifts = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LayerShifts:
    """The shifts of one layer.

    Attributes:
        name: name of the block.
        time: (C,), shift in frames; a positive shift reads later frames. The mean shift for `AttentionShift`.
        space: (2, C'), shift in pixels, down and right; a positive shift reads from below and from the right.
        paired: whether ``time[c]`` and ``space[:, c]`` belong to the same channel.
    """

    name: str
    time: Shifts
    space: Shifts
    paired: bool

    def summary(self) -> dict[str, Any]:
        """Fractions of channels that shift by at least half a frame, and mean and maximum shifts."""
        radius = np.hypot(*self.space)
        return {
            "layer": self.name,
            "channels": int(self.space.shape[1]),
            "earlier": float((self.time <= -0.5).mean()),
            "later": float((self.time >= 0.5).mean()),
            "mean_frames": float(np.abs(self.time).mean()),
            "most_frames": float(np.abs(self.time).max()),
            "mean_pixels": float(radius.mean()),
            "most_pixels": float(radius.max()),
        }

    def to_dict(self) -> dict[str, Any]:
        """The summary and every channel's shift, as plain values."""
        values = {"time": self.time.round(4).tolist(), "space": self.space.round(4).tolist()}
        return {**self.summary(), "paired": self.paired, **values}


def learned_shifts(model: nn.Module) -> list[LayerShifts]:
    """The shifts of all layers of a model, in order.

    Raises:
        UsageError: the model has no learned shifts.
    """
    modules = dict(model.named_modules())
    layers = []
    for name, module in modules.items():
        block = name.rpartition(".")[0]
        if isinstance(module, RubiksShift3d):
            shift = _array(module.shift)
            layers.append(LayerShifts(block, shift[0], shift[1:], paired=True))
        elif isinstance(module, RubiksShift2d):
            temporal = modules.get(f"{block}.time")
            time = _mean_offset(temporal) if isinstance(temporal, AttentionShift) else np.zeros(1)
            layers.append(LayerShifts(block, time, _array(module.shift), paired=False))
    if not layers:
        name = getattr(model, "model_name", type(model).__name__)
        raise UsageError(f"{name} has no learned shifts; only RubiksNet has (saccade models 'rubiks*')")
    return layers


def shift_chart(layers: Sequence[LayerShifts], *, title: str = "Learned shifts") -> Figure:
    """A chart of the shifts of all layers.

    The top panel has a histogram of the temporal shifts for each layer. Below, each layer has a scatter plot
    of the spatial shifts of its channels in pixels, coloured by their temporal shift if channels have both.
    """
    columns = min(len(layers), 6 if len(layers) <= 24 else 9)
    rows = ceil(len(layers) / columns)
    paired = any(layer.paired for layer in layers)
    max_shift = max(1.0, *(float(np.abs(layer.time).max()) for layer in layers))
    with styled():
        figure = Figure(figsize=(1.55 * columns + 1.2, 2.3 + 1.6 * rows + 0.5), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        parts: Any = figure.subfigures(2, 1, height_ratios=[2.3, 1.6 * rows + 0.5])
        top, bottom = parts
        _time_panel(top, layers, max_shift)
        norm = Normalize(-max_shift, max_shift)
        axes = bottom.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for index, panel in enumerate(axes.flat):
            if index < len(layers):
                _space_panel(panel, layers[index], norm)
            else:
                panel.set_visible(False)
        _space_labels(axes, layers)
        if paired:
            bar = bottom.colorbar(
                ScalarMappable(norm, _TIME_COLOURS), ax=axes, shrink=0.7, aspect=30, pad=0.015
            )
            bar.outline.set_visible(False)
            bar.set_label("frames (< 0: earlier, > 0: later)")
        return figure


def _time_panel(figure: Any, layers: Sequence[LayerShifts], max_shift: float) -> None:
    axes = figure.subplots()
    edges = np.linspace(-max_shift, max_shift, _NUM_BINS + 1)
    fractions = np.stack([np.histogram(layer.time, edges)[0] / len(layer.time) for layer in layers], axis=1)
    columns, norm = np.arange(len(layers) + 1) - 0.5, PowerNorm(0.5, 0, fractions.max())
    mesh = axes.pcolormesh(columns, edges, fractions, cmap=_FRACTION_COLOURS, norm=norm)
    axes.grid(visible=False)
    axes.axhline(0, color=GREY, linewidth=0.6)
    stages = [layer.name.split(".")[0] for layer in layers]
    starts = [i for i, stage in enumerate(stages) if i == 0 or stage != stages[i - 1]]
    for start in starts[1:]:
        axes.axvline(start - 0.5, color=GREY, linewidth=0.6)
    ends = [*starts[1:], len(layers)]
    axes.set_xticks(
        [(start + end - 1) / 2 for start, end in zip(starts, ends, strict=True)],
        [stages[start] for start in starts],
    )
    axes.set(title="Shift in time by depth", ylabel="frames")
    bar = figure.colorbar(mesh, ax=axes, pad=0.015, aspect=14)
    bar.outline.set_visible(False)
    bar.set_label("fraction of channels")


def _space_panel(axes: Axes, layer: LayerShifts, norm: Normalize) -> None:
    axes.axhline(0, color=LINE, linewidth=0.8, zorder=0)
    axes.axvline(0, color=LINE, linewidth=0.8, zorder=0)
    height, width = layer.space
    size = float(np.clip(900 / len(height), 2.0, 14.0))
    if layer.paired:
        order = np.argsort(np.abs(layer.time))  # largest temporal shifts on top
        axes.scatter(
            width[order],
            height[order],
            c=layer.time[order],
            cmap=_TIME_COLOURS,
            norm=norm,
            s=size,
            linewidths=0,
            alpha=0.85,
        )
    else:
        axes.scatter(width, height, color=BLUE, s=size, linewidths=0, alpha=0.5)
    axes.set_title(layer.name, fontsize=8.5, pad=3, fontweight="normal")
    axes.grid(visible=False)
    axes.tick_params(labelsize=7.5)
    axes.set_aspect("equal")


def _space_labels(axes: NDArray[Any], layers: Sequence[LayerShifts]) -> None:
    limit = max(1.0, *(float(np.abs(layer.space).max()) for layer in layers)) * 1.08
    axes[0, 0].set_xlim(-limit, limit)
    axes[0, 0].set_ylim(limit, -limit)  # downwards, as rows of an image
    axes[-1, 0].set_xlabel("pixels to the right", fontsize=8.5)
    axes[-1, 0].set_ylabel("pixels down", fontsize=8.5)


def _array(values: Tensor) -> Shifts:
    return values.detach().double().cpu().numpy()


def _mean_offset(layer: AttentionShift) -> Shifts:
    with torch.no_grad():
        taps = layer.taps()
    return _array(taps[:, 2] - taps[:, 0])
