"""MViT and MViTv2: multiscale transformers, whose maps get coarser and wider with depth.

Papers: "Multiscale Vision Transformers", Haoqi Fan, Bo Xiong, Karttikeya Mangalam, Yanghao Li, Zhicheng Yan,
Jitendra Malik, Christoph Feichtenhofer, ICCV 2021, arXiv 2104.11227; "MViTv2: Improved Multiscale Vision
Transformers for Classification and Detection", Li et al., CVPR 2022, arXiv 2112.01526. Details that
they do not give follow PySlowFast (github.com/facebookresearch/SlowFast) and PyTorchVideo; no code is copied.

Shape letters: B clips, T frames, H and W pixels, t h w the grid of patches, N = 1 + t h w tokens (the class
token first, then the patches, time slowest), C channels, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saccade.layers import DropPath
from saccade.layers.pooled_attention import Grid, PooledAttention, resized_table
from saccade.layers.position import resize_loaded, resize_space, resize_time
from saccade.models.base import VideoModel, check_clips
from saccade.models.mvit_config import (
    PATCH_KERNEL,
    PATCH_PADDING,
    PATCH_STRIDE,
    BlockShape,
    MViTConfig,
    MViTTrunkConfig,
    Readout,
)
from saccade.models.registry import config_of, register_model

NORM_EPS = 1e-6
POSITIONS = ("stem.cls_token", "stem.cls_position", "stem.space", "stem.time")
TABLES = ("relative.time", "relative.height", "relative.width")


class Tokens(NamedTuple):
    """Tokens (B, N, C) and the grid of their patches, as passed from block to block."""

    x: Tensor
    grid: Grid

    def to_map(self) -> Tensor:
        """The patches as a map (B, C, t, h, w), without the class token."""
        return self.x[:, 1:].transpose(1, 2).unflatten(2, self.grid)


# ---------------------------------------------------------------------------------------------------- blocks


class MViTStem(nn.Module):
    """Overlapping patches by a strided convolution, a class token, and learned positions.

    Positions are the sum of one in space and one in time, interpolated (bicubic and linear) for clips of
    other sizes than ``grid``. Models with relative positions have none here.

    Shapes: (B, 3, T, H, W) -> N tokens of C channels.
    """

    def __init__(self, dim: int, grid: Grid, *, absolute: bool) -> None:
        super().__init__()
        self.grid = grid
        self.patches = nn.Conv3d(3, dim, PATCH_KERNEL, PATCH_STRIDE, PATCH_PADDING)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.space: nn.Parameter | None = None
        self.time: nn.Parameter | None = None
        self.cls_position: nn.Parameter | None = None
        if absolute:
            self.space = nn.Parameter(torch.zeros(1, grid[1] * grid[2], dim))
            self.time = nn.Parameter(torch.zeros(1, grid[0], dim))
            self.cls_position = nn.Parameter(torch.zeros(1, 1, dim))

    def forward(self, x: Tensor) -> Tokens:
        return self.with_class_token(self.patches(x))

    def with_class_token(self, patches: Tensor) -> Tokens:
        """The tokens of a map of patches (B, C, t, h, w)."""
        grid = (patches.shape[2], patches.shape[3], patches.shape[4])
        cls_token: Tensor = self.cls_token
        x = patches.flatten(2).transpose(1, 2)
        if self.space is not None and self.time is not None and self.cls_position is not None:
            space = resize_space(self.space, self.grid[1:], grid[1:])
            time = resize_time(self.time, grid[0])
            x = x + (time[:, :, None] + space[:, None]).flatten(1, 2)
            # Added before, not after, torch.cat: of one clip the gradients of token and position would be
            # views of one memory, and what is added to the one would be added to the other.
            cls_token = cls_token + self.cls_position
        return Tokens(torch.cat([cls_token.expand(patches.shape[0], -1, -1), x], 1), grid)


class MViTBlock(nn.Module):
    """Norm, pooled attention, norm, two linear layers with GELU; both parts residual.

    Where queries are pooled, the shortcut is max-pooled with the same stride. Where the width changes, the
    shortcut of that part is a linear layer on the normalised tokens.

    Shapes: (B, N, in) -> (B, N', out), and the grid.
    """

    def __init__(self, shape: BlockShape, config: MViTTrunkConfig, *, drop_path: float) -> None:
        super().__init__()
        self.q_stride = shape.q_stride
        self.widens_first = shape.attention_dim != shape.in_dim
        self.norm1 = nn.LayerNorm(shape.in_dim, eps=NORM_EPS)
        self.attn = PooledAttention(
            shape.in_dim,
            shape.attention_dim,
            shape.num_heads,
            q_kernel=shape.q_kernel,
            q_stride=shape.q_stride,
            kv_kernel=shape.kv_kernel,
            kv_stride=shape.kv_stride,
            residual=config.residual_pooling,
            relative_on=shape.grid if config.positions == "relative" else None,
            norm_eps=config.pool_norm_eps,
        )
        self.norm2 = nn.LayerNorm(shape.attention_dim, eps=NORM_EPS)
        hidden = int(shape.attention_dim * config.mlp_ratio)
        self.mlp = nn.Sequential(
            nn.Linear(shape.attention_dim, hidden), nn.GELU(), nn.Linear(hidden, shape.out_dim)
        )
        widens = shape.out_dim != shape.in_dim
        self.widen = nn.Linear(shape.in_dim, shape.out_dim) if widens else None
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, tokens: Tokens) -> Tokens:
        x, grid = tokens
        y = self.norm1(x)
        attended, q_grid = self.attn(y, grid)
        if self.widen is not None and self.widens_first:
            x = self.widen(y)
        x = max_pooled(x, grid, self.q_stride) + self.drop_path(attended)
        y = self.norm2(x)
        if self.widen is not None and not self.widens_first:
            x = self.widen(y)
        return Tokens(x + self.drop_path(self.mlp(y)), q_grid)


def max_pooled(x: Tensor, grid: Grid, stride: int) -> Tensor:
    """Tokens (B, N, C) with their patches max-pooled, kernel 3x3 and stride ``stride``."""
    if stride == 1:
        return x
    _, h, w = grid
    images = x[:, 1:].reshape(-1, h, w, x.shape[-1]).permute(0, 3, 1, 2)
    pooled = F.max_pool2d(images, stride + 1, stride, (stride + 1) // 2).permute(0, 2, 3, 1)
    return torch.cat([x[:, :1], pooled.reshape(x.shape[0], -1, x.shape[-1])], 1)


class MViTHead(nn.Module):
    """Norm, class token or mean of the patches, dropout, linear classifier: (B, N, C) -> (B, K).

    The class token is selected after the norm, the mean is taken before it, as in PySlowFast.
    """

    def __init__(self, dim: int, num_classes: int, *, readout: Readout, dropout: float) -> None:
        super().__init__()
        self.readout = readout
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS)
        self.dropout = nn.Dropout(dropout)
        self.classifier: nn.Module = nn.Linear(dim, num_classes) if num_classes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, 0] if self.readout == "class" else x[:, 1:].mean(1)
        logits: Tensor = self.classifier(self.dropout(self.norm(x)))
        return logits


# ----------------------------------------------------------------------------------------------------- model


class MViTTrunk(VideoModel):
    """Stem and blocks of MViT and MaskFeat. A stage is the stem or a block.

    Clips may have any size; with multiples of ``clip_multiple`` no pixels are lost.
    """

    stem_type: ClassVar[type[MViTStem]] = MViTStem

    config: MViTTrunkConfig

    def __init__(self, config: MViTTrunkConfig, num_classes: int, *, model_name: str) -> None:
        width = config.block_shapes()[-1].out_dim
        super().__init__(config, num_classes, model_name=model_name, num_features=width)
        self.clip_multiple = config.clip_multiple
        absolute = config.positions == "absolute"
        self.stem = self.stem_type(config.embed_dim, config.patch_grid, absolute=absolute)
        rates = torch.linspace(0, config.drop_path, config.depth, device="cpu").tolist()
        self.layers = nn.ModuleList(
            MViTBlock(shape, config, drop_path=rate)
            for shape, rate in zip(config.block_shapes(), rates, strict=True)
        )

    def stages(self) -> list[nn.Module]:
        return [self.stem, *self.layers]

    def no_weight_decay(self) -> set[str]:
        if self.config.decay_positions:
            return set()
        return {
            name
            for name, _ in self.named_parameters()
            if name in POSITIONS or _is_table(name) or "_token" in name
        }

    def forward_features(self, x: Tensor) -> Tensor:
        """Tokens (B, N, C) of the last block, the class token first."""
        check_clips(x)
        return self._through_blocks(self.stem(x)).x

    def _through_blocks(self, tokens: Tokens) -> Tokens:
        for block in self.layers:
            tokens = block(tokens)
        return tokens

    def forward_intermediates(self, x: Tensor, *, indices: Sequence[int] | None = None) -> list[Tensor]:
        """Outputs of the stages as maps (B, C, t, h, w) without the class token; see `VideoModel`."""
        return [tokens.to_map() for tokens in super().forward_intermediates(x, indices=indices)]  # type: ignore[attr-defined]

    def resize_positions(self, tensors: dict[str, Tensor]) -> list[str]:
        """Interpolate positions and tables for this clip size; grids are assumed to be square."""
        target = self.state_dict()
        changed = 0
        for name, table in tensors.items():
            wanted = target.get(name)
            if wanted is None or wanted.shape == table.shape or wanted.shape[-1] != table.shape[-1]:
                continue
            if _is_table(name):
                tensors[name] = resized_table(table, len(wanted))
            elif name in ("stem.time", "stem.space"):
                resized = resize_loaded(table, wanted, square=name == "stem.space")
                if resized is None:
                    continue
                tensors[name] = resized
            else:
                continue
            changed += 1
        return [f"{changed} position tensors were interpolated to this clip size"] if changed else []


def _is_table(name: str) -> bool:
    return name.endswith(TABLES)


class MViT(MViTTrunk):
    """The model of an `MViTConfig`: normalised clips (B, 3, T, H, W) -> logits (B, K)."""

    config: MViTConfig

    def __init__(
        self, config: MViTConfig, num_classes: int = 400, *, model_name: str = "mvit_base_16x4"
    ) -> None:
        """Args:
        model_name: the registered variant that ``config`` is derived from.
        """
        super().__init__(config, num_classes, model_name=model_name)
        self.head: MViTHead = MViTHead(
            self.num_features, num_classes, readout=config.readout, dropout=config.dropout
        )
        init_trunk(self)
        if isinstance(self.head.classifier, nn.Linear):
            self.init_classifier(self.head.classifier)

    @torch.no_grad()
    def init_classifier(self, linear: nn.Linear) -> None:
        nn.init.trunc_normal_(linear.weight, std=0.02)
        nn.init.constant_(linear.bias, _BIAS[self.config.init])
        for parameter in linear.parameters():
            parameter.mul_(self.config.head_init_scale)


_BIAS = {"pyslowfast": 0.02, "pytorchvideo": 0.0, "scaled": 0.0}
_SCALED_POSITIONS = 0.5


@torch.no_grad()
def init_trunk(model: MViTTrunk) -> None:
    """Linear layers, positions and tables from a normal distribution of std 0.02, truncated at +-2.

    PySlowFast also draws convolutions from it and sets the biases of linear layers and norms to 0.02.
    PyTorchVideo sets biases to 0 and keeps PyTorch's convolutions; VideoTransformer-pytorch then draws the
    patch convolution by Xavier's rule. A std of 0.02 suits hundreds of channels: with 32, activations vanish
    and positions are negligible beside the patches. "scaled", an addition of this project (docs/mvit.md), is
    VideoTransformer-pytorch's with std 1 / sqrt(inputs) for linear layers and 0.5 for positions and class
    token.
    """
    init = model.config.init
    bias, all_alike, scaled = _BIAS[init], init == "pyslowfast", init == "scaled"
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=module.in_features**-0.5 if scaled else 0.02)
            nn.init.constant_(module.bias, bias)
        elif isinstance(module, nn.LayerNorm):
            nn.init.ones_(module.weight)
            nn.init.constant_(module.bias, bias)
        elif isinstance(module, nn.Conv3d) and all_alike:
            nn.init.trunc_normal_(module.weight, std=0.02)
    if not all_alike:
        nn.init.xavier_uniform_(model.stem.patches.weight.flatten(1))
    for name, parameter in model.named_parameters():
        if _is_table(name):
            nn.init.trunc_normal_(parameter, std=0.02)
        elif name in POSITIONS:
            nn.init.trunc_normal_(parameter, std=_SCALED_POSITIONS if scaled else 0.02)


# -------------------------------------------------------------------------------------------- named variants

_LARGER = {"depth": 24, "widen_at": (2, 5, 21), "pool_q_at": (2, 5, 21)}
_LONGER: dict[str, Any] = {**_LARGER, "num_frames": 32, "stride": 3, "drop_path": 0.3}
_V2: dict[str, Any] = {
    "positions": "relative",
    "pool_every_q": True,
    "residual_pooling": True,
    "widen_in": "attention",
}
MASKFEAT_V1: dict[str, Any] = {"pool_q_at": (1, 3), "pool_norm_eps": 1e-5, "decay_positions": False}
MASKFEAT_V1 |= {"init": "pytorchvideo", "drop_path": 0.0}

CONFIGS: dict[str, MViTConfig] = {
    "mvit_base_16x4": MViTConfig(),
    "mvit_base_32x3": MViTConfig(**_LONGER, pool_kernel="stride"),
    "mvitv2_small": MViTConfig(**_V2),
    "mvitv2_base": MViTConfig(**_V2, **_LONGER),
    "mvit_base_maskfeat": MViTConfig(**MASKFEAT_V1, dropout=0.0),
    "mvitv2_small_maskfeat": MViTConfig(
        **_V2 | {"widen_in": "mlp"}, readout="mean", dropout=0.0, drop_path=0.1, head_init_scale=0.001
    ),
}


_MVIT = {
    "source": "Fan et al., MViT, ICCV 2021, arXiv 2104.11227; github.com/facebookresearch/SlowFast",
    "licence": "Apache-2.0",
}
_MVITV2 = {
    "source": "Li et al., MViTv2, CVPR 2022, arXiv 2112.01526; github.com/facebookresearch/SlowFast",
    "licence": "Apache-2.0",
}
MASKFEAT_MX_MARK = {
    "source": "Wei et al., MaskFeat, CVPR 2022, arXiv 2112.09133; "
    "github.com/mx-mark/VideoTransformer-pytorch",
    "licence": "none stated",
}
MASKFEAT_SLOWFAST = {
    "source": "Wei et al., MaskFeat, CVPR 2022, arXiv 2112.09133; github.com/facebookresearch/SlowFast",
    "licence": "Apache-2.0",
}


# All test at the training crop, the centre of 256 pixels.
_FACTS: dict[str, Any] = {
    "config": CONFIGS,
    "train_short_side": (256, 320),
    "top1_source": "PySlowFast model zoo",
}


def _create(name: str, num_classes: int, overrides: dict[str, Any]) -> MViT:
    return MViT(config_of(name, overrides), num_classes, model_name=name)


@register_model(**_FACTS, **_MVIT, params=36_610_672, gmacs=70.599407808, top1=(("5x1", 78.4),))
def mvit_base_16x4(num_classes: int = 400, **overrides: Any) -> MViT:
    """MViT-B 16x4: 16 blocks, 96 to 768 channels, maps of 56 to 7 patches a side."""
    return _create("mvit_base_16x4", num_classes, overrides)


@register_model(**_FACTS, **_MVIT, params=53_115_280, gmacs=235.775815680, top1=(("5x1", 80.4),))
def mvit_base_32x3(num_classes: int = 400, **overrides: Any) -> MViT:
    """MViT-B 32x3: 24 blocks, 32 frames."""
    return _create("mvit_base_32x3", num_classes, overrides)


@register_model(**_FACTS, **_MVITV2, params=34_537_744, gmacs=68.495667348, top1=(("5x1", 81.0),))
def mvitv2_small(num_classes: int = 400, **overrides: Any) -> MViT:
    """MViTv2-S 16x4: 16 blocks, relative positions, pooled queries added to the output."""
    return _create("mvitv2_small", num_classes, overrides)


@register_model(**_FACTS, **_MVITV2, params=51_230_128, gmacs=253.143557000, top1=(("5x1", 82.9),))
def mvitv2_base(num_classes: int = 400, **overrides: Any) -> MViT:
    """MViTv2-B 32x3: 24 blocks, 32 frames."""
    return _create("mvitv2_base", num_classes, overrides)


@register_model(**_FACTS, **MASKFEAT_MX_MARK, params=36_607_888, gmacs=85.818691776)
def mvit_base_maskfeat(num_classes: int = 400, **overrides: Any) -> MViT:
    """For fine-tuning `maskfeat_mvit_base`: MViT-B that pools its queries twice, maps of 56 to 14."""
    return _create("mvit_base_maskfeat", num_classes, overrides)


@register_model(**_FACTS, **MASKFEAT_SLOWFAST, params=36_475_120, gmacs=75.433932948, top1=(("10x1", 82.2),))
def mvitv2_small_maskfeat(num_classes: int = 400, **overrides: Any) -> MViT:
    """For fine-tuning `maskfeat_mvitv2_small`: MViTv2-S that widens in its MLPs and averages patches."""
    return _create("mvitv2_small_maskfeat", num_classes, overrides)
