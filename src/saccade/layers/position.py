"""Learned position embeddings, resized where clips are larger, smaller, longer or shorter."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_space(embedding: Tensor, from_size: tuple[int, int], to_size: tuple[int, int]) -> Tensor:
    """Embedding (1, H W, C) of a grid of patches, row by row, for another grid: bicubic interpolation.

    As in DINO's and VideoTransformer-pytorch's code, whose grid is off by a tenth of a patch; here the
    borders of both grids coincide.
    """
    if from_size == to_size:
        return embedding
    maps = embedding.unflatten(1, from_size).movedim(-1, 1)
    maps = F.interpolate(maps, size=to_size, mode="bicubic")
    return maps.flatten(2).transpose(1, 2)


def resize_time(embedding: Tensor, num_times: int) -> Tensor:
    """Embedding (1, T, C) of moments for another number of them: linear interpolation."""
    if embedding.shape[1] == num_times:
        return embedding
    return F.interpolate(embedding.transpose(1, 2), size=num_times, mode="linear").transpose(1, 2)


def resize_loaded(
    embedding: Tensor, like: Tensor, *, num_class_tokens: int = 0, square: bool = False
) -> Tensor | None:
    """A checkpoint's embedding (1, N, C) with as many positions as ``like``; None if that cannot be.

    The first ``num_class_tokens`` are no positions and stay. ``square``: the others are a square grid of
    patches, in the file and in the model; else they are moments.
    """
    if embedding.ndim != 3 or like.ndim != 3 or embedding.shape[::2] != like.shape[::2]:
        return None
    num_old, num_new = (tensor.shape[1] - num_class_tokens for tensor in (embedding, like))
    first, positions = embedding[:, :num_class_tokens], embedding[:, num_class_tokens:].float()
    if num_old < 1 or num_new < 1:
        return None
    if square:
        old, new = round(num_old**0.5), round(num_new**0.5)
        if old**2 != num_old or new**2 != num_new:
            return None
        resized = resize_space(positions, (old, old), (new, new))
    else:
        resized = resize_time(positions, num_new)
    return torch.cat((first, resized.to(embedding.dtype)), 1)
