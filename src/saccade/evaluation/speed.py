"""The time of a forward pass or a training step on clips in memory."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from saccade.clip import ClipSpec
from saccade.evaluation.scorer import Precision, evaluating, is_channels_last, model_device

Mode = Literal["forward", "train"]

_SPEED_SECONDS, _SPEED_PASSES, _SPEED_BATCH = 1.0, 3, 16  # of `model_speed`


@dataclass(frozen=True)
class Speed:
    """Seconds of each timed pass over a batch of ``clips``."""

    mode: Mode
    clips: int
    seconds: tuple[float, ...] = field(repr=False)

    @property
    def median(self) -> float:
        """Seconds of the middle pass."""
        return statistics.median(self.seconds)

    @property
    def clips_per_second(self) -> float:
        """Clips per second of the median pass."""
        return self.clips / self.median


class Stopwatch:
    """Times passes of one model over one batch, one pass per call, so that several models can alternate.

    A training step is forward, cross entropy and backward, without the optimizer. The first ``warmup``
    passes, which also select kernels, run at construction and are not timed.
    """

    def __init__(
        self,
        model: nn.Module,
        clips: Tensor,
        mode: Mode,
        *,
        autocast: torch.dtype | None = None,
        warmup: int = 1,
    ) -> None:
        self.model, self.clips, self.mode, self.autocast = model.train(mode == "train"), clips, mode, autocast
        self.labels = torch.zeros(len(clips), dtype=torch.long, device=clips.device)
        self.seconds: list[float] = []
        for _ in range(warmup):
            self._pass()

    def time(self) -> float:
        """Run one pass and return its seconds."""
        _synchronise(self.clips.device)
        start = time.perf_counter()
        self._pass()
        _synchronise(self.clips.device)
        self.seconds.append(time.perf_counter() - start)
        return self.seconds[-1]

    @property
    def speed(self) -> Speed:
        """What was timed so far."""
        return Speed(self.mode, len(self.clips), tuple(self.seconds))

    def _pass(self) -> None:
        device = self.clips.device.type
        with torch.autocast(device, dtype=self.autocast, enabled=self.autocast is not None):
            if self.mode == "forward":
                with torch.inference_mode():
                    self.model(self.clips)
                return
            loss = nn.functional.cross_entropy(self.model(self.clips).float(), self.labels)
        loss.backward()
        self.model.zero_grad(set_to_none=True)


def model_speed(model: nn.Module, clip: ClipSpec, precision: Precision = "float32") -> float:
    """Clips per second of a model alone, on clips in memory, in a second or two (a large model: two passes).

    ``nan`` for a model that needs more than clips (of person boxes).
    """
    layout = torch.channels_last_3d if is_channels_last(model) else torch.contiguous_format
    autocast = torch.bfloat16 if precision == "bfloat16" else None
    device = model_device(model)
    with evaluating(model):
        try:
            one = Stopwatch(
                model,
                random_clips(1, clip.num_frames, clip.crop, device, layout),
                "forward",
                autocast=autocast,
            )
        except TypeError:
            return math.nan
        seconds = one.time()
        batch = min(int(_SPEED_SECONDS / seconds / _SPEED_PASSES), _SPEED_BATCH)
        if batch < 2:
            return one.speed.clips_per_second
        clips = random_clips(batch, clip.num_frames, clip.crop, device, layout)
        (speed,) = take_turns([Stopwatch(model, clips, "forward", autocast=autocast)], _SPEED_PASSES)
    return speed.clips_per_second


def random_clips(
    batch: int,
    frames: int,
    crop: int,
    device: str | torch.device,
    layout: torch.memory_format = torch.channels_last_3d,
) -> Tensor:
    """Clips (batch, 3, frames, crop, crop) of noise."""
    return torch.randn(batch, 3, frames, crop, crop).to(device, memory_format=layout)


def take_turns(stopwatches: Sequence[Stopwatch], runs: int) -> list[Speed]:
    """Time each in turn, ``runs`` times, so that what else the machine does falls on all of them alike."""
    for _ in range(runs):
        for stopwatch in stopwatches:
            stopwatch.time()
    return [stopwatch.speed for stopwatch in stopwatches]


def _synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
