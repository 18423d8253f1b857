"""Building blocks that models share. Nothing here knows of a particular architecture."""

from __future__ import annotations

from saccade.layers.batch_norm import SyncBatchNorm3d, convert_sync_batchnorm
from saccade.layers.depthwise_conv import DepthwiseConv3d
from saccade.layers.drop_path import DropPath
from saccade.layers.norm_act import norm_act
from saccade.layers.rounding import round_channels
from saccade.layers.shift import AttentionShift, RubiksShift2d, RubiksShift3d
from saccade.layers.squeeze_excite import SqueezeExcite

__all__ = [
    "AttentionShift",
    "DepthwiseConv3d",
    "DropPath",
    "RubiksShift2d",
    "RubiksShift3d",
    "SqueezeExcite",
    "SyncBatchNorm3d",
    "convert_sync_batchnorm",
    "norm_act",
    "round_channels",
]
