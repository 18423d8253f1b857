"""What causal networks share: convolutions and means that look back alone, for clips and for one frame.

A layer of a causal network takes a clip (B, C, T, H, W) or one frame (B, C, H, W) of a stream. For a frame,
layers that look back ask the `FrameMemory` of the step for the frames before it. docs/streaming.md has the
design.

Shape letters: B clips or streams, C channels, T frames, H and W pixels, K frames of a window.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from saccade.errors import UsageError
from saccade.ops._backend import is_exporting

State = tuple[Tensor, ...]
"""The state of B streams: what the layers saw 1, 2, ... frames ago, each (B, N); the values of the last K - 1
frames that means over K frames need, (B, K - 1, M); the number of frames seen, at most K, (B,). A row of
zeros is a stream that has not begun.
"""


class FrameMemory:
    """The memory of one step: gives the layers what they saw before, and collects the state after the frame.

    Args:
        state: the state before the frame; None: no frame came before.
        frame: the frame, (B, C, H, W).
    """

    def __init__(self, state: State | None, frame: Tensor) -> None:
        self._lags: Sequence[Tensor] | None = None
        self._window: Tensor | None = None
        self._seen: Tensor | None = None
        if state is not None:
            self._lags, self._window, self._seen = _parts(state)
        if self._seen is not None and self._seen.shape[0] != frame.shape[0]:
            raise UsageError(
                f"state is of {self._seen.shape[0]} streams, but there are {frame.shape[0]} frames"
            )
        self._frame = frame
        self._seen_frames: list[Tensor] = []  # (B, n) of each layer that looks back, in order
        self._counts: list[int] = []
        self._values: list[Tensor] = []  # (B, m) of each mean
        self._num_frames = 1

    def past(self, x: Tensor, count: int) -> list[Tensor]:
        """The ``count`` frames (B, C, H, W) that the calling layer saw before ``x``, oldest first; zeros
        before the first.
        """
        assert not self._counts or count <= self._counts[-1], "layers that look back further come first"
        begin, size = sum(each.shape[1] for each in self._seen_frames), x[0].numel()
        self._seen_frames.append(x.permute(0, 2, 3, 1).reshape(len(x), size))
        self._counts.append(count)
        if self._lags is None:
            return [torch.zeros_like(x)] * count
        frames = []
        for lag in range(count, 0, -1):
            if lag > len(self._lags) or begin + size > self._lags[lag - 1].shape[1]:
                raise UsageError(_other_state(self._frame))
            flat = self._lags[lag - 1][:, begin : begin + size]
            batch, channels, height, width = x.shape
            frames.append(flat.view(batch, height, width, channels).permute(0, 3, 1, 2))
        return frames

    def window_mean(self, value: Tensor, num_frames: int) -> Tensor:
        """The mean of ``value`` (B, M) and those of up to ``num_frames`` - 1 frames before, as many as there
        are.
        """
        if num_frames == 1:
            return value
        begin = sum(each.shape[1] for each in self._values)
        self._values.append(value)
        self._num_frames = num_frames
        if self._window is None or self._seen is None:
            return value
        before = self._window[:, :, begin : begin + value.shape[1]]
        if before.shape[1:] != (num_frames - 1, value.shape[1]):
            raise UsageError(_other_state(self._frame))
        there = (self._seen + 1).clamp(max=num_frames).to(value.dtype)
        return (before.sum(1) + value) / there[:, None]

    def state(self) -> State:
        """The state after the frame."""
        lags = []
        for lag in range(1, max(self._counts, default=0) + 1):
            size = sum(n for n, count in zip(self._sizes(), self._counts, strict=True) if count >= lag)
            if lag == 1:
                lags.append(torch.cat(self._seen_frames, 1))
            elif self._lags is None:
                lags.append(lags[0].new_zeros(len(self._frame), size))
            else:
                lags.append(self._lags[lag - 2][:, :size])
        if self._lags is not None and [len(lags), *(lag.shape for lag in lags)] != [
            len(self._lags),
            *(lag.shape for lag in self._lags),
        ]:
            raise UsageError(_other_state(self._frame))
        return (*lags, self._next_window(), self._next_seen())

    def _sizes(self) -> list[int]:
        return [each.shape[1] for each in self._seen_frames]

    def _next_window(self) -> Tensor:
        if self._num_frames == 1:
            return self._frame.new_zeros(len(self._frame), 0, 0)
        now = torch.cat(self._values, 1).unsqueeze(1)
        if self._window is None:
            before = now.new_zeros(len(now), self._num_frames - 2, now.shape[2])
        else:
            before = self._window[:, 1:]
        return torch.cat((before, now), 1)

    def _next_seen(self) -> Tensor:
        seen = self._seen
        if seen is None:
            seen = torch.zeros(len(self._frame), dtype=torch.int64, device=self._frame.device)
        return (seen + 1).clamp(max=self._num_frames)


def _parts(state: State) -> tuple[Sequence[Tensor], Tensor, Tensor]:
    if not isinstance(state, (tuple, list)) or len(state) < 2:
        raise UsageError("state must be None or what the step before returned")
    *lags, window, seen = state
    return lags, window, seen


def _other_state(frame: Tensor) -> str:
    height, width = frame.shape[2:]
    return (
        f"state does not belong to this network and frames of {height}x{width}; a stream whose frames change "
        "their size begins again, with state None"
    )


_local = threading.local()


@contextmanager
def remembering(memory: FrameMemory) -> Iterator[None]:
    """Layers that are called with a frame inside, in this thread, use this memory."""
    before, _local.memory = getattr(_local, "memory", None), memory
    try:
        yield
    finally:
        _local.memory = before


def memory() -> FrameMemory:
    """The memory of the step that is being taken. Raises `UsageError` outside a step."""
    found: FrameMemory | None = getattr(_local, "memory", None)
    if found is None:
        raise UsageError("a frame (B, C, H, W) is taken by model.step; a model is called with clips BCTHW")
    return found


# ----------------------------------------------------------------------------------------------------- means


def sliding_mean(x: Tensor, num_frames: int) -> Tensor:
    """The mean over the last ``num_frames`` frames up to each, or as many as there are.

    Shapes: (B, C, T, 1, 1) -> (B, C, T, 1, 1).
    """
    frames = x.shape[2]
    size = min(num_frames, frames)
    sums = F.avg_pool1d(F.pad(x[..., 0, 0], (size - 1, 0)), size, stride=1) * size
    there = torch.arange(1, frames + 1, device=x.device).clamp(max=size).to(sums.dtype)
    return (sums / there)[..., None, None]


# ---------------------------------------------------------------------------------------------- convolutions


class SpatialConv3d(nn.Conv3d):
    """`nn.Conv3d` with a kernel of one frame, which also takes one frame.

    Shapes: (B, C, T, H, W) -> (B, C', T, H', W'), or (B, C, H, W) -> (B, C', H', W').
    """

    def forward(self, input: Tensor) -> Tensor:
        return convolve_frame(self, input) if input.ndim == 4 else super().forward(input)


def convolve_frame(conv: nn.Conv3d, x: Tensor) -> Tensor:
    """A convolution whose kernel has one frame, on one frame (B, C, H, W) -> (B, C', H', W')."""
    assert not isinstance(conv.padding, str)
    weight = conv.weight[:, :, 0]
    if conv.kernel_size == (1, 1, 1) and conv.groups == 1 and x.device.type == "cpu" and not is_exporting():
        # a matrix product over the pixels: PyTorch's 1x1 convolution of one image is slow on one thread
        x = x[:, :, :: conv.stride[1], :: conv.stride[2]].permute(0, 2, 3, 1)
        return F.linear(x, weight[:, :, 0, 0], conv.bias).permute(0, 3, 1, 2)
    return F.conv2d(x, weight, conv.bias, conv.stride[1:], conv.padding[1:], groups=conv.groups)
