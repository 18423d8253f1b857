"""VoV3D checkpoints of its authors. Names were read in github.com/youngwanLEE/VoV3D."""

from __future__ import annotations

from saccade.models.checkpoints.formats import CheckpointFormat, register_checkpoint_format
from saccade.models.vov3d import VoV3D


def _block_name(*, stage: int, index: int, layer: int | None = None) -> str:
    block = f"res{stage}.{index}."
    return block if layer is None else f"{block}layers.{layer}."


register_checkpoint_format(
    CheckpointFormat(
        name="VoV3D",
        models=VoV3D,
        marker="s2.pathway0_res0.branch2.layers.0.a.0.weight",
        prefixes={
            "s1.pathway0_stem.conv_xy.": "stem.conv_s.",
            "s1.pathway0_stem.conv.": "stem.conv_t.",
            "s1.pathway0_stem.bn.": "stem.norm.",
            "head.conv_5.": "head.conv.",
            "head.conv_5_bn.": "head.norm.",
            "head.lin_5.": "head.hidden.",
            "head.projection.": "head.classifier.",
        },
        block=r"s(?P<stage>[2-5])\.pathway0_res(?P<index>\d+)\.(?:branch2\.layers\.(?P<layer>\d+)\.)?",
        block_name=_block_name,
        parts={
            # of a layer
            "a.0.": "conv_a.",
            "a.1.": "norm_a.",
            "b1.": "conv_s.",
            "b2.": "conv_t.",
            "b_bn.": "norm_b.",
            "se.": "se.",
            "c.0.": "conv_c.",
            "c.1.": "norm_c.",
            # of the block around the layers
            "branch2.c.": "conv.",
            "branch2.c_bn.": "norm.",
            "branch1.": "shortcut_conv.",
            "branch1_bn.": "shortcut_norm.",
        },
    )
)
