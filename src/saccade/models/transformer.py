"""Base of TimeSformer and ViViT: common config fields and the forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from saccade.errors import ConfigError
from saccade.layers.position import resize_loaded
from saccade.layers.transformer import (
    BlockShape,
    ClipEmbedding,
    DividedBlock,
    HeadPool,
    TemporalTokens,
    TokenHead,
    TransformerBlock,
)
from saccade.models.base import VideoModel
from saccade.models.checks import check_choice, check_count, check_number

Init = Literal["vit", "scaled"]

INIT_STD = 0.02  # ViT's
SCALED_POSITIONS = 0.5


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Config of a transformer. An invalid field raises `ConfigError` with its name."""

    num_frames: int
    """Number of frames of a clip. Each time step has a learned position; others are interpolated."""
    stride: int
    """Frame stride at 30 frames per second. No layer depends on it."""
    train_crop: int = 224
    """Side of the training crop in pixels. Each patch has a learned position."""
    patch: int = 16
    """Side of a patch in pixels."""
    width: int = 768
    """Channels of a token."""
    depth: int = 12
    """Number of blocks."""
    num_heads: int = 12
    mlp_ratio: float = 4.0
    """Hidden width of the MLPs as a multiple of ``width``."""
    head_pool: HeadPool = "class"
    """Input of the classifier: the class token, or the mean of the other tokens."""
    dropout: float = 0.0
    """Dropout before the classifier."""
    token_dropout: float = 0.0
    """Dropout after the embedding, after attention, and in the MLPs."""
    attn_dropout: float = 0.0
    """Dropout of attention weights."""
    drop_path: float = 0.1
    """Stochastic depth rate of the last block; grows linearly from 0."""
    norm_eps: float = 1e-5
    """Eps of the norms in blocks. Weights of TimeSformer's authors need 1e-6."""
    head_norm_eps: float = 1e-6
    """Eps of the norm before the classifier."""
    init: Init = "vit"
    """ViT's initialisation, or "scaled" by the width of a small network; see `init_weights`."""

    def __post_init__(self) -> None:
        for name in ("num_frames", "stride", "train_crop", "patch", "width", "depth", "num_heads"):
            check_count(name, getattr(self, name))
        for name in ("mlp_ratio", "norm_eps", "head_norm_eps"):
            check_number(name, getattr(self, name), above=0.0)
        for name in ("dropout", "token_dropout", "attn_dropout", "drop_path"):
            check_number(name, getattr(self, name), at_least=0.0, below=1.0)
        check_choice("head_pool", self.head_pool, get_args(HeadPool))
        check_choice("init", self.init, get_args(Init))
        if self.width % self.num_heads:
            raise ConfigError(
                f"width must be a multiple of num_heads, got {self.width} for {self.num_heads} heads"
            )
        frames, side = self.tubelet_size
        if self.train_crop % side:
            raise ConfigError(f"train_crop must be a multiple of patch, {side}, got {self.train_crop}")
        if self.num_frames % frames:
            raise ConfigError(f"num_frames must be a multiple of tubelet, {frames}, got {self.num_frames}")

    @property
    def tubelet_size(self) -> tuple[int, int]:
        """(frames, side in pixels) of one token."""
        return 1, self.patch

    @property
    def block_shape(self) -> BlockShape:
        """Settings shared by the blocks."""
        return BlockShape(
            width=self.width,
            num_heads=self.num_heads,
            mlp_ratio=self.mlp_ratio,
            dropout=self.token_dropout,
            attn_dropout=self.attn_dropout,
            norm_eps=self.norm_eps,
        )

    def embedding(self, *, in_time: bool, per_step: bool) -> ClipEmbedding:
        """A new clip embedding, with positions in time if ``in_time``."""
        frames, side = self.tubelet_size
        return ClipEmbedding(
            self.width,
            tubelet=(frames, side),
            grid=(self.num_frames // frames, self.train_crop // side),
            in_time=in_time,
            per_step=per_step,
            dropout=self.token_dropout,
        )

    def layers(self, *, divided: bool) -> nn.ModuleList:
        """New blocks, with increasing stochastic depth."""
        return blocks_of(DividedBlock if divided else TransformerBlock, self, self.depth)

    def head(self, num_classes: int) -> TokenHead:
        """A new head."""
        return TokenHead(
            self.width,
            num_classes,
            pool=self.head_pool,
            dropout=self.dropout,
            norm_eps=self.head_norm_eps,
        )


def blocks_of(
    kind: type[TransformerBlock] | type[DividedBlock], config: TransformerConfig, depth: int
) -> nn.ModuleList:
    """``depth`` new blocks, with stochastic depth rates from 0 to ``drop_path``, linearly spaced."""
    rates = torch.linspace(0, config.drop_path, depth, device="cpu").tolist()
    return nn.ModuleList(kind(config.block_shape, rate) for rate in rates)


class ClipTransformer(VideoModel):
    """A transformer with a constant number of tokens; see its subclasses.

    Its stages are the embedding and each block; the final norm belongs to the head.
    """

    config: TransformerConfig
    prefers_channels_last: ClassVar[bool] = False  # clips are embedded once; tokens have no memory format
    embed: ClipEmbedding
    layers: nn.ModuleList
    head: TokenHead

    @property
    def clip_multiple(self) -> tuple[int, int]:  # type: ignore[override]
        return self.config.tubelet_size

    def stages(self) -> list[nn.Module]:
        return [self.embed, *self.layers]

    def stage_calls(self, x: Tensor) -> Sequence[Callable[[Tensor], Tensor]]:
        num_times = x.shape[2] // self.config.tubelet_size[0]
        return [
            partial(_divided, stage, num_times) if isinstance(stage, DividedBlock) else stage
            for stage in self.stages()
        ]

    def init_classifier(self, linear: nn.Linear) -> None:
        _init_linear(linear)

    def no_weight_decay(self) -> set[str]:
        """The class token and the spatial positions. Temporal positions decay, as in
        VideoTransformer-pytorch; the TimeSformer authors' code exempts them too.
        """
        return {"embed.cls_token", "embed.pos_embed"}

    def resize_positions(self, tensors: dict[str, Tensor]) -> list[str]:
        done = []
        for name, module in self.named_modules():
            if isinstance(module, ClipEmbedding):
                positions = [("pos_embed", 1, True), ("time_embed", 0, False)]
            elif isinstance(module, TemporalTokens):
                positions = [("time_embed", 1, False)]
            else:
                continue
            for leaf, num_class_tokens, square in positions:
                key, own = f"{name}.{leaf}", getattr(module, leaf)
                given = tensors.get(key)
                if given is None or own is None or given.shape == own.shape:
                    continue
                new = resize_loaded(given, own, num_class_tokens=num_class_tokens, square=square)
                if new is not None:
                    tensors[key] = new
                    done.append(
                        f"{key}: {given.shape[1]} positions in the file interpolated to {new.shape[1]}"
                    )
        return done


def _divided(block: nn.Module, num_times: int, x: Tensor) -> Tensor:
    y: Tensor = block(x, num_times)
    return y


@torch.no_grad()
def init_weights(model: ClipTransformer) -> None:
    """Linear layers, tokens and positions from a normal distribution of std 0.02 truncated at +-2, biases 0;
    patches from N(0, 2 / fan_in); the layer after temporal attention is 0, so that blocks start without it.

    "scaled", an addition of this project for widths of a few dozen: std 1 / sqrt(inputs) for linear layers,
    0.5 for tokens and positions.
    """
    scaled = model.config.init == "scaled"
    positions_std = SCALED_POSITIONS if scaled else INIT_STD
    for module in model.modules():
        if isinstance(module, nn.Linear):
            _init_linear(module, std=module.in_features**-0.5 if scaled else INIT_STD)
        elif isinstance(module, ClipEmbedding):
            nn.init.kaiming_normal_(module.patch.weight, mode="fan_in", nonlinearity="relu")
            assert module.patch.bias is not None
            nn.init.zeros_(module.patch.bias)
            for tensor in (module.cls_token, module.pos_embed, module.time_embed):
                if tensor is not None:
                    nn.init.trunc_normal_(tensor, std=positions_std)
        elif isinstance(module, TemporalTokens):
            nn.init.trunc_normal_(module.time_embed, std=positions_std)
    for module in model.modules():
        if isinstance(module, DividedBlock):
            nn.init.zeros_(module.time_fc.weight)
    if scaled and isinstance(model.head.classifier, nn.Linear):
        _init_linear(model.head.classifier)  # as in `reset_classifier`


def _init_linear(linear: nn.Linear, *, std: float = INIT_STD) -> None:
    nn.init.trunc_normal_(linear.weight, std=std)
    nn.init.zeros_(linear.bias)
