"""``last.pt``, the checkpoint to resume from."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Any

import torch

from saccade.errors import ConfigError, WeightsError
from saccade.files import atomic_path
from saccade.runs import damaged_checkpoint
from saccade.training.config import TrainConfig

FORMAT = 1
# Fields that may change when a run is resumed, because they do not change its result.
HARMLESS = frozenset(
    {"data", "root", "out", "workers", "threads", "device", "save_minutes", "log_every", "tensorboard"}
    | {"test_views", "max_failures", "shard", "checkpoint_activations", "teacher", "unlabelled"}
)
MAY_MOVE = frozenset({"teacher", "unlabelled"})
"""Those of `HARMLESS` that may be elsewhere, but not be given up or added."""


def save_checkpoint(path: str | os.PathLike[str], state: dict[str, Any]) -> None:
    """Write ``state`` (tensors and plain values) atomically."""
    # Given a path, PyTorch hides what the system says of a full disk.
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        torch.save({"format": FORMAT, **state}, stream)


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint to the CPU.

    Raises:
        WeightsError: the file does not exist, is damaged, or is not a training checkpoint.
    """
    if not Path(path).is_file():
        raise WeightsError(f"{path}: no checkpoint to resume from")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises nearly anything on a damaged file
        raise WeightsError(damaged_checkpoint(path, error)) from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise WeightsError(f"{path}: not a training checkpoint of format {FORMAT}")
    return state


def check_complete(path: str | os.PathLike[str], state: dict[str, Any]) -> None:
    """Raise `WeightsError` if a checkpoint lacks what a run needs to go on."""
    kinds = {"model": dict, "optimizer": dict, "progress": dict, "config": dict, "data": dict}
    wrong = [name for name, kind in kinds.items() if not isinstance(state.get(name), kind)]
    if wrong:
        raise WeightsError(damaged_checkpoint(path, f"{', '.join(wrong)} missing"))


def check_same_run(saved: dict[str, Any], config: TrainConfig) -> None:
    """Check that a run is resumed with the same settings.

    Raises:
        ConfigError: lists the fields that differ, except those in `HARMLESS`, with both values.
    """
    # fields that an older version did not have get their defaults
    before, now = _flat(TrainConfig.from_dict(saved).to_dict()), _flat(config.to_dict())
    changed = [
        f"{name} (was {before.get(name)}, now {now.get(name)})"
        for name in sorted(before.keys() | now.keys())
        if before.get(name) != now.get(name)
        and (name not in HARMLESS or (name in MAY_MOVE and not (before.get(name) and now.get(name))))
    ]
    if not changed:
        return
    message = (
        f"{', '.join(changed)}: a resumed run keeps its settings; leave these as they were, or start another "
        "run with --out"
    )
    if before["epochs"] != now["epochs"]:  # the schedule of the learning rate spans all of them
        message += (
            f". To train on from the weights of this run: saccade train {config.recipe} --model.weights "
            f"{shlex.quote(config.run_dir)} --epochs {config.epochs:g} --out FOLDER"
        )
    raise ConfigError(message)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and value:
            flat.update(_flat(value, f"{prefix}{name}."))
        elif value != {}:
            flat[f"{prefix}{name}"] = value
    return flat
