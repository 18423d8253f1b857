"""MViT and MViTv2 on Kinetics from scratch, with the settings of PySlowFast (configs/Kinetics/MVIT*.yaml).

MViT: Fan et al., ICCV 2021, arXiv 2104.11227; MViTv2: Li et al., CVPR 2022, arXiv 2112.01526. Common to
all: AdamW, learning rate 1e-4 for 16 videos of two clips, scaled with the batch (PySlowFast: with the number
of machines of 8 GPUs, each of which has that batch), warmed up from 1e-6 and falling to it in a cosine,
weight decay 0.05, gradients clipped at norm 1; two clips of each video in a batch, RandAugment of 4
operations at magnitude 7, random erasing, MixUp 0.8 or CutMix 1, label smoothing 0.1, crops of 8 % to all of
the frame.

Epochs are counted in clips here: 400 are PySlowFast's 200 of two clips a video, and 60 of warm-up its 30.
Frames are read at a short side of 256 before they are cropped, there at the video's own. The accuracies are
those of PySlowFast's model zoo; they were not reproduced here.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from saccade.clip import ClipSpec
from saccade.recipes._registry import Recipe
from saccade.recipes._variants import variant
from saccade.training.config import AugmentConfig, ModelConfig, OptimConfig, TrainConfig


class _Row(NamedTuple):
    """A row of PySlowFast's model zoo: (frames, stride), and top-1 and top-5 in % with 5x1 views."""

    name: str
    model: str
    clip: tuple[int, int]
    drop_path: float
    accuracy: tuple[float, float]
    what: str
    yaml: str


_ROWS = (
    _Row("mvit_b_16x4_k400", "mvit_base_16x4", (16, 4), 0.2, (78.4, 93.5), "MViT-B", "MVIT_B_16x4_CONV.yaml"),
    _Row("mvit_b_32x3_k400", "mvit_base_32x3", (32, 3), 0.3, (80.4, 94.8), "MViT-B of 24 blocks",
         "MVIT_B_32x3_CONV.yaml"),
    _Row("mvit_b_32x3_k600", "mvit_base_32x3", (32, 3), 0.3, (83.9, 96.5), "MViT-B of 24 blocks",
         "MVIT_B_32x3_CONV.yaml, which is for both sets"),
    _Row("mvitv2_s_k400", "mvitv2_small", (16, 4), 0.2, (81.0, 94.6), "MViTv2-S", "MVITv2_S_16x4.yaml"),
    _Row("mvitv2_b_k400", "mvitv2_base", (32, 3), 0.3, (82.9, 95.7), "MViTv2-B", "MVITv2_B_32x3.yaml"),
)  # fmt: skip


def _config(row: _Row) -> TrainConfig:
    return TrainConfig(
        recipe=row.name,
        model=ModelConfig(name=row.model, dropout=0.5, drop_path=row.drop_path),
        clip=ClipSpec(num_frames=row.clip[0], stride=row.clip[1], crop=224, short_side=256),
        augment=AugmentConfig(
            short_side=(256, 256),
            crop=224,
            area=(0.08, 1.0),
            aspect=(0.75, 1.3333),
            rand_ops=4,
            rand_magnitude=7.0,
            rand_magnitude_std=0.5,
            erasing=0.25,
            mixup=0.8,
            cutmix=1.0,
            repeats=2,
        ),
        optim=OptimConfig(
            name="adamw",
            lr=1e-4,
            reference_batch=32,
            min_lr=1e-6,
            weight_decay=0.05,
            clip_grad=1.0,
            cosine_after_warmup=True,
            warmup_epochs=60,
            warmup_lr=1e-6,
        ),
        epochs=400,
        batch_size=32,
        temporal_rule="pyslowfast-offset",
        label_smoothing=0.1,
        workers=8,
        val_every=20,
        test_views="5x1",
        save_minutes=20,
    )


def _recipe(row: _Row) -> Recipe:
    frames, stride = row.clip
    data = row.name[-4:]
    return variant(
        row.name,
        partial(_config, row),
        f"{row.what} on Kinetics-{data[1:]}, {frames} frames x stride {stride}, crop 224, from scratch.",
        launch="torchrun --nnodes 16 --nproc_per_node 8 -m saccade",
        data=data,
        flags="--batch-size 512",
        hardware="16 machines of 8 GPUs, 32 clips each; the learning rate is 0.0016 for the batch of 512. "
        "Hours: not published.",
        expected="{} % top-1, {} % top-5 with 5x1 views (PySlowFast's model zoo).".format(*row.accuracy),
        source=f"PySlowFast configs/Kinetics/{row.yaml}.",
    )


PUBLISHED = tuple(map(_recipe, _ROWS))
globals().update({recipe.__name__: recipe for recipe in PUBLISHED})
