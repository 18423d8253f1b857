"""The schedule of PySlowFast (utils/multigrid.py, datasets/multigrid_helper.py) and the paper.

Unlike PySlowFast it supports the long cycle without the short one, and learning rates without steps.
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
    """A shape of the long cycle. ``batch_factor`` is the multiple of B0 with the same cost per step."""

    batch_factor: int
    num_frames: int
    crop: int


@dataclass(frozen=True)
class LongPhase:
    """An entry of PySlowFast's schedule: number of learning rate steps so far, shape, last epoch."""

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

    The epochs of a cycle are divided so that all its phases have the same number of steps. Fine-tuning is
    shortened by the same factor as the cycles.

    Args:
        lr_steps: epochs of the run without multigrid at which the rate falls and a long cycle ends.
        short: whether the phases have a short cycle, which increases the mean batch size.
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
    """The epochs after which to validate: ``evals`` times in each phase, evenly spaced from its end."""
    found: list[int] = []
    for start, end in pairwise([0, *ends]):
        period = (end - start) // evals + 1
        found += range(end, start, -period)
    return sorted(found)


def short_cycle(
    config: TrainConfig, shape: LongShape, *, short: bool, multiple: tuple[int, int] = (1, 1)
) -> tuple[BatchShape, ...]:
    """The shapes of the steps of a phase: base crop times each of `short_factors`, then the shape of the
    phase.
    """
    batch = config.batch_size * shape.batch_factor
    shapes = []
    for factor in config.grid.short_factors if short else ():
        side = config.train_crop * factor
        growth = max(1, round((shape.crop / side) ** 2))
        crop = min(shape.crop, rounded(side, multiple[1]))
        shapes.append(
            smaller_shape(config, batch_size=batch * growth, num_frames=shape.num_frames, crop=crop)
        )
    shapes.append(smaller_shape(config, batch_size=batch, num_frames=shape.num_frames, crop=shape.crop))
    return tuple(shapes)


def long_plan(config: TrainConfig, num_clips: int, num_devices: int, multiple: tuple[int, int]) -> Plan:
    """The plan of a run with the long cycle, and with the short cycle if multigrid is ``both``."""
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
            # the first half of fine-tuning has the learning rate of the previous phase
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
    """The plan of a run with the short cycle only. Steps of the learning rate scale with the epochs."""
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
    """The mean batch size of a phase as a multiple of B0, without rounding of the crops."""
    side = config.train_crop
    base_volume = config.clip.num_frames * side**2
    crops = [*(side * factor for factor in config.grid.short_factors if short), shape.crop]
    factors = [max(1, round(base_volume / (shape.num_frames * crop**2))) for crop in crops]
    return sum(factors) / len(factors)
