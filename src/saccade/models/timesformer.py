"""TimeSformer: an image transformer for clips with divided space-time attention.

Paper: "Is Space-Time Attention All You Need for Video Understanding?", Gedas Bertasius, Heng Wang, Lorenzo
Torresani, ICML 2021, arXiv 2102.05095. Details that the paper does not give follow
VideoTransformer-pytorch (github.com/mx-mark/VideoTransformer-pytorch); no code is copied. The authors' code
(github.com/facebookresearch/TimeSformer) differs in the epsilon of the norms in blocks (`norm_eps`) and in
the weight decay of temporal positions.

Names of the parameters:
    embed.patch.{weight (C, 3, 1, 16, 16), bias}  embed.cls_token  embed.pos_embed  embed.time_embed
    layers.{i}.norm1  .attn.qkv  .attn.proj  .norm2  .mlp.fc1  .mlp.fc2       as in timm's ViT
    layers.{i}.time_norm  .time_attn.qkv  .time_attn.proj  .time_fc           divided attention only
    head.norm  head.classifier
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from saccade.models.checks import check_choice
from saccade.models.registry import config_of, register_model
from saccade.models.transformer import ClipTransformer, TransformerConfig, init_weights

TimeSformerAttention = Literal["divided", "joint", "space"]
_UPSTREAM = {"divided_space_time": "divided", "joint_space_time": "joint", "space_only": "space"}
"""The authors' and VideoTransformer-pytorch's names."""


@dataclass(frozen=True, kw_only=True)
class TimeSformerConfig(TransformerConfig):
    """Config of a TimeSformer; the default is TimeSformer-B with divided attention."""

    num_frames: int = 8
    """Number of frames of a clip. Each has a learned position; others are interpolated."""
    stride: int = 32
    """Frame stride at 30 frames per second. No layer depends on it."""
    attention: TimeSformerAttention = "divided"
    """divided: temporal, then spatial attention; joint: among all patches of a clip; space: within each
    frame, with a mean over frames at the end. The authors' names (divided_space_time ...) are accepted."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "attention", _UPSTREAM.get(self.attention, self.attention))
        check_choice("attention", self.attention, get_args(TimeSformerAttention))


class TimeSformer(ClipTransformer):
    """The model of a `TimeSformerConfig`: normalised clips (B, 3, T, H, W) -> logits (B, K).

    Accepts any T, and any H and W that are multiples of the patch.
    """

    config: TimeSformerConfig

    def __init__(
        self, config: TimeSformerConfig, num_classes: int = 400, *, model_name: str = "timesformer_base"
    ) -> None:
        """Args:
        model_name: the registered variant that ``config`` is derived from.
        """
        super().__init__(config, num_classes, model_name=model_name, num_features=config.width)
        by_frame = config.attention == "space"
        self.embed = config.embedding(in_time=not by_frame, per_step=by_frame)
        self.layers = config.layers(divided=config.attention == "divided")
        self.head = config.head(num_classes)
        init_weights(self)


# -------------------------------------------------------------------------------------------- named variants

CONFIGS: dict[str, TimeSformerConfig] = {
    "timesformer_base": TimeSformerConfig(),
    "timesformer_base_joint": TimeSformerConfig(attention="joint"),
    "timesformer_base_space": TimeSformerConfig(attention="space"),
}


# All test at the training crop.
_FACTS: dict[str, Any] = {
    "config": CONFIGS,
    "test_crop": 224,
    "train_short_side": (256, 320),
    "top1_source": "TimeSformer's repository",
    "source": "Bertasius et al., TimeSformer, ICML 2021, arXiv 2102.05095; "
    "github.com/facebookresearch/TimeSformer",
    "licence": "CC-BY-NC-4.0",
}


def _create(name: str, num_classes: int, overrides: dict[str, Any]) -> TimeSformer:
    return TimeSformer(config_of(name, overrides), num_classes, model_name=name)


@register_model(**_FACTS, params=121_566_352, gmacs=195.830280192, top1=(("1x3", 77.9),))
def timesformer_base(num_classes: int = 400, **overrides: Any) -> TimeSformer:
    """TimeSformer-B with divided space-time attention: 8 frames of 224 pixels."""
    return _create("timesformer_base", num_classes, overrides)


@register_model(**_FACTS, params=86_112_400, gmacs=179.562805248)
def timesformer_base_joint(num_classes: int = 400, **overrides: Any) -> TimeSformer:
    """TimeSformer-B with joint space-time attention: 8 frames of 224 pixels."""
    return _create("timesformer_base_joint", num_classes, overrides)


@register_model(**_FACTS, params=86_106_256, gmacs=140.504788992)
def timesformer_base_space(num_classes: int = 400, **overrides: Any) -> TimeSformer:
    """TimeSformer-B with attention in space only: 8 frames of 224 pixels."""
    return _create("timesformer_base_space", num_classes, overrides)
