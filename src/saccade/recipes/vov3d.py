"""VoV3D, and the X3D it was compared with, with the settings of github.com/youngwanLEE/VoV3D.

VoV3D: Lee, Kim, Yun, Moon, arXiv 2012.00317. One recipe for each row of its tables that its authors trained.
Accuracies are those of the repository's README (commit df9cc7b); they were not reproduced here.

Common to all: SGD with Nesterov momentum 0.9, weight decay 5e-5, crop 224 of a short side between 256 and
320, test crop 256, dropout 0.5. Two things differ from the originals. Neither norms nor biases decay here;
theirs means to spare norms but goes by the letters "bn" in a name, which the norms inside VoV3D's layers do
not have. And theirs recomputes the batch statistics over 200 batches before a validation; these recipes use
the running averages.

On Kinetics-400: 256 epochs at learning rate 0.1 for 128 clips, half-cosine, 35 epochs of warm-up from 0.01.

On Something-Something: 100 epochs at learning rate 0.1 for 64 clips, half-cosine, one epoch of warm-up from
0.01; no flip, because left and right are part of the labels; 1/size drawn uniformly; a frame of each segment
of the video; tested with two clips of three crops (``6-view``). Their test draws the frames at random when
there are several clips; ours are fixed, so accuracies need not agree to the last decimal. X3D was tested at
256 pixels, for which the GFLOPs of their table are; their files for X3D-L leave the flip on and draw sizes
uniformly, here as in the other rows. Fine-tuning: 50 epochs at 0.05, a tenth of that from epoch 35 and a
hundredth from 45, 0.19 epochs of warm-up from 1e-4, and batch statistics over all processes (theirs: over
four GPUs). The weights may be the authors' checkpoint or the run folder of vov3d_m_k400 or vov3d_l_k400; the
classifier is new.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import NamedTuple

from saccade.clip import ClipSpec
from saccade.recipes._registry import Recipe
from saccade.recipes._variants import variant
from saccade.recipes.motion import x3d_motion
from saccade.training.config import AugmentConfig, ModelConfig, OptimConfig, TrainConfig


class _Row(NamedTuple):
    """A row of the authors' tables: accuracies in %, and the config file in their repository."""

    name: str
    num_frames: int
    top1: float | None
    top5: float | None
    source: str

    @property
    def model(self) -> str:
        return "_".join(self.name.split("_")[:2])

    @property
    def title(self) -> str:
        family, size = self.model.split("_")
        return f"{'VoV3D' if family == 'vov3d' else 'X3D'}-{size.upper()}"


_KINETICS = (
    _Row("vov3d_m_k400", 16, 74.7, 92.1, "vov3d/vov3d_M.yaml"),
    _Row("vov3d_l_k400", 16, 76.3, 92.9, "vov3d/vov3d_L.yaml"),
    _Row("x3d_m_k400_256e", 16, 75.1, 92.2, "x3d/X3D_M_256e.yaml"),
    _Row("x3d_l_k400_256e", 16, 76.1, 92.6, "x3d/X3D_L_256scale_256e.yaml"),
)
_SOMETHING = (
    _Row("vov3d_m_ssv1_f16", 16, 49.0, 78.2, "SSv1/vov3d/vov3d_M_F16.yaml"),
    _Row("vov3d_m_ssv1_f32", 32, 50.1, 79.2, "SSv1/vov3d/vov3d_M_F32.yaml"),
    _Row("vov3d_m_ssv1_f16_finetune", 16, None, None, "SSv1/vov3d/finetune/vov3d_M_F32_finetune.yaml"),
    _Row("vov3d_m_ssv1_f32_finetune", 32, 53.3, 81.2, "SSv1/vov3d/finetune/vov3d_M_F32_finetune.yaml"),
    _Row("vov3d_l_ssv1_f16", 16, 49.5, 78.0, "SSv1/vov3d/vov3d_L_F16.yaml"),
    _Row("vov3d_l_ssv1_f32", 32, 50.6, 78.7, "SSv1/vov3d/vov3d_L_F32.yaml"),
    _Row("vov3d_l_ssv1_f16_finetune", 16, None, None, "SSv1/vov3d/finetune/vov3d_L_F32_finetune.yaml"),
    _Row("vov3d_l_ssv1_f32_finetune", 32, 54.7, 82.0, "SSv1/vov3d/finetune/vov3d_L_F32_finetune.yaml"),
    _Row("vov3d_m_ssv2_f16", 16, 63.6, 88.6, "SSv2/vov3d/vov3d_M_F16.yaml"),
    _Row("vov3d_m_ssv2_f32", 32, 64.3, 88.9, "SSv2/vov3d/vov3d_M_F32.yaml"),
    _Row("vov3d_m_ssv2_f16_finetune", 16, None, None, "SSv2/vov3d/finetune/vov3d_M_F32_finetune.yaml"),
    _Row("vov3d_m_ssv2_f32_finetune", 32, 65.8, 89.6, "SSv2/vov3d/finetune/vov3d_M_F32_finetune.yaml"),
    _Row("vov3d_l_ssv2_f16", 16, 64.5, 88.7, "SSv2/vov3d/vov3d_L_F16.yaml"),
    _Row("vov3d_l_ssv2_f32", 32, 65.9, 89.6, "SSv2/vov3d/vov3d_L_F32.yaml"),
    _Row("vov3d_l_ssv2_f16_finetune", 16, None, None, "SSv2/vov3d/finetune/vov3d_L_F32_finetune.yaml"),
    _Row("vov3d_l_ssv2_f32_finetune", 32, 67.4, 90.5, "SSv2/vov3d/finetune/vov3d_L_F32_finetune.yaml"),
    _Row("x3d_m_ssv1", 16, 46.4, 75.3, "SSv1/x3d/x3d_M.yaml"),
    _Row("x3d_l_ssv1", 16, 47.1, 76.5, "SSv1/x3d/x3d_L.yaml"),
    _Row("x3d_m_ssv2", 16, 63.1, 88.0, "SSv2/x3d/x3d_M.yaml"),
    _Row("x3d_l_ssv2", 16, 62.7, 87.8, "SSv2/x3d/x3d_L.yaml"),
)


def _kinetics(row: _Row) -> TrainConfig:
    config = TrainConfig(
        recipe=row.name,
        model=ModelConfig(name=row.model),
        clip=ClipSpec(num_frames=row.num_frames, stride=5, crop=256, short_side=256),
        augment=AugmentConfig(short_side=(256, 320), crop=224),
        optim=OptimConfig(lr=0.1, reference_batch=128, weight_decay=5e-5, warmup_epochs=35, warmup_lr=0.01),
        epochs=256,
        batch_size=128,
        temporal_rule="vov3d",
        workers=8,
        val_every=10,
        save_minutes=20,
    )
    if row.name == "x3d_m_k400_256e":
        return config.replace(temporal_rule="pyslowfast-selective")
    if row.name == "x3d_l_k400_256e":
        return config.replace(batch_size=64, optim=replace(config.optim, lr=0.05, reference_batch=64))
    return config


def _something(row: _Row) -> TrainConfig:
    config = TrainConfig(
        recipe=row.name,
        model=ModelConfig(name=row.model),
        clip=ClipSpec(num_frames=row.num_frames, stride=1, crop=256, short_side=256),  # stride is not used
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
    if not row.name.endswith("_finetune"):
        return config
    optim = replace(
        config.optim, lr=0.05, schedule="step", steps=(35, 45), warmup_epochs=0.19, warmup_lr=1e-4
    )
    return config.replace(optim=optim, epochs=50, sync_bn=True)


def _of_kinetics(row: _Row) -> Recipe:
    batch = 64 if row.name == "x3d_l_k400_256e" else 128
    compared = " with 256 epochs: the VoV3D authors' comparison" if row.name.startswith("x3d") else ""
    return variant(
        row.name,
        partial(_kinetics, row),
        f"{row.title} on Kinetics-400, 16 frames x stride 5, crop 224{compared}.",
        data="k400",
        hardware=f"8 V100 GPUs, {batch} clips per step. Hours: not published.",
        expected=f"{row.top1} % top-1, {row.top5} % top-5 with 10x3 views (VoV3D's repository).",
        source=f"VoV3D configs/Kinetics/{row.source}.",
    )


def _of_something(row: _Row) -> Recipe:
    version = "1" if "_ssv1" in row.name else "2"
    finetune = row.name.endswith("_finetune")
    start = "starting from Kinetics-400 weights" if finetune else "from scratch"
    compared = ": the VoV3D authors' comparison" if row.name.startswith("x3d") else ""
    return variant(
        row.name,
        partial(_something, row),
        f"{row.title} on Something-Something v{version}, {row.num_frames} frames, {start}{compared}.",
        data=f"ssv{version}",
        flags=f"--model.weights {row.model}_k400.pyth" if finetune else "",
        hardware="8 V100 GPUs, 64 clips per step. Hours: not published.",
        expected="not published."
        if row.top1 is None
        else f"{row.top1} % top-1, {row.top5} % top-5 with 6 views (VoV3D's repository).",
        source=f"VoV3D configs/{row.source}"
        + (", for 32 frames; the README names a file for 16 that is missing." if row.top1 is None else "."),
    )


PUBLISHED = (*map(_of_kinetics, _KINETICS), *map(_of_something, _SOMETHING))
globals().update({recipe.__name__: recipe for recipe in PUBLISHED})


def vov3d_m_motion() -> TrainConfig:
    """A small VoV3D on the procedural `motion` clips, with the compute and the training of x3d_motion.

    Command: ``saccade data motion data/motion && saccade train vov3d_m_motion --data data/motion``
    Hardware: two CPU cores. 0.0333 GMACs per clip (x3d_motion: 0.0339).
    Expected: 95.0 % top-1 with 3x1 views (measured, one seed; see RESULTS.md).
    Source: this project.
    """
    overrides: dict[str, int | float | str] = {"inner_channels": 16, "depths": "1,2,2,2"}
    return x3d_motion().replace(
        recipe="vov3d_m_motion", model=ModelConfig(name="vov3d_m", overrides=overrides, dropout=0.2)
    )
