"""Attention maps of a transformer on a clip: the heads of one block, and the rollout over all blocks.

Shape letters: T time steps of the token grid (frames or tubelets), P = h w patches per time step, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
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
from saccade.visualize.charts import GREY, styled
from saccade.visualize.gradcam import stride_of
from saccade.visualize.overlay import HEAT, MapRow

Weights = Mapping[str, Tensor]


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """The attention maps of one clip.

    Attributes:
        block: index of the block of ``heads`` and ``temporal``.
        num_blocks: number of blocks of the network.
        heads: (heads, T, h, w), spatial attention weights of one block: those of the class token, or the mean
            over all queries if the head does not read the class token. For MViT, over pooled keys.
        rollout: (T, h, w), rollout over all blocks; together with the class token's weight it sums to 1. For
            MViT, whose pooling does not cover patches equally, relative to the rollout of uniform attention.
        temporal: (heads, T, T), temporal attention weights, queries first, mean over patches; None if the
            network has none. For a factorised ViViT, those of the last block of its temporal encoder.
        strides: (frames, pixels) between cells if the first cell is centred on the first frame and pixel, as
            with strided convolutions; None: cells divide the clip evenly.
        key_strides: the strides of ``heads``.
        logits: (K,), or (0,) for a model without classes.
    """

    block: int
    num_blocks: int
    heads: NDArray[Any]
    rollout: NDArray[Any]
    temporal: NDArray[Any] | None
    strides: tuple[int, int] | None
    key_strides: tuple[int, int] | None
    logits: NDArray[Any]


def attention_maps(model: VideoModel, clip: Tensor, *, block: int = -1) -> AttentionMaps:
    """Compute the attention maps of one clip.

    The maps are those of the token that the head reads: the class token, or the mean of the patches if the
    model is configured so. The spatial encoder of a factorised ViViT outputs the mean of each time step's
    patches, so its maps are the mean over the queries.

    Args:
        clip: (1, 3, T, H, W), normalised, on the model's device.
        block: index of the block whose heads are returned; -1 is the last.

    Raises:
        UsageError: the model has no attention, or no such block.
    """
    if clip.ndim != 5 or clip.shape[0] != 1:
        raise UsageError(f"clip must have shape (1, 3, T, H, W), got {tuple(clip.shape)}")
    if not isinstance(model, (TimeSformer, ViViT, MViTTrunk)):
        name = getattr(model, "model_name", type(model).__name__)
        raise UsageError(f"{name} has no attention to draw; try saccade visualize gradcam")
    num_blocks = len(model.layers)
    if not -num_blocks <= block < num_blocks:
        raise UsageError(f"block {block}: {model.model_name} has blocks 0 to {num_blocks - 1}")
    with evaluating(model), record_attention(model) as recorded:
        output = model(clip)
    logits = _to_numpy(output[0] if model.num_classes else output.new_zeros(0))
    weights = {name: w.float() for name, w in recorded.items()}
    compute = _pyramid_maps if isinstance(model, MViTTrunk) else _token_maps
    with torch.no_grad():
        return compute(model, clip, weights, block % num_blocks, logits)  # type: ignore[arg-type]


def _to_numpy(values: Tensor) -> NDArray[Any]:
    array: NDArray[Any] = values.detach().float().cpu().numpy()
    return array


# --------------------------------------------------------------------------------- TimeSformer and ViViT


def _token_maps(
    model: TimeSformer | ViViT, clip: Tensor, weights: Weights, block: int, logits: NDArray[Any]
) -> AttentionMaps:
    grid, kind = model.embed.token_grid(clip), _kind(model)
    rollout = {
        "divided": _rollout_divided,
        "joint": _rollout_joint,
        "space": _rollout_per_frame,
        "factorised": _rollout_factorised,
    }[kind]
    space = weights[f"layers.{block}.attn"]
    reads_class = model.config.head_pool == "class" and kind != "factorised"
    rows = space[:, :, 0] if reads_class else space[:, :, 1:].mean(2)
    heads = rows[:, :, 1:].transpose(0, 1)  # (heads, T, P), or (heads, 1, T P) for joint attention
    return AttentionMaps(
        block=block,
        num_blocks=len(model.layers),
        heads=_to_numpy(heads.reshape(-1, *grid)),
        rollout=_to_numpy(rollout(model, weights, grid).reshape(grid)),
        temporal=_temporal_attention(model, weights, block),
        strides=None,
        key_strides=None,
        logits=logits,
    )


def _kind(model: TimeSformer | ViViT) -> str:
    config: Any = model.config
    return str(config.attention)


def _temporal_attention(model: TimeSformer | ViViT, weights: Weights, block: int) -> NDArray[Any] | None:
    if _kind(model) == "divided":
        return _to_numpy(weights[f"layers.{block}.time_attn"].mean(0))
    if _kind(model) == "factorised":
        last = len(model.time_layers) - 1  # type: ignore[arg-type]
        return _to_numpy(weights[f"time_layers.{last}.attn"][0, :, 1:, 1:])
    return None


def _spatial_attention(model: ClipTransformer, weights: Weights) -> list[Tensor]:
    return [weights[f"layers.{i}.attn"] for i in range(len(model.layers))]


def _readout_row(model: ClipTransformer, like: Tensor, num_tokens: int) -> Tensor:
    """The weights with which the head reads the tokens: the class token, or all patches equally."""
    row = like.new_zeros(num_tokens)
    if model.config.head_pool == "class":
        row[0] = 1
    else:
        row[1:] = 1 / (num_tokens - 1)
    return row


def _rollout_joint(model: ClipTransformer, weights: Weights, grid: Grid) -> Tensor:
    blocks = [block[0] for block in _spatial_attention(model, weights)]
    return rollout_joint(_readout_row(model, blocks[0], blocks[0].shape[-1]), blocks)[1:]


def _rollout_divided(model: ClipTransformer, weights: Weights, grid: Grid) -> Tensor:
    spaces = _spatial_attention(model, weights)
    times = [weights[f"layers.{i}.time_attn"] for i in range(len(spaces))]
    row = _readout_row(model, spaces[0], 1 + grid[0] * grid[1] * grid[2])
    return rollout_divided(row, times, spaces)[1:]


def _rollout_per_frame(model: ClipTransformer, weights: Weights, grid: Grid) -> Tensor:
    spaces = _spatial_attention(model, weights)
    rows = _readout_row(model, spaces[0], spaces[0].shape[-1]).expand(grid[0], -1) / grid[0]
    return rollout_joint(rows, spaces)[:, 1:]


def _rollout_factorised(model: ClipTransformer, weights: Weights, grid: Grid) -> Tensor:
    """Through the temporal encoder to the time steps, then from each time step to its patches. The temporal
    encoder's class token comes from the class token of the first time step.
    """
    assert isinstance(model, ViViT)
    times = [weights[f"time_layers.{i}.attn"][0] for i in range(len(model.time_layers))]
    row = rollout_joint(_readout_row(model, times[0], times[0].shape[-1]), times)
    spaces = _spatial_attention(model, weights)
    num_patches = grid[1] * grid[2]
    rows = torch.cat(
        (torch.zeros_like(row[1:, None]), row[1:, None].expand(-1, num_patches) / num_patches), 1
    )
    rows[0, 0] = row[0]
    return rollout_joint(rows, spaces)[:, 1:]


# --------------------------------------------------------------------------------------- MViT and MaskFeat


def _pyramid_maps(
    model: MViTTrunk, clip: Tensor, weights: Weights, block: int, logits: NDArray[Any]
) -> AttentionMaps:
    frames, height, width = clip.shape[2:]
    blocks, grid = [], model.config.patches_of(frames, height, width)
    first = grid
    for i, layer in enumerate(model.layers):
        attention = layer.attn
        assert isinstance(attention, PooledAttention)
        q_stride, k_stride = int(layer.q_stride), _stride(attention.pool_k)  # type: ignore[arg-type]
        block_weights = weights[f"layers.{i}.attn"][0]
        blocks.append(PooledBlock(block_weights, grid, linear_pool(q_stride), linear_pool(k_stride)))
        grid = pooled_grid(grid, q_stride)
    chosen, reads_class = blocks[block], getattr(model.config, "readout", "mean") == "class"
    key_grid = tuple(chosen.pool_k(torch.zeros(1, 1, *chosen.grid)).shape[2:])
    rows = chosen.weights[:, 0] if reads_class else chosen.weights[:, 1:].mean(1)
    last = blocks[-1].weights
    row = last.new_zeros(last.shape[1])
    row[:1], row[1:] = (1, 0) if reads_class else (0, 1 / (len(row) - 1))
    rollout = rollout_pooled(row, blocks)[1:]
    uniform = rollout_pooled(row, [pooled.uniform() for pooled in blocks])[1:]
    rollout = rollout / uniform * uniform.mean()
    return AttentionMaps(
        block=block,
        num_blocks=len(blocks),
        heads=_to_numpy(rows[:, 1:].reshape(-1, *key_grid)),
        rollout=_to_numpy(rollout.reshape(first)),
        temporal=None,
        strides=_strides(clip, first),
        key_strides=_strides(clip, key_grid),
        logits=logits,
    )


def _stride(pool: nn.Module | None) -> int:
    """The spatial stride of a pooling module."""
    return 1 if pool is None else int(pool.conv.stride[1])  # type: ignore[index]


def _strides(clip: Tensor, grid: Sequence[int]) -> tuple[int, int]:
    return stride_of(clip.shape[2], grid[0]), stride_of(clip.shape[3], grid[1])


# ---------------------------------------------------------------------------------------------------- rollout
#
# Attention rollout: Abnar & Zuidema 2020, "Quantifying Attention Flow in Transformers", arXiv 2005.00928. The
# output of a block is modelled as half its input and half what its heads attend to on average, and the
# matrices of the blocks are multiplied. Only the row of the token that the head reads is needed, so that row
# is multiplied with one block after another, and no product of full matrices is computed.
#
# Shape letters: N = 1 + T P tokens, the class token first.


Grid = tuple[int, int, int]


def rollout_joint(row: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Rollout through blocks of joint attention: row (..., N), weights (..., heads, N, N) -> (..., N).

    Also for blocks of spatial attention, with a row for each time step: (T, 1 + P).
    """
    for block in reversed(weights):
        row = 0.5 * row + 0.5 * torch.einsum("...n,...nm->...m", row, block.mean(-3))
    return row


def rollout_divided(row: Tensor, temporal: Sequence[Tensor], spatial: Sequence[Tensor]) -> Tensor:
    """Rollout through blocks of divided attention (`saccade.layers.transformer.DividedBlock`).

    The class token takes no part in temporal attention. Spatial attention has a copy of it for each time
    step, and the copies are averaged.

    Args:
        row: (N,).
        temporal: (P, heads, T, T) per block.
        spatial: (T, heads, 1 + P, 1 + P) per block.

    Returns:
        (N,).
    """
    num_times = len(spatial[0])
    for time, space in zip(reversed(temporal), reversed(spatial), strict=True):
        token, patches = row[:1], row[1:].unflatten(0, (num_times, -1))
        rows = torch.cat((token.expand(num_times, 1) / num_times, patches), 1)
        attended = torch.einsum("tn,tnm->tm", rows, space.mean(1))
        token = 0.5 * token + 0.5 * attended[:, 0].sum(0, keepdim=True)
        patches = 0.5 * patches + 0.5 * attended[:, 1:]
        patches = 0.5 * patches + 0.5 * torch.einsum("tp,pts->sp", patches, time.mean(1))
        row = torch.cat((token, patches.flatten()))
    return row


@dataclass(frozen=True, eq=False)
class PooledBlock:
    """A block with pooled queries and keys (`saccade.models.mvit.MViTBlock`).

    Attributes:
        weights: (heads, 1 + queries, 1 + keys).
        grid: token grid of its input.
        pool_q: pools a map (1, 1, *grid) to the grid of the queries and of the shortcut; each value is a
            weighted mean over patches.
        pool_k: pools a map to the grid of the keys.
    """

    weights: Tensor
    grid: Grid
    pool_q: Callable[[Tensor], Tensor]
    pool_k: Callable[[Tensor], Tensor]

    def uniform(self) -> PooledBlock:
        """This block with uniform attention."""
        return replace(self, weights=torch.full_like(self.weights, 1 / self.weights.shape[-1]))


def rollout_pooled(row: Tensor, blocks: Sequence[PooledBlock]) -> Tensor:
    """Rollout through pooled blocks: a row over the last block's output tokens -> a row (1 + t h w,) over the
    first block's input tokens.

    The weight of a pooled key or shortcut is distributed over its patches.
    """
    for block in reversed(blocks):
        keys = row @ block.weights.mean(0)
        token = 0.5 * row[:1] + 0.5 * keys[:1]
        patches = 0.5 * unpool(row[1:], block.pool_q, block.grid)
        patches = patches + 0.5 * unpool(keys[1:], block.pool_k, block.grid)
        row = torch.cat((token, patches))
    return row


def unpool(values: Tensor, pool: Callable[[Tensor], Tensor], grid: Grid) -> Tensor:
    """The transpose of ``pool``: distribute values of pooled cells over patches, (cells,) -> (patches,)."""
    with torch.enable_grad():
        patches = torch.zeros(1, 1, *grid, dtype=values.dtype, device=values.device, requires_grad=True)
        pooled = pool(patches)
        (gradient,) = torch.autograd.grad(pooled, patches, values.detach().reshape(pooled.shape))
    return gradient.flatten()


def linear_pool(stride: int) -> Callable[[Tensor], Tensor]:
    """Pooling by ``stride`` in height and width: each cell is a weighted mean of the patches around it, with
    weights that fall linearly to 0 at the centre of the next cell.

    It replaces the pooling convolution in the rollout. A convolution whose kernel is smaller than its stride
    would reach only some of the patches.
    """
    if stride == 1:
        return lambda x: x
    ramp = 1 - torch.arange(1 - stride, stride).abs() / stride
    kernel = (ramp[:, None] * ramp)[None, None, None]

    def pool(x: Tensor) -> Tensor:
        weights = kernel.to(x)
        options: dict[str, Any] = {"stride": (1, stride, stride), "padding": (0, stride - 1, stride - 1)}
        return F.conv3d(x, weights, **options) / F.conv3d(torch.ones_like(x), weights, **options)

    return pool


# --------------------------------------------------------------------------------------------------- pictures


_LEFT, _TOP, _SIDE, _STEP = 0.9, 0.98, 1.16, 1.5  # inches


def attention_rows(maps: AttentionMaps, heads: str) -> list[MapRow]:
    """The rows of a sheet: the rollout, the mean of the heads and single heads.

    Args:
        heads: ``all``, ``none``, ``mean`` or numbers such as ``0,3,5``.

    Raises:
        UsageError: invalid heads.
    """
    rows = [attention_row("rollout", maps.rollout, maps.strides)]
    if heads == "none":
        return rows
    rows.append(attention_row("mean of heads", maps.heads.mean(0), maps.key_strides))
    return rows + [
        attention_row(f"head {number}", maps.heads[number], maps.key_strides)
        for number in _parse_heads(heads, len(maps.heads))
    ]


def _parse_heads(text: str, num_heads: int) -> list[int]:
    if text in ("mean", "all"):
        return list(range(num_heads)) if text == "all" else []
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) < num_heads for part in parts):
        raise UsageError(f"heads {text}: must be all, none, mean, or numbers from 0 to {num_heads - 1}")
    return [int(part) for part in parts]


def time_row(maps: AttentionMaps) -> MapRow:
    """The fraction of the rollout at each time step, for the chart below a sheet."""
    weights = maps.rollout.sum((1, 2))
    return MapRow("rollout in time", np.asarray(weights / weights.sum())[:, None, None])


def attention_row(title: str, weights: NDArray[Any], strides: tuple[int, int] | None) -> MapRow:
    """A row of attention weights (T, h, w) scaled to 0..1, with the ratio of the largest weight to uniform
    attention as its note.
    """
    low, high = float(weights.min()), float(weights.max())
    total = float(weights.sum())
    scaled = (weights - low) / (high - low) if high > low else np.zeros_like(weights)
    ratio = high * weights.size / total if total > 0 else 1.0
    return MapRow(title, np.asarray(scaled, np.float32), f"≤ {ratio:.1f}× uniform", strides)


def time_chart(
    temporal: NDArray[Any], seconds: Sequence[float] | NDArray[Any], *, title: str, subtitle: str = ""
) -> Figure:
    """Temporal attention matrices: one for each head and one for their mean. Rows are queries and sum to 1
    unless there is a class token.

    Args:
        temporal: (heads, T, T), queries first.
        seconds: times of the T steps.
    """
    panels = [("mean of heads", temporal.mean(0))]
    panels += [(f"head {number}", weights) for number, weights in enumerate(temporal)]
    columns = min(len(panels), 7)
    rows = ceil(len(panels) / columns)
    width, height = max(_LEFT + columns * _STEP + 0.8, 5.4), _TOP + rows * _STEP + 0.3
    highest = float(temporal.max())
    with styled():
        figure = Figure(figsize=(width, height))

        def box(x: float, y: float, wide: float, tall: float) -> tuple[float, float, float, float]:
            return x / width, 1 - (y + tall) / height, wide / width, tall / height

        figure.text(*box(0.12, 0.1, 0, 0)[:2], title, fontsize=14, fontweight="bold", va="top")
        figure.text(*box(0.12, 0.37, 0, 0)[:2], subtitle, fontsize=11, color=GREY, va="top")
        for index, (name, weights) in enumerate(panels):
            row, column = divmod(index, columns)
            axes = figure.add_axes(box(_LEFT + column * _STEP, _TOP + row * _STEP, _SIDE, _SIDE))
            axes.imshow(weights, cmap=HEAT, vmin=0, vmax=highest, interpolation="nearest")
            axes.set_title(name, fontsize=10.5, fontweight="normal", pad=4)
            axes.grid(visible=False)
            ends = [0, len(seconds) - 1]
            names = [f"{seconds[end]:.1f} s" for end in ends] if index == 0 else ["", ""]
            axes.set_xticks(ends, names, fontsize=9)
            axes.set_yticks(ends, names, fontsize=9)
            if index == 0:
                axes.set_ylabel("query", fontsize=10.5, labelpad=-14)
                axes.set_xlabel("key", fontsize=10.5, labelpad=-1)
        tall = rows * _STEP - (_STEP - _SIDE)
        bar_axes = figure.add_axes(box(_LEFT + columns * _STEP - 0.06, _TOP, 0.13, tall))
        bar: Any = figure.colorbar(ScalarMappable(Normalize(0, highest), HEAT), cax=bar_axes)
        bar.locator = MaxNLocator(3)
        bar.update_ticks()
        bar.outline.set_visible(False)
        bar_axes.tick_params(labelsize=9.5, pad=2)
        return figure
