"""Models: one file per architecture, the model registry, and checkpoint formats of other libraries."""

from __future__ import annotations

# isort: off
# in the order in which `list_models` gives them
from saccade.models import x3d, vov3d, rubiksnet, tsm, timesformer, vivit, mvit, maskfeat  # noqa: F401

# isort: on
from saccade.models.base import VideoModel
from saccade.models.checkpoints import (
    CheckpointFormat,
    ImageReport,
    LoadReport,
    init_from_image,
    load_model,
    load_weights,
    read_weights,
    register_checkpoint_format,
    save_weights,
)
from saccade.models.contract import memory_format
from saccade.models.counts import count_macs, count_params
from saccade.models.maskfeat import MaskFeat, MaskFeatConfig
from saccade.models.mvit import MViT
from saccade.models.mvit_config import MViTConfig
from saccade.models.pretrained import load_pretrained
from saccade.models.published import published_results
from saccade.models.registry import (
    ModelInfo,
    PretrainedWeights,
    StreamFacts,
    clip_spec,
    create_model,
    create_on_meta,
    list_models,
    model_info,
    register_model,
    stream_facts,
)
from saccade.models.rubiksnet import RubiksNet, RubiksNetConfig
from saccade.models.timesformer import TimeSformer, TimeSformerConfig
from saccade.models.tsm import TSM, TSMMobileNet, TSMResNet
from saccade.models.tsm_config import TSMMobileNetConfig, TSMResNetConfig
from saccade.models.vivit import ViViT, ViViTConfig
from saccade.models.vov3d import VoV3D, VoV3DConfig
from saccade.models.x3d import X3D, X3DConfig

__all__ = [
    "TSM",
    "X3D",
    "CheckpointFormat",
    "ImageReport",
    "LoadReport",
    "MViT",
    "MViTConfig",
    "MaskFeat",
    "MaskFeatConfig",
    "ModelInfo",
    "PretrainedWeights",
    "RubiksNet",
    "RubiksNetConfig",
    "StreamFacts",
    "TSMMobileNet",
    "TSMMobileNetConfig",
    "TSMResNet",
    "TSMResNetConfig",
    "TimeSformer",
    "TimeSformerConfig",
    "ViViT",
    "ViViTConfig",
    "VideoModel",
    "VoV3D",
    "VoV3DConfig",
    "X3DConfig",
    "clip_spec",
    "count_macs",
    "count_params",
    "create_model",
    "create_on_meta",
    "init_from_image",
    "list_models",
    "load_model",
    "load_pretrained",
    "load_weights",
    "memory_format",
    "model_info",
    "published_results",
    "read_weights",
    "register_checkpoint_format",
    "register_model",
    "save_weights",
    "stream_facts",
]
