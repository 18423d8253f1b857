"""The plan of a multigrid run: batch shape, learning rate and batch norm of every step."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from saccade.data.sampler import BatchShape
from saccade.training.config import TrainConfig
from saccade.training.multigrid.sampler import ShapeCycle, steps_that_fit
from saccade.training.multigrid.shapes import base_shape
from saccade.training.norms import NormChoice, batch_norm_for
from saccade.training.schedule import decayed_rate


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Consecutive steps with the same settings, except for the shapes of the short cycle.

    Attributes:
        number: number of the phase in the plan, from 1.
        cycle: the shapes of its steps. The last one is the shape of the phase.
        first_step: first step of the phase in the run.
        start_epoch, end_epoch: its range in epochs of the run.
        batch_factor: its batch size as a multiple of B0.
        lr_factor: multiplier on the learning rate for this batch size.
        lr_decay: multiplier from the steps of the learning rate schedule.
        clips_per_device: clips per forward pass on one device, for the shape of the phase.
        norm: kind of batch norm.
    """

    number: int
    cycle: ShapeCycle
    first_step: int
    start_epoch: float
    end_epoch: float
    batch_factor: int
    lr_factor: float
    lr_decay: float
    clips_per_device: int
    norm: NormChoice

    @property
    def shape(self) -> BatchShape:
        """The shape of the phase, the last one of its cycle."""
        return self.cycle.shapes[-1]

    @property
    def end_step(self) -> int:
        """The first step after the phase."""
        return self.first_step + self.cycle.num_steps

    def __str__(self) -> str:
        shapes = ", ".join(f"{s.batch_size} x {s.num_frames} x {s.crop}" for s in self.cycle.shapes)
        return f"phase {self.number}: batches of {shapes} (clips x frames x pixels)" + (
            f", {self.norm}" if self.norm.kind != "none" else ""
        )


@dataclass(frozen=True, kw_only=True)
class Plan:
    """All phases of a run.

    Attributes:
        config: the config of the run.
        num_clips: training clips per epoch.
        phases: in order; short runs may have phases without steps.
        epochs: length of the run in epochs.
        validations: the steps after which the model is validated.
        warmup_steps: length of the warm-up if it is given in steps (x3d-multigrid), else 0.
    """

    config: TrainConfig
    num_clips: int
    phases: tuple[Phase, ...]
    epochs: float
    validations: frozenset[int]
    warmup_steps: int = 0

    @property
    def total_steps(self) -> int:
        """Number of steps of the run."""
        return self.phases[-1].end_step

    @property
    def total_clips(self) -> int:
        """Number of clips drawn in the run."""
        return sum(phase.cycle.num_clips(phase.cycle.num_steps) for phase in self.phases)

    @property
    def cost(self) -> float:
        """Frames times pixels of the run relative to a run without multigrid."""
        base = self.config.epochs * self.num_clips * _volume(base_shape(self.config)) / self.config.batch_size
        cycles = [phase.cycle for phase in self.phases]
        used = (zip(cycle.uses(cycle.num_steps), cycle.shapes, strict=True) for cycle in cycles)
        return sum(count * _volume(shape) for pairs in used for count, shape in pairs) / base

    def phase_at(self, step: int) -> Phase:
        """The phase of a step; the last one at the end of the run."""
        return next((phase for phase in self.phases if step < phase.end_step), self.phases[-1])

    def phase_at_epoch(self, epoch: float) -> Phase:
        """The phase at an epoch; the last one at the end of the run."""
        return next((phase for phase in self.phases if epoch < phase.end_epoch), self.phases[-1])

    def rate(self, step: int, epoch: float) -> float:
        """The learning rate of step ``step``, which starts at ``epoch``."""
        config, optim = self.config, self.config.optim
        scale = config.batch_size / optim.reference_batch
        warmed = (step + 1) / self.warmup_steps if self.warmup_steps else 1.0
        if not self.warmup_steps and optim.warmup_epochs:
            warmed = epoch / optim.warmup_epochs
        if warmed >= 1:
            return scale * self._after_warmup(self.phase_at(step), epoch)
        if self.warmup_steps:
            after = self.phase_at(self.warmup_steps)
            end = self._after_warmup(after, after.start_epoch)
        else:
            end = self._after_warmup(self.phase_at_epoch(optim.warmup_epochs), optim.warmup_epochs)
        return scale * (optim.warmup_lr + (end - optim.warmup_lr) * warmed)

    def _after_warmup(self, phase: Phase, epoch: float) -> float:
        optim = self.config.optim
        if self.config.multigrid == "x3d-multigrid" or optim.schedule == "step":
            return phase.lr_factor * max(optim.lr * phase.lr_decay, optim.min_lr)
        return phase.lr_factor * decayed_rate(epoch, optim, self.epochs)


class PlanBuilder:
    """Builds a plan phase by phase and counts steps and clips."""

    def __init__(self, config: TrainConfig, clips_per_epoch: int, num_devices: int) -> None:
        self.config, self.clips_per_epoch, self.num_devices = config, clips_per_epoch, num_devices
        self.phases: list[Phase] = []
        self.num_clips = self.num_steps = 0
        self._end_epoch = 0.0

    def add(self, shapes: tuple[BatchShape, ...], factor: int, end_epoch: float, decay: float) -> None:
        """Add a phase that ends at ``end_epoch``."""
        steps = steps_that_fit(max(self._clips_by(end_epoch) - self.num_clips, 0), shapes)
        self._add(ShapeCycle(num_steps=steps, shapes=shapes), factor, end_epoch, decay)

    def add_steps(
        self, shapes: tuple[BatchShape, ...], factor: int, num_steps: int, decay: float, *, first: int
    ) -> None:
        """Add a phase of ``num_steps`` steps, whose cycle starts with shape ``first``."""
        cycle = ShapeCycle(num_steps=num_steps, shapes=shapes, first=first)
        end = (self.num_clips + cycle.num_clips(num_steps)) / self.clips_per_epoch
        self._add(cycle, factor, end, decay)

    def _add(self, cycle: ShapeCycle, factor: int, end_epoch: float, decay: float) -> None:
        config = self.config
        per_device = cycle.shapes[-1].batch_size // (self.num_devices * config.accumulate)
        self.phases.append(
            Phase(
                number=len(self.phases) + 1,
                cycle=cycle,
                first_step=self.num_steps,
                start_epoch=self._end_epoch,
                end_epoch=end_epoch,
                batch_factor=factor,
                lr_factor=_lr_factor(config, factor),
                lr_decay=decay,
                clips_per_device=per_device,
                norm=batch_norm_for(per_device, self.num_devices, config.grid.bn_base_size),
            )
        )
        self.num_steps += cycle.num_steps
        self.num_clips += cycle.num_clips(cycle.num_steps)
        self._end_epoch = end_epoch

    def _clips_by(self, epoch: float) -> int:
        return int(epoch * self.clips_per_epoch + 1e-6)

    def steps_at(self, epochs: Sequence[float]) -> set[int]:
        """The numbers of steps done at these epochs, each at most the last step of its phase."""
        found = set()
        for epoch in epochs:
            phase, clips = self.phases[0], 0
            for phase in self.phases:
                if epoch <= phase.end_epoch + 1e-9:
                    break
                clips += phase.cycle.num_clips(phase.cycle.num_steps)
            cycle = phase.cycle
            order = cycle.shapes[cycle.first :] + cycle.shapes[: cycle.first]
            steps = steps_that_fit(max(self._clips_by(epoch) - clips, 0), order)
            found.add(phase.first_step + min(steps, cycle.num_steps))
        return found - {0}

    def plan(self, epochs: float, validations: Sequence[float]) -> Plan:
        """The plan, with a validation after each of these epochs."""
        steps = self.steps_at(validations)
        if self.config.val_every:
            steps.add(self.num_steps)
        return Plan(
            config=self.config,
            num_clips=self.clips_per_epoch,
            phases=tuple(self.phases),
            epochs=epochs,
            validations=frozenset(steps if self.config.val_every else ()),
        )


def regular_epochs(config: TrainConfig, epochs: float) -> list[float]:
    """Multiples of `val_every`, and the last epoch."""
    if not config.val_every:
        return []
    count = math.ceil(epochs / config.val_every - 1e-9)
    return [*(number * config.val_every for number in range(1, count)), epochs]


def _lr_factor(config: TrainConfig, batch_factor: int) -> float:
    scaling = config.grid.lr_scaling
    if scaling == "auto":
        scaling = "linear" if config.optim.name == "sgd" else "sqrt"
    return {"linear": float(batch_factor), "sqrt": math.sqrt(batch_factor), "none": 1.0}[scaling]


def _volume(shape: BatchShape) -> int:
    return shape.batch_size * shape.num_frames * shape.crop**2
