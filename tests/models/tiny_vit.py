"""A small vision transformer for images, in plain operations and in the names of several code bases."""

from __future__ import annotations

import re

import torch
import torch.nn.functional as F
from torch import Tensor

WIDTH, DEPTH, HEADS, PATCH, SIDE = 12, 3, 2, 4, 16
BLOCK_EPS, LAST_EPS = 1e-5, 1e-6
SHAPE = {"width": WIDTH, "depth": DEPTH, "num_heads": HEADS, "patch": PATCH, "train_crop": SIDE}

State = dict[str, Tensor]


def timm_state(
    *, width: int = WIDTH, depth: int = DEPTH, patch: int = PATCH, hidden: int = 4 * WIDTH
) -> State:
    """Random weights under timm's names, of a size at which a mistake shows."""
    random = torch.Generator().manual_seed(width + depth + patch)

    def draw(*shape: int, scale: float = 0.5, around: float = 0.0) -> Tensor:
        return around + scale * torch.randn(*shape, generator=random)

    state = {
        "cls_token": draw(1, 1, width),
        "pos_embed": draw(1, 1 + (SIDE // patch) ** 2, width),
        "patch_embed.proj.weight": draw(width, 3, patch, patch, scale=0.2),
        "patch_embed.proj.bias": draw(width),
    }
    for i in range(depth):
        for norm in ("norm1", "norm2"):
            state[f"blocks.{i}.{norm}.weight"] = draw(width, scale=0.2, around=1.0)
            state[f"blocks.{i}.{norm}.bias"] = draw(width, scale=0.2)
        for name, rows, columns in (
            ("attn.qkv", 3 * width, width),
            ("attn.proj", width, width),
            ("mlp.fc1", hidden, width),
            ("mlp.fc2", width, hidden),
        ):
            state[f"blocks.{i}.{name}.weight"] = draw(rows, columns, scale=0.3)
            state[f"blocks.{i}.{name}.bias"] = draw(rows, scale=0.3)
    state |= {"norm.weight": draw(width, scale=0.2, around=1.0), "norm.bias": draw(width)}
    return state | {"head.weight": draw(7, width), "head.bias": draw(7)}


def vit(state: State, images: Tensor) -> Tensor:
    """Class token behind the last norm, (B, width), of images (B, 3, H, W)."""
    patch = state["patch_embed.proj.weight"].shape[-1]
    x = F.conv2d(images, state["patch_embed.proj.weight"], state["patch_embed.proj.bias"], stride=patch)
    x = x.flatten(2).transpose(1, 2)
    x = torch.cat((state["cls_token"].expand(len(x), -1, -1), x), 1) + state["pos_embed"]
    width = x.shape[-1]
    for i in range(sum(key.endswith("norm1.weight") for key in state)):
        own = {key.removeprefix(f"blocks.{i}."): value for key, value in state.items()}
        y = F.layer_norm(x, (width,), own["norm1.weight"], own["norm1.bias"], BLOCK_EPS)
        q, k, v = F.linear(y, own["attn.qkv.weight"], own["attn.qkv.bias"]).chunk(3, -1)
        q, k, v = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in (q, k, v))
        weights = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1)
        y = (weights @ v).transpose(1, 2).flatten(2)
        x = x + F.linear(y, own["attn.proj.weight"], own["attn.proj.bias"])
        y = F.layer_norm(x, (width,), own["norm2.weight"], own["norm2.bias"], BLOCK_EPS)
        y = F.gelu(F.linear(y, own["mlp.fc1.weight"], own["mlp.fc1.bias"]))
        x = x + F.linear(y, own["mlp.fc2.weight"], own["mlp.fc2.bias"])
    return F.layer_norm(x[:, 0], (width,), state["norm.weight"], state["norm.bias"], LAST_EPS)


def hugging_face(state: State, *, prefix: str = "vit.") -> State:
    """As `ViTForImageClassification` saves it; without ``prefix`` as `ViTModel` does."""
    names = {
        "cls_token": "embeddings.cls_token",
        "pos_embed": "embeddings.position_embeddings",
        "patch_embed.proj": "embeddings.patch_embeddings.projection",
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "attn.proj": "attention.output.dense",
        "mlp.fc1": "intermediate.dense",
        "mlp.fc2": "output.dense",
    }
    result = {}
    for key, value in state.items():
        if key.startswith("head."):
            result[key.replace("head", "classifier")] = value
            continue
        new = re.sub(r"^blocks\.", "encoder.layer.", key)
        new = re.sub(r"^norm\.", "layernorm.", new)
        for ours, theirs in names.items():
            new = new.replace(ours, theirs)
        if ".attn.qkv." in new:
            for part, rows in zip(("query", "key", "value"), value.chunk(3), strict=True):
                result[prefix + new.replace("attn.qkv", f"attention.attention.{part}")] = rows
        else:
            result[prefix + new] = value
    return result | {f"{prefix}pooler.dense.weight": torch.ones(2, 2)}


def hugging_face_5(state: State) -> State:
    """As `ViTForImageClassification` of transformers 5 saves it."""
    names = {
        "encoder.layer.": "layers.",
        "attention.attention.query": "attention.q_proj",
        "attention.attention.key": "attention.k_proj",
        "attention.attention.value": "attention.v_proj",
        "attention.output.dense": "attention.o_proj",
        "intermediate.dense": "mlp.fc1",
        ".output.dense": ".mlp.fc2",
    }
    result = {}
    for key, value in hugging_face(state).items():
        for old, new in names.items():
            key = key.replace(old, new)
        result[key] = value
    return result


def mae(state: State) -> State:
    """As facebookresearch/mae saves its pre-training, below ``model``."""
    rest = {key: value for key, value in state.items() if not key.startswith("head.")}
    decoder = {"mask_token": torch.ones(1, 1, 4), "decoder_embed.weight": torch.ones(4, 4)}
    return rest | decoder | {"decoder_blocks.0.attn.qkv.weight": torch.ones(4, 4)}


def mae_pytorch(state: State) -> State:
    """As pengzhiliang/MAE-pytorch: no class token, no positions, no bias of the keys."""
    result = {"mask_token": torch.ones(1, 1, 4), "decoder.blocks.0.norm1.weight": torch.ones(4)}
    result["encoder_to_decoder.weight"] = torch.ones(4, 4)
    for key, value in state.items():
        if key in ("cls_token", "pos_embed") or key.startswith("head."):
            continue
        if key.endswith("attn.qkv.bias"):
            stem = f"encoder.{key.removesuffix('qkv.bias')}"
            result[f"{stem}q_bias"], _, result[f"{stem}v_bias"] = value.chunk(3)
        else:
            result[f"encoder.{key}"] = value
    return result


def video_transformer(state: State) -> State:
    """As the ViT that VideoTransformer-pytorch and MMAction2 start from: MMClassification's first names."""
    names = {
        "patch_embed.proj": "patch_embed.projection",
        "blocks.": "transformer_layers.layers.",
        "attn.qkv.": "attentions.0.attn.in_proj_",
        "attn.proj": "attentions.0.attn.out_proj",
        "norm1": "norms.0",
        "norm2": "norms.1",
        "mlp.fc1": "ffns.0.layers.0.0",
        "mlp.fc2": "ffns.0.layers.1",
    }
    result = {}
    for key, value in state.items():
        new = key
        for ours, theirs in names.items():
            new = new.replace(ours, theirs)
        if not key.startswith("head."):
            result[new] = value
    return result
