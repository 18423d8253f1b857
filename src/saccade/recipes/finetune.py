"""Your own clips, starting from Kinetics weights."""

from __future__ import annotations

from saccade.clip import ClipSpec
from saccade.training.config import AugmentConfig, ModelConfig, OptimConfig, TrainConfig


def x3d_m_finetune() -> TrainConfig:
    """X3D-M fine-tuned on your clips; the backbone's learning rate is a tenth of the classifier's.

    Command: ``saccade train x3d_m_finetune --data my_clips --model.weights x3d_m.pyth``
    Hardware: one GPU with 16 GB (batch 16, bfloat16).
    Expected: depends on the clips; not measured.
    Source: common practice for fine-tuning Kinetics models, not a published recipe. The weights may be in any
    format `load_weights` reads; only the classifier is new.
    """
    return TrainConfig(
        recipe="x3d_m_finetune",
        model=ModelConfig(name="x3d_m", backbone_lr=0.1),
        clip=ClipSpec(num_frames=16, stride=5, crop=256, short_side=256),
        augment=AugmentConfig(short_side=(256, 320), crop=224),
        optim=OptimConfig(
            lr=0.05, reference_batch=16, weight_decay=5e-5, warmup_epochs=1, warmup_lr=0.005, clip_grad=5.0
        ),
        epochs=20,
        batch_size=16,
        label_smoothing=0.1,
        precision="bfloat16",
        workers=4,
        test_views="10x1",
    )


def x3d_m_linear_probe() -> TrainConfig:
    """Linear probe of X3D-M: a new classifier on frozen features, the quickest use of pretrained weights.

    Command: ``saccade train x3d_m_linear_probe --data my_clips --model.weights x3d_m.pyth``
    Hardware: one GPU, or a CPU.
    Expected: depends on the clips; not measured.
    Source: common practice, not a published recipe.
    """
    return x3d_m_finetune().replace(
        recipe="x3d_m_linear_probe",
        model=ModelConfig(name="x3d_m", freeze=-1, dropout=0.0),
        optim=OptimConfig(lr=0.1, reference_batch=16, weight_decay=0.0),
        label_smoothing=0.0,
    )
