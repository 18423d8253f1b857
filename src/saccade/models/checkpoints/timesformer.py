"""TimeSformer checkpoints of its authors.

Names were read in github.com/facebookresearch/TimeSformer.
"""

from __future__ import annotations

from torch import nn

from saccade.models.checkpoints.formats import CheckpointFormat, Conversion, register_checkpoint_format
from saccade.models.checkpoints.videotransformer import to_tubelets
from saccade.models.timesformer import TimeSformer

AUTHORS_EPS = 1e-6


def _finish(result: Conversion, model: nn.Module) -> None:
    to_tubelets(result, model)
    eps = getattr(getattr(model, "config", None), "norm_eps", AUTHORS_EPS)
    if eps != AUTHORS_EPS:
        result.notes.append(
            f"the authors' network has norm_eps={AUTHORS_EPS:g} and this model {eps:g}: "
            f"build it with norm_eps={AUTHORS_EPS:g} to have the same logits"
        )


register_checkpoint_format(
    CheckpointFormat(
        name="TimeSformer's authors",
        models=TimeSformer,
        marker="blocks.0.attn.qkv.weight",
        prefixes={
            "cls_token": "embed.cls_token",
            "pos_embed": "embed.pos_embed",
            "time_embed": "embed.time_embed",
            "patch_embed.proj.": "embed.patch.",
            "norm.": "head.norm.",
            "head.": "head.classifier.",
        },
        block=r"blocks\.(?P<index>\d+)\.",
        block_name="layers.{index}.",
        parts={
            "temporal_norm1.": "time_norm.",
            "temporal_attn.": "time_attn.",
            "temporal_fc.": "time_fc.",
            **{name: name for name in ("norm1.", "attn.", "norm2.", "mlp.fc1.", "mlp.fc2.")},
        },
        finish=_finish,
    )
)
