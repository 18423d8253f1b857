"""Learnable shifts, layers that shift each channel in time and space instead of convolving.

RubiksNet: Fan, Buch et al., ECCV 2020, github.com/StanfordVL/RubiksNet. The operators are in `saccade.ops`.
Shape letters: B clips, C channels, T frames, H and W pixels.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saccade.errors import ConfigError
from saccade.layers import streaming
from saccade.ops import depthwise_conv3d, shift2d, shift3d

TIME_INITS = "uniform, uniform<size>, tsm, tsm-g<std>, none"
SPACE_INITS = "uniform, group<K>"

# The largest causal shift in time. At 0 itself the gradient is that of a step towards the next frame.
PRESENT = -(2.0**-20)


class RubiksShift3d(nn.Module):
    """Shift each channel by a learnable, fractional number of frames and pixels.

    ``shift`` (3, C) has the rows T, H, W; +1 reads the next frame, the pixel below, the pixel to the right.

    Args:
        stride: stride in height and width; time is never strided.
        quantize: round the shift to integers, halves up, with a straight-through gradient.
        normalize_grad: normalise the shift gradient of each channel to length 1, so that the learning rate is
            the step size.
        normalize_t_factor: factor on the gradient's T row before that; "auto" is T / H of the input.
        space_init, time_init: see `init_space_` and `init_time_`.
        causal_span: clamp the shifts in time to this many frames back and none ahead; 0: they are free.

    Shapes: (B, C, T, H, W) -> (B, C, T, ceil(H / stride), ceil(W / stride)); with ``causal_span`` also the
    next frame of a stream, (B, C, H, W) -> (B, C, ceil(H / stride), ceil(W / stride)).
    """

    def __init__(
        self,
        channels: int,
        *,
        stride: int = 1,
        quantize: bool = False,
        normalize_grad: bool = True,
        normalize_t_factor: float | Literal["auto"] = 1.0,
        space_init: str = "uniform",
        time_init: str = "uniform",
        causal_span: int = 0,
    ) -> None:
        super().__init__()
        self.stride, self.quantize, self.causal_span = stride, quantize, causal_span
        self.normalize_grad, self.normalize_t_factor = normalize_grad, normalize_t_factor
        self.shift = nn.Parameter(torch.empty(3, channels))
        init_space_(self.shift[1:], space_init)
        init_time_(self.shift[0], time_init)
        self.clamp_()

    @torch.no_grad()
    def clamp_(self) -> None:
        """Clamp the parameter to the causal span, so that no shift has far to go back."""
        if self.causal_span:
            self.shift[0].clamp_(-self.causal_span, PRESENT)

    def clamped(self) -> Tensor:
        """``shift`` within the causal span. The gradient passes as if nothing were clamped: a shift that is
        at its end can leave it.
        """
        if not self.causal_span:
            return self.shift
        time = self.shift[:1]
        return torch.cat((time + (time.clamp(-self.causal_span, PRESENT) - time).detach(), self.shift[1:]))

    @property
    def temporal_reach(self) -> tuple[int, int]:
        """How many frames before and after its own a frame of the output sees."""
        if self.causal_span:
            return self.causal_span, 0
        if self.shift.is_meta:
            return 1, 1  # at most, at the start
        low, high = self.shift[0].min().item(), self.shift[0].max().item()
        return max(0, -math.floor(low)), max(0, math.ceil(high))

    def causal_tensors(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """How to change tensors of a layer that is not causal."""
        return {"shift": self._clamp_tensor} if self.causal_span else {}

    def _clamp_tensor(self, shift: Tensor) -> Tensor:
        return torch.cat((shift[:1].clamp(-self.causal_span, PRESENT), shift[1:]))

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 4:
            return self._forward_frame(x)
        return shift3d(
            x,
            self.clamped(),
            stride=(1, self.stride, self.stride),
            quantize=self.quantize,
            normalize_grad=self.normalize_grad,
            normalize_t_factor=self.normalize_t_factor,
        )

    def _forward_frame(self, x: Tensor) -> Tensor:
        """Blends the frames in time, then shifts the blend in space: the order makes no difference."""
        past = streaming.memory().past(x, self.causal_span)
        shift = self.clamped().to(torch.float64 if x.dtype == torch.float64 else torch.float32)
        time = shift[0]
        if self.quantize:  # halves up
            time = time.floor() + (time - time.floor() >= 0.5)
        blend = blend_frames([*past, x], time)
        return shift2d(blend, shift[1:], stride=(self.stride,) * 2, quantize=self.quantize)

    def extra_repr(self) -> str:
        return f"channels={self.shift.shape[1]}, stride={self.stride}"


def blend_frames(frames: Sequence[Tensor], time: Tensor) -> Tensor:
    """The last of ``frames`` (B, C, H, W), oldest first, after a causal shift in time by ``time`` (C,)."""
    last = frames[-1]
    blend = (1 - time.abs()).clamp(min=0).view(-1, 1, 1) * last
    for lag, frame in enumerate(reversed(frames[:-1]), start=1):
        blend = blend + (1 - (time + lag).abs()).clamp(min=0).view(-1, 1, 1) * frame
    return blend.to(last.dtype)


class RubiksShift2d(nn.Module):
    """`RubiksShift3d` in space only: ``shift`` (2, C) has the rows H and W, the same for all frames.

    Shapes: (B, C, T, H, W) -> (B, C, T, ceil(H / stride), ceil(W / stride)), or for one frame without T.
    """

    def __init__(
        self,
        channels: int,
        *,
        stride: int = 1,
        quantize: bool = False,
        normalize_grad: bool = True,
        space_init: str = "uniform",
    ) -> None:
        super().__init__()
        self.stride, self.quantize, self.normalize_grad = stride, quantize, normalize_grad
        self.shift = nn.Parameter(torch.empty(2, channels))
        init_space_(self.shift, space_init)

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 4:
            return shift2d(x, self.shift, stride=(self.stride,) * 2, quantize=self.quantize)
        still = self.shift.new_zeros(1, self.shift.shape[1])
        return shift3d(
            x,
            torch.cat((still, self.shift)),
            stride=(1, self.stride, self.stride),
            quantize=self.quantize,
            normalize_grad=self.normalize_grad,
            normalize_t_factor=0.0,  # the T row, always 0, must not count in the gradient's norm
        )

    def extra_repr(self) -> str:
        return f"channels={self.shift.shape[1]}, stride={self.stride}"


class AttentionShift(nn.Module):
    """Each channel selects the previous, the current or the next frame: the temporal part of RubiksNet-AQ.

    In training a channel blends the three frames by ``taps()``, the softmax of its weights divided by their
    standard deviation and the temperature. As the temperature falls the softmax approaches a choice; `harden`
    makes it final, and each channel is then shifted by the integer ``offset``. Frames outside the clip count
    as zero.

    Temperature (0 when hard) and offset are part of the state dict, so that a loaded model is in the same
    state. With ``causal`` no channel can select the next frame.

    Shapes: (B, C, T, H, W) -> (B, C, T, H, W); causal, also the next frame of a stream, (B, C, H, W) -> same.
    """

    def __init__(self, channels: int, *, temperature: float = 2.0, causal: bool = False) -> None:
        super().__init__()
        self.causal = causal
        self.weight = nn.Parameter(torch.rand(channels, 3))
        self.temperature: Tensor
        self.offset: Tensor
        self.register_buffer("temperature", torch.tensor(float(temperature)))
        self.register_buffer("offset", torch.zeros(channels, dtype=torch.int64))

    def logits(self) -> Tensor:
        """(C, 3): the weights divided by their standard deviation, before the temperature."""
        logits = self.weight / (self.weight.std(dim=1, keepdim=True) + 1e-6)
        if not self.causal:
            return logits
        return torch.cat((logits[:, :2], torch.full_like(logits[:, 2:], -torch.inf)), 1)

    def taps(self) -> Tensor:
        """(C, 3): weights of the previous, the current and the next frame; each row sums to 1."""
        # no branch on a tensor's value: torch.export keeps both, and the gradient of a hard choice is 0
        soft = (self.logits() / self.temperature.clamp(min=1e-3)).softmax(dim=1)
        hard = F.one_hot(self.offset + 1, 3).to(soft.dtype)
        return torch.where(self.temperature > 0, soft, hard)

    def moving(self) -> Tensor:
        """(C,): 1 for each channel that prefers another frame, else 0. The gradient is that of the softmax
        probability of the other frames (straight-through).
        """
        soft = 1 - self.logits().softmax(dim=1)[:, 1]
        return (self.preference() > 0).to(soft.dtype) + (soft - soft.detach())

    @torch.no_grad()
    def preference(self) -> Tensor:
        """(C,): logit of the better other frame minus that of the current frame."""
        logits = self.logits()
        return torch.maximum(logits[:, 0], logits[:, 2]) - logits[:, 1]

    @torch.no_grad()
    def harden(self, may_move: Tensor) -> None:
        """Make the choice final: each channel takes its best frame where ``may_move`` (C,), else stays."""
        best = self.logits().argmax(dim=1) - 1
        self.offset.copy_(best.where(may_move, torch.zeros_like(best)))
        self.temperature.zero_()

    @property
    def temporal_reach(self) -> tuple[int, int]:
        """How many frames before and after its own a frame of the output sees."""
        return (1, 0) if self.causal else (1, 1)

    def causal_tensors(self) -> dict[str, Callable[[Tensor], Tensor]]:
        """How to change tensors of a layer that is not causal."""
        return {"offset": lambda offset: offset.clamp(max=0)} if self.causal else {}

    def forward(self, x: Tensor) -> Tensor:
        if x.ndim == 4:
            (before,) = streaming.memory().past(x, 1)
            taps = self.taps().to(x.dtype).view(-1, 3, 1, 1)
            return taps[:, 0:1].squeeze(1) * before + taps[:, 1:2].squeeze(1) * x
        kernel = self.taps().view(-1, 1, 3, 1, 1)
        return depthwise_conv3d(x, kernel, padding=(1, 0, 0))

    def extra_repr(self) -> str:
        return f"channels={self.weight.shape[0]}"


# ---------------------------------------------------------------------------------------------------- start


def parse_space_init(how: str) -> int:
    """Parse ``how``: K of ``group<K>``, 0 for ``uniform``.

    Raises:
        ConfigError: ``how`` is neither, or K is not odd and at least 3.
    """
    if how == "uniform":
        return 0
    group = re.fullmatch(r"group(\d+)", how)
    size = int(group[1]) if group else 0
    if size < 3 or size % 2 == 0:
        raise ConfigError(f"space_init must be one of {SPACE_INITS} with an odd K of at least 3, got {how!r}")
    return size


def parse_time_init(how: str) -> tuple[str, float]:
    """Parse ``how`` into the kind of initialisation and its number, 1 by default.

    Raises:
        ConfigError: `init_time_` does not know ``how``, or its number is not above 0.
    """
    form = re.fullmatch(r"(uniform|tsm-g)(\d*\.?\d+(?:e-?\d+)?)", how)
    number = float(form[2]) if form else 1.0
    kind = form[1] if form else how
    if kind not in ("uniform", "tsm", "tsm-g", "none") or (kind == "tsm-g" and not form) or not number > 0:
        raise ConfigError(f"time_init must be one of {TIME_INITS} with a number above 0, got {how!r}")
    return kind, number


@torch.no_grad()
def init_space_(shift: Tensor, how: str) -> Tensor:
    """Fill the rows H and W of a shift (2, C).

    ``uniform``: in [-1, 1]. ``group<K>``: cycle through the offsets of a K x K kernel; the remaining
    channels, fewer than K x K, get 0.

    Raises:
        ConfigError: ``how`` is neither, or K is not odd and at least 3.
    """
    size = parse_space_init(how)
    if not size:
        nn.init.uniform_(shift, -1, 1)
        return shift
    channels = shift.shape[1]
    index = torch.arange(channels, device=shift.device)
    inside = index < channels // size**2 * size**2
    shift[0] = torch.where(inside, index % size - size // 2, 0)
    shift[1] = torch.where(inside, index // size % size - size // 2, 0)
    return shift


@torch.no_grad()
def init_time_(shift: Tensor, how: str) -> Tensor:
    """Fill the row T of a shift, (C,).

    ``uniform``: in [-1, 1]; ``uniform<size>``: in [-size, size]. ``tsm``: an eighth of the channels +1, the
    next eighth -1, the others 0 (Temporal Shift Module, arXiv 1811.08383); ``tsm-g<std>``: the same plus
    Gaussian noise. ``none``: 0, no shift in time.

    Raises:
        ConfigError: ``how`` is none of them, or its number is not above 0.
    """
    kind, number = parse_time_init(how)
    shift.zero_()
    if kind == "uniform":
        return shift.uniform_(-number, number)
    if kind != "none":
        fold = len(shift) // 8
        shift[:fold], shift[fold : 2 * fold] = 1.0, -1.0
    if kind == "tsm-g":
        shift += torch.randn_like(shift) * number
    return shift
