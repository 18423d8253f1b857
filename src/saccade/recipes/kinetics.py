"""X3D on Kinetics-400 with the settings of PySlowFast (configs/Kinetics/X3D_*.yaml).

X3D: Feichtenhofer, CVPR 2020, arXiv 2004.04730. Common to all: SGD with Nesterov momentum 0.9, learning
rate 0.1 for 128 clips (L: 0.05 for 64) scaled with the batch, half-cosine over the run, 35 epochs of
warm-up from 0.01, decay 5e-5 and none on norms; here biases do not decay either. PySlowFast also
recomputes the batch statistics over 200 batches before each validation ("precise BN"); these recipes use
the running averages.

The accuracies are those of the PySlowFast and PyTorchVideo model zoos; they have not been trained again here.
"""

from __future__ import annotations

from saccade.clip import ClipSpec
from saccade.training.config import AugmentConfig, ModelConfig, OptimConfig, TrainConfig


def x3d_xs_k400() -> TrainConfig:
    """X3D-XS on Kinetics-400, 4 frames x stride 12, crop 160.

    Command: ``torchrun --nproc_per_node 8 -m saccade train x3d_xs_k400 --data k400``
    Hardware: 8 GPUs, 128 clips a step. Hours: not published.
    Expected: 68.7 % top-1 with 10x1 views, 69.5 % with 10x3 (PySlowFast's model zoo).
    Source: PySlowFast configs/Kinetics/X3D_XS.yaml.
    """
    return _x3d("xs", num_frames=4, stride=12, crop=160, test_crop=182, jitter=(182, 228))


def x3d_s_k400() -> TrainConfig:
    """X3D-S on Kinetics-400, 13 frames x stride 6, crop 160.

    Command: ``torchrun --nproc_per_node 8 -m saccade train x3d_s_k400 --data k400``
    Hardware: 8 GPUs, 128 clips a step. Hours: not published.
    Expected: 73.1 % top-1 with 10x1 views, 73.5 % with 10x3 (PySlowFast's model zoo).
    Source: PySlowFast configs/Kinetics/X3D_S.yaml.
    """
    return _x3d("s", num_frames=13, stride=6, crop=160, test_crop=182, jitter=(182, 228))


def x3d_m_k400() -> TrainConfig:
    """X3D-M on Kinetics-400, 16 frames x stride 5, crop 224.

    Command: ``torchrun --nproc_per_node 8 -m saccade train x3d_m_k400 --data k400``
    Hardware: 8 GPUs, 128 clips a step. Hours: not published.
    Expected: 75.1 % top-1 with 10x1 views, 76.2 % with 10x3 (PySlowFast's model zoo).
    Source: PySlowFast configs/Kinetics/X3D_M.yaml.
    """
    return _x3d("m", num_frames=16, stride=5, crop=224, test_crop=256, jitter=(256, 320))


def x3d_l_k400() -> TrainConfig:
    """X3D-L on Kinetics-400, 16 frames x stride 5, crop 312.

    Command: ``torchrun --nproc_per_node 8 -m saccade train x3d_l_k400 --data k400``
    Hardware: 8 GPUs, 64 clips a step. Hours: not published.
    Expected: 76.9 % top-1 with 10x1 views, 77.5 % with 10x3 (PySlowFast's model zoo).
    Source: PySlowFast configs/Kinetics/X3D_L.yaml (256 epochs).
    """
    return _x3d("l", num_frames=16, stride=5, crop=312, test_crop=356, jitter=(356, 446)).replace(
        batch_size=64, epochs=256, optim=_optim(lr=0.05, batch=64)
    )


def x3d_xl_k400() -> TrainConfig:
    """X3D-XL on Kinetics-400, 16 frames x stride 5, crop 312.

    Command: ``torchrun --nproc_per_node 8 -m saccade train x3d_xl_k400 --data k400``
    Hardware: 8 GPUs, 64 clips a step. Hours: not published.
    Expected: the paper states about 78.4 % top-1 with 10x1 views and 79.1 % with 10x3; no public weights or
    config exist to check it.
    Source: the paper for the model; scales, crop and schedule are assumed to be those of X3D-L.
    """
    return x3d_l_k400().replace(recipe="x3d_xl_k400", model=ModelConfig(name="x3d_xl"))


def _x3d(
    size: str, *, num_frames: int, stride: int, crop: int, test_crop: int, jitter: tuple[int, int]
) -> TrainConfig:
    return TrainConfig(
        recipe=f"x3d_{size}_k400",
        model=ModelConfig(name=f"x3d_{size}"),
        clip=ClipSpec(num_frames=num_frames, stride=stride, crop=test_crop, short_side=test_crop),
        augment=AugmentConfig(short_side=jitter, crop=crop),
        optim=_optim(lr=0.1, batch=128),
        epochs=300,
        batch_size=128,
        temporal_rule="pyslowfast",
        workers=8,
        val_every=10,
        save_minutes=20,
    )


def _optim(*, lr: float, batch: int) -> OptimConfig:
    return OptimConfig(
        lr=lr, reference_batch=batch, momentum=0.9, weight_decay=5e-5, warmup_epochs=35, warmup_lr=0.01
    )
