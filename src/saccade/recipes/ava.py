"""X3D on AVA: detecting what each person in a frame does."""

from __future__ import annotations

from saccade.clip import ClipSpec
from saccade.training.config import AugmentConfig, ModelConfig, OptimConfig, PeopleConfig, TrainConfig


def x3d_m_ava() -> TrainConfig:
    """X3D-M with a RoI head on AVA v2.2, 16 frames x stride 5, crop 224.

    Command: ``torchrun --nproc_per_node 8 -m saccade train x3d_m_ava --data ava --model.weights x3d_m.pyth``
    Hardware: 8 GPUs, 64 clips per step.
    Expected: 23.2 % frame-mAP starting from Kinetics-400 (the X3D paper); not measured here. A user of
    PySlowFast reports 21.5 (its issue 371).
    Source: PySlowFast configs/AVA/SLOW_8x8_R50_SHORT.yaml for the schedule, as it has no config for X3D; the
    clip is that of X3D-M. That config trains on detected people as well as on the annotated ones; here
    ``--people.train-boxes`` names their file.
    """
    return TrainConfig(
        recipe="x3d_m_ava",
        task="detection",
        model=ModelConfig(name="x3d_m", dropout=0.5),
        clip=ClipSpec(num_frames=16, stride=5, crop=256, short_side=256),
        augment=AugmentConfig(short_side=(256, 320), crop=224),
        optim=OptimConfig(
            lr=0.1,
            reference_batch=64,
            weight_decay=1e-7,
            schedule="step",
            steps=(10, 15),
            gamma=0.1,
            warmup_epochs=5,
            warmup_lr=0.000125,
        ),
        people=PeopleConfig(min_score=0.8),
        epochs=20,
        batch_size=64,
        workers=8,
        val_every=5,
        save_minutes=20,
    )


def x3d_xl_ava() -> TrainConfig:
    """X3D-XL with a RoI head on AVA v2.2, 16 frames x stride 5, crop 312.

    Command: ``torchrun --nproc_per_node 8 -m saccade train x3d_xl_ava --data ava --model.weights
    x3d_xl_k600.pyth``
    Hardware: 8 GPUs, 64 clips a step.
    Expected: 27.4 % frame-mAP starting from Kinetics-600 (the X3D paper); not measured here. No public
    weights of X3D-XL are known.
    Source: as x3d_m_ava, with the crops of X3D-L.
    """
    return x3d_m_ava().replace(
        recipe="x3d_xl_ava",
        model=ModelConfig(name="x3d_xl", dropout=0.5),
        clip=ClipSpec(num_frames=16, stride=5, crop=356, short_side=356),
        augment=AugmentConfig(short_side=(356, 446), crop=312),
    )
