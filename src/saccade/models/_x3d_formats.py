"""X3D checkpoints of other code bases.

Names were read in facebookresearch/SlowFast, facebookresearch/pytorchvideo, kkahatapitiya/X3D-Multigrid and
open-mmlab/mmaction2.
"""

from __future__ import annotations

import re

import torch
from torch import nn

from saccade.models._formats import Conversion, WeightFormat


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


PYSLOWFAST = WeightFormat(
    name="PySlowFast X3D",
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
    block=re.compile(r"s(?P<stage>[2-5])\.pathway0_res(?P<index>\d+)\."),
    block_name=lambda stage, index: f"res{stage}.{index}.",
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

PYTORCHVIDEO = WeightFormat(
    name="PyTorchVideo X3D",
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
    block=re.compile(r"blocks\.(?P<stage>[1-4])\.res_blocks\.(?P<index>\d+)\."),
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

X3D_MULTIGRID = WeightFormat(
    name="X3D-Multigrid",
    marker="conv1_s.weight",
    prefixes={
        "conv1_s.": "stem.conv_s.",
        "conv1_t.": "stem.conv_t.",
        "bn1.": "stem.norm.",
        "conv5.": "head.conv.",
        "bn5.": "head.norm.",
        "fc1.": "head.hidden.",
        "fc2.": "head.classifier.",
    },
    block=re.compile(r"layer(?P<stage>[1-4])\.(?P<index>\d+)\."),
    block_name=lambda stage, index: f"res{stage + 1}.{index}.",
    parts={
        "downsample.0.": "shortcut_conv.",
        "downsample.1.": "shortcut_norm.",
        "conv1.": "conv_a.",
        "bn1.": "norm_a.",
        "conv2.": "conv_b.",
        "bn2.": "norm_b.",
        "fc1.": "se.fc1.",
        "fc2.": "se.fc2.",
        "conv3.": "conv_c.",
        "bn3.": "norm_c.",
    },
)

MMACTION2 = WeightFormat(
    name="MMAction2 X3D",
    marker="backbone.conv1_s.conv.weight",
    prefixes={
        "backbone.conv1_s.conv.": "stem.conv_s.",
        "backbone.conv1_t.conv.": "stem.conv_t.",
        "backbone.conv1_t.bn.": "stem.norm.",
        "backbone.conv5.conv.": "head.conv.",
        "backbone.conv5.bn.": "head.norm.",
        "cls_head.fc1.": "head.hidden.",
        "cls_head.fc2.": "head.classifier.",
    },
    block=re.compile(r"backbone\.layer(?P<stage>[1-4])\.(?P<index>\d+)\."),
    block_name=lambda stage, index: f"res{stage + 1}.{index}.",
    parts={
        "downsample.conv.": "shortcut_conv.",
        "downsample.bn.": "shortcut_norm.",
        "conv1.conv.": "conv_a.",
        "conv1.bn.": "norm_a.",
        "conv2.conv.": "conv_b.",
        "conv2.bn.": "norm_b.",
        "se_module.fc1.": "se.fc1.",
        "se_module.fc2.": "se.fc2.",
        "conv3.conv.": "conv_c.",
        "conv3.bn.": "norm_c.",
    },
)

X3D_FORMATS = (PYSLOWFAST, PYTORCHVIDEO, X3D_MULTIGRID, MMACTION2)
