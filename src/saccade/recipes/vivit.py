"""ViViT with the settings of VideoTransformer-pytorch (github.com/mx-mark/VideoTransformer-pytorch).

ViViT: Arnab et al., ICCV 2021, arXiv 2103.15691. It starts from a ViT-B/16 trained on ImageNet-21K:
``--model.image-weights``; see docs/transformers.md. The accuracy is that of its README; it was not reproduced
here.
"""

from __future__ import annotations

from functools import partial

from saccade.recipes._variants import variant
from saccade.recipes.timesformer import PROBE_SOURCE, vt_command, vt_probe

_UNPUBLISHED = "not published."
_ATTENTION = "VideoTransformer-pytorch's README with ``-attention_type {}``."

_ROWS = (
    (
        "vivit_k400_vt",
        "vivit_base",
        "ViViT with a factorised encoder on Kinetics-400, 16 frames x stride 16, crop 224.",
        "75.2 % top-1, 91.5 % top-5 (its README, which does not say how many views, with a network in "
        "which clips of a batch see each other; see `class_token_leak`).",
        'VideoTransformer-pytorch\'s README ("finetune vivit with imagenet pretrain weights") and the '
        "defaults of its model_pretrain.py; see timesformer_k400_vt. Filters of two frames start as the "
        "image filters, halved in each.",
    ),
    (
        "vivit_joint_k400_vt",
        "vivit_base_joint",
        "ViViT with attention among all tokens of a clip, otherwise as vivit_k400_vt.",
        _UNPUBLISHED,
        _ATTENTION.format("joint_space_time"),
    ),
    (
        "vivit_divided_k400_vt",
        "vivit_base_divided",
        "ViViT with alternating attention in time and in space, otherwise as vivit_k400_vt.",
        _UNPUBLISHED,
        _ATTENTION.format("divided_space_time"),
    ),
)
"""Name, model, summary, expected accuracy and source."""

PUBLISHED = (
    *(
        variant(
            name,
            partial(vt_command, name, model, num_frames=16, stride=16),
            summary,
            data="k400",
            flags="--model.image-weights vit_base_patch16_224.safetensors",
            hardware="8 GPUs with 8 clips each. Hours: not published.",
            expected=expected,
            source=source,
        )
        for name, model, summary, expected, source in _ROWS
    ),
    variant(
        "vivit_probe",
        partial(vt_probe, "vivit_probe", "vivit_base", num_frames=16, stride=16),
        "Linear probe of ViViT: a new classifier on frozen features.",
        data="k400",
        flags="--model.weights vivit_k400.pth",
        hardware="8 GPUs with 8 clips each; or one GPU.",
        expected=_UNPUBLISHED,
        source=PROBE_SOURCE,
    ),
)
globals().update({recipe.__name__: recipe for recipe in PUBLISHED})
