"""The training set and the validation set of a run: `TrainConfig.data` and `TrainConfig.val_data`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from saccade.data.datasets import find_reader
from saccade.data.entries import Split
from saccade.data.holdout import check_separate
from saccade.data.lists import is_training_list
from saccade.data.types import VideoDataset
from saccade.errors import ConfigError, DataError

if TYPE_CHECKING:
    from saccade.tasks.base import Task


def load_splits(task: Task, config: Any) -> tuple[VideoDataset, VideoDataset | None]:
    """The data sets of `Task.load_data`; errors as there."""
    whole = bool(config.val_data) and not task.states_validation(config.data, config.root)
    options = task.data_options(config, "train")
    train_set = replace(task.load_split(config.data, "all" if whole else "train", **options), split="train")
    task.check_dataset(train_set, source=config.data, error=ConfigError)
    task.check_training(train_set, source=config.data)
    if not config.val_every:
        return train_set, None
    val_set = _load_validation(task, config, train_set.class_names)
    source = config.val_data or config.data
    task.check_validation(val_set, source=source)
    # a reader that gives each split by itself may have its reasons
    strict = bool(config.val_data) or (not train_set.keyframes and _lists_splits(task, config.data))
    check_separate(train_set.items, val_set.items, source=source, strict=strict)
    return train_set, val_set


def _lists_splits(task: Task, data: str) -> bool:
    return find_reader(data, labelled=task.has_classes)[0].lists


def _load_validation(task: Task, config: Any, class_names: tuple[str, ...]) -> VideoDataset:
    if not config.val_data:
        return task.load_split(config.data, "val", **task.data_options(config, "val"))
    root = config.val_root or config.root
    options = task.data_options(config.replace(root=root), "val")
    options.pop("group", None)  # nothing is held out
    if class_names and "class_names" in options:
        options["class_names"] = class_names
    split: Split = "all"
    if task.states_validation(config.val_data, root):
        split = "train" if is_training_list(config.val_data, root=root or None) else "val"
    val_set = replace(task.load_split(config.val_data, split, **options), split="val")
    task.check_dataset(val_set, source=config.val_data)
    if val_set.class_names != class_names:
        raise DataError(
            f"val_data: the {len(val_set.class_names)} classes of {config.val_data} are not the "
            f"{len(class_names)} classes of {config.data}"
        )
    return val_set
