"""ViViT: a transformer on tubelets, with a spatial and a temporal encoder.

Paper: "ViViT: A Video Vision Transformer", Anurag Arnab, Mostafa Dehghani, Georg Heigold, Chen Sun, Mario
Lučić, Cordelia Schmid, ICCV 2021, arXiv 2103.15691: its models 2 (factorised encoder), 1 (joint) and 3
(divided). Details that the paper does not give follow VideoTransformer-pytorch
(github.com/mx-mark/VideoTransformer-pytorch); no code is copied. Positions are split into space and time; the
temporal encoder has four blocks, and its input is the mean of the patches of each time step.

That code takes the class tokens of the factorised encoder from the wrong rows, so that outputs depend on the
batch unless it has one clip. This is corrected here; ``class_token_leak=True`` reproduces it, for weights
that were trained that way.

Names of the parameters:
    embed.patch.{weight (C, 3, 2, 16, 16), bias}  embed.cls_token  embed.pos_embed
    embed.time_embed                                                          joint and divided
    layers.{i}.norm1  .attn.qkv  .attn.proj  .norm2  .mlp.fc1  .mlp.fc2       as in timm's ViT
    layers.{i}.time_norm  .time_attn.qkv  .time_attn.proj  .time_fc           divided
    to_time.time_embed  time_layers.{i}.norm1 ... as in layers                factorised encoder
    head.norm  head.classifier
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import nn

from saccade.errors import ConfigError
from saccade.layers.transformer import TemporalTokens, TransformerBlock
from saccade.models.checks import check_choice, check_count, check_flag
from saccade.models.registry import config_of, register_model
from saccade.models.transformer import ClipTransformer, TransformerConfig, blocks_of, init_weights

ViViTAttention = Literal["factorised", "joint", "divided"]
_UPSTREAM = {"fact_encoder": "factorised", "joint_space_time": "joint", "divided_space_time": "divided"}
"""VideoTransformer-pytorch's names."""


@dataclass(frozen=True, kw_only=True)
class ViViTConfig(TransformerConfig):
    """Config of a ViViT; the default is ViViT-B with a factorised encoder."""

    num_frames: int = 16
    """Number of frames of a clip. Each tubelet has a learned position; others are interpolated."""
    stride: int = 16
    """Frame stride at 30 frames per second. No layer depends on it."""
    tubelet: int = 2
    """Number of frames of a token."""
    attention: ViViTAttention = "factorised"
    """factorised: a spatial encoder for each time step, then a temporal encoder; joint: among all tokens of a
    clip; divided: temporal, then spatial attention in every block. VideoTransformer-pytorch's names
    (fact_encoder ...) are accepted."""
    time_depth: int = 4
    """factorised: number of blocks of the temporal encoder."""
    class_token_leak: bool = False
    """factorised: take class tokens from the wrong rows as VideoTransformer-pytorch does, for its weights.
    The output of a clip then depends on the batch."""

    def __post_init__(self) -> None:
        check_count("tubelet", self.tubelet)
        super().__post_init__()
        check_count("time_depth", self.time_depth)
        check_flag("class_token_leak", self.class_token_leak)
        object.__setattr__(self, "attention", _UPSTREAM.get(self.attention, self.attention))
        check_choice("attention", self.attention, get_args(ViViTAttention))
        if self.class_token_leak and self.attention != "factorised":
            raise ConfigError(f"class_token_leak needs factorised attention, got {self.attention}")

    @property
    def tubelet_size(self) -> tuple[int, int]:
        return self.tubelet, self.patch


class ViViT(ClipTransformer):
    """The model of a `ViViTConfig`: normalised clips (B, 3, T, H, W) -> logits (B, K).

    T must be a multiple of the tubelet, H and W multiples of the patch.
    """

    config: ViViTConfig

    def __init__(
        self, config: ViViTConfig, num_classes: int = 400, *, model_name: str = "vivit_base"
    ) -> None:
        """Args:
        model_name: the registered variant that ``config`` is derived from.
        """
        super().__init__(config, num_classes, model_name=model_name, num_features=config.width)
        factorised = config.attention == "factorised"
        self.embed = config.embedding(in_time=not factorised, per_step=factorised)
        self.layers = config.layers(divided=config.attention == "divided")
        self.to_time: TemporalTokens | None = None
        self.time_layers = nn.ModuleList()
        if factorised:
            self.to_time = TemporalTokens(
                config.width,
                config.num_frames // config.tubelet,
                dropout=config.token_dropout,
                leak=config.class_token_leak,
            )
            self.time_layers = blocks_of(TransformerBlock, config, config.time_depth)
        self.head = config.head(num_classes)
        init_weights(self)

    def stages(self) -> list[nn.Module]:
        """Embedding and blocks; with a factorised encoder, `TemporalTokens` between its two parts."""
        between = [] if self.to_time is None else [self.to_time]
        return [self.embed, *self.layers, *between, *self.time_layers]

    def layer_ids(self) -> dict[str, int]:
        """0 for the embedding, one more per block, the head deepest; temporal positions of the factorised
        encoder have the depth of the block after them.
        """
        ids = super().layer_ids()
        if self.to_time is None:
            return ids
        first = len(self.layers) + 1  # index of `TemporalTokens`, and of the block after it
        return {name: number - (number > first) for name, number in ids.items()}


# -------------------------------------------------------------------------------------------- named variants

CONFIGS: dict[str, ViViTConfig] = {
    "vivit_base": ViViTConfig(),
    "vivit_base_joint": ViViTConfig(attention="joint"),
    "vivit_base_divided": ViViTConfig(attention="divided"),
}


# All test at the training crop.
_FACTS: dict[str, Any] = {
    "config": CONFIGS,
    "test_crop": 224,
    "train_short_side": (256, 320),
    "top1_source": "VideoTransformer-pytorch's repository",
    "source": "Arnab et al., ViViT, ICCV 2021, arXiv 2103.15691; github.com/mx-mark/VideoTransformer-pytorch",
    "licence": "none stated",
}


def _create(name: str, num_classes: int, overrides: dict[str, Any]) -> ViViT:
    return ViViT(config_of(name, overrides), num_classes, model_name=name)


@register_model(**_FACTS, params=115_054_480, gmacs=141.684934656, top1=(("1x1", 75.2),))
def vivit_base(num_classes: int = 400, **overrides: Any) -> ViViT:
    """ViViT-B with a factorised encoder: 16 frames of 224 pixels."""
    return _create("vivit_base", num_classes, overrides)


@register_model(**_FACTS, params=86_702_224, gmacs=180.487649280)
def vivit_base_joint(num_classes: int = 400, **overrides: Any) -> ViViT:
    """ViViT-B with joint space-time attention: 16 frames of 224 pixels."""
    return _create("vivit_base_joint", num_classes, overrides)


@register_model(**_FACTS, params=122_156_176, gmacs=196.755124224)
def vivit_base_divided(num_classes: int = 400, **overrides: Any) -> ViViT:
    """ViViT-B with divided space-time attention: 16 frames of 224 pixels."""
    return _create("vivit_base_divided", num_classes, overrides)
