"""What is inside a checkpoint: the tensors that a training script saved, wherever it put them."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saccade.errors import WeightsError

_DEPTH = 4  # dictionaries inside each other
_WRAPPERS = ("module.", "_orig_mod.", "model.")  # DistributedDataParallel, torch.compile, Lightning
# torch.compile, activation checkpointing and FSDP also wrap modules inside the network
_INNER = re.compile(r"(^|\.)(?:(?:_orig_mod|_checkpoint_wrapped_module|_fsdp_wrapped_module)\.)+")
_OF_TRAINING = re.compile(
    r"(^|_)(optim(izers?|isers?)?|(lr_?)?schedulers?|(grad_?)?scalers?|rng|loss(es)?|criterion|metrics?|"
    r"callbacks|loops)(_|$)",
    re.IGNORECASE,
)
_AVERAGED = re.compile(r"(^|[_.])(ema|shadow|averaged?|swa|polyak)(?=[_.]|$)", re.IGNORECASE)
_LEAST_FRACTION = 0.2  # of the tensors that a prefix must be shared by to be tried


@dataclass
class Content:
    """The tensors of a checkpoint.

    Attributes:
        source: the file, or "state dict".
        state: key -> tensor.
        notes: what the reader of the report should know.
    """

    source: str
    state: dict[str, Tensor]
    notes: list[str] = field(default_factory=list)


def unwrap(content: Any, source: str = "state dict") -> Content:
    """Find the state dict inside what a training script saved.

    Tensors are looked for in dictionaries up to four deep, but not in those of optimisers, schedulers, losses
    and metrics. Names of dictionaries that hold all of them are dropped, and so are prefixes of wrappers.
    An average of the weights (``model_ema``, ``state_dict_ema``, ``ema`` ...) is used where it is the only
    one; beside the weights themselves it is left out with a note.

    Raises:
        WeightsError: there are no tensors.
    """
    if isinstance(content, list | tuple):  # torch.save((state_dict, epoch), path)
        content = {f"{index}": value for index, value in enumerate(content) if isinstance(value, Mapping)}
    if not isinstance(content, Mapping):
        raise WeightsError(f"{source}: holds a {type(content).__name__}, not a state dict")
    found = dict(_tensors(content))
    averaged = {path: value for path, value in found.items() if any(map(_AVERAGED.search, path[:-1]))}
    notes = []
    if averaged:
        names = ", ".join(dict.fromkeys(".".join(path[:-1]) for path in averaged))
        if len(averaged) < len(found):
            found = {path: value for path, value in found.items() if path not in averaged}
            notes.append(
                f"the weights are loaded, not their average, which the file has as {names}; to use that, "
                "give load_weights the dictionary of that name"
            )
        else:
            notes.append(f"these are averaged weights ({names}); the file has no others")
    if not found:
        raise WeightsError(
            f"{source}: no tensors found; expected a state dict, or one in a dictionary. {_listed(content)}"
        )
    while len({path[0] for path in found}) == 1 and all(len(path) > 1 for path in found):
        found = {path[1:]: value for path, value in found.items()}
    state = {_INNER.sub(r"\1", ".".join(path)): value for path, value in found.items()}
    while prefix := next((p for p in _WRAPPERS if all(key.startswith(p) for key in state)), None):
        state = {key.removeprefix(prefix): value for key, value in state.items()}
    _check_not_sharded(state, source)
    return Content(source, state, notes)


def prefixes_of(keys: Iterable[str]) -> list[str]:
    """Prefixes that many keys share, to try in turn: none, then those of most keys, the longest first;
    averaged weights come last.
    """
    names = list(keys)
    counts: Counter[str] = Counter()
    for key in names:
        parts = key.split(".")
        counts.update(".".join(parts[:end]) + "." for end in range(1, min(len(parts), _DEPTH + 1)))
    frequent = [prefix for prefix, count in counts.items() if count >= _LEAST_FRACTION * len(names)]
    return ["", *sorted(frequent, key=lambda p: (is_averaged(p), -counts[p], -len(p)))]


def is_averaged(prefix: str) -> bool:
    """Whether the name of a dictionary or a prefix of keys is that of averaged weights."""
    return bool(_AVERAGED.search(prefix))


def without_prefix(state: Mapping[str, Tensor], prefix: str) -> dict[str, str]:
    """Each key without the prefix -> the key; keys that do not have it are as they were, unless one of the
    others is then called the same.
    """
    keys = {key.removeprefix(prefix): key for key in state if key.startswith(prefix)}
    return keys | {key: key for key in state if not key.startswith(prefix) and key not in keys}


def listed(state: Mapping[str, Tensor], most: int = 4) -> str:
    """The first keys of a state dict with their shapes, and how many more there are."""
    keys = [f"{key} {shape_of(value)}" for key, value in list(state.items())[:most]]
    more = f" and {len(state) - most} more" if len(state) > most else ""
    return ", ".join(keys) + more


def shape_of(tensor: Tensor) -> str:
    """The shape of a tensor in words."""
    return "×".join(map(str, tensor.shape)) or "a number"


def _tensors(
    content: Mapping[Any, Any], path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    """The path to every tensor, and the tensor."""
    for name, value in content.items():
        if not isinstance(name, str):  # an optimiser numbers its parameters
            continue
        if isinstance(value, Mapping):
            if len(path) < _DEPTH and not _OF_TRAINING.search(name):
                yield from _tensors(value, (*path, name))
        elif isinstance(value, Tensor) and not value.is_nested:  # a nested one has no shape
            yield (*path, name), value
        elif isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
            native = np.array(value, value.dtype.newbyteorder("="))
            yield (*path, name), torch.from_numpy(native)


def _listed(content: Mapping[Any, Any]) -> str:
    """What a dictionary without tensors holds."""
    if not content:
        return "It is empty"
    entries = [f"{name} ({type(value).__name__})" for name, value in list(content.items())[:6]]
    return f"It holds {', '.join(entries)}{' ...' if len(content) > 6 else ''}"


def _check_not_sharded(state: Mapping[str, Tensor], source: str) -> None:
    """Raise `WeightsError` if the tensors are one process's part of the weights."""
    empty = sum(value.numel() == 0 for value in state.values())
    flat = any(key.rpartition(".")[2].startswith(("_flat_param", "flat_param")) for key in state)
    if flat or empty > len(state) / 2:
        kind, how = (
            ("FSDP", "save a full state dict (StateDictType.FULL_STATE_DICT)")
            if flat
            else ("DeepSpeed ZeRO-3", "join the shards with its zero_to_fp32.py")
        )
        raise WeightsError(f"{source}: one shard of a checkpoint of {kind}; {how}, then load that")
