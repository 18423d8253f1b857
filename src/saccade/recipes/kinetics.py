"""X3D on Kinetics-400 with the settings of PySlowFast (configs/Kinetics/X3D_*.yaml).

X3D: Feichtenhofer, CVPR 2020, arXiv 2004.04730. Common to all: SGD with Nesterov momentum 0.9, learning
rate 0.1 for 128 clips (L, XL: 0.05 for 64) scaled with the batch, half-cosine over the run, 35 epochs of
warm-up from 0.01, weight decay 5e-5 except for norms; here biases do not decay either. PySlowFast also
recomputes the batch statistics over 200 batches before each validation ("precise BN"); these recipes use
the running averages (``--precise-bn 200`` for the same).

The accuracies are those of the PySlowFast and PyTorchVideo model zoos; they were not reproduced here.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from saccade.clip import ClipSpec
from saccade.recipes._variants import variant
from saccade.training.config import AugmentConfig, ModelConfig, OptimConfig, TrainConfig


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


PUBLISHED = tuple(
    variant(
        f"x3d_{size.name}_k400",
        partial(_config, size),
        "X3D-{} on Kinetics-400, {} frames x stride {}, crop {}.".format(size.name.upper(), *size.clip),
        data="k400",
        hardware=f"8 GPUs, {size.batch} clips a step. Hours: not published.",
        expected=size.expected,
        source=size.source,
    )
    for size in _SIZES
)
globals().update({recipe.__name__: recipe for recipe in PUBLISHED})
