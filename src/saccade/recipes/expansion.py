"""What the networks of a search train with."""

from __future__ import annotations

from saccade.clip import ClipSpec
from saccade.training.config import AugmentConfig, ModelConfig, OptimConfig, TrainConfig


def x2d_expand() -> TrainConfig:
    """X2D from scratch, which `saccade expand` begins with and trains its candidates like.

    Command: ``saccade expand --data DATA --target-gmacs 0.5``, or of the first network alone ``saccade train
    x2d_expand --data DATA``
    Hardware: any. Time: see docs/expansion.md; accuracy: that of your data.
    The margins of the crop are those of PySlowFast's X3D. Source: this project.
    """
    return TrainConfig(
        recipe="x2d_expand",
        model=ModelConfig(name="x2d", dropout=0.5),
        clip=ClipSpec(num_frames=1, stride=1, crop=112, short_side=112),
        augment=AugmentConfig(short_side=(128, 160)),
        optim=OptimConfig(
            name="adamw", lr=2e-3, reference_batch=8, weight_decay=0.05, warmup_epochs=3, warmup_lr=1e-4
        ),
        epochs=30,
        batch_size=16,
        label_smoothing=0.1,
        cache_mb=1000,
        val_views="1x1",
        val_every=5,
    )
