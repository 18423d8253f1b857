"""ViViT checkpoints of VideoTransformer-pytorch; names were read in its repository."""

from __future__ import annotations

from saccade.models._formats import WeightFormat
from saccade.models._timesformer_formats import lightning_format, plain_and_divided


def _block_name(*, encoder: int, index: int) -> str:
    return f"{('layers', 'time_layers')[encoder]}.{index}."


def _factorised(prefix: str) -> WeightFormat:
    return lightning_format(
        prefix,
        divided=False,
        marker="transformer_layers.0.layers.0.attentions.0.norm.weight",
        layers=r"transformer_layers\.(?P<encoder>[01])\.layers\.(?P<index>\d+)\.",
        block_name=_block_name,
        time_embed="to_time.time_embed",
    )


VIVIT_FORMATS = (
    *(_factorised(prefix) for prefix in ("model.", "")),
    *plain_and_divided("model."),
    *plain_and_divided(""),
)
