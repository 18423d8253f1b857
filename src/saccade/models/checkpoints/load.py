"""Load weights into a model and report what was done."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from saccade.errors import SaccadeError, WeightsError
from saccade.models import contract
from saccade.models.checkpoints.class_rows import saved_class_names, take_rows
from saccade.models.checkpoints.content import shape_of
from saccade.models.checkpoints.files import content_of, read_weights
from saccade.models.checkpoints.formats import Conversion, StateDict, by_reason, convert, native, shorten
from saccade.models.registry import create_model, create_on_meta, list_models, model_entry
from saccade.runs import BEST

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LoadReport:
    """What `load_weights` did.

    Attributes:
        format: the code base that the keys are from.
        source: the file, or "state dict".
        num_loaded: number of tensors of the model that were loaded.
        mapped: key in the checkpoint -> key in the model, for every loaded tensor.
        left_out: key in the checkpoint -> why it was not loaded.
        filled: key in the model -> its new value in words, for tensors that are not in the checkpoint.
        missing: keys in the model that were not loaded.
        notes: further remarks.
    """

    format: str
    source: str
    num_loaded: int
    mapped: dict[str, str] = field(repr=False)
    left_out: dict[str, str] = field(repr=False)
    filled: dict[str, str] = field(repr=False)
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def summary(self) -> str:
        """The report as text, a few lines."""
        renamed = sum(theirs != ours for theirs, ours in self.mapped.items())
        lines = [f"{self.source}: {self.format}; {self.num_loaded} tensors loaded, {renamed} of them renamed"]
        lines += [f"  left out: {shorten(keys)} ({reason})" for reason, keys in by_reason(self.left_out)]
        lines += [f"  set: {shorten(keys)} ({reason})" for reason, keys in by_reason(self.filled)]
        if self.missing:
            lines.append(f"  not in the file, unchanged in the model: {shorten(self.missing)}")
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)


def load_weights(
    model: nn.Module,
    path_or_state_dict: str | os.PathLike[str] | Mapping[str, Any],
    strict: bool = True,
    *,
    class_names: Sequence[str] = (),
) -> LoadReport:
    """Load a checkpoint of ours or of another code base, recognised by its keys, into ``model``.

    Prefixes that most keys share (``module.``, ``net.``, ``backbone.``) are ignored. Tensors that are no part
    of the network (the weights of a loss, buffers of metrics, a projection head) are left out with a warning.
    Where a file has both the weights and their average (``model_ema``), the weights are loaded, with a
    warning. A checkpoint with another number of classes loads all but the classifier, with a warning and an
    entry in the report.

    Args:
        path_or_state_dict: a run folder, whose best weights are taken, or a file (safetensors, or a PyTorch
            pickle that holds nothing but tensors and plain values), or its content: a state dict, possibly
            inside the dict a training script saves.
        strict: raise if tensors of the model are missing or of another shape, or if a part of the network
            has tensors that the model's does not. Otherwise load what fits; the report names the rest.
        class_names: of ``model``, in label order. If the file names its classes too, as the weights of a run
            do, the classifier's rows of the classes in both are loaded, by name. Empty: all rows as they are,
            if their number is the same.

    Raises:
        WeightsError: the file cannot be read, its format is unknown, it does not fit. The model is unchanged.

    Example:
        >>> from saccade.models import create_model
        >>> source, model = create_model("x2d", num_classes=5), create_model("x2d", num_classes=3)
        >>> report = load_weights(model, source.state_dict())  # all but the classifier
        >>> report.format, report.missing
        ('Saccade', ('head.classifier.weight', 'head.classifier.bias'))
    """
    content = content_of(path_or_state_dict)
    source, model = content.source, contract.unwrap(model)
    try:
        format_name, conversion = convert(content.state, model, source)
        conversion.notes[:0] = content.notes
        if class_names:
            saved = saved_class_names(path_or_state_dict)
            conversion.notes += take_rows(model, conversion, saved, class_names)
        report = fit(model, conversion, format_name, source, strict)
    except (RuntimeError, IndexError, ValueError, TypeError) as error:  # shapes that no such network has
        raise WeightsError(
            f"{source}: cannot be converted to {contract.model_name(model)}: {str(error).splitlines()[0]}"
        ) from error
    for note in report.notes:
        logger.warning("%s: %s", source, note)
    return report


def load_model(path: str | os.PathLike[str]) -> tuple[Any, dict[str, Any]]:
    """Build a model from a weights file of Saccade, in eval mode; also return the file's metadata.

    Args:
        path: a .safetensors file of `save_weights`, of a training run or of ``saccade convert``; or a run
            folder, whose best weights are taken.

    Raises:
        WeightsError: the file cannot be read, its metadata has no model, or the model cannot be built.

    Example: see `save_weights`.
    """
    file = Path(path) / BEST if Path(path).is_dir() else Path(path)
    convert_it = (
        f"convert it first (saccade convert {file} OUT.safetensors), "
        "or build its model with create_model and use load_weights"
    )
    if file.is_file() and file.suffix != ".safetensors":
        raise WeightsError(f"{path}: not a .safetensors file written by Saccade; {convert_it}")
    tensors, metadata = read_weights(file)
    build_args = metadata.get("model")
    if not isinstance(build_args, dict) or "name" not in build_args:
        raise WeightsError(f"{path}: its metadata does not say which model it is of; {convert_it}")
    try:
        model = create_model(**build_args)
    except Exception as error:  # the arguments are whatever the file says
        raise WeightsError(f"{path}: its model cannot be built: {error}") from error
    fit(model, native(tensors), "Saccade", str(path), strict=True)
    return model.eval(), metadata


def fit(model: nn.Module, conversion: Conversion, format_name: str, source: str, strict: bool) -> LoadReport:
    """Copy the tensors that fit into the model; if ``strict``, raise unless all fit, before any change."""
    target = model.state_dict()
    theirs = {ours: key for key, ours in conversion.mapped.items()}
    tensors = {
        key: _without_unit_axes(value, target[key]) if key in target else value
        for key, value in conversion.tensors.items()
    }
    resized = contract.resize_positions(model, tensors)
    classifier, counts = _other_classes(model, tensors, target)
    left_out = conversion.left_out | {theirs[key]: counts for key in theirs if key in classifier}
    notes = [
        *conversion.notes,
        *resized,
        *([f"the classifier was not loaded: {counts}"] if classifier else []),
    ]
    extra = [key for key in tensors if key not in target and key not in classifier]
    unexpected = [*conversion.unexpected, *(theirs.get(key, key) for key in extra)]
    candidates = {k: v for k, v in tensors.items() if k in target and k not in classifier}
    shapes = {
        key: f"{_kind(value)} in the file, {_kind(target[key])} in the model"
        for key, value in candidates.items()
        if value.shape != target[key].shape or _loses_values(value, target[key])
    }
    absent = [key for key in target if key not in candidates and key not in classifier]
    counters = [key for key in absent if key.endswith("num_batches_tracked")]
    missing = [key for key in absent if key not in counters and key not in conversion.kept]
    if strict and (missing or unexpected or shapes):
        problems = _problems(missing, unexpected, [f"{key}: {shape}" for key, shape in shapes.items()])
        hint = _hint(model, tensors)
        raise WeightsError(
            f"{source}: {format_name} weights do not fit {contract.model_name(model)}: {problems}{hint}"
        )
    loaded = {key: value for key, value in candidates.items() if key not in shapes}
    mapped = {key: ours for key, ours in conversion.mapped.items() if ours in loaded}
    if not mapped:
        raise WeightsError(f"{source}: none of its {format_name} tensors fits {contract.model_name(model)}")
    model.load_state_dict(loaded, strict=False)
    left_out |= dict.fromkeys(unexpected, "the model has no such tensor")
    left_out |= {theirs.get(key, key): shape for key, shape in shapes.items()}
    filled = {key: how for key, how in conversion.filled.items() if key in loaded}
    filled |= dict.fromkeys(counters, "kept: the file does not count its batches")
    filled |= {key: why for key, why in conversion.kept.items() if key in absent}
    return LoadReport(
        format=format_name,
        source=source,
        num_loaded=len(set(mapped.values())),
        mapped=mapped,
        left_out=left_out,
        filled=filled,
        missing=(*missing, *shapes, *(key for key in target if key in classifier)),
        notes=tuple(notes),
    )


def guess_models(state: StateDict) -> list[str]:
    """Names of the models whose tensors, except the classifier, have the shapes of a state dict.

    Of several, those that leave out the fewest tensors (such as a decoder of pre-training).
    """
    unused = {name: _num_unused(name, state) for name in list_models()}
    fewest = min((number for number in unused.values() if number is not None), default=None)
    return [name for name, number in unused.items() if number is not None and number == fewest]


def num_classes_of(state: StateDict, name: str) -> int:
    """Number of classes in a state dict of any known format for the model ``name``; 0 if it has none."""
    model = _skeleton(name)
    tensors = convert(state, model, "state dict")[1].tensors
    weight = tensors.get(f"{contract.classifier_prefix(model)}weight")
    return 0 if weight is None else int(weight.shape[0])


def _num_unused(name: str, state: StateDict) -> int | None:
    """Number of tensors that a model leaves out; None if the shapes are not those of the model."""
    try:
        model = _skeleton(name)
        conversion = convert(state, model, name)[1]
    except SaccadeError:
        return None
    same = _trunk_shapes(conversion.tensors, model) == _trunk_shapes(model.state_dict(), model)
    return len(conversion.left_out) if same else None


def _trunk_shapes(tensors: StateDict, model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors except the classifier and the batch counters, without axes of size 1."""
    prefix = contract.classifier_prefix(model)
    return {
        key: tuple(size for size in value.shape if size != 1)
        for key, value in tensors.items()
        if not (prefix and key.startswith(prefix)) and not key.endswith("num_batches_tracked")
    }


def _skeleton(name: str) -> nn.Module:
    """The model on the meta device, built once."""
    return _built_once(name, model_entry(name).build)


@cache
def _built_once(name: str, _build: Any) -> nn.Module:
    try:
        model: nn.Module = create_on_meta(name)
    except SaccadeError:
        raise
    except Exception as error:  # somebody else's code must not stop what does not need it
        raise WeightsError(f"{name} cannot be built: {error!r}") from error
    return model


def _without_unit_axes(value: Tensor, target: Tensor) -> Tensor:
    """Reshape a pointwise convolution (out, in, 1, 1, 1) to a linear layer (out, in), or the reverse."""
    small, large = sorted((tuple(value.shape), tuple(target.shape)), key=len)
    if len(small) == 2 and len(large) > 2 and large == small + (1,) * (len(large) - 2):
        return value.reshape(target.shape)
    return value


def _other_classes(model: nn.Module, tensors: StateDict, target: StateDict) -> tuple[set[str], str]:
    """Keys of the classifier if the number of classes differs, and both numbers in words."""
    prefix = contract.classifier_prefix(model)
    weight = f"{prefix}weight"
    if not prefix or weight not in tensors:
        return set(), ""
    theirs, ours = tensors[weight], target.get(weight)
    same_features = ours is None or theirs.shape[1:] == ours.shape[1:]
    if not same_features or (ours is not None and theirs.shape == ours.shape):
        return set(), ""
    keys = {key for key in (*tensors, *target) if key.startswith(prefix)}
    return keys, f"{theirs.shape[0]} classes in the file, {contract.num_classes(model)} in the model"


def _problems(missing: list[str], unexpected: list[str], mismatched: list[str]) -> str:
    parts = [("missing", missing), ("unexpected", unexpected), ("of another shape or type", mismatched)]
    return "; ".join(f"{len(keys)} {what}: {shorten(keys)}" for what, keys in parts if keys)


def _hint(model: nn.Module, tensors: StateDict) -> str:
    """Name another model that has these shapes, if there is one."""
    names = [name for name in guess_models(tensors) if name != contract.model_name(model)]
    return f". They are those of {' or '.join(names)}" if names else ""


def _loses_values(value: Tensor, target: Tensor) -> bool:
    """Whether the values of a tensor cannot be copied: integers (quantised weights) and complex numbers mean
    something else, sparse tensors and those on the meta device do not hold them.
    """
    if value.is_meta or value.layout != torch.strided:
        return True
    return target.is_floating_point() and not value.is_floating_point()


def _kind(tensor: Tensor) -> str:
    """Shape, and what is unusual about the tensor."""
    words = [shape_of(tensor)]
    if tensor.ndim and not tensor.is_floating_point():
        words.append(str(tensor.dtype).removeprefix("torch."))
    if tensor.layout != torch.strided:
        words.append("sparse")
    if tensor.is_meta:
        words.append("without values")
    return " ".join(words)
