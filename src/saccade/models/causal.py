"""What causal networks have in common: options, the step of a stream, weights of plain networks.

Shape letters: B clips or streams, C channels, T frames, H and W pixels, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from saccade.errors import ConfigError, UsageError
from saccade.layers.streaming import FrameMemory, State, remembering
from saccade.models.checks import check_choice, check_flag

SqueezeExciteMean = Literal["auto", "clip", "frame", "window"]

MARK = "head.is_causal"
"""Buffer of causal networks whose weights have to differ from those of plain ones, which lack it."""


@dataclass(frozen=True, kw_only=True)
class CausalOptions:
    """The options of networks that can be causal: a frame's output depends on no later frame."""

    causal: bool = False
    """No frame sees a later one: the network streams, see `VideoModel.step`."""
    causal_frames: int = 0
    """Causal: frames that means over time extend over, the head's and, with se="window", those of
    squeeze-excitation. 0: the frames of the training clip."""

    def check_causal(self) -> None:
        """Raise `ConfigError` for invalid values of these options."""
        check_flag("causal", self.causal)
        if type(self.causal_frames) is not int or self.causal_frames < 0:
            raise ConfigError(
                f"causal_frames must be a number of frames, or 0 for those of the clip, "
                f"got {self.causal_frames!r}"
            )

    @property
    def mean_frames(self) -> int:
        """Frames of the means of a causal network."""
        return self.causal_frames or getattr(self, "num_frames", 8)


@dataclass(frozen=True, kw_only=True)
class CausalExciteOptions(CausalOptions):
    """`CausalOptions` of networks with squeeze-excitation over the clip."""

    se: SqueezeExciteMean = "auto"
    """Mean of squeeze-excitation: over the clip, each frame, or a window, the last ``causal_frames`` frames.
    auto: window if causal, else clip."""

    def check_causal(self) -> None:
        super().check_causal()
        check_choice("se", self.se, get_args(SqueezeExciteMean))
        if self.causal and self.se == "clip":
            raise ConfigError("se must be frame or window if causal, got 'clip': a clip has later frames")

    @property
    def se_frames(self) -> int:
        """Frames of the mean of squeeze-excitation; 0: the clip."""
        kind = ("window" if self.causal else "clip") if self.se == "auto" else self.se
        return {"clip": 0, "frame": 1, "window": self.mean_frames}[kind]


def step(model: Any, frame: Tensor, state: State | None) -> tuple[Tensor, State]:
    """`VideoModel.step`."""
    if not model.is_causal:
        raise UsageError(
            f"{model.model_name} sees later frames, so it has no step; build it with causal=True "
            "(saccade train RECIPE --causal)"
        )
    if getattr(model.config, "detection", False):
        raise UsageError(f"{model.model_name}: a network with person boxes has no step")
    if model.training:
        raise UsageError(f"{model.model_name}.step: the model is in training mode; call model.eval() first")
    if frame.ndim != 4 or frame.shape[1] != 3:
        raise UsageError(f"step takes frames of shape (B, 3, H, W), got {tuple(frame.shape)}")
    memory = FrameMemory(state, frame)
    with torch.no_grad(), remembering(memory):
        x = frame.contiguous(memory_format=torch.channels_last)
        for stage in model.stages():
            x = stage(x)
        logits = model.head(x)
    return logits, memory.state()


@dataclass(frozen=True)
class StreamFacts:
    """What a stream of one video costs, with frames of the training crop.

    Attributes:
        receptive_field, delay: as of `VideoModel`; seconds follow from the rate of the frames.
        state_mib: size of the state in MiB, float32.
        gmacs_step: multiply-adds of a step / 10⁹, as `count_macs` counts them.
    """

    receptive_field: int
    delay: int
    state_mib: float
    gmacs_step: float


def stream_facts(model: Any, crop: int) -> StreamFacts:
    """The facts of a causal model on the meta device (`create_on_meta`), where nothing is computed.

    Args:
        crop: side of the frames in pixels.

    Raises:
        UsageError: the model has no step.
    """
    modes = {module: module.training for module in model.modules()}
    frame = torch.empty(1, 3, crop, crop, device="meta", dtype=next(model.parameters()).dtype)
    model.eval()
    try:
        with FlopCounterMode(display=False) as counter:
            _, state = model.step(frame)
    finally:
        for module, training in modes.items():
            module.training = training
    size = sum(tensor.numel() * tensor.element_size() for tensor in state) / 2**20
    return StreamFacts(model.receptive_field, model.delay, size, counter.get_total_flops() / 2e9)


def reach(model: nn.Module) -> tuple[int, int]:
    """How many frames before and after its own a feature of the last stage depends on by convolutions and
    shifts, which follow one another.
    """
    reaches = [
        found for module in model.modules() if (found := getattr(module, "temporal_reach", None)) is not None
    ]
    return sum(before for before, _ in reaches), sum(after for _, after in reaches)


def adapt_plain_weights(model: nn.Module, tensors: dict[str, Tensor]) -> list[str]:
    """Change weights of the plain network, about to be loaded into a causal one, in place; returns what was
    done. Weights of a causal network stay as they are.
    """
    if MARK in tensors or MARK not in model.state_dict():
        return []
    tensors[MARK] = torch.ones((), dtype=torch.bool)
    changed = 0
    for prefix, module in model.named_modules():
        adapt = getattr(module, "causal_tensors", None)
        if adapt is None:
            continue
        for name, change in adapt().items():
            key = f"{prefix}.{name}"
            if key in tensors:
                tensors[key] = change(tensors[key])
                changed += 1
    return [f"weights of a plain network: {changed} layers changed to look back alone, see docs/streaming.md"]
