"""Learned position embeddings, interpolated for clips of other sizes and lengths."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_space(embedding: Tensor, from_size: tuple[int, int], to_size: tuple[int, int]) -> Tensor:
    """Resize the embedding (1, H W, C) of a grid of patches, row by row, by bicubic interpolation.

    DINO and VideoTransformer-pytorch do the same with a grid that is off by a tenth of a patch; here the
    borders of both grids coincide.
    """
    if from_size == to_size:
        return embedding
    maps = embedding.unflatten(1, from_size).movedim(-1, 1)
    maps = F.interpolate(maps, size=to_size, mode="bicubic")
    return maps.flatten(2).transpose(1, 2)


def resize_time(embedding: Tensor, num_times: int) -> Tensor:
    """Resize the embedding (1, T, C) of time steps by linear interpolation."""
    if embedding.shape[1] == num_times:
        return embedding
    return F.interpolate(embedding.transpose(1, 2), size=num_times, mode="linear").transpose(1, 2)


def resize_loaded(
    embedding: Tensor, like: Tensor, *, num_class_tokens: int = 0, square: bool = False
) -> Tensor | None:
    """Resize a checkpoint's embedding (1, N, C) to the number of positions of ``like``; None if impossible.

    The first ``num_class_tokens`` have no position and are unchanged. ``square``: the others are a square
    grid of patches, in the file and in the model; else they are time steps.
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
