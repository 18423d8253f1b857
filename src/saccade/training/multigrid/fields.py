"""What is wrong with the multigrid fields of a config."""

from __future__ import annotations

from collections.abc import Iterator

from saccade.training.config import TrainConfig


def grid_problems(config: TrainConfig) -> Iterator[tuple[str, str]]:
    """(field, problem) for each field that cannot work; nothing while multigrid is off."""
    if config.multigrid == "off":
        return
    grid, optim = config.grid, config.optim
    if not grid.epoch_factor > 0:
        yield "grid.epoch_factor", f"must be above 0 (is {grid.epoch_factor})"
    for name in ("bn_base_size", "evals"):
        if getattr(grid, name) < 0:
            yield f"grid.{name}", f"must be 0 or more (is {getattr(grid, name)})"
    for name in ("short_factors", "long_frames", "long_crops"):
        if not all(0 < factor <= 1 for factor in getattr(grid, name)):
            yield f"grid.{name}", f"every factor must be above 0 and at most 1 (are {getattr(grid, name)})"
    if len(grid.long_frames) != len(grid.long_crops):
        yield (
            "grid.long_crops",
            f"has {len(grid.long_crops)} factors for the {len(grid.long_frames)} of grid.long_frames",
        )
    for name in ("long_frames", "long_crops"):
        if getattr(grid, name)[-1:] != (1,):
            yield f"grid.{name}", f"must end with 1, the base shape (is {getattr(grid, name)})"
    ends = grid.cycle_ends
    if not ends or list(ends) != sorted(set(ends)) or not (ends[0] > 0 and ends[-1] < 1):
        yield "grid.cycle_ends", f"must be shares of the run that go up, between 0 and 1 (are {ends})"
    if optim.schedule == "step" and optim.steps and not 0 < optim.steps[0] <= optim.steps[-1] < config.epochs:
        yield "optim.steps", f"must lie within the {config.epochs:g} epochs of the run (are {optim.steps})"
