"""The synthetic `motion` clips, which the quickstart trains on."""

from __future__ import annotations

from saccade.clip import ClipSpec
from saccade.training.config import AugmentConfig, ModelConfig, OptimConfig, TrainConfig


def x3d_motion() -> TrainConfig:
    """A small X3D on the synthetic `motion` clips, whose classes differ in the direction of time.

    Command: ``saccade data motion data/motion && saccade train x3d_motion --data data/motion``
    Hardware: two CPU cores; minutes. 0.0339 GMACs per clip.
    Expected: 96.7 % top-1 with 3x1 views (measured, one seed; see RESULTS.md).
    Source: this project. No flip: left and right are different classes.
    """
    return TrainConfig(
        recipe="x3d_motion",
        model=ModelConfig(
            name="x3d_xs", overrides={"gamma_w": 0.5, "gamma_d": 1.0, "gamma_b": 2.25}, dropout=0.2
        ),
        clip=ClipSpec(num_frames=8, stride=4, crop=64, short_side=72),
        augment=AugmentConfig(short_side=(72, 72), flip=0.0),
        optim=OptimConfig(lr=0.2, reference_batch=16, weight_decay=5e-5, warmup_epochs=4, warmup_lr=0.01),
        epochs=45,
        batch_size=16,
        label_smoothing=0.05,
        cache_mb=800,
        val_views="1x1",
        val_every=5,
        test_views="3x1",
    )


def x3d_motion_multilabel() -> TrainConfig:
    """A small X3D on the untrimmed `motion` videos, multi-label: which events are in a video.

    Command: ``saccade data motion data/untrimmed --untrimmed && saccade train x3d_motion_multilabel --data
    data/untrimmed``
    Hardware: two CPU cores, 8 to 9 minutes.
    Expected: 60.1 % mAP with 10x1 views (measured, one seed; see RESULTS.md).
    Source: this project.
    """
    return TrainConfig(
        recipe="x3d_motion_multilabel",
        task="multi-label",
        model=ModelConfig(
            name="x3d_xs", overrides={"gamma_w": 0.5, "gamma_d": 1.0, "gamma_b": 2.25}, dropout=0.1
        ),
        clip=ClipSpec(num_frames=16, stride=4, crop=64, short_side=72),
        augment=AugmentConfig(short_side=(72, 72), flip=0.0),
        optim=OptimConfig(
            name="adamw", lr=3e-3, reference_batch=16, weight_decay=0.02, warmup_epochs=2, warmup_lr=3e-4
        ),
        epochs=60,
        batch_size=16,
        cache_mb=1500,
        val_views="4x1",
        val_every=10,
        test_views="10x1",
    )


def x3d_motion_loc() -> TrainConfig:
    """A small X3D on the untrimmed `motion` videos, localisation: when each event happens.

    Command: ``saccade data motion data/untrimmed --untrimmed && saccade train x3d_motion_loc --data
    data/untrimmed``
    Hardware: two CPU cores, 8 to 9 minutes.
    Expected: 55.9 % charades-25 mAP (measured, one seed; see RESULTS.md).
    Source: this project.
    """
    return x3d_motion_multilabel().replace(
        recipe="x3d_motion_loc", task="localization", val_views="1x1", test_views=""
    )
