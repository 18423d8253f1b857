"""Multiscale vision transformers small enough for a test."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from saccade.models import MaskFeat, MViT, create_model

TINY: dict[str, Any] = {
    "num_frames": 4,
    "train_crop": 32,
    "depth": 3,
    "embed_dim": 8,
    "widen_at": (1,),
    "pool_q_at": (1,),
    "kv_stride": 4,
}
EACH = ["mvit_base_16x4", "mvit_base_32x3", "mvitv2_small", "mvitv2_small_maskfeat"]


def tiny(name: str = "mvit_base_16x4", num_classes: int = 5, **overrides: Any) -> MViT:
    torch.manual_seed(0)
    model = create_model(name, num_classes, **TINY | overrides)
    assert isinstance(model, MViT)
    return model.eval()


def tiny_maskfeat(name: str = "maskfeat_mvit_base", **overrides: Any) -> MaskFeat:
    torch.manual_seed(0)
    model = create_model(name, **TINY | overrides)
    assert isinstance(model, MaskFeat)
    return model.eval()


def clips(batch: int = 2, frames: int = 4, side: int = 32) -> Tensor:
    return torch.randn(batch, 3, frames, side, side)
