"""MaskFeat: pre-training without labels, then fine-tuning or a linear probe from that run's folder.

    saccade train maskfeat_motion_pretrain --data data/motion
    saccade train maskfeat_motion_finetune --data data/motion --model.weights runs/maskfeat_motion_pretrain
    saccade train maskfeat_motion_probe --data data/motion --model.weights runs/maskfeat_motion_pretrain

MaskFeat: Wei et al., CVPR 2022, arXiv 2112.09133. The authors' settings are those of PySlowFast
(configs/masked_ssl); VideoTransformer-pytorch (github.com/mx-mark/VideoTransformer-pytorch) has others for a
network of its own. Accuracies are the authors'; they were not reproduced here. docs/maskfeat.md says how the
two differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from saccade.clip import ClipSpec
from saccade.recipes._registry import Recipe
from saccade.recipes._variants import variant
from saccade.training.config import AugmentConfig, MaskedConfig, ModelConfig, OptimConfig, TrainConfig

_CLIP = ClipSpec(num_frames=16, stride=4, crop=224, short_side=256)
_RUN: dict[str, Any] = {"workers": 8, "val_every": 20, "save_minutes": 20}
_SMALL: dict[str, int | float | str] = {
    "embed_dim": 32,
    "depth": 8,
    "widen_at": "1,3",
    "pool_q_at": "1,3",
    "kv_stride": 4,
    "init": "scaled",
}
_AT_THE_MEAN: dict[str, int | float | str] = {"head_init_scale": 0.1, "head_init_bias": 0.25}


def _crops(least: float) -> AugmentConfig:
    return AugmentConfig(short_side=(256, 256), crop=224, area=(least, 1.0), aspect=(0.75, 1.3333))


def _optim(*, lr: float, batch: int, **fields: Any) -> OptimConfig:
    return OptimConfig(
        name="adamw", lr=lr, reference_batch=batch, weight_decay=0.05, cosine_after_warmup=True, **fields
    )


def _probe(recipe: str, model: str, *, temporal_rule: str) -> TrainConfig:
    return TrainConfig(
        recipe=recipe,
        model=ModelConfig(name=model, dropout=0.0, drop_path=0.0, freeze=-1),
        clip=_CLIP,
        augment=_crops(0.5),
        optim=OptimConfig(lr=0.1, reference_batch=256, weight_decay=0.0),
        epochs=30,
        batch_size=256,
        temporal_rule=temporal_rule,
        test_views="10x1",
        **_RUN,
    )


# ------------------------------------------------------------------------------------- the authors' settings


def maskfeat_mvitv2_s_k400_pretrain() -> TrainConfig:
    """MaskFeat by its authors: MViTv2-S on the clips of Kinetics-400, 16 frames x stride 4, crop 224.

    Command: ``torchrun --nproc_per_node 8 -m saccade train maskfeat_mvitv2_s_k400_pretrain --data k400``
    Hardware: 8 GPUs, 32 clips per step (PySlowFast's file; the learning rate scales with the batch). Hours:
    not published.
    Expected: 82.2 % top-1 once fine-tuned, see maskfeat_mvitv2_s_k400_finetune.
    Source: PySlowFast configs/masked_ssl/k400_MVITv2_S_16x4_MaskFeat_PT.yaml. 40 % of the tokens are masked
    in boxes; hard HOG of every second frame; gradients clipped at a global norm of 0.02.
    """
    return TrainConfig(
        recipe="maskfeat_mvitv2_s_k400_pretrain",
        task="masked",
        model=ModelConfig(name="maskfeat_mvitv2_small", drop_path=0.0),
        masked=MaskedConfig(rule="pyslowfast", ratio=0.4, coarse=2, scored="all"),
        clip=_CLIP,
        augment=_crops(0.5),
        optim=_optim(lr=1e-4, batch=32, min_lr=1e-6, clip_grad=0.02, warmup_epochs=10, warmup_lr=1e-6),
        epochs=300,
        batch_size=32,
        temporal_rule="pyslowfast-offset",
        **_RUN,
    )


def maskfeat_mvitv2_s_k400_finetune() -> TrainConfig:
    """MViTv2-S on Kinetics-400, fine-tuned from the authors' MaskFeat with layer decay.

    Command: ``torchrun --nproc_per_node 8 -m saccade train maskfeat_mvitv2_s_k400_finetune --data k400
    --model.weights runs/maskfeat_mvitv2_s_k400_pretrain``
    Hardware: 8 GPUs, 32 clips of 16 videos per step (PySlowFast's file). Hours: not published.
    Expected: 82.2 % top-1 with 10x1 views (PySlowFast's projects/maskfeat).
    Source: PySlowFast configs/masked_ssl/k400_MVITv2_S_16x4_FT.yaml. Epochs are counted in clips: 200 are its
    100 of two clips a video, 40 of warm-up its 20.
    """
    return TrainConfig(
        recipe="maskfeat_mvitv2_s_k400_finetune",
        model=ModelConfig(name="mvitv2_small_maskfeat", dropout=0.0, drop_path=0.1, layer_decay=0.75),
        clip=_CLIP,
        augment=replace(
            _crops(0.08),
            rand_ops=2,
            rand_magnitude=7.0,
            rand_magnitude_std=0.5,
            erasing=0.25,
            mixup=0.8,
            cutmix=1.0,
            repeats=2,
        ),
        optim=_optim(lr=6e-4, batch=32, min_lr=1e-6, clip_grad=5.0, warmup_epochs=40, warmup_lr=1e-6),
        epochs=200,
        batch_size=32,
        temporal_rule="pyslowfast-offset",
        label_smoothing=0.1,
        test_views="10x1",
        **_RUN,
    )


def maskfeat_mvitv2_s_k400_probe() -> TrainConfig:
    """Linear probe of MViTv2-S after the authors' MaskFeat, on Kinetics-400.

    Command: ``torchrun --nproc_per_node 8 -m saccade train maskfeat_mvitv2_s_k400_probe --data k400
    --model.weights runs/maskfeat_mvitv2_s_k400_pretrain``
    Hardware: 8 GPUs, 256 clips per step. Hours: not published.
    Expected: not published, not measured.
    Source: the clips of its fine-tuning with weak augmentation; the schedule follows common practice.
    """
    return _probe("maskfeat_mvitv2_s_k400_probe", "mvitv2_small_maskfeat", temporal_rule="pyslowfast-offset")


# ------------------------------------------------------------------------------- VideoTransformer-pytorch's


def maskfeat_mvit_b_k400_pretrain() -> TrainConfig:
    """MaskFeat by VideoTransformer-pytorch: MViT-B on the clips of Kinetics-400, 16 frames x stride 4.

    Command: ``torchrun --nproc_per_node 8 -m saccade train maskfeat_mvit_b_k400_pretrain --data k400``
    Hardware: 8 GPUs, 16 clips each. Hours: not published.
    Expected: not published.
    Source: VideoTransformer-pytorch's README ("pretrain mvit using maskfeat") and the defaults of its
    model_pretrain.py. A mask of 40 % of a step's tokens is held for a span of time, until 40 % of the steps
    are masked; soft HOG of the middle frame of each span. Gradients are not clipped.
    """
    return TrainConfig(
        recipe="maskfeat_mvit_b_k400_pretrain",
        task="masked",
        model=ModelConfig(name="maskfeat_mvit_base", drop_path=0.0),
        masked=MaskedConfig(rule="video-transformer", ratio=0.4, min_patches=16, scored="centre"),
        clip=_CLIP,
        augment=_crops(0.5),
        optim=_optim(lr=8e-4, batch=256, warmup_epochs=5, warmup_lr=1.6e-4),
        epochs=300,
        batch_size=128,
        temporal_rule="pyslowfast",
        precision="bfloat16",
        **_RUN,
    )


def maskfeat_mvit_b_k400_finetune() -> TrainConfig:
    """MViT-B on Kinetics-400, fine-tuned from VideoTransformer-pytorch's MaskFeat with layer decay.

    Command: ``torchrun --nproc_per_node 8 -m saccade train maskfeat_mvit_b_k400_finetune --data k400
    --model.weights runs/maskfeat_mvit_b_k400_pretrain``
    Hardware: 8 GPUs with 8 clips each. Hours: not published.
    Expected: not published.
    Source: VideoTransformer-pytorch's README ("finetune mvit with maskfeat pretrain weights") and the
    defaults of its model_pretrain.py. Its RandAugment is torchvision's, of magnitude 9 of 30; MixUp, CutMix
    and smoothing are its defaults.
    """
    return TrainConfig(
        recipe="maskfeat_mvit_b_k400_finetune",
        model=ModelConfig(name="mvit_base_maskfeat", dropout=0.0, drop_path=0.0, layer_decay=0.75),
        clip=_CLIP,
        augment=replace(_crops(0.08), rand_ops=2, rand_magnitude=3.0, mixup=0.8, cutmix=1.0),
        optim=_optim(
            lr=0.005,
            batch=256,
            min_lr=4e-6,  # 1e-6 for the 64 clips of a step
            warmup_epochs=5,
            warmup_lr=0.001,  # a fifth of the rate, as in its first epoch
        ),
        epochs=200,
        batch_size=64,
        temporal_rule="pyslowfast",
        precision="bfloat16",
        label_smoothing=0.1,
        test_views="1x3",
        **_RUN,
    )


def maskfeat_mvit_b_k400_probe() -> TrainConfig:
    """Linear probe of MViT-B after VideoTransformer-pytorch's MaskFeat, on Kinetics-400.

    Command: ``torchrun --nproc_per_node 8 -m saccade train maskfeat_mvit_b_k400_probe --data k400
    --model.weights runs/maskfeat_mvit_b_k400_pretrain``
    Hardware: 8 GPUs, 256 clips per step. Hours: not published.
    Expected: not published, not measured.
    Source: VideoTransformer-pytorch has a linear probe, but its code fails for this network; the schedule
    follows common practice.
    """
    return _probe("maskfeat_mvit_b_k400_probe", "mvit_base_maskfeat", temporal_rule="pyslowfast")


# ------------------------------------------------------------------------------------------------- small ones


def _motion() -> TrainConfig:
    return TrainConfig(
        recipe="maskfeat_motion",
        model=ModelConfig(name="mvit_base_maskfeat", overrides={**_SMALL}),
        clip=ClipSpec(num_frames=8, stride=4, crop=64, short_side=72),
        augment=AugmentConfig(short_side=(72, 72), flip=0.0),
        optim=_optim(lr=1e-3, batch=16),
        epochs=1,
        batch_size=16,
        cache_mb=800,
        val_every=5,
    )


def _ucf10() -> TrainConfig:
    return _motion().replace(
        clip=ClipSpec(num_frames=8, stride=8, crop=64, short_side=72),
        augment=AugmentConfig(short_side=(72, 72)),
        cache_mb=1500,
    )


def _small_pretraining(config: TrainConfig, *, epochs: float, warmup_epochs: float) -> TrainConfig:
    return config.replace(
        task="masked",
        model=ModelConfig(name="maskfeat_mvit_base", overrides=_SMALL | _AT_THE_MEAN),
        masked=MaskedConfig(rule="pyslowfast", ratio=0.4, coarse=1, scored="all"),
        optim=_optim(lr=4e-4, batch=16, clip_grad=1.0, warmup_epochs=warmup_epochs, warmup_lr=1e-5),
        epochs=epochs,
        val_every=10,
    )


def _small_training(config: TrainConfig, *, epochs: float, warmup_epochs: float) -> TrainConfig:
    return config.replace(
        model=ModelConfig(
            name="mvit_base_maskfeat",
            overrides={**_SMALL, "readout": "mean"},
            dropout=0.0,
            drop_path=0.1,
        ),
        optim=_optim(lr=4e-4, batch=16, clip_grad=1.0, warmup_epochs=warmup_epochs, warmup_lr=1e-5),
        epochs=epochs,
        label_smoothing=0.1,
    )


def _small_probe(scratch: TrainConfig) -> TrainConfig:
    augment = replace(scratch.augment, area=scratch.augment.area and (0.5, 1.0))
    return scratch.replace(
        model=replace(scratch.model, freeze=-1, drop_path=0.0),
        augment=replace(augment, brightness=0.0, contrast=0.0, saturation=0.0),
        optim=OptimConfig(name="adamw", lr=3e-3, reference_batch=16, weight_decay=0.0),
        label_smoothing=0.0,
    )


def _motion_pretrain() -> TrainConfig:
    return _small_pretraining(_motion(), epochs=60, warmup_epochs=3)


def _motion_scratch() -> TrainConfig:
    return _small_training(_motion(), epochs=40, warmup_epochs=3).replace(test_views="3x1")


def _ucf10_pretrain() -> TrainConfig:
    config = _small_pretraining(_ucf10(), epochs=160, warmup_epochs=8)
    return config.replace(augment=replace(config.augment, area=(0.4, 1.0)))


def _ucf10_scratch() -> TrainConfig:
    config = _small_training(_ucf10(), epochs=80, warmup_epochs=8)
    augment = replace(config.augment, area=(0.3, 1.0), brightness=0.4, contrast=0.4, saturation=0.4)
    return config.replace(augment=augment, test_views="10x1", val_every=10)


def _small(
    name: str, build: Callable[[], TrainConfig], summary: str, expected: str, source: str = "this project."
) -> Recipe:
    data = "data/motion" if "_motion" in name else "ucf10"
    start = name.rpartition("_")[0] + "_pretrain" if name.endswith(("_finetune", "_probe")) else ""
    return variant(
        name,
        build,
        summary,
        launch=("saccade data motion data/motion && " if "_motion" in name and not start else "") + "saccade",
        data=data,
        flags=f"--model.weights runs/{start}" if start else "",
        hardware="two CPU cores.",
        expected=expected,
        source=source,
    )


_NO_DECAY = (
    "this project. {} is the same from scratch. No layer decay: 0.75 a block keeps the first blocks near "
    "their pre-trained weights, which cost more than pre-training gained."
)
_MEASURED = "{} % top-1 with {} views (measured, one seed; see RESULTS.md)."
SMALL = (
    _small(
        "maskfeat_motion_pretrain",
        _motion_pretrain,
        "MaskFeat of a small MViT on the procedural `motion` clips, without their labels.",
        "5.3 % of the variance of the masked HOG, for 2,880 clips and 12 epochs (measured, one seed; see "
        "RESULTS.md).",
        "this project. With 4x4x4 tokens VideoTransformer-pytorch's masks would leave 6 tokens a clip to "
        "learn from; so the masks are PySlowFast's, which hide 26, each scored on both its frames.",
    ),
    _small(
        "maskfeat_motion_finetune",
        _motion_scratch,
        "The small MViT on `motion`, fine-tuned from its pre-training.",
        "92.5 % top-1 with 3x1 views, pre-trained on 2,880 clips (measured, one seed).",
        _NO_DECAY.format("mvit_motion"),
    ),
    _small(
        "maskfeat_motion_probe",
        lambda: _small_probe(_motion_scratch()),
        "Linear probe of the small MViT after its pre-training on `motion`.",
        "16.7 % top-1 with 3x1 views, pre-trained on 2,880 clips (measured, one seed).",
    ),
    _small(
        "mvit_motion",
        _motion_scratch,
        "A small MViT on the procedural `motion` clips from scratch, the baseline of the pre-training.",
        _MEASURED.format(72.1, "3x1"),
    ),
    _small(
        "maskfeat_ucf10_pretrain",
        _ucf10_pretrain,
        "MaskFeat of a small MViT on the 205 training clips of ten UCF-101 classes, without their labels.",
        "12.5 % of the variance of the masked HOG (measured, one seed).",
        "this project; clips from UCF-101 (Soomro et al. 2012, arXiv 1212.0402). Masks as in "
        "maskfeat_motion_pretrain.",
    ),
    _small(
        "maskfeat_ucf10_finetune",
        _ucf10_scratch,
        "The small MViT on ten UCF-101 classes, fine-tuned from its pre-training.",
        "60.9 % top-1 with 10x1 views (measured, one seed).",
        _NO_DECAY.format("mvit_ucf10"),
    ),
    _small(
        "maskfeat_ucf10_probe",
        lambda: _small_probe(_ucf10_scratch()),
        "Linear probe of the small MViT after its pre-training on ten UCF-101 classes.",
        "47.1 % top-1 with 10x1 views (measured, one seed).",
    ),
    _small(
        "mvit_ucf10",
        _ucf10_scratch,
        "A small MViT on ten UCF-101 classes from scratch, the baseline of the pre-training.",
        _MEASURED.format(63.2, "10x1"),
        "this project; clips from UCF-101.",
    ),
)
PUBLISHED = (
    maskfeat_mvitv2_s_k400_pretrain,
    maskfeat_mvitv2_s_k400_finetune,
    maskfeat_mvitv2_s_k400_probe,
    maskfeat_mvit_b_k400_pretrain,
    maskfeat_mvit_b_k400_finetune,
    maskfeat_mvit_b_k400_probe,
)
globals().update({recipe.__name__: recipe for recipe in SMALL})
