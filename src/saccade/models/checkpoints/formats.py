"""Recognise checkpoints of other code bases and map their keys to those of our models."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

from saccade.errors import WeightsError
from saccade.models import contract
from saccade.models.checkpoints.content import is_averaged, listed, prefixes_of, without_prefix

NORM_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")

StateDict = Mapping[str, Tensor]

_FOREIGN = "not a part of the network"
_AVERAGE = "an average of the weights beside them"


@dataclass
class Conversion:
    """A checkpoint whose keys are being mapped to those of a model.

    Attributes:
        tensors: our key -> tensor; mapped: the checkpoint's key -> our key.
        left_out: the checkpoint's key -> why it is not used.
        unexpected: keys of the checkpoint that are not in this format.
        filled: our key -> where its value comes from, for tensors that are not in the checkpoint.
        kept: our key -> why the model's value stays, for tensors that such a checkpoint never has.
        notes: further remarks for the report.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    mapped: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    filled: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class CheckpointFormat:
    """The names of tensors in one code base, for one kind of model.

    Attributes:
        name: as the report calls it.
        models: class, or classes, of the models that such a checkpoint can be loaded into.
        marker: how it is recognised: a key that only this format has, or a function of the state dict.
        prefixes: its prefix -> ours, for what occurs once in the network; the first that fits is taken.
        block: pattern of a block's prefix; its named groups are numbers, e.g. ``stage`` and ``index``.
        block_name: our prefix for it: a format string, or a function of the groups that took part in the
            match, by name.
        parts: what follows the block's prefix -> ours.
        ignored: pattern of keys that are not used -> why.
        finish: adds what the checkpoint lacks, and changes what it has otherwise.
    """

    name: str
    models: type | tuple[type, ...]
    marker: str | Callable[[StateDict], bool]
    prefixes: Mapping[str, str] = field(default_factory=dict)
    block: str = ""
    block_name: str | Callable[..., str] = ""
    parts: Mapping[str, str] = field(default_factory=dict)
    ignored: Mapping[str, str] = field(default_factory=dict)
    finish: Callable[[Conversion, nn.Module], None] | None = None

    def recognises(self, state: StateDict) -> bool:
        """Whether a state dict has this format."""
        return self.marker in state if isinstance(self.marker, str) else self.marker(state)

    def convert(self, state: StateDict, model: nn.Module | None = None) -> Conversion:
        """The tensors of a checkpoint under the names that ``model`` has for them."""
        result = Conversion()
        for key, tensor in state.items():
            reason = next((why for pattern, why in self.ignored.items() if re.match(pattern, key)), None)
            if reason is not None:
                result.left_out[key] = reason
                continue
            ours = self.our_key(key)
            if ours is None:
                result.unexpected.append(key)
                continue
            ours = _plain_norm(ours)
            if ours is None:
                result.left_out[key] = (
                    "training statistics of batch-norm splits; the aggregated ones are used"
                )
                continue
            result.mapped[key] = ours
            result.tensors[ours] = tensor
        _note_stale_statistics(state, result)
        if self.finish is not None and model is not None:
            self.finish(result, model)
        return result

    def our_key(self, key: str) -> str | None:
        """Our name for a key; None if the key is not in this format."""
        match = re.match(self.block, key) if self.block else None
        if not match:
            return _replace_prefix(key, self.prefixes)
        numbers = {group: int(text) for group, text in match.groupdict().items() if text is not None}
        make = self.block_name.format if isinstance(self.block_name, str) else self.block_name
        rest = _replace_prefix(key[match.end() :], self.parts)
        return None if rest is None else f"{make(**numbers)}{rest}"


_FORMATS: list[CheckpointFormat] = []


def register_checkpoint_format(checkpoint_format: CheckpointFormat) -> CheckpointFormat:
    """Register a format for `load_weights`; the one registered last is tried first.

    Example:
        >>> from saccade.models import X3D, create_model, load_weights
        >>> _ = register_checkpoint_format(CheckpointFormat(
        ...     name="my lab", models=X3D, marker="trunk.conv_s.weight",
        ...     prefixes={"trunk.": "stem.", "fc.": "head.classifier."},
        ...     block=r"res(?P<stage>[2-5])\\.", block_name="res{stage}.", parts={"": ""}))
        >>> model = create_model("x2d", num_classes=5)
        >>> weights = {"trunk.conv_s.weight": model.stem.conv_s.weight.detach()}
        >>> load_weights(model, weights, strict=False).format
        'my lab'
    """
    same = (checkpoint_format.name, checkpoint_format.models, checkpoint_format.marker)
    _FORMATS[:] = [known for known in _FORMATS if (known.name, known.models, known.marker) != same]
    _FORMATS.append(checkpoint_format)
    return checkpoint_format


def formats_of(kind: type) -> list[CheckpointFormat]:
    """The formats for a class of models, in the order in which they are tried."""
    return [known for known in reversed(_FORMATS) if issubclass(kind, known.models)]


def convert(state: StateDict, model: nn.Module, source: str) -> tuple[str, Conversion]:
    """Recognise a state dict by its keys: the name of its format, and its tensors under our keys.

    Where many keys share a prefix (``net.``, ``backbone.``, ``student.``) they are read without it, if that
    is how most tensors of the model are found. Tensors that lie outside the network (weights of a loss,
    buffers of metrics, a projection head) are left out and named in the report's notes.

    Raises:
        WeightsError: the keys are of no known format.
    """
    target = set(model.state_dict())
    best: tuple[int, str, str, Conversion] | None = None
    for prefix in prefixes_of(state):
        keys = without_prefix(state, prefix)
        plain = {name: state[key] for name, key in keys.items()}
        name, conversion = _read_as(plain, model, target)
        hits = len(target & conversion.tensors.keys())
        recognised = name and not prefix and (name != "Saccade" or hits == len(plain))
        if recognised or (hits and (best is None or hits > best[0])):
            best = hits, prefix, name, conversion
        if recognised:
            break
    if best is None:
        raise WeightsError(_unknown(state, model, source))
    _, prefix, name, conversion = best
    if is_averaged(prefix):
        conversion.notes.append(f"these are averaged weights ({prefix.rstrip('.')}); the file has no others")
    _leave_out_foreign(conversion, target, native=name == "Saccade")
    return name, conversion


def _read_as(state: StateDict, model: nn.Module, target: set[str]) -> tuple[str, Conversion]:
    """The first format that recognises the keys, and its conversion; the name is empty if none does."""
    for candidate in formats_of(type(model)):
        if candidate.recognises(state):
            return candidate.name, candidate.convert(state, model)
    return "Saccade" if target & state.keys() else "", native(state)


def _leave_out_foreign(result: Conversion, target: set[str], *, native: bool) -> None:
    """Move tensors that lie outside the network from the unexpected ones to those left out.

    A key lies outside if no key that is used begins with the same name. ``res9.conv.weight`` is foreign to an
    X3D, ``res2.9.conv.weight`` is not: it says that the network is another one.
    """
    inside = {key.partition(".")[0] for key in (target if native else result.mapped)}
    if native:
        unexpected = [key for key in result.tensors if key not in target]
    else:
        unexpected = result.unexpected
    foreign = [key for key in unexpected if key.partition(".")[0] not in inside]
    if not foreign:
        return
    for key in foreign:
        result.tensors.pop(key, None)
        result.mapped.pop(key, None)
    result.unexpected = [key for key in result.unexpected if key not in set(foreign)]
    reasons = {key: _AVERAGE if is_averaged(key.rpartition(".")[0]) else _FOREIGN for key in foreign}
    result.left_out |= reasons
    result.notes += [f"{reason}, left out: {shorten(keys)}" for reason, keys in by_reason(reasons)]


def _unknown(state: StateDict, model: nn.Module, source: str) -> str:
    """What is said of a state dict that no format recognises: its keys, and the nearest format."""
    formats = formats_of(type(model))
    target = model.state_dict()
    nearest, found = "", set[str]()
    for prefix in prefixes_of(state):
        plain = {name: state[key] for name, key in without_prefix(state, prefix).items()}
        for candidate in formats:
            hits = target.keys() & candidate.convert(plain).tensors.keys()
            if len(hits) > len(found):
                nearest, found = candidate.name, set(hits)
    known = ", ".join(dict.fromkeys(["Saccade", *(candidate.name for candidate in reversed(formats))]))
    message = (
        f"{source}: not a known checkpoint format of {contract.model_name(model)} ({known}); "
        f"its keys are like {listed(state)}"
    )
    if not found:
        return f"{message}; no tensor has a name of any of these"
    missing = [key for key in target if key not in found]
    return (
        f"{message}. The nearest is {nearest}, which has names for {len(found)} of the model's {len(target)} "
        f"tensors; missing are {shorten(missing)}"
    )


def native(state: StateDict) -> Conversion:
    """The conversion of a state dict that already has our keys."""
    return Conversion(tensors=dict(state), mapped={key: key for key in state})


def shorten(keys: Iterable[str], most: int = 4) -> str:
    """The first names as text, and the number of the others."""
    names = list(keys)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def by_reason(reasons: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """Group keys by reason."""
    groups: dict[str, list[str]] = {}
    for key, reason in reasons.items():
        groups.setdefault(reason, []).append(key)
    return list(groups.items())


def _replace_prefix(key: str, table: Mapping[str, str]) -> str | None:
    for theirs, ours in table.items():
        if key.startswith(theirs):
            return ours + key[len(theirs) :]
    return None


def _plain_norm(key: str) -> str | None:
    """The key of a plain batch norm for one of a sub-batch-norm; None for the statistics of its splits.

    Sub-batch-norm keeps weight and bias on itself, the aggregated statistics in ``.bn`` and those of the
    splits in ``.split_bn``.
    """
    module, _, leaf = key.rpartition(".")
    if leaf not in NORM_STATISTICS:
        return key
    if module.endswith(".split_bn"):
        return None
    return f"{module.removesuffix('.bn')}.{leaf}"


def _note_stale_statistics(state: StateDict, result: Conversion) -> None:
    """Add a note if sub-batch-norm was never aggregated; ``.bn`` then has its initial values."""
    if not any(".split_bn." in key for key in result.left_out):
        return
    means = [tensor for key, tensor in state.items() if key.endswith(".bn.running_mean")]
    if means and all(not bool(mean.any()) for mean in means):
        result.notes.append(
            "the aggregated batch-norm statistics are those of an untrained network: "
            "aggregate the splits in the code base that wrote the file, then convert again"
        )
