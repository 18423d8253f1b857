"""X3D on Charades: X3D-M as X3D-Multigrid trains it, X3D-XL as in the paper.

Charades: Sigurdsson et al., ECCV 2016, arXiv 1604.01753. Common to the two of X3D-Multigrid
(github.com/kkahatapitiya/X3D-Multigrid): 16 frames, one every 10 at 24 frames a second, so 6.7 seconds; crop
224 of a short side of 256, flipped half of the time; SGD with momentum 0.9 at learning rate 0.04 for 32
clips, a tenth of that after more than two validations in a row without improvement (one every two epochs),
100 epochs, weight decay 1e-5, no warm-up; dropout 0.5; weights of X3D-M from Kinetics-400. The original has
plain momentum, these recipes Nesterov's, and it decays norms and biases too.

The accuracies are those of its README and of the paper; they were not reproduced here.
"""

from __future__ import annotations

from saccade.clip import ClipSpec
from saccade.training.config import AugmentConfig, ModelConfig, OptimConfig, TrainConfig


def x3d_m_charades() -> TrainConfig:
    """X3D-M on Charades, multi-label classification: which of 157 actions happen in a video.

    Command: ``saccade train x3d_m_charades --data Charades --root Charades_v1_rgb
    --model.weights x3d_m.pyth``
    Hardware: 2 Titan RTX GPUs, 32 clips per step. Hours: "a few" (README).
    Expected: 35.0 % mAP with 10x1 views and the largest score of each class (X3D-Multigrid's README, which
    counts classes without a positive as zero; in the test set every class has positives).
    Source: X3D-Multigrid train_x3d_charades.py. A training clip has the labels present between its first and
    its last frame. Clips are of raw frames, as the published folders of frames have 24 a second; for videos
    of other rates use ``--temporal-rule saccade``. PySlowFast's protocol on Charades is ``saccade test RUN
    --views 10x3 --crop 256 --temporal-rule pyslowfast-charades``.
    """
    return TrainConfig(
        recipe="x3d_m_charades",
        task="multi-label",
        model=ModelConfig(name="x3d_m", dropout=0.5),
        clip=ClipSpec(
            num_frames=16,
            stride=10,
            crop=224,
            short_side=224,
            target_fps=24.0,
            mean=(0.413, 0.368, 0.338),
            std=(0.131, 0.125, 0.132),
        ),
        augment=AugmentConfig(short_side=(256, 256), crop=224, flip=0.5),
        optim=OptimConfig(
            lr=0.04, reference_batch=32, momentum=0.9, weight_decay=1e-5, schedule="plateau", patience=2
        ),
        epochs=100,
        batch_size=32,
        temporal_rule="x3d-multigrid",
        workers=8,
        val_views="10x1",
        val_every=2,
        test_views="10x1",
        save_minutes=20,
    )


def x3d_m_charades_loc() -> TrainConfig:
    """X3D-M on Charades, localisation: which of 157 actions happen at every time of a video.

    Command: ``saccade train x3d_m_charades_loc --data Charades --root Charades_v1_rgb --model.weights
    x3d_m.pyth``
    Hardware: 2 Titan RTX GPUs, 32 clips per step. Hours: "a few" (README).
    Expected: 17.7 % per-frame mAP (X3D-Multigrid's README).
    Source: X3D-Multigrid train_x3d_charades_loc.py, with three differences. There, the padding of short
    videos counts in the loss, and in the squeeze-excitation of the other clips of the batch. There, videos
    shorter than a clip are skipped. And its test runs the network on the whole video at once; here on
    overlapping windows of the training clip's length, so that memory does not depend on the video.
    """
    return x3d_m_charades().replace(
        recipe="x3d_m_charades_loc",
        task="localization",
        temporal_rule="saccade",
        val_views="1x1",
        test_views="",
    )


def x3d_xl_charades() -> TrainConfig:
    """X3D-XL on Charades, multi-label classification: which of 157 actions happen in a video.

    Command: ``torchrun --nproc_per_node 8 -m saccade train x3d_xl_charades --data Charades --root
    Charades_v1_rgb --model.weights x3d_xl_k600.pyth``
    Hardware: 8 GPUs, 16 clips per step. Hours: not published.
    Expected: 47.1 % mAP starting from Kinetics-600, 43.4 % from Kinetics-400, with 10x3 views and the largest
    score of each class (the X3D paper).
    Source: the X3D paper for model and accuracy; PySlowFast configs/Charades/SLOWFAST_16x8_R50.yaml for the
    schedule, as it has no config for X3D. Crops are those of X3D-L. Frames are counted raw, as in PySlowFast,
    at the 24 a second of the published folders; no public weights of X3D-XL are known.
    """
    return TrainConfig(
        recipe="x3d_xl_charades",
        task="multi-label",
        model=ModelConfig(name="x3d_xl", dropout=0.5),
        clip=ClipSpec(num_frames=16, stride=5, crop=356, short_side=356, target_fps=24.0),
        augment=AugmentConfig(short_side=(356, 446), crop=312, inverse_uniform=True),
        optim=OptimConfig(
            lr=0.0375,
            reference_batch=16,
            weight_decay=1e-4,
            schedule="step",
            steps=(41, 49),
            warmup_epochs=4,
            warmup_lr=0.0001,
        ),
        epochs=57,
        batch_size=16,
        temporal_rule="pyslowfast-charades",
        sync_bn=True,
        workers=8,
        val_every=6,
        test_views="10x3",
        save_minutes=20,
    )
