"""Image networks that TSM starts from: EfficientNet-Lite, MobileNetV2 and ResNet.

Names were read in EfficientNet-PyTorch (lukemelas) and its Lite version (ml-illustrated), timm, torchvision
and Hugging Face transformers.
"""

from __future__ import annotations

from torch import nn

from saccade.models.checkpoints.formats import CheckpointFormat, Conversion, register_checkpoint_format
from saccade.models.tsm import TSM, TSMMobileNet

_NUMBERED = "blocks."
"""Prefix of blocks that are counted through all stages, until `name_blocks` knows the stages."""


def name_blocks(result: Conversion, model: nn.Module) -> None:
    """Give blocks that are counted through the network the names that they have in its stages, make 2-D
    convolutions (1, k, k) ones, and keep what a shift has that other code bases do not.
    """
    assert isinstance(model, TSM)
    known = {id(module): name for name, module in model.named_modules()}
    names = [known[id(block)] for block in model.residual_blocks()]

    def renamed(key: str) -> str:
        if not key.startswith(_NUMBERED):
            return key
        number, _, rest = key.removeprefix(_NUMBERED).partition(".")
        return f"{names[int(number)]}.{rest}" if int(number) < len(names) else key

    result.tensors = {
        renamed(key): tensor.unsqueeze(2) if tensor.ndim == 4 else tensor
        for key, tensor in result.tensors.items()
    }
    result.mapped = {theirs: renamed(ours) for theirs, ours in result.mapped.items()}
    result.kept |= dict.fromkeys(model.not_averaged(), "the model's own: how far the shift is blended in")
    result.kept |= dict.fromkeys(model.lr_multipliers(), "the model's own: where the learnable shift begins")


register_checkpoint_format(
    CheckpointFormat(
        name="EfficientNet-PyTorch",
        models=TSMMobileNet,
        marker="_blocks.0._depthwise_conv.weight",
        prefixes={
            "_conv_stem.": "stem.conv.",
            "_bn0.": "stem.norm.",
            "_conv_head.": "head.conv.",
            "_bn1.": "head.norm.",
            "_fc.": "head.classifier.",
        },
        block=r"_blocks\.(?P<index>\d+)\.",
        block_name=_NUMBERED + "{index}.",
        parts={
            "_expand_conv.": "conv_a.",
            "_bn0.": "norm_a.",
            "_depthwise_conv.": "conv_b.",
            "_bn1.": "norm_b.",
            "_project_conv.": "conv_c.",
            "_bn2.": "norm_c.",
        },
        finish=name_blocks,
    )
)
