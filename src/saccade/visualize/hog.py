"""MaskFeat's predictions for masked tokens: histograms of oriented gradients (HOG), drawn as strokes.

Each cell of 8x8 pixels has a stroke per bin along the edge, perpendicular to the gradient; the larger the
bin's value, the darker the stroke (Dalal and Triggs, CVPR 2005, figure 6). MaskFeat: Wei et al., CVPR 2022,
arXiv 2112.09133.

Shape letters: N predicted frames, h w token grid of a frame, D values per token, S pixels per side.
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
from saccade.visualize.charts import GREY, INK, LINE, shorten, styled
from saccade.visualize.clips import InputClip, inputs_on_device
from saccade.visualize.overlay import evenly_spaced, load_font, truncate

_CELL_SIDE = 24  # pixels of a cell in a drawing
_VISIBLE_STRENGTH = 0.38  # strength of the strokes of visible tokens
_MASK_COLOUR = (203, 208, 216)
_PREDICTED_BACKGROUND = np.array([255, 238, 221], np.float32)
_SIDE = 2.15  # inches per image
_COLUMNS = ("masked input", "predicted", "target", "original")


@dataclass(frozen=True, eq=False)
class MaskedPrediction:
    """The masked tokens of a clip with prediction and target.

    Attributes:
        clip: the clip.
        kind: kind of target: ``soft`` or ``hard`` HOG, or ``pixels``.
        frames: (N,), indices of the predicted frames in the clip.
        masked: bool (N, h, w).
        predicted, target: float32. HOG: (N, cell rows, cell columns, 9), mean over colours. Pixels:
            (N, S, S, 3), 0..1, with the true mean and standard deviation of each token.
        explained: explained fraction of the variance of the masked tokens' targets.
    """

    clip: InputClip
    kind: str
    frames: NDArray[np.int64]
    masked: NDArray[np.bool_]
    predicted: NDArray[np.float32]
    target: NDArray[np.float32]
    explained: float

    @property
    def target_name(self) -> str:
        """Display name of the target."""
        return "pixels" if self.kind == "pixels" else "HOG"


def predict_masked(model: VideoModel, clip: InputClip, cube: CubeMask) -> MaskedPrediction:
    """Mask the tokens of ``cube`` and predict their targets.

    Raises:
        UsageError: the model is not a MaskFeat, or the mask has the wrong shape.
    """
    if not isinstance(model, MaskFeat):
        name = getattr(model, "model_name", type(model).__name__)
        raise UsageError(f"{name} does not predict masked tokens; see saccade models 'maskfeat_*'")
    num_frames, side = clip.pixels.shape[:2]
    grid = model.grid_of(num_frames, side, side)
    if cube.mask.shape != grid:
        raise UsageError(f"the mask has shape {cube.mask.shape}, but the clip has {grid} tokens")
    per_token = num_frames // grid[0] // model.predict_every
    tokens = masked_tokens([cube], scored="all", num_frames=per_token)
    inputs = inputs_on_device(clip, model)
    with evaluating(model):
        output = model.forward_masked(inputs, tokens.mask.to(inputs.device)).float().cpu()
    pixels = torch.from_numpy(clip.pixels)[None]
    explained = float(token_errors(output, tokens, pixels, model.target_kind).explained())
    frames = np.arange(0, num_frames, model.predict_every)
    by_frame = output[0].unflatten(-1, (per_token, -1)).permute(0, 3, 1, 2, 4).flatten(0, 1)  # (N, h, w, D)
    predicted_frames = pixels[0, frames]
    target = token_targets(predicted_frames, model.target_kind, grid[1:])
    convert = _as_pixels if model.target_kind == "pixels" else _as_cells
    return MaskedPrediction(
        clip=clip,
        kind=model.target_kind,
        frames=frames,
        masked=cube.mask.repeat(per_token, axis=0),
        predicted=convert(by_frame, model.target_kind, predicted_frames),
        target=convert(target, model.target_kind, predicted_frames),
        explained=explained,
    )


def _as_cells(tokens: Tensor, kind: str, frames: Tensor) -> NDArray[np.float32]:
    """(N, h, w, D) -> (N, cell rows, cell columns, 9), the mean over colours."""
    cells = frames.shape[1] // tokens.shape[1] // CELL
    if kind == "soft":
        split = tokens.unflatten(-1, (cells, cells, 3, NUM_BINS)).mean(5)
    else:
        split = tokens.unflatten(-1, (3, NUM_BINS, cells, cells)).mean(3).permute(0, 1, 2, 4, 5, 3)
    joined: NDArray[np.float32] = split.transpose(2, 3).flatten(3, 4).flatten(1, 2).numpy()
    return joined


def _as_pixels(tokens: Tensor, kind: str, frames: Tensor) -> NDArray[np.float32]:
    """(N, h, w, D) -> (N, S, S, 3) in 0..1, with the true mean and standard deviation of each token."""
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
    """Edge direction of each of the nine bins in radians (9,): 0 is horizontal, pi/2 vertical.

    An edge is perpendicular to the gradient of its bin. The bins of gradients start at horizontal and turn
    towards down in soft histograms, and start at down and turn towards horizontal in hard ones.
    """
    centres = (np.arange(NUM_BINS) + 0.5) * math.pi / NUM_BINS
    gradients = centres if kind == "soft" else math.pi / 2 - centres
    return np.asarray((gradients + math.pi / 2) % math.pi)


def strokes(kind: str, size: int = _CELL_SIDE) -> NDArray[np.float32]:
    """A stroke for each bin through the centre of a cell: darkness 0..1 (9, size, size)."""
    fine = 4 * size
    images = []
    for angle in edge_angles(kind):
        image = Image.new("L", (fine, fine))
        length = 0.46 * fine
        x, y = length * math.cos(angle), length * math.sin(angle)
        centre = (fine - 1) / 2
        ImageDraw.Draw(image).line(
            (centre - x, centre - y, centre + x, centre + y), fill=255, width=max(4, fine // 9)
        )
        images.append(np.asarray(image.resize((size, size), Image.Resampling.BOX), np.float32) / 255)
    return np.stack(images)


def draw_hog(cells: NDArray[np.float32], kind: str, size: int = _CELL_SIDE) -> NDArray[np.float32]:
    """Draw histograms (rows, columns, 9) as strokes: darkness 0..1 (rows * size, columns * size).

    A bin of value 1 is a black stroke; negative values are not drawn.
    """
    darkness = np.einsum("hwk,kab->hawb", np.clip(cells, 0, 1), strokes(kind, size))
    rows, columns = cells.shape[:2]
    return np.clip(darkness.reshape(rows * size, columns * size), 0, 1)


# --------------------------------------------------------------------------------------------------- sheets


def panel_images(prediction: MaskedPrediction, number: int, side: int) -> list[NDArray[np.uint8]]:
    """Masked input, prediction, target and original of one predicted frame: uint8 (side, side, 3) each."""
    kind, masked = prediction.kind, prediction.masked[number]
    original = _resized(prediction.clip.frames[prediction.frames[number]], side)
    covered = _to_pixels(masked, side)[..., None]
    masked_input = np.where(covered, np.array(_MASK_COLOUR, np.uint8), original)
    if kind == "pixels":
        predicted = np.where(covered, _resized(_bytes(prediction.predicted[number]), side), original)
        target = _resized(_bytes(prediction.target[number]), side)
    else:
        predicted = _hog_image(prediction.predicted[number], kind, masked, side)
        target = _hog_image(prediction.target[number], kind, masked, side)
    return [masked_input, predicted, target, original]


def _hog_image(
    cells: NDArray[np.float32], kind: str, masked: NDArray[np.bool_], side: int
) -> NDArray[np.uint8]:
    """Strokes: dark on a coloured background in masked tokens, faint on white in visible ones."""
    darkness = draw_hog(cells, kind)
    covered = _to_pixels(masked, len(darkness))
    strength = np.where(covered, 1.0, _VISIBLE_STRENGTH)[..., None] * darkness[..., None]
    background = np.where(covered[..., None], _PREDICTED_BACKGROUND, np.float32(255))
    colour = np.array([28, 36, 48], np.float32)
    return _resized(np.round((1 - strength) * background + strength * colour).astype(np.uint8), side)


def _to_pixels(masked: NDArray[np.bool_], side: int) -> NDArray[np.bool_]:
    """A mask of tokens (h, w) -> of pixels (side, side)."""
    rows, columns = (np.arange(side) * count // side for count in masked.shape)
    return masked[rows[:, None], columns]


def _resized(image: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    if image.shape[:2] == (side, side):
        return image
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS))


def _bytes(values: NDArray[np.float32]) -> NDArray[np.uint8]:
    return np.round(255 * values).astype(np.uint8)


def hog_sheet(prediction: MaskedPrediction, *, title: str, subtitle: str = "", rows: int = 4) -> Figure:
    """A row for each frame: masked input, prediction, target, original.

    Args:
        rows: maximum number of frames, evenly spread over those with masked tokens.
    """
    numbers = _select_frames(prediction, rows)
    gap, left, top = 0.06, 0.72, 1.0
    width = left + 4 * (_SIDE + gap) + 0.06
    height = top + len(numbers) * (_SIDE + gap) + 0.06
    with styled():
        figure = Figure(figsize=(width, height))

        def write(x: float, y: float, text: str, **options: Any) -> None:
            figure.text(x / width, 1 - y / height, text, **options)

        write(0.12, 0.1, shorten(title, 78), fontsize=14, fontweight="bold", va="top")
        write(0.12, 0.38, shorten(subtitle, 110), fontsize=11, color=GREY, va="top")
        for column, name in enumerate(_column_names(prediction)):
            x = left + column * (_SIDE + gap) + _SIDE / 2
            write(x, top - 0.08, name, fontsize=11.5, ha="center", va="bottom", color=INK)
        for row, number in enumerate(numbers):
            y = top + row * (_SIDE + gap)
            seconds = prediction.clip.seconds[prediction.frames[number]]
            write(left - 0.1, y + _SIDE / 2, f"{seconds:.2f} s", fontsize=10.5, ha="right", va="center")
            for column, image in enumerate(panel_images(prediction, number, 672)):
                x = left + column * (_SIDE + gap)
                box = (x / width, 1 - (y + _SIDE) / height, _SIDE / width, _SIDE / height)
                axes = figure.add_axes(box)
                axes.imshow(image, interpolation="lanczos", aspect="auto")
                axes.set_xticks([])
                axes.set_yticks([])
                axes.grid(visible=False)
        return figure


def _column_names(prediction: MaskedPrediction) -> list[str]:
    target = prediction.target_name
    return [f"{name} {target}" if name in ("predicted", "target") else name for name in _COLUMNS]


def _select_frames(prediction: MaskedPrediction, rows: int) -> list[int]:
    masked = np.flatnonzero(prediction.masked.any(axis=(1, 2)))
    frames = masked if len(masked) else np.arange(len(prediction.frames))
    return [int(frames[index]) for index in evenly_spaced(len(frames), rows)]


def hog_video(prediction: MaskedPrediction, out: str | os.PathLike[str], *, title: str) -> Path:
    """Write an mp4 of the predicted frames in real time, with the four images side by side.

    Raises:
        VideoError: ``out`` cannot be written.
    """
    target = Path(out)
    seconds = prediction.clip.seconds[prediction.frames]
    fps = (len(seconds) - 1) / (seconds[-1] - seconds[0]) if seconds[-1] > seconds[0] else 5.0
    write_video(target, _video_frames(prediction, title), fps=max(1.0, round(float(fps), 3)), crf=18)
    return target


def _video_frames(prediction: MaskedPrediction, title: str, side: int = 336) -> Iterator[NDArray[np.uint8]]:
    gap, head = 8, 76
    width, height = 4 * (side + gap) + gap, head + side + gap
    empty = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(empty)
    bold, font = load_font(20, bold=True), load_font(19)
    draw.text((gap, 8), truncate(title, width - 2 * gap, bold), fill=INK, font=bold)
    for column, name in enumerate(_column_names(prediction)):
        draw.text((gap + column * (side + gap), head - 30), name, fill=GREY, font=font)
    for number in range(len(prediction.frames)):
        frame = empty.copy()
        for column, image in enumerate(panel_images(prediction, number, side)):
            x = gap + column * (side + gap)
            frame.paste(Image.fromarray(image), (x, head))
            ImageDraw.Draw(frame).rectangle((x - 1, head - 1, x + side, head + side), outline=LINE)
        yield np.asarray(frame)
