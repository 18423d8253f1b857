"""The schedule of PySlowFast (utils/multigrid.py, datasets/multigrid_helper.py), which is that of the paper.

It also works where PySlowFast's stops with an error: for the long cycle without the short one, and for
learning rates without steps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from saccade.data.sampler import BatchShape
from saccade.errors import ConfigError
from saccade.training.config import TrainConfig
from saccade.training.multigrid.plan import Plan, PlanBuilder, regular_epochs
from saccade.training.multigrid.shapes import rounded, smaller_shape


@dataclass(frozen=True)
class LongShape:
    """A shape of the long cycle. ``batch_factor`` is the multiple of B0 that keeps a step's cost."""

    batch_factor: int
    num_frames: int
    crop: int


@dataclass(frozen=True)
class LongPhase:
    """A line of PySlowFast's schedule: a shape, the step of the learning rate, the epoch it ends at."""

    lr_step: int
    shape: LongShape
    end_epoch: int


def long_shapes(config: TrainConfig, multiple: tuple[int, int] = (1, 1)) -> list[LongShape]:
    """The shapes of the long cycle."""
    base_volume = config.clip.num_frames * config.train_crop**2
    shapes = []
    for frames_factor, crop_factor in zip(config.grid.long_frames, config.grid.long_crops, strict=True):
        frames = rounded(config.clip.num_frames * frames_factor, multiple[0])
        crop = rounded(config.train_crop * crop_factor, multiple[1])
        shapes.append(LongShape(max(1, round(base_volume / (frames * crop**2))), frames, crop))
    return shapes


def long_schedule(
    config: TrainConfig, lr_steps: Sequence[float], *, short: bool, multiple: tuple[int, int] = (1, 1)
) -> list[LongPhase]:
    """One long cycle before each step of the learning rate, then fine-tuning at the base shape.

    Args:
        lr_steps: epochs of the run without multigrid at which the rate falls (the long cycles end).
        short: whether the short cycle runs within each phase: it makes the mean batch larger.

    The epochs of a cycle are divided among its phases so that each has the same number of steps. Fine-tuning
    saves as large a fraction of its steps as the cycles do.
    """
    shapes = long_shapes(config, multiple)
    means = [_mean_factor(config, shape, short=short) for shape in shapes]
    spans = [0.0, *lr_steps]
    parts = [
        (number, shape, (end - start) * mean / sum(means))
        for number, (start, end) in enumerate(pairwise(spans))
        for shape, mean in zip(shapes, means, strict=True)
    ]
    steps = len(shapes) * spans[-1] / sum(means)  # in units of the steps of a base epoch
    step_ratio = steps / spans[-1]
    parts.append((len(spans) - 1, shapes[-1], (config.epochs - spans[-1]) * step_ratio * means[-1]))
    stretch = config.epochs * config.grid.epoch_factor / sum(epochs for *_, epochs in parts)
    schedule, end = [], 0.0
    for number, shape, epochs in parts:
        end += epochs * stretch
        schedule.append(LongPhase(number, shape, round(end)))
    return schedule


def validation_epochs(ends: Sequence[int], evals: int) -> list[int]:
    """The epochs after which to validate: ``evals`` times in each phase, counted back from its end."""
    found: list[int] = []
    for start, end in pairwise([0, *ends]):
        period = (end - start) // evals + 1
        found += range(end, start, -period)
    return sorted(found)


def short_cycle(
    config: TrainConfig, shape: LongShape, *, short: bool, multiple: tuple[int, int] = (1, 1)
) -> tuple[BatchShape, ...]:
    """The shapes of the steps of a phase: crops of the base crop by `short_factors`, then the phase's own."""
    batch = config.batch_size * shape.batch_factor
    shapes = []
    for factor in config.grid.short_factors if short else ():
        side = config.train_crop * factor
        growth = max(1, round((shape.crop / side) ** 2))
        crop = min(shape.crop, rounded(side, multiple[1]))
        shapes.append(
            smaller_shape(config, batch_size=batch * growth, num_frames=shape.num_frames, crop=crop)
        )
    own = smaller_shape(config, batch_size=batch, num_frames=shape.num_frames, crop=shape.crop)
    return (*shapes, own)


def long_plan(config: TrainConfig, num_clips: int, num_devices: int, multiple: tuple[int, int]) -> Plan:
    """The plan of a run with the long cycle; with multigrid ``both``, the short one within."""
    short = config.multigrid == "both"
    by_steps = config.optim.schedule == "step"
    lr_steps = config.optim.steps if by_steps else tuple(config.epochs * x for x in config.grid.cycle_ends)
    schedule = long_schedule(config, lr_steps, short=short, multiple=multiple)
    if not schedule[-1].end_epoch:
        raise ConfigError(f"epochs: {config.epochs:g} is too short for the long cycle; choose at least 1")
    builder = PlanBuilder(config, num_clips, num_devices)
    for number, line in enumerate(schedule):
        shapes = short_cycle(config, line.shape, short=short, multiple=multiple)
        decay = config.optim.gamma**line.lr_step if by_steps else 1.0
        if by_steps and number == len(schedule) - 1:
            # the first half of fine-tuning keeps the rate of the phase before
            middle = (schedule[-2].end_epoch + line.end_epoch) // 2
            builder.add(shapes, line.shape.batch_factor, middle, config.optim.gamma ** (line.lr_step - 1))
        builder.add(shapes, line.shape.batch_factor, line.end_epoch, decay)
    epochs = schedule[-1].end_epoch
    if config.grid.evals:
        due = [float(e) for e in validation_epochs([line.end_epoch for line in schedule], config.grid.evals)]
    else:
        due = regular_epochs(config, epochs)
    return builder.plan(epochs, due)


def short_plan(config: TrainConfig, num_clips: int, num_devices: int, multiple: tuple[int, int]) -> Plan:
    """The learning rate's steps move with the epochs, and the shape of the batch is that of the base."""
    factor, optim = config.grid.epoch_factor, config.optim
    base = LongShape(1, config.clip.num_frames, config.train_crop)
    shapes = short_cycle(config, base, short=True, multiple=multiple)
    epochs = round(config.epochs * factor) or config.epochs * factor
    builder = PlanBuilder(config, num_clips, num_devices)
    steps = [step for step in optim.steps if step < config.epochs] if optim.schedule == "step" else []
    for number, end in enumerate([*(int(step * factor) for step in steps), epochs]):
        builder.add(shapes, 1, end, optim.gamma**number)
    return builder.plan(epochs, regular_epochs(config, epochs))


def _mean_factor(config: TrainConfig, shape: LongShape, *, short: bool) -> float:
    """The mean batch of a phase as a multiple of B0, from the exact volumes of its shapes."""
    side = config.train_crop
    base_volume = config.clip.num_frames * side**2
    crops = [*(side * factor for factor in config.grid.short_factors if short), shape.crop]
    factors = [max(1, round(base_volume / (shape.num_frames * crop**2))) for crop in crops]
    return sum(factors) / len(factors)
