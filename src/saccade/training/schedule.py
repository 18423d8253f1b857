"""Learning rate schedules, and the timetable of a run: epoch, rate, batch shape and validation by step."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from saccade.data.sampler import BatchShape, ClipSampler, TrainSampler
from saccade.training.config import OptimConfig, TrainConfig

if TYPE_CHECKING:
    from saccade.training.multigrid import Phase

_EPS = 1e-9  # so that 3 * (1/3) is 1


def learning_rate(epoch: float, optim: OptimConfig, *, epochs: float, batch_size: int) -> float:
    """The rate at ``epoch`` (steps done / steps per epoch) of a run of ``epochs`` epochs.

    Rates in ``optim`` refer to `reference_batch` clips and scale linearly with ``batch_size`` (Goyal et al.
    2017, arXiv 1706.02677). The cosine spans the complete run; the warm-up is linear from `warmup_lr` to the
    value of the schedule at its end, as in PySlowFast (utils/lr_policy, which also has
    `cosine_after_warmup`).
    """
    scale = batch_size / optim.reference_batch
    if epoch < optim.warmup_epochs:
        end = decayed_rate(optim.warmup_epochs, optim, epochs)
        return scale * (optim.warmup_lr + (end - optim.warmup_lr) * epoch / optim.warmup_epochs)
    return scale * decayed_rate(epoch, optim, epochs)


def rate_text(optim: OptimConfig, batch_size: int) -> str:
    """The optimiser, its rate for this batch, the warm-up and the schedule, in one line."""
    scale = batch_size / optim.reference_batch
    text = f"{optim.name}, learning rate {scale * optim.lr:.3g} for batches of {batch_size} clips"
    if scale != 1:
        text += f" ({optim.lr:g} for {optim.reference_batch})"
    if optim.warmup_epochs:
        text += f", {optim.warmup_epochs:.4g} epochs of warm-up from {scale * optim.warmup_lr:.3g}"
    steps = f" at epochs {', '.join(f'{epoch:g}' for epoch in optim.steps)}" if optim.steps else ""
    return f"{text}, {optim.schedule} schedule{steps}"


@dataclass
class Plateau:
    """State of the plateau schedule: PyTorch's ReduceLROnPlateau with its defaults, as in X3D-Multigrid.

    Attributes:
        factor: multiplier on the learning rate.
        best: the lowest loss so far.
        num_bad: validations in a row without an improvement by a factor of 1e-4.
    """

    factor: float = 1.0
    best: float = math.inf
    num_bad: int = 0

    def see(self, loss: float, optim: OptimConfig) -> None:
        """Update after a validation."""
        if optim.schedule != "plateau":
            return
        if loss < self.best * (1 - 1e-4):
            self.best, self.num_bad = loss, 0
            return
        self.num_bad += 1
        if self.num_bad > optim.patience:
            self.factor, self.num_bad = self.factor * optim.gamma, 0


def decayed_rate(epoch: float, optim: OptimConfig, epochs: float) -> float:
    """The rate for the reference batch without warm-up."""
    if optim.schedule == "cosine":
        start = optim.warmup_epochs if optim.cosine_after_warmup else 0.0
        done = (epoch - start) / (epochs - start) if epoch > start else 0.0
        return optim.min_lr + (optim.lr - optim.min_lr) * (math.cos(math.pi * done) + 1) / 2
    if optim.schedule == "step":
        return max(optim.lr * optim.gamma ** sum(epoch >= step for step in optim.steps), optim.min_lr)
    return optim.lr


class Timetable(ABC):
    """Maps the steps of a run, counted from 0, to batch shapes, rates and validations.

    Attributes:
        sampler: draws the clips.
        total_steps: steps of the run.
        epochs: epochs of the run.
        clips_per_epoch: clips drawn in one epoch.
    """

    sampler: ClipSampler
    total_steps: int
    epochs: float
    clips_per_epoch: int

    @abstractmethod
    def shape(self, step: int) -> BatchShape:
        """The batch shape of ``step``."""

    @property
    @abstractmethod
    def shapes(self) -> tuple[BatchShape, ...]:
        """All batch shapes of the run, possibly repeated."""

    @property
    def batch_sizes(self) -> tuple[int, int]:
        """Sizes of the smallest and the largest batch."""
        sizes = [shape.batch_size for shape in self.shapes]
        return min(sizes), max(sizes)

    @abstractmethod
    def num_clips(self, step: int) -> int:
        """Clips drawn in the first ``step`` steps, over all processes."""

    @abstractmethod
    def epoch(self, step: int) -> float:
        """Epochs done after ``step`` steps."""

    @abstractmethod
    def rate(self, step: int) -> float:
        """The learning rate of ``step``."""

    @abstractmethod
    def validates(self, step: int) -> bool:
        """Whether to validate after ``step`` steps."""

    def phase(self, step: int) -> Phase | None:
        """The multigrid phase of ``step``."""
        return None

    def shorten(self, total_steps: int) -> None:
        """End the run after ``total_steps`` steps, with the rest of the schedule in what is left.

        Raises:
            ValueError: the timetable cannot be changed.
        """
        raise ValueError(f"{type(self).__name__} cannot be shortened")

    def ends_epoch(self, step: int) -> bool:
        """Whether an epoch ends after ``step`` steps."""
        return math.floor(self.epoch(step) + _EPS) > math.floor(self.epoch(step - 1) + _EPS)


class PlainTimetable(Timetable):
    """Batches of equal shape; an incomplete batch at the end of an epoch is dropped."""

    def __init__(self, config: TrainConfig, sampler: TrainSampler) -> None:
        self.config, self.sampler = config, sampler
        self._shape, self._per_epoch = sampler.shape, sampler.steps_per_epoch
        self.total_steps = max(1, round(config.epochs * self._per_epoch))
        self.epochs = config.epochs
        self.clips_per_epoch = self._per_epoch * config.batch_size

    def shape(self, step: int) -> BatchShape:
        return self._shape

    @property
    def shapes(self) -> tuple[BatchShape, ...]:
        return (self._shape,)

    def num_clips(self, step: int) -> int:
        return step * self._shape.batch_size

    def epoch(self, step: int) -> float:
        return step / self._per_epoch

    def rate(self, step: int) -> float:
        config = self.config
        return learning_rate(self.epoch(step), config.optim, epochs=self.epochs, batch_size=config.batch_size)

    def shorten(self, total_steps: int) -> None:
        if total_steps != self.total_steps:
            self.total_steps, self.epochs = total_steps, total_steps / self._per_epoch

    def validates(self, step: int) -> bool:
        if not self.config.val_every:
            return False
        period = self.config.val_every * self._per_epoch
        last = math.floor((step - 1) / period + _EPS)
        return step == self.total_steps or math.floor(step / period + _EPS) > last
