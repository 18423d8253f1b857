"""Checks of a config that need no data: everything that would fail an hour later fails here, by name."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any, get_args

from saccade.errors import ConfigError, SaccadeError, UsageError
from saccade.models.checkpoints.from_image import Inflate, TimeStart
from saccade.sampling.segments import check_num_clips
from saccade.sampling.temporal import RULES
from saccade.sampling.views import parse_views
from saccade.tasks import get_task
from saccade.training.blank import has_batch_norm
from saccade.training.checks import recipe_problems
from saccade.training.config import TrainConfig
from saccade.training.multigrid.fields import grid_problems


def validate(config: TrainConfig, *, world_size: int = 1) -> None:
    """Check every field of ``config`` for a run of ``world_size`` processes.

    Raises:
        ConfigError: one line that begins with the name of the first field that cannot work.
    """
    for field, problem in _problems(config, world_size):
        raise ConfigError(f"{field}: {problem}")


def _problems(config: TrainConfig, world_size: int) -> Iterator[tuple[str, str]]:
    yield from _clip(config)
    yield from _model(config)
    yield from _optim(config)
    yield from _task(config)
    yield from _run(config, world_size)
    yield from recipe_problems(config, world_size)
    yield from grid_problems(config)


def _clip(config: TrainConfig) -> Iterator[tuple[str, str]]:
    clip, augment = config.clip, config.augment
    yield from _at_least(clip, "clip", 1, "num_frames", "stride", "crop", "short_side")
    if not clip.target_fps > 0:
        yield "clip.target_fps", f"must be above 0 (is {clip.target_fps})"
    if min(clip.std) <= 0:
        yield "clip.std", f"every value must be above 0 (is {clip.std})"
    if clip.crop > clip.short_side:
        yield "clip.crop", f"{clip.crop} does not fit into clip.short_side {clip.short_side}"
    low, high = augment.short_side
    if low > high:
        yield "augment.short_side", f"the range must go up (is {low} {high})"
    if augment.crop < 0:
        yield "augment.crop", f"must be 0 or more (is {augment.crop})"
    if config.train_crop > low:
        yield (
            "augment.short_side",
            f"its smallest value {low} is less than the training crop {config.train_crop}; "
            "raise it or lower augment.crop",
        )
    if augment.flip is not None and not 0 <= augment.flip <= 1:
        yield "augment.flip", f"is a probability, 0 to 1 (is {augment.flip})"
    yield from _at_least(augment, "augment", 0, "brightness", "contrast", "saturation")


def _model(config: TrainConfig) -> Iterator[tuple[str, str]]:
    model = config.model
    for name in ("dropout", "drop_path"):
        if not 0 <= getattr(model, name) < 1:
            yield f"model.{name}", f"is a probability, 0 to below 1 (is {getattr(model, name)})"
    if model.freeze < -1:
        yield "model.freeze", f"is a number of stages, or -1 for all but the classifier (is {model.freeze})"
    if model.freeze and not (model.weights or model.image_weights):
        yield "model.freeze", "freezing untrained stages learns nothing; give model.weights too"
    if model.weights and model.image_weights:
        yield "model.image_weights", "a model starts from one checkpoint; leave model.weights away"
    for name, known in (("image_inflate", get_args(Inflate)), ("image_time", get_args(TimeStart))):
        if getattr(model, name) not in known:
            yield f"model.{name}", f"{getattr(model, name)!r} is none of {', '.join(known)}"
    if not model.backbone_lr > 0:
        yield (
            "model.backbone_lr",
            f"must be above 0 (is {model.backbone_lr}); use model.freeze to keep weights",
        )


def _optim(config: TrainConfig) -> Iterator[tuple[str, str]]:
    optim = config.optim
    if not optim.lr > 0:
        yield "optim.lr", f"must be above 0 (is {optim.lr})"
    yield from _at_least(optim, "optim", 1, "reference_batch")
    yield from _at_least(
        optim, "optim", 0, "min_lr", "weight_decay", "clip_grad", "warmup_epochs", "warmup_lr", "gamma"
    )
    if optim.shift_lr is not None and not optim.shift_lr >= 0:
        yield "optim.shift_lr", f"must be 0 or more (is {optim.shift_lr}); 0 keeps the shifts as they are"
    if not 0 <= optim.momentum < 1:
        yield "optim.momentum", f"must be 0 to below 1 (is {optim.momentum})"
    if not all(0 <= beta < 1 for beta in optim.betas):
        yield "optim.betas", f"both must be 0 to below 1 (are {optim.betas})"
    if optim.warmup_epochs > config.epochs:
        yield (
            "optim.warmup_epochs",
            f"{optim.warmup_epochs:g} is more than epochs {config.epochs:g}; give "
            f"--optim.warmup-epochs {config.epochs / 10:g} or so, or more --epochs",
        )
    if optim.schedule == "step" and not optim.steps:
        yield "optim.steps", "the step schedule needs the epochs at which the rate falls, e.g. 30 40"
    yield from _at_least(optim, "optim", 0, "patience")
    if optim.schedule == "plateau" and config.multigrid == "x3d-multigrid":
        yield "optim.schedule", "x3d-multigrid has steps of its own; take short, long or both with a plateau"
    if optim.schedule == "plateau" and not config.val_every:
        yield "optim.schedule", "plateau follows the loss of validations, and val_every 0 makes none"
    if list(optim.steps) != sorted(set(optim.steps)):
        yield "optim.steps", f"must go up (is {optim.steps})"


def _task(config: TrainConfig) -> Iterator[tuple[str, str]]:
    if not config.positive_weight >= 0:
        yield "positive_weight", f"must be 0 or more (is {config.positive_weight})"
    people, masked = config.people, config.masked
    if not 0 <= people.min_score <= 1:
        yield "people.min_score", f"must be 0 to 1 (is {people.min_score})"
    if not 0 < masked.ratio < 1:
        yield "masked.ratio", f"must lie between 0 and 1 (is {masked.ratio})"
    if masked.coarse < 1:
        yield "masked.coarse", f"must be 1 or more (is {masked.coarse})"
    if masked.min_patches is not None and masked.min_patches < 1:
        yield "masked.min_patches", f"must be 1 or more (is {masked.min_patches})"
    try:
        task = get_task(config.task)
    except UsageError as error:
        yield "task", str(error)
        return
    yield from task.problems(config)


def _run(config: TrainConfig, world_size: int) -> Iterator[tuple[str, str]]:
    if not config.epochs > 0:
        yield "epochs", f"must be above 0 (is {config.epochs})"
    yield from _at_least(config, "", 1, "batch_size", "accumulate", "log_every")
    yield from _at_least(config, "", 0, "workers", "cache_mb", "threads", "seed", "max_failures")
    yield from _at_least(config, "", 0, "precise_bn")
    yield from _at_least(config, "", 0, "save_minutes", "val_every")
    yield from _batch(config, world_size)
    for name in ("label_smoothing", "ema"):
        if not 0 <= getattr(config, name) < 1:
            yield name, f"must be 0 to below 1 (is {getattr(config, name)})"
    if not 0 < config.val_fraction < 1:
        yield "val_fraction", f"must lie between 0 and 1 (is {config.val_fraction})"
    if config.test_views and not config.val_every:
        yield "test_views", "there is nothing to test on: val_every 0 means no validation"
    if config.temporal_rule not in RULES:
        yield "temporal_rule", f"{config.temporal_rule!r} is not a rule; rules are {', '.join(RULES)}"
    yield from _views(config)
    if config.tensorboard and find_spec("tensorboard") is None:
        yield "tensorboard", 'is not installed; run: pip install "saccade[tensorboard]"'


def _batch(config: TrainConfig, world_size: int) -> Iterator[tuple[str, str]]:
    share, rest = divmod(config.batch_size, world_size)
    parts = world_size * config.accumulate
    if rest:
        yield "batch_size", f"{config.batch_size} cannot be divided by {world_size} processes"
    if share < config.accumulate:
        yield "accumulate", f"{config.accumulate} passes are more than the {share} clips of a process"
    if config.batch_size % parts and config.multigrid != "off":
        yield (
            "batch_size",
            f"{config.batch_size} cannot be divided by {parts} "
            f"({world_size} process{'es' * (world_size > 1)} x accumulate {config.accumulate}), "
            "which multigrid needs to split the batch statistics evenly",
        )
    if share < 2 * config.accumulate and world_size == 1 and has_batch_norm(config):
        yield (
            "batch_size",
            "each pass needs at least 2 clips for batch statistics; raise it or lower accumulate",
        )


def _views(config: TrainConfig) -> Iterator[tuple[str, str]]:
    for name in ("val_views", "test_views"):
        text = getattr(config, name)
        if not text and name == "test_views":
            continue
        try:
            views = parse_views(text)
            check_num_clips(views.rule or config.temporal_rule, views.num_clips)
        except SaccadeError as error:
            yield name, str(error)


def _at_least(section: Any, prefix: str, least: int, *names: str) -> Iterator[tuple[str, str]]:
    for name in names:
        value = getattr(section, name)
        if not value >= least:
            yield f"{prefix}.{name}".lstrip("."), f"must be {least} or more (is {value})"
