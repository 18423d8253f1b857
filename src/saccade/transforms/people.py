"""Boxes of people under the transforms of training: cropped and flipped as the pixels are.

Shape letters: B clips, L slots for people in a clip, N people of a batch, K actions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saccade.data.types import ClipBatch
from saccade.errors import UsageError
from saccade.transforms.train import TrainTransform

_MIN_SIDE = 1.0  # pixels; smaller boxes in the crop are dropped


def boxes_in_crop(
    fractions_N4: Tensor, size: tuple[int, int], *, top: int, left: int, crop: int, flipped: bool
) -> tuple[Tensor, Tensor]:
    """Boxes in the pixels of a crop.

    Args:
        fractions_N4: x1, y1, x2, y2 as fractions of width and height.
        size: (height, width) of the frame before the crop.
        top, left: corner of the crop.
        crop: its side.
        flipped: whether it is flipped after the crop.

    Returns:
        The boxes (N, 4), clipped to the crop; and bool (N,), which of them are wider and higher than a pixel.
    """
    height, width = size
    scale = fractions_N4.new_tensor([width, height, width, height])
    corner = fractions_N4.new_tensor([left, top, left, top])
    boxes_N4 = (fractions_N4 * scale - corner).clamp(0, crop)
    if flipped:
        x1, y1, x2, y2 = boxes_N4.unbind(1)
        boxes_N4 = torch.stack((crop - x2, y1, crop - x1, y2), dim=1)
    inside_N = ((boxes_N4[:, 2:] - boxes_N4[:, :2]) > _MIN_SIDE).all(dim=1)
    return boxes_N4, inside_N


def clips_with_people(transform: TrainTransform, batch: ClipBatch) -> tuple[Tensor, list[Tensor], Tensor]:
    """The input of a detector: clips and boxes under the same random crop and flip.

    Returns:
        Clips (B, 3, T, crop, crop); for each clip the boxes in the crop, (N_i, 4) in pixels; and the labels
        of all boxes, float32 (sum of N_i, K).

    Raises:
        UsageError: the batch has no boxes, or a clip is smaller than the crop.
    """
    if batch.boxes is None or batch.inside is None:
        raise UsageError("a batch without boxes cannot train a detector")
    x_BCTHW = transform(batch)
    boxes, labels = [], []
    for number, (top, left, flipped) in enumerate(transform.crops(batch)):
        here_L = batch.inside[number]
        size = (int(batch.clips[number].shape[1]), int(batch.clips[number].shape[2]))
        boxes_N4, inside_N = boxes_in_crop(
            batch.boxes[number][here_L], size, top=top, left=left, crop=batch.crop, flipped=flipped
        )
        boxes.append(boxes_N4[inside_N])
        labels.append(batch.labels[number].T[here_L][inside_N])
    return x_BCTHW, boxes, torch.cat(labels)
