"""Take over a classifier by the names of its classes: rows of classes that stay, in the new order."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors
from torch import Tensor, nn

from saccade.data.classnames import LabelFinder
from saccade.models import contract
from saccade.models.checkpoints.files import METADATA_KEY
from saccade.models.checkpoints.formats import Conversion
from saccade.runs import BEST


def saved_class_names(source: str | os.PathLike[str] | Mapping[str, Any]) -> tuple[str, ...]:
    """The class names in the metadata of weights that Saccade saved; () of other files and state dicts."""
    if isinstance(source, Mapping):
        return ()
    file = Path(source) / BEST if Path(source).is_dir() else Path(source)
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            metadata = json.loads((opened.metadata() or {}).get(METADATA_KEY, "{}"))
        return tuple(map(str, metadata.get("class_names") or ()))
    except Exception:  # not a safetensors file of ours; `load_weights` says what is wrong with it
        return ()


def take_rows(
    model: nn.Module, conversion: Conversion, saved: Sequence[str], wanted: Sequence[str]
) -> list[str]:
    """Make the classifier in ``conversion`` one of the classes ``wanted``, where it is of ``saved``.

    Rows of classes of the same name (as `LabelFinder` finds it) are taken; new classes keep the rows of
    ``model``. If no class has the same name, the classifier is left out, unless one of the two lists only
    has numbers, which say nothing about the classes.

    Returns:
        What was done, in words; [] if the classes are the same, in the same order, or unknown.
    """
    prefix = contract.classifier_prefix(model)
    if not saved or not wanted or tuple(saved) == tuple(wanted) or not prefix:
        return []
    if all(name.isdecimal() for name in saved) or all(name.isdecimal() for name in wanted):
        return []
    finder = LabelFinder(saved)
    rows = {label: row for label, name in enumerate(wanted) if (row := finder.find(name)) is not None}
    target = model.state_dict()
    keys = [key for key, value in conversion.tensors.items() if _has_rows(key, value, prefix, len(saved))]
    if not keys or any(key not in target for key in keys):
        return []
    if not rows:
        theirs = {ours: key for key, ours in conversion.mapped.items()}
        for key in keys:
            conversion.left_out[theirs.get(key, key)] = "none of its classes is in the data set"
            conversion.kept[key] = "kept: the file has other classes"
            del conversion.tensors[key]
            conversion.mapped.pop(theirs.get(key, key), None)
        return [f"the classifier was not loaded: none of its {len(saved)} classes is in the data set"]
    for key in keys:
        value = target[key].clone()
        value[list(rows)] = conversion.tensors[key][list(rows.values())].to(value)
        conversion.tensors[key] = value
    from saccade.data.entries import first_few  # here, as models need no video decoder

    new = [name for label, name in enumerate(wanted) if label not in rows]
    gone = [name for row, name in enumerate(saved) if row not in rows.values()]
    text = f"classifier: {len(rows)} of {len(wanted)} classes taken over by name"
    text += f"; new: {first_few(new)}" if new else ""
    return [text + (f"; no longer there: {first_few(gone)}" if gone else "")]


def _has_rows(key: str, value: Tensor, prefix: str, num_classes: int) -> bool:
    """Whether a tensor belongs to the classifier and has one row for each class."""
    return key.startswith(prefix) and value.ndim > 0 and len(value) == num_classes
