"""X2D and X3D: video models expanded from a tiny image model along six axes.

Paper: "X3D: Expanding Architectures for Efficient Video Recognition", Christoph Feichtenhofer, CVPR 2020,
arXiv 2004.04730. Details that the paper does not give follow the author's code, PySlowFast
(github.com/facebookresearch/SlowFast, Apache-2.0); the choices of other code bases are options.

Shape letters: B clips, C channels, T frames, H and W pixels, K classes.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from saccade.errors import ConfigError, UsageError
from saccade.layers import DepthwiseConv3d, DropPath, PointwiseConv3d, SqueezeExcite, norm_act, round_channels
from saccade.layers.dilated_conv import DilatedDepthwiseConv3d
from saccade.layers.roi_align import whole_frames
from saccade.layers.streaming import SpatialConv3d
from saccade.models.base import NormLayer, VideoModel, batch_norm
from saccade.models.causal import CausalExciteOptions
from saccade.models.checks import check_choice, check_count, check_flag, check_number
from saccade.models.heads import HeadPool, HeadScores, X3DHead, X3DRoIHead
from saccade.models.registry import config_of, register_model

Init = Literal["pyslowfast", "x3d-multigrid"]

# X2D, the point all factors start from (Table 1 of the paper).
BASE_CROP = 112
BASE_WIDTHS = (12, 24, 48, 96)  # PySlowFast's numbers; its width factor 2 is gamma_w = 1
BASE_WIDTH_FACTOR = 2.0
BASE_DEPTHS = (1, 2, 5, 3)
TOTAL_STRIDE = 32  # of height and width, from the input to the last stage; time is never strided


# ---------------------------------------------------------------------------------------------------- config


@dataclass(frozen=True, kw_only=True)
class X3DConfig(CausalExciteOptions):
    """Config of an X3D by its six expansion factors; with all at 1 it is X2D.

    An invalid field raises `ConfigError` with its name.
    """

    gamma_tau: float = 1.0
    """Frame stride at 30 frames per second. No layer depends on it."""
    gamma_t: float = 1.0
    """Number of frames of a clip."""
    gamma_s: float = 1.0
    """Spatial resolution: the training crop is 112 * gamma_s pixels, rounded to an even number."""
    gamma_w: float = 1.0
    """Width of all layers: the stem has 24 * gamma_w channels, rounded to a multiple of 8."""
    gamma_b: float = 1.0
    """Width of the depthwise convolution in a block, as a multiple of the block's output."""
    gamma_d: float = 1.0
    """Depth: the stages have (1, 2, 5, 3) * gamma_d blocks, rounded up."""
    se_ratio: float = 1 / 16
    """Hidden width of squeeze-excitation (every other block) relative to the depthwise width; 0 is off."""
    head_width: int = 2048
    """Features before the classifier."""
    head_pool: HeadPool = "pyslowfast"
    """Pooling of maps larger than the training window; see `X3DHead`."""
    head_scores: HeadScores = "softmax"
    """Scores that the pool pyslowfast averages; sigmoid for multi-label tasks."""
    localization: bool = False
    """Logits per frame, (B, K, T), instead of per clip."""
    detection: bool = False
    """Logits of person boxes, which are an input; see `X3DRoIHead`."""
    roi_stride: int = 16
    """Stride of the last map in pixels for detection. 16: res5 has stride 1 and dilation 2, as in the paper;
    32: as for classification, with a quarter of the multiply-adds of res5."""
    dropout: float = 0.5
    """Dropout before the classifier."""
    drop_path: float = 0.0
    """Stochastic depth rate of the last stage; stage i of 0..3 has rate * (i + 2) / 5."""
    init: Init = "pyslowfast"
    """x3d-multigrid leaves the last norm of each block at 1 and the classifier at PyTorch's default."""
    bn_eps: float = 1e-5
    bn_momentum: float = 0.1

    def __post_init__(self) -> None:
        for name in ("gamma_tau", "gamma_t", "gamma_s", "gamma_w", "gamma_b", "gamma_d", "bn_eps"):
            check_number(name, getattr(self, name), above=0.0)
        check_number("gamma_d", self.gamma_d, below=1000.0)  # more would build layers for hours
        for name in ("gamma_tau", "gamma_t"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} counts frames and must be at least 1, got {getattr(self, name)!r}")
        for name in ("dropout", "drop_path"):
            check_number(name, getattr(self, name), at_least=0.0, below=1.0)
        check_number("bn_momentum", self.bn_momentum, at_least=0.0, below=1.0)
        check_number("se_ratio", self.se_ratio, at_least=0.0)
        check_count("head_width", self.head_width)
        check_flag("localization", self.localization)
        check_flag("detection", self.detection)
        if self.detection and self.localization:
            raise ConfigError(
                "detection and localization cannot both be set: logits are of boxes or of frames"
            )
        if self.roi_stride not in (TOTAL_STRIDE // 2, TOTAL_STRIDE):
            raise ConfigError(f"roi_stride must be 16 or 32, got {self.roi_stride!r}")
        check_choice("head_pool", self.head_pool, get_args(HeadPool))
        check_choice("head_scores", self.head_scores, get_args(HeadScores))
        check_choice("init", self.init, get_args(Init))
        self.check_causal()
        if self.train_crop < 2:
            raise ConfigError(f"gamma_s={self.gamma_s:g} gives a crop of {self.train_crop} pixels")

    @staticmethod
    def clip_options(*, num_frames: int, stride: int, crop: int) -> dict[str, float]:
        """Factors for training clips of this size."""
        return {"gamma_tau": stride, "gamma_t": num_frames, "gamma_s": crop / BASE_CROP}

    @property
    def stride(self) -> int:
        """Stride of the clip, in frames."""
        return round(self.gamma_tau)

    @property
    def num_frames(self) -> int:
        """Frames of the clip."""
        return round(self.gamma_t)

    @property
    def train_crop(self) -> int:
        """Side of the training crop in pixels, an even number."""
        return 2 * round(BASE_CROP * self.gamma_s / 2)

    @property
    def widths(self) -> tuple[int, ...]:
        """Output channels of res2..res5; the stem has the same as res2."""
        factor = BASE_WIDTH_FACTOR * self.gamma_w
        return tuple(round_channels(width * factor) for width in BASE_WIDTHS)

    @property
    def inner_widths(self) -> tuple[int, ...]:
        """Channels of the depthwise convolutions of res2..res5; the last is also the head's."""
        return tuple(max(1, int(self.gamma_b * width)) for width in self.widths)

    @property
    def depths(self) -> tuple[int, ...]:
        """Blocks of res2..res5."""
        # rounded first, so that 5 * 2.2 is 11 despite floating-point error
        return tuple(math.ceil(round(self.gamma_d * depth, 6)) for depth in BASE_DEPTHS)

    @property
    def window(self) -> tuple[int, int, int]:
        """Size (T, H, W) of the head's input in training; causal: the frames of its mean."""
        side = math.ceil(self.train_crop / TOTAL_STRIDE)
        return self.mean_frames if self.causal else self.num_frames, side, side


# ---------------------------------------------------------------------------------------------------- blocks


class X3DStem(nn.Module):
    """1x3x3 convolution of stride 2, depthwise 5x1x1 convolution, norm, ReLU.

    Shapes: (B, 3, T, H, W) -> (B, C, T, H/2, W/2).
    """

    def __init__(self, channels: int, norm_layer: NormLayer, *, causal: bool = False) -> None:
        super().__init__()
        self.conv_s = SpatialConv3d(3, channels, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1), bias=False)
        self.conv_t = DepthwiseConv3d(channels, (5, 1, 1), padding=(2, 0, 0), causal=causal)
        self.norm = norm_layer(channels)

    def forward(self, x: Tensor) -> Tensor:
        return norm_act(self.conv_t(self.conv_s(x)), self.norm, "relu")


class X3DBlock(nn.Module):
    """1x1x1 convolution, depthwise 3x3x3 convolution, squeeze-excitation, Swish, 1x1x1 convolution; residual.

    The shortcut is a strided 1x1x1 convolution with norm if the width or the size changes.

    Shapes: (B, C_in, T, H, W) -> (B, C_out, T, H/stride, W/stride).
    """

    def __init__(
        self,
        in_channels: int,
        inner: int,
        out_channels: int,
        *,
        stride: int,
        dilation: int = 1,
        se_hidden: int,
        se_frames: int = 0,
        drop_path: float,
        norm_layer: NormLayer,
        causal: bool = False,
    ) -> None:
        super().__init__()
        strides = (1, stride, stride)
        self.conv_a = PointwiseConv3d(in_channels, inner)
        self.norm_a = norm_layer(inner)
        self.conv_b = (
            DepthwiseConv3d(inner, 3, stride=strides, padding=1, causal=causal)
            if dilation == 1
            else DilatedDepthwiseConv3d(inner, spatial_dilation=dilation, causal=causal)
        )
        self.norm_b = norm_layer(inner)
        self.se = SqueezeExcite(inner, se_hidden, window=se_frames) if se_hidden else nn.Identity()
        self.conv_c = PointwiseConv3d(inner, out_channels)
        self.norm_c = norm_layer(out_channels)
        self.has_shortcut = stride != 1 or in_channels != out_channels
        if self.has_shortcut:
            self.shortcut_conv = PointwiseConv3d(in_channels, out_channels, spatial_stride=stride)
            self.shortcut_norm = norm_layer(out_channels)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        shortcut = norm_act(self.shortcut_conv(x), self.shortcut_norm, "none") if self.has_shortcut else x
        x = norm_act(self.conv_a(x), self.norm_a, "relu")
        x = norm_act(self.conv_b(x), self.norm_b, "silu", squeeze_excite=self.se)
        return norm_act(self.conv_c(x), self.norm_c, "relu", drop_path=self.drop_path, residual=shortcut)


# ----------------------------------------------------------------------------------------------------- model


class X3DTrunk(VideoModel):
    """The stem, four stages and head of X3D and VoV3D: normalised clips (B, 3, T, H, W) -> logits (B, K).

    Accepts any T, H and W; frames and crop of the config only set the window of the head.
    """

    def __init__(
        self, config: Any, num_classes: int, *, norm_layer: NormLayer | None, model_name: str
    ) -> None:
        """Args:
        norm_layer: number of channels -> norm; default `nn.BatchNorm3d`.
        model_name: the registered variant that ``config`` is derived from.
        """
        super().__init__(config, num_classes, model_name=model_name, num_features=config.head_width)
        norm = batch_norm(config, norm_layer)
        widths = config.widths
        self.stem = X3DStem(widths[0], norm, causal=config.causal)
        self.res2, self.res3, self.res4, self.res5 = (
            nn.Sequential(
                *(
                    self.block(stage, widths[stage] if i else widths[max(stage - 1, 0)], i, norm)
                    for i in range(config.depths[stage])
                )
            )
            for stage in range(4)
        )
        self.head: X3DHead = self.head_type(
            widths[3],
            config.inner_widths[3],
            config.head_width,
            num_classes,
            window=config.window,
            pool=config.head_pool,
            scores=config.head_scores,
            localization=config.localization,
            dropout=config.dropout,
            norm_layer=norm,
            causal=config.causal,
        )

    @abstractmethod
    def block(self, stage: int, in_channels: int, index: int, norm_layer: NormLayer) -> nn.Module:
        """Block ``index`` of stage 0..3; the first one has the stride."""

    @property
    def head_type(self) -> Callable[..., X3DHead]:
        """The class of the head."""
        return X3DHead

    def stages(self) -> list[nn.Module]:
        return [self.stem, self.res2, self.res3, self.res4, self.res5]

    def window_logits(self, x: Tensor) -> Tensor:
        """Logits of every window the head sees in clips (B, 3, T, H, W): (B, windows in T, in H, in W, K)."""
        return self.head.window_logits(self.forward_features(x))


class X3D(X3DTrunk):
    """The model of an `X3DConfig`. With ``detection`` it also takes person boxes and returns their logits."""

    config: X3DConfig

    def __init__(
        self,
        config: X3DConfig,
        num_classes: int = 400,
        *,
        norm_layer: NormLayer | None = None,
        model_name: str = "x2d",
    ) -> None:
        super().__init__(config, num_classes, norm_layer=norm_layer, model_name=model_name)
        init_weights(self, config.init)

    @property
    def head_type(self) -> Callable[..., X3DHead]:
        return partial(X3DRoIHead, roi_stride=self.config.roi_stride) if self.config.detection else X3DHead

    def block(self, stage: int, in_channels: int, index: int, norm_layer: NormLayer) -> nn.Module:
        config, inner = self.config, self.config.inner_widths[stage]
        dilated = config.detection and config.roi_stride < TOTAL_STRIDE and stage == 3
        return X3DBlock(
            in_channels,
            inner,
            config.widths[stage],
            stride=2 if index == 0 and not dilated else 1,
            dilation=2 if dilated else 1,
            se_hidden=round_channels(inner * config.se_ratio) if config.se_ratio and index % 2 == 0 else 0,
            se_frames=config.se_frames,
            drop_path=config.drop_path * (stage + 2) / 5,
            norm_layer=norm_layer,
            causal=config.causal,
        )

    def forward(self, x: Tensor, boxes: Sequence[Tensor] | None = None) -> Tensor:
        """Logits (B, num_classes) of clips (B, 3, T, H, W). With ``detection``, logits of person boxes,
        (sum of N_i, num_classes); ``boxes`` has (N_i, 4) for each clip, x1, y1, x2, y2 in pixels; default:
        one box that covers the frame.
        """
        if not self.config.detection:
            if boxes is not None:
                raise UsageError(f"boxes: {self.model_name} was built without detection=True")
            return super().forward(x)
        features = self.forward_features(x)
        logits: Tensor = self.head(features, whole_frames(x) if boxes is None else boxes)
        return logits

    def init_classifier(self, linear: nn.Linear) -> None:
        init_classifier(linear, self.config.init)


@torch.no_grad()
def init_weights(model: nn.Module, init: Init) -> None:
    """Initialise as the named code base.

    Both: convolutions, and the head's linear layer, a convolution upstream, from N(0, 2 / fan_out), biases 0,
    norms 1 and 0. ``pyslowfast`` also sets the scale of each block's last norm to 0, so that a block starts
    as its shortcut, and the classifier to N(0, 0.01) with bias 0.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv3d) or name.endswith("head.hidden"):
            assert isinstance(module, (nn.Conv3d, nn.Linear))
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            init_classifier(module, init)
        elif isinstance(module, X3DBlock) and init == "pyslowfast":
            scale = module.norm_c.weight
            assert isinstance(scale, Tensor)
            nn.init.zeros_(scale)


def init_classifier(linear: nn.Linear, init: Init) -> None:
    """The classifier's part of `init_weights`."""
    if init == "pyslowfast":
        nn.init.normal_(linear.weight, std=0.01)
        nn.init.zeros_(linear.bias)


# ---------------------------------------------------------------------------------------------- named points

CONFIGS: dict[str, X3DConfig] = {
    "x2d": X3DConfig(),
    "x3d_xs": X3DConfig(gamma_tau=12, gamma_t=4, gamma_s=160 / 112, gamma_b=2.25, gamma_d=2.2),
    "x3d_s": X3DConfig(gamma_tau=6, gamma_t=13, gamma_s=160 / 112, gamma_b=2.25, gamma_d=2.2),
    "x3d_m": X3DConfig(gamma_tau=5, gamma_t=16, gamma_s=2.0, gamma_b=2.25, gamma_d=2.2),
    "x3d_l": X3DConfig(gamma_tau=5, gamma_t=16, gamma_s=312 / 112, gamma_b=2.25, gamma_d=5.0),
    "x3d_xl": X3DConfig(gamma_tau=5, gamma_t=16, gamma_s=312 / 112, gamma_w=1.45, gamma_b=2.25, gamma_d=5.0),
}


ZOO = "PySlowFast model zoo"


_FACTS: dict[str, Any] = {
    "config": CONFIGS,
    "options": ("norm_layer",),
    "source": "Feichtenhofer, X3D, CVPR 2020, arXiv 2004.04730; github.com/facebookresearch/SlowFast",
    "licence": "Apache-2.0",
}


def _create(name: str, num_classes: int, norm_layer: NormLayer | None = None, **overrides: Any) -> X3D:
    return X3D(config_of(name, overrides), num_classes, norm_layer=norm_layer, model_name=name)


# The paper gives X2D no test crop; 128 is the same 8/7 of the training crop as elsewhere. It states 20.67 M
# multiply-adds: convolutions and linear layers are 20.662 M; with the 3072 additions of the head's average
# pool it is 20.665 M, which rounds to the paper's figure.
@register_model(
    **_FACTS,
    test_crop=128,
    train_short_side=(128, 160),
    params=1_633_560,
    gmacs=0.020662304,
    gmacs_test=0.025361024,
)
def x2d(num_classes: int = 400, **overrides: Any) -> X3D:
    """X2D, the image model from which the expansion starts: one frame of 112 pixels."""
    return _create("x2d", num_classes, **overrides)


@register_model(
    **_FACTS,
    test_crop=182,
    train_short_side=(182, 228),
    params=3_794_322,
    gmacs=0.605256512,
    gmacs_test=0.843919472,
    top1=(("10x1", 68.7), ("10x3", 69.5)),
    top1_source=ZOO,
)
def x3d_xs(num_classes: int = 400, **overrides: Any) -> X3D:
    """X3D-XS: 4 frames, stride 12, 160 pixels."""
    return _create("x3d_xs", num_classes, **overrides)


@register_model(
    **_FACTS,
    test_crop=182,
    train_short_side=(182, 228),
    params=3_794_322,
    gmacs=1.962892112,
    gmacs_test=2.727045164,
    top1=(("10x1", 73.1), ("10x3", 73.5)),
    top1_source=ZOO,
)
def x3d_s(num_classes: int = 400, **overrides: Any) -> X3D:
    """X3D-S: 13 frames, stride 6, 160 pixels."""
    return _create("x3d_s", num_classes, **overrides)


@register_model(
    **_FACTS,
    test_crop=256,
    train_short_side=(256, 320),
    params=3_794_322,
    gmacs=4.732468736,
    gmacs_test=6.185725184,
    top1=(("10x1", 75.1), ("10x3", 76.2)),
    top1_source=ZOO,
)
def x3d_m(num_classes: int = 400, **overrides: Any) -> X3D:
    """X3D-M: 16 frames, stride 5, 224 pixels."""
    return _create("x3d_m", num_classes, **overrides)


@register_model(
    **_FACTS,
    test_crop=356,
    train_short_side=(356, 446),
    params=6_153_432,
    gmacs=18.367710176,
    gmacs_test=24.777648768,
    top1=(("10x1", 76.9), ("10x3", 77.5)),
    top1_source=ZOO,
)
def x3d_l(num_classes: int = 400, **overrides: Any) -> X3D:
    """X3D-L: 16 frames, stride 5, 312 pixels, deeper."""
    return _create("x3d_l", num_classes, **overrides)


# PySlowFast has no configuration of XL: short sides and test crop are those of L.
@register_model(
    **_FACTS,
    test_crop=356,
    train_short_side=(356, 446),
    params=11_095_904,
    gmacs=35.837627616,
    gmacs_test=48.423725120,
    top1=(("10x1", 78.4), ("10x3", 79.1)),
    top1_source="arXiv 2004.04730",
)
def x3d_xl(num_classes: int = 400, **overrides: Any) -> X3D:
    """X3D-XL: X3D-L with layers 1.45 times as wide."""
    return _create("x3d_xl", num_classes, **overrides)
