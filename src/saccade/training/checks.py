"""What is wrong with the fields of augmentation, memory saving and sharding."""

from __future__ import annotations

from collections.abc import Iterator

from saccade.training.config import TrainConfig


def recipe_problems(config: TrainConfig, world_size: int) -> Iterator[tuple[str, str]]:
    """(field, problem) for each field that cannot work in a run of ``world_size`` processes."""
    yield from _augment(config)
    yield from _area(config)
    yield from _repeats(config, world_size)
    if not 0 < config.model.layer_decay <= 1:
        yield "model.layer_decay", f"must be above 0 and at most 1 (is {config.model.layer_decay})"
    if config.checkpoint_activations and config.compile:
        yield "checkpoint_activations", "torch.compile plans memory itself; leave one of the two off"
    if config.shard:
        yield from _shard(config, world_size)


def _augment(config: TrainConfig) -> Iterator[tuple[str, str]]:
    augment = config.augment
    for name, most in (("rand_magnitude", 10), ("erasing", 1), ("mix_switch", 1), ("mix_probability", 1)):
        value = getattr(augment, name)
        if not 0 <= value <= most:
            yield f"augment.{name}", f"must be 0 to {most} (is {value})"
    for name in ("rand_ops", "rand_magnitude_std", "mixup", "cutmix"):
        value = getattr(augment, name)
        if not value >= 0:
            yield f"augment.{name}", f"must be 0 or more (is {value})"


def _area(config: TrainConfig) -> Iterator[tuple[str, str]]:
    area, aspect = config.augment.area, config.augment.aspect
    if area is not None and not 0 < area[0] <= area[1] <= 1:
        yield "augment.area", f"is a range of shares of the frame, 0 to 1, that goes up (is {area})"
    if not 0 < aspect[0] <= aspect[1]:
        yield "augment.aspect", f"is a range of numbers above 0 that goes up (is {aspect})"


def _repeats(config: TrainConfig, world_size: int) -> Iterator[tuple[str, str]]:
    repeats = config.augment.repeats
    if repeats < 1:
        yield "augment.repeats", f"must be 1 or more (is {repeats})"
    elif config.batch_size % repeats:
        yield "augment.repeats", f"{repeats} clips of each video do not fill batches of {config.batch_size}"
    part = config.batch_size // (world_size * config.accumulate)
    if part <= repeats and (config.augment.mixup or config.augment.cutmix):
        yield (
            "augment.repeats",
            f"a pass of {part} clip{'s' * (part > 1)} holds one video, so there is nothing to mix it with; "
            "raise batch_size or lower accumulate",
        )


def _shard(config: TrainConfig, world_size: int) -> Iterator[tuple[str, str]]:
    if world_size == 1:
        yield "shard", "there is one process to shard among; start several with torchrun"
    for name, why in (
        ("compile", "the compiled network would not see when weights are gathered"),
        ("multigrid", "multigrid replaces batch norms during the run"),
        ("precise_bn", "it would measure the statistics of a gathered copy"),
    ):
        if getattr(config, name) not in (False, 0, "off"):
            yield "shard", f"does not go with {name}: {why}"
