"""From a network for images to one for clips: what is copied, inflated, interpolated, and what starts anew.

Carreira and Zisserman 2017, arXiv 1705.07750, and Arnab et al. 2021, "ViViT", arXiv 2103.15691, section 3.4,
for inflation; Bertasius et al. 2021, "TimeSformer", arXiv 2102.05095, for attention in time that begins as
that in space. VideoTransformer-pytorch (weight_init.py) has the same choices; its zero goes to the attention
in space by oversight, here it goes to that in time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from saccade.errors import UsageError, WeightsError
from saccade.layers.position import resize_loaded
from saccade.models import contract
from saccade.models.base import VideoModel
from saccade.models.checkpoints.files import content_of
from saccade.models.checkpoints.formats import by_reason, convert, shorten
from saccade.models.checkpoints.load import fit
from saccade.models.checkpoints.vit import BLOCK_PARTS, ImageWeights, Piece, read_image_weights
from saccade.models.checks import check_choice
from saccade.models.mvit import MViT
from saccade.models.transformer import ClipTransformer
from saccade.models.tsm import TSM

Inflate = Literal["temporal_avg", "center_frame"]
TimeStart = Literal["copy", "zero"]

_LEAVES = ("weight", "bias")
_FRESH = "freshly initialised"


@dataclass(frozen=True)
class Origin:
    """Where a parameter's value comes from: names of tensors in the file (none: from nowhere), and in words
    how it was made of them.
    """

    sources: tuple[str, ...]
    how: str


@dataclass
class ImageReport:
    """What `init_from_image` did.

    Attributes:
        source: the file, or "state dict"; format: the code base its names are from.
        inflate, time: as they were chosen; "" where there is no such choice.
        licence: licence of the weights, if known.
        origins: each parameter of the model -> where its value comes from.
        unused: each tensor of the file that went nowhere -> why.
    """

    source: str
    format: str
    inflate: str
    time: str
    licence: str = ""
    origins: dict[str, Origin] = field(default_factory=dict, repr=False)
    unused: dict[str, str] = field(default_factory=dict, repr=False)

    def summary(self) -> str:
        """A few lines for people."""
        num_set = sum(bool(origin.sources) for origin in self.origins.values())
        choices = f" (inflate {self.inflate}, time {self.time})" if self.inflate else ""
        lines = [
            f"{self.source}: {self.format}, an image network; {num_set} of {len(self.origins)} parameters "
            f"from it{choices}"
        ]
        if self.licence:
            lines.append(f"  licence of the weights: {self.licence}")
        for how, names in by_reason({name: origin.how for name, origin in self.origins.items()}):
            lines.append(f"  {how}: {len(names)}, {shorten(names, 3)}")
        for why, names in by_reason(self.unused):
            lines.append(f"  not used ({why}): {shorten(names, 3)}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """All of it as plain values."""
        return {
            "source": self.source,
            "format": self.format,
            "inflate": self.inflate,
            "time": self.time,
            "licence": self.licence,
            "parameters": {
                name: {"from": list(origin.sources), "how": origin.how}
                for name, origin in self.origins.items()
            },
            "unused": self.unused,
        }


def init_from_image(
    model: nn.Module,
    path_or_state_dict: str | os.PathLike[str] | Mapping[str, Any],
    *,
    inflate: Inflate = "temporal_avg",
    time: TimeStart = "copy",
) -> ImageReport:
    """Start a network for clips from one that was trained on images.

    TimeSformer and ViViT start from a ViT of their width, depth and patch: of timm, Hugging Face (safetensors
    or PyTorch), MMClassification, VideoTransformer-pytorch, or pre-trained by MAE (facebookresearch/mae,
    MAE-pytorch). The number of heads cannot be seen in weights; it must be the same too. MViT starts from an
    MViT for images of PySlowFast. Positions are interpolated for other crops. The classifier stays new. TSM
    starts from its image network in the names of timm, torchvision, Hugging Face or EfficientNet-PyTorch, and
    keeps the classifier if the model has the same number of classes.

    Args:
        inflate: how a filter for images becomes one of several frames. temporal_avg: in each frame, divided
            by their number; center_frame: in the middle one, 0 in the others. On a still clip both give what
            the image gave.
        time: what attention in time starts as. copy: as the attention in space (of the factorised ViViT, the
            blocks in time as the first ones in space). zero: the same, but the linear layers at the ends of
            what happens in time are 0, and positions in time too, so that time adds nothing at first: a
            divided TimeSformer or a factorised ViViT gives for a still clip exactly what the ViT gives for
            the frame.

    Returns:
        Of every parameter where its value comes from, and of every unused tensor of the file why.

    Raises:
        UsageError: the model has no use for an image network; ConfigError: a choice is unknown.
        WeightsError: the file cannot be read, or its network is another; the model is unchanged.
    """
    check_choice("inflate", inflate, get_args(Inflate))
    check_choice("time", time, get_args(TimeStart))
    model = contract.unwrap(model)
    content = content_of(path_or_state_dict)
    source, state = content.source, content.state
    if isinstance(model, TSM):
        return _load_frames(model, source, state)
    if isinstance(model, ClipTransformer):
        image = read_image_weights(state, source)
        _check_same_shape(model, image, source)
        name, parts = image.format, list(_vit_parts(model, image, inflate, time))
        unused = image.unused | _left_over(image, parts)
    elif isinstance(model, MViT):
        name, parts, unused = _mvit_parts(model, state, source, inflate, time)
    else:
        raise UsageError(
            f"{contract.model_name(model)} cannot be initialised from an image network; tsm_*, "
            "timesformer_*, vivit_* and mvit_* can"
        )
    report = ImageReport(source, name, inflate, time, unused=unused)
    _copy(model, parts, report)
    return report


@dataclass(frozen=True)
class _Part:
    """A parameter of the model, its new value (None: it stays as it is), and where that comes from."""

    name: str
    value: Tensor | None
    origin: Origin


def _copy(model: VideoModel, parts: Iterable[_Part], report: ImageReport) -> None:
    own = dict(model.named_parameters())
    found = {part.name: part for part in parts}
    wrong = [
        f"{name}: {tuple(part.value.shape)} made of {', '.join(part.origin.sources)}, "
        f"{tuple(own[name].shape)} in the model"
        for name, part in found.items()
        if part.value is not None and part.value.shape != own[name].shape
    ]
    if wrong:
        raise WeightsError(f"{report.source}: does not fit {model.model_name}: {shorten(wrong, 2)}")
    with torch.no_grad():
        for name, parameter in own.items():
            part = found.get(name) or _Part(name, None, Origin((), _FRESH))
            if part.value is not None:
                parameter.copy_(part.value)
            report.origins[name] = part.origin


# ------------------------------------------------------------------------------------------------------- TSM


def _load_frames(model: TSM, source: str, state: Mapping[str, Any]) -> ImageReport:
    """Load a network for images into one that runs it on every frame, batch norm statistics included."""
    name, conversion = convert(state, model, source)
    loaded = fit(model, conversion, name, source, strict=True)
    report = ImageReport(source, name, "", "", unused=loaded.left_out)
    theirs = {ours: key for key, ours in loaded.mapped.items()}
    for ours, _ in model.named_parameters():
        report.origins[ours] = Origin((theirs[ours],), "copied") if ours in theirs else Origin((), _FRESH)
    return report


# ------------------------------------------------------------------------------------- TimeSformer and ViViT


def _check_same_shape(model: ClipTransformer, image: ImageWeights, source: str) -> None:
    config = model.config
    hidden = int(image.pieces["blocks.0.mlp.fc1.weight"].tensor.shape[0])
    for what, theirs, ours, option in (
        ("width", image.width, config.width, "width"),
        ("depth", image.depth, config.depth, "depth"),
        ("patch", image.patch[0], config.patch, "patch"),
        ("width of the MLPs", hidden, int(config.width * config.mlp_ratio), "mlp_ratio"),
    ):
        if theirs != ours:
            raise WeightsError(
                f"{source}: a ViT of {what} {theirs}, and {model.model_name} has {ours}; take weights of a "
                f"ViT of {what} {ours}, or change {option}"
            )
    channels = int(image.pieces["patch_embed.weight"].tensor.shape[1])
    if channels != 3 or image.patch[0] != image.patch[1]:
        raise WeightsError(
            f"{source}: its patches are {image.patch[0]}×{image.patch[1]} of {channels} channels; they must "
            "be square and of 3"
        )


def _left_over(image: ImageWeights, parts: Iterable[_Part]) -> dict[str, str]:
    used = {source for part in parts for source in part.origin.sources}
    given = [source for piece in image.pieces.values() for source in piece.sources]
    return {source: "the model has no such part" for source in given if source not in used}


def _vit_parts(
    model: ClipTransformer, image: ImageWeights, inflate: Inflate, time: TimeStart
) -> Iterator[_Part]:
    """What is known of each parameter that does not stay new."""
    frames = model.config.tubelet_size[0]
    patch = image.pieces["patch_embed.weight"]
    yield _Part(
        "embed.patch.weight",
        inflated(patch.tensor, frames, inflate),
        Origin(patch.sources, _inflation(frames, inflate)),
    )
    yield from _plain(image, {"patch_embed.bias": "embed.patch.bias", "cls_token": "embed.cls_token"})
    yield from _positions(model, image)
    yield from _plain(image, {f"norm.{leaf}": f"head.norm.{leaf}" for leaf in _LEAVES})
    for i in range(len(model.layers)):
        yield from _block(image, i, f"layers.{i}.", {})
        if hasattr(model.layers[i], "time_attn"):
            yield from _time_attention(model, image, i, time)
    ends = ("attn.proj", "mlp.fc2") if time == "zero" else ()
    zeros = dict.fromkeys(ends, "0: the block adds nothing at first")
    for i in range(min(len(getattr(model, "time_layers", ())), image.depth)):
        yield from _block(image, i, f"time_layers.{i}.", zeros, "copied from the same block in space")
    for name, parameter in model.named_parameters():
        part = name.split(".", 2)[-1].rpartition(".")[0]
        if name.endswith("time_embed"):
            yield _time_positions(name, parameter, time)
        elif name.startswith("time_layers.") and int(name.split(".")[1]) >= image.depth and part in zeros:
            yield _Part(name, torch.zeros_like(parameter), Origin((), zeros[part]))


def _plain(image: ImageWeights, names: Mapping[str, str], how: str = "copied") -> Iterator[_Part]:
    for theirs, ours in names.items():
        piece = image.pieces.get(theirs)
        if piece is not None:
            yield _Part(ours, piece.tensor, Origin(piece.sources, _and(how, piece)))


def _and(how: str, piece: Piece) -> str:
    return f"{how}; {piece.how}" if piece.how else how


def _block(
    image: ImageWeights, index: int, prefix: str, zeros: Mapping[str, str], how: str = "copied"
) -> Iterator[_Part]:
    """The parameters of one block; ``zeros``: parts that are 0 instead -> in words."""
    for part in BLOCK_PARTS:
        weight = image.pieces[f"blocks.{index}.{part}.weight"].tensor
        likes = {"weight": weight, "bias": weight if weight.ndim == 1 else weight[:, 0]}
        for leaf, like in likes.items():
            piece = image.pieces.get(f"blocks.{index}.{part}.{leaf}")
            name = f"{prefix}{part}.{leaf}"
            if part in zeros or piece is None:
                why = zeros.get(part, "0: the file has no such bias")
                yield _Part(name, torch.zeros_like(like), Origin((), why))
            else:
                yield _Part(name, piece.tensor, Origin(piece.sources, _and(how, piece)))


def _time_attention(
    model: ClipTransformer, image: ImageWeights, index: int, time: TimeStart
) -> Iterator[_Part]:
    """Attention in time of a divided block, and the layer behind it.

    That layer is 0 in a new model, which hides the attention at first and lets it in as it learns. Where the
    attention ends in 0 itself, the layer must let gradients through: it is the identity.
    """
    how = "copied from attention in space"
    zeros = {"attn.proj": "0: attention in time adds nothing at first"} if time == "zero" else {}
    names = {"norm1": "time_norm", "attn.qkv": "time_attn.qkv", "attn.proj": "time_attn.proj"}
    for part in _block(image, index, "", zeros, how):
        theirs, leaf = part.name.rsplit(".", 1)
        if theirs in names:
            yield _Part(f"layers.{index}.{names[theirs]}.{leaf}", part.value, part.origin)
    if time == "zero":
        eye, width = "the identity, so that what is 0 before it can learn", model.config.width
        yield _Part(f"layers.{index}.time_fc.weight", torch.eye(width), Origin((), eye))
        yield _Part(f"layers.{index}.time_fc.bias", torch.zeros(width), Origin((), eye))
    else:
        nothing = Origin((), "0: attention in time adds nothing at first")
        for name, parameter in model.named_parameters():
            if name.startswith(f"layers.{index}.time_fc."):
                yield _Part(name, torch.zeros_like(parameter), nothing)


def _time_positions(name: str, parameter: Tensor, time: TimeStart) -> _Part:
    if time == "zero":
        nothing = Origin((), "0: positions in time add nothing at first")
        return _Part(name, torch.zeros_like(parameter), nothing)
    return _Part(name, None, Origin((), f"{_FRESH}: an image has no positions in time"))


def _positions(model: ClipTransformer, image: ImageWeights) -> Iterator[_Part]:
    piece = image.pieces.get("pos_embed")
    name, own = "embed.pos_embed", model.embed.pos_embed
    if piece is None:
        if image.format != "MAE-pytorch":
            return
        side = 224 // image.patch[0]
        table = sinusoids(side**2, image.width)
        piece = Piece(table, (), f"sinusoids, as {image.format} has them and its files do not, of 224 pixels")
    positions = piece.tensor if piece.tensor.ndim == 3 else piece.tensor.unsqueeze(0)
    notes = [piece.how or "copied"]
    if round(positions.shape[1] ** 0.5) ** 2 == positions.shape[1] and "cls_token" not in image.pieces:
        positions = torch.cat((torch.zeros_like(positions[:, :1]), positions), 1)
        notes.append("0 for the class token, which the file does not have")
    fitted = resize_loaded(positions, own, num_class_tokens=1, square=True)
    if fitted is None:
        raise WeightsError(
            f"{', '.join(piece.sources)}: positions of shape {tuple(piece.tensor.shape)} are not those of a "
            f"square image with a class token, in width {own.shape[-1]}"
        )
    if fitted.shape != positions.shape:
        notes.append(f"{positions.shape[1] - 1} patches interpolated to {fitted.shape[1] - 1}")
    yield _Part(name, fitted, Origin(piece.sources, "; ".join(notes)))


def sinusoids(num_positions: int, width: int) -> Tensor:
    """Fixed positions (1, N, C) of Vaswani et al. 2017: sines in even columns, cosines in odd ones."""
    columns = torch.arange(width, dtype=torch.float64)
    rate = 10000.0 ** (-2 * (columns // 2) / width)
    angle = torch.arange(num_positions, dtype=torch.float64)[:, None] * rate
    table = torch.where(columns.long() % 2 == 0, angle.sin(), angle.cos())
    return table.unsqueeze(0).float()


def inflated(weight: Tensor, frames: int, how: Inflate) -> Tensor:
    """Filters for images (O, I, H, W) as filters for ``frames`` frames (O, I, T, H, W)."""
    if how == "temporal_avg":
        return weight.unsqueeze(2).expand(-1, -1, frames, -1, -1) / frames
    filled = weight.new_zeros(*weight.shape[:2], frames, *weight.shape[2:])
    filled[:, :, frames // 2] = weight
    return filled


def _inflation(frames: int, how: Inflate) -> str:
    if frames == 1:
        return "Conv2d as Conv3d of one frame"
    done = f"divided by {frames} in each" if how == "temporal_avg" else "in the middle one, 0 in the others"
    return f"Conv2d to Conv3d of {frames} frames: {done}"


# ---------------------------------------------------------------------------------------------------- MViT


def _mvit_parts(
    model: MViT, state: Mapping[str, Tensor], source: str, inflate: Inflate, time: TimeStart
) -> tuple[str, list[_Part], dict[str, str]]:
    """An MViT for images has the names of that for clips, and filters of two dimensions."""
    if not any(".attn.pool_" in key for key in state):
        raise WeightsError(
            f"{source}: not an MViT for images; {model.model_name} widens and pools from block to block, so "
            "the layers of another network are of no use to it"
        )
    name, conversion = convert(state, model, source)
    own, parts = dict(model.named_parameters()), []
    unused = dict(conversion.left_out) | dict.fromkeys(conversion.unexpected, "the model has no such part")
    sources: dict[str, list[str]] = {}
    for theirs, ours in conversion.mapped.items():
        sources.setdefault(ours, []).append(theirs)
    tensors = {ours: value for ours, value in conversion.tensors.items() if ours in own}
    classifier = [ours for ours in tensors if ours.startswith(model.classifier_prefix)]
    for ours in [*classifier, *(ours for ours in conversion.tensors if ours not in own)]:
        why = "head for images" if ours in classifier else "the model has no such part"
        unused |= dict.fromkeys(sources.get(ours, []), why)
        tensors.pop(ours, None)
    shapes = {ours: value.shape for ours, value in tensors.items()}
    for ours, value in tensors.items():
        if value.ndim == 4 and own[ours].ndim == 5:
            tensors[ours] = inflated(value, own[ours].shape[2], inflate)
    model.resize_positions(tensors)
    for ours, value in tensors.items():
        if len(shapes[ours]) == 4:
            how = _inflation(value.shape[2], inflate)
        else:
            how = "copied" if value.shape == shapes[ours] else "interpolated for this clip"
        parts.append(_Part(ours, value, Origin(tuple(sources.get(ours, ())), how)))
    in_time = [ours for ours in own if ours not in tensors and ours.endswith((".relative.time", "stem.time"))]
    parts += [_time_positions(ours, own[ours], time) for ours in in_time]
    return name, parts, unused
