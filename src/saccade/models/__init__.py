"""Models: one file per architecture, a table of names, and loading of weights."""

from __future__ import annotations

from saccade.models._base import VideoModel, memory_format
from saccade.models._image_weights import ImageReport, init_from_image
from saccade.models._info import ModelInfo
from saccade.models._registry import clip_spec, create_model, list_models, model_info
from saccade.models._weights import LoadReport, load_model, load_weights, read_weights, save_weights
from saccade.models.counts import count_macs, count_params
from saccade.models.maskfeat import MaskFeat, MaskFeatConfig
from saccade.models.mvit import MViT, MViTConfig
from saccade.models.rubiksnet import RubiksNet, RubiksNetConfig
from saccade.models.timesformer import TimeSformer, TimeSformerConfig
from saccade.models.vivit import ViViT, ViViTConfig
from saccade.models.vov3d import VoV3D, VoV3DConfig
from saccade.models.x3d import X3D, X3DConfig

__all__ = [
    "X3D",
    "ImageReport",
    "LoadReport",
    "MViT",
    "MViTConfig",
    "MaskFeat",
    "MaskFeatConfig",
    "ModelInfo",
    "RubiksNet",
    "RubiksNetConfig",
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
    "init_from_image",
    "list_models",
    "load_model",
    "load_weights",
    "memory_format",
    "model_info",
    "read_weights",
    "save_weights",
]
