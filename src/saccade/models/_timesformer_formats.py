"""TimeSformer checkpoints, of VideoTransformer-pytorch and of the authors.

Names were read in github.com/mx-mark/VideoTransformer-pytorch and github.com/facebookresearch/TimeSformer.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from torch import nn

from saccade.models._formats import Conversion, WeightFormat

AUTHORS_EPS = 1e-6


def _attention(theirs: str, norm: str, ours: str) -> dict[str, str]:
    """An attention layer and its norm; older files have the names of PyTorch's own layer."""
    return {
        f"{theirs}.norm.": f"{norm}.",
        f"{theirs}.attn.qkv.": f"{ours}.qkv.",
        f"{theirs}.attn.proj.": f"{ours}.proj.",
        f"{theirs}.attn.in_proj_": f"{ours}.qkv.",
        f"{theirs}.attn.out_proj.": f"{ours}.proj.",
    }


_MLP = {"ffns.0.norm.": "norm2.", "ffns.0.layers.0.0.": "mlp.fc1.", "ffns.0.layers.1.": "mlp.fc2."}
_PLAIN = {**_attention("attentions.0", "norm1", "attn"), **_MLP}
_DIVIDED = {
    **_attention("attentions.0", "time_norm", "time_attn"),
    "attentions.0.temporal_fc.": "time_fc.",
    **_attention("attentions.1", "norm1", "attn"),
    **_MLP,
}


def lightning_format(
    prefix: str,
    *,
    divided: bool,
    marker: str,
    layers: str = r"transformer_layers\.layers\.(?P<index>\d+)\.",
    block_name: Callable[..., str] = "layers.{index}.".format,
    time_embed: str = "embed.time_embed",
) -> WeightFormat:
    """VideoTransformer-pytorch's names, with the ``prefix`` that PyTorch Lightning gives them, or without.

    Args:
        marker: a key behind the prefix that no other kind of attention has.
        layers: pattern of a block's names; block_name: ours, made from its numbers.
    """
    return WeightFormat(
        name="VideoTransformer-pytorch",
        marker=f"{prefix}{marker}",
        prefixes={
            f"{prefix}cls_token": "embed.cls_token",
            f"{prefix}pos_embed": "embed.pos_embed",
            f"{prefix}time_embed": time_embed,
            f"{prefix}patch_embed.projection.": "embed.patch.",
            f"{prefix}norm.": "head.norm.",
            "cls_head.cls_head.": "head.classifier.",
        },
        block=re.compile(re.escape(prefix) + layers),
        block_name=block_name,
        parts=_DIVIDED if divided else _PLAIN,
        finish=_to_tubelets,
    )


def plain_and_divided(prefix: str) -> tuple[WeightFormat, WeightFormat]:
    """The two kinds of block; where both markers are there, it is the first."""
    block = "transformer_layers.layers.0."
    return (
        lightning_format(prefix, divided=True, marker=f"{block}attentions.1.norm.weight"),
        lightning_format(prefix, divided=False, marker=f"{block}attentions.0.norm.weight"),
    )


def _to_tubelets(result: Conversion, model: nn.Module) -> None:
    """A convolution over images is one over clips that are one frame long."""
    patch = result.tensors.get("embed.patch.weight")
    if patch is not None and patch.ndim == 4:
        result.tensors["embed.patch.weight"] = patch.unsqueeze(2)


def _finish_authors(result: Conversion, model: nn.Module) -> None:
    _to_tubelets(result, model)
    eps = getattr(getattr(model, "config", None), "norm_eps", AUTHORS_EPS)
    if eps != AUTHORS_EPS:
        result.notes.append(
            f"the authors' network has norm_eps={AUTHORS_EPS:g} and this model {eps:g}: "
            f"build it with norm_eps={AUTHORS_EPS:g} to have the same logits"
        )


AUTHORS = WeightFormat(
    name="TimeSformer's authors",
    marker="blocks.0.attn.qkv.weight",
    prefixes={
        "cls_token": "embed.cls_token",
        "pos_embed": "embed.pos_embed",
        "time_embed": "embed.time_embed",
        "patch_embed.proj.": "embed.patch.",
        "norm.": "head.norm.",
        "head.": "head.classifier.",
    },
    block=re.compile(r"blocks\.(?P<index>\d+)\."),
    block_name="layers.{index}.".format,
    parts={
        "temporal_norm1.": "time_norm.",
        "temporal_attn.": "time_attn.",
        "temporal_fc.": "time_fc.",
        **{name: name for name in ("norm1.", "attn.", "norm2.", "mlp.fc1.", "mlp.fc2.")},
    },
    finish=_finish_authors,
)

TIMESFORMER_FORMATS = (*plain_and_divided("model."), *plain_and_divided(""), AUTHORS)
