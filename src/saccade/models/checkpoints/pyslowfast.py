"""Checkpoints of PySlowFast: X3D, MViT, MViTv2 and MaskFeat.

Names were read in github.com/facebookresearch/SlowFast (slowfast/models/video_model_builder.py, masked.py).
Its MViT has older names, with three linear layers for queries, keys and values, and newer ones, with a single
layer for the three; either is read.
"""

from __future__ import annotations

import torch
from torch import nn

from saccade.models.checkpoints.formats import CheckpointFormat, Conversion, register_checkpoint_format
from saccade.models.checkpoints.maskfeat import leave_out_pretraining
from saccade.models.maskfeat import MaskFeat
from saccade.models.mvit import MViT
from saccade.models.x3d import X3D

register_checkpoint_format(
    CheckpointFormat(
        name="PySlowFast X3D",
        models=X3D,
        marker="s1.pathway0_stem.conv_xy.weight",
        prefixes={
            "s1.pathway0_stem.conv_xy.": "stem.conv_s.",
            "s1.pathway0_stem.conv.": "stem.conv_t.",
            "s1.pathway0_stem.bn.": "stem.norm.",
            "head.conv_5.": "head.conv.",
            "head.conv_5_bn.": "head.norm.",
            "head.lin_5.": "head.hidden.",
            "head.projection.": "head.classifier.",
        },
        block=r"s(?P<stage>[2-5])\.pathway0_res(?P<index>\d+)\.",
        block_name="res{stage}.{index}.",
        parts={
            "branch1.": "shortcut_conv.",
            "branch1_bn.": "shortcut_norm.",
            "branch2.a.": "conv_a.",
            "branch2.a_bn.": "norm_a.",
            "branch2.b.": "conv_b.",
            "branch2.b_bn.": "norm_b.",
            "branch2.se.": "se.",
            "branch2.c.": "conv_c.",
            "branch2.c_bn.": "norm_c.",
        },
    )
)

MVIT_PARTS = {
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


def finish_mvit(result: Conversion, model: nn.Module) -> None:
    """What MViT checkpoints of all code bases need once their keys are ours."""
    join_projections(result)
    leave_out_pretraining(result, model)


def join_projections(result: Conversion) -> None:
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


_STEM = {
    "patch_embed.proj.": "stem.patches.",
    "cls_token": "stem.cls_token",
    "mask_token": "stem.mask_token",
    "pos_embed_spatial": "stem.space",
    "pos_embed_temporal": "stem.time",
    "pos_embed_class": "stem.cls_position",
}

register_checkpoint_format(
    CheckpointFormat(
        name="PySlowFast",
        models=MViT,
        marker="patch_embed.proj.weight",
        prefixes={**_STEM, "norm.": "head.norm.", "head.projection.": "head.classifier."},
        block=r"blocks\.(?P<index>\d+)\.",
        block_name="layers.{index}.",
        parts=MVIT_PARTS,
        finish=finish_mvit,
    )
)

register_checkpoint_format(
    CheckpointFormat(
        name="PySlowFast MaskFeat",
        models=(MViT, MaskFeat),
        marker="pred_head.projections.0.weight",
        prefixes={
            **_STEM,
            "pred_head.transforms.0.0.": "head.norm.",
            "pred_head.projections.0.": "head.decoder.",
        },
        block=r"blocks\.(?P<index>\d+)\.",
        block_name="layers.{index}.",
        parts=MVIT_PARTS,
        finish=finish_mvit,
    )
)
