"""The schedule of X3D-Multigrid (github.com/kkahatapitiya/X3D-Multigrid)."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise

from saccade.data.sampler import BatchShape
from saccade.training.config import TrainConfig
from saccade.training.multigrid.plan import Plan, PlanBuilder, regular_epochs
from saccade.training.multigrid.shapes import floored, smaller_shape

_FACTORS = (8, 4, 2, 1)
_ROOT = 0.5**0.5
_MILESTONES = (0.0, 0.4, 0.65, 0.925, 1.0)


def x3d_multigrid_plan(
    config: TrainConfig, num_clips: int, num_devices: int, multiple: tuple[int, int]
) -> Plan:
    """The schedule of train_x3d_kinetics_multigrid.py: as many steps as the run without multigrid, in three
    long cycles of four equal phases and the base shape. The learning rate is divided by 10 after each cycle.

    The boundaries are the actual ones of that code. It is meant to end the third cycle at 0.85 and to lower
    the rate at 0.925, but uses one list for both.
    """
    iterations = int(config.epochs * (num_clips // config.batch_size))
    builder = PlanBuilder(config, num_clips, num_devices)
    bounds = [int(iterations * fraction + 1e-6) for fraction in _MILESTONES]
    start = 0
    for cycle, (low, high) in enumerate(pairwise(bounds)):
        if cycle == len(bounds) - 2:
            phases = [(3, iterations)]
        else:
            inner = [math.ceil(low + part * (high - low) / 4) for part in (1, 2, 3)]
            phases = list(enumerate([*inner, min(high + 1, iterations)]))
        for index, end in phases:
            shapes = _shapes(config, index, multiple)
            first = start % len(shapes)
            decay = config.optim.gamma**cycle
            builder.add_steps(shapes, _FACTORS[index], max(end - start, 0), decay, first=first)
            start = max(start, end)
    plan = builder.plan(builder.num_clips / num_clips, [])
    evals = config.grid.evals
    validations = {
        step
        for phase in plan.phases
        for step in range(phase.end_step, phase.first_step, -(phase.cycle.num_steps // max(evals, 1) + 1))
    }
    if not evals:
        validations = builder.steps_at(regular_epochs(config, plan.epochs))
    warmup = round(config.optim.warmup_epochs * (num_clips // config.batch_size))
    return replace(
        plan,
        validations=frozenset(validations | {plan.total_steps} if config.val_every else ()),
        warmup_steps=warmup,
    )


def _shapes(config: TrainConfig, index: int, multiple: tuple[int, int]) -> tuple[BatchShape, ...]:
    """The shapes of phase ``index`` of a cycle: two for small crops, else three. Sizes are rounded down."""
    side = config.train_crop
    frames = floored(config.clip.num_frames * (0.25, 0.5, 0.5, 1.0)[index], multiple[0])
    largest = side if index > 1 else floored(side * _ROOT, multiple[1])
    crops = [floored(largest * _ROOT, multiple[1]), largest]
    if index > 1:
        crops.insert(0, floored(largest / 2, multiple[1]))
    batch = config.batch_size * _FACTORS[index]
    return tuple(
        smaller_shape(
            config,
            batch_size=batch * 2 ** (len(crops) - 1 - position),
            num_frames=frames,
            crop=crop,
            stride_step=config.clip.stride,
            scale_largest=True,
        )
        for position, crop in enumerate(crops)
    )
