"""MViT and MViTv2 on Kinetics from scratch, with the settings of PySlowFast (configs/Kinetics/MVIT*.yaml).

MViT: Fan et al., ICCV 2021, arXiv 2104.11227; MViTv2: Li et al., CVPR 2022, arXiv 2112.01526. Common to
all: AdamW, learning rate 1e-4 for 16 videos of two clips, scaled with the batch (PySlowFast: with the
machines of 8 GPUs, whose batch that is), warmed up from 1e-6 and falling to it in a cosine, decay 0.05,
gradients cut off at 1; two clips of each video in a batch, RandAugment of 4 operations at magnitude 7,
random erasing, MixUp 0.8 and CutMix 1 by turns, label smoothing 0.1, crops of 8 % to all of the frame.

Epochs are counted in clips here: 400 are PySlowFast's 200 of two clips a video, and 60 of warm-up its 30.
Frames are read at a short side of 256 before they are cut, there at the video's own. The accuracies are
those of PySlowFast's model zoo; they have not been trained again here.
"""

from __future__ import annotations

from saccade.clip import ClipSpec
from saccade.training.config import AugmentConfig, ModelConfig, OptimConfig, TrainConfig


def mvit_b_16x4_k400() -> TrainConfig:
    """MViT-B on Kinetics-400, 16 frames x stride 4, crop 224, from scratch.

    Command: ``torchrun --nnodes 16 --nproc_per_node 8 -m saccade train mvit_b_16x4_k400 --data k400
    --batch-size 512``
    Hardware: 32 clips for each machine of 8 GPUs; 512 on 16 of them learn at 0.0016. Hours: not published.
    Expected: 78.4 % top-1, 93.5 % top-5 with 5x1 views (PySlowFast's model zoo).
    Source: PySlowFast configs/Kinetics/MVIT_B_16x4_CONV.yaml.
    """
    return _kinetics("mvit_b_16x4_k400", "mvit_base_16x4", num_frames=16, stride=4, drop_path=0.2)


def mvit_b_32x3_k400() -> TrainConfig:
    """MViT-B of 24 blocks on Kinetics-400, 32 frames x stride 3, crop 224, from scratch.

    Command: ``torchrun --nnodes 16 --nproc_per_node 8 -m saccade train mvit_b_32x3_k400 --data k400
    --batch-size 512``
    Hardware: as mvit_b_16x4_k400. Hours: not published.
    Expected: 80.4 % top-1, 94.8 % top-5 with 5x1 views (PySlowFast's model zoo).
    Source: PySlowFast configs/Kinetics/MVIT_B_32x3_CONV.yaml.
    """
    return _kinetics("mvit_b_32x3_k400", "mvit_base_32x3", num_frames=32, stride=3, drop_path=0.3)


def mvit_b_32x3_k600() -> TrainConfig:
    """MViT-B of 24 blocks on Kinetics-600, 32 frames x stride 3, crop 224, from scratch.

    Command: ``torchrun --nnodes 16 --nproc_per_node 8 -m saccade train mvit_b_32x3_k600 --data k600
    --batch-size 512``
    Hardware: as mvit_b_16x4_k400. Hours: not published.
    Expected: 83.9 % top-1, 96.5 % top-5 with 5x1 views (PySlowFast's model zoo).
    Source: PySlowFast configs/Kinetics/MVIT_B_32x3_CONV.yaml, which is for both sets.
    """
    return mvit_b_32x3_k400().replace(recipe="mvit_b_32x3_k600")


def mvitv2_s_k400() -> TrainConfig:
    """MViTv2-S on Kinetics-400, 16 frames x stride 4, crop 224, from scratch.

    Command: ``torchrun --nnodes 16 --nproc_per_node 8 -m saccade train mvitv2_s_k400 --data k400
    --batch-size 512``
    Hardware: as mvit_b_16x4_k400. Hours: not published.
    Expected: 81.0 % top-1, 94.6 % top-5 with 5x1 views (PySlowFast's model zoo).
    Source: PySlowFast configs/Kinetics/MVITv2_S_16x4.yaml.
    """
    return _kinetics("mvitv2_s_k400", "mvitv2_small", num_frames=16, stride=4, drop_path=0.2)


def mvitv2_b_k400() -> TrainConfig:
    """MViTv2-B on Kinetics-400, 32 frames x stride 3, crop 224, from scratch.

    Command: ``torchrun --nnodes 16 --nproc_per_node 8 -m saccade train mvitv2_b_k400 --data k400
    --batch-size 512``
    Hardware: as mvit_b_16x4_k400. Hours: not published.
    Expected: 82.9 % top-1, 95.7 % top-5 with 5x1 views (PySlowFast's model zoo).
    Source: PySlowFast configs/Kinetics/MVITv2_B_32x3.yaml.
    """
    return _kinetics("mvitv2_b_k400", "mvitv2_base", num_frames=32, stride=3, drop_path=0.3)


def _kinetics(recipe: str, model: str, *, num_frames: int, stride: int, drop_path: float) -> TrainConfig:
    return TrainConfig(
        recipe=recipe,
        model=ModelConfig(name=model, dropout=0.5, drop_path=drop_path),
        clip=ClipSpec(num_frames=num_frames, stride=stride, crop=224, short_side=256),
        augment=AugmentConfig(
            short_side=(256, 256),
            crop=224,
            area=(0.08, 1.0),
            aspect=(0.75, 1.3333),
            rand_ops=4,
            rand_magnitude=7.0,
            rand_magnitude_std=0.5,
            erasing=0.25,
            mixup=0.8,
            cutmix=1.0,
            repeats=2,
        ),
        optim=OptimConfig(
            name="adamw",
            lr=1e-4,
            reference_batch=32,
            min_lr=1e-6,
            weight_decay=0.05,
            clip_grad=1.0,
            cosine_after_warmup=True,
            warmup_epochs=60,
            warmup_lr=1e-6,
        ),
        epochs=400,
        batch_size=32,
        temporal_rule="pyslowfast-offset",
        label_smoothing=0.1,
        workers=8,
        val_every=20,
        test_views="5x1",
        save_minutes=20,
    )


PUBLISHED = (mvit_b_16x4_k400, mvit_b_32x3_k400, mvit_b_32x3_k600, mvitv2_s_k400, mvitv2_b_k400)
"""For the list of recipes."""
