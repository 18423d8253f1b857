"""Configs of the TSM networks, and the stages of MobileNetV2 and EfficientNet-Lite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from saccade.errors import ConfigError
from saccade.layers.frame_conv import PaddingRule
from saccade.models.causal import CausalOptions
from saccade.models.checks import check_choice, check_count, check_flag, check_number, checked_depths

ShiftKind = Literal["fixed", "learnable", "learnable_3d"]
ShiftPlace = Literal["residual", "inplace", "none"]


@dataclass(frozen=True, kw_only=True)
class TSMConfig(CausalOptions):
    """What the networks have in common: the shift and the head. An invalid field raises `ConfigError`."""

    shift: ShiftKind = "fixed"
    """fixed: TSM. learnable, learnable_3d: RubiksNet's learnable shift in time, or in time and space, which
    begins as TSM."""
    shift_fraction: float = 0.125
    """Fraction of the channels that come from the next frame, and as many from the previous one; 0 is TSN,
    without a shift (learnable shifts begin at 0)."""
    shift_place: ShiftPlace = "residual"
    """residual: before the first convolution of a block, so that the shortcut keeps the frame; inplace:
    before the block and its shortcut; none: TSN, no shift."""
    shift_blocks: tuple[int, ...] | Literal["auto"] = "auto"
    """Blocks with a shift, counted from 0 over all stages, also as text, "1,3,5"; auto: those with a
    shortcut."""
    shift_warmup: float = 0.0
    """Fraction of the training in which a fixed shift is blended in from nothing, linearly; 0: it is there
    from the start. A model that is built with it has no shift until it is trained or loaded."""
    localization: bool = False
    """Logits per frame, (B, K, T), instead of per clip."""
    dropout: float = 0.0
    """Dropout before the classifier."""
    drop_path: float = 0.0
    """Stochastic depth rate of the last block; grows linearly from 0."""
    bn_eps: float = 1e-5
    bn_momentum: float = 0.1

    def __post_init__(self) -> None:
        check_choice("shift", self.shift, get_args(ShiftKind))
        check_choice("shift_place", self.shift_place, get_args(ShiftPlace))
        self.check_causal()
        check_flag("localization", self.localization)
        check_number("shift_fraction", self.shift_fraction, at_least=0.0)
        if self.shift_fraction > 0.5:
            raise ConfigError(
                f"shift_fraction must be at most 0.5, half of the channels, got {self.shift_fraction}"
            )
        for name in ("dropout", "drop_path", "bn_momentum", "shift_warmup"):
            check_number(name, getattr(self, name), at_least=0.0, below=1.0)
        if self.shift_warmup and self.shift != "fixed":
            raise ConfigError(
                "shift_warmup is for shift=fixed; a learnable shift begins at 0 with shift_fraction=0"
            )
        check_number("bn_eps", self.bn_eps, above=0.0)
        object.__setattr__(self, "shift_blocks", _checked_blocks(self.shift_blocks))


def _checked_blocks(blocks: Any) -> tuple[int, ...] | Literal["auto"]:
    if blocks == "auto":
        return "auto"
    entries = (
        blocks.split(",") if isinstance(blocks, str) else [blocks] if isinstance(blocks, int) else blocks
    )
    try:
        numbers = tuple(int(entry) if isinstance(entry, str) else entry for entry in entries)
    except (TypeError, ValueError):
        numbers = (-1,)
    if any(type(number) is not int or number < 0 for number in numbers):
        raise ConfigError(
            f"shift_blocks must be auto or numbers of blocks from 0, e.g. 1,3,5; got {blocks!r}"
        )
    return numbers


@dataclass(frozen=True, kw_only=True)
class TSMMobileNetConfig(TSMConfig):
    """Config of `TSMMobileNet`."""

    network: Literal["efficientnet_lite", "mobilenetv2"] = "efficientnet_lite"
    """Which table of stages: kernel sizes, widths, depths."""
    width: float = 1.0
    """Factor on the channels of the stages; the stem (32) and the last layer (1280) keep theirs."""
    depth: float = 1.0
    """Factor on the blocks of the stages but the first and the last, rounded up."""
    padding: PaddingRule = "same"
    """same: TensorFlow's, with which the packages' weights, Google's and those of timm's tf_ models were
    trained; symmetric: PyTorch's, as in torchvision and timm's other models."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("network", self.network, tuple(STAGES))
        check_choice("padding", self.padding, get_args(PaddingRule))
        for name in ("width", "depth"):
            check_number(name, getattr(self, name), above=0.0)


@dataclass(frozen=True, kw_only=True)
class TSMResNetConfig(TSMConfig):
    """Config of `TSMResNet`."""

    width: int = 64
    """Channels of the stem and of the inner layers of res2; times 2, 4 and 8 in the other stages."""
    depths: tuple[int, ...] = (3, 4, 6, 3)
    """Blocks of res2..res5. Also as text, "3,4,6,3"."""

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "depths", checked_depths(self.depths))
        check_count("width", self.width)


STEM_WIDTH, LAST_WIDTH = 32, 1280

# Of each stage: expansion, kernel, stride of the first block, channels, blocks.
STAGES: dict[str, tuple[tuple[int, int, int, int, int], ...]] = {
    "efficientnet_lite": (
        (1, 3, 1, 16, 1),
        (6, 3, 2, 24, 2),
        (6, 5, 2, 40, 2),
        (6, 3, 2, 80, 3),
        (6, 5, 1, 112, 3),
        (6, 5, 2, 192, 4),
        (6, 3, 1, 320, 1),
    ),
    "mobilenetv2": (
        (1, 3, 1, 16, 1),
        (6, 3, 2, 24, 2),
        (6, 3, 2, 32, 3),
        (6, 3, 2, 64, 4),
        (6, 3, 1, 96, 3),
        (6, 3, 2, 160, 3),
        (6, 3, 1, 320, 1),
    ),
}

_LITE: dict[str, Any] = {"bn_eps": 1e-3, "bn_momentum": 0.01}
MOBILENET_CONFIGS: dict[str, TSMMobileNetConfig] = {
    "tsm_efficientnet_lite0": TSMMobileNetConfig(**_LITE),
    "tsm_efficientnet_lite1": TSMMobileNetConfig(depth=1.1, **_LITE),
    "tsm_efficientnet_lite2": TSMMobileNetConfig(width=1.1, depth=1.2, **_LITE),
    "tsm_mobilenetv2": TSMMobileNetConfig(network="mobilenetv2", padding="symmetric"),
}
RESNET_CONFIGS: dict[str, TSMResNetConfig] = {"tsm_resnet50": TSMResNetConfig()}
