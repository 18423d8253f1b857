"""TimeSformer: the authors' settings, VideoTransformer-pytorch's with its ablation, and two small ones.

TimeSformer: Bertasius, Wang, Torresani, ICML 2021, arXiv 2102.05095. All but the small ones start from a
ViT-B/16 that was trained on ImageNet-21K: ``--model.image-weights``; see docs/transformers.md.

The authors (github.com/facebookresearch/TimeSformer, configs/): SGD with Nesterov momentum 0.9, learning
rate 0.005 for 64 clips, a tenth of it after 11 of 15 epochs and again after 14, no warm-up, decay 1e-4,
there of norms and biases too; mean 0.45, deviation 0.225; tested in three crops of one clip.

VideoTransformer-pytorch (github.com/mx-mark/VideoTransformer-pytorch) published weights for Kinetics-600 in
December 2021, with a log: steps after 5 and 11 of 15 epochs, mean and deviation 0.5. Its README then has a
newer command with a cosine, whose result it does not state.

The accuracies are those of the authors' repositories; they have not been trained again here.
"""

from __future__ import annotations

from dataclasses import replace

from saccade.clip import ClipSpec
from saccade.recipes.motion import x3d_motion
from saccade.recipes.ucf import x3d_ucf10
from saccade.training.config import AugmentConfig, ModelConfig, OptimConfig, TrainConfig

HALF = (0.5, 0.5, 0.5)
CENTRE = AugmentConfig(short_side=(256, 256), crop=224, area=(1.0, 1.0), aspect=(1.0, 1.0), flip=0.0)
"""The largest square in the middle of the frame, resized; nothing is drawn."""

# ------------------------------------------------------------------------------------- the authors' settings


def timesformer_k400() -> TrainConfig:
    """TimeSformer on Kinetics-400, 8 frames x stride 32, crop 224.

    Command: ``torchrun --nproc_per_node 8 -m saccade train timesformer_k400 --data k400 --model.image-weights
    vit_base_patch16_224.safetensors``
    Hardware: 8 V100 GPUs with 32 GB, 64 clips a step. Hours: not published with these settings.
    Expected: 77.9 % top-1, 93.2 % top-5 with 1x3 views (the authors' repository).
    Source: TimeSformer configs/Kinetics/TimeSformer_divST_8x32_224.yaml.
    """
    return _authors("timesformer_k400", num_frames=8, stride=32)


def timesformer_joint_k400() -> TrainConfig:
    """TimeSformer with attention among all patches of a clip: Kinetics-400, 8 frames x stride 32, crop 224.

    Command: ``torchrun --nproc_per_node 8 -m saccade train timesformer_joint_k400 --data k400
    --model.image-weights vit_base_patch16_224.safetensors``
    Hardware: 8 V100 GPUs with 32 GB, 64 clips a step. Hours: not published.
    Expected: 77.0 % top-1, 93.1 % top-5 with 1x3 views (MMAction2's model zoo, same settings).
    Source: TimeSformer configs/Kinetics/TimeSformer_jointST_8x32_224.yaml.
    """
    return _authors("timesformer_joint_k400", num_frames=8, stride=32, model="timesformer_base_joint")


def timesformer_space_k400() -> TrainConfig:
    """TimeSformer with attention within each frame alone: Kinetics-400, 8 frames x stride 32, crop 224.

    Command: ``torchrun --nproc_per_node 8 -m saccade train timesformer_space_k400 --data k400
    --model.image-weights vit_base_patch16_224.safetensors``
    Hardware: 8 V100 GPUs with 32 GB, 64 clips a step. Hours: not published.
    Expected: 76.9 % top-1, 92.9 % top-5 with 1x3 views (MMAction2's model zoo, same settings).
    Source: TimeSformer configs/Kinetics/TimeSformer_spaceOnly_8x32_224.yaml.
    """
    return _authors("timesformer_space_k400", num_frames=8, stride=32, model="timesformer_base_space")


def timesformer_hr_k400() -> TrainConfig:
    """TimeSformer-HR on Kinetics-400, 16 frames x stride 16, crop 448.

    Command: ``torchrun --nproc_per_node 8 -m saccade train timesformer_hr_k400 --data k400
    --model.image-weights vit_base_patch16_224.safetensors``
    Hardware: 8 GPUs with about 32 GB for each 8 clips (the authors), 64 clips a step. Hours: not published.
    Expected: 79.6 % top-1, 94.0 % top-5 with 1x3 views (the authors' repository).
    Source: TimeSformer configs/Kinetics/TimeSformer_divST_16x16_448.yaml. Positions of the ViT are
    interpolated.
    """
    return _authors("timesformer_hr_k400", num_frames=16, stride=16, crop=448)


def timesformer_l_k400() -> TrainConfig:
    """TimeSformer-L on Kinetics-400, 96 frames x stride 4, crop 224.

    Command: ``torchrun --nproc_per_node 8 -m saccade train timesformer_l_k400 --data k400
    --model.image-weights vit_base_patch16_224.safetensors``
    Hardware: 8 GPUs with about 32 GB for each 8 clips (the authors), 64 clips a step. Hours: not published.
    Expected: 80.6 % top-1, 94.7 % top-5 with 1x3 views (the authors' repository).
    Source: TimeSformer configs/Kinetics/TimeSformer_divST_96x4_224.yaml.
    """
    return _authors("timesformer_l_k400", num_frames=96, stride=4)


def timesformer_k600() -> TrainConfig:
    """TimeSformer on Kinetics-600, 8 frames x stride 32, crop 224.

    Command: ``torchrun --nproc_per_node 8 -m saccade train timesformer_k600 --data k600 --model.image-weights
    vit_base_patch16_224.safetensors``
    Hardware: 8 V100 GPUs with 32 GB, 64 clips a step. Hours: not published.
    Expected: 79.1 % top-1, 94.4 % top-5 with 1x3 views (the authors' repository).
    Source: the settings for Kinetics-400; the authors have no file for Kinetics-600.
    """
    return timesformer_k400().replace(recipe="timesformer_k600")


def timesformer_hr_k600() -> TrainConfig:
    """TimeSformer-HR on Kinetics-600, 16 frames x stride 16, crop 448.

    Command: ``torchrun --nproc_per_node 8 -m saccade train timesformer_hr_k600 --data k600
    --model.image-weights vit_base_patch16_224.safetensors``
    Hardware: as timesformer_hr_k400. Hours: not published.
    Expected: 81.8 % top-1, 95.8 % top-5 with 1x3 views (the authors' repository).
    Source: the settings for Kinetics-400; the authors have no file for Kinetics-600.
    """
    return timesformer_hr_k400().replace(recipe="timesformer_hr_k600")


def timesformer_l_k600() -> TrainConfig:
    """TimeSformer-L on Kinetics-600, 96 frames x stride 4, crop 224.

    Command: ``torchrun --nproc_per_node 8 -m saccade train timesformer_l_k600 --data k600
    --model.image-weights vit_base_patch16_224.safetensors``
    Hardware: as timesformer_l_k400. Hours: not published.
    Expected: 82.2 % top-1, 95.6 % top-5 with 1x3 views (the authors' repository).
    Source: the settings for Kinetics-400; the authors have no file for Kinetics-600.
    """
    return timesformer_l_k400().replace(recipe="timesformer_l_k600")


def timesformer_ssv2() -> TrainConfig:
    """TimeSformer on Something-Something v2, 8 frames, crop 224.

    Command: ``torchrun --nproc_per_node 8 -m saccade train timesformer_ssv2 --data ssv2 --model.image-weights
    vit_base_patch16_224.safetensors``
    Hardware: 8 V100 GPUs with 32 GB, 64 clips a step. Hours: not published.
    Expected: 59.1 % top-1, 85.6 % top-5 with 1x3 views (the authors' repository).
    Source: TimeSformer configs/SSv2/TimeSformer_divST_8_224.yaml.
    """
    return _something("timesformer_ssv2", num_frames=8)


def timesformer_hr_ssv2() -> TrainConfig:
    """TimeSformer-HR on Something-Something v2, 16 frames, crop 448.

    Command: ``torchrun --nproc_per_node 8 -m saccade train timesformer_hr_ssv2 --data ssv2
    --model.image-weights vit_base_patch16_224.safetensors``
    Hardware: as timesformer_hr_k400. Hours: not published.
    Expected: 61.8 % top-1, 86.9 % top-5 with 1x3 views (the authors' repository).
    Source: TimeSformer configs/SSv2/TimeSformer_divST_16_448.yaml.
    """
    return _something("timesformer_hr_ssv2", num_frames=16, crop=448)


def timesformer_l_ssv2() -> TrainConfig:
    """TimeSformer-L on Something-Something v2, 64 frames, crop 224.

    Command: ``torchrun --nproc_per_node 8 -m saccade train timesformer_l_ssv2 --data ssv2
    --model.image-weights vit_base_patch16_224.safetensors``
    Hardware: as timesformer_l_k400. Hours: not published.
    Expected: 62.0 % top-1, 87.5 % top-5 with 1x3 views (the authors' repository).
    Source: TimeSformer configs/SSv2/TimeSformer_divST_64_224.yaml.
    """
    return _something("timesformer_l_ssv2", num_frames=64)


# ------------------------------------------------------------------ VideoTransformer-pytorch and its ablation


def timesformer_k400_vt() -> TrainConfig:
    """TimeSformer on Kinetics-400 by VideoTransformer-pytorch's command: crops by area, a cosine, 30 epochs.

    Command: ``torchrun --nproc_per_node 8 -m saccade train timesformer_k400_vt --data k400
    --model.image-weights vit_base_patch16_224.safetensors``
    Hardware: 8 GPUs, 8 clips each. Hours: not published.
    Expected: not published.
    Source: VideoTransformer-pytorch's README ("finetune timesformer with imagenet pretrain weights") and
    the defaults of its model_pretrain.py: rate 0.005 for 256 clips, 5 epochs of warm-up, crops of 8 % to
    all of the frame, flips, colour jitter 0.4. Its default decay of 0.05 is meant for AdamW; its README
    advises 1e-4. The rate changes at every step here, there with each epoch.
    """
    return vt_command("timesformer_k400_vt", "timesformer_base", num_frames=8, stride=32)


def timesformer_k600_vt() -> TrainConfig:
    """TimeSformer on Kinetics-600, 8 frames x stride 32: the end of VideoTransformer-pytorch's ablation.

    Command: ``torchrun --nproc_per_node 8 -m saccade train timesformer_k600_vt --data k600
    --model.image-weights vit_base_patch16_224.safetensors``
    Hardware: 8 GPUs, 8 clips each. Hours: 12.7 (from the first to the last line of the published log,
    without its final test).
    Expected: 78.4 % top-1, 94.0 % top-5 with one centre crop of a clip, 79.1 % with 1x3 views (its README).
    Source: VideoTransformer-pytorch's README, its code of December 2021 and
    demo/log_arch_timesformer_lr5e-3_bs8_nw4_open.txt: rate 0.005 for 64 clips, a tenth after 5 and again
    after 11 epochs. Its validation draws the place of its clip at random; here it is the middle.
    """
    return _ablation("timesformer_k600_vt", stride=32)


def timesformer_k600_vt_interval24() -> TrainConfig:
    """The step before timesformer_k600_vt: frames 24 apart instead of 32.

    Command: ``torchrun --nproc_per_node 8 -m saccade train timesformer_k600_vt_interval24 --data k600
    --model.image-weights vit_base_patch16_224.safetensors``
    Hardware: 8 GPUs, 8 clips each. Hours: 11.1 (15 epochs of 44.35 minutes, its README).
    Expected: 77.7 % top-1, 93.3 % top-5 with one centre crop of a clip, 78.4 % with 1x3 views (its README).
    Source: VideoTransformer-pytorch's README, "Train Recipe (ablation study)".
    """
    return _ablation("timesformer_k600_vt_interval24", stride=24)


def timesformer_k600_vt_batch8() -> TrainConfig:
    """The step before timesformer_k600_vt_interval24: frames 16 apart.

    Command: ``torchrun --nproc_per_node 8 -m saccade train timesformer_k600_vt_batch8 --data k600
    --model.image-weights vit_base_patch16_224.safetensors``
    Hardware: 8 GPUs, 8 clips each. Hours: 8.9 (15 epochs of 35.52 minutes, its README).
    Expected: 75.8 % top-1, 92.4 % top-5 with one centre crop of a clip (its README).
    Source: VideoTransformer-pytorch's README, "Train Recipe (ablation study)".
    """
    return _ablation("timesformer_k600_vt_batch8", stride=16)


def timesformer_k600_vt_crop_flip() -> TrainConfig:
    """The step before timesformer_k600_vt_batch8: 16 clips on each GPU instead of 8, at the same rate.

    Command: ``torchrun --nproc_per_node 8 -m saccade train timesformer_k600_vt_crop_flip --data k600
    --model.image-weights vit_base_patch16_224.safetensors``
    Hardware: 8 GPUs, 16 clips each. Hours: about 7.5 (15 epochs of half an hour, its README).
    Expected: 75.7 % top-1, 92.5 % top-5 with one centre crop of a clip (its README).
    Source: VideoTransformer-pytorch's README, "Train Recipe (ablation study)"; it states no rate for this
    batch, its code scaled none at the time.
    """
    config = _ablation("timesformer_k600_vt_crop_flip", stride=16)
    return config.replace(batch_size=128, optim=replace(config.optim, reference_batch=128))


def timesformer_k600_vt_interval16() -> TrainConfig:
    """The step before timesformer_k600_vt_crop_flip: no random crops, no flips.

    Command: ``torchrun --nproc_per_node 8 -m saccade train timesformer_k600_vt_interval16 --data k600
    --model.image-weights vit_base_patch16_224.safetensors``
    Hardware: 8 GPUs, 16 clips each. Hours: not published.
    Expected: 72.9 % top-1, 91.0 % top-5 with one centre crop of a clip (its README).
    Source: VideoTransformer-pytorch's README, "Train Recipe (ablation study)". What was trained on instead
    of random crops it does not say; here it is the square in the middle.
    """
    return timesformer_k600_vt_crop_flip().replace(recipe="timesformer_k600_vt_interval16", augment=CENTRE)


def timesformer_k600_vt_base() -> TrainConfig:
    """Where VideoTransformer-pytorch's ablation begins: frames 4 apart, a clip of one second.

    Command: ``torchrun --nproc_per_node 8 -m saccade train timesformer_k600_vt_base --data k600
    --model.image-weights vit_base_patch16_224.safetensors``
    Hardware: 8 GPUs, 16 clips each. Hours: not published.
    Expected: 68.2 % top-1, 87.6 % top-5 with one centre crop of a clip (its README).
    Source: VideoTransformer-pytorch's README, "Train Recipe (ablation study)"; see
    timesformer_k600_vt_interval16.
    """
    config = timesformer_k600_vt_interval16()
    return config.replace(recipe="timesformer_k600_vt_base", clip=config.clip.replace(stride=4))


# ------------------------------------------------------------------------------------------- small, made here


def timesformer_motion() -> TrainConfig:
    """A small TimeSformer on the procedural `motion` clips, from scratch.

    Command: ``saccade data motion data/motion && saccade train timesformer_motion --data data/motion``
    Hardware: two CPU cores. A third of it: see RESULTS.md. 0.169 GMACs a clip, X3D in x3d_motion 0.034.
    No flip: left and right are classes of their own. Source: this project.
    """
    overrides: dict[str, int | float | str] = {"patch": 8, "width": 64, "depth": 4, "num_heads": 4}
    overrides["init"] = "scaled"
    return x3d_motion().replace(
        recipe="timesformer_motion",
        model=ModelConfig(name="timesformer_base", overrides=overrides, dropout=0.0, drop_path=0.05),
        optim=OptimConfig(
            name="adamw", lr=5e-4, reference_batch=16, weight_decay=0.05, warmup_epochs=5, clip_grad=1.0
        ),
        epochs=60,
    )


def timesformer_ucf10() -> TrainConfig:
    """A small TimeSformer on ten UCF-101 classes (205 training clips), from scratch.

    Command: ``saccade train timesformer_ucf10 --data ucf10``, then ``saccade test runs/timesformer_ucf10
    --data ucf10 --views 10x1``
    Hardware: two CPU cores. Time and accuracy: not measured. 0.261 GMACs a clip, X3D in x3d_ucf10 0.219. A
    transformer wants more clips than these or weights to start from; this is the measure for both. Source:
    this project.
    """
    config = x3d_ucf10()
    overrides: dict[str, int | float | str] = {"patch": 16, "width": 96, "depth": 5, "num_heads": 4}
    overrides["init"] = "scaled"
    return config.replace(
        recipe="timesformer_ucf10",
        model=ModelConfig(name="timesformer_base", overrides=overrides, dropout=0.0, drop_path=0.1),
        augment=replace(config.augment, short_side=(96, 126), area=(0.3, 1.0)),
        optim=replace(config.optim, lr=5e-4, clip_grad=1.0),
    )


# --------------------------------------------------------------------------------------------------- shared


def vt_command(recipe: str, model: str, *, num_frames: int, stride: int) -> TrainConfig:
    """What the commands of VideoTransformer-pytorch's README for TimeSformer and ViViT have in common."""
    return TrainConfig(
        recipe=recipe,
        model=ModelConfig(name=model, dropout=0.0, drop_path=0.1),
        clip=ClipSpec(num_frames=num_frames, stride=stride, crop=224, short_side=256),
        augment=AugmentConfig(
            short_side=(256, 256), crop=224, area=(0.08, 1.0), brightness=0.4, contrast=0.4, saturation=0.4
        ),
        optim=OptimConfig(
            lr=0.005,
            reference_batch=256,
            min_lr=4e-6,  # 1e-6 for the 64 clips of a step
            weight_decay=1e-4,
            cosine_after_warmup=True,
            warmup_epochs=5,
            warmup_lr=0.001,  # its first epoch has a fifth of the rate
        ),
        epochs=30,
        batch_size=64,
        temporal_rule="pyslowfast",
        precision="bfloat16",
        workers=8,
        test_views="1x3",
        save_minutes=20,
    )


def _authors(
    recipe: str, *, num_frames: int, stride: int, crop: int = 224, model: str = "timesformer_base"
) -> TrainConfig:
    sides = (256, 320) if crop == 224 else (crop, crop + 64)
    return TrainConfig(
        recipe=recipe,
        model=ModelConfig(name=model, dropout=0.0, drop_path=0.1),
        clip=ClipSpec(num_frames=num_frames, stride=stride, crop=crop, short_side=sides[0]),
        augment=AugmentConfig(short_side=sides, crop=crop),
        optim=OptimConfig(lr=0.005, reference_batch=64, weight_decay=1e-4, schedule="step", steps=(11, 14)),
        epochs=15,
        batch_size=64,
        temporal_rule="pyslowfast",
        workers=8,
        val_every=5,
        test_views="1x3",
        save_minutes=20,
    )


def _something(recipe: str, *, num_frames: int, crop: int = 224) -> TrainConfig:
    config = _authors(recipe, num_frames=num_frames, stride=1, crop=crop)  # segments need no stride
    return config.replace(
        augment=replace(config.augment, flip=0.0, inverse_uniform=True), temporal_rule="pyslowfast-ssv2"
    )


def _ablation(recipe: str, *, stride: int) -> TrainConfig:
    return TrainConfig(
        recipe=recipe,
        model=ModelConfig(name="timesformer_base", dropout=0.0, drop_path=0.1),
        clip=ClipSpec(num_frames=8, stride=stride, crop=224, short_side=256, mean=HALF, std=HALF),
        augment=AugmentConfig(short_side=(256, 320), crop=224),
        optim=OptimConfig(lr=0.005, reference_batch=64, weight_decay=1e-4, schedule="step", steps=(5, 11)),
        epochs=15,
        batch_size=64,
        temporal_rule="pyslowfast",
        precision="bfloat16",
        workers=4,
        test_views="1x3",
        save_minutes=20,
    )


PUBLISHED = (
    timesformer_k400,
    timesformer_joint_k400,
    timesformer_space_k400,
    timesformer_hr_k400,
    timesformer_l_k400,
    timesformer_k600,
    timesformer_hr_k600,
    timesformer_l_k600,
    timesformer_ssv2,
    timesformer_hr_ssv2,
    timesformer_l_ssv2,
    timesformer_k400_vt,
    timesformer_k600_vt,
    timesformer_k600_vt_interval24,
    timesformer_k600_vt_batch8,
    timesformer_k600_vt_crop_flip,
    timesformer_k600_vt_interval16,
    timesformer_k600_vt_base,
)
"""What others have published, and the steps towards it, for the list of recipes."""
