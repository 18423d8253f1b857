"""VoV3D, and the X3D it was compared with, with the settings of github.com/youngwanLEE/VoV3D.

VoV3D: Lee, Kim, Yun, Moon, arXiv 2012.00317. One recipe for each row that its tables report as trained by its
authors. Accuracies are those of the repository's README (commit df9cc7b); nothing was trained again here.

Common to all: SGD with Nesterov momentum 0.9, decay 5e-5, crop 224 of a short side between 256 and 320, test
crop 256, dropout 0.5. Two things differ from the originals. Neither norms nor biases decay here; theirs means
to spare norms but goes by the letters "bn" in a name, which the norms inside VoV3D's layers lack. And theirs
recomputes the batch statistics over 200 batches before a validation; these recipes use the running averages.

On Kinetics-400: 256 epochs at learning rate 0.1 for 128 clips, half-cosine, 35 epochs of warm-up from 0.01.

On Something-Something: 100 epochs at learning rate 0.1 for 64 clips, half-cosine, one epoch of warm-up from
0.01; no flip, because left and right are part of the labels; 1/size drawn uniformly; a frame of each segment
of the video; tested with two clips of three crops (``6-view``). Their test draws the frames at random when
there are several clips; ours are fixed, so figures need not agree to the last decimal. Fine-tuning: 50 epochs
at 0.05, a tenth of that from epoch 35 and a hundredth from 45, 0.19 epochs of warm-up from 1e-4, and batch
statistics over all processes (theirs: over four GPUs). The weights may be the authors' checkpoint or a
`best.safetensors` of vov3d_m_k400 or vov3d_l_k400; the classifier starts anew.
"""

from __future__ import annotations

from dataclasses import replace

from saccade.clip import ClipSpec
from saccade.recipes.motion import x3d_motion
from saccade.training.config import AugmentConfig, ModelConfig, OptimConfig, TrainConfig

# ------------------------------------------------------------------------------------------------- Kinetics


def vov3d_m_k400() -> TrainConfig:
    """VoV3D-M on Kinetics-400, 16 frames x stride 5, crop 224.

    Command: ``torchrun --nproc_per_node 8 -m saccade train vov3d_m_k400 --data k400``
    Hardware: 8 V100 GPUs, 128 clips a step. Hours: not published.
    Expected: 74.7 % top-1, 92.1 % top-5 with 10x3 views (VoV3D's repository).
    Source: VoV3D configs/Kinetics/vov3d/vov3d_M.yaml.
    """
    return _kinetics("vov3d_m_k400", "vov3d_m")


def vov3d_l_k400() -> TrainConfig:
    """VoV3D-L on Kinetics-400, 16 frames x stride 5, crop 224.

    Command: ``torchrun --nproc_per_node 8 -m saccade train vov3d_l_k400 --data k400``
    Hardware: 8 V100 GPUs, 128 clips a step. Hours: not published.
    Expected: 76.3 % top-1, 92.9 % top-5 with 10x3 views (VoV3D's repository).
    Source: VoV3D configs/Kinetics/vov3d/vov3d_L.yaml.
    """
    return _kinetics("vov3d_l_k400", "vov3d_l")


def x3d_m_k400_256e() -> TrainConfig:
    """X3D-M on Kinetics-400 with 256 epochs: the VoV3D authors' comparison.

    Command: ``torchrun --nproc_per_node 8 -m saccade train x3d_m_k400_256e --data k400``
    Hardware: 8 V100 GPUs, 128 clips a step. Hours: not published.
    Expected: 75.1 % top-1, 92.2 % top-5 with 10x3 views (VoV3D's repository).
    Source: VoV3D configs/Kinetics/x3d/X3D_M_256e.yaml.
    """
    return _kinetics("x3d_m_k400_256e", "x3d_m").replace(temporal_rule="pyslowfast-selective")


def x3d_l_k400_256e() -> TrainConfig:
    """X3D-L on Kinetics-400 at crop 224 with 256 epochs: the VoV3D authors' comparison.

    Command: ``torchrun --nproc_per_node 8 -m saccade train x3d_l_k400_256e --data k400``
    Hardware: 8 V100 GPUs, 64 clips a step. Hours: not published.
    Expected: 76.1 % top-1, 92.6 % top-5 with 10x3 views (VoV3D's repository).
    Source: VoV3D configs/Kinetics/x3d/X3D_L_256scale_256e.yaml.
    """
    config = _kinetics("x3d_l_k400_256e", "x3d_l")
    return config.replace(batch_size=64, optim=replace(config.optim, lr=0.05, reference_batch=64))


# -------------------------------------------------------------------------------------- Something-Something


def vov3d_m_ssv1_f16() -> TrainConfig:
    """VoV3D-M on Something-Something v1, 16 frames, from scratch.

    Command: ``torchrun --nproc_per_node 8 -m saccade train vov3d_m_ssv1_f16 --data ssv1``
    Hardware: 8 V100 GPUs, 64 clips a step. Hours: not published.
    Expected: 49.0 % top-1, 78.2 % top-5 with 6 views (VoV3D's repository).
    Source: VoV3D configs/SSv1/vov3d/vov3d_M_F16.yaml.
    """
    return _something("vov3d_m_ssv1_f16", "vov3d_m", num_frames=16)


def vov3d_m_ssv1_f32() -> TrainConfig:
    """VoV3D-M on Something-Something v1, 32 frames, from scratch.

    Command: ``torchrun --nproc_per_node 8 -m saccade train vov3d_m_ssv1_f32 --data ssv1``
    Hardware: 8 V100 GPUs, 64 clips a step. Hours: not published.
    Expected: 50.1 % top-1, 79.2 % top-5 with 6 views (VoV3D's repository).
    Source: VoV3D configs/SSv1/vov3d/vov3d_M_F32.yaml.
    """
    return _something("vov3d_m_ssv1_f32", "vov3d_m", num_frames=32)


def vov3d_m_ssv1_f32_finetune() -> TrainConfig:
    """VoV3D-M on Something-Something v1, 32 frames, starting from Kinetics-400 weights.

    Command: ``torchrun --nproc_per_node 8 -m saccade train vov3d_m_ssv1_f32_finetune --data ssv1
    --model.weights vov3d_m_k400.pyth``
    Hardware: 8 V100 GPUs, 64 clips a step. Hours: not published.
    Expected: 53.3 % top-1, 81.2 % top-5 with 6 views (VoV3D's repository).
    Source: VoV3D configs/SSv1/vov3d/finetune/vov3d_M_F32_finetune.yaml.
    """
    return _finetune("vov3d_m_ssv1_f32_finetune", "vov3d_m", num_frames=32)


def vov3d_l_ssv1_f16() -> TrainConfig:
    """VoV3D-L on Something-Something v1, 16 frames, from scratch.

    Command: ``torchrun --nproc_per_node 8 -m saccade train vov3d_l_ssv1_f16 --data ssv1``
    Hardware: 8 V100 GPUs, 64 clips a step. Hours: not published.
    Expected: 49.5 % top-1, 78.0 % top-5 with 6 views (VoV3D's repository).
    Source: VoV3D configs/SSv1/vov3d/vov3d_L_F16.yaml.
    """
    return _something("vov3d_l_ssv1_f16", "vov3d_l", num_frames=16)


def vov3d_l_ssv1_f32() -> TrainConfig:
    """VoV3D-L on Something-Something v1, 32 frames, from scratch.

    Command: ``torchrun --nproc_per_node 8 -m saccade train vov3d_l_ssv1_f32 --data ssv1``
    Hardware: 8 V100 GPUs, 64 clips a step. Hours: not published.
    Expected: 50.6 % top-1, 78.7 % top-5 with 6 views (VoV3D's repository).
    Source: VoV3D configs/SSv1/vov3d/vov3d_L_F32.yaml.
    """
    return _something("vov3d_l_ssv1_f32", "vov3d_l", num_frames=32)


def vov3d_l_ssv1_f32_finetune() -> TrainConfig:
    """VoV3D-L on Something-Something v1, 32 frames, starting from Kinetics-400 weights.

    Command: ``torchrun --nproc_per_node 8 -m saccade train vov3d_l_ssv1_f32_finetune --data ssv1
    --model.weights vov3d_l_k400.pyth``
    Hardware: 8 V100 GPUs, 64 clips a step. Hours: not published.
    Expected: 54.7 % top-1, 82.0 % top-5 with 6 views (VoV3D's repository).
    Source: VoV3D configs/SSv1/vov3d/finetune/vov3d_L_F32_finetune.yaml.
    """
    return _finetune("vov3d_l_ssv1_f32_finetune", "vov3d_l", num_frames=32)


def vov3d_m_ssv2_f16() -> TrainConfig:
    """VoV3D-M on Something-Something v2, 16 frames, from scratch.

    Command: ``torchrun --nproc_per_node 8 -m saccade train vov3d_m_ssv2_f16 --data ssv2``
    Hardware: 8 V100 GPUs, 64 clips a step. Hours: not published.
    Expected: 63.6 % top-1, 88.6 % top-5 with 6 views (VoV3D's repository).
    Source: VoV3D configs/SSv2/vov3d/vov3d_M_F16.yaml.
    """
    return _something("vov3d_m_ssv2_f16", "vov3d_m", num_frames=16)


def vov3d_m_ssv2_f32() -> TrainConfig:
    """VoV3D-M on Something-Something v2, 32 frames, from scratch.

    Command: ``torchrun --nproc_per_node 8 -m saccade train vov3d_m_ssv2_f32 --data ssv2``
    Hardware: 8 V100 GPUs, 64 clips a step. Hours: not published.
    Expected: 64.3 % top-1, 88.9 % top-5 with 6 views (VoV3D's repository).
    Source: VoV3D configs/SSv2/vov3d/vov3d_M_F32.yaml.
    """
    return _something("vov3d_m_ssv2_f32", "vov3d_m", num_frames=32)


def vov3d_m_ssv2_f32_finetune() -> TrainConfig:
    """VoV3D-M on Something-Something v2, 32 frames, starting from Kinetics-400 weights.

    Command: ``torchrun --nproc_per_node 8 -m saccade train vov3d_m_ssv2_f32_finetune --data ssv2
    --model.weights vov3d_m_k400.pyth``
    Hardware: 8 V100 GPUs, 64 clips a step. Hours: not published.
    Expected: 65.8 % top-1, 89.6 % top-5 with 6 views (VoV3D's repository).
    Source: VoV3D configs/SSv2/vov3d/finetune/vov3d_M_F32_finetune.yaml.
    """
    return _finetune("vov3d_m_ssv2_f32_finetune", "vov3d_m", num_frames=32)


def vov3d_l_ssv2_f16() -> TrainConfig:
    """VoV3D-L on Something-Something v2, 16 frames, from scratch.

    Command: ``torchrun --nproc_per_node 8 -m saccade train vov3d_l_ssv2_f16 --data ssv2``
    Hardware: 8 V100 GPUs, 64 clips a step. Hours: not published.
    Expected: 64.5 % top-1, 88.7 % top-5 with 6 views (VoV3D's repository).
    Source: VoV3D configs/SSv2/vov3d/vov3d_L_F16.yaml.
    """
    return _something("vov3d_l_ssv2_f16", "vov3d_l", num_frames=16)


def vov3d_l_ssv2_f32() -> TrainConfig:
    """VoV3D-L on Something-Something v2, 32 frames, from scratch.

    Command: ``torchrun --nproc_per_node 8 -m saccade train vov3d_l_ssv2_f32 --data ssv2``
    Hardware: 8 V100 GPUs, 64 clips a step. Hours: not published.
    Expected: 65.9 % top-1, 89.6 % top-5 with 6 views (VoV3D's repository).
    Source: VoV3D configs/SSv2/vov3d/vov3d_L_F32.yaml.
    """
    return _something("vov3d_l_ssv2_f32", "vov3d_l", num_frames=32)


def vov3d_l_ssv2_f32_finetune() -> TrainConfig:
    """VoV3D-L on Something-Something v2, 32 frames, starting from Kinetics-400 weights.

    Command: ``torchrun --nproc_per_node 8 -m saccade train vov3d_l_ssv2_f32_finetune --data ssv2
    --model.weights vov3d_l_k400.pyth``
    Hardware: 8 V100 GPUs, 64 clips a step. Hours: not published.
    Expected: 67.4 % top-1, 90.5 % top-5 with 6 views (VoV3D's repository).
    Source: VoV3D configs/SSv2/vov3d/finetune/vov3d_L_F32_finetune.yaml.
    """
    return _finetune("vov3d_l_ssv2_f32_finetune", "vov3d_l", num_frames=32)


def x3d_m_ssv1() -> TrainConfig:
    """X3D-M on Something-Something v1, 16 frames, crop 224, from scratch: the VoV3D authors' comparison.

    Command: ``torchrun --nproc_per_node 8 -m saccade train x3d_m_ssv1 --data ssv1``
    Hardware: 8 V100 GPUs, 64 clips a step. Hours: not published.
    Expected: 46.4 % top-1, 75.3 % top-5 with 6 views (VoV3D's repository).
    Source: VoV3D configs/SSv1/x3d/x3d_M.yaml; tested at 256, for which the GFLOPs of its table are.
    """
    return _something("x3d_m_ssv1", "x3d_m", num_frames=16)


def x3d_l_ssv1() -> TrainConfig:
    """X3D-L on Something-Something v1, 16 frames, crop 224, from scratch: the VoV3D authors' comparison.

    Command: ``torchrun --nproc_per_node 8 -m saccade train x3d_l_ssv1 --data ssv1``
    Hardware: 8 V100 GPUs, 64 clips a step. Hours: not published.
    Expected: 47.1 % top-1, 76.5 % top-5 with 6 views (VoV3D's repository).
    Source: VoV3D configs/SSv1/x3d/x3d_L.yaml; tested at 256, for which the GFLOPs of its table are.
    That file leaves the flip on and draws sizes uniformly; here as for the other rows.
    """
    return _something("x3d_l_ssv1", "x3d_l", num_frames=16)


def x3d_m_ssv2() -> TrainConfig:
    """X3D-M on Something-Something v2, 16 frames, crop 224, from scratch: the VoV3D authors' comparison.

    Command: ``torchrun --nproc_per_node 8 -m saccade train x3d_m_ssv2 --data ssv2``
    Hardware: 8 V100 GPUs, 64 clips a step. Hours: not published.
    Expected: 63.1 % top-1, 88.0 % top-5 with 6 views (VoV3D's repository).
    Source: VoV3D configs/SSv2/x3d/x3d_M.yaml; tested at 256, for which the GFLOPs of its table are.
    """
    return _something("x3d_m_ssv2", "x3d_m", num_frames=16)


def x3d_l_ssv2() -> TrainConfig:
    """X3D-L on Something-Something v2, 16 frames, crop 224, from scratch: the VoV3D authors' comparison.

    Command: ``torchrun --nproc_per_node 8 -m saccade train x3d_l_ssv2 --data ssv2``
    Hardware: 8 V100 GPUs, 64 clips a step. Hours: not published.
    Expected: 62.7 % top-1, 87.8 % top-5 with 6 views (VoV3D's repository).
    Source: VoV3D configs/SSv2/x3d/x3d_L.yaml; tested at 256, for which the GFLOPs of its table are.
    That file leaves the flip on and draws sizes uniformly; here as for the other rows.
    """
    return _something("x3d_l_ssv2", "x3d_l", num_frames=16)


# --------------------------------------------------------------------------------------------------- motion


def vov3d_m_motion() -> TrainConfig:
    """A small VoV3D on the procedural `motion` clips, with the compute and the training of x3d_motion.

    Command: ``saccade data motion data/motion && saccade train vov3d_m_motion --data data/motion``
    Hardware: two CPU cores. Time and accuracy: see RESULTS.md.
    0.0333 GMACs a clip, X3D there 0.0339. Source: this project.
    """
    overrides: dict[str, int | float | str] = {"inner_channels": 16, "depths": "1,2,2,2"}
    return x3d_motion().replace(
        recipe="vov3d_m_motion", model=ModelConfig(name="vov3d_m", overrides=overrides, dropout=0.2)
    )


# --------------------------------------------------------------------------------------------------- shared


def _kinetics(recipe: str, model: str) -> TrainConfig:
    return TrainConfig(
        recipe=recipe,
        model=ModelConfig(name=model),
        clip=ClipSpec(num_frames=16, stride=5, crop=256, short_side=256),
        augment=AugmentConfig(short_side=(256, 320), crop=224),
        optim=OptimConfig(lr=0.1, reference_batch=128, weight_decay=5e-5, warmup_epochs=35, warmup_lr=0.01),
        epochs=256,
        batch_size=128,
        temporal_rule="vov3d",
        workers=8,
        val_every=10,
        save_minutes=20,
    )


def _something(recipe: str, model: str, *, num_frames: int) -> TrainConfig:
    return TrainConfig(
        recipe=recipe,
        model=ModelConfig(name=model),
        clip=ClipSpec(num_frames=num_frames, stride=1, crop=256, short_side=256),  # segments need no stride
        augment=AugmentConfig(short_side=(256, 320), crop=224, flip=0.0, inverse_uniform=True),
        optim=OptimConfig(lr=0.1, reference_batch=64, weight_decay=5e-5, warmup_epochs=1, warmup_lr=0.01),
        epochs=100,
        batch_size=64,
        temporal_rule="vov3d-ssv",
        workers=8,
        val_every=2,
        test_views="6-view",
        save_minutes=20,
    )


def _finetune(recipe: str, model: str, *, num_frames: int) -> TrainConfig:
    return _something(recipe, model, num_frames=num_frames).replace(
        optim=OptimConfig(
            lr=0.05,
            reference_batch=64,
            weight_decay=5e-5,
            schedule="step",
            steps=(35, 45),
            warmup_epochs=0.19,
            warmup_lr=1e-4,
        ),
        epochs=50,
        sync_bn=True,
    )


PUBLISHED = (
    vov3d_m_k400,
    vov3d_l_k400,
    x3d_m_k400_256e,
    x3d_l_k400_256e,
    vov3d_m_ssv1_f16,
    vov3d_m_ssv1_f32,
    vov3d_m_ssv1_f32_finetune,
    vov3d_l_ssv1_f16,
    vov3d_l_ssv1_f32,
    vov3d_l_ssv1_f32_finetune,
    vov3d_m_ssv2_f16,
    vov3d_m_ssv2_f32,
    vov3d_m_ssv2_f32_finetune,
    vov3d_l_ssv2_f16,
    vov3d_l_ssv2_f32,
    vov3d_l_ssv2_f32_finetune,
    x3d_m_ssv1,
    x3d_l_ssv1,
    x3d_m_ssv2,
    x3d_l_ssv2,
)
"""The rows of the tables, for the list of recipes."""
