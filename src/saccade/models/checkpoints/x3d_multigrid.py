"""X3D checkpoints of X3D-Multigrid, for Kinetics and Charades.

Names were read in github.com/kkahatapitiya/X3D-Multigrid.
"""

from __future__ import annotations

from saccade.models.checkpoints.formats import CheckpointFormat, register_checkpoint_format
from saccade.models.x3d import X3D

register_checkpoint_format(
    CheckpointFormat(
        name="X3D-Multigrid",
        models=X3D,
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
        block=r"layer(?P<stage>[1-4])\.(?P<index>\d+)\.",
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
)
