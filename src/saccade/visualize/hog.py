"""What MaskFeat predicts of the hidden parts of a clip: histograms of oriented gradients, drawn as strokes.

A stroke stands where a cell of 8x8 pixels is and runs along the edge that it speaks of, across the gradient;
it is the darker the more of the cell's gradients have its direction. Dalal and Triggs, CVPR 2005, figure 6;
MaskFeat: Wei et al., CVPR 2022, arXiv 2112.09133.

Shape letters: T frames, t h w the grid of tokens, F frames predicted for a token, S pixels a side.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from torch import Tensor

from saccade.errors import UsageError
from saccade.evaluation.scorer import evaluating
from saccade.models import MaskFeat, VideoModel
from saccade.tasks.masked import token_errors
from saccade.transforms.hog import CELL, NUM_BINS
from saccade.transforms.masked_targets import token_targets
from saccade.transforms.masking import CubeMask, masked_tokens
from saccade.video.write import write_video
from saccade.visualize.charts import GREY, INK, shorten, styled
from saccade.visualize.clips import SeenClip, on_device
from saccade.visualize.overlay import fitting, font_of, spread

_STROKE = 24  # pixels of a cell in a drawing
_FAINT = 0.38  # ink of what the network was shown
_HIDDEN = (203, 208, 216)  # of masked tokens
_WASH = np.array([255, 238, 221], np.float32)  # under what is predicted of them
_SIDE = 2.15  # inches of a picture
_COLUMNS = ("masked input", "predicted", "target", "original")


@dataclass(frozen=True, eq=False)
class MaskedPrediction:
    """The hidden tokens of a clip, the prediction and the target.

    Attributes:
        clip: the clip; kind: ``soft``, ``hard`` or ``pixels``, of what is predicted.
        frames: which frames of the clip are predicted (N,).
        hidden: bool (N, h, w).
        predicted, target: float32; of HOG (N, cells down, cells across, 9), the mean over colours; of pixels
            (N, S, S, 3), 0..1, where the mean and deviation of each token are the true ones.
        explained: fraction of the variance of the hidden tokens' targets.
    """

    clip: SeenClip
    kind: str
    frames: NDArray[np.int64]
    hidden: NDArray[np.bool_]
    predicted: NDArray[np.float32]
    target: NDArray[np.float32]
    explained: float

    @property
    def what(self) -> str:
        """The name of what is predicted, for titles."""
        return "pixels" if self.kind == "pixels" else "HOG"


def predict_masked(model: VideoModel, clip: SeenClip, cube: CubeMask) -> MaskedPrediction:
    """Hide the tokens of ``cube`` from ``model`` and have it predict them.

    Raises:
        UsageError: it does not predict what is hidden, or the mask is of another grid.
    """
    if not isinstance(model, MaskFeat):
        name = getattr(model, "model_name", type(model).__name__)
        raise UsageError(f"{name} does not predict hidden parts; models that do: saccade models 'maskfeat_*'")
    num_frames, side = clip.pixels.shape[:2]
    grid = model.grid_of(num_frames, side, side)
    if cube.mask.shape != grid:
        raise UsageError(f"a mask of {cube.mask.shape} tokens for a clip of {grid}")
    per_token = num_frames // grid[0] // model.predict_every
    tokens = masked_tokens([cube], scored="all", num_frames=per_token)
    inputs = on_device(clip, model)
    with evaluating(model):
        output = model.forward_masked(inputs, tokens.mask.to(inputs.device)).float().cpu()
    pixels = torch.from_numpy(clip.pixels)[None]
    explained = float(token_errors(output, tokens, pixels, model.target_kind).explained())
    frames = np.arange(0, num_frames, model.predict_every)
    by_frame = output[0].unflatten(-1, (per_token, -1)).permute(0, 3, 1, 2, 4).flatten(0, 1)  # (N, h, w, D)
    shown = pixels[0, frames]
    target = token_targets(shown, model.target_kind, grid[1:])
    pictured = _as_pixels if model.target_kind == "pixels" else _as_cells
    return MaskedPrediction(
        clip=clip,
        kind=model.target_kind,
        frames=frames,
        hidden=cube.mask.repeat(per_token, axis=0),
        predicted=pictured(by_frame, model.target_kind, shown),
        target=pictured(target, model.target_kind, shown),
        explained=explained,
    )


def _as_cells(tokens: Tensor, kind: str, frames: Tensor) -> NDArray[np.float32]:
    """(N, h, w, D) -> (N, cells down, cells across, 9), the mean over colours."""
    cells = frames.shape[1] // tokens.shape[1] // CELL
    if kind == "soft":
        split = tokens.unflatten(-1, (cells, cells, 3, NUM_BINS)).mean(5)
    else:
        split = tokens.unflatten(-1, (3, NUM_BINS, cells, cells)).mean(3).permute(0, 1, 2, 4, 5, 3)
    joined: NDArray[np.float32] = split.transpose(2, 3).flatten(3, 4).flatten(1, 2).numpy()
    return joined


def _as_pixels(tokens: Tensor, kind: str, frames: Tensor) -> NDArray[np.float32]:
    """(N, h, w, D) -> (N, S, S, 3) in 0..1, with the true mean and deviation of each token."""
    side = frames.shape[1] // tokens.shape[1]
    true = (
        frames.float().div(255).unflatten(2, (-1, side)).unflatten(1, (-1, side)).transpose(2, 3).flatten(3)
    )
    values = tokens * (true.var(-1, keepdim=True) + 1e-6).sqrt() + true.mean(-1, keepdim=True)
    patches = values.unflatten(-1, (side, side, 3)).transpose(2, 3)
    joined: NDArray[np.float32] = patches.flatten(3, 4).flatten(1, 2).clamp(0, 1).numpy()
    return joined


# ------------------------------------------------------------------------------------------------- strokes


def edge_angles(kind: str) -> NDArray[np.float64]:
    """Direction of the edges that each of the nine bins counts: radians (9,), 0 across, pi/2 down.

    Bins are of the gradient's direction, which lies across the edge: from ``across`` towards ``down`` in soft
    histograms, from ``down`` towards ``across`` in hard ones.
    """
    middles = (np.arange(NUM_BINS) + 0.5) * math.pi / NUM_BINS
    gradients = middles if kind == "soft" else math.pi / 2 - middles
    return np.asarray((gradients + math.pi / 2) % math.pi)


def strokes(kind: str, size: int = _STROKE) -> NDArray[np.float32]:
    """One stroke for each bin through the middle of a cell: ink 0..1 (9, size, size)."""
    fine = 4 * size
    drawn = []
    for angle in edge_angles(kind):
        picture = Image.new("L", (fine, fine))
        reach = 0.46 * fine
        x, y = reach * math.cos(angle), reach * math.sin(angle)
        middle = (fine - 1) / 2
        ImageDraw.Draw(picture).line(
            (middle - x, middle - y, middle + x, middle + y), fill=255, width=max(4, fine // 9)
        )
        drawn.append(np.asarray(picture.resize((size, size), Image.Resampling.BOX), np.float32) / 255)
    return np.stack(drawn)


def draw_hog(cells: NDArray[np.float32], kind: str, size: int = _STROKE) -> NDArray[np.float32]:
    """Ink 0..1 (cells down * size, cells across * size) of histograms (cells down, cells across, 9).

    A histogram of length 1 that is all in one bin is a black stroke; negative values are none.
    """
    ink = np.einsum("hwk,kab->hawb", np.clip(cells, 0, 1), strokes(kind, size))
    down, across = cells.shape[:2]
    return np.clip(ink.reshape(down * size, across * size), 0, 1)


# --------------------------------------------------------------------------------------------------- sheets


def pictures_of(found: MaskedPrediction, number: int, side: int) -> list[NDArray[np.uint8]]:
    """Masked input, predicted, target and original of one predicted frame: uint8 (side, side, 3) each."""
    frame = found.clip.frames[found.frames[number]]
    hidden = found.hidden[number]
    large = _resized(frame, side)
    covered = _spread(hidden, side)[..., None]
    masked = np.where(covered, np.array(_HIDDEN, np.uint8), large)
    if found.kind == "pixels":
        shown = np.where(covered, _resized(_bytes(found.predicted[number]), side), large)
        target = _resized(_bytes(found.target[number]), side)
    else:
        shown = _inked(found.predicted[number], found.kind, hidden, side)
        target = _inked(found.target[number], found.kind, hidden, side)
    return [masked, shown, target, large]


def _inked(cells: NDArray[np.float32], kind: str, hidden: NDArray[np.bool_], side: int) -> NDArray[np.uint8]:
    """Strokes on paper: dark on a wash where tokens were hidden, faint where they were shown."""
    ink = draw_hog(cells, kind)
    covered = _spread(hidden, len(ink))
    strength = np.where(covered, 1.0, _FAINT)[..., None] * ink[..., None]
    paper = np.where(covered[..., None], _WASH, np.float32(255))
    colour = np.array([28, 36, 48], np.float32)
    return _resized(np.round((1 - strength) * paper + strength * colour).astype(np.uint8), side)


def _spread(hidden: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """A grid of tokens on ``side`` pixels."""
    rows, columns = (np.arange(side) * count // side for count in hidden.shape)
    return hidden[rows[:, None], columns]


def _resized(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    if picture.shape[:2] == (side, side):
        return picture
    return np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.LANCZOS))


def _bytes(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.round(255 * values).astype(np.uint8)


def hog_sheet(found: MaskedPrediction, *, title: str, subtitle: str = "", rows: int = 4) -> Figure:
    """A row for each of some frames: masked input, prediction, target, original.

    Args:
        rows: frames shown at most, those with hidden tokens first, in order of time.
    """
    numbers = _chosen(found, rows)
    gap, left, top = 0.06, 0.72, 1.0
    width = left + 4 * (_SIDE + gap) + 0.06
    height = top + len(numbers) * (_SIDE + gap) + 0.06
    with styled():
        figure = Figure(figsize=(width, height))

        def write(x: float, y: float, text: str, **how: Any) -> None:
            figure.text(x / width, 1 - y / height, text, **how)

        write(0.12, 0.1, shorten(title, 78), fontsize=14, fontweight="bold", va="top")
        write(0.12, 0.38, shorten(subtitle, 110), fontsize=11, color=GREY, va="top")
        for column, name in enumerate(_names(found)):
            x = left + column * (_SIDE + gap) + _SIDE / 2
            write(x, top - 0.08, name, fontsize=11.5, ha="center", va="bottom", color=INK)
        for row, number in enumerate(numbers):
            y = top + row * (_SIDE + gap)
            seconds = found.clip.seconds[found.frames[number]]
            write(left - 0.1, y + _SIDE / 2, f"{seconds:.2f} s", fontsize=10.5, ha="right", va="center")
            for column, picture in enumerate(pictures_of(found, number, 672)):
                x = left + column * (_SIDE + gap)
                box = (x / width, 1 - (y + _SIDE) / height, _SIDE / width, _SIDE / height)
                axes = figure.add_axes(box)
                axes.imshow(picture, interpolation="lanczos", aspect="auto")
                axes.set_xticks([])
                axes.set_yticks([])
                axes.grid(visible=False)
        return figure


def _names(found: MaskedPrediction) -> list[str]:
    return [f"{name} {found.what}" if name in ("predicted", "target") else name for name in _COLUMNS]


def _chosen(found: MaskedPrediction, rows: int) -> list[int]:
    hidden = np.flatnonzero(found.hidden.any(axis=(1, 2)))
    pool = hidden if len(hidden) else np.arange(len(found.frames))
    return [int(pool[place]) for place in spread(len(pool), rows)]


def hog_video(found: MaskedPrediction, out: str | os.PathLike[str], *, title: str) -> Path:
    """Write an mp4 of the predicted frames at the pace of the clip: the four pictures beside each other.

    Raises:
        VideoError: ``out`` cannot be written.
    """
    target = Path(out)
    seconds = found.clip.seconds[found.frames]
    pace = (len(seconds) - 1) / (seconds[-1] - seconds[0]) if seconds[-1] > seconds[0] else 5.0
    write_video(target, _video_frames(found, title), fps=max(1.0, round(float(pace), 3)), crf=18)
    return target


def _video_frames(found: MaskedPrediction, title: str, side: int = 336) -> Iterator[NDArray[np.uint8]]:
    gap, head = 8, 76
    width, height = 4 * (side + gap) + gap, head + side + gap
    empty = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(empty)
    bold, font = font_of(20, bold=True), font_of(19)
    draw.text((gap, 8), fitting(title, width - 2 * gap, bold), fill=INK, font=bold)
    for column, name in enumerate(_names(found)):
        draw.text((gap + column * (side + gap), head - 30), name, fill=GREY, font=font)
    for number in range(len(found.frames)):
        picture = empty.copy()
        for column, tile in enumerate(pictures_of(found, number, side)):
            place = (gap + column * (side + gap), head)
            picture.paste(Image.fromarray(tile), place)
            ImageDraw.Draw(picture).rectangle(
                (place[0] - 1, place[1] - 1, place[0] + side, place[1] + side), outline="#dfe3e8"
            )
        yield np.asarray(picture)
