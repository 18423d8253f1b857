"""Checkpoints of PyTorchVideo: X3D and MViT.

Names were read in github.com/facebookresearch/pytorchvideo (models/x3d.py, vision_transformers.py).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import nn

from saccade.models.checkpoints.formats import CheckpointFormat, Conversion, register_checkpoint_format
from saccade.models.checkpoints.pyslowfast import MVIT_PARTS, finish_mvit
from saccade.models.mvit import MViT
from saccade.models.x3d import X3D


def _identity_shortcut_norm(result: Conversion, model: nn.Module) -> None:
    """PyTorchVideo builds no norm on the first shortcut, whose width does not change. An identity takes its
    place: batch norm divides by sqrt(var + eps), so with var = 1 its scale must be sqrt(1 + eps).
    """
    name = "res2.0.shortcut_norm"
    modules = dict(model.named_modules())
    has_conv = "res2.0.shortcut_conv.weight" in result.tensors
    if name not in modules or not has_conv or any(key.startswith(f"{name}.") for key in result.tensors):
        return
    norm = modules[name]
    assert isinstance(norm.weight, torch.Tensor)
    ones = torch.ones(norm.weight.shape, dtype=torch.float64)
    values = {
        "weight": ones * (1.0 + float(norm.eps)) ** 0.5,
        "bias": ones * 0,
        "running_mean": ones * 0,
        "running_var": ones,
        "num_batches_tracked": torch.tensor(0),
    }
    for leaf, value in values.items():
        result.tensors[f"{name}.{leaf}"] = value
        result.filled[f"{name}.{leaf}"] = "an identity: PyTorchVideo has no norm here"


register_checkpoint_format(
    CheckpointFormat(
        name="PyTorchVideo X3D",
        models=X3D,
        marker="blocks.0.conv.conv_t.weight",
        prefixes={
            "blocks.0.conv.conv_t.": "stem.conv_s.",  # the two stem names are swapped there
            "blocks.0.conv.conv_xy.": "stem.conv_t.",
            "blocks.0.norm.": "stem.norm.",
            "blocks.5.pool.pre_conv.": "head.conv.",
            "blocks.5.pool.pre_norm.": "head.norm.",
            "blocks.5.pool.post_conv.": "head.hidden.",
            "blocks.5.proj.": "head.classifier.",
        },
        block=r"blocks\.(?P<stage>[1-4])\.res_blocks\.(?P<index>\d+)\.",
        block_name=lambda stage, index: f"res{stage + 1}.{index}.",
        parts={
            "branch1_conv.": "shortcut_conv.",
            "branch1_norm.": "shortcut_norm.",
            "branch2.conv_a.": "conv_a.",
            "branch2.norm_a.": "norm_a.",
            "branch2.conv_b.": "conv_b.",
            "branch2.norm_b.0.": "norm_b.",
            "branch2.norm_b.1.block.0.": "se.fc1.",
            "branch2.norm_b.1.block.2.": "se.fc2.",
            "branch2.conv_c.": "conv_c.",
            "branch2.norm_c.": "norm_c.",
        },
        finish=_identity_shortcut_norm,
    )
)


def mvit_format(
    name: str,
    models: type,
    *,
    marker: str,
    stem: str = "",
    trunk: str = "",
    head: Mapping[str, str],
) -> CheckpointFormat:
    """PyTorchVideo's names of an MViT, behind the prefixes ``stem`` and ``trunk``."""
    positions = f"{trunk}cls_positional_encoding."
    return CheckpointFormat(
        name=name,
        models=models,
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
        block=rf"{re.escape(trunk)}blocks\.(?P<index>\d+)\.",
        block_name="layers.{index}.",
        parts=MVIT_PARTS,
        finish=finish_mvit,
    )


register_checkpoint_format(
    mvit_format(
        "PyTorchVideo",
        MViT,
        marker="cls_positional_encoding.cls_token",
        head={"head.proj.": "head.classifier."},
    )
)
