"""Load a model for inference from a run folder, from weights of Saccade or another code base, or a module."""

from __future__ import annotations

import copy
import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from saccade.clip import ClipSpec
from saccade.errors import DataError, UsageError, WeightsError
from saccade.evaluation.rejection import Rejection
from saccade.evaluation.scorer import model_device, pick_device
from saccade.models import contract
from saccade.runs import BEST, Run
from saccade.tasks import Task, get_task
from saccade.tasks.result import clip_from_dict

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadedModel:
    """A model, the clip it takes and the names of its classes. Loaded from a file, it is in evaluation mode.

    Attributes:
        class_names: in label order; numbers if ``named`` is false.
        clip: the clip it was trained to see, test side.
        task: what it was trained for, one of `saccade.tasks.list_tasks`.
        pairs: pairs of classes that differ only in the direction of time.
        name: the architecture.
        origin: the run folder or file of the weights.
        rejection: when a video shows none of the classes; None if that was not calibrated.
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
    rejection: Rejection | None = None

    @property
    def step(self) -> int | None:
        """The optimiser step of the weights, if they state it."""
        metrics = self.metadata.get("metrics")
        step = metrics.get("step") if isinstance(metrics, Mapping) else None
        return step if isinstance(step, int) else None


def load_for_inference(
    source: str | os.PathLike[str] | nn.Module | LoadedModel,
    *,
    weights: str | os.PathLike[str] | None = None,
    num_classes: int | None = None,
    labels: str | os.PathLike[str] | Sequence[str] | None = None,
    clip: ClipSpec | None = None,
    device: str | torch.device = "auto",
    task: str | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> LoadedModel:
    """Load a model for testing or prediction.

    Args:
        source: a run folder; a .safetensors file written by Saccade; the name of a model (with
            ``weights``); a module; or a `LoadedModel`.
        weights: a checkpoint of any code base `saccade.load_weights` knows, for a model name or a module.
        num_classes: classes of a named model; default: as many as ``labels``, else 400.
        labels: class names: a sequence, a file with one per line, or a list that ships, such as
            ``kinetics400``.
        clip: replaces the clip that comes with the model.
        device: ``auto`` is the device of a module or `LoadedModel`, else CUDA if available. A module is not
            changed: a copy is used on another device, or if another memory format is faster.
        task: of weights of another code base, or of a module; default ``single-label``. Weights written by
            Saccade state it.
        overrides: options of `saccade.create_model`, with the name of a model.

    Raises:
        UsageError: the source is none of these, or there are more or fewer labels than classes.
        WeightsError: the weights cannot be read or do not fit.
    """
    names = read_labels(labels)
    if overrides and not (isinstance(source, str) and _is_model_name(source)):
        raise UsageError(f"model.overrides: need the name of a model (--model), not {source}")
    if isinstance(source, nn.Module | LoadedModel) and device == "auto":
        home = model_device(source.model if isinstance(source, LoadedModel) else source)
    else:
        home = pick_device(device)
    if isinstance(source, LoadedModel):
        loaded = source
    elif isinstance(source, nn.Module):
        loaded = _from_module(source, weights, task or "single-label", num_classes or len(names), clip)
    elif _is_model_name(source):
        loaded = _from_name(str(source), weights, num_classes or len(names), task, overrides or {})
    else:
        if weights is not None:
            raise UsageError(
                f"{source}: not the name of a model, which weights= needs (saccade models lists the names)"
            )
        loaded = _from_file(Path(source))
    if task is not None and task != loaded.task:
        raise UsageError(f"task is {task}, but {loaded.origin} was trained for {loaded.task}")
    model = loaded.model
    if isinstance(source, nn.Module):
        if not _is_on(source, home) or not _has_layout(source):
            model = _prepared(copy.deepcopy(source), home)
    elif not isinstance(source, LoadedModel):
        model = _prepared(model, home)
    elif not _is_on(model, home):
        model = _prepared(copy.deepcopy(model), home)
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
        rejection=loaded.rejection,
    )


def _prepared(model: nn.Module, device: torch.device) -> nn.Module:
    """The model in evaluation mode, on the device, in the memory format that it prefers."""
    model = model.eval().to(device)
    if device.type != "mps":
        model = model.to(memory_format=contract.memory_format(model))  # type: ignore[call-overload]
    return model


def _is_on(model: nn.Module, device: torch.device) -> bool:
    """Whether the model is on the device; ``cuda`` means the current CUDA device."""
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", torch.cuda.current_device())
    return model_device(model) == device


def _has_layout(model: nn.Module) -> bool:
    """Whether the weights are in the memory format that the model prefers."""
    layout = contract.memory_format(model)
    return all(p.is_contiguous(memory_format=layout) for p in model.parameters() if p.ndim == 5)


def load_for_task(
    source: str | os.PathLike[str] | nn.Module | LoadedModel,
    task: str,
    otherwise: str,
    *,
    weights: str | os.PathLike[str] | None = None,
    num_classes: int | None = None,
    labels: str | os.PathLike[str] | Sequence[str] | None = None,
    clip: ClipSpec | None = None,
    device: str | torch.device = "auto",
) -> LoadedModel:
    """Like `load_for_inference`, but only for models trained for ``task``.

    Modules and weights of other code bases do not state their task; they are used for ``task``.

    Args:
        otherwise: end of the message if the model was trained for another task.

    Raises:
        UsageError, WeightsError: as `load_for_inference`; or the model was trained for another task.
    """
    silent = isinstance(source, nn.Module) or weights is not None
    loaded = load_for_inference(
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


def task_of(loaded: LoadedModel) -> Task:
    """The task of a model, with the options it was trained with."""
    kind = get_task(loaded.task)
    known = {entry.name for entry in fields(kind)}
    return kind(**{name: value for name, value in loaded.metadata.items() if name in known})


def read_labels(labels: str | os.PathLike[str] | Sequence[str] | None) -> tuple[str, ...]:
    """Class names from a sequence, a file with one per line, or a list that ships by name; () for None."""
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
    num_classes = contract.num_classes(model) or 0
    try:
        clip = metadata.get("clip")
        spec = clip_from_dict(clip) if clip else own_clip(model)
        names = tuple(map(str, metadata.get("class_names") or ()))
        pairs = tuple((int(a), int(b)) for a, b in metadata.get("pairs") or ())
    except (TypeError, ValueError, AttributeError, DataError) as error:
        raise WeightsError(f"{file}: its metadata is damaged ({error})") from error
    if names and len(names) != num_classes:
        raise WeightsError(f"{file}: {len(names)} class names for {num_classes} classes")
    loaded = LoadedModel(
        model=model,
        class_names=names or _numbers(num_classes),
        named=bool(names),
        clip=spec,
        name=contract.model_name(model),
        origin=str(path),
        device=torch.device("cpu"),
        task=str(metadata.get("task", "single-label")),
        pairs=pairs,
        metadata=metadata,
    )
    return replace(loaded, rejection=_rejection(file, loaded.step))


def _rejection(file: Path, step: int | None) -> Rejection | None:
    """The rejection of the run that the weights are the best of; None, with a warning, if it was calibrated
    for earlier weights.
    """
    run = Run(file.parent)
    found = run.rejection if file.name == BEST else None
    if found is not None and found.step != step:
        logger.warning(
            f"{run.rejection_file}: calibrated for the weights of step {found.step}, those of the run are "
            f"of step {step}; not used (calibrate again with saccade test --reject)"
        )
        return None
    return found


def _from_name(
    name: str,
    weights: str | os.PathLike[str] | None,
    num_classes: int,
    task: str | None,
    overrides: Mapping[str, Any],
) -> LoadedModel:
    from saccade.models import create_model, read_weights

    if weights is None:
        raise UsageError(f"model {name} needs weights (a checkpoint file); Saccade ships none")
    file = Path(weights)
    if file.suffix == ".safetensors" and file.is_file() and "model" in read_weights(file)[1]:
        loaded = _from_file(file)
        if loaded.name != name:
            raise UsageError(f"{file}: holds a {loaded.name}, not a {name}")
        if overrides:
            raise UsageError(f"model.overrides: have no effect, {file} states how its model is built")
        return loaded
    task = task or "single-label"
    count = {"num_classes": num_classes} if num_classes else {}
    options = {**get_task(task).model_overrides(name), **overrides}
    return _from_module(create_model(name, **count, **options), weights, task)


def _from_module(
    model: nn.Module,
    weights: str | os.PathLike[str] | None,
    task: str,
    num_classes: int = 0,
    clip: ClipSpec | None = None,
) -> LoadedModel:
    """Any module; the arguments state what its attributes (``num_classes``, ``model_name``) do not."""
    if weights is not None:
        _load_with_classifier(model, weights)
    stated = getattr(model, "num_classes", None)
    num_classes = stated if isinstance(stated, int) else num_classes or contract.num_classes(model) or 0
    if num_classes < 1:
        raise UsageError(
            "this module does not say how many classes it has; give labels=[...] or num_classes="
        )
    return LoadedModel(
        model=model,
        class_names=_numbers(num_classes),
        named=False,
        clip=clip or own_clip(model),
        name=contract.model_name(model),
        origin=str(weights) if weights is not None else "the model",
        device=model_device(model),
        task=task,
    )


def _load_with_classifier(model: nn.Module, weights: str | os.PathLike[str]) -> None:
    """Load weights including the classifier; predictions of a new classifier would be noise."""
    from saccade.models import load_weights

    if not Path(weights).is_file():
        raise UsageError(f"{os.fspath(weights)}: no such file")
    report = load_weights(model, weights)
    classifier = set(contract.classifier_parameters(model))
    if not classifier <= set(report.mapped.values()):
        reason = "; ".join(dict.fromkeys(report.left_out.values())) or "it is not in the file"
        raise WeightsError(
            f"{os.fspath(weights)}: the classifier cannot be used ({reason}); give the number of "
            "classes of the file (--num-classes)"
        )


def own_clip(model: nn.Module) -> ClipSpec:
    """The clip that a model was built for, including its overrides.

    Raises:
        UsageError: the module does not say which clip it sees.
    """
    clip = contract.clip_spec(model)
    if clip is None:
        raise UsageError("this module does not say which clip it sees; give clip=ClipSpec(...)")
    return clip


def _is_model_name(source: str | os.PathLike[str]) -> bool:
    from saccade.models import list_models

    return isinstance(source, str) and not Path(source).exists() and source in list_models()


def _numbers(num_classes: int) -> tuple[str, ...]:
    return tuple(str(label) for label in range(num_classes))
