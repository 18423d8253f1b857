"""Building blocks shared by the models; none belongs to one architecture."""

from __future__ import annotations

from saccade.layers.attention import Attention, RecordableAttention, record_attention
from saccade.layers.batch_norm import SyncBatchNorm3d, convert_sync_batchnorm
from saccade.layers.checkpointing import checkpoint_activations
from saccade.layers.depthwise_conv import DepthwiseConv3d
from saccade.layers.drop_path import DropPath
from saccade.layers.frame_conv import FrameConv3d
from saccade.layers.norm_act import norm_act
from saccade.layers.pointwise_conv import PointwiseConv3d
from saccade.layers.rounding import round_channels
from saccade.layers.shift import AttentionShift, RubiksShift2d, RubiksShift3d
from saccade.layers.squeeze_excite import SqueezeExcite
from saccade.layers.sub_batch_norm import (
    SubBatchNorm3d,
    load_split_statistics,
    split_batch_norm,
    split_statistics,
)
from saccade.layers.temporal_shift import LearnableTemporalShift, TemporalShift

__all__ = [
    "Attention",
    "AttentionShift",
    "DepthwiseConv3d",
    "DropPath",
    "FrameConv3d",
    "LearnableTemporalShift",
    "PointwiseConv3d",
    "RecordableAttention",
    "RubiksShift2d",
    "RubiksShift3d",
    "SqueezeExcite",
    "SubBatchNorm3d",
    "SyncBatchNorm3d",
    "TemporalShift",
    "checkpoint_activations",
    "convert_sync_batchnorm",
    "load_split_statistics",
    "norm_act",
    "record_attention",
    "round_channels",
    "split_batch_norm",
    "split_statistics",
]
