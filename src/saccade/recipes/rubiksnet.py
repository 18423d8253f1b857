"""RubiksNet with the settings that its repository and that of TSM tell of.

RubiksNet: Fan, Buch et al., ECCV 2020, github.com/StanfordVL/RubiksNet. Accuracies are those of the
repository: two clips of three crops (``ssv2-2clip-3crop``) from the table of its README, one clip
(``ssv2-1clip``) from its evaluation logs. Nothing was trained again here. The repository has weights and
tests, but no training: it says that it follows the protocol of the Temporal Shift Module (TSM, Lin et al.,
ICCV 2019, github.com/mit-han-lab/temporal-shift-module), and states neither hardware nor hours nor its own
schedule. So the schedules are the published commands of TSM, and the accuracies are what its authors
reached, not what these settings are known to reach.

Common to all: SGD with momentum 0.9 (Nesterov here), gradients clipped at norm 20, 50 epochs, a tenth of
the learning rate from epoch 20 and a hundredth from 40, eight frames, one of each segment of the video;
test crop 224 of a short side of 256, training crops of 224 from short sides between 224 and 340 (TSM's
scales 1 to 0.66), ImageNet's mean and deviation. Shifts learn a hundredth as fast as weights and do not
decay (RubiksNet's get_optim_policy). Norms and biases do not decay either.

The authors began from ImageNet weights, which they do not publish. ``--model.weights`` takes such weights
of one's own, in the names of the authors' backbone (`time_init` then says how the shifts in time begin), or
their Kinetics files; without it training starts from nothing, and will end lower.

The paper has results on further data sets, of which the repository states none: the recipes for v2 train
Something-Something v1 too (``--data ssv1``), rubiksnet_tiny_finetune any other; what to expect is not
stated.
"""

from __future__ import annotations

from dataclasses import replace

from saccade.clip import ClipSpec
from saccade.recipes.motion import x3d_motion
from saccade.recipes.ucf import x3d_ucf10
from saccade.training.config import AugmentConfig, ModelConfig, OptimConfig, TrainConfig

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

# -------------------------------------------------------------------------------------- Something-Something


def rubiksnet_tiny_ssv2() -> TrainConfig:
    """RubiksNet-Tiny on Something-Something v2, 8 frames.

    Command: ``torchrun --nproc_per_node 8 -m saccade train rubiksnet_tiny_ssv2 --data ssv2
    --model.weights imagenet.pth``
    Hardware: not published, nor the hours; 64 clips a step.
    Expected: 56.7 % top-1, 84.1 % top-5 with 2 clips x 3 crops; 54.6 and 82.0 % with one clip (RubiksNet's
    repository).
    Source: RubiksNet's README and evaluation logs; schedule of TSM's README, "something".
    """
    return _something("rubiksnet_tiny_ssv2", "rubiksnet_tiny")


def rubiksnet_small_ssv2() -> TrainConfig:
    """RubiksNet-Small on Something-Something v2, 8 frames.

    Command: ``torchrun --nproc_per_node 8 -m saccade train rubiksnet_small_ssv2 --data ssv2
    --model.weights imagenet.pth``
    Hardware: not published, nor the hours; 64 clips a step.
    Expected: 59.8 % top-1, 86.2 % top-5 with 2 clips x 3 crops; 57.5 and 84.3 % with one clip (RubiksNet's
    repository).
    Source: RubiksNet's README and evaluation logs; schedule of TSM's README, "something".
    """
    return _something("rubiksnet_small_ssv2", "rubiksnet_small")


def rubiksnet_medium_ssv2() -> TrainConfig:
    """RubiksNet-Medium on Something-Something v2, 8 frames.

    Command: ``torchrun --nproc_per_node 8 -m saccade train rubiksnet_medium_ssv2 --data ssv2
    --model.weights imagenet.pth``
    Hardware: not published, nor the hours; 64 clips a step.
    Expected: 60.8 % top-1, 86.9 % top-5 with 2 clips x 3 crops; 58.3 and 85.0 % with one clip (RubiksNet's
    repository).
    Source: RubiksNet's README and evaluation logs; schedule of TSM's README, "something".
    """
    return _something("rubiksnet_medium_ssv2", "rubiksnet_medium")


def rubiksnet_large_ssv2() -> TrainConfig:
    """RubiksNet-Large on Something-Something v2, 8 frames.

    Command: ``torchrun --nproc_per_node 8 -m saccade train rubiksnet_large_ssv2 --data ssv2
    --model.weights imagenet.pth``
    Hardware: not published, nor the hours; 64 clips a step.
    Expected: 61.7 % top-1, 87.3 % top-5 with 2 clips x 3 crops; 59.0 and 85.2 % with one clip (RubiksNet's
    repository).
    Source: RubiksNet's README and evaluation logs; schedule of TSM's README, "something".
    """
    return _something("rubiksnet_large_ssv2", "rubiksnet_large")


def rubiksnet_large_aq_ssv2() -> TrainConfig:
    """RubiksNet-Large-AQ on Something-Something v2, 8 frames.

    Command: ``torchrun --nproc_per_node 8 -m saccade train rubiksnet_large_aq_ssv2 --data ssv2
    --model.weights imagenet.pth``
    Hardware: not published, nor the hours; 64 clips a step.
    Expected: 61.6 % top-1, 86.7 % top-5 with 2 clips x 3 crops; 58.6 and 84.7 % with one clip (RubiksNet's
    repository).
    An eighth of the channels may read another frame (the authors' "Budget=0.125"); their choice is final
    after 80 % of the training.
    Source: RubiksNet's README and evaluation logs; schedule of TSM's README, "something".
    """
    return _something("rubiksnet_large_aq_ssv2", "rubiksnet_large_aq")


# ------------------------------------------------------------------------------------------------- Kinetics


def rubiksnet_tiny_k400() -> TrainConfig:
    """RubiksNet-Tiny on Kinetics-400, 8 frames: what its authors pre-train.

    Command: ``torchrun --nproc_per_node 8 -m saccade train rubiksnet_tiny_k400 --data k400
    --model.weights imagenet.pth``
    Hardware: not published, nor the hours; 128 clips a step. Expected: no accuracy is stated.
    Source: RubiksNet's README (kinetics_tiny.pth.tar); schedule of TSM's README, "kinetics".
    """
    return _kinetics("rubiksnet_tiny_k400", "rubiksnet_tiny")


def rubiksnet_small_k400() -> TrainConfig:
    """RubiksNet-Small on Kinetics-400, 8 frames: what its authors pre-train.

    Command: ``torchrun --nproc_per_node 8 -m saccade train rubiksnet_small_k400 --data k400
    --model.weights imagenet.pth``
    Hardware: not published, nor the hours; 128 clips a step. Expected: no accuracy is stated.
    Source: RubiksNet's README (kinetics_small.pth.tar); schedule of TSM's README, "kinetics".
    """
    return _kinetics("rubiksnet_small_k400", "rubiksnet_small")


def rubiksnet_medium_k400() -> TrainConfig:
    """RubiksNet-Medium on Kinetics-400, 8 frames: what its authors pre-train.

    Command: ``torchrun --nproc_per_node 8 -m saccade train rubiksnet_medium_k400 --data k400
    --model.weights imagenet.pth``
    Hardware: not published, nor the hours; 128 clips a step. Expected: no accuracy is stated.
    Source: RubiksNet's README (kinetics_medium.pth.tar); schedule of TSM's README, "kinetics".
    """
    return _kinetics("rubiksnet_medium_k400", "rubiksnet_medium")


def rubiksnet_large_k400() -> TrainConfig:
    """RubiksNet-Large on Kinetics-400, 8 frames: what its authors pre-train.

    Command: ``torchrun --nproc_per_node 8 -m saccade train rubiksnet_large_k400 --data k400
    --model.weights imagenet.pth``
    Hardware: not published, nor the hours; 128 clips a step. Expected: no accuracy is stated.
    Source: RubiksNet's README (kinetics_large.pth.tar); schedule of TSM's README, "kinetics".
    """
    return _kinetics("rubiksnet_large_k400", "rubiksnet_large")


def rubiksnet_tiny_finetune() -> TrainConfig:
    """RubiksNet-Tiny on clips of one's own, starting from the authors' Kinetics weights.

    Command: ``saccade train rubiksnet_tiny_finetune --data my_clips --model.weights kinetics_tiny.pth.tar``
    Hardware: one GPU; 32 clips a step. Time and accuracy depend on the clips; none was measured.
    Learning rate, decay, batch and epochs are those of the authors' example. It leaves out the normalisation
    of its input, lets shifts decay and tests on augmented clips; this recipe does not.
    Source: RubiksNet's scripts/example_finetune.py.
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


# ------------------------------------------------------------------------------------------- small, made here


def rubiksnet_tiny_motion() -> TrainConfig:
    """A small RubiksNet on the procedural `motion` clips, with the compute and the training of x3d_motion.

    Command: ``saccade data motion data/motion && saccade train rubiksnet_tiny_motion --data data/motion``
    Hardware: two CPU cores. Time and accuracy: see RESULTS.md.
    0.0327 GMACs a clip, X3D there 0.0339. Source: this project.
    """
    return _motion("rubiksnet_tiny_motion", "rubiksnet_tiny")


def rubiksnet_tiny_aq_motion() -> TrainConfig:
    """The same with a choice of frames in place of shifts in time: at last one in eight channels moves.

    Command: ``saccade data motion data/motion && saccade train rubiksnet_tiny_aq_motion --data data/motion``
    Hardware: two CPU cores. Time and accuracy: see RESULTS.md.
    0.0342 GMACs a clip, X3D there 0.0339. Source: this project.
    """
    return _motion("rubiksnet_tiny_aq_motion", "rubiksnet_tiny_aq")


def rubiksnet_tiny_ucf10() -> TrainConfig:
    """A small RubiksNet on ten UCF-101 classes (205 training clips), from scratch.

    Command: ``saccade train rubiksnet_tiny_ucf10 --data ucf10``, then ``saccade test
    runs/rubiksnet_tiny_ucf10 --data ucf10 --views 10x1``
    Hardware: two CPU cores. Time and accuracy: see RESULTS.md.
    0.198 GMACs a clip, X3D in x3d_ucf10 0.219. AdamW steps by the learning rate alone, so that a hundredth of
    it would hardly move a shift: they learn 0.3 times as fast as the weights. Source: this project.
    """
    config = x3d_ucf10()
    overrides: dict[str, int | float | str] = {"width": 32, "depths": "2,3,4,2"}
    return config.replace(
        recipe="rubiksnet_tiny_ucf10",
        model=ModelConfig(name="rubiksnet_tiny", overrides=overrides, dropout=0.5, drop_path=0.1),
        clip=config.clip.replace(mean=IMAGENET_MEAN, std=IMAGENET_STD),
        optim=replace(config.optim, shift_lr=0.3),
    )


# --------------------------------------------------------------------------------------------------- shared


def _clip() -> ClipSpec:
    return ClipSpec(  # segments need no stride
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


def _something(recipe: str, model: str) -> TrainConfig:
    return TrainConfig(
        recipe=recipe,
        model=ModelConfig(name=model),
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


def _kinetics(recipe: str, model: str) -> TrainConfig:
    return _something(recipe, model).replace(
        augment=AugmentConfig(short_side=(224, 340), crop=224, inverse_uniform=True),
        optim=_optim(lr=0.02, batch=128, weight_decay=1e-4),
        batch_size=128,
        val_views="1x1",
        test_views="",
    )


def _motion(recipe: str, model: str) -> TrainConfig:
    config = x3d_motion()
    overrides: dict[str, int | float | str] = {"width": 20, "depths": "2,2,3,2"}
    return config.replace(
        recipe=recipe,
        model=ModelConfig(name=model, overrides=overrides, dropout=0.2),
    )


PUBLISHED = (
    rubiksnet_tiny_ssv2,
    rubiksnet_small_ssv2,
    rubiksnet_medium_ssv2,
    rubiksnet_large_ssv2,
    rubiksnet_large_aq_ssv2,
    rubiksnet_tiny_k400,
    rubiksnet_small_k400,
    rubiksnet_medium_k400,
    rubiksnet_large_k400,
    rubiksnet_tiny_finetune,
)
