"""How the candidates of an expansion search train."""

from __future__ import annotations

from saccade.clip import ClipSpec
from saccade.training.config import AugmentConfig, ModelConfig, OptimConfig, TrainConfig


def x2d_expand() -> TrainConfig:
    """X2D from scratch: where `saccade expand` starts, and how it trains its candidates.

    Command: ``saccade expand --data DATA --target-gmacs 0.5``, or the first network alone: ``saccade train
    x2d_expand --data DATA``
    Hardware: any; see docs/expansion.md.
    Expected: depends on the clips.
    Source: this project. The margins around the crop are those of PySlowFast's X3D.
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
