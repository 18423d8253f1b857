"""X3D on Kinetics with the settings of PySlowFast (configs/Kinetics/X3D_*.yaml), and those of X3D-Multigrid.

X3D: Feichtenhofer, CVPR 2020, arXiv 2004.04730. Common to PySlowFast's: SGD with Nesterov momentum 0.9,
learning rate 0.1 for 128 clips (L, XL: 0.05 for 64) scaled with the batch, half-cosine over the run, 35
epochs of warm-up from 0.01, weight decay 5e-5 except for norms; here biases do not decay either. PySlowFast
also recomputes the batch statistics over 200 batches before each validation ("precise BN"); these recipes use
the running averages (``--precise-bn 200`` for the same).

x3d_m_k400 is also the "longer schedule" of X3D-Multigrid's README, with random scales and the original
stride; x3d_m_k400_multigrid is its short one.

The accuracies are those of the PySlowFast and PyTorchVideo model zoos, of X3D-Multigrid's README and of the
paper; they were not reproduced here.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from saccade.clip import ClipSpec
from saccade.recipes._registry import Recipe
from saccade.recipes._variants import variant
from saccade.training.config import AugmentConfig, GridConfig, ModelConfig, OptimConfig, TrainConfig


class _Size(NamedTuple):
    name: str
    clip: tuple[int, int, int]
    """Frames, stride, training crop."""
    test_crop: int
    short_side: tuple[int, int]
    batch: int
    epochs: int
    expected: str
    source: str


_ZOO = "{} % top-1 with 10x1 views, {} % with 10x3 (PySlowFast's model zoo)."
_YAML = "PySlowFast configs/Kinetics/X3D_{}.yaml."
_PAPER = (
    "the paper states about 78.4 % top-1 with 10x1 views and 79.1 % with 10x3; no public weights or config."
)
_LIKE_L = "the paper for the model; scales, crop and schedule are assumed to be those of X3D-L."
_SIZES = (
    _Size("xs", (4, 12, 160), 182, (182, 228), 128, 300, _ZOO.format(68.7, 69.5), _YAML.format("XS")),
    _Size("s", (13, 6, 160), 182, (182, 228), 128, 300, _ZOO.format(73.1, 73.5), _YAML.format("S")),
    _Size("m", (16, 5, 224), 256, (256, 320), 128, 300, _ZOO.format(75.1, 76.2), _YAML.format("M")),
    _Size("l", (16, 5, 312), 356, (356, 446), 64, 256, _ZOO.format(76.9, 77.5), _YAML.format("L")),
    _Size("xl", (16, 5, 312), 356, (356, 446), 64, 256, _PAPER, _LIKE_L),
)


def _config(size: _Size) -> TrainConfig:
    num_frames, stride, crop = size.clip
    return TrainConfig(
        recipe="x3d_k400",
        model=ModelConfig(name=f"x3d_{size.name}"),
        clip=ClipSpec(num_frames=num_frames, stride=stride, crop=size.test_crop, short_side=size.test_crop),
        augment=AugmentConfig(short_side=size.short_side, crop=crop),
        optim=OptimConfig(
            lr=0.1 * size.batch / 128,
            reference_batch=size.batch,
            momentum=0.9,
            weight_decay=5e-5,
            warmup_epochs=35,
            warmup_lr=0.01,
        ),
        epochs=size.epochs,
        batch_size=size.batch,
        temporal_rule="pyslowfast",
        workers=8,
        val_every=10,
        save_minutes=20,
    )


def _on(data: str, size: _Size, *, expected: str, source: str) -> Recipe:
    return variant(
        f"x3d_{size.name}_{data}",
        partial(_config, size),
        "X3D-{} on Kinetics-{}, {} frames x stride {}, crop {}.".format(
            size.name.upper(), data[1:], *size.clip
        ),
        data=data,
        hardware=f"8 GPUs, {size.batch} clips per step. Hours: not published.",
        expected=expected,
        source=source,
    )


_K600 = {"m": "78.8 % top-1, 94.5 % top-5", "xl": "81.9 % top-1, 95.5 % top-5"}
"""Of the paper's table 5, 10x3 views."""


def _x3d_m_k400_multigrid() -> TrainConfig:
    steps_per_epoch = 220_000 // 128
    return TrainConfig(
        recipe="x3d_m_k400_multigrid",
        model=ModelConfig(name="x3d_m", overrides={"init": "x3d-multigrid", "head_pool": "global"}),
        clip=ClipSpec(
            num_frames=8,
            stride=10,
            crop=224,
            short_side=224,
            mean=(0.434, 0.405, 0.378),
            std=(0.152, 0.149, 0.157),
        ),
        augment=AugmentConfig(short_side=(256, 256), crop=224),
        optim=OptimConfig(
            lr=0.2,
            reference_batch=128,
            weight_decay=5e-5,
            schedule="step",
            steps=(48, 78, 111),
            warmup_epochs=8000 / steps_per_epoch,
        ),
        epochs=120,
        batch_size=128,
        multigrid="x3d-multigrid",
        grid=GridConfig(bn_base_size=8),
        temporal_rule="x3d-multigrid",
        workers=12,
        val_views="3x1",
        test_views="3x1",
        save_minutes=20,
    )


PUBLISHED = (
    *(_on("k400", size, expected=size.expected, source=size.source) for size in _SIZES),
    variant(
        "x3d_m_k400_multigrid",
        _x3d_m_k400_multigrid,
        "X3D-M on Kinetics-400 by X3D-Multigrid's schedule of 206,160 steps, 8 frames x stride 10, crop 224.",
        data="k400",
        launch="torchrun --nproc_per_node 4 -m saccade",
        hardware="4 Titan RTX GPUs, 128 to 2,048 clips per step, 2.8 days (its README).",
        expected="62.62 % top-1 with 3x1 views (its README; 17,227 of the 20,000 validation videos). The "
        "weights of PySlowFast give 71.48 % under this protocol.",
        source="X3D-Multigrid train_x3d_kinetics_multigrid.py: learning rate 0.2 for 128 clips, 8,000 steps "
        "of warm-up, 120 epochs of 1,718 steps, crops of 7/8 of the short side, dropout 0.5. The original "
        "has plain momentum, here it is Nesterov's, and it decays norms and biases too. Its longer schedule "
        "(random scales, stride 5) is x3d_m_k400.",
    ),
    *(
        _on(
            "k600",
            size,
            expected=f"{_K600[size.name]} with 10x3 views (the paper).",
            source="the paper for the accuracy; the settings are those for Kinetics-400.",
        )
        for size in _SIZES
        if size.name in _K600
    ),
)
globals().update({recipe.__name__: recipe for recipe in PUBLISHED})
