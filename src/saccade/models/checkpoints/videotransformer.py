"""Checkpoints of VideoTransformer-pytorch: TimeSformer, ViViT, MViT and MaskFeat.

Names were read in github.com/mx-mark/VideoTransformer-pytorch (video_transformer.py). PyTorch Lightning puts
``model.`` before them; `unwrap` takes that off where all names have it: where there is no classifier.
"""

from __future__ import annotations

import re

from torch import nn

from saccade.models.checkpoints.formats import CheckpointFormat, Conversion, register_checkpoint_format
from saccade.models.checkpoints.pytorchvideo import mvit_format
from saccade.models.maskfeat import MaskFeat
from saccade.models.mvit import MViT
from saccade.models.timesformer import TimeSformer
from saccade.models.vivit import ViViT


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


def _encoder_name(*, encoder: int, index: int) -> str:
    """A block of the factorised encoder: of that in space (0) or in time (1)."""
    return f"{('layers', 'time_layers')[encoder]}.{index}."


def to_tubelets(result: Conversion, model: nn.Module) -> None:
    """A convolution over images is one over clips that are one frame long."""
    patch = result.tensors.get("embed.patch.weight")
    if patch is not None and patch.ndim == 4:
        result.tensors["embed.patch.weight"] = patch.unsqueeze(2)


def _register_transformers(prefix: str) -> None:
    """The formats of TimeSformer and ViViT behind Lightning's prefix."""
    layers = "transformer_layers.layers.0."
    one_encoder = (r"transformer_layers\.layers\.(?P<index>\d+)\.", "layers.{index}.", "embed.time_embed")
    two_encoders = (
        r"transformer_layers\.(?P<encoder>[01])\.layers\.(?P<index>\d+)\.",
        _encoder_name,
        "to_time.time_embed",
    )
    # the divided one, registered last, is tried first: it has the plain one's marker too
    for models, marker, parts, (block, block_name, time_embed) in (
        ((TimeSformer, ViViT), f"{layers}attentions.0.norm.weight", _PLAIN, one_encoder),
        ((TimeSformer, ViViT), f"{layers}attentions.1.norm.weight", _DIVIDED, one_encoder),
        ((ViViT,), "transformer_layers.0.layers.0.attentions.0.norm.weight", _PLAIN, two_encoders),
    ):
        register_checkpoint_format(
            CheckpointFormat(
                name="VideoTransformer-pytorch",
                models=models,
                marker=f"{prefix}{marker}",
                prefixes={
                    f"{prefix}cls_token": "embed.cls_token",
                    f"{prefix}pos_embed": "embed.pos_embed",
                    f"{prefix}time_embed": time_embed,
                    f"{prefix}patch_embed.projection.": "embed.patch.",
                    f"{prefix}norm.": "head.norm.",
                    "cls_head.cls_head.": "head.classifier.",
                },
                block=re.escape(prefix) + block,
                block_name=block_name,
                parts=parts,
                finish=to_tubelets,
            )
        )


def _register_mvit(prefix: str) -> None:
    """The formats of MViT and MaskFeat. A MaskFeat is given the classifier as a tensor that does not fit."""
    for model, classifier in ((MViT, "head.classifier."), (MaskFeat, "classifier.")):
        register_checkpoint_format(
            mvit_format(
                "VideoTransformer-pytorch",
                model,
                marker=f"{prefix}mvit.norm_embed.weight",
                stem=prefix,
                trunk=f"{prefix}mvit.",
                head={
                    f"{prefix}mask_token": "stem.mask_token",
                    f"{prefix}decoder_pred.": "head.decoder.",
                    "cls_head.cls_head.": classifier,
                },
            )
        )


for _prefix in ("", "model."):
    _register_transformers(_prefix)
    _register_mvit(_prefix)
