"""Config of MViT: fields, their checks, and the resulting shapes of the blocks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from saccade.errors import ConfigError
from saccade.layers.pooled_attention import Grid, Kernel, pooled_grid
from saccade.models.checks import check_choice, check_count, check_flag, check_number

PATCH_KERNEL = (3, 7, 7)
PATCH_STRIDE = (2, 4, 4)
PATCH_PADDING = (1, 3, 3)

Positions = Literal["absolute", "relative"]
PoolKernel = Literal["3x3x3", "stride"]
WidenIn = Literal["mlp", "attention"]
Readout = Literal["class", "mean"]
Init = Literal["pyslowfast", "pytorchvideo", "scaled"]


class BlockShape(NamedTuple):
    """The shape of one block; ``grid`` is the grid of its input tokens."""

    in_dim: int
    attention_dim: int
    out_dim: int
    num_heads: int
    q_kernel: Kernel | None
    q_stride: int
    kv_kernel: Kernel | None
    kv_stride: int
    grid: Grid


@dataclass(frozen=True, kw_only=True)
class MViTTrunkConfig:
    """Config of stem and blocks; the default is MViT-B 16x4.

    An invalid field raises `ConfigError` with its name.
    """

    num_frames: int = 16
    """Number of frames of a clip; sets the number of temporal positions."""
    stride: int = 4
    """Frame stride at 30 frames per second. No layer depends on it."""
    train_crop: int = 224
    """Side of the training crop in pixels; sets the number of spatial positions."""
    depth: int = 16
    """Number of blocks."""
    embed_dim: int = 96
    """Channels of the first block."""
    num_heads: int = 1
    """Heads of the first block."""
    widen_at: tuple[int, ...] = (1, 3, 14)
    """Indices of the blocks with twice the channels and heads of the previous one, as a sequence or as text
    such as "1,3,14"."""
    widen_in: WidenIn = "mlp"
    """Layer that increases the channels for a wider block: the MLP of the previous block (MViT), or the
    attention of the block (MViTv2)."""
    pool_q_at: tuple[int, ...] = (1, 3, 14)
    """Indices of the blocks that pool queries, which halves height and width of the map."""
    pool_every_q: bool = False
    """Pool the queries of the other blocks with stride 1 (MViTv2)."""
    kv_stride: int = 8
    """Spatial stride of the keys and values of the first block; halved with the map, so their number is
    constant."""
    pool_kernel: PoolKernel = "3x3x3"
    """Kernel of all poolings. "stride": 1 x (stride + 1) x (stride + 1), and no pooling with stride 1, as
    PySlowFast configures MViT-B 32x3."""
    residual_pooling: bool = False
    """Add the pooled queries to the output of the attention (MViTv2)."""
    positions: Positions = "absolute"
    """Absolute positions of the patches (MViT), or relative positions in the attention (MViTv2)."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLPs as a multiple of the attention width."""
    pool_norm_eps: float = 1e-6
    """Eps of the norms after pooling: 1e-6 in PySlowFast, 1e-5 in the first MViT of PyTorchVideo."""
    drop_path: float = 0.2
    """Stochastic depth rate of the last block; grows linearly from 0."""
    decay_positions: bool = True
    """Apply weight decay to class token, positions and tables, as in the Kinetics configs of PySlowFast."""
    init: Init = "pyslowfast"
    """Initialisation; "scaled" is for small networks. See `saccade.models.mvit.init_trunk`."""

    def __post_init__(self) -> None:
        for name in ("num_frames", "stride", "train_crop", "depth", "embed_dim", "num_heads", "kv_stride"):
            check_count(name, getattr(self, name))
        for name in ("widen_at", "pool_q_at"):
            object.__setattr__(self, name, _checked_blocks(name, getattr(self, name), self.depth))
        if self.embed_dim % self.num_heads:
            raise ConfigError(
                f"embed_dim must be a multiple of num_heads, got {self.embed_dim} for {self.num_heads}"
            )
        check_number("mlp_ratio", self.mlp_ratio, above=0.0)
        check_number("pool_norm_eps", self.pool_norm_eps, above=0.0)
        check_number("drop_path", self.drop_path, at_least=0.0, below=1.0)
        for name in ("pool_every_q", "residual_pooling", "decay_positions"):
            check_flag(name, getattr(self, name))
        check_choice("pool_kernel", self.pool_kernel, get_args(PoolKernel))
        if self.pool_kernel == "stride" and self.kv_stride & (self.kv_stride - 1):
            raise ConfigError(
                f'kv_stride must be a power of two with pool_kernel "stride", got {self.kv_stride}'
            )
        check_choice("widen_in", self.widen_in, get_args(WidenIn))
        check_choice("positions", self.positions, get_args(Positions))
        check_choice("init", self.init, get_args(Init))

    @property
    def patch_grid(self) -> Grid:
        """Patches of the configured clip along time, height and width."""
        return self.patches_of(self.num_frames, self.train_crop, self.train_crop)

    @staticmethod
    def patches_of(frames: int, height: int, width: int) -> Grid:
        """Patches of a clip, rounded up."""
        t, h, w = (-(-n // s) for n, s in zip((frames, height, width), PATCH_STRIDE, strict=True))
        return t, h, w

    @property
    def clip_multiple(self) -> tuple[int, int]:
        """(frames, pixels): sizes of clips must be multiples of these for whole maps."""
        return PATCH_STRIDE[0], PATCH_STRIDE[1] * 2 ** len(self.pool_q_at)

    def block_shapes(self) -> list[BlockShape]:
        """The blocks, first to last."""
        shapes = []
        grid, dim, num_heads, kv_stride = self.patch_grid, self.embed_dim, self.num_heads, self.kv_stride
        for i in range(self.depth):
            num_heads *= 2 if i in self.widen_at else 1
            if self.widen_in == "attention":
                attention_dim = out_dim = dim * (2 if i in self.widen_at else 1)
            else:
                attention_dim, out_dim = dim, dim * (2 if i + 1 in self.widen_at else 1)
            q_stride = 2 if i in self.pool_q_at else 1
            kv_stride = max(kv_stride // q_stride, 1)
            q_kernel = self._kernel(q_stride) if q_stride > 1 or self.pool_every_q else None
            pooling = (q_kernel, q_stride, self._kernel(kv_stride), kv_stride)
            shapes.append(BlockShape(dim, attention_dim, out_dim, num_heads, *pooling, grid))
            dim, grid = out_dim, pooled_grid(grid, q_stride)
        return shapes

    def _kernel(self, stride: int) -> Kernel | None:
        if self.pool_kernel == "3x3x3":
            return 3, 3, 3
        return (1, stride + 1, stride + 1) if stride > 1 else None

    @property
    def last_grid(self) -> Grid:
        """The output grid of the last block for the configured clip."""
        last = self.block_shapes()[-1]
        return pooled_grid(last.grid, last.q_stride)


@dataclass(frozen=True, kw_only=True)
class MViTConfig(MViTTrunkConfig):
    """Config of an MViT; the default is MViT-B 16x4."""

    readout: Readout = "class"
    """Input of the classifier: the class token, or the mean of the patches."""
    dropout: float = 0.5
    """Dropout before the classifier."""
    head_init_scale: float = 1.0
    """Multiplier on the initial weights of the classifier."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("readout", self.readout, get_args(Readout))
        check_number("dropout", self.dropout, at_least=0.0, below=1.0)
        check_number("head_init_scale", self.head_init_scale, at_least=0.0)


def _checked_blocks(name: str, blocks: Any, depth: int) -> tuple[int, ...]:
    """Ascending block indices as a tuple, from a sequence or from text; else `ConfigError`."""
    entries = [part for part in blocks.split(",") if part.strip()] if isinstance(blocks, str) else blocks
    try:
        numbers = tuple(int(entry) if isinstance(entry, str) else entry for entry in entries)
    except (TypeError, ValueError):
        numbers = (-1,)
    valid = all(type(number) is int and 1 <= number < depth for number in numbers)
    if not valid or list(numbers) != sorted(set(numbers)):
        raise ConfigError(
            f"{name} must be ascending block indices from 1 to {depth - 1}, e.g. 1,3,14; got {blocks!r}"
        )
    return numbers
