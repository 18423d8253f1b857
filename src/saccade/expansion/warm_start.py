"""Start an expanded X3D from the weights of the network it was expanded from.

A wider layer repeats channels and splits the weights that read them among the copies (Net2Net, Chen et al.,
ICLR 2016, arXiv 1511.05641). The parts are random, not equal: their sum, hence the function, is the same, but
the copies get different gradients and diverge, for which Net2Net adds noise. A deeper stage gets blocks at
its end whose last norm has scale 0, so that they pass on their input. Longer, faster and larger clips change
no shape.
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

_FREE = {"gamma_tau", "gamma_t", "gamma_s", "gamma_w", "gamma_b", "gamma_d"} | {
    "dropout",
    "drop_path",
    "init",
    "bn_momentum",
}
"""Fields that may differ between parent and child. The others decide which function the weights compute."""


@dataclass(frozen=True)
class WarmStart:
    """Where the weights of a child come from.

    Attributes:
        parts: where each part of the child (stem, a block, head) comes from, in order; then those parts of
            the parent that the child does not have.
        exact: in eval mode the child gives the parent's logits for the parent's clips, up to rounding. False
            only if the child is narrower or shallower somewhere.
        quiet_taps: the temporal taps set to 0, in frames from the middle: those that reach beyond the
            parent's clip and were never trained. With them at 0 a clip of equal frames gives the logits that
            the parent gives for one of them, if that was the parent's whole clip.
    """

    parts: dict[str, str]
    exact: bool
    quiet_taps: tuple[int, ...] = ()

    def to_dict(self) -> dict[str, object]:
        """Plain values, for warm_start.json and the weights' metadata."""
        parts = [{"name": name, "source": source} for name, source in self.parts.items()]
        return {"parts": parts, "exact": self.exact, "quiet_taps": list(self.quiet_taps)}


@torch.no_grad()
def warm_start(child: X3D, parent: X3D, *, seed: int = 0) -> WarmStart:
    """Set the weights of ``child`` from those of ``parent``, so that it computes what the parent does.

    In eval mode the two give the same logits for a clip of the parent's shape whenever the child is nowhere
    narrower or shallower: squeeze-excitation, batch statistics, shortcuts and the head are all expanded with
    the channels they belong to, and the rounding of channel counts to multiples of 8 never makes a layer
    smaller as its factor grows. In training mode they are the same but for dropout and for the random
    initialisation of the first convolutions of new blocks, which the zero scale behind them hides.

    Args:
        child: freshly initialised; new blocks keep their initialisation, except for their last norm.
        seed: of the random split of weights among the copies of a channel.

    Raises:
        UsageError: the two differ in more than factors of expansion.
    """
    _check(child, parent)
    source, target = parent.state_dict(), child.state_dict()
    generator = torch.Generator().manual_seed(seed)
    taps = _unseen_taps(child.config, parent.config)
    for name, tensor in target.items():
        if name in source:
            wide = expand_tensor(source[name], tensor.shape, generator=generator)
            if name.endswith(("conv_b.weight", "conv_t.weight")):
                _silence(wide, taps)
            tensor.copy_(wide)
        elif ".norm_c." in name and name.endswith(("weight", "bias")):
            tensor.zero_()
    parts = dict(_parts(source, target))
    shrunk = any(origin.startswith(("narrowed", "left out")) for origin in parts.values())
    return WarmStart(parts, exact=not shrunk, quiet_taps=taps)


def expand_tensor(tensor: Tensor, shape: torch.Size, *, generator: torch.Generator) -> Tensor:
    """A weight, bias or statistic of a layer with more channels, from that of the narrower layer.

    Channel ``j`` of n is the copy of channel ``j mod n_old``, in every tensor alike. Along the first
    dimension (output channels) rows are copied; along the second (input channels) a column is split among
    the copies of its channel, in random parts of 0.5 to 1.5, scaled to add up to 1. A dimension that shrinks
    keeps its first channels.
    """
    if tensor.ndim == 0:
        return tensor.clone()
    wide = tensor[_copies(tensor.shape[0], shape[0])]
    if tensor.ndim == 1 or tensor.shape[1] == shape[1]:
        return wide
    columns = _copies(tensor.shape[1], shape[1])
    parts = 0.5 + torch.rand(shape[0], shape[1], generator=generator, dtype=torch.float64)
    totals = torch.zeros(shape[0], tensor.shape[1], dtype=torch.float64).index_add_(1, columns, parts)
    shares = (parts / totals[:, columns]).reshape(*parts.shape, *(1 for _ in shape[2:]))
    return (wide[:, columns].double() * shares.to(wide.device)).to(wide.dtype)


def write_warm_start(
    config: TrainConfig, parent_weights: str | os.PathLike[str], path: str | os.PathLike[str]
) -> WarmStart:
    """Write the initial weights of a run of ``config``, expanded from its parent's.

    Args:
        config: of the child's run; its model is an X3D.
        parent_weights: best.safetensors of the parent's run.
        path: the safetensors file to write; `ModelConfig.weights` takes it.

    Raises:
        WeightsError: the parent's file cannot be read or is not an X3D.
        UsageError: child and parent differ in more than factors of expansion.
    """
    parent, _ = load_model(parent_weights)
    if not isinstance(parent, X3D):
        raise WeightsError(
            f"{os.fspath(parent_weights)}: holds a {parent.model_name}; only X3D can be expanded"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        child = create_model(config.model.name, parent.num_classes, **model_options(config))
    if not isinstance(child, X3D):
        raise UsageError(f"model.name: {config.model.name} is not an X3D; only X3D can start warm")
    report = warm_start(child, parent, seed=config.seed)
    save_weights(child, path, {"warm_start": report.to_dict()})
    return report


def _check(child: X3D, parent: X3D) -> None:
    if child.num_classes != parent.num_classes:
        raise UsageError(
            f"warm start: the parent has {parent.num_classes} classes, the child {child.num_classes}"
        )
    for field in fields(X3DConfig):
        ours, theirs = getattr(child.config, field.name), getattr(parent.config, field.name)
        if field.name not in _FREE and ours != theirs:
            raise UsageError(
                f"warm start: {field.name} is {theirs!r} in the parent and {ours!r} in the child"
            )


def _copies(old: int, new: int) -> Tensor:
    """Which old channel each new one is a copy of."""
    return torch.arange(new) % old


def _unseen_taps(child: X3DConfig, parent: X3DConfig) -> tuple[int, ...]:
    """Distances from the middle of temporal taps that saw only padding in the parent's clips."""
    if child.num_frames <= parent.num_frames:
        return ()
    return tuple(range(parent.num_frames, 3))  # the stem has 5 taps, the blocks 3


def _silence(weight: Tensor, distances: tuple[int, ...]) -> None:
    """Set the taps of a depthwise weight (C, 1, kt, kh, kw) that far from the middle to 0, in place."""
    middle = weight.shape[2] // 2
    for distance in distances:
        if distance <= middle:
            weight[:, :, [middle - distance, middle + distance]] = 0


def _parts(source: dict[str, Tensor], target: dict[str, Tensor]) -> Iterator[tuple[str, str]]:
    """What became of each part, by the shapes of its tensors."""
    for name in dict.fromkeys(map(_part_name, target)):
        pairs = [
            (source[key].shape, tensor.shape)
            for key, tensor in target.items()
            if _part_name(key) == name and key in source
        ]
        if not pairs:
            yield name, "new: passes on its input"
            continue
        widths = [(a, b) for old, new in pairs for a, b in zip(old[:2], new[:2], strict=True) if a != b]
        changes = ", ".join(f"{a} -> {b} channels" for a, b in dict.fromkeys(widths))
        kind = "narrowed" if any(b < a for a, b in widths) else "widened"
        yield name, f"{kind}: {changes}" if widths else "copied"
    for name in dict.fromkeys(map(_part_name, source)):
        if not any(_part_name(key) == name for key in target):
            yield name, "left out"


def _part_name(key: str) -> str:
    """``res3.4.conv_a.weight`` -> ``res3.4``; ``stem.norm.weight`` -> ``stem``."""
    first, second, *_ = key.split(".")
    return f"{first}.{second}" if second.isdigit() else first
