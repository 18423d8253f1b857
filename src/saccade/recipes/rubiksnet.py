"""RubiksNet with the settings stated by its repository and by that of TSM.

RubiksNet: Fan, Buch et al., ECCV 2020, github.com/StanfordVL/RubiksNet. Accuracies are those of the
repository: two clips of three crops (``ssv2-2clip-3crop``) from the table of its README, one clip
(``ssv2-1clip``) from its evaluation logs; they were not reproduced here. The repository has weights and
tests, but no training code: it says that it follows the protocol of the Temporal Shift Module (TSM, Lin et
al., ICCV 2019, github.com/mit-han-lab/temporal-shift-module), and states neither hardware nor hours nor its
own schedule. So the schedules are the published commands of TSM, and the accuracies are what RubiksNet's
authors reached, not what these settings are known to reach.

Common to all: SGD with momentum 0.9 (Nesterov here), gradients clipped at norm 20, 50 epochs, a tenth of
the learning rate from epoch 20 and a hundredth from 40, eight frames, one of each segment of the video;
test crop 224 of a short side of 256, training crops of 224 from short sides between 224 and 340 (TSM's
scales 1 to 0.66), ImageNet's mean and standard deviation. The learning rate of shifts is a hundredth of that
of weights, and they do not decay (RubiksNet's get_optim_policy). Norms and biases do not decay either.

The authors start from ImageNet weights, which they do not publish. ``--model.weights`` takes such weights
under the names of the authors' backbone (`time_init` then sets the initial shifts in time), or their Kinetics
files; without it training starts from random weights, and will end lower.

The paper has results on further data sets, for which the repository has no settings: the recipes for
Something-Something v2 train v1 too (``--data ssv1``), rubiksnet_tiny_finetune any other; the accuracy to
expect is not published.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import NamedTuple

from saccade.clip import ClipSpec
from saccade.recipes._registry import Recipe
from saccade.recipes._variants import variant
from saccade.recipes.motion import x3d_motion
from saccade.recipes.ucf import x3d_ucf10
from saccade.training.config import AugmentConfig, ModelConfig, OptimConfig, TrainConfig

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def _clip() -> ClipSpec:
    return ClipSpec(  # segments do not use the stride
        num_frames=8, stride=1, crop=224, short_side=256, mean=IMAGENET_MEAN, std=IMAGENET_STD
    )


def _optim(*, lr: float, batch: int, weight_decay: float) -> OptimConfig:
    return OptimConfig(
        lr=lr,
        reference_batch=batch,
        weight_decay=weight_decay,
        clip_grad=20.0,
        schedule="step",
        steps=(20, 40),
    )


def _something(tier: str) -> TrainConfig:
    return TrainConfig(
        recipe=f"rubiksnet_{tier}_ssv2",
        model=ModelConfig(name=f"rubiksnet_{tier}"),
        clip=_clip(),
        augment=AugmentConfig(short_side=(224, 340), crop=224, inverse_uniform=True, flip=0.0),
        optim=_optim(lr=0.01, batch=64, weight_decay=5e-4),  # TSM's default decay
        epochs=50,
        batch_size=64,
        temporal_rule="tsm",
        workers=8,
        val_views="ssv2-1clip",
        test_views="ssv2-2clip-3crop",
        save_minutes=20,
    )


def _kinetics(tier: str) -> TrainConfig:
    return _something(tier).replace(
        augment=AugmentConfig(short_side=(224, 340), crop=224, inverse_uniform=True),
        optim=_optim(lr=0.02, batch=128, weight_decay=1e-4),
        batch_size=128,
        val_views="1x1",
        test_views="",
    )


class _Row(NamedTuple):
    """A row of the repository's table: top-1 and top-5 in %, of 2 clips x 3 crops and of one clip."""

    tier: str
    views6: tuple[float, float]
    view1: tuple[float, float]
    note: str = ""


_SOMETHING = (
    _Row("tiny", (56.7, 84.1), (54.6, 82.0)),
    _Row("small", (59.8, 86.2), (57.5, 84.3)),
    _Row("medium", (60.8, 86.9), (58.3, 85.0)),
    _Row("large", (61.7, 87.3), (59.0, 85.2)),
    _Row(
        "large_aq",
        (61.6, 86.7),
        (58.6, 84.7),
        ' An eighth of the channels may read another frame (the authors\' "Budget=0.125"); the choice of '
        "channels is final after 80 % of the training.",
    ),
)
_TIERS = {"tiny": "Tiny", "small": "Small", "medium": "Medium", "large": "Large", "large_aq": "Large-AQ"}


def _of_something(row: _Row) -> Recipe:
    return variant(
        f"rubiksnet_{row.tier}_ssv2",
        partial(_something, row.tier),
        f"RubiksNet-{_TIERS[row.tier]} on Something-Something v2, 8 frames.",
        data="ssv2",
        flags="--model.weights imagenet.pth",
        hardware="neither machine nor hours are published; 64 clips per step.",
        expected="{} % top-1, {} % top-5 with 2 clips x 3 crops; ".format(*row.views6)
        + "{} and {} % with one clip (RubiksNet's repository).".format(*row.view1),
        source="RubiksNet's README and evaluation logs; schedule of TSM's README, \"something\"." + row.note,
    )


def _of_kinetics(tier: str) -> Recipe:
    return variant(
        f"rubiksnet_{tier}_k400",
        partial(_kinetics, tier),
        f"RubiksNet-{_TIERS[tier]} on Kinetics-400, 8 frames: the authors' pre-training.",
        data="k400",
        flags="--model.weights imagenet.pth",
        hardware="neither machine nor hours are published; 128 clips per step.",
        expected="not published.",
        source=f"RubiksNet's README (kinetics_{tier}.pth.tar); schedule of TSM's README, \"kinetics\".",
    )


def rubiksnet_tiny_finetune() -> TrainConfig:
    """RubiksNet-Tiny fine-tuned on your clips, starting from the authors' Kinetics weights.

    Command: ``saccade train rubiksnet_tiny_finetune --data my_clips --model.weights kinetics_tiny.pth.tar``
    Hardware: one GPU; 32 clips per step.
    Expected: depends on the clips; not measured.
    Source: RubiksNet's scripts/example_finetune.py for learning rate, decay, batch and epochs. That script
    does not normalise its input, lets shifts decay and tests on augmented clips; this recipe does not.
    """
    return TrainConfig(
        recipe="rubiksnet_tiny_finetune",
        model=ModelConfig(name="rubiksnet_tiny", dropout=0.0),
        clip=_clip(),
        augment=AugmentConfig(short_side=(256, 388), crop=224),
        optim=OptimConfig(lr=1e-3, reference_batch=32, weight_decay=1e-4, schedule="constant"),
        epochs=100,
        batch_size=32,
        temporal_rule="tsm",
        workers=4,
    )


def rubiksnet_tiny_motion() -> TrainConfig:
    """A small RubiksNet on the procedural `motion` clips, with the compute and the training of x3d_motion.

    Command: ``saccade data motion data/motion && saccade train rubiksnet_tiny_motion --data data/motion``
    Hardware: two CPU cores. 0.0327 GMACs per clip (x3d_motion: 0.0339).
    Expected: 100.0 % top-1 with 3x1 views (measured, one seed; see RESULTS.md).
    Source: this project.
    """
    return _motion("rubiksnet_tiny_motion", "rubiksnet_tiny")


def rubiksnet_tiny_aq_motion() -> TrainConfig:
    """rubiksnet_tiny_motion with attention over frames (-aq): one channel in eight reads another frame.

    Command: ``saccade data motion data/motion && saccade train rubiksnet_tiny_aq_motion --data data/motion``
    Hardware: two CPU cores. 0.0342 GMACs per clip (x3d_motion: 0.0339).
    Expected: 99.6 % top-1 with 3x1 views (measured, one seed; see RESULTS.md).
    Source: this project.
    """
    return _motion("rubiksnet_tiny_aq_motion", "rubiksnet_tiny_aq")


def rubiksnet_tiny_ucf10() -> TrainConfig:
    """A small RubiksNet on ten UCF-101 classes (205 training clips), from scratch.

    Command: ``saccade train rubiksnet_tiny_ucf10 --data ucf10``, then ``saccade test
    runs/rubiksnet_tiny_ucf10 --data ucf10 --views 10x1``
    Hardware: two CPU cores. 0.198 GMACs per clip (x3d_ucf10: 0.219).
    Expected: not measured; with the published width and depths, see RESULTS.md.
    Source: this project. AdamW's steps have the size of the learning rate, so that a hundredth of it would
    hardly move a shift: shifts have 0.3 times the learning rate of the weights.
    """
    config = x3d_ucf10()
    overrides: dict[str, int | float | str] = {"width": 32, "depths": "2,3,4,2"}
    return config.replace(
        recipe="rubiksnet_tiny_ucf10",
        model=ModelConfig(name="rubiksnet_tiny", overrides=overrides, dropout=0.5, drop_path=0.1),
        clip=config.clip.replace(mean=IMAGENET_MEAN, std=IMAGENET_STD),
        optim=replace(config.optim, shift_lr=0.3),
    )


def _motion(recipe: str, model: str) -> TrainConfig:
    config = x3d_motion()
    overrides: dict[str, int | float | str] = {"width": 20, "depths": "2,2,3,2"}
    return config.replace(
        recipe=recipe,
        model=ModelConfig(name=model, overrides=overrides, dropout=0.2),
    )


PUBLISHED = (
    *map(_of_something, _SOMETHING),
    *map(_of_kinetics, ("tiny", "small", "medium", "large")),
)
globals().update({recipe.__name__: recipe for recipe in PUBLISHED})
