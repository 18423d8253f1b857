"""RubiksNet: pointwise convolutions and learnable shifts of each channel in time and space.

Paper: "RubiksNet: Learnable 3D-Shift for Efficient Video Action Recognition", Fan, Buch et al., ECCV 2020.
This follows the authors' code, github.com/StanfordVL/RubiksNet (MIT). The only
spatial convolution is the stem. In the variant "-AQ" (attention-quantised) each channel learns to shift by
one frame or not.

Shape letters: B clips, C channels, T frames, H and W pixels, K classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saccade.clip import ClipSpec
from saccade.errors import ConfigError
from saccade.layers import (
    AttentionShift,
    DropPath,
    RubiksShift2d,
    RubiksShift3d,
    SqueezeExcite,
    norm_act,
    streaming,
)
from saccade.layers.shift import parse_space_init, parse_time_init
from saccade.layers.streaming import SpatialConv3d
from saccade.models.base import NormLayer, VideoModel, batch_norm
from saccade.models.causal import CausalOptions
from saccade.models.checks import check_count, check_flag, check_number, checked_depths
from saccade.models.registry import config_of, register_model

SHIFT_LR = 0.01  # the original's get_optim_policy: how much slower shifts learn than weights


# ---------------------------------------------------------------------------------------------------- config


@dataclass(frozen=True, kw_only=True)
class RubiksNetConfig(CausalOptions):
    """Config of a RubiksNet. An invalid field raises `ConfigError` with its name."""

    width: int = 54
    """Channels of the stem and the first two stages; times 2, 4 and 8 in the other stages."""
    depths: tuple[int, ...] = (3, 4, 6, 3)
    """Blocks of res2..res5 (res1 has one). Also as text, "3,4,6,3"."""
    se_reduction: int = 0
    """Squeeze-excitation in every block, with this many times fewer hidden channels; 0 is off."""
    attention: bool = False
    """Variant -AQ: temporal attention over three frames, and learnable shifts only in space."""
    quantize: bool = False
    """Round the learnable shifts to integers, with straight-through gradients."""
    normalize_grad: bool = True
    """Normalise shift gradients to length 1 in every channel, so the learning rate is the step."""
    normalize_t_factor: float | Literal["auto"] = 1.0
    """Multiplier on the temporal part of shift gradients before that; "auto" is T / H of the map."""
    space_init: str = "uniform"
    """Initial spatial shifts: uniform, or group<K> for the offsets of a K x K grid."""
    time_init: str = "uniform"
    """Initial temporal shifts, also with image weights: uniform, uniform<size>, tsm, tsm-g<std>, none."""
    temperature: float = 2.0
    """-AQ: initial softmax temperature of the choice of frames."""
    final_temperature: float = 0.1
    """-AQ: temperature just before the choice becomes hard; falls geometrically."""
    harden_at: float = 0.8
    """-AQ: fraction of the training after which the choices are hard; 0: never, as in the published code."""
    shift_budget: float = 1.0
    """-AQ: maximum fraction of all channels that may read another frame."""
    budget_weight: float = 0.1
    """-AQ: weight of the penalty on channels beyond the budget before the choices are hard."""
    causal_span: int = 1
    """Causal: the most frames that a shift may reach back."""
    localization: bool = False
    """Logits per frame, (B, K, T), instead of per clip."""
    dropout: float = 0.0
    """Dropout before the classifier."""
    drop_path: float = 0.0
    """Stochastic depth rate of the last block; grows linearly from 0."""
    bn_eps: float = 1e-5
    bn_momentum: float = 0.1

    def __post_init__(self) -> None:
        object.__setattr__(self, "depths", checked_depths(self.depths))
        check_count("width", self.width)
        for name in ("attention", "quantize", "normalize_grad", "localization"):
            check_flag(name, getattr(self, name))
        for name in ("temperature", "final_temperature", "bn_eps"):
            check_number(name, getattr(self, name), above=0.0)
        for name in ("dropout", "drop_path", "bn_momentum"):
            check_number(name, getattr(self, name), at_least=0.0, below=1.0)
        check_number("budget_weight", self.budget_weight, at_least=0.0)
        for name in ("harden_at", "shift_budget"):
            check_number(name, getattr(self, name), at_least=0.0)
            if getattr(self, name) > 1:
                raise ConfigError(f"{name} must be a fraction, 0 to 1, got {getattr(self, name)!r}")
        if self.normalize_t_factor != "auto":
            check_number('normalize_t_factor, if not "auto",', self.normalize_t_factor)
        if type(self.se_reduction) is not int or not 0 <= self.se_reduction <= self.width:
            raise ConfigError(f"se_reduction must be an integer of 0 to width, got {self.se_reduction!r}")
        self.check_causal()
        check_count("causal_span", self.causal_span)
        parse_space_init(str(self.space_init))
        parse_time_init(str(self.time_init))

    @property
    def widths(self) -> tuple[int, ...]:
        """Output channels of res1..res5; the stem has those of res1."""
        return (self.width, *(self.width * factor for factor in (1, 2, 4, 8)))


# ---------------------------------------------------------------------------------------------------- blocks


class RubiksBlock(nn.Module):
    """Pre-activation block: 1x1x1 convolution, shift with the stride, 1x1x1 convolution; residual.

    Norm and ReLU precede the first convolution and the shift; squeeze-excitation per frame follows the shift.
    With ``attention``, an `AttentionShift` precedes the first convolution. The shortcut is a strided
    convolution of the activated input if width or size changes, else the input.

    Shapes: (B, C_in, T, H, W) -> (B, C_out, T, H/stride, W/stride).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        stride: int,
        drop_path: float,
        config: RubiksNetConfig,
        norm_layer: NormLayer,
    ) -> None:
        super().__init__()
        self.norm_a = norm_layer(in_channels)
        self.time: nn.Module = nn.Identity()
        if config.attention:
            self.time = AttentionShift(in_channels, temperature=config.temperature, causal=config.causal)
        self.conv_a = SpatialConv3d(in_channels, out_channels, 1, bias=False)
        self.norm_b = norm_layer(out_channels)
        self.shift = _shift(out_channels, stride, config)
        self.se: nn.Module = nn.Identity()
        if config.se_reduction:
            hidden = out_channels // config.se_reduction
            self.se = SqueezeExcite(out_channels, hidden, bias=False, per_frame=True)
        self.conv_b = SpatialConv3d(out_channels, out_channels, 1, bias=False)
        self.has_shortcut = stride != 1 or in_channels != out_channels
        if self.has_shortcut:
            self.shortcut_conv = SpatialConv3d(
                in_channels, out_channels, 1, stride=(1, stride, stride), bias=False
            )
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        active = norm_act(x, self.norm_a, "relu")
        shortcut = self.shortcut_conv(active) if self.has_shortcut else x
        y = norm_act(self.conv_a(self.time(active)), self.norm_b, "relu")
        y = self.conv_b(self.se(self.shift(y)))
        total: Tensor = shortcut + self.drop_path(y)
        return total


def _shift(channels: int, stride: int, config: RubiksNetConfig) -> nn.Module:
    options: dict[str, Any] = {
        "stride": stride,
        "quantize": config.quantize,
        "normalize_grad": config.normalize_grad,
        "space_init": config.space_init,
    }
    if config.attention:
        return RubiksShift2d(channels, **options)
    return RubiksShift3d(
        channels,
        normalize_t_factor=config.normalize_t_factor,
        time_init=config.time_init,
        causal_span=config.causal_span if config.causal else 0,
        **options,
    )


class RubiksHead(nn.Module):
    """Norm, ReLU, mean over space, dropout and classifier for every frame; the mean over frames, or over the
    last ``last_frames`` if that is not 0.

    Shapes: (B, C, T, H, W) -> (B, K), or (B, K, T) with ``localization``; with ``last_frames`` also the next
    frame of a stream, (B, C, H, W) -> (B, K). Without a classifier, C features instead of K logits.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        localization: bool,
        dropout: float,
        norm_layer: NormLayer,
        last_frames: int = 0,
    ) -> None:
        super().__init__()
        self.localization, self.last_frames = localization, last_frames
        if last_frames:
            self.register_buffer("is_causal", torch.ones((), dtype=torch.bool))
        self.norm = norm_layer(channels)
        self.dropout = nn.Dropout(dropout)
        self.classifier: nn.Module = nn.Linear(channels, num_classes) if num_classes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.activate(x))

    def activate(self, x: Tensor) -> Tensor:
        """Norm and ReLU: (B, C, T, H, W) -> the map that is pooled, of the same shape."""
        return norm_act(x, self.norm, "relu")

    def classify(self, x: Tensor) -> Tensor:
        """The head after `activate`."""
        if x.ndim == 4:
            frame_logits: Tensor = self.classifier(x.mean((2, 3)))
            if self.localization or self.last_frames == 1:
                return frame_logits
            return streaming.memory().window_mean(frame_logits, self.last_frames)
        logits: Tensor = self.classifier(self.dropout(x.mean((3, 4)).transpose(1, 2)))
        if self.localization:
            return logits.transpose(1, 2)
        return (logits[:, -self.last_frames :] if self.last_frames else logits).mean(1)


# ----------------------------------------------------------------------------------------------------- model


class RubiksNet(VideoModel):
    """The model of a `RubiksNetConfig`: normalised clips (B, 3, T, H, W) -> logits (B, K).

    Accepts any T, H and W. Its shifts are fastest in the default memory format, not in channels-last.
    """

    config: RubiksNetConfig
    prefers_channels_last = False

    def __init__(
        self,
        config: RubiksNetConfig,
        num_classes: int = 400,
        *,
        norm_layer: NormLayer | None = None,
        model_name: str = "rubiksnet_tiny",
    ) -> None:
        """Args:
        norm_layer: number of channels -> norm; default `nn.BatchNorm3d`.
        model_name: the registered variant that ``config`` is derived from.
        """
        super().__init__(config, num_classes, model_name=model_name, num_features=config.widths[-1])
        norm = batch_norm(config, norm_layer)
        self.stem = SpatialConv3d(3, config.width, (1, 3, 3), stride=(1, 2, 2), padding=(0, 1, 1), bias=False)
        self.res1, self.res2, self.res3, self.res4, self.res5 = _stages(config, norm)
        self.head: RubiksHead = RubiksHead(
            config.widths[-1],
            num_classes,
            localization=config.localization,
            dropout=config.dropout,
            norm_layer=norm,
            last_frames=config.mean_frames if config.causal else 0,
        )
        self._allowed_fraction = 1.0  # of moving channels at the present stage of training
        init_weights(self)

    @property
    def time_init(self) -> str:
        """Initialisation of the temporal shifts; used when image weights are loaded."""
        return self.config.time_init

    def stages(self) -> list[nn.Module]:
        return [self.stem, self.res1, self.res2, self.res3, self.res4, self.res5]

    def init_classifier(self, linear: nn.Linear) -> None:
        _init_classifier(linear)

    # ------------------------------------------------------------------------------------- training traits

    def no_weight_decay(self) -> set[str]:
        """The shifts, and the weights of `AttentionShift`, whose scale has no effect."""
        return {*self.lr_multipliers(), *(f"{name}.weight" for name, _ in self._choices())}

    def lr_multipliers(self) -> dict[str, float]:
        """The learning rate of shifts is 0.01 of that of the weights."""
        kinds = (RubiksShift2d, RubiksShift3d)
        return {f"{name}.shift": SHIFT_LR for name, m in self.named_modules() if isinstance(m, kinds)}

    def not_averaged(self) -> set[str]:
        return {f"{name}.temperature" for name, _ in self._choices()}

    def on_train_progress(self, fraction: float) -> None:
        """-AQ: lower the temperature and the budget of moving channels; `harden` from `harden_at` on. Causal:
        clamp the shifts.

        Frozen layers and a hard model do not change.
        """
        config = self.config
        for module in self.modules():
            if isinstance(module, RubiksShift3d) and module.shift.requires_grad:
                module.clamp_()
        choices = self._learning_choices()
        if not choices or config.harden_at == 0 or _all_hard(choices):
            return
        progress = fraction / config.harden_at
        if progress >= 1:
            self.harden()
            return
        temperature = config.temperature * (config.final_temperature / config.temperature) ** progress
        for choice in choices:
            choice.temperature.fill_(temperature)
        self._allowed_fraction = 1 - (1 - config.shift_budget) * progress

    def regularization(self) -> Tensor | None:
        """-AQ: a penalty if more channels move than the present budget allows.

        ``budget_weight`` x channels x (moving fraction - allowed fraction)², where a channel moves if it
        prefers another frame; 0 within the budget. The gradient of a channel does not depend on the number
        of channels.
        """
        config = self.config
        choices = self._learning_choices()
        if not choices or config.harden_at == 0 or config.shift_budget == 1 or not config.budget_weight:
            return None
        moving = torch.cat([choice.moving() for choice in choices])
        excess = F.relu(moving.mean() - self._allowed_fraction)
        return config.budget_weight * len(moving) * excess.square()

    def harden(self) -> None:
        """-AQ: make each channel's choice of frame final. Over all layers, the channels with the strongest
        preference move, as many as `shift_budget` allows. Does nothing if the model is hard already.
        """
        choices = self._learning_choices()
        if not choices:
            return  # none to make, or all made
        wish = torch.cat([choice.preference() for choice in choices])
        num_moving = min(int(self.config.shift_budget * len(wish) + 1e-9), int((wish > 0).sum()))
        may_move = torch.zeros_like(wish, dtype=torch.bool)
        may_move[wish.topk(num_moving).indices] = True
        sizes = [len(choice.weight) for choice in choices]
        for choice, chosen in zip(choices, may_move.split(sizes), strict=True):
            choice.harden(chosen)
        self._allowed_fraction = 1.0  # nothing is left to regularise

    def is_hard(self) -> bool:
        """-AQ: whether every channel's choice of frame is final."""
        return _all_hard([choice for _, choice in self._choices()])

    def in_final_form(self) -> bool:
        return not self.config.harden_at or not self._choices() or self.is_hard()

    def _choices(self) -> list[tuple[str, AttentionShift]]:
        return [(name, m) for name, m in self.named_modules() if isinstance(m, AttentionShift)]

    def _learning_choices(self) -> list[AttentionShift]:
        return [choice for _, choice in self._choices() if choice.weight.requires_grad]


def _all_hard(choices: list[AttentionShift]) -> bool:
    return bool(choices) and not bool(torch.stack([choice.temperature for choice in choices]).any())


def _stages(config: RubiksNetConfig, norm_layer: NormLayer) -> list[nn.Sequential]:
    depths = (1, *config.depths)
    rates = torch.linspace(0, config.drop_path, sum(depths), device="cpu").tolist()
    stages, channels = [], config.width
    for index, (depth, width) in enumerate(zip(depths, config.widths, strict=True)):
        blocks = []
        for i in range(depth):
            stride = 2 if index and i == 0 else 1
            rate = rates.pop(0)
            blocks.append(
                RubiksBlock(
                    channels, width, stride=stride, drop_path=rate, config=config, norm_layer=norm_layer
                )
            )
            channels = width
        stages.append(nn.Sequential(*blocks))
    return stages


@torch.no_grad()
def init_weights(model: nn.Module) -> None:
    """Initialise as the authors: convolutions N(0, 2 / (k k C_out)), classifier N(0, 0.01), norms 1 and 0.

    The layers of squeeze-excitation and the classifier's bias keep PyTorch's initialisation.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv3d) and ".se." not in name:
            fan_out = module.out_channels * math.prod(module.kernel_size)
            nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        elif isinstance(module, nn.Linear):
            _init_classifier(module)


def _init_classifier(linear: nn.Linear) -> None:
    nn.init.normal_(linear.weight, std=0.01)


# ---------------------------------------------------------------------------------------------- named points

_TIERS: dict[str, dict[str, Any]] = {
    "tiny": {"width": 54, "depths": (3, 4, 6, 3)},
    "small": {"width": 72, "depths": (3, 4, 6, 3), "se_reduction": 12},
    "medium": {"width": 72, "depths": (3, 4, 23, 3)},
    "large": {"width": 72, "depths": (3, 8, 36, 3)},
}
# 1/8 of the channels: the budget of the one published -AQ network, rubiksnet_large_aq
CONFIGS: dict[str, RubiksNetConfig] = {
    **{f"rubiksnet_{tier}": RubiksNetConfig(**shape) for tier, shape in _TIERS.items()},
    **{
        f"rubiksnet_{tier}_aq": RubiksNetConfig(**shape, attention=True, shift_budget=0.125)
        for tier, shape in _TIERS.items()
    },
}


# One frame of each of eight segments, whatever the stride. The published 2-clip figures are of the authors'
# table, those of one clip of their evaluation logs.
_FACTS: dict[str, Any] = {
    "config": CONFIGS,
    "options": ("norm_layer",),
    "clip": ClipSpec(
        num_frames=8,
        stride=8,
        crop=224,
        short_side=256,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
    ),
    "temporal_rule": "tsm",
    "train_short_side": (224, 340),
    "top1_data": "Something-Something v2",
    "top1_source": "RubiksNet's repository",
    "source": "Fan, Buch et al., RubiksNet, ECCV 2020; github.com/StanfordVL/RubiksNet",
    "licence": "MIT",
}


def _create(name: str, num_classes: int, norm_layer: NormLayer | None = None, **overrides: Any) -> RubiksNet:
    return RubiksNet(config_of(name, overrides), num_classes, norm_layer=norm_layer, model_name=name)


@register_model(**_FACTS, params=1_996_618, gmacs=3.695791104, top1=(("1x1", 54.6), ("2x3", 56.7)))
def rubiksnet_tiny(num_classes: int = 400, **overrides: Any) -> RubiksNet:
    """RubiksNet-Tiny: 8 frames of 224 pixels, 1.9 M parameters with 174 classes."""
    return _create("rubiksnet_tiny", num_classes, **overrides)


@register_model(**_FACTS, params=3_727_768, gmacs=6.506781696, top1=(("1x1", 57.5), ("2x3", 59.8)))
def rubiksnet_small(num_classes: int = 400, **overrides: Any) -> RubiksNet:
    """RubiksNet-Small: 8 frames of 224 pixels, squeeze-excitation in every block."""
    return _create("rubiksnet_small", num_classes, **overrides)


@register_model(**_FACTS, params=6_316_024, gmacs=10.926563328, top1=(("1x1", 58.3), ("2x3", 60.8)))
def rubiksnet_medium(num_classes: int = 400, **overrides: Any) -> RubiksNet:
    """RubiksNet-Medium: 8 frames of 224 pixels, as wide as small, deeper, no squeeze-excitation."""
    return _create("rubiksnet_medium", num_classes, **overrides)


@register_model(**_FACTS, params=8_668_696, gmacs=15.348473856, top1=(("1x1", 59.0), ("2x3", 61.7)))
def rubiksnet_large(num_classes: int = 400, **overrides: Any) -> RubiksNet:
    """RubiksNet-Large: 8 frames of 224 pixels, 51 blocks."""
    return _create("rubiksnet_large", num_classes, **overrides)


# -AQ costs three more multiply-adds per value than the plain variant while its choice of frames is soft.
@register_model(**_FACTS, params=2_001_964, gmacs=3.755738880)
def rubiksnet_tiny_aq(num_classes: int = 400, **overrides: Any) -> RubiksNet:
    """RubiksNet-Tiny-AQ: each channel stays or moves by one frame."""
    return _create("rubiksnet_tiny_aq", num_classes, **overrides)


@register_model(**_FACTS, params=3_734_896, gmacs=6.586712064)
def rubiksnet_small_aq(num_classes: int = 400, **overrides: Any) -> RubiksNet:
    """RubiksNet-Small-AQ: each channel stays or moves by one frame."""
    return _create("rubiksnet_small_aq", num_classes, **overrides)


@register_model(**_FACTS, params=6_332_944, gmacs=11.029524480)
def rubiksnet_medium_aq(num_classes: int = 400, **overrides: Any) -> RubiksNet:
    """RubiksNet-Medium-AQ: each channel stays or moves by one frame."""
    return _create("rubiksnet_medium_aq", num_classes, **overrides)


@register_model(**_FACTS, params=8_694_256, gmacs=15.479884800, top1=(("1x1", 58.6), ("2x3", 61.6)))
def rubiksnet_large_aq(num_classes: int = 400, **overrides: Any) -> RubiksNet:
    """RubiksNet-Large-AQ: each channel stays or moves by one frame."""
    return _create("rubiksnet_large_aq", num_classes, **overrides)
