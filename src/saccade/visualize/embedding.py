"""A map of clips by their features: similar ones lie together.

`write_embedding` makes a page to look into, in a single file without anything from the network, and
`embedding_chart` a picture to print.
"""

from __future__ import annotations

import colorsys
import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from saccade.errors import UsageError, VideoError
from saccade.files import write_text
from saccade.progress import Progress, ignore
from saccade.video import open_video
from saccade.visualize.charts import GREY, INK, shorten, styled
from saccade.visualize.pages import render_page
from saccade.visualize.sheets import data_uri

_FRAMES, _HEIGHT = 6, 72  # of a clip's film in the page: how many, pixels
_NEIGHBOURS = 5
# fmt: off
_COLOURS = (
    "#2f6fde", "#e8762d", "#149b84", "#b04fc4", "#c2a11a", "#d6425f",
    "#5b7f1e", "#7a6ff0", "#17a2b8", "#8c5a2b", "#e05fa8", "#4b6584",
)
# fmt: on


@dataclass(frozen=True, eq=False)
class Embedding:
    """Clips as points of two-dimensional maps.

    Attributes:
        paths: the videos (N).
        labels: class of each, -1 for none; class_names: in label order.
        guesses: class that the model gives each, -1 for none; scores: of that class, 0..1.
        maps: name of a method -> float (N, 2).
        notes: name of a method -> a note on its axes.
        neighbours: int (N, 5), the clips with the nearest features, nearest first, and by
            ``neighbour_accuracy`` the fraction of clips whose nearest clip is of the same class.
    """

    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    guesses: NDArray[np.int64]
    scores: NDArray[np.float32]
    maps: dict[str, NDArray[np.float64]]
    notes: dict[str, str]
    neighbours: NDArray[np.int64]
    neighbour_accuracy: float


def embed(
    features: NDArray[np.float32],
    paths: Sequence[str],
    labels: Sequence[int],
    class_names: Sequence[str],
    *,
    scores: NDArray[np.float32] | None = None,
    perplexity: float = 30.0,
) -> Embedding:
    """Map features (N, D) by t-SNE and by their principal components.

    Distances are those of features of length 1: the direction depends on what a clip shows, the length
    rather on how confident the network is.

    Args:
        scores: the model's, float (N, num_classes), if it has classes.
        perplexity: of t-SNE; of few clips at most a fifth of them.
    """
    points = torch.from_numpy(np.asarray(features, np.float64))
    points = points / points.norm(dim=1, keepdim=True).clamp(min=1e-12)
    axes, shares = principal_components(points)
    own = min(perplexity, max(1.0, (len(points) - 1) / 5))
    nearest = _nearest(points)
    truth = np.asarray(labels, np.int64)
    known = truth >= 0
    hits = truth[nearest[:, 0]] == truth if nearest.size else np.zeros(len(truth), bool)
    has_scores = scores is not None and scores.shape[1] > 0
    guesses = scores.argmax(1) if has_scores and scores is not None else np.full(len(truth), -1)
    return Embedding(
        paths=tuple(paths),
        labels=truth,
        class_names=tuple(class_names),
        guesses=np.asarray(guesses, np.int64),
        scores=scores.max(1) if has_scores and scores is not None else np.zeros(len(truth), np.float32),
        maps={"t-SNE": tsne(points, perplexity=own).numpy(), "PCA": axes.numpy()},
        notes={
            "t-SNE": f"perplexity {own:.3g}: near points are similar, large distances mean little",
            "PCA": f"the two axes explain {shares[0]:.0%} and {shares[1]:.0%} of the variance",
        },
        neighbours=nearest,
        neighbour_accuracy=float(hits[known].mean()) if known.any() and nearest.size else float("nan"),
    )


def _nearest(points: torch.Tensor) -> NDArray[np.int64]:
    squares = squared_distances(points).fill_diagonal_(float("inf"))
    order = squares.argsort(dim=1, stable=True)[:, : min(_NEIGHBOURS, len(points) - 1)]
    nearest: NDArray[np.int64] = order.numpy()
    return nearest


def class_colours(num: int) -> list[str]:
    """A colour for each class: ones that are easy to tell apart for twelve, then hues all around."""
    if num <= len(_COLOURS):
        return list(_COLOURS[:num])
    around = []
    for place in range(num):
        red, green, blue = colorsys.hls_to_rgb(
            (place * 0.618034) % 1, (0.42, 0.56, 0.36)[place % 3], (0.62, 0.5)[place % 2]
        )
        around.append(f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}")
    return around


def embedding_chart(found: Embedding, method: str = "t-SNE", *, title: str, subtitle: str = "") -> Figure:
    """The map as a picture: a dot for each clip, ringed where the predicted class is wrong."""
    places = found.maps[method]
    colours = class_colours(len(found.class_names))
    present = [label for label in range(len(found.class_names)) if (found.labels == label).any()]
    wrong = (found.guesses >= 0) & (found.labels >= 0) & (found.guesses != found.labels)
    columns = -(-len(present) // 20) if len(present) <= 40 else 0  # of the legend
    width, height = 6.1 + 2.15 * columns, 6.1
    with styled():
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((0.15 / width, 0.15 / height, 6 / width, 5.3 / height))
        size = float(np.clip(9000 / max(len(places), 1), 12, 46))
        for label in [*present, -1]:
            own = found.labels == label
            if own.any():
                name = found.class_names[label] if label >= 0 else "no label"
                colour = colours[label] if label >= 0 else GREY
                axes.scatter(
                    places[own, 0], places[own, 1], size, color=colour, linewidths=0, alpha=0.85, label=name
                )
        if wrong.any():
            ring: dict[str, Any] = {"facecolors": "none", "edgecolors": INK, "linewidths": 1.1}
            axes.scatter(places[wrong, 0], places[wrong, 1], 2.1 * size, label="misclassified", **ring)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(visible=False)
        axes.spines[:].set_visible(False)
        axes.set_aspect("equal", adjustable="datalim")
        axes.margins(0.05)
        figure.text(0.15 / width, 1 - 0.1 / height, title, fontsize=14, fontweight="bold", va="top")
        figure.text(0.15 / width, 1 - 0.4 / height, subtitle, fontsize=10.5, color=GREY, va="top")
        if columns:
            handles, names = axes.get_legend_handles_labels()
            figure.legend(
                handles,
                [shorten(name, 20) for name in names],
                loc="center left",
                bbox_to_anchor=(6.2 / width, 0.46),
                ncols=columns,
                fontsize=10.5,
                handletextpad=0.2,
                labelspacing=0.35,
                columnspacing=1.0,
            )
        return figure


def write_embedding(
    found: Embedding,
    out: str | os.PathLike[str],
    *,
    title: str,
    subtitle: str = "",
    progress: Progress | None = None,
) -> Path:
    """Write the page: hover over a dot to see its clip, click to play it beside its nearest neighbours.

    The clips are in the page, as six small frames each, and play without the files. Where the file is still
    at its place, seen from the page, and the browser can play it, it is played itself.

    Args:
        progress: called with (clips read, clips in all).

    Raises:
        OSError: the page cannot be written.
    """
    target = Path(out)
    data = page_data(found, target.parent, progress)
    page = render_page(
        "saccade.visualize",
        "embedding.html",
        title=title,
        subtitle=subtitle,
        accuracy=_percent(found.neighbour_accuracy),
        methods=[(name, found.notes[name]) for name in found.maps],
        data=_script_json(data),
    )
    write_text(target, page)
    return target


def page_data(found: Embedding, folder: Path, progress: Progress | None = None) -> dict[str, Any]:
    """All that the page shows, as plain values."""
    progress, clips = progress or ignore, []
    for place, path in enumerate(found.paths):
        clips.append(
            {
                "file": Path(path).name,
                "src": _address(path, folder),
                "film": _film(path),
                "label": int(found.labels[place]),
                "guess": int(found.guesses[place]),
                "score": round(float(found.scores[place]), 3),
                "near": found.neighbours[place].tolist(),
            }
        )
        progress(place + 1, len(found.paths))
    return {
        "classes": list(found.class_names),
        "colours": class_colours(len(found.class_names)),
        "maps": {name: _unit_square(places).round(4).tolist() for name, places in found.maps.items()},
        "frames": _FRAMES,
        "clips": clips,
    }


def _film(path: str) -> str:
    """Six frames beside each other as a data: address; empty where the video cannot be read any more."""
    try:
        with open_video(path, short_side=_HEIGHT) as reader:
            places = (np.arange(_FRAMES) + 0.5) * len(reader) / _FRAMES
            frames = reader.frames([int(place) for place in places]).numpy()
    except VideoError:
        return ""
    height, width = frames.shape[1:3]
    width = min(width, 2 * _HEIGHT)
    left = (frames.shape[2] - width) // 2
    cut = frames[:, :, left : left + width]
    cut = cut[:, (height - min(height, _HEIGHT)) // 2 :][:, :_HEIGHT]
    return data_uri(Image.fromarray(np.concatenate(list(cut), axis=1)), quality=62)


def _address(path: str, folder: Path) -> str:
    """Where the page finds a file: relative, so that a folder can be moved as a whole."""
    try:
        relative = os.path.relpath(Path(path).resolve(), folder.resolve())
    except ValueError:  # another drive
        return Path(path).resolve().as_uri()
    return "/".join(_quoted(part) for part in Path(relative).parts)


def _quoted(part: str) -> str:
    from urllib.parse import quote

    return quote(part)


def _unit_square(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """Moved and scaled into 0..1, both axes alike, centred."""
    low, high = places.min(0), places.max(0)
    reach = float((high - low).max()) or 1.0
    return (places - (low + high) / 2) / reach + 0.5


def _script_json(value: Any) -> str:
    """JSON that may stand in a script element."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share == share else ""


# ------------------------------------------------------------------------------------------------------ t-SNE
#
# Van der Maaten & Hinton 2008, "Visualizing Data using t-SNE", JMLR 9. This is the exact algorithm: all
# pairs of points, at a cost that grows with their square. It starts from the principal components, as Kobak
# & Berens 2019 ("The art of using t-SNE for single-cell transcriptomics") advise, so that every call gives
# the same map and large distances keep some meaning.


_EXAGGERATION = 12.0  # of closeness, at the beginning
_EARLY = 250  # steps of it
_SEARCH = 64  # halvings of the search for a width


def principal_components(points: Tensor, num: int = 2) -> tuple[Tensor, Tensor]:
    """The coordinates of points (N, D) on their first ``num`` principal axes, and each axis's fraction of the
    variance: (N, num), (num,).

    An axis points to where its largest coordinate is, so that the sign is no matter of chance. Where there
    are fewer axes, coordinates are 0.
    """
    centred = points.double() - points.double().mean(0)
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)
    axes = u[:, :num] * s[:num]
    signs = axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    axes = axes * torch.where(signs == 0, torch.ones_like(signs), signs)
    shares = s[:num] ** 2 / (s**2).sum().clamp(min=1e-300)
    missing = num - axes.shape[1]
    pad = torch.nn.functional.pad
    return pad(axes, (0, missing)), pad(shares, (0, missing))


def tsne(points: Tensor, *, perplexity: float = 30.0, steps: int = 1000) -> Tensor:
    """t-SNE of points (N, D) on a plane: float64 (N, 2), the same at every call.

    Args:
        perplexity: about how many neighbours count for each point; of few points at most a third of them.
        steps: of gradient descent.

    Raises:
        UsageError: the perplexity is below 1, or there are no points.
    """
    if len(points) == 0:
        raise UsageError("there are no points to map")
    if perplexity < 1:
        raise UsageError(f"perplexity must be at least 1, got {perplexity:g}")
    places, _ = principal_components(points)
    if len(points) < 4:
        return places
    closeness = joint_closeness(points, min(perplexity, (len(points) - 1) / 3))
    y = places * (1e-4 / places[:, 0].std().clamp(min=1e-300))
    speed, gain = torch.zeros_like(y), torch.ones_like(y)
    rate = max(len(points) / _EXAGGERATION, 50.0)  # Belkina et al. 2019
    for step in range(steps):
        early = step < _EARLY
        gradient = _gradient(y, closeness * (_EXAGGERATION if early else 1.0))
        turned = speed.sign() != gradient.sign()
        gain = torch.where(turned, gain + 0.2, gain * 0.8).clamp(min=0.01)
        speed = (0.5 if early else 0.8) * speed - rate * gain * gradient
        y = y + speed
        y = y - y.mean(0)
    return y


def joint_closeness(points: Tensor, perplexity: float) -> Tensor:
    """How close each pair of points (N, D) is, by equation 1 of the paper made symmetric: (N, N), of sum 1.

    Around each point stands a Gaussian, just so wide that the entropy of what it gives the others is the
    logarithm of ``perplexity``.
    """
    squares = squared_distances(points.double())
    n = len(squares)
    squares = squares / squares.mean().clamp(min=1e-300)
    squares.fill_diagonal_(math.inf)  # nothing is close to itself
    low, high = squares.new_zeros(n, 1), squares.new_full((n, 1), math.inf)
    sharpness = squares.new_ones(n, 1)
    nearest = squares.amin(1, keepdim=True)
    for _ in range(_SEARCH):
        shares = torch.exp(-(squares - nearest) * sharpness)
        shares = shares / shares.sum(1, keepdim=True)
        entropy = -(shares * shares.clamp(min=1e-300).log()).sum(1, keepdim=True)
        wide = entropy > math.log(perplexity)
        low, high = torch.where(wide, sharpness, low), torch.where(wide, high, sharpness)
        sharpness = torch.where(high.isinf(), 2 * sharpness, (low + high) / 2)
    return (shares + shares.T) / (2 * n)


def squared_distances(points: Tensor) -> Tensor:
    """Of every pair: (N, N), 0 on the diagonal."""
    norms = (points**2).sum(1)
    squares = (norms[:, None] + norms - 2 * points @ points.T).clamp(min=0)
    return squares.fill_diagonal_(0)


def divergence(y: Tensor, closeness: Tensor) -> Tensor:
    """What t-SNE minimises: the Kullback-Leibler divergence of how close points are on the plane (N, 2)."""
    near = _kernel(y)
    on_plane = near / near.sum()
    filled = closeness > 0
    return (closeness[filled] * (closeness[filled] / on_plane[filled]).log()).sum()


def _gradient(y: Tensor, closeness: Tensor) -> Tensor:
    """Equation 5 of the paper."""
    near = _kernel(y)
    pull = (closeness - near / near.sum()) * near
    return 4 * (pull.sum(1, keepdim=True) * y - pull @ y)


def _kernel(y: Tensor) -> Tensor:
    return (1 / (1 + squared_distances(y))).fill_diagonal_(0)
