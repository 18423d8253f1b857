"""What belongs to each step of a run: epoch, learning rate, shape of the batch, validation."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

from saccade.data.multigrid import CycleSampler
from saccade.data.sampler import BatchShape, ClipSampler, TrainSampler
from saccade.training.config import TrainConfig
from saccade.training.multigrid import Phase, Plan
from saccade.training.schedule import learning_rate

_SMALL = 1e-9  # keeps 3 * (1/3) from falling short of 1


class Timetable(ABC):
    """Steps are counted from 0; what is asked of ``step`` after a step is asked of the number of steps done.

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
        """The shape of the batch of ``step``."""

    @property
    @abstractmethod
    def shapes(self) -> tuple[BatchShape, ...]:
        """The shapes of all batches, each at least once."""

    @property
    def batch_sizes(self) -> tuple[int, int]:
        """Clips of the smallest and of the largest batch."""
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
        """Whether a validation follows on ``step`` steps."""

    def phase(self, step: int) -> Phase | None:
        """The multigrid phase of ``step``."""
        return None

    def ends_epoch(self, step: int) -> bool:
        """Whether an epoch ends with the last of ``step`` steps."""
        return math.floor(self.epoch(step) + _SMALL) > math.floor(self.epoch(step - 1) + _SMALL)


class PlainTimetable(Timetable):
    """All batches alike; the clips that do not fill the last batch of an epoch are left out of it."""

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
        return learning_rate(
            self.epoch(step), config.optim, epochs=config.epochs, batch_size=config.batch_size
        )

    def validates(self, step: int) -> bool:
        if not self.config.val_every:
            return False
        period = self.config.val_every * self._per_epoch
        last = math.floor((step - 1) / period + _SMALL)
        return step == self.total_steps or math.floor(step / period + _SMALL) > last


class MultigridTimetable(Timetable):
    """The steps of a plan. An epoch is all clips of the data set, so epochs are fractions at most steps."""

    def __init__(self, plan: Plan, *, rank: int = 0, world_size: int = 1) -> None:
        self.plan = plan
        self.sampler = self._sampler = CycleSampler(
            plan.num_clips,
            [phase.cycle for phase in plan.phases],
            seed=plan.config.seed,
            rank=rank,
            world_size=world_size,
            repeats=plan.config.augment.repeats,
        )
        self.total_steps, self.epochs = plan.total_steps, plan.epochs
        self.clips_per_epoch = plan.num_clips

    def shape(self, step: int) -> BatchShape:
        return self._sampler.shape(step)

    @property
    def shapes(self) -> tuple[BatchShape, ...]:
        phases = [phase for phase in self.plan.phases if phase.cycle.num_steps]
        return tuple(shape for phase in phases for shape in phase.cycle.shapes)

    def num_clips(self, step: int) -> int:
        return self._sampler.num_clips(step)

    def epoch(self, step: int) -> float:
        return self.num_clips(step) / self.clips_per_epoch

    def rate(self, step: int) -> float:
        return self.plan.rate(step, self.epoch(step))

    def validates(self, step: int) -> bool:
        return step in self.plan.validations

    def phase(self, step: int) -> Phase | None:
        return self.plan.phase_at(step)
