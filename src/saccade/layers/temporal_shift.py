"""The temporal shift: some channels of a frame come from the frame before or after it.

TSM: Lin, Gan, Han, ICCV 2019, arXiv 1811.08383, github.com/mit-han-lab/temporal-shift-module.
Shape letters: B clips, C channels, T frames, H and W pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saccade.layers import streaming
from saccade.layers.shift import blend_frames
from saccade.ops import shift2d, shift3d

CAUSAL_SPAN = 2  # the most frames that a causal learnable shift reaches back


class TemporalShift(nn.Module):
    """Channels [0, fold) come from the next frame, [fold, 2 fold) from the previous one; the others stay.

    Frames outside the clip count as zero. With ``causal``, channels [0, fold) come from the previous frame
    and all others stay, so that no frame depends on a later one (section 4.2 of the paper).

    Args:
        fold: number of channels that move in each direction; 0: none.
        blended: begin without a shift: the buffer ``blend`` is the fraction of the shifted values in the
            channels that move, 0 at first; at 1 the layer is exactly the shift.

    Shapes: (B, C, T, H, W) -> (B, C, T, H, W); causal, also the next frame of a stream, (B, C, H, W) -> same.
    """

    blend: Tensor | None

    def __init__(self, channels: int, fold: int, *, causal: bool = False, blended: bool = False) -> None:
        super().__init__()
        self.channels, self.fold, self.causal = channels, fold, causal
        self.register_buffer("blend", torch.zeros(()) if blended else None)

    @property
    def temporal_reach(self) -> tuple[int, int]:
        """How many frames before and after its own a frame of the output sees."""
        return (0, 0) if not self.fold else (1, 0) if self.causal else (1, 1)

    def forward(self, x: Tensor) -> Tensor:
        fold = self.fold
        if not fold:
            return x
        if x.ndim == 4:
            (before,) = streaming.memory().past(x[:, :fold], 1)
            return torch.cat((self._mix(x[:, :fold], lambda _: before), x[:, fold:]), 1)
        if self.causal:
            return torch.cat((self._mix(x[:, :fold], _previous), x[:, fold:]), 1)
        parts = [self._mix(x[:, :fold], _next), self._mix(x[:, fold : 2 * fold], _previous)]
        return torch.cat((*parts, x[:, 2 * fold :]), 1)

    def _mix(self, x: Tensor, shift: Callable[[Tensor], Tensor]) -> Tensor:
        # lerp is exact at both ends
        return shift(x) if self.blend is None else x.lerp(shift(x), self.blend.to(x.dtype))

    def extra_repr(self) -> str:
        return f"channels={self.channels}, fold={self.fold}, causal={self.causal}"


def _next(x: Tensor) -> Tensor:
    return F.pad(x[:, :, 1:], (0, 0, 0, 0, 0, 1))


def _previous(x: Tensor) -> Tensor:
    return F.pad(x[:, :, :-1], (0, 0, 0, 0, 1, 0))


class LearnableTemporalShift(nn.Module):
    """RubiksNet's learnable shift in time (1-D), or in time and space (3-D), which begins as `TemporalShift`.

    ``shift`` (1, C) or (3, C) has the row T, or T, H and W, in frames and pixels; +1 reads the next frame.
    With ``causal``, T is limited to `CAUSAL_SPAN` frames back and none ahead. As in RubiksNet, the gradient
    of each channel's shift has length 1, so that the learning rate is the step size.

    Args:
        fold: as in `TemporalShift`; 0 begins without a shift.
        in_space: also learn to shift in height and width, from 0.

    Shapes: (B, C, T, H, W) -> (B, C, T, H, W); causal, also the next frame of a stream, (B, C, H, W) -> same.
    """

    def __init__(self, channels: int, fold: int, *, in_space: bool = False, causal: bool = False) -> None:
        super().__init__()
        self.causal, self.in_space = causal, in_space
        self.shift = nn.Parameter(torch.zeros(3 if in_space else 1, channels))
        with torch.no_grad():
            self.shift[0, :fold] = -1.0 if causal else 1.0
            if not causal:
                self.shift[0, fold : 2 * fold] = -1.0

    @property
    def temporal_reach(self) -> tuple[int, int]:
        """How many frames before and after its own a frame of the output sees; learned, if not causal."""
        if self.causal:
            return CAUSAL_SPAN, 0
        if self.shift.is_meta:
            return 1, 1  # at the start
        return max(0, -math.floor(self.shift[0].min().item())), max(0, math.ceil(self.shift[0].max().item()))

    def forward(self, x: Tensor) -> Tensor:
        time, space = self.shift[:1], self.shift[1:]
        if self.causal:
            time = time.clamp(-CAUSAL_SPAN, 0)
        if x.ndim == 4:
            x = blend_frames([*streaming.memory().past(x, CAUSAL_SPAN), x], time[0])
            return shift2d(x, space) if self.in_space else x
        if not self.in_space:
            space = self.shift.new_zeros(2, self.shift.shape[1])
        factor = 1.0 if self.in_space else -1.0  # below 0: the gradient's T row alone
        return shift3d(x, torch.cat((time, space)), normalize_grad=True, normalize_t_factor=factor)

    def extra_repr(self) -> str:
        return f"channels={self.shift.shape[1]}, in_space={self.in_space}, causal={self.causal}"
