"""TimeSformer: the authors' settings, VideoTransformer-pytorch's with its ablation, and two small ones.

TimeSformer: Bertasius, Wang, Torresani, ICML 2021, arXiv 2102.05095. All but the small ones start from a
ViT-B/16 trained on ImageNet-21K: ``--model.image-weights``; see docs/transformers.md.

The authors (github.com/facebookresearch/TimeSformer, configs/): SGD with Nesterov momentum 0.9, learning
rate 0.005 for 64 clips, a tenth of it after 11 of 15 epochs and again after 14, no warm-up, decay 1e-4,
there of norms and biases too; mean 0.45, deviation 0.225; tested in three crops of one clip.

VideoTransformer-pytorch (github.com/mx-mark/VideoTransformer-pytorch) published weights for Kinetics-600 in
December 2021, with a log: steps after 5 and 11 of 15 epochs, mean and deviation 0.5. Its README then has a
newer command with a cosine, whose result it does not state.

The accuracies are those of the repositories; they were not reproduced here.
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

HALF = (0.5, 0.5, 0.5)
CENTRE = AugmentConfig(short_side=(256, 256), crop=224, area=(1.0, 1.0), aspect=(1.0, 1.0), flip=0.0)
"""The largest square in the middle of the frame, resized; nothing is random."""

# ------------------------------------------------------------------------------------- the authors' settings


class _Row(NamedTuple):
    """A row of the authors' tables: top-1 and top-5 in % with 1x3 views."""

    name: str
    clip: tuple[int, int, int]
    """Frames, stride (unused on Something-Something) and crop."""
    accuracy: tuple[float, float]
    yaml: str
    what: str = "TimeSformer"
    model: str = "timesformer_base"
    note: str = ""


_V100 = "8 V100 GPUs with 32 GB, 64 clips per step. Hours: not published."
_LARGE = "8 GPUs with about 32 GB for each 8 clips (the authors), 64 clips per step. Hours: not published."
_VIT = "--model.image-weights vit_base_patch16_224.safetensors"
_JOINT = "TimeSformer with attention among all patches of a clip"
_SPACE = "TimeSformer with attention within each frame only"
_POSITIONS = " The ViT's position embedding is interpolated."
_ROWS = (
    _Row("k400", (8, 32, 224), (77.9, 93.2), "TimeSformer_divST_8x32_224"),
    _Row("joint_k400", (8, 32, 224), (77.0, 93.1), "TimeSformer_jointST_8x32_224", _JOINT,
         "timesformer_base_joint"),
    _Row("space_k400", (8, 32, 224), (76.9, 92.9), "TimeSformer_spaceOnly_8x32_224", _SPACE,
         "timesformer_base_space"),
    _Row("hr_k400", (16, 16, 448), (79.6, 94.0), "TimeSformer_divST_16x16_448", "TimeSformer-HR",
         note=_POSITIONS),
    _Row("l_k400", (96, 4, 224), (80.6, 94.7), "TimeSformer_divST_96x4_224", "TimeSformer-L"),
    _Row("k600", (8, 32, 224), (79.1, 94.4), ""),
    _Row("hr_k600", (16, 16, 448), (81.8, 95.8), "", "TimeSformer-HR"),
    _Row("l_k600", (96, 4, 224), (82.2, 95.6), "", "TimeSformer-L"),
    _Row("ssv2", (8, 1, 224), (59.1, 85.6), "TimeSformer_divST_8_224"),
    _Row("hr_ssv2", (16, 1, 448), (61.8, 86.9), "TimeSformer_divST_16_448", "TimeSformer-HR"),
    _Row("l_ssv2", (64, 1, 224), (62.0, 87.5), "TimeSformer_divST_64_224", "TimeSformer-L"),
)  # fmt: skip
_DATA = {"k400": "Kinetics-400", "k600": "Kinetics-600", "ssv2": "Something-Something v2"}


def _authors(row: _Row) -> TrainConfig:
    num_frames, stride, crop = row.clip
    sides = (256, 320) if crop == 224 else (crop, crop + 64)
    config = TrainConfig(
        recipe=f"timesformer_{row.name}",
        model=ModelConfig(name=row.model, dropout=0.0, drop_path=0.1),
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
    if not row.name.endswith("ssv2"):
        return config
    augment = replace(config.augment, flip=0.0, inverse_uniform=True)
    return config.replace(augment=augment, temporal_rule="pyslowfast-ssv2")


def _of_authors(row: _Row) -> Recipe:
    num_frames, stride, crop = row.clip
    data = row.name.rpartition("_")[2]
    frames = f"{num_frames} frames" + (f" x stride {stride}" if stride > 1 else "")
    table = "the authors' repository" if row.model[-4:] == "base" else "MMAction2's model zoo, same settings"
    folder = "SSv2" if data == "ssv2" else "Kinetics"
    source = f"TimeSformer configs/{folder}/{row.yaml}.yaml.{row.note}"
    return variant(
        f"timesformer_{row.name}",
        partial(_authors, row),
        f"{row.what} on {_DATA[data]}, {frames}, crop {crop}.",
        data=data,
        flags=_VIT,
        hardware=_LARGE if row.what.endswith(("-HR", "-L")) else _V100,
        expected="{} % top-1, {} % top-5 with 1x3 views ".format(*row.accuracy) + f"({table}).",
        source=source
        if row.yaml
        else "the settings for Kinetics-400; the authors publish none for Kinetics-600.",
    )


# ------------------------------------------------------------------ VideoTransformer-pytorch and its ablation


def vt_command(recipe: str, model: str, *, num_frames: int, stride: int) -> TrainConfig:
    """What the commands in VideoTransformer-pytorch's README for TimeSformer and ViViT have in common."""
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


class _Step(NamedTuple):
    """A step of the ablation in VideoTransformer-pytorch's README, the last first; accuracies in %."""

    name: str
    summary: str
    stride: int
    batch: int
    hours: str
    centre: tuple[float, float]
    """Top-1 and top-5 with one centre crop of a clip."""
    note: str = ""
    random_crop: bool = True


_LOG = (
    ", its code of December 2021 and demo/log_arch_timesformer_lr5e-3_bs8_nw4_open.txt: learning rate 0.005 "
    "for 64 clips, a tenth of it after 5 and again after 11 epochs. Its validation places its clip at "
    "random; here it is in the middle"
)
_NO_RATE = "; it states no learning rate for this batch, its code did not scale it at the time"
_SQUARE = "; it does not say what replaced random crops, here it is the square in the middle"
_END = "TimeSformer on Kinetics-600, 8 frames x stride 32: the end of VideoTransformer-pytorch's ablation."
_START = "The start of VideoTransformer-pytorch's ablation: frames 4 apart, a clip of one second."
_BEFORE = "The step before timesformer_k600_vt{}: {}."
_ABLATION = (
    _Step("", _END, 32, 64, "12.7 (its log, without the final test)", (78.4, 94.0), _LOG),
    _Step("_interval24", _BEFORE.format("", "frames 24 apart instead of 32"), 24, 64,
          "11.1 (15 epochs of 44.35 minutes, its README)", (77.7, 93.3)),
    _Step("_batch8", _BEFORE.format("_interval24", "frames 16 apart"), 16, 64,
          "8.9 (15 epochs of 35.52 minutes, its README)", (75.8, 92.4)),
    _Step("_crop_flip", _BEFORE.format("_batch8", "16 clips on each GPU, not 8, same learning rate"), 16,
          128, "about 7.5 (15 epochs of half an hour, its README)", (75.7, 92.5), _NO_RATE),
    _Step("_interval16", _BEFORE.format("_crop_flip", "no random crops, no flips"), 16, 128, "not published",
          (72.9, 91.0), _SQUARE, random_crop=False),
    _Step("_base", _START, 4, 128, "not published", (68.2, 87.6), _SQUARE, random_crop=False),
)  # fmt: skip
_VIEWS_1x3 = {"": ", 79.1 % with 1x3 views", "_interval24": ", 78.4 % with 1x3 views"}


def _ablation(step: _Step) -> TrainConfig:
    return TrainConfig(
        recipe="timesformer_k600_vt",
        model=ModelConfig(name="timesformer_base", dropout=0.0, drop_path=0.1),
        clip=ClipSpec(num_frames=8, stride=step.stride, crop=224, short_side=256, mean=HALF, std=HALF),
        augment=AugmentConfig(short_side=(256, 320), crop=224) if step.random_crop else CENTRE,
        optim=OptimConfig(
            lr=0.005, reference_batch=step.batch, weight_decay=1e-4, schedule="step", steps=(5, 11)
        ),
        epochs=15,
        batch_size=step.batch,
        temporal_rule="pyslowfast",
        precision="bfloat16",
        workers=4,
        test_views="1x3",
        save_minutes=20,
    )


def _of_ablation(step: _Step) -> Recipe:
    return variant(
        f"timesformer_k600_vt{step.name}",
        partial(_ablation, step),
        step.summary,
        data="k600",
        flags=_VIT,
        hardware=f"8 GPUs, {step.batch // 8} clips each. Hours: {step.hours}.",
        expected="{} % top-1, {} % top-5 with one centre crop of a clip".format(*step.centre)
        + f"{_VIEWS_1x3.get(step.name, '')} (its README).",
        source=f'VideoTransformer-pytorch\'s README, "Train Recipe (ablation study)"{step.note}.',
    )


def vt_probe(recipe: str, model: str, *, num_frames: int, stride: int) -> TrainConfig:
    """What VideoTransformer-pytorch's command has with ``-eval_metrics linear_prob``: a new classifier."""
    config = vt_command(recipe, model, num_frames=num_frames, stride=stride)
    return config.replace(
        model=ModelConfig(name=model, dropout=0.0, drop_path=0.0, freeze=-1),
        optim=replace(config.optim, lr=0.1, min_lr=0.0, weight_decay=0.0, warmup_epochs=0.0, warmup_lr=0.0),
    )


PROBE_SOURCE = (
    "VideoTransformer-pytorch's ``-eval_metrics linear_prob``, which has no published settings: those of its "
    "command for fine-tuning, with the rate and weight decay of the probes after MaskFeat and no warm-up."
)

PUBLISHED = (
    *map(_of_authors, _ROWS),
    variant(
        "timesformer_probe",
        partial(vt_probe, "timesformer_probe", "timesformer_base", num_frames=8, stride=32),
        "Linear probe of TimeSformer: a new classifier on frozen features.",
        data="k400",
        flags="--model.weights timesformer_k600.pyth",
        hardware="8 GPUs with 8 clips each; or one GPU.",
        expected="not published.",
        source=PROBE_SOURCE,
    ),
    variant(
        "timesformer_k400_vt",
        partial(vt_command, "timesformer_k400_vt", "timesformer_base", num_frames=8, stride=32),
        "TimeSformer on Kinetics-400 by VideoTransformer-pytorch's command: area crops, cosine, 30 epochs.",
        data="k400",
        flags=_VIT,
        hardware="8 GPUs with 8 clips each. Hours: not published.",
        expected="not published.",
        source='VideoTransformer-pytorch\'s README ("finetune timesformer with imagenet pretrain weights") '
        "and the defaults of its model_pretrain.py: learning rate 0.005 for 256 clips, 5 epochs of warm-up, "
        "crops of 8 % to all of the frame, flips, colour jitter 0.4. Its default decay of 0.05 is meant for "
        "AdamW; its README advises 1e-4. The learning rate changes at each step here, there with each epoch.",
    ),
    *map(_of_ablation, _ABLATION),
)
globals().update({recipe.__name__: recipe for recipe in PUBLISHED})

# ------------------------------------------------------------------------------------- small, made here


def timesformer_motion() -> TrainConfig:
    """A small TimeSformer on the procedural `motion` clips, from scratch.

    Command: ``saccade data motion data/motion && saccade train timesformer_motion --data data/motion``
    Hardware: two CPU cores. 0.169 GMACs per clip (x3d_motion: 0.034).
    Expected: 32.5 % top-1 after a third of its epochs (measured, one seed; see RESULTS.md); the rest was not
    trained.
    Source: this project. No flip: left and right are different classes.
    """
    overrides: dict[str, int | float | str] = {
        "patch": 8,
        "width": 64,
        "depth": 4,
        "num_heads": 4,
        "init": "scaled",
    }
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
    Hardware: two CPU cores. 0.261 GMACs per clip (x3d_ucf10: 0.219).
    Expected: not measured. A transformer needs more clips than these, or weights to start from; this is the
    baseline for both.
    Source: this project.
    """
    config = x3d_ucf10()
    overrides: dict[str, int | float | str] = {
        "patch": 16,
        "width": 96,
        "depth": 5,
        "num_heads": 4,
        "init": "scaled",
    }
    return config.replace(
        recipe="timesformer_ucf10",
        model=ModelConfig(name="timesformer_base", overrides=overrides, dropout=0.0, drop_path=0.1),
        augment=replace(config.augment, short_side=(96, 126), area=(0.3, 1.0)),
        optim=replace(config.optim, lr=5e-4, clip_grad=1.0),
    )
