"""VoV3D: layers in series, whose outputs of growing temporal receptive field are aggregated once per block.

Paper: "Diverse Temporal Aggregation and Depthwise Spatiotemporal Factorization for Efficient Video
Classification", Youngwan Lee, Hyung-Il Kim, Kimin Yun, Jinyoung Moon, arXiv 2012.00317. Details that
the paper does not give follow the authors' code (github.com/youngwanLEE/VoV3D, CC BY-NC 4.0); none is copied.
Stem and head are those of X3D.

Shape letters: B clips, C channels, T frames, H and W pixels, K classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, get_args

import torch
from torch import Tensor, nn

from saccade.errors import ConfigError
from saccade.layers import DepthwiseConv3d, DropPath, PointwiseConv3d, SqueezeExcite, norm_act, round_channels
from saccade.models.base import NormLayer
from saccade.models.causal import CausalExciteOptions
from saccade.models.checks import check_choice, check_count, check_flag, check_number, checked_depths
from saccade.models.heads import HeadPool, HeadScores
from saccade.models.registry import config_of, register_model
from saccade.models.x3d import TOTAL_STRIDE, X3DTrunk, init_classifier, init_weights

NUM_STAGES = 4


# ---------------------------------------------------------------------------------------------------- config


@dataclass(frozen=True, kw_only=True)
class VoV3DConfig(CausalExciteOptions):
    """Config of a VoV3D; the default is VoV3D-M. An invalid field raises `ConfigError` with its name."""

    num_frames: int = 16
    """Number of frames of a clip; sets the window of the head. No weight depends on it."""
    stride: int = 5
    """Frame stride at 30 frames per second. No layer depends on it."""
    train_crop: int = 224
    """Side of the training crop in pixels; sets the window of the head. No weight depends on it."""
    inner_channels: int = 40
    """Width of the depthwise convolutions of res2, doubled in every later stage. Layers and blocks have half
    as many output channels."""
    depths: tuple[int, ...] = (1, 2, 3, 2)
    """Blocks of res2..res5, as a sequence or as text such as "1,2,3,2"."""
    num_conv: int = 5
    """Layers of a block."""
    se_ratio: float = 1 / 16
    """Hidden width of squeeze-excitation (every other layer) relative to the depthwise width; 0 is off."""
    head_width: int = 2048
    """Features before the classifier."""
    head_pool: HeadPool = "pyslowfast"
    """Pooling of maps larger than the training window; see `X3DHead`."""
    head_scores: HeadScores = "softmax"
    """Scores that the pool pyslowfast averages; sigmoid for multi-label tasks."""
    localization: bool = False
    """Logits per frame, (B, K, T), instead of per clip."""
    dropout: float = 0.5
    """Dropout before the classifier."""
    drop_path: float = 0.0
    """Stochastic depth rate of the last stage's blocks; stage i of 0..3 has rate * (i + 2) / 5, as in X3D.
    The authors' code has none."""
    bn_eps: float = 1e-5
    bn_momentum: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "depths", checked_depths(self.depths, num_stages=NUM_STAGES))
        for name in ("num_frames", "stride", "train_crop", "inner_channels", "num_conv", "head_width"):
            check_count(name, getattr(self, name))
        if self.inner_channels < 2:
            raise ConfigError("inner_channels must be at least 2, for a layer gives half of them, got 1")
        check_number("bn_eps", self.bn_eps, above=0.0)
        for name in ("dropout", "drop_path", "bn_momentum"):
            check_number(name, getattr(self, name), at_least=0.0, below=1.0)
        check_number("se_ratio", self.se_ratio, at_least=0.0)
        check_flag("localization", self.localization)
        check_choice("head_pool", self.head_pool, get_args(HeadPool))
        check_choice("head_scores", self.head_scores, get_args(HeadScores))
        self.check_causal()

    @property
    def inner_widths(self) -> tuple[int, ...]:
        """Channels of the depthwise convolutions of res2..res5; the last is also the head's."""
        return tuple(self.inner_channels << stage for stage in range(NUM_STAGES))

    @property
    def widths(self) -> tuple[int, ...]:
        """Output channels of res2..res5; the stem has the same as res2."""
        return tuple(inner // 2 for inner in self.inner_widths)

    @property
    def window(self) -> tuple[int, int, int]:
        """Size (T, H, W) of the head's input in training; causal: the frames of its mean."""
        side = math.ceil(self.train_crop / TOTAL_STRIDE)
        return self.mean_frames if self.causal else self.num_frames, side, side


# ---------------------------------------------------------------------------------------------------- blocks


class D2Plus1D(nn.Module):
    """A bottleneck with a depthwise convolution factorised into space and time: D(2+1)D.

    1x1x1 convolution, norm, ReLU; strided depthwise 1x3x3 convolution, depthwise 3x1x1 convolution; norm,
    squeeze-excitation, Swish; 1x1x1 convolution, norm; ReLU. The input is added before the last ReLU if the
    shape does not change.

    Shapes: (B, C_in, T, H, W) -> (B, inner // 2, T, H/stride, W/stride).
    """

    def __init__(
        self,
        in_channels: int,
        inner: int,
        *,
        stride: int,
        se_hidden: int,
        se_frames: int = 0,
        norm_layer: NormLayer,
        causal: bool = False,
    ) -> None:
        super().__init__()
        out_channels = inner // 2
        self.conv_a = PointwiseConv3d(in_channels, inner)
        self.norm_a = norm_layer(inner)
        self.conv_s = DepthwiseConv3d(inner, (1, 3, 3), stride=(1, stride, stride), padding=(0, 1, 1))
        self.conv_t = DepthwiseConv3d(inner, (3, 1, 1), padding=(1, 0, 0), causal=causal)
        self.norm_b = norm_layer(inner)
        self.se = SqueezeExcite(inner, se_hidden, window=se_frames) if se_hidden else nn.Identity()
        self.conv_c = PointwiseConv3d(inner, out_channels)
        self.norm_c = norm_layer(out_channels)
        self.is_residual = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.is_residual else None
        x = norm_act(self.conv_a(x), self.norm_a, "relu")
        x = norm_act(self.conv_t(self.conv_s(x)), self.norm_b, "silu", squeeze_excite=self.se)
        return norm_act(self.conv_c(x), self.norm_c, "relu", residual=identity)


class TOSABlock(nn.Module):
    """Temporal one-shot aggregation: layers in series, outputs concatenated and convolved; residual.

    Each layer sees two more frames than the one before, so the aggregate has temporal receptive fields up to
    ``2 * num_conv + 1`` frames. With stride 1 the block's input is aggregated too. The first layer has the
    stride. The shortcut is a strided 1x1x1 convolution with norm if the width or the size changes.

    Shapes: (B, C_in, T, H, W) -> (B, inner // 2, T, H/stride, W/stride).
    """

    def __init__(
        self,
        in_channels: int,
        inner: int,
        *,
        num_conv: int,
        stride: int,
        se_hidden: int,
        se_frames: int = 0,
        drop_path: float,
        norm_layer: NormLayer,
        causal: bool = False,
    ) -> None:
        super().__init__()
        out_channels = inner // 2
        self.layers = nn.ModuleList(
            D2Plus1D(
                in_channels if i == 0 else out_channels,
                inner,
                stride=stride if i == 0 else 1,
                se_hidden=se_hidden if i % 2 == 0 else 0,
                se_frames=se_frames,
                norm_layer=norm_layer,
                causal=causal,
            )
            for i in range(num_conv)
        )
        self.joins_input = stride == 1
        joined = num_conv * out_channels + (in_channels if self.joins_input else 0)
        self.conv = PointwiseConv3d(joined, out_channels)
        self.norm = norm_layer(out_channels)
        self.has_shortcut = stride != 1 or in_channels != out_channels
        if self.has_shortcut:
            self.shortcut_conv = PointwiseConv3d(in_channels, out_channels, spatial_stride=stride)
            self.shortcut_norm = norm_layer(out_channels)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        shortcut = norm_act(self.shortcut_conv(x), self.shortcut_norm, "none") if self.has_shortcut else x
        outputs = [x] if self.joins_input else []
        for layer in self.layers:
            x = layer(x)
            outputs.append(x)
        x = self.conv(torch.cat(outputs, 1))
        return norm_act(x, self.norm, "relu", drop_path=self.drop_path, residual=shortcut)


# ----------------------------------------------------------------------------------------------------- model


class VoV3D(X3DTrunk):
    """The model of a `VoV3DConfig`."""

    config: VoV3DConfig

    def __init__(
        self,
        config: VoV3DConfig,
        num_classes: int = 400,
        *,
        norm_layer: NormLayer | None = None,
        model_name: str = "vov3d_m",
    ) -> None:
        super().__init__(config, num_classes, norm_layer=norm_layer, model_name=model_name)
        _init(self)

    def block(self, stage: int, in_channels: int, index: int, norm_layer: NormLayer) -> nn.Module:
        config, inner = self.config, self.config.inner_widths[stage]
        return TOSABlock(
            in_channels,
            inner,
            num_conv=config.num_conv,
            stride=2 if index == 0 else 1,
            se_hidden=round_channels(inner * config.se_ratio) if config.se_ratio else 0,
            se_frames=config.se_frames,
            drop_path=config.drop_path * (stage + 2) / 5,
            norm_layer=norm_layer,
            causal=config.causal,
        )

    def init_classifier(self, linear: nn.Linear) -> None:
        init_classifier(linear, "pyslowfast")


@torch.no_grad()
def _init(model: VoV3D) -> None:
    """As PySlowFast initialises X3D: norms after an aggregation start at 0, those in its layers at 1."""
    init_weights(model, "pyslowfast")
    for module in model.modules():
        if isinstance(module, TOSABlock):
            scale = module.norm.weight
            assert isinstance(scale, Tensor)
            nn.init.zeros_(scale)


# -------------------------------------------------------------------------------------------- named variants

CONFIGS: dict[str, VoV3DConfig] = {
    "vov3d_m": VoV3DConfig(),
    "vov3d_l": VoV3DConfig(inner_channels=48, depths=(1, 2, 5, 3)),
    "vov3d_m_v1": VoV3DConfig(inner_channels=48, depths=(1, 1, 2, 2), num_conv=4),
}


_FACTS: dict[str, Any] = {
    "config": CONFIGS,
    "options": ("norm_layer",),
    "test_crop": 256,
    "train_short_side": (256, 320),
    "top1_source": "VoV3D's repository",
    "source": "Lee et al., VoV3D, arXiv 2012.00317; github.com/youngwanLEE/VoV3D",
    "licence": "CC-BY-NC-4.0",
}


def _create(name: str, num_classes: int, norm_layer: NormLayer | None = None, **overrides: Any) -> VoV3D:
    return VoV3D(config_of(name, overrides), num_classes, norm_layer=norm_layer, model_name=name)


@register_model(**_FACTS, params=3_667_360, gmacs=4.916863360, gmacs_test=6.425952640, top1=(("10x3", 74.7),))
def vov3d_m(num_classes: int = 400, **overrides: Any) -> VoV3D:
    """VoV3D-M: 1, 2, 3, 2 blocks, 40 inner channels."""
    return _create("vov3d_m", num_classes, **overrides)


@register_model(
    **_FACTS, params=6_297_168, gmacs=9.306914048, gmacs_test=12.160212224, top1=(("10x3", 76.3),)
)
def vov3d_l(num_classes: int = 400, **overrides: Any) -> VoV3D:
    """VoV3D-L: 1, 2, 5, 3 blocks, 48 inner channels."""
    return _create("vov3d_l", num_classes, **overrides)


@register_model(**_FACTS, top1=(("10x3", 73.9),))
def vov3d_m_v1(num_classes: int = 400, **overrides: Any) -> VoV3D:
    """VoV3D-M as the authors' repository had it until April 2021: 1, 1, 2, 2 blocks of four layers, 48 inner
    channels.
    """
    return _create("vov3d_m_v1", num_classes, **overrides)
