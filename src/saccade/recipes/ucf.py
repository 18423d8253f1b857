"""Ten classes of UCF-101: real clips, small enough for two CPU cores."""

from __future__ import annotations

from dataclasses import replace

from saccade.clip import ClipSpec
from saccade.training.config import AugmentConfig, ModelConfig, OptimConfig, TrainConfig


def x3d_ucf10() -> TrainConfig:
    """X3D of reduced width on ten UCF-101 classes (205 training clips), from scratch.

    Command: ``saccade train x3d_ucf10 --data ucf10``, then ``saccade test runs/x3d_ucf10 --data ucf10
    --views 10x1``
    Hardware: two CPU cores, 16 minutes. 0.219 GMACs per view.
    Expected: 64.4 % top-1 with 10x1 views (measured, one seed, 87 clips; see RESULTS.md).
    Source: this project; clips from UCF-101 (Soomro et al. 2012, arXiv 1212.0402). Validation groups do not
    share source videos with the training groups.
    """
    return TrainConfig(
        recipe="x3d_ucf10",
        model=ModelConfig(name="x3d_xs", overrides={"gamma_d": 1.0}, dropout=0.5, drop_path=0.1),
        clip=ClipSpec(num_frames=8, stride=10, crop=96, short_side=96),
        augment=AugmentConfig(short_side=(96, 126), brightness=0.4, contrast=0.4, saturation=0.4),
        optim=OptimConfig(
            name="adamw", lr=2e-3, reference_batch=8, weight_decay=0.05, warmup_epochs=5, warmup_lr=1e-4
        ),
        epochs=120,
        batch_size=8,
        label_smoothing=0.1,
        ema=0.995,
        cache_mb=3000,
        val_views="1x1",
        val_every=5,
        test_views="10x1",
    )


def x3d_ucf10_strong() -> TrainConfig:
    """x3d_ucf10 with strong augmentation: RandAugment, MixUp, CutMix, random erasing, twice the epochs.

    Command: ``saccade train x3d_ucf10_strong --data ucf10``; ``saccade data preview x3d_ucf10_strong --data
    ucf10`` shows what it trains on.
    Hardware: two CPU cores, twice the time of x3d_ucf10.
    Expected: not measured.
    Source: this project; PySlowFast's MViT augmentation at lower strength, for a network of a hundredth of
    the size.
    """
    base = x3d_ucf10()
    return base.replace(
        recipe="x3d_ucf10_strong",
        augment=replace(
            base.augment,
            rand_ops=2,
            rand_magnitude=5.0,
            rand_magnitude_std=0.5,
            erasing=0.15,
            mixup=0.2,
            cutmix=1.0,
            mix_probability=0.6,
        ),
        epochs=240,
        val_every=10,
    )
