"""TSM checkpoints of its authors and of MMAction2.

Names were read in github.com/mit-han-lab/temporal-shift-module and github.com/open-mmlab/mmaction2. Both wrap
what is shifted in a module whose child is called ``net``: the first convolution of a block, or the block.
"""

from __future__ import annotations

import re

from torch import nn

from saccade.models.checkpoints.formats import CheckpointFormat, Conversion, register_checkpoint_format
from saccade.models.checkpoints.imagenet import NUMBERED, RESNET_PARTS, mobilenet_layers, to_clips
from saccade.models.tsm import TSM, TSMMobileNet, TSMResNet

_BLOCK_SHIFTED = re.compile(r"(^|\.)layer\d\.\d+\.net\.")
_BRANCH_SHIFTED = re.compile(r"conv(1|\.0|1\.conv)\.net\.")


def _finish(result: Conversion, model: nn.Module) -> None:
    """`to_clips`, and a note if the checkpoint's shift is elsewhere than the model's."""
    to_clips(result, model)
    assert isinstance(model, TSM)
    theirs = "none"
    if any(map(_BLOCK_SHIFTED.search, result.mapped)):
        theirs = "inplace"
    elif any(map(_BRANCH_SHIFTED.search, result.mapped)):
        theirs = "residual"
    ours = model.config.shift_place if model.shifts() else "none"
    if theirs != ours:
        result.notes.append(f"trained with shift_place={theirs}, and the model has {ours}")


_RESNET_PARTS = {"conv1.net.": "conv_a.", **RESNET_PARTS}
_MMACTION_PARTS = {
    "conv1.conv.net.": "conv_a.",
    "conv1.conv.": "conv_a.",
    "conv1.bn.": "norm_a.",
    "conv2.conv.": "conv_b.",
    "conv2.bn.": "norm_b.",
    "conv3.conv.": "conv_c.",
    "conv3.bn.": "norm_c.",
    "downsample.conv.": "shortcut_conv.",
    "downsample.bn.": "shortcut_norm.",
}

register_checkpoint_format(
    CheckpointFormat(
        name="TSM",
        models=TSMResNet,
        marker=lambda state: any(re.match(r"base_model\.layer1\.0\.(net\.)?conv3\.", key) for key in state),
        prefixes={
            "base_model.conv1.": "stem.conv.",
            "base_model.bn1.": "stem.norm.",
            "base_model.fc.": "head.classifier.",
            "new_fc.": "head.classifier.",
        },
        block=r"base_model\.layer(?P<stage>[1-4])\.(?P<index>\d+)\.(?:net\.)?",
        block_name=lambda stage, index: f"res{stage + 1}.{index}.",
        parts=_RESNET_PARTS,
        finish=_finish,
    )
)
register_checkpoint_format(
    CheckpointFormat(
        name="MMAction2",
        models=TSMResNet,
        marker=lambda state: any(
            re.match(r"backbone\.layer1\.0\.(net\.)?conv3\.conv\.", key) for key in state
        ),
        prefixes={
            "backbone.conv1.conv.": "stem.conv.",
            "backbone.conv1.bn.": "stem.norm.",
            "cls_head.fc_cls.": "head.classifier.",
        },
        block=r"backbone\.layer(?P<stage>[1-4])\.(?P<index>\d+)\.(?:net\.)?",
        block_name=lambda stage, index: f"res{stage + 1}.{index}.",
        parts=_MMACTION_PARTS,
        finish=_finish,
    )
)
for _name, _prefix, _classifiers in (
    ("tonylins/pytorch-mobilenet-v2", "", ("classifier.",)),
    ("TSM", "base_model.", ("base_model.classifier.", "new_fc.")),
):
    register_checkpoint_format(
        CheckpointFormat(
            name=_name,
            models=TSMMobileNet,
            marker=f"{_prefix}features.1.conv.3.weight",
            prefixes={
                **mobilenet_layers(
                    (f"{_prefix}features.0.0.", f"{_prefix}features.0.1."),
                    f"{_prefix}features.1.conv.",
                    "0. 1. 3. 4.",
                    (f"{_prefix}features.18.0.", f"{_prefix}features.18.1."),
                ),
                **dict.fromkeys(_classifiers, "head.classifier."),
            },
            block=re.escape(_prefix) + r"features\.(?P<index>[2-9]|1[0-7])\.conv\.",
            block_name=lambda index: f"{NUMBERED}{index - 1}.",
            parts={
                "0.net.": "conv_a.",
                "0.": "conv_a.",
                "1.": "norm_a.",
                "3.": "conv_b.",
                "4.": "norm_b.",
                "6.": "conv_c.",
                "7.": "norm_c.",
            },
            finish=_finish if _prefix else to_clips,
        )
    )
register_checkpoint_format(
    CheckpointFormat(
        name="MMAction2",
        models=TSMMobileNet,
        marker="backbone.layer1.0.conv.1.conv.weight",
        prefixes={
            **mobilenet_layers(
                ("backbone.conv1.conv.", "backbone.conv1.bn."),
                "backbone.layer1.0.conv.",
                "0.conv. 0.bn. 1.conv. 1.bn.",
                ("backbone.conv2.conv.", "backbone.conv2.bn."),
            ),
            "cls_head.fc_cls.": "head.classifier.",
        },
        block=r"backbone\.layer(?P<stage>[2-7])\.(?P<index>\d+)\.conv\.",
        block_name="stage{stage}.{index}.",
        parts={
            "0.net.conv.": "conv_a.",
            "0.net.bn.": "norm_a.",
            "0.conv.": "conv_a.",
            "0.bn.": "norm_a.",
            "1.conv.": "conv_b.",
            "1.bn.": "norm_b.",
            "2.conv.": "conv_c.",
            "2.bn.": "norm_c.",
        },
        finish=_finish,
    )
)
