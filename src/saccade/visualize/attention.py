"""What a transformer looks at in a clip: the attention of every head of a block, and the rollout of all.

Shape letters: T moments (frames or tubelets), P = h w patches of one moment, K classes. A moment of an MViT
is a step of its patches' convolution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from saccade.errors import UsageError
from saccade.evaluation.scorer import evaluating
from saccade.layers.attention import record_attention
from saccade.layers.pooled_attention import PooledAttention, pooled_grid
from saccade.models import VideoModel
from saccade.models.mvit import MViTTrunk
from saccade.models.timesformer import TimeSformer
from saccade.models.transformer import ClipTransformer
from saccade.models.vivit import ViViT
from saccade.visualize.gradcam import stride_of
from saccade.visualize.rollout import (
    Grid,
    PooledBlock,
    pool_between,
    through_divided,
    through_joint,
    through_pooled,
)

Weights = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """What was looked at in one clip.

    Attributes:
        block: of the attention in ``heads`` and ``in_time``; num_blocks: of the network.
        heads: (heads, T, h, w), the weights of one block's attention in space, by what is read out of it: the
            class token, or, where that is not what is read, the mean over the patches that look. Of an MViT,
            over its pooled keys.
        rollout: (T, h, w), shares of the whole network's look; with the class token's own they are 1. Of an
            MViT, whose patches are not all within reach alike, in proportion to what each would have if
            every head looked evenly.
        in_time: (heads, T, T) where the network has attention in time, the moment that looks first; the mean
            over patches. Of a factorised ViViT that of the last block of its second encoder.
        steps: (frames, pixels) between cells where the first stands on the first pixel, as strided
            convolutions make them; None: they share the clip out.
        key_steps: the same of ``heads``.
        logits: (K,), or (0,) of a model without classes.
    """

    block: int
    num_blocks: int
    heads: NDArray[Any]
    rollout: NDArray[Any]
    in_time: NDArray[Any] | None
    steps: tuple[int, int] | None
    key_steps: tuple[int, int] | None
    logits: NDArray[Any]


def attention_maps(model: VideoModel, clip: Tensor, *, block: int = -1) -> AttentionMaps:
    """The attention of one clip.

    What is read out of TimeSformer, of ViViT with joint or divided attention and of MViT is the class token
    (or the mean of the patches, where the network was built so). The first encoder of a factorised ViViT
    hands on the mean of every moment's patches, so there it is these that look.

    Args:
        clip: (1, 3, T, H, W), normalised, on the model's device.
        block: whose heads are shown; -1 is the last.

    Raises:
        UsageError: the model has no attention, or no such block.
    """
    if clip.ndim != 5 or clip.shape[0] != 1:
        raise UsageError(f"attention is drawn of one clip, (1, 3, T, H, W), got {tuple(clip.shape)}")
    if not isinstance(model, (TimeSformer, ViViT, MViTTrunk)):
        name = getattr(model, "model_name", type(model).__name__)
        raise UsageError(f"{name} has no attention to draw; try saccade visualize gradcam")
    num_blocks = len(model.layers)
    if not -num_blocks <= block < num_blocks:
        raise UsageError(f"block {block}: {model.model_name} has blocks 0 to {num_blocks - 1}")
    with evaluating(model), record_attention(model) as weights:
        output = model(clip)
    logits = output[0] if model.num_classes else output.new_zeros(0)
    place = block % num_blocks
    found = _of_pyramid if isinstance(model, MViTTrunk) else _of_tokens
    with torch.no_grad():
        return found(model, clip, {name: w.float() for name, w in weights.items()}, place, _plain(logits))  # type: ignore[arg-type]


def _plain(values: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = values.detach().float().cpu().numpy()
    return array


# --------------------------------------------------------------------------------- TimeSformer and ViViT


def _of_tokens(
    model: TimeSformer | ViViT, clip: Tensor, weights: Weights, block: int, logits: NDArray[Any]
) -> AttentionMaps:
    grid, kind = model.embed.token_grid(clip), _kind(model)
    roll = {
        "divided": _roll_divided,
        "joint": _roll_joint,
        "space": _roll_by_frame,
        "factorised": _roll_factorised,
    }[kind]
    space = weights[f"layers.{block}.attn"]
    by_class = model.config.head_pool == "class" and kind != "factorised"
    rows = space[:, :, 0] if by_class else space[:, :, 1:].mean(2)
    heads = rows[:, :, 1:].transpose(0, 1)  # (heads, T, P), or of joint attention (heads, 1, T P)
    return AttentionMaps(
        block=block,
        num_blocks=len(model.layers),
        heads=_plain(heads.reshape(-1, *grid)),
        rollout=_plain(roll(model, weights, grid).reshape(grid)),
        in_time=_in_time(model, weights, block),
        steps=None,
        key_steps=None,
        logits=logits,
    )


def _kind(model: TimeSformer | ViViT) -> str:
    config: Any = model.config
    return str(config.attention)


def _in_time(model: TimeSformer | ViViT, weights: Weights, block: int) -> NDArray[Any] | None:
    if _kind(model) == "divided":
        return _plain(weights[f"layers.{block}.time_attn"].mean(0))
    if _kind(model) == "factorised":
        last = len(model.time_layers) - 1  # type: ignore[arg-type]
        return _plain(weights[f"time_layers.{last}.attn"][0, :, 1:, 1:])
    return None


def _spaces(model: ClipTransformer, weights: Weights) -> list[Tensor]:
    return [weights[f"layers.{i}.attn"] for i in range(len(model.layers))]


def _first_row(model: ClipTransformer, like: Tensor, num_tokens: int) -> Tensor:
    """What the head reads: the class token, or all others alike."""
    row = like.new_zeros(num_tokens)
    if model.config.head_pool == "class":
        row[0] = 1
    else:
        row[1:] = 1 / (num_tokens - 1)
    return row


def _roll_joint(model: ClipTransformer, weights: Weights, grid: Grid) -> Tensor:
    blocks = [block[0] for block in _spaces(model, weights)]
    return through_joint(_first_row(model, blocks[0], blocks[0].shape[-1]), blocks)[1:]


def _roll_divided(model: ClipTransformer, weights: Weights, grid: Grid) -> Tensor:
    spaces = _spaces(model, weights)
    times = [weights[f"layers.{i}.time_attn"] for i in range(len(spaces))]
    row = _first_row(model, spaces[0], 1 + grid[0] * grid[1] * grid[2])
    return through_divided(row, times, spaces)[1:]


def _roll_by_frame(model: ClipTransformer, weights: Weights, grid: Grid) -> Tensor:
    """The head averages the frames."""
    spaces = _spaces(model, weights)
    rows = _first_row(model, spaces[0], spaces[0].shape[-1]).expand(grid[0], -1) / grid[0]
    return through_joint(rows, spaces)[:, 1:]


def _roll_factorised(model: ClipTransformer, weights: Weights, grid: Grid) -> Tensor:
    """Back through the encoder of moments, and from each moment to its patches; the class token that moments
    are given is that of the first one.
    """
    assert isinstance(model, ViViT)
    times = [weights[f"time_layers.{i}.attn"][0] for i in range(len(model.time_layers))]
    row = through_joint(_first_row(model, times[0], times[0].shape[-1]), times)
    spaces = _spaces(model, weights)
    num_patches = grid[1] * grid[2]
    rows = torch.cat(
        (torch.zeros_like(row[1:, None]), row[1:, None].expand(-1, num_patches) / num_patches), 1
    )
    rows[0, 0] = row[0]
    return through_joint(rows, spaces)[:, 1:]


# --------------------------------------------------------------------------------------- MViT and MaskFeat


def _of_pyramid(
    model: MViTTrunk, clip: Tensor, weights: Weights, block: int, logits: NDArray[Any]
) -> AttentionMaps:
    frames, height, width = clip.shape[2:]
    blocks, grid = [], model.config.patches_of(frames, height, width)
    first = grid
    for i, layer in enumerate(model.layers):
        attention = layer.attn
        assert isinstance(attention, PooledAttention)
        q_stride, own = int(layer.q_stride), weights[f"layers.{i}.attn"][0]  # type: ignore[arg-type]
        blocks.append(PooledBlock(own, grid, pool_between(q_stride), pool_between(_stride(attention.pool_k))))
        grid = pooled_grid(grid, q_stride)
    shown, reads_class = blocks[block], getattr(model.config, "readout", "mean") == "class"
    key_grid = tuple(shown.pool_k(torch.zeros(1, 1, *shown.grid)).shape[2:])
    rows = shown.weights[:, 0] if reads_class else shown.weights[:, 1:].mean(1)
    last = blocks[-1].weights
    row = last.new_zeros(last.shape[1])
    row[:1], row[1:] = (1, 0) if reads_class else (0, 1 / (len(row) - 1))
    rollout = through_pooled(row, blocks)[1:]
    even = through_pooled(row, [one.looking_evenly() for one in blocks])[1:]
    rollout = rollout / even * even.mean()
    return AttentionMaps(
        block=block,
        num_blocks=len(blocks),
        heads=_plain(rows[:, 1:].reshape(-1, *key_grid)),
        rollout=_plain(rollout.reshape(first)),
        in_time=None,
        steps=_steps(clip, first),
        key_steps=_steps(clip, key_grid),
        logits=logits,
    )


def _stride(pool: nn.Module | None) -> int:
    """Of height and width."""
    return 1 if pool is None else int(pool.conv.stride[1])  # type: ignore[index]


def _steps(clip: Tensor, grid: Sequence[int]) -> tuple[int, int]:
    return stride_of(clip.shape[2], grid[0]), stride_of(clip.shape[3], grid[1])
