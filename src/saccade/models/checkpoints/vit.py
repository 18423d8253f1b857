"""Checkpoints of vision transformers for images, brought to one set of names.

The names are those of timm's VisionTransformer: ``patch_embed.weight``, ``cls_token``, ``pos_embed``,
``blocks.N.{norm1,attn.qkv,attn.proj,norm2,mlp.fc1,mlp.fc2}``, ``norm``. Theirs were read in timm, in Hugging
Face transformers (ViT, DeiT, ViT-MAE), in facebookresearch/mae, pengzhiliang/MAE-pytorch, MMClassification
and VideoTransformer-pytorch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from saccade.errors import WeightsError
from saccade.models.checkpoints.content import listed, prefixes_of, without_prefix
from saccade.models.checkpoints.formats import CheckpointFormat, formats_of, register_checkpoint_format

_NORM_LEAVES = ("weight", "bias")
BLOCK_PARTS = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")


@dataclass(frozen=True)
class Piece:
    """A tensor of the image network, the names it has in the file, and what was done to it ("": nothing)."""

    tensor: Tensor
    sources: tuple[str, ...]
    how: str = ""


@dataclass
class ImageWeights:
    """A vision transformer for images.

    Attributes:
        format: the code base its names are from.
        pieces: timm's name -> tensor.
        unused: names in the file -> why they are not among the pieces.
    """

    format: str
    pieces: dict[str, Piece] = field(default_factory=dict)
    unused: dict[str, str] = field(default_factory=dict)

    @property
    def width(self) -> int:
        """Channels of a token."""
        return int(self.pieces["patch_embed.weight"].tensor.shape[0])

    @property
    def depth(self) -> int:
        """Number of blocks."""
        return 1 + max(int(name.split(".")[1]) for name in self.pieces if name.startswith("blocks."))

    @property
    def patch(self) -> tuple[int, int]:
        """Height and width of a patch in pixels."""
        height, width = self.pieces["patch_embed.weight"].tensor.shape[-2:]
        return int(height), int(width)


_DECODER = "decoder of the pre-training"
_TIMM_PARTS = {
    "norm1.": "norm1.",
    "attn.qkv.": "attn.qkv.",
    "attn.q_bias": "attn.q.bias",
    "attn.v_bias": "attn.v.bias",
    "attn.proj.": "attn.proj.",
    "norm2.": "norm2.",
    "mlp.fc1.": "mlp.fc1.",
    "mlp.fc2.": "mlp.fc2.",
    "ls1.gamma": "ls1",
    "ls2.gamma": "ls2",
    "gamma_1": "ls1",
    "gamma_2": "ls2",
}
_HUGGING_FACE = ("encoder.layer", "layers")  # the second since transformers 5

for _format in (
    CheckpointFormat(
        name="timm",
        models=ImageWeights,
        marker="blocks.0.attn.qkv.weight",
        prefixes={
            "patch_embed.proj.": "patch_embed.",
            "cls_token": "cls_token",
            "dist_token": "dist_token",
            "pos_embed": "pos_embed",
            "norm.": "norm.",
        },
        block=r"blocks\.(?P<index>\d+)\.",
        block_name="blocks.{index}.",
        parts=_TIMM_PARTS,
        ignored={
            r"decoder|mask_token": _DECODER,
            r"head(_dist)?\.|pre_logits\.|fc_norm\.": "head for images",
        },
    ),
    CheckpointFormat(
        name="MMClassification, VideoTransformer-pytorch",
        models=ImageWeights,
        marker="transformer_layers.layers.0.ffns.0.layers.0.0.weight",
        prefixes={
            "patch_embed.projection.": "patch_embed.",
            "cls_token": "cls_token",
            "pos_embed": "pos_embed",
            "norm.": "norm.",
        },
        block=r"transformer_layers\.layers\.(?P<index>\d+)\.",
        block_name="blocks.{index}.",
        parts={
            "norms.0.": "norm1.",
            "attentions.0.norm.": "norm1.",
            "attentions.0.attn.in_proj_": "attn.qkv.",
            "attentions.0.attn.qkv.": "attn.qkv.",
            "attentions.0.attn.out_proj.": "attn.proj.",
            "attentions.0.attn.proj.": "attn.proj.",
            "norms.1.": "norm2.",
            "ffns.0.norm.": "norm2.",
            "ffns.0.layers.0.0.": "mlp.fc1.",
            "ffns.0.layers.1.": "mlp.fc2.",
        },
        ignored={r"(cls_)?head\.": "head for images"},
    ),
    CheckpointFormat(
        name="Hugging Face",
        models=ImageWeights,
        marker=lambda state: any(f"{layers}.0.layernorm_before.weight" in state for layers in _HUGGING_FACE),
        prefixes={
            "embeddings.patch_embeddings.projection.": "patch_embed.",
            "embeddings.cls_token": "cls_token",
            "embeddings.distillation_token": "dist_token",
            "embeddings.position_embeddings": "pos_embed",
            "layernorm.": "norm.",
        },
        block=r"(?:encoder\.layer|layers)\.(?P<index>\d+)\.",
        block_name="blocks.{index}.",
        parts={
            "layernorm_before.": "norm1.",
            "attention.attention.query.": "attn.q.",
            "attention.attention.key.": "attn.k.",
            "attention.attention.value.": "attn.v.",
            "attention.q_proj.": "attn.q.",
            "attention.k_proj.": "attn.k.",
            "attention.v_proj.": "attn.v.",
            "attention.output.dense.": "attn.proj.",
            "attention.o_proj.": "attn.proj.",
            "layernorm_after.": "norm2.",
            "intermediate.dense.": "mlp.fc1.",
            "output.dense.": "mlp.fc2.",
            "mlp.": "mlp.",
        },
        ignored={
            r"decoder\.": _DECODER,
            r"embeddings\.mask_token": _DECODER,
            r"pooler\.": "head for images",
            r"(cls_|distillation_)?classifier\.": "head for images",
        },
    ),
    CheckpointFormat(
        name="MAE-pytorch",
        models=ImageWeights,
        marker="encoder.blocks.0.norm1.weight",
        prefixes={
            "encoder.patch_embed.proj.": "patch_embed.",
            "encoder.cls_token": "cls_token",
            "encoder.pos_embed": "pos_embed",
            "encoder.norm.": "norm.",
        },
        block=r"encoder\.blocks\.(?P<index>\d+)\.",
        block_name="blocks.{index}.",
        parts=_TIMM_PARTS,
        ignored={r"decoder\.|encoder_to_decoder\.|mask_token": _DECODER},
    ),
):
    register_checkpoint_format(_format)


def read_image_weights(state: Mapping[str, Tensor], source: str) -> ImageWeights:
    """Recognise a vision transformer for images by its keys.

    Raises:
        WeightsError: it is none, or tensors of it are missing.
    """
    formats = formats_of(ImageWeights)
    for prefix in prefixes_of(state):
        keys = without_prefix(state, prefix)
        plain = {name: state[key] for name, key in keys.items()}
        for candidate in formats:
            if candidate.recognises(plain):
                result = _collect(candidate, plain, keys)
                _check_complete(result, source)
                return result
    known = ", ".join(candidate.name for candidate in formats)
    raise WeightsError(
        f"{source}: not the weights of a vision transformer for images in the names of {known}; "
        f"its keys are like {listed(state)}"
    )


def _collect(form: CheckpointFormat, state: Mapping[str, Tensor], keys: Mapping[str, str]) -> ImageWeights:
    conversion, result = form.convert(state), ImageWeights(form.name)
    unused = dict.fromkeys(conversion.unexpected, "of no use to a network for clips") | conversion.left_out
    result.unused = {keys[name]: unused[name] for name in state if name in unused}
    result.pieces = {
        ours: Piece(conversion.tensors[ours], (keys[name],)) for name, ours in conversion.mapped.items()
    }
    for block in sorted({name.rsplit(".attn", 1)[0] for name in result.pieces if ".attn" in name}):
        _join_qkv(result.pieces, block)
        for scale, layer in (("ls1", "attn.proj"), ("ls2", "mlp.fc2")):
            _fold_scale(result.pieces, f"{block}.{scale}", f"{block}.{layer}")
    _drop_distillation(result)
    return result


def _join_qkv(pieces: dict[str, Piece], block: str) -> None:
    """Queries, keys and values one below the other; a bias that one of them lacks is 0."""
    for leaf in _NORM_LEAVES:
        names = [f"{block}.attn.{part}.{leaf}" for part in "qkv"]
        found = {name: pieces.pop(name) for name in names if name in pieces}
        if not found:
            continue
        like = next(iter(found.values())).tensor
        rows = [found[name].tensor if name in found else torch.zeros_like(like) for name in names]
        absent = [name.split(".")[-2] for name in names if name not in found]
        how = "q, k and v joined" + (f"; {' and '.join(absent)} 0: the file has none" if absent else "")
        sources = tuple(source for piece in found.values() for source in piece.sources)
        pieces[f"{block}.attn.qkv.{leaf}"] = Piece(torch.cat(rows), sources, how)


def _fold_scale(pieces: dict[str, Piece], scale: str, layer: str) -> None:
    """Layer scale is part of the linear layer before it: the product is the same."""
    factor = pieces.pop(scale, None)
    if factor is None:
        return
    for leaf in _NORM_LEAVES:
        piece = pieces.get(f"{layer}.{leaf}")
        if piece is None:
            continue
        shape = (-1, *(1,) * (piece.tensor.ndim - 1))
        scaled = piece.tensor * factor.tensor.reshape(shape)
        pieces[f"{layer}.{leaf}"] = Piece(scaled, (*piece.sources, *factor.sources), "layer scale in it")


def _drop_distillation(result: ImageWeights) -> None:
    """DeiT's second class token, and its position, are not used."""
    token, positions = result.pieces.pop("dist_token", None), result.pieces.get("pos_embed")
    if token is None:
        return
    result.unused |= dict.fromkeys(token.sources, "distillation token")
    if positions is not None:
        kept = torch.cat((positions.tensor[:, :1], positions.tensor[:, 2:]), 1)
        result.pieces["pos_embed"] = Piece(kept, positions.sources, "without the distillation token's row")


def _check_complete(result: ImageWeights, source: str) -> None:
    """Every block has every part."""
    if "patch_embed.weight" not in result.pieces:
        raise WeightsError(f"{source}: {result.format} names, but no patch embedding")
    if result.pieces["patch_embed.weight"].tensor.ndim != 4:
        raise WeightsError(
            f"{source}: its patch embedding is no convolution over images but of shape "
            f"{tuple(result.pieces['patch_embed.weight'].tensor.shape)}; weights of a video model are for "
            "model.weights"
        )
    wanted = [f"blocks.{i}.{part}.weight" for i in range(result.depth) for part in BLOCK_PARTS]
    missing = [name for name in wanted if name not in result.pieces]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise WeightsError(
            f"{source}: {result.format} names, but tensors are missing (in timm's names): "
            f"{', '.join(missing[:3])}{more}"
        )
