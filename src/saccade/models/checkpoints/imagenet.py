"""Image networks that TSM starts from: EfficientNet-Lite, MobileNetV2 and ResNet.

Names were read in EfficientNet-PyTorch (lukemelas) and its Lite version (ml-illustrated), timm, torchvision,
tonylins/pytorch-mobilenet-v2 and Hugging Face transformers.
"""

from __future__ import annotations

from torch import nn

from saccade.models.checkpoints.formats import CheckpointFormat, Conversion, register_checkpoint_format
from saccade.models.tsm import TSM, TSMMobileNet, TSMResNet

NUMBERED = "blocks."
"""Prefix of blocks that are counted through all stages, until `to_clips` knows the stages."""


def to_clips(result: Conversion, model: nn.Module) -> None:
    """Give blocks that are counted through the network the names that they have in its stages, make 2-D
    convolutions (1, k, k) ones, and keep what a shift has that other code bases do not.
    """
    assert isinstance(model, TSM)
    known = {id(module): name for name, module in model.named_modules()}
    names = [known[id(block)] for block in model.residual_blocks()]

    def renamed(key: str) -> str:
        number, _, rest = key.removeprefix(NUMBERED).partition(".")
        if not key.startswith(NUMBERED) or int(number) >= len(names):
            return key
        return f"{names[int(number)]}.{rest}"

    result.tensors = {
        renamed(key): tensor.unsqueeze(2) if tensor.ndim == 4 else tensor
        for key, tensor in result.tensors.items()
    }
    result.mapped = {theirs: renamed(ours) for theirs, ours in result.mapped.items()}
    result.kept |= dict.fromkeys(model.not_averaged(), "the model's own: how far the shift is blended in")
    result.kept |= dict.fromkeys(model.lr_multipliers(), "the model's own: where the learnable shift begins")


# ------------------------------------------------------------------------ MobileNetV2 and EfficientNet-Lite


def _parts(first: str, depthwise: str, last: str) -> dict[str, str]:
    """Parts of an inverted residual block; each argument: names of a convolution and its norm."""
    theirs = (*first.split(), *depthwise.split(), *last.split())
    ours = ("conv_a.", "norm_a.", "conv_b.", "norm_b.", "conv_c.", "norm_c.")
    return dict(zip(theirs, ours, strict=True))


def mobilenet_layers(
    stem: tuple[str, str], narrow: str, narrow_parts: str, last: tuple[str, str]
) -> dict[str, str]:
    """Names of the stem, of the first block, which does not widen, and of the last layer -> ours.

    Args:
        stem, last: a convolution and its norm.
        narrow: prefix of the first block; narrow_parts: its two convolutions, each with its norm.
    """
    block = zip(narrow_parts.split(), ("conv_b.", "norm_b.", "conv_c.", "norm_c."), strict=True)
    ours = ("stem.conv.", "stem.norm.", "head.conv.", "head.norm.")
    return {f"{narrow}{theirs}": f"stage1.0.{part}" for theirs, part in block} | dict(
        zip((*stem, *last), ours, strict=True)
    )


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
        block_name=NUMBERED + "{index}.",
        parts=_parts("_expand_conv. _bn0.", "_depthwise_conv. _bn1.", "_project_conv. _bn2."),
        finish=to_clips,
    )
)
register_checkpoint_format(
    CheckpointFormat(
        name="timm",
        models=TSMMobileNet,
        marker="blocks.0.0.conv_dw.weight",
        prefixes={
            **mobilenet_layers(
                ("conv_stem.", "bn1."),
                "blocks.0.0.",
                "conv_dw. bn1. conv_pw. bn2.",
                ("conv_head.", "bn2."),
            ),
            "classifier.": "head.classifier.",
        },
        block=r"blocks\.(?P<stage>[1-6])\.(?P<index>\d+)\.",
        block_name=lambda stage, index: f"stage{stage + 1}.{index}.",
        parts=_parts("conv_pw. bn1.", "conv_dw. bn2.", "conv_pwl. bn3."),
        finish=to_clips,
    )
)
register_checkpoint_format(
    CheckpointFormat(
        name="torchvision",
        models=TSMMobileNet,
        marker="features.1.conv.0.0.weight",
        prefixes={
            **mobilenet_layers(
                ("features.0.0.", "features.0.1."),
                "features.1.conv.",
                "0.0. 0.1. 1. 2.",
                ("features.18.0.", "features.18.1."),
            ),
            "classifier.1.": "head.classifier.",
        },
        block=r"features\.(?P<index>[2-9]|1[0-7])\.conv\.",
        block_name=lambda index: f"{NUMBERED}{index - 1}.",
        parts=_parts("0.0. 0.1.", "1.0. 1.1.", "2. 3."),
        finish=to_clips,
    )
)
register_checkpoint_format(
    CheckpointFormat(
        name="Hugging Face",
        models=TSMMobileNet,
        marker="conv_stem.first_conv.convolution.weight",
        prefixes={
            **mobilenet_layers(
                ("conv_stem.first_conv.convolution.", "conv_stem.first_conv.normalization."),
                "conv_stem.",
                "conv_3x3.convolution. conv_3x3.normalization. "
                "reduce_1x1.convolution. reduce_1x1.normalization.",
                ("conv_1x1.convolution.", "conv_1x1.normalization."),
            ),
            "classifier.": "head.classifier.",
        },
        block=r"layer\.(?P<index>\d+)\.",
        block_name=lambda index: f"{NUMBERED}{index + 1}.",
        parts=_parts(
            "expand_1x1.convolution. expand_1x1.normalization.",
            "conv_3x3.convolution. conv_3x3.normalization.",
            "reduce_1x1.convolution. reduce_1x1.normalization.",
        ),
        finish=to_clips,
    )
)

# ------------------------------------------------------------------------------------------------- ResNet

RESNET_PARTS = {
    "conv1.": "conv_a.",
    "bn1.": "norm_a.",
    "conv2.": "conv_b.",
    "bn2.": "norm_b.",
    "conv3.": "conv_c.",
    "bn3.": "norm_c.",
    "downsample.0.": "shortcut_conv.",
    "downsample.1.": "shortcut_norm.",
}
"""Layers of a block as torchvision names them, and as `saccade.models.tsm` does."""

register_checkpoint_format(
    CheckpointFormat(
        name="torchvision or timm",
        models=TSMResNet,
        marker="layer1.0.conv3.weight",
        prefixes={"conv1.": "stem.conv.", "bn1.": "stem.norm.", "fc.": "head.classifier."},
        block=r"layer(?P<stage>[1-4])\.(?P<index>\d+)\.",
        block_name=lambda stage, index: f"res{stage + 1}.{index}.",
        parts=RESNET_PARTS,
        finish=to_clips,
    )
)
register_checkpoint_format(
    CheckpointFormat(
        name="Hugging Face",
        models=TSMResNet,
        marker="encoder.stages.0.layers.0.layer.2.convolution.weight",
        prefixes={
            "embedder.embedder.convolution.": "stem.conv.",
            "embedder.embedder.normalization.": "stem.norm.",
            "classifier.1.": "head.classifier.",
        },
        block=r"encoder\.stages\.(?P<stage>[0-3])\.layers\.(?P<index>\d+)\.",
        block_name=lambda stage, index: f"res{stage + 2}.{index}.",
        parts={
            "layer.0.convolution.": "conv_a.",
            "layer.0.normalization.": "norm_a.",
            "layer.1.convolution.": "conv_b.",
            "layer.1.normalization.": "norm_b.",
            "layer.2.convolution.": "conv_c.",
            "layer.2.normalization.": "norm_c.",
            "shortcut.convolution.": "shortcut_conv.",
            "shortcut.normalization.": "shortcut_norm.",
        },
        finish=to_clips,
    )
)
