"""ViViT with the settings of VideoTransformer-pytorch (github.com/mx-mark/VideoTransformer-pytorch).

ViViT: Arnab et al., ICCV 2021, arXiv 2103.15691. It starts from a ViT-B/16 that was trained on
ImageNet-21K: ``--model.image-weights``; see docs/transformers.md. The accuracy is that of its README; it
has not been trained again here.
"""

from __future__ import annotations

from saccade.recipes.timesformer import vt_command
from saccade.training.config import TrainConfig


def vivit_k400_vt() -> TrainConfig:
    """ViViT with a factorised encoder on Kinetics-400, 16 frames x stride 16, crop 224.

    Command: ``torchrun --nproc_per_node 8 -m saccade train vivit_k400_vt --data k400 --model.image-weights
    vit_base_patch16_224.safetensors``
    Hardware: 8 GPUs, 8 clips each. Hours: not published.
    Expected: 75.2 % top-1, 91.5 % top-5 (its README, which does not say how many views, with a network in
    which clips of a batch see each other; see `class_token_leak`).
    Source: VideoTransformer-pytorch's README ("finetune vivit with imagenet pretrain weights") and the
    defaults of its model_pretrain.py; see timesformer_k400_vt. Filters of two frames begin as those for
    images, halved in each.
    """
    return vt_command("vivit_k400_vt", "vivit_base", num_frames=16, stride=16)


def vivit_joint_k400_vt() -> TrainConfig:
    """ViViT with attention among all tokens of a clip, otherwise as vivit_k400_vt.

    Command: ``torchrun --nproc_per_node 8 -m saccade train vivit_joint_k400_vt --data k400
    --model.image-weights vit_base_patch16_224.safetensors``
    Hardware: 8 GPUs, 8 clips each. Hours: not published.
    Expected: not published.
    Source: VideoTransformer-pytorch's README with ``-attention_type joint_space_time``.
    """
    return vt_command("vivit_joint_k400_vt", "vivit_base_joint", num_frames=16, stride=16)


def vivit_divided_k400_vt() -> TrainConfig:
    """ViViT with attention in time and in space by turns, otherwise as vivit_k400_vt.

    Command: ``torchrun --nproc_per_node 8 -m saccade train vivit_divided_k400_vt --data k400
    --model.image-weights vit_base_patch16_224.safetensors``
    Hardware: 8 GPUs, 8 clips each. Hours: not published.
    Expected: not published.
    Source: VideoTransformer-pytorch's README with ``-attention_type divided_space_time``.
    """
    return vt_command("vivit_divided_k400_vt", "vivit_base_divided", num_frames=16, stride=16)


PUBLISHED = (vivit_k400_vt, vivit_joint_k400_vt, vivit_divided_k400_vt)
"""For the list of recipes."""
