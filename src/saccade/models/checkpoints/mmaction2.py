"""X3D checkpoints of MMAction2. Names were read in github.com/open-mmlab/mmaction2."""

from __future__ import annotations

from saccade.models.checkpoints.formats import CheckpointFormat, register_checkpoint_format
from saccade.models.x3d import X3D

register_checkpoint_format(
    CheckpointFormat(
        name="MMAction2 X3D",
        models=X3D,
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
        block=r"backbone\.layer(?P<stage>[1-4])\.(?P<index>\d+)\.",
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
)
