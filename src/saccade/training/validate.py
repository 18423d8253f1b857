"""Checks of a config before any data is read."""

from __future__ import annotations

import math
import types
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from torch import nn

from saccade.errors import ConfigError, SaccadeError, UsageError
from saccade.models import contract
from saccade.models.pretrained import find_file, pretrained_weights
from saccade.models.registry import is_registered
from saccade.sampling.segments import check_num_clips
from saccade.sampling.temporal import RULES
from saccade.sampling.views import parse_views
from saccade.tasks import get_task
from saccade.training.config import SCRATCH, TrainConfig
from saccade.training.network import has_batch_norm, meta_model

Problems = Iterator[tuple[str, str]]
"""Pairs (field, problem)."""

_RANGES: dict[str, str] = {
    "[1, inf)": "batch_size accumulate log_every optim.reference_batch augment.repeats masked.coarse "
    "clip.num_frames clip.stride clip.crop clip.short_side distill.rand_ops",
    "[0, inf)": "model.head_clips minutes augment.crop augment.rand_ops "
    "augment.rand_magnitude_std augment.mixup augment.cutmix "
    "optim.min_lr optim.weight_decay optim.clip_grad optim.warmup_epochs optim.warmup_lr optim.gamma "
    "optim.patience optim.shift_lr positive_weight precise_bn seed workers cache_mb max_failures "
    "save_minutes val_every threads grid.bn_base_size grid.evals distill.label_weight distill.soft_weight "
    "distill.feature_weight distill.pseudo_weight",
    "(0, inf)": "clip.target_fps model.backbone_lr optim.lr epochs frames_fps grid.epoch_factor "
    "distill.temperature distill.unlabelled_ratio",
    "[0, 1]": "augment.flip augment.brightness augment.contrast augment.saturation augment.erasing "
    "augment.mix_switch augment.mix_probability people.min_score class_balance distill.threshold "
    "distill.erasing",
    "[0, 1)": "model.dropout model.drop_path optim.momentum label_smoothing ema",
    "(0, 1)": "val_fraction masked.ratio",
    "(0, 1]": "model.layer_decay",
    "[0, 10]": "augment.rand_magnitude distill.rand_magnitude",
    "[-1, inf)": "model.freeze",
}
"""Valid interval of each number; None is always valid."""


def validate(
    config: TrainConfig, *, world_size: int = 1, model: nn.Module | None = None, resume: bool = False
) -> None:
    """Check every field of ``config`` for a run of ``world_size`` processes.

    Args:
        model: the network to train instead of the one that ``config.model`` names.
        resume: a resumed fine-tuning run needs no initial weights.

    Raises:
        ConfigError: a field is invalid; the message begins with its name.
        UsageError: the model does not exist.
    """
    for field, problem in _problems(config, world_size, model, resume):
        raise ConfigError(f"{field}: {problem}")


def _problems(config: TrainConfig, world_size: int, model: nn.Module | None, resume: bool) -> Problems:
    yield from _types(config, "")
    for interval, names in _RANGES.items():
        for name in names.split():
            yield from _in_range(config, name, interval)
    yield from _clip(config)
    yield from _model(config, given=model is not None, resume=resume)
    network = meta_model(config) if model is None else model
    if config.model.head_clips:
        yield from _head(config, given=model is not None)
    if config.minutes:
        yield from _minutes(config)
    yield from _optim(config)
    yield from _augment(config, world_size)
    yield from _task(config)
    yield from _run(config)
    yield from _batch(config, world_size, model)
    if config.multigrid != "off":
        yield from _grid(config)
    if config.checkpoint_activations and not contract.blocks(network):
        name = contract.model_name(network)
        yield "checkpoint_activations", f"{name} has no method blocks(); turn it off"
    if config.checkpoint_activations and config.compile:
        yield (
            "checkpoint_activations",
            "cannot be combined with compile, which plans memory itself; turn one off",
        )
    if config.teacher or config.unlabelled:
        yield from _distill(config)
    if config.shard:
        yield from _shard(config, world_size)


# ------------------------------------------------------------------------------------------ types and ranges


def _types(section: Any, prefix: str) -> Problems:
    """Fields with a value of another type; floats that are not finite."""
    hints = get_type_hints(type(section))
    for entry in fields(section):
        name, value, hint = f"{prefix}{entry.name}", getattr(section, entry.name), hints[entry.name]
        if isinstance(hint, type) and is_dataclass(hint):
            if isinstance(value, hint):
                yield from _types(value, f"{name}.")
            else:
                yield name, f"must be a {hint.__name__} (is {value!r})"
        else:
            wrong = _type_problem(value, hint)
            if wrong:
                yield name, f"{wrong} (is {value!r})"


def _type_problem(value: Any, hint: Any) -> str:
    """The problem with the type of ``value``, or an empty string."""
    origin, args = get_origin(hint), get_args(hint)
    if origin is Literal:
        return "" if value in args else f"must be one of {', '.join(map(str, args))}"
    if origin in (Union, types.UnionType):
        problems = [_type_problem(value, arg) for arg in args if arg is not type(None)]
        return "" if value is None or "" in problems else problems[0]
    if origin is tuple:
        if not isinstance(value, (tuple, list)):
            return "must be a sequence of values"
        kinds = [args[0]] * len(value) if args[-1] is Ellipsis else list(args)
        if len(kinds) != len(value):
            return f"must be {len(kinds)} values"
        return next(
            (p for entry, kind in zip(value, kinds, strict=True) if (p := _type_problem(entry, kind))), ""
        )
    if hint is float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            return "must be a number"
        return "" if math.isfinite(value) else "must be finite"
    if hint is int:
        return "" if isinstance(value, int) and not isinstance(value, bool) else "must be an integer"
    if hint is bool:
        return "" if isinstance(value, bool) else "must be True or False"
    if hint is str:
        return "" if isinstance(value, str) else "must be a string"
    return ""


def _in_range(config: TrainConfig, name: str, interval: str) -> Problems:
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    if value is None:
        return
    low, high = map(float, interval[1:-1].split(","))
    above = value > low or (value == low and interval[0] == "[")
    below = value < high or (value == high and interval[-1] == "]")
    if above and below:
        return
    if high == math.inf:
        text = f"must be {low:g} or more" if interval[0] == "[" else f"must be above {low:g}"
    else:
        text = f"must be in {interval}"
    yield name, f"{text} (is {value})"


def _is_sorted(values: tuple[float, ...], *, strictly: bool) -> bool:
    return list(values) == sorted(set(values) if strictly else values)


# --------------------------------------------------------------------------------------------------- fields


def _clip(config: TrainConfig) -> Problems:
    clip, short_side = config.clip, config.train_short_side
    if min(clip.std) <= 0:
        yield "clip.std", f"all values must be above 0 (is {clip.std})"
    if clip.crop > clip.short_side:
        yield "clip.crop", f"{clip.crop} does not fit into clip.short_side {clip.short_side}"
    if not _is_sorted(short_side, strictly=False):
        yield "augment.short_side", f"must be an increasing range (is {short_side})"
    if config.train_crop > short_side[0]:
        yield (
            "augment.short_side",
            f"its smallest value {short_side[0]} is less than the training crop {config.train_crop}; "
            "raise it or lower augment.crop",
        )


def _model(config: TrainConfig, *, given: bool, resume: bool) -> Problems:
    model = config.model
    weights = model.start or model.image_weights or model.package
    if given:
        if weights:
            yield "model.weights", "load them into the model that you pass; leave this empty"
        return
    if not model.name:
        yield (
            "model.name",
            "give a name that `saccade models` lists, or pass an nn.Module to saccade.train",
        )
    if model.freeze and not weights:
        yield "model.freeze", "freezing untrained stages is useless; also give model.weights"
    if model.package and is_registered(model.name) and not resume:
        try:
            find_file(model.name, pretrained_weights(model.name, model.package))
        except SaccadeError as error:
            yield "model.pretrained", f"{error}; --model.weights {SCRATCH} trains from scratch"
    if model.start and model.image_weights:
        yield "model.image_weights", "give either model.weights or model.image_weights"
    if model.backbone_lr < 1 and not weights and model.weights != SCRATCH and not resume:
        yield (
            "model.weights",
            f"fine-tuning needs initial weights: an untrained backbone would train at "
            f"{model.backbone_lr:g} of the learning rate. Give a run folder or checkpoint, or "
            f"--model.weights {SCRATCH} to train from scratch",
        )


def _head(config: TrainConfig, *, given: bool) -> Problems:
    """Of fitting the classifier before the first step."""
    weights = given or config.model.start or config.model.image_weights or config.model.package
    if not weights and config.model.weights != SCRATCH:
        yield "model.head_clips", "the features of an untrained network are useless; also give model.weights"
    if config.task != "single-label":
        yield "model.head_clips", f"is not possible for task {config.task}; set it to 0"
    if config.shard:
        yield "model.head_clips", "cannot be combined with shard"


def _minutes(config: TrainConfig) -> Problems:
    for name, why in (
        ("multigrid", "plans its phases before the run"),
        ("precise_bn", "draws its batches before the run"),
    ):
        if getattr(config, name) not in ("off", 0):
            yield "minutes", f"cannot be combined with {name}, which {why}; give epochs alone"
    if config.optim.schedule not in ("cosine", "constant"):
        yield "minutes", f"the schedule {config.optim.schedule} has its own epochs; use cosine"


def _optim(config: TrainConfig) -> Problems:
    optim = config.optim
    if not all(0 <= beta < 1 for beta in optim.betas):
        yield "optim.betas", f"both must be in [0, 1) (are {optim.betas})"
    if optim.warmup_epochs > config.epochs:
        yield (
            "optim.warmup_epochs",
            f"{optim.warmup_epochs:g} is more than epochs {config.epochs:g}; give "
            f"--optim.warmup-epochs {config.epochs / 10:g} or so, or more --epochs",
        )
    if optim.schedule == "step" and not optim.steps:
        yield "optim.steps", "the step schedule needs the epochs at which the learning rate falls, e.g. 30 40"
    if optim.schedule == "plateau" and config.multigrid == "x3d-multigrid":
        yield "optim.schedule", "x3d-multigrid has its own schedule; use short, long or both with plateau"
    if optim.schedule == "plateau" and not config.val_every:
        yield "optim.schedule", "plateau needs validations, but val_every is 0"
    if not _is_sorted(optim.steps, strictly=True):
        yield "optim.steps", f"must increase (is {optim.steps})"
    if optim.steps and optim.steps[0] <= 0:
        yield "optim.steps", f"must be above 0 (is {optim.steps})"


def _augment(config: TrainConfig, world_size: int) -> Problems:
    area, aspect, repeats = config.augment.area, config.augment.aspect, config.augment.repeats
    if area is not None and not 0 < area[0] <= area[1] <= 1:
        yield "augment.area", f"must be an increasing range in (0, 1] (is {area})"
    if not 0 < aspect[0] <= aspect[1]:
        yield "augment.aspect", f"must be an increasing range above 0 (is {aspect})"
    if config.batch_size % repeats:
        yield "augment.repeats", f"batch_size {config.batch_size} is not divisible by {repeats}"
    part = config.batch_size // (world_size * config.accumulate)
    if part <= repeats and (config.augment.mixup or config.augment.cutmix):
        yield (
            "augment.repeats",
            f"a pass of {part} clip{'s' * (part > 1)} has one video, so it cannot be mixed with another; "
            "raise batch_size or lower accumulate",
        )


def _task(config: TrainConfig) -> Problems:
    if config.masked.min_patches is not None and config.masked.min_patches < 1:
        yield "masked.min_patches", f"must be 1 or more (is {config.masked.min_patches})"
    try:
        task = get_task(config.task)
    except UsageError as error:
        yield "task", str(error)
        return
    yield from task.problems(config)


def _run(config: TrainConfig) -> Problems:
    if config.seed >= 2**63:
        yield "seed", f"must be below 2**63 (is {config.seed})"
    if config.val_root and not config.val_data:
        yield "val_root", "is the folder of the paths in val_data, which is not given; root is that of data"
    if config.test_views and not config.val_every:
        yield "test_views", "the final test needs a validation split, but val_every is 0"
    if config.temporal_rule not in RULES:
        yield "temporal_rule", f"must be one of {', '.join(RULES)} (is {config.temporal_rule!r})"
    for name in ("val_views", "test_views"):
        text = getattr(config, name)
        if not text and name == "test_views":
            continue
        try:
            views = parse_views(text)
            check_num_clips(views.rule or config.temporal_rule, views.num_clips)
        except SaccadeError as error:
            yield name, str(error)
    for name, module in (("tensorboard", "tensorboard"), ("backend", "torchcodec")):
        if getattr(config, name) in (True, module) and find_spec(module) is None:
            yield name, f'{module} is not installed; run: pip install "saccade[{module}]"'


def _batch(config: TrainConfig, world_size: int, model: nn.Module | None) -> Problems:
    per_process, rest = divmod(config.batch_size, world_size)
    parts = world_size * config.accumulate
    if rest:
        yield "batch_size", f"{config.batch_size} is not divisible by {world_size} processes"
    if per_process < config.accumulate:
        yield "accumulate", f"{config.accumulate} is more than the {per_process} clips of a process"
    if config.batch_size % parts and config.multigrid != "off":
        yield (
            "batch_size",
            f"{config.batch_size} is not divisible by {parts} "
            f"({world_size} process{'es' * (world_size > 1)} x accumulate {config.accumulate}), "
            "as multigrid needs it for equal splits of the batch norm",
        )
    if per_process < 2 * config.accumulate and world_size == 1 and has_batch_norm(config, model):
        yield (
            "batch_size",
            "batch norm needs at least 2 clips per pass; raise it or lower accumulate",
        )


def _grid(config: TrainConfig) -> Problems:
    grid, optim = config.grid, config.optim
    for name in ("short_factors", "long_frames", "long_crops"):
        if not all(0 < factor <= 1 for factor in getattr(grid, name)):
            yield f"grid.{name}", f"all factors must be in (0, 1] (are {getattr(grid, name)})"
    if len(grid.long_frames) != len(grid.long_crops):
        yield (
            "grid.long_crops",
            f"has {len(grid.long_crops)} factors, but grid.long_frames has {len(grid.long_frames)}",
        )
    for name in ("long_frames", "long_crops"):
        if getattr(grid, name)[-1:] != (1,):
            yield f"grid.{name}", f"must end with 1, the base shape (is {getattr(grid, name)})"
    ends = grid.cycle_ends
    if not ends or not _is_sorted(ends, strictly=True) or not (ends[0] > 0 and ends[-1] < 1):
        yield "grid.cycle_ends", f"must increase within (0, 1) (are {ends})"
    if optim.schedule == "step" and optim.steps and not 0 < optim.steps[0] <= optim.steps[-1] < config.epochs:
        yield "optim.steps", f"must lie within the {config.epochs:g} epochs of the run (are {optim.steps})"


def _shard(config: TrainConfig, world_size: int) -> Problems:
    if world_size == 1:
        yield "shard", "needs several processes; start them with torchrun"
    for name, why in (
        ("compile", "the compiled network cannot gather weights"),
        ("multigrid", "multigrid replaces batch norms during the run"),
        ("precise_bn", "the statistics would be those of a gathered copy"),
    ):
        if getattr(config, name) not in (False, 0, "off"):
            yield "shard", f"cannot be combined with {name}: {why}"


def _distill(config: TrainConfig) -> Problems:
    distill, field = config.distill, "teacher" if config.teacher else "unlabelled"
    task = get_task(config.task)
    if task.soft_loss is None:
        yield field, f"is not supported by task {config.task}; set it to empty"
    if config.teacher and Path(config.teacher).resolve() == Path(config.run_dir).resolve():
        yield "teacher", f"{config.teacher} is the folder of this run; give it another one with --out"
    if config.augment.repeats > 1 and config.unlabelled:
        yield "augment.repeats", "cannot be combined with unlabelled; set it to 1"
    if config.unlabelled and config.multigrid != "off" and distill.unlabelled_ratio % 1:
        yield (
            "distill.unlabelled_ratio",
            f"must be a whole number with multigrid, for equal splits of the batch norm "
            f"(is {distill.unlabelled_ratio:g})",
        )
    source = config.pseudo_labels
    if source != "off" and not config.unlabelled:
        yield "distill.pseudo_labels", "needs unlabelled videos; give --unlabelled FOLDER"
    if source == "teacher" and not config.teacher:
        yield "distill.pseudo_labels", "the labels are those of a teacher; give --teacher RUN"
    if source != "off" and task.multi_label:
        yield "distill.pseudo_labels", f"are not supported by task {config.task}; set it to off"
    if config.teacher and config.compile and distill.feature_weight != 0:
        yield "compile", "cannot be combined with the features of a teacher; give --distill.feature-weight 0"
    if config.shard and (source == "self" or (config.teacher and distill.feature_weight != 0)):
        yield (
            "shard",
            f"cannot be combined with {'pseudo-labels of the network' if source == 'self' else field}",
        )
    if config.unlabelled and not config.teacher and source == "off":
        yield "unlabelled", "nothing is learned from these videos; give a --teacher, or pseudo-labels"
