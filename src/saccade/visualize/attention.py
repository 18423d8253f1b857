"""What a transformer attends to in a clip: the attention of every head of a block, and the rollout of all.

Shape letters: T moments (frames or tubelets), P = h w patches of one moment, K classes. A moment of an MViT
is a step of its patches' convolution.
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
    """The attention of one clip.

    Attributes:
        block: of the attention in ``heads`` and ``in_time``; num_blocks: of the network.
        heads: (heads, T, h, w), the spatial attention weights of one block: those of the class token, or,
            where the head does not read it, the mean over all query patches; of an MViT over pooled keys.
        rollout: (T, h, w), weights of the whole network; they and that of the class token add up to 1. For an
            MViT, whose patches are not reached equally, relative to the rollout of uniform attention.
        in_time: (heads, T, T) where the network has temporal attention, queries first; the mean over patches.
            For a factorised ViViT that of the last block of its temporal encoder.
        steps: (frames, pixels) between cells where the first is centred on the first pixel, as with strided
            convolutions; None: cells divide the clip evenly.
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
    """Compute the attention of one clip.

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
    """What the head reads: the class token, or all others equally."""
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
    even = through_pooled(row, [one.uniform() for one in blocks])[1:]
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


# ---------------------------------------------------------------------------------------------------- rollout
#
# How much of what a transformer reads out comes from where. Abnar & Zuidema 2020, "Quantifying Attention
# Flow in Transformers", arXiv 2005.00928: the output of a block is taken for half its input and half what
# its heads, on average, attend to; the blocks' matrices are multiplied. Only the row of what is read out is
# needed: it is carried back from block to block, and no matrix of all tokens by all tokens is made.
#
# Shape letters: N = 1 + T P tokens, the class token first.


Grid = tuple[int, int, int]


def through_joint(row: Tensor, weights: Sequence[Tensor]) -> Tensor:
    """Blocks in which all tokens meet: a row (..., N), weights (..., heads, N, N) block by block -> (..., N).

    Also of blocks that look at moments one by one, with a row for each: (T, 1 + P).
    """
    for block in reversed(weights):
        row = 0.5 * row + 0.5 * torch.einsum("...n,...nm->...m", row, block.mean(-3))
    return row


def through_divided(row: Tensor, in_time: Sequence[Tensor], in_space: Sequence[Tensor]) -> Tensor:
    """Blocks with attention in time and then in space (`saccade.layers.transformer.DividedBlock`).

    Each is two steps, one for either attention. The class token has no part in time; in space every moment
    has a copy of it, and what becomes of them is averaged.

    Shapes: row (N,); in time (P, heads, T, T) and in space (T, heads, 1 + P, 1 + P), block by block -> (N,).
    """
    num_times = len(in_space[0])
    for time, space in zip(reversed(in_time), reversed(in_space), strict=True):
        frames = space.mean(1)
        token, patches = row[:1], row[1:].unflatten(0, (num_times, -1))
        rows = torch.cat((token.expand(num_times, 1) / num_times, patches), 1)
        seen = torch.einsum("tn,tnm->tm", rows, frames)
        token = 0.5 * token + 0.5 * seen[:, 0].sum(0, keepdim=True)
        patches = 0.5 * patches + 0.5 * seen[:, 1:]
        patches = 0.5 * patches + 0.5 * torch.einsum("tp,pts->sp", patches, time.mean(1))
        row = torch.cat((token, patches.flatten()))
    return row


@dataclass(frozen=True, eq=False)
class PooledBlock:
    """A block whose queries and keys are pooled (`saccade.models.mvit.MViTBlock`).

    Attributes:
        weights: (heads, 1 + queries, 1 + keys).
        grid: of the tokens it is given.
        pool_q: from a map (1, 1, *grid) to that of its queries and of its shortcut, where every value is a
            mean over patches; pool_k: the same to its keys.
    """

    weights: Tensor
    grid: Grid
    pool_q: Callable[[Tensor], Tensor]
    pool_k: Callable[[Tensor], Tensor]

    def uniform(self) -> PooledBlock:
        """The same block with uniform attention."""
        return replace(self, weights=torch.full_like(self.weights, 1 / self.weights.shape[-1]))


def through_pooled(row: Tensor, blocks: Sequence[PooledBlock]) -> Tensor:
    """A row over the last block's tokens -> over the tokens (1 + t h w,) that the first one is given.

    A pooled key, or a pooled shortcut, counts as a fraction of each patch that it is the mean of.
    """
    for block in reversed(blocks):
        keys = row @ block.weights.mean(0)
        token = 0.5 * row[:1] + 0.5 * keys[:1]
        patches = 0.5 * spread_back(row[1:], block.pool_q, block.grid)
        patches = patches + 0.5 * spread_back(keys[1:], block.pool_k, block.grid)
        row = torch.cat((token, patches))
    return row


def spread_back(values: Tensor, pool: Callable[[Tensor], Tensor], grid: Grid) -> Tensor:
    """Distribute values of pooled cells over the patches they are the mean of: (cells,) -> (patches,)."""
    with torch.enable_grad():
        patches = torch.zeros(1, 1, *grid, dtype=values.dtype, device=values.device, requires_grad=True)
        pooled = pool(patches)
        (shares,) = torch.autograd.grad(pooled, patches, values.detach().reshape(pooled.shape))
    return shares.flatten()


def pool_between(stride: int) -> Callable[[Tensor], Tensor]:
    """Pooling by ``stride`` in height and width, for rollout: each cell is the mean of the patches around the
    one it stands on, with weights that fall linearly to 0 at the next cell's.

    Whatever the window of a convolution: one with more stride than width would see spots of the clip alone.
    """
    if stride == 1:
        return lambda x: x
    ramp = 1 - torch.arange(1 - stride, stride).abs() / stride
    kernel = (ramp[:, None] * ramp)[None, None, None]

    def pool(x: Tensor) -> Tensor:
        weights = kernel.to(x)
        how: dict[str, Any] = {"stride": (1, stride, stride), "padding": (0, stride - 1, stride - 1)}
        return F.conv3d(x, weights, **how) / F.conv3d(torch.ones_like(x), weights, **how)

    return pool


# --------------------------------------------------------------------------------------------------- pictures


_LEFT, _TOP, _SIDE, _STEP = 0.9, 0.98, 1.16, 1.5  # inches


def attention_rows(found: AttentionMaps, heads: str) -> list[MapRow]:
    """The rollout, and of the block's heads ``all``, ``none``, their ``mean``, or numbers such as ``0,3,5``.

    Raises:
        UsageError: there are no such heads.
    """
    rows = [attention_row("rollout", found.rollout, found.steps)]
    if heads == "none":
        return rows
    rows.append(attention_row("mean of heads", found.heads.mean(0), found.key_steps))
    numbers = [] if heads == "mean" else range(len(found.heads)) if heads == "all" else _numbers(heads, found)
    return rows + [
        attention_row(f"head {number}", found.heads[number], found.key_steps) for number in numbers
    ]


def _numbers(text: str, found: AttentionMaps) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and int(part) < len(found.heads) for part in parts):
        raise UsageError(f"heads {text}: all, none, mean, or numbers from 0 to {len(found.heads) - 1}")
    return [int(part) for part in parts]


def time_row(found: AttentionMaps) -> MapRow:
    """The fraction of the rollout at each moment, for the chart below a sheet."""
    shares = found.rollout.sum((1, 2))
    return MapRow("rollout in time", np.asarray(shares / shares.sum())[:, None, None])


def attention_row(title: str, weights: NDArray[Any], steps: tuple[int, int] | None) -> MapRow:
    """Attention weights (T, h, w) as a row, scaled to 0..1, with the ratio of the largest to uniform
    attention.
    """
    least, most = float(weights.min()), float(weights.max())
    total = float(weights.sum())
    spread = (weights - least) / (most - least) if most > least else np.zeros_like(weights)
    times = most * weights.size / total if total > 0 else 1.0
    return MapRow(title, np.asarray(spread, np.float32), f"≤ {times:.1f}× uniform", steps)


def time_chart(
    in_time: NDArray[Any], seconds: Sequence[float] | NDArray[Any], *, title: str, subtitle: str = ""
) -> Figure:
    """Which moment attends to which: a square for each head and one for their mean. Each row of a square is a
    query; its weights add up to 1 where there is no class token.

    Args:
        in_time: (heads, T, T), queries first.
        seconds: when the moments are.
    """
    panels = [("mean of heads", in_time.mean(0))]
    panels += [(f"head {number}", weights) for number, weights in enumerate(in_time)]
    columns = min(len(panels), 7)
    rows = ceil(len(panels) / columns)
    width, height = max(_LEFT + columns * _STEP + 0.8, 5.4), _TOP + rows * _STEP + 0.3
    highest = float(in_time.max())
    with styled():
        figure = Figure(figsize=(width, height))

        def box(x: float, y: float, wide: float, tall: float) -> tuple[float, float, float, float]:
            return x / width, 1 - (y + tall) / height, wide / width, tall / height

        figure.text(*box(0.12, 0.1, 0, 0)[:2], title, fontsize=14, fontweight="bold", va="top")
        figure.text(*box(0.12, 0.37, 0, 0)[:2], subtitle, fontsize=11, color=GREY, va="top")
        for place, (name, weights) in enumerate(panels):
            row, column = divmod(place, columns)
            axes = figure.add_axes(box(_LEFT + column * _STEP, _TOP + row * _STEP, _SIDE, _SIDE))
            axes.imshow(weights, cmap=HEAT, vmin=0, vmax=highest, interpolation="nearest")
            axes.set_title(name, fontsize=10.5, fontweight="normal", pad=4)
            axes.grid(visible=False)
            ends = [0, len(seconds) - 1]
            names = [f"{seconds[end]:.1f} s" for end in ends] if place == 0 else ["", ""]
            axes.set_xticks(ends, names, fontsize=9)
            axes.set_yticks(ends, names, fontsize=9)
            if place == 0:
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
