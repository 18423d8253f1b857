"""MViT and MaskFeat checkpoints of PySlowFast, PyTorchVideo, VideoTransformer-pytorch and of our own.

Names were read in github.com/facebookresearch/SlowFast (slowfast/models/video_model_builder.py, masked.py),
github.com/facebookresearch/pytorchvideo (models/vision_transformers.py) and
github.com/mx-mark/VideoTransformer-pytorch (video_transformer.py). Older PySlowFast and PyTorchVideo have
three linear layers where newer have one for queries, keys and values; either way is read.
"""

from __future__ import annotations

import re

import torch
from torch import nn

from saccade.models._formats import Conversion, WeightFormat

_PARTS = {
    "norm1.": "norm1.",
    "norm2.": "norm2.",
    "attn.q.": "attn.q.",
    "attn.k.": "attn.k.",
    "attn.v.": "attn.v.",
    "attn.qkv.": "attn.qkv.",
    "attn.proj.": "attn.proj.",
    "attn.pool_q.": "attn.pool_q.conv.",
    "attn.pool_k.": "attn.pool_k.conv.",
    "attn.pool_v.": "attn.pool_v.conv.",
    "attn.norm_q.": "attn.pool_q.norm.",
    "attn.norm_k.": "attn.pool_k.norm.",
    "attn.norm_v.": "attn.pool_v.norm.",
    "attn.rel_pos_t": "attn.relative.time",
    "attn.rel_pos_h": "attn.relative.height",
    "attn.rel_pos_w": "attn.relative.width",
    "mlp.fc1.": "mlp.0.",
    "mlp.fc2.": "mlp.2.",
    "proj.": "widen.",
}
_OF_PRETRAINING = ("stem.mask_token", "head.decoder.")


def _block_name(*, index: int) -> str:
    return f"layers.{index}."


def _finish(result: Conversion, model: nn.Module) -> None:
    _join_projections(result)
    _leave_out_pretraining(result, model)


def _join_projections(result: Conversion) -> None:
    """Put linear layers of queries, keys and values on top of each other."""
    for first in [name for name in result.tensors if ".attn.q." in name]:
        names = [first.replace(".attn.q.", f".attn.{part}.") for part in "qkv"]
        if not all(name in result.tensors for name in names):
            continue
        joined = first.replace(".attn.q.", ".attn.qkv.")
        result.tensors[joined] = torch.cat([result.tensors.pop(name) for name in names])
        for theirs, ours in result.mapped.items():
            if ours in names:
                result.mapped[theirs] = joined


def _leave_out_pretraining(result: Conversion, model: nn.Module) -> None:
    """Of a checkpoint of MaskFeat, leave out what a model with classes does not have."""
    for key in [key for key in result.unexpected if key.startswith("hogs.")]:
        result.unexpected.remove(key)
        result.left_out[key] = "constant filters of the targets"
    target = model.state_dict()
    masked = [name for name in result.tensors if name.startswith(_OF_PRETRAINING) and name not in target]
    if not masked:
        return
    reasons = dict.fromkeys(masked, "mask token and decoder are of pre-training")
    if getattr(getattr(model, "head", None), "readout", None) == "mean":
        # it was learned for every token; here it stands behind their mean, and PySlowFast starts it anew too
        norm = [name for name in target if name.startswith("head.norm.")]
        reasons |= dict.fromkeys(norm, "the norm was learned for tokens, not for their mean")
        result.kept |= dict.fromkeys(norm, "kept: new behind the mean of the tokens")
    for theirs, ours in list(result.mapped.items()):
        if ours in reasons:
            del result.mapped[theirs]
            del result.tensors[ours]
            result.left_out[theirs] = reasons[ours]
    note = "pre-trained by MaskFeat; mask token and decoder are left out"
    new = [name for name in target if name.startswith("head.classifier.") and name not in result.tensors]
    result.kept |= dict.fromkeys(new, "kept: pre-training has no classifier")
    result.notes.append(f"{note}, the classifier is new" if new else note)


def _pyslowfast(name: str, marker: str, head: dict[str, str]) -> WeightFormat:
    return WeightFormat(
        name=name,
        marker=marker,
        prefixes={
            "patch_embed.proj.": "stem.patches.",
            "cls_token": "stem.cls_token",
            "mask_token": "stem.mask_token",
            "pos_embed_spatial": "stem.space",
            "pos_embed_temporal": "stem.time",
            "pos_embed_class": "stem.cls_position",
            **head,
        },
        block=re.compile(r"blocks\.(?P<index>\d+)\."),
        block_name=_block_name,
        parts=_PARTS,
        finish=_finish,
    )


def _pytorchvideo(name: str, marker: str, *, stem: str, trunk: str, head: dict[str, str]) -> WeightFormat:
    positions = f"{trunk}cls_positional_encoding."
    return WeightFormat(
        name=name,
        marker=marker,
        prefixes={
            f"{stem}patch_embed.patch_model.": "stem.patches.",
            f"{positions}cls_token": "stem.cls_token",
            f"{positions}pos_embed_spatial": "stem.space",
            f"{positions}pos_embed_temporal": "stem.time",
            f"{positions}pos_embed_class": "stem.cls_position",
            f"{trunk}norm_embed.": "head.norm.",
            **head,
        },
        block=re.compile(rf"{re.escape(trunk)}blocks\.(?P<index>\d+)\."),
        block_name=_block_name,
        parts=_PARTS,
        finish=_finish,
    )


def _video_transformer(prefix: str, *, classifier: str) -> WeightFormat:
    """``prefix`` is Lightning's, which `unwrap` takes off where all names have it: where there is no
    classifier.

    ``classifier`` is where that goes; a model without classes is given it as a tensor that does not fit.
    """
    return _pytorchvideo(
        "VideoTransformer-pytorch",
        f"{prefix}mvit.norm_embed.weight",
        stem=prefix,
        trunk=f"{prefix}mvit.",
        head={
            f"{prefix}mask_token": "stem.mask_token",
            f"{prefix}decoder_pred.": "head.decoder.",
            "cls_head.cls_head.": classifier,
        },
    )


_PYSLOWFAST_MASKFEAT = _pyslowfast(
    "PySlowFast MaskFeat",
    "pred_head.projections.0.weight",
    {"pred_head.transforms.0.0.": "head.norm.", "pred_head.projections.0.": "head.decoder."},
)
_PYSLOWFAST = _pyslowfast(
    "PySlowFast", "patch_embed.proj.weight", {"norm.": "head.norm.", "head.projection.": "head.classifier."}
)
_PYTORCHVIDEO = _pytorchvideo(
    "PyTorchVideo",
    "cls_positional_encoding.cls_token",
    stem="",
    trunk="",
    head={"head.proj.": "head.classifier."},
)
_OUR_MASKFEAT = WeightFormat(
    name="Saccade MaskFeat",
    marker="head.decoder.weight",
    prefixes={"": ""},
    block=re.compile(r"(?!)"),
    block_name=_block_name,
    parts={},
    finish=_finish,
)

MVIT_FORMATS = (
    _PYSLOWFAST_MASKFEAT,
    _PYSLOWFAST,
    _video_transformer("model.", classifier="head.classifier."),
    _video_transformer("", classifier="head.classifier."),
    _PYTORCHVIDEO,
    _OUR_MASKFEAT,
)
MASKFEAT_FORMATS = (
    _PYSLOWFAST_MASKFEAT,
    _video_transformer("model.", classifier="classifier."),
    _video_transformer("", classifier="classifier."),
)
