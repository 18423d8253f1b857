"""Small networks for a few hundred clips, which learn from a larger one: under 1 GMAC a view.

Students and teachers see a frame of each of eight segments (rule ``tsm``), so that a TSM teacher sees the
frames of the student. The teacher is a run: the best network on the same classes, say a TSM that started from
image weights. Without ``--teacher`` they train from scratch.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from saccade.clip import ClipSpec
from saccade.recipes._registry import Recipe
from saccade.recipes._variants import variant
from saccade.training.config import AugmentConfig, DistillConfig, ModelConfig, OptimConfig, TrainConfig


def _student(model: str, crop: int, **overrides: Any) -> TrainConfig:
    return TrainConfig(
        model=ModelConfig(name=model, overrides=overrides, dropout=0.2, drop_path=0.1),
        clip=ClipSpec(num_frames=8, stride=8, crop=crop, short_side=crop),
        temporal_rule="tsm",
        augment=AugmentConfig(short_side=(crop, crop * 5 // 4), brightness=0.4, contrast=0.4, saturation=0.4),
        optim=OptimConfig(
            name="adamw", lr=2e-3, reference_batch=8, weight_decay=0.05, warmup_epochs=4, warmup_lr=1e-4
        ),
        distill=DistillConfig(feature_weight=1.0),
        epochs=60,
        batch_size=8,
        label_smoothing=0.1,
        ema=0.99,
        cache_mb=3000,
        val_every=5,
    )


def _recipe(name: str, title: str, gmacs: str, crop: int, **overrides: Any) -> Recipe:
    model = name.removesuffix("_distill")
    return variant(
        name,
        partial(_student, model, crop, **overrides),
        f"{title} taught by a larger network on a few hundred clips, {gmacs} GMACs a view.",
        command=f"saccade train {name} --data clips --teacher runs/TEACHER --unlabelled more_clips",
        hardware="two CPU cores; a step costs a forward pass of the teacher more than without it.",
        expected="depends on the clips and the teacher; not measured.",
        source="this project; see docs/distillation.md.",
    )


STUDENTS = (
    _recipe("x3d_xs_distill", "X3D-XS", "0.776", 128),
    _recipe("vov3d_m_distill", "VoV3D-M", "0.656", 112),
    _recipe("rubiksnet_tiny_distill", "RubiksNet-Tiny", "0.954", 112),
)
globals().update({recipe.__name__: recipe for recipe in STUDENTS})
