"""The learned shifts of a RubiksNet, layer by layer, in time and space."""

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
_SHARE_COLOURS = LinearSegmentedColormap.from_list("share", ["#ffffff", "#9dc3d6", "#1d5a78", INK])
_NUM_BINS = 41

Shifts = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LayerShifts:
    """The shifts of one layer.

    Attributes:
        name: the block's name in the network.
        time: frames per channel (C,); above 0 reads later frames. Of a soft choice of frames, its mean.
        space: pixels per channel (2, C'), rows H and W; above 0 reads from below and from the right.
        paired: channel c has time[c] and space[:, c]. Else the two belong to different channels.
    """

    name: str
    time: Shifts
    space: Shifts
    paired: bool

    def summary(self) -> dict[str, Any]:
        """Shares of channels that read a frame at least half a frame earlier or later; distances."""
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
    """The shifts of every layer of ``model`` in the order of the network.

    Raises:
        UsageError: it has none.
    """
    modules = dict(model.named_modules())
    layers = []
    for name, module in modules.items():
        block = name.rpartition(".")[0]
        if isinstance(module, RubiksShift3d):
            shift = _array(module.shift)
            layers.append(LayerShifts(block, shift[0], shift[1:], paired=True))
        elif isinstance(module, RubiksShift2d):
            choice = modules.get(f"{block}.time")
            time = _mean_offset(choice) if isinstance(choice, AttentionShift) else np.zeros(1)
            layers.append(LayerShifts(block, time, _array(module.shift), paired=False))
    if not layers:
        kind = getattr(model, "model_name", type(model).__name__)
        raise UsageError(f"{kind} has no learned shifts; those of RubiksNet do (saccade models 'rubiks*')")
    return layers


def shift_chart(layers: Sequence[LayerShifts], *, title: str = "Learned shifts") -> Figure:
    """One picture of all layers: how their temporal shifts are spread, and a panel each for space.

    On top, a column per layer from the stem to the head: dark where many channels have that shift in time.
    Below, a panel per layer: a dot per channel where it reads, in pixels from where it stands (the cross);
    its colour is its shift in time, as far as one channel has both.
    """
    columns = min(len(layers), 6 if len(layers) <= 24 else 9)
    rows = ceil(len(layers) / columns)
    paired = any(layer.paired for layer in layers)
    furthest = max(1.0, *(float(np.abs(layer.time).max()) for layer in layers))
    with styled():
        figure = Figure(figsize=(1.55 * columns + 1.2, 2.3 + 1.6 * rows + 0.5), layout="constrained")
        figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
        parts: Any = figure.subfigures(2, 1, height_ratios=[2.3, 1.6 * rows + 0.5])
        top, bottom = parts
        _time_panel(top, layers, furthest)
        norm = Normalize(-furthest, furthest)
        axes = bottom.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for place, panel in enumerate(axes.flat):
            if place < len(layers):
                _space_panel(panel, layers[place], norm)
            else:
                panel.set_visible(False)
        _space_labels(axes, layers)
        if paired:
            bar = bottom.colorbar(
                ScalarMappable(norm, _TIME_COLOURS), ax=axes, shrink=0.7, aspect=30, pad=0.015
            )
            bar.outline.set_visible(False)
            bar.set_label("frames: earlier below 0, later above")
        return figure


def _time_panel(figure: Any, layers: Sequence[LayerShifts], furthest: float) -> None:
    axes = figure.subplots()
    edges = np.linspace(-furthest, furthest, _NUM_BINS + 1)
    shares = np.stack([np.histogram(layer.time, edges)[0] / len(layer.time) for layer in layers], axis=1)
    places = np.arange(len(layers) + 1) - 0.5
    mesh = axes.pcolormesh(places, edges, shares, cmap=_SHARE_COLOURS, norm=PowerNorm(0.5, 0, shares.max()))
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
        order = np.argsort(np.abs(layer.time))  # what moves most in time lies on top
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
    reach = max(1.0, *(float(np.abs(layer.space).max()) for layer in layers)) * 1.08
    axes[0, 0].set_xlim(-reach, reach)
    axes[0, 0].set_ylim(reach, -reach)  # rows are counted downwards, as in the picture
    axes[-1, 0].set_xlabel("pixels to the right", fontsize=8.5)
    axes[-1, 0].set_ylabel("pixels down", fontsize=8.5)


def _array(values: Tensor) -> Shifts:
    return values.detach().double().cpu().numpy()


def _mean_offset(choice: AttentionShift) -> Shifts:
    with torch.no_grad():
        taps = choice.taps()
    return _array(taps[:, 2] - taps[:, 0])
