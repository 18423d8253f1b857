"""Ten classes of UCF-101: real clips, small enough for two CPU cores."""

from __future__ import annotations

from saccade.clip import ClipSpec
from saccade.training.config import AugmentConfig, ModelConfig, OptimConfig, TrainConfig


def x3d_ucf10() -> TrainConfig:
    """X3D of reduced width on ten UCF-101 classes (205 training clips), from scratch.

    Command: ``saccade train x3d_ucf10 --data ucf10``, then ``saccade test runs/x3d_ucf10 --data ucf10
    --views 10x1``
    Hardware: two CPU cores. Time and accuracy: see RESULTS.md.
    Validation groups do not share source videos with the training groups. Source: this project; clips from
    UCF-101 (Soomro et al. 2012, arXiv 1212.0402).
    """
    return TrainConfig(
        recipe="x3d_ucf10",
        model=ModelConfig(name="x2d", overrides={"gamma_b": 2.25}, dropout=0.5),
        clip=ClipSpec(num_frames=8, stride=6, crop=112, short_side=112),
        augment=AugmentConfig(
            short_side=(112, 144), brightness=0.3, contrast=0.3, saturation=0.3, inverse_uniform=True
        ),
        optim=OptimConfig(lr=0.2, reference_batch=16, weight_decay=1e-4, warmup_epochs=4, warmup_lr=0.02),
        epochs=60,
        batch_size=16,
        label_smoothing=0.1,
        ema=0.99,
        cache_mb=1024,
        val_views="1x1",
        val_every=5,
        test_views="10x1",
    )
