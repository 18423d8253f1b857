"""A model ready for use, wherever it comes from: a run folder, weights of ours or of another code base, a
module.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from saccade.clip import ClipSpec
from saccade.data.types import Task
from saccade.errors import UsageError, WeightsError
from saccade.evaluation.result import clip_from_dict
from saccade.evaluation.scoring import model_device, pick_device
from saccade.runs import BEST


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode with what is needed to feed and to read it.

    Attributes:
        class_names: in label order; numbers where ``named`` is false.
        clip: the clip it was trained to see, test side.
        task: what it was trained for, one of `saccade.data.types.Task`.
        pairs: pairs of its classes that differ in the direction of time alone.
        name: the architecture; origin: run folder or file the weights came from.
    """

    model: nn.Module
    class_names: tuple[str, ...]
    named: bool
    clip: ClipSpec
    name: str
    origin: str
    device: torch.device
    task: str = "single-label"
    pairs: tuple[tuple[int, int], ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


def load_for_use(
    source: str | os.PathLike[str] | nn.Module | LoadedModel,
    *,
    weights: str | os.PathLike[str] | None = None,
    num_classes: int | None = None,
    labels: str | os.PathLike[str] | Sequence[str] | None = None,
    clip: ClipSpec | None = None,
    device: str | torch.device = "auto",
    task: Task | None = None,
) -> LoadedModel:
    """Load a model for testing or prediction.

    Args:
        source: a run folder; a .safetensors file written by Saccade; the name of a model (with
            ``weights``); a module; or what this function gave before.
        weights: a checkpoint of any code base `saccade.load_weights` knows, for a model name or a module.
        num_classes: classes of a named model; default: as many as ``labels``, else 400.
        labels: class names: a sequence, a file with one per line, or a list that ships, such as
            ``kinetics400``.
        clip: overrides the clip that comes with the model.
        device: ``auto`` is CUDA where there is one.
        task: of weights of another code base, or of a module; default ``single-label``. Weights of ours say
            it themselves.

    Raises:
        UsageError: the source is nothing of the kind, or the labels are not as many as the classes.
        WeightsError: the weights cannot be read or do not fit.
    """
    from saccade.models import memory_format

    names = read_labels(labels)
    home = pick_device(device)
    if isinstance(source, LoadedModel):
        loaded = source
    elif isinstance(source, nn.Module):
        loaded = _from_module(source, weights, task or "single-label")
    elif _is_model_name(source):
        loaded = _from_name(str(source), weights, num_classes or (len(names) if names else None), task)
    else:
        if weights is not None:
            raise UsageError(
                f"{source} is no model name; weights are given together with one (saccade models)"
            )
        loaded = _from_file(Path(source))
    if task is not None and task != loaded.task:
        raise UsageError(f"task is {task}, but {loaded.origin} was trained for {loaded.task}")
    model = loaded.model.eval().to(home)
    if home.type != "mps":
        model = model.to(memory_format=memory_format(model))  # type: ignore[call-overload]
    if num_classes is not None and num_classes != len(loaded.class_names):
        raise UsageError(f"num_classes is {num_classes}, but {loaded.origin} has {len(loaded.class_names)}")
    if names and len(names) != len(loaded.class_names):
        raise UsageError(
            f"labels: {len(names)} names, but {loaded.origin} has {len(loaded.class_names)} classes"
        )
    return LoadedModel(
        model=model,
        class_names=names or loaded.class_names,
        named=bool(names) or loaded.named,
        clip=clip or loaded.clip,
        name=loaded.name,
        origin=loaded.origin,
        device=home,
        task=loaded.task,
        pairs=loaded.pairs,
        metadata=loaded.metadata,
    )


def load_for_task(
    source: str | os.PathLike[str] | nn.Module | LoadedModel,
    task: Task,
    otherwise: str,
    *,
    weights: str | os.PathLike[str] | None = None,
    num_classes: int | None = None,
    labels: str | os.PathLike[str] | Sequence[str] | None = None,
    clip: ClipSpec | None = None,
    device: str | torch.device = "auto",
) -> LoadedModel:
    """As `load_for_use`, for what can use models trained for ``task`` alone.

    Modules and weights of other code bases, which do not say what they were trained for, are taken to be.

    Raises:
        UsageError, WeightsError: as from `load_for_use`; or the model was trained for something else, which
            the message says, with ``otherwise`` behind it.
    """
    silent = isinstance(source, nn.Module) or weights is not None
    loaded = load_for_use(
        source,
        weights=weights,
        num_classes=num_classes,
        labels=labels,
        clip=clip,
        device=device,
        task=task if silent else None,
    )
    if loaded.task != task:
        raise UsageError(f"{loaded.origin} was trained for {loaded.task}, {otherwise}")
    return loaded


def read_labels(labels: str | os.PathLike[str] | Sequence[str] | None) -> tuple[str, ...]:
    """Class names from a sequence, a file with one per line, or the name of a list that ships. None gives
    ().
    """
    if labels is None:
        return ()
    from saccade.data.classnames import class_names

    return class_names(labels)


def _from_file(path: Path) -> LoadedModel:
    from saccade.models import load_model

    file = path / BEST if path.is_dir() else path
    if path.is_dir() and not file.is_file():
        raise UsageError(f"{path}: no {BEST} in this folder; a run writes it after its first validation")
    if not file.is_file():
        raise UsageError(f"{path}: no such run folder, weights file or model (saccade models lists those)")
    if file.suffix != ".safetensors":
        raise UsageError(f"{path}: a checkpoint of another code base needs the name of its model (--model)")
    model, metadata = load_model(file)
    clip = metadata.get("clip")
    names = tuple(metadata.get("class_names") or ())
    num_classes = int(model.num_classes)
    if names and len(names) != num_classes:
        raise WeightsError(f"{file}: {len(names)} class names for {num_classes} classes")
    return LoadedModel(
        model=model,
        class_names=names or _numbers(num_classes),
        named=bool(names),
        clip=clip_from_dict(clip) if clip else _clip_of(model),
        name=str(model.model_name),
        origin=str(path),
        device=torch.device("cpu"),
        task=str(metadata.get("task", "single-label")),
        pairs=tuple((int(a), int(b)) for a, b in metadata.get("pairs") or ()),
        metadata=metadata,
    )


def _from_name(
    name: str, weights: str | os.PathLike[str] | None, num_classes: int | None, task: Task | None
) -> LoadedModel:
    from saccade.models import create_model, read_weights, task_overrides

    if weights is None:
        raise UsageError(f"model {name} needs weights, a checkpoint file: none come with Saccade")
    file = Path(weights)
    if file.suffix == ".safetensors" and file.is_file() and "model" in read_weights(file)[1]:
        loaded = _from_file(file)
        if loaded.name != name:
            raise UsageError(f"{file}: holds a {loaded.name}, not a {name}")
        return loaded
    task = task or "single-label"
    count = {} if num_classes is None else {"num_classes": num_classes}
    return _from_module(create_model(name, **count, **task_overrides(name, task)), weights, task)


def _from_module(model: nn.Module, weights: str | os.PathLike[str] | None, task: str) -> LoadedModel:
    if weights is not None:
        _load_whole(model, weights)
    num_classes = getattr(model, "num_classes", None)
    if not isinstance(num_classes, int) or num_classes < 1:
        raise UsageError("the model does not say how many classes it has (num_classes of at least 1)")
    return LoadedModel(
        model=model,
        class_names=_numbers(num_classes),
        named=False,
        clip=_clip_of(model),
        name=str(getattr(model, "model_name", type(model).__name__)),
        origin=str(weights) if weights is not None else "the model",
        device=model_device(model),
        task=task,
    )


def _load_whole(model: nn.Module, weights: str | os.PathLike[str]) -> None:
    """Load weights with their classifier: the predictions of a new one would be noise."""
    from saccade.models import load_weights

    if not Path(weights).is_file():
        raise UsageError(f"{os.fspath(weights)}: no such file of weights")
    report = load_weights(model, weights)
    classifier = set(getattr(model, "classifier_parameters", list)())
    if not classifier <= set(report.mapped.values()):
        reason = "; ".join(dict.fromkeys(report.left_out.values())) or "it is not in the file"
        raise WeightsError(
            f"{os.fspath(weights)}: the classifier cannot be used ({reason}); give the number of "
            "classes of the file (--num-classes)"
        )


def _clip_of(model: nn.Module) -> ClipSpec:
    from saccade.models import model_info

    name = getattr(model, "model_name", None)
    if name is None:
        raise UsageError("this module does not say which clip it sees; give clip=ClipSpec(...)")
    return model_info(name).clip_spec()


def _is_model_name(source: str | os.PathLike[str]) -> bool:
    from saccade.models import list_models

    return isinstance(source, str) and not Path(source).exists() and source in list_models()


def _numbers(num_classes: int) -> tuple[str, ...]:
    return tuple(str(label) for label in range(num_classes))
