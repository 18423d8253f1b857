"""Boxes of people under the transforms of training: cropped and flipped as the pixels are.

Shape letters: B clips, L places for people in a clip, N people of a batch, K actions.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saccade.data.types import ClipBatch
from saccade.errors import UsageError
from saccade.transforms.train import TrainTransform

_LEAST_SIDE = 1.0  # pixels of a box that must remain in the crop


def boxes_in_crop(
    fractions_N4: Tensor, size: tuple[int, int], *, top: int, left: int, crop: int, flipped: bool
) -> tuple[Tensor, Tensor]:
    """Where boxes lie in a crop, in its pixels.

    Args:
        fractions_N4: x1, y1, x2, y2 as fractions of width and height.
        size: (height, width) of the frame that is cut.
        top, left: corner of the crop; ``crop``: its side; ``flipped``: it is mirrored after it is cut.

    Returns:
        The boxes, clipped to the crop, (N, 4); and which of them keep more than a pixel in both directions,
        bool (N,).
    """
    height, width = size
    scale = fractions_N4.new_tensor([width, height, width, height])
    corner = fractions_N4.new_tensor([left, top, left, top])
    boxes_N4 = (fractions_N4 * scale - corner).clamp(0, crop)
    if flipped:
        x1, y1, x2, y2 = boxes_N4.unbind(1)
        boxes_N4 = torch.stack((crop - x2, y1, crop - x1, y2), dim=1)
    kept_N = ((boxes_N4[:, 2:] - boxes_N4[:, :2]) > _LEAST_SIDE).all(dim=1)
    return boxes_N4, kept_N


def clips_with_people(transform: TrainTransform, batch: ClipBatch) -> tuple[Tensor, list[Tensor], Tensor]:
    """The input of a detector, with one draw per clip for pixels and boxes.

    Returns:
        The clips (B, 3, T, crop, crop); for each the boxes that remain in it, (N_i, 4) in pixels; and their
        labels, float32 (sum of N_i, K).

    Raises:
        UsageError: the batch has no boxes, or a clip is smaller than the crop.
    """
    if batch.boxes is None or batch.inside is None:
        raise UsageError("a batch without boxes cannot train a detector")
    x_BCTHW = transform(batch)
    boxes, labels = [], []
    for number, (top, left, flipped) in enumerate(transform.places(batch)):
        here_L = batch.inside[number]
        size = (int(batch.clips[number].shape[1]), int(batch.clips[number].shape[2]))
        own_N4, kept_N = boxes_in_crop(
            batch.boxes[number][here_L], size, top=top, left=left, crop=batch.crop, flipped=flipped
        )
        boxes.append(own_N4[kept_N])
        labels.append(batch.labels[number].T[here_L][kept_N])
    return x_BCTHW, boxes, torch.cat(labels)
