"""Preview of a training batch: network input as images with captions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from saccade.data.types import ClipBatch
from saccade.errors import UsageError
from saccade.tasks import get_task
from saccade.training.config import SCRATCH, TrainConfig
from saccade.training.loader import make_loader
from saccade.training.network import model_options
from saccade.training.run import load_data
from saccade.training.step import mixing, split_batch, train_transform
from saccade.training.timetable import make_timetable
from saccade.training.validate import validate
from saccade.transforms import Mixing

_MIN_FRACTION = 0.005  # smaller fractions are not shown
_CACHE_MB = 64


@dataclass(frozen=True)
class Preview:
    """One batch.

    Attributes:
        frames: uint8 (B, T, S, S, 3), clamped to that range.
        captions: the class names of each clip, with fractions for mixed clips.
        sources: the file names of each clip, with fractions for mixed clips.
        boxes: person boxes (N, 4) of each clip in pixels; None for tasks without boxes.
    """

    frames: Tensor
    captions: tuple[str, ...]
    sources: tuple[str, ...]
    boxes: tuple[Tensor, ...] | None = None


def preview_batch(config: TrainConfig, step: int = 0) -> Preview:
    """The batch of a step, exactly as the run will draw and augment it.

    Nothing is written, and no model is built.

    Raises:
        UsageError: the run has fewer steps.
        ConfigError: a field is invalid.
        DataError: the data set cannot be used.
    """
    model = replace(config.model, weights=config.model.weights or SCRATCH)  # weights are not loaded
    validate(config.replace(model=model))
    # the cache affects how clips are resized, so the preview uses a small one if the run has one
    config = config.replace(workers=0, cache_mb=min(config.cache_mb, _CACHE_MB), val_every=0, test_views="")
    train_set, _ = load_data(config)
    timetable = make_timetable(config, len(train_set))
    if not 0 <= step < timetable.total_steps:
        raise UsageError(
            f"step: must be in 0..{timetable.total_steps - 1}, the steps of this run (is {step})"
        )
    with make_loader(config, train_set) as loader:
        batch = next(loader.batches(timetable.sampler.run_requests(step, step + 1)))
    files = [os.path.basename(train_set.items[index].path) for index in batch.indices]
    views, labels, sources, boxes = _network_view(config, batch, train_set.class_names, files)
    mean, std = (torch.tensor(value).view(3, 1, 1, 1) for value in (config.clip.mean, config.clip.std))
    frames = (views * std + mean).clamp(0, 1).mul(255).round().to(torch.uint8)
    return Preview(
        frames=frames.permute(0, 2, 3, 4, 1),
        captions=tuple(caption(each, train_set.class_names) for each in labels),
        sources=tuple(sources),
        boxes=boxes,
    )


def _network_view(
    config: TrainConfig, batch: ClipBatch, names: Sequence[str], files: list[str]
) -> tuple[Tensor, list[Tensor], list[str], tuple[Tensor, ...] | None]:
    """Clips (B, 3, T, S, S), labels, file names and boxes, with the gradient accumulation of the run."""
    transform, mix = train_transform(config, names), mixing(config, len(names))
    views: list[Tensor] = []
    labels: list[Tensor] = []
    sources: list[str] = []
    boxes: list[Tensor] = []
    task = get_task(config.task).from_config(config)
    for part in split_batch(batch, config.accumulate):
        part_files = files[len(sources) : len(sources) + len(part)]
        shown = task.preview(config, part, transform, mix, model_options(config))
        if mix:
            part_files = _mixed_files(mix, part, part_files, shown.clips.shape[2:])
        boxes += shown.boxes or ()
        labels += shown.labels
        views.append(shown.clips)
        sources += part_files
    return torch.cat(views), labels, sources, tuple(boxes) if boxes else None


def _mixed_files(mix: Mixing, part: ClipBatch, files: list[str], size: Sequence[int]) -> list[str]:
    """The file names of each mixed clip, with fractions."""
    found = []
    for seed, file, partner in zip(part.seeds, files, mix.partners(len(part)), strict=True):
        fraction = mix.draw(seed, size).lam
        found.append(file if fraction == 1 else f"{file} {_percent(fraction)} + {files[partner]}")
    return found


def caption(labels: Tensor, names: Sequence[str]) -> str:
    """The class names of one clip.

    Args:
        labels: a class index, int64, or fractions of the classes (K,).
    """
    if not labels.is_floating_point():
        return names[int(labels)]
    if not len(labels):
        return ""  # pre-training has no labels
    shown = [(value, label) for label, value in enumerate(labels.tolist()) if value >= _MIN_FRACTION]
    shown.sort(key=lambda pair: (-pair[0], pair[1]))
    if all(value > 1 - _MIN_FRACTION for value, _ in shown):
        return ", ".join(names[label] for _, label in shown) or "nothing"
    return " + ".join(f"{names[label]} {_percent(value)}" for value, label in shown)


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.0f}\u00a0%"  # no-break space
