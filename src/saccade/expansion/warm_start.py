"""Warm start: initialise an expanded X3D with the weights of its parent network.

A wider layer repeats channels and splits the weights that read them among the copies (Net2Net, Chen et al.,
ICLR 2016, arXiv 1511.05641). The split is random instead of equal: the sum, and so the output, is the same,
but the copies get different gradients and diverge (Net2Net adds noise for that). A deeper stage gets blocks
at its end whose last norm has scale 0, which makes them identities. Longer, faster and larger clips do not
change the shapes of weights.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from saccade.errors import UsageError, WeightsError
from saccade.models import X3D, X3DConfig, create_model, load_model, save_weights
from saccade.training.config import TrainConfig
from saccade.training.network import model_options

_MAY_DIFFER = {"gamma_tau", "gamma_t", "gamma_s", "gamma_w", "gamma_b", "gamma_d"} | {
    "dropout",
    "drop_path",
    "init",
    "bn_momentum",
}
"""Fields of `X3DConfig` that may differ between parent and child."""


@dataclass(frozen=True)
class WarmStart:
    """Report of a warm start.

    Attributes:
        parts: origin of each part of the child (stem, a block, head), in order; then the parts of the parent
            that the child does not have.
        exact: in eval mode the child returns the parent's logits for the parent's clips, up to rounding.
            False only if the child is narrower or shallower somewhere.
        zeroed_taps: distances from the centre, in frames, of the temporal taps set to 0. These taps reach
            beyond the parent's clip and were never trained. With them at 0, a child of a single-frame parent
            returns for a clip of equal frames the parent's logits for that frame.
    """

    parts: dict[str, str]
    exact: bool
    zeroed_taps: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """Plain values, for warm_start.json and the weights' metadata."""
        parts = [{"name": name, "source": source} for name, source in self.parts.items()]
        return {"parts": parts, "exact": self.exact, "zeroed_taps": list(self.zeroed_taps)}


@torch.no_grad()
def warm_start(child: X3D, parent: X3D, *, seed: int = 0) -> WarmStart:
    """Set the weights of ``child`` from those of ``parent``, so that both compute the same function.

    In eval mode both return the same logits for a clip of the parent's shape if no part of the child is
    narrower or shallower. Squeeze-excitation, batch statistics, shortcuts and the head are expanded with
    their channels, and rounding channel counts to multiples of 8 never shrinks a layer as its factor grows.
    In training mode they differ only by dropout; the random first convolutions of new blocks have no effect
    because of the zero scale after them.

    Args:
        child: freshly initialised; new blocks keep their initialisation, except for their last norm.
        seed: seed of the random split of weights among the copies of a channel.

    Raises:
        UsageError: the models differ in more than the expansion factors.
    """
    _check(child, parent)
    source, target = parent.state_dict(), child.state_dict()
    generator = torch.Generator().manual_seed(seed)
    taps = _unseen_taps(child.config, parent.config)
    for name, tensor in target.items():
        if name in source:
            wide = expand_tensor(source[name], tensor.shape, generator=generator)
            if name.endswith(("conv_b.weight", "conv_t.weight")):
                _zero_taps(wide, taps, causal=child.is_causal)
            tensor.copy_(wide)
        elif ".norm_c." in name and name.endswith(("weight", "bias")):
            tensor.zero_()
    parts = dict(_parts(source, target))
    shrunk = any(origin.startswith(("narrowed", "dropped")) for origin in parts.values())
    return WarmStart(parts, exact=not shrunk, zeroed_taps=taps)


def expand_tensor(tensor: Tensor, shape: torch.Size, *, generator: torch.Generator) -> Tensor:
    """Expand a weight, bias or statistic to a layer with more channels.

    In every tensor, channel ``j`` is a copy of channel ``j mod n_old``. Rows (output channels) are copied.
    Columns (input channels) are split among the copies of their channel with random weights, drawn from
    0.5..1.5 and normalised to a sum of 1. A dimension that shrinks keeps its first channels.
    """
    if tensor.ndim == 0:
        return tensor.clone()
    wide = tensor[_source_channels(tensor.shape[0], shape[0])]
    if tensor.ndim == 1 or tensor.shape[1] == shape[1]:
        return wide
    columns = _source_channels(tensor.shape[1], shape[1])
    parts = 0.5 + torch.rand(shape[0], shape[1], generator=generator, dtype=torch.float64)
    totals = torch.zeros(shape[0], tensor.shape[1], dtype=torch.float64).index_add_(1, columns, parts)
    fractions = (parts / totals[:, columns]).reshape(*parts.shape, *(1 for _ in shape[2:]))
    return (wide[:, columns].double() * fractions.to(wide.device)).to(wide.dtype)


def write_warm_start(
    config: TrainConfig, parent_weights: str | os.PathLike[str], path: str | os.PathLike[str]
) -> WarmStart:
    """Write the initial weights of a run, expanded from its parent's weights.

    Args:
        config: config of the child's run; its model is an X3D.
        parent_weights: best.safetensors of the parent's run.
        path: the safetensors file to write, for `ModelConfig.weights`.

    Raises:
        WeightsError: the parent's file cannot be read or is not an X3D.
        UsageError: child and parent differ in more than the expansion factors.
    """
    parent, _ = load_model(parent_weights)
    if not isinstance(parent, X3D):
        raise WeightsError(
            f"{os.fspath(parent_weights)}: expected weights of an X3D, got {parent.model_name}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        child = create_model(config.model.name, parent.num_classes, **model_options(config))
    if not isinstance(child, X3D):
        raise UsageError(f"model.name: warm start supports only X3D, got {config.model.name}")
    report = warm_start(child, parent, seed=config.seed)
    save_weights(child, path, {"warm_start": report.to_dict()})
    return report


def _check(child: X3D, parent: X3D) -> None:
    if child.num_classes != parent.num_classes:
        raise UsageError(
            f"warm start: the parent has {parent.num_classes} classes, the child {child.num_classes}"
        )
    for field in fields(X3DConfig):
        new, old = getattr(child.config, field.name), getattr(parent.config, field.name)
        if field.name not in _MAY_DIFFER and new != old:
            raise UsageError(f"warm start: {field.name} is {old!r} in the parent and {new!r} in the child")


def _source_channels(old: int, new: int) -> Tensor:
    """Index of the old channel that each new channel copies."""
    return torch.arange(new) % old


def _unseen_taps(child: X3DConfig, parent: X3DConfig) -> tuple[int, ...]:
    """Distances in frames of temporal taps that saw only padding in the parent's clips."""
    if child.num_frames <= parent.num_frames:
        return ()
    # the stem has 5 taps, the blocks 3; those of a causal network all look back
    return tuple(range(parent.num_frames, 5 if child.causal else 3))


def _zero_taps(weight: Tensor, distances: tuple[int, ...], *, causal: bool) -> None:
    """Zero the taps at these distances from the present frame of a depthwise weight (C, 1, kt, kh, kw), in
    place.
    """
    size = weight.shape[2]
    present = size - 1 if causal else size // 2
    for distance in distances:
        taps = [tap for tap in (present - distance, present + distance) if 0 <= tap < size]
        weight[:, :, taps] = 0


def _parts(source: dict[str, Tensor], target: dict[str, Tensor]) -> Iterator[tuple[str, str]]:
    """(name, origin) of each part, derived from the shapes of its tensors."""
    for name in dict.fromkeys(map(_part_name, target)):
        pairs = [
            (source[key].shape, tensor.shape)
            for key, tensor in target.items()
            if _part_name(key) == name and key in source
        ]
        if not pairs:
            yield name, "new: identity"
            continue
        widths = [(a, b) for old, new in pairs for a, b in zip(old[:2], new[:2], strict=True) if a != b]
        changes = ", ".join(f"{a} -> {b} channels" for a, b in dict.fromkeys(widths))
        kind = "narrowed" if any(b < a for a, b in widths) else "widened"
        yield name, f"{kind}: {changes}" if widths else "copied"
    for name in dict.fromkeys(map(_part_name, source)):
        if not any(_part_name(key) == name for key in target):
            yield name, "dropped"


def _part_name(key: str) -> str:
    """``res3.4.conv_a.weight`` -> ``res3.4``; ``stem.norm.weight`` -> ``stem``."""
    first, second, *_ = (*key.split("."), "")
    return f"{first}.{second}" if second.isdigit() else first
