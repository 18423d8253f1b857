"""How a checkpoint of another code base is mapped onto one of our models: by tables of key prefixes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor, nn

NORM_STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass
class Conversion:
    """A checkpoint on its way into a model.

    Attributes:
        tensors: our key -> tensor; mapped: the checkpoint's key -> our key.
        left_out: the checkpoint's key -> why it is not used.
        unexpected: keys of the checkpoint that mean nothing to this format.
        filled: our key -> where its value comes from, for tensors the checkpoint does not have.
        kept: our key -> why the model's own value stays, for tensors such a checkpoint never has.
        notes: what else the reader of the report should know.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    mapped: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    unexpected: list[str] = field(default_factory=list)
    filled: dict[str, str] = field(default_factory=dict)
    kept: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class WeightFormat:
    """The key names of one code base for one family of models.

    Attributes:
        name: as the report calls it.
        marker: a key that only this format has.
        prefixes: its prefix -> ours, for what stands once in the network.
        block: pattern of a block's prefix; its named groups are numbers, e.g. ``stage`` and ``index``.
        block_name: makes our prefix from them; it is given those that took part in the match, by name.
        parts: prefix behind the block's -> ours.
        finish: adds what the checkpoint lacks, and changes what it has otherwise.
    """

    name: str
    marker: str
    prefixes: Mapping[str, str]
    block: re.Pattern[str]
    block_name: Callable[..., str]
    parts: Mapping[str, str]
    finish: Callable[[Conversion, nn.Module], None] | None = None

    def convert(self, state: Mapping[str, Tensor], model: nn.Module) -> Conversion:
        """The tensors of a checkpoint under the names that ``model`` has for them."""
        result = Conversion()
        for key, tensor in state.items():
            ours = self._map(key)
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
        if self.finish is not None:
            self.finish(result, model)
        return result

    def _map(self, key: str) -> str | None:
        match = self.block.match(key)
        if match:
            numbers = {group: int(text) for group, text in match.groupdict().items() if text is not None}
            name = self.block_name(**numbers)
            rest = _replace_prefix(key[match.end() :], self.parts)
            return None if rest is None else f"{name}{rest}"
        return _replace_prefix(key, self.prefixes)


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


def _note_stale_statistics(state: Mapping[str, Tensor], result: Conversion) -> None:
    """Say so if sub-batch-norm was never aggregated: ``.bn`` is then as in a new network."""
    if not any(".split_bn." in key for key in result.left_out):
        return
    means = [tensor for key, tensor in state.items() if key.endswith(".bn.running_mean")]
    if means and all(not bool(mean.any()) for mean in means):
        result.notes.append(
            "the aggregated batch-norm statistics are those of an untrained network: "
            "aggregate the splits in the code base that wrote the file, then convert again"
        )
