"""Own clips, starting from Kinetics weights."""

from __future__ import annotations

from saccade.clip import ClipSpec
from saccade.training.config import AugmentConfig, ModelConfig, OptimConfig, TrainConfig


def x3d_m_finetune() -> TrainConfig:
    """X3D-M on clips of one's own, all weights learning, the backbone ten times slower than the classifier.

    Command: ``saccade train x3d_m_finetune --data my_clips --model.weights x3d_m.pyth``
    Hardware: one GPU with 16 GB (batch 16, bfloat16). Time and accuracy depend on the clips; none was
    measured. The weights may be in any format `load_weights` knows; only the classifier starts anew.
    Source: the schedule follows common practice for fine-tuning Kinetics models, not a published recipe.
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
    """X3D-M frozen, a new classifier on top: the quickest use of pretrained weights.

    Command: ``saccade train x3d_m_linear_probe --data my_clips --model.weights x3d_m.pyth``
    Hardware: one GPU, or patience on a CPU. Time and accuracy depend on the clips; none was measured.
    Source: common practice, not a published recipe.
    """
    return x3d_m_finetune().replace(
        recipe="x3d_m_linear_probe",
        model=ModelConfig(name="x3d_m", freeze=-1, dropout=0.0),
        optim=OptimConfig(lr=0.1, reference_batch=16, weight_decay=0.0),
        label_smoothing=0.0,
    )
