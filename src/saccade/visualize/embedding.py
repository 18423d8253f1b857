"""Two-dimensional maps of clips by their features, as t-SNE and principal components.

`write_embedding` writes an interactive page, a single file that loads nothing from the network;
`embedding_chart` draws an image.
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
from urllib.parse import quote

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

_FRAMES, _HEIGHT = 6, 72  # number and height of a clip's frames in the page
_NEIGHBOURS = 5
# fmt: off
_COLOURS = (
    "#2f6fde", "#e8762d", "#149b84", "#b04fc4", "#c2a11a", "#d6425f",
    "#5b7f1e", "#7a6ff0", "#17a2b8", "#8c5a2b", "#e05fa8", "#4b6584",
)
# fmt: on


@dataclass(frozen=True, eq=False)
class Embedding:
    """Clips as points in two dimensions.

    Attributes:
        paths: N videos.
        labels: (N,), class of each clip, -1 for none.
        class_names: names of the classes, in label order.
        predictions: (N,), class predicted by the model, -1 for none.
        scores: (N,), score of the predicted class, 0..1.
        maps: method -> float (N, 2).
        notes: method -> note on its axes.
        neighbours: int (N, 5), the clips with the nearest features, nearest first.
        neighbour_accuracy: fraction of clips whose nearest clip has the same class.
    """

    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    predictions: NDArray[np.int64]
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
    """Map features (N, D) with t-SNE and their principal components.

    Features are normalised to length 1: their direction depends on the content of a clip, their length mostly
    on the confidence of the network.

    Args:
        scores: scores of the model (N, num_classes), if it has classes.
        perplexity: perplexity of t-SNE, limited to a fifth of the number of clips.
    """
    points = torch.from_numpy(np.asarray(features, np.float64))
    points = points / points.norm(dim=1, keepdim=True).clamp(min=1e-12)
    components, variances = principal_components(points)
    perplexity = min(perplexity, max(1.0, (len(points) - 1) / 5))
    nearest = _nearest(points)
    truth = np.asarray(labels, np.int64)
    known = truth >= 0
    hits = truth[nearest[:, 0]] == truth if nearest.size else np.zeros(len(truth), bool)
    if scores is None or not scores.shape[1]:
        predictions, best = np.full(len(truth), -1), np.zeros(len(truth), np.float32)
    else:
        predictions, best = scores.argmax(1), scores.max(1)
    return Embedding(
        paths=tuple(paths),
        labels=truth,
        class_names=tuple(class_names),
        predictions=np.asarray(predictions, np.int64),
        scores=best,
        maps={"t-SNE": tsne(points, perplexity=perplexity).numpy(), "PCA": components.numpy()},
        notes={
            "t-SNE": f"perplexity {perplexity:.3g}: near points are similar, large distances mean little",
            "PCA": f"the two axes explain {variances[0]:.0%} and {variances[1]:.0%} of the variance",
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
    """A colour for each class: a fixed palette for up to twelve classes, otherwise evenly spread hues."""
    if num <= len(_COLOURS):
        return list(_COLOURS[:num])
    colours = []
    for index in range(num):
        red, green, blue = colorsys.hls_to_rgb(
            (index * 0.618034) % 1, (0.42, 0.56, 0.36)[index % 3], (0.62, 0.5)[index % 2]
        )
        colours.append(f"#{round(255 * red):02x}{round(255 * green):02x}{round(255 * blue):02x}")
    return colours


def embedding_chart(embedding: Embedding, method: str = "t-SNE", *, title: str, subtitle: str = "") -> Figure:
    """The map as an image: a dot for each clip, with a ring if its prediction is wrong."""
    x, y = embedding.maps[method].T
    colours = class_colours(len(embedding.class_names))
    labels, predictions = embedding.labels, embedding.predictions
    present = [label for label in range(len(embedding.class_names)) if (labels == label).any()]
    wrong = (predictions >= 0) & (labels >= 0) & (predictions != labels)
    columns = -(-len(present) // 20) if len(present) <= 40 else 0  # of the legend
    width, height = 6.1 + 2.15 * columns, 6.1
    with styled():
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((0.15 / width, 0.15 / height, 6 / width, 5.3 / height))
        size = float(np.clip(9000 / max(len(x), 1), 12, 46))
        for label in [*present, -1]:
            members = labels == label
            if members.any():
                name = embedding.class_names[label] if label >= 0 else "no label"
                dot: dict[str, Any] = {"color": colours[label] if label >= 0 else GREY, "linewidths": 0}
                axes.scatter(x[members], y[members], size, alpha=0.85, label=name, **dot)
        if wrong.any():
            ring: dict[str, Any] = {"facecolors": "none", "edgecolors": INK, "linewidths": 1.1}
            axes.scatter(x[wrong], y[wrong], 2.1 * size, label="misclassified", **ring)
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
    embedding: Embedding,
    out: str | os.PathLike[str],
    *,
    title: str,
    subtitle: str = "",
    progress: Progress | None = None,
) -> Path:
    """Write the page: hover over a dot to see its clip, click to play it next to its nearest neighbours.

    The page contains six small frames of each clip. It plays the video itself if the file exists at its path
    relative to the page and the browser supports its format.

    Args:
        progress: called with (clips read, number of clips).

    Raises:
        OSError: the page cannot be written.
    """
    target = Path(out)
    data = page_data(embedding, target.parent, progress)
    page = render_page(
        "saccade.visualize",
        "embedding.html",
        title=title,
        subtitle=subtitle,
        accuracy=_percent(embedding.neighbour_accuracy),
        methods=[(name, embedding.notes[name]) for name in embedding.maps],
        data=_script_json(data),
    )
    write_text(target, page)
    return target


def page_data(embedding: Embedding, folder: Path, progress: Progress | None = None) -> dict[str, Any]:
    """The data of the page as plain values."""
    progress, clips = progress or ignore, []
    for index, path in enumerate(embedding.paths):
        clips.append(
            {
                "file": Path(path).name,
                "src": _relative_url(path, folder),
                "frames": _frames_uri(path),
                "label": int(embedding.labels[index]),
                "prediction": int(embedding.predictions[index]),
                "score": round(float(embedding.scores[index]), 3),
                "neighbours": embedding.neighbours[index].tolist(),
            }
        )
        progress(index + 1, len(embedding.paths))
    return {
        "classes": list(embedding.class_names),
        "colours": class_colours(len(embedding.class_names)),
        "maps": {name: _unit_square(points).round(4).tolist() for name, points in embedding.maps.items()},
        "num_frames": _FRAMES,
        "clips": clips,
    }


def _frames_uri(path: str) -> str:
    """Six frames side by side as a data: URI; empty if the video cannot be read."""
    try:
        with open_video(path, short_side=_HEIGHT) as reader:
            indices = (np.arange(_FRAMES) + 0.5) * len(reader) / _FRAMES
            frames = reader.frames([int(index) for index in indices]).numpy()
    except VideoError:
        return ""
    height, width = frames.shape[1:3]
    width = min(width, 2 * _HEIGHT)
    left = (frames.shape[2] - width) // 2
    cropped = frames[:, :, left : left + width]
    cropped = cropped[:, (height - min(height, _HEIGHT)) // 2 :][:, :_HEIGHT]
    return data_uri(Image.fromarray(np.concatenate(list(cropped), axis=1)), quality=62)


def _relative_url(path: str, folder: Path) -> str:
    """URL of a file, relative to the page so that both can be moved together."""
    try:
        relative = os.path.relpath(Path(path).resolve(), folder.resolve())
    except ValueError:  # another drive
        return Path(path).resolve().as_uri()
    return "/".join(quote(part) for part in Path(relative).parts)


def _unit_square(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centre points in the unit square, with one scale for both axes."""
    low, high = points.min(0), points.max(0)
    extent = float((high - low).max()) or 1.0
    return (points - (low + high) / 2) / extent + 0.5


def _script_json(value: Any) -> str:
    """JSON for a script element."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).replace("</", "<\\/")


def _percent(fraction: float) -> str:
    return "" if math.isnan(fraction) else f"{100 * fraction:.1f} %"


# ------------------------------------------------------------------------------------------------------ t-SNE
#
# Van der Maaten & Hinton 2008, "Visualizing Data using t-SNE", JMLR 9. This is the exact algorithm, with
# a cost quadratic in the number of points. It is initialised with the principal components, as recommended by
# Kobak & Berens 2019 ("The art of using t-SNE for single-cell transcriptomics"), so that it is deterministic
# and preserves some of the global structure.


_EXAGGERATION = 12.0  # factor of the joint probabilities in the first steps
_EXAGGERATION_STEPS = 250
_BISECTION_STEPS = 64  # for the precision of each point's Gaussian


def principal_components(points: Tensor, num: int = 2) -> tuple[Tensor, Tensor]:
    """The first ``num`` principal components of points (N, D).

    The sign of an axis is such that its largest coordinate is positive. Missing axes are 0.

    Returns:
        Coordinates (N, num), and each axis's fraction of the variance (num,).
    """
    centred = points.double() - points.double().mean(0)
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)
    axes = u[:, :num] * s[:num]
    signs = axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    axes = axes * torch.where(signs == 0, torch.ones_like(signs), signs)
    variances = s[:num] ** 2 / (s**2).sum().clamp(min=1e-300)
    missing = num - axes.shape[1]
    pad = torch.nn.functional.pad
    return pad(axes, (0, missing)), pad(variances, (0, missing))


def tsne(points: Tensor, *, perplexity: float = 30.0, steps: int = 1000) -> Tensor:
    """t-SNE of points (N, D) in two dimensions, deterministic: float64 (N, 2).

    Args:
        perplexity: effective number of neighbours, limited to a third of the number of points.
        steps: number of steps of gradient descent.

    Raises:
        UsageError: the perplexity is below 1, or there are no points.
    """
    if len(points) == 0:
        raise UsageError("there are no points to map")
    if perplexity < 1:
        raise UsageError(f"perplexity must be at least 1, got {perplexity:g}")
    components, _ = principal_components(points)
    if len(points) < 4:
        return components
    p = joint_probabilities(points, min(perplexity, (len(points) - 1) / 3))
    y = components * (1e-4 / components[:, 0].std().clamp(min=1e-300))
    velocity, gain = torch.zeros_like(y), torch.ones_like(y)
    lr = max(len(points) / _EXAGGERATION, 50.0)  # Belkina et al. 2019
    for step in range(steps):
        early = step < _EXAGGERATION_STEPS
        gradient = _gradient(y, p * (_EXAGGERATION if early else 1.0))
        turned = velocity.sign() != gradient.sign()
        gain = torch.where(turned, gain + 0.2, gain * 0.8).clamp(min=0.01)
        velocity = (0.5 if early else 0.8) * velocity - lr * gain * gradient
        y = y + velocity
        y = y - y.mean(0)
    return y


def joint_probabilities(points: Tensor, perplexity: float) -> Tensor:
    """The symmetrised joint probabilities p (N, N) of points (N, D), equation 1 of the paper; they sum to 1.

    The width of the Gaussian around each point is such that the entropy of its conditional probabilities is
    log ``perplexity``.
    """
    squares = squared_distances(points.double())
    n = len(squares)
    squares = squares / squares.mean().clamp(min=1e-300)
    squares.fill_diagonal_(math.inf)  # p_ii = 0
    low, high = squares.new_zeros(n, 1), squares.new_full((n, 1), math.inf)
    precision = squares.new_ones(n, 1)
    nearest = squares.amin(1, keepdim=True)
    for _ in range(_BISECTION_STEPS):
        conditional = torch.exp(-(squares - nearest) * precision)
        conditional = conditional / conditional.sum(1, keepdim=True)
        entropy = -(conditional * conditional.clamp(min=1e-300).log()).sum(1, keepdim=True)
        wide = entropy > math.log(perplexity)
        low, high = torch.where(wide, precision, low), torch.where(wide, high, precision)
        precision = torch.where(high.isinf(), 2 * precision, (low + high) / 2)
    return (conditional + conditional.T) / (2 * n)


def squared_distances(points: Tensor) -> Tensor:
    """Squared distances of all pairs (N, N), exactly 0 on the diagonal."""
    norms = (points**2).sum(1)
    squares = (norms[:, None] + norms - 2 * points @ points.T).clamp(min=0)
    return squares.fill_diagonal_(0)


def divergence(y: Tensor, p: Tensor) -> Tensor:
    """The objective of t-SNE: Kullback-Leibler divergence of p (N, N) from q of the map y (N, 2)."""
    kernel = _kernel(y)
    q = kernel / kernel.sum()
    positive = p > 0
    return (p[positive] * (p[positive] / q[positive]).log()).sum()


def _gradient(y: Tensor, p: Tensor) -> Tensor:
    """Equation 5 of the paper."""
    kernel = _kernel(y)
    pull = (p - kernel / kernel.sum()) * kernel
    return 4 * (pull.sum(1, keepdim=True) * y - pull @ y)


def _kernel(y: Tensor) -> Tensor:
    return (1 / (1 + squared_distances(y))).fill_diagonal_(0)
