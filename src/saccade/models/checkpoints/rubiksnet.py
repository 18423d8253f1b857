"""RubiksNet checkpoints of its authors, for clips and for images.

Names were read in github.com/StanfordVL/RubiksNet.
"""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from saccade.layers import AttentionShift, RubiksShift3d
from saccade.layers.shift import init_time_
from saccade.models.checkpoints.formats import CheckpointFormat, Conversion, register_checkpoint_format
from saccade.models.rubiksnet import RubiksNet

_BLOCK_PARTS = {
    "bn1.": "norm_a.",
    "conv2.0.T": "time.temperature",
    "conv2.0.weight": "time.weight",
    "conv2.1.": "conv_a.",
    "conv2.weight": "conv_a.weight",
    "bn2.": "norm_b.",
    "as3.rubiks3d.": "shift.",
    "as3.": "shift.",
    "se.fc.0.": "se.fc1.",
    "se.fc.2.": "se.fc2.",
    "conv3.": "conv_b.",
    "shortcut.": "shortcut_conv.",
}


def _to_clips(result: Conversion, model: nn.Module) -> None:
    """2-D convolutions become (1, k, k) ones; time, which a network for images does not have, is added."""
    for key, value in result.tensors.items():
        if value.ndim == 4:
            result.tensors[key] = value.unsqueeze(2)
    for name, module in model.named_modules():
        if isinstance(module, RubiksShift3d):
            _add_time_row(result, f"{name}.shift", str(getattr(model, "time_init", "uniform")))
        elif isinstance(module, AttentionShift):
            _add_taps(result, name, module)


def _add_time_row(result: Conversion, key: str, time_init: str) -> None:
    shift = result.tensors.get(key)
    if shift is None or shift.ndim != 2 or shift.shape[0] != 2:
        return
    row = init_time_(torch.empty_like(shift[0]), time_init)
    result.tensors[key] = torch.cat((row.unsqueeze(0), shift))
    result.filled[key] = f"rows H and W from the file; row T new, time_init={time_init}"


def _add_taps(result: Conversion, name: str, module: AttentionShift) -> None:
    """A network for images has no taps, and the original never makes a hard choice."""
    reasons = {
        "weight": "kept: the file is of a network for images",
        "temperature": "kept: the file is of a network for images",
        "offset": "0: the original has no hard choice",
    }
    own: dict[str, Tensor] = {"weight": module.weight, **dict(module.named_buffers())}
    for leaf, reason in reasons.items():
        if f"{name}.{leaf}" not in result.tensors:
            value = own[leaf].detach().clone()
            result.tensors[f"{name}.{leaf}"] = torch.zeros_like(value) if leaf == "offset" else value
            result.filled[f"{name}.{leaf}"] = reason


for _name, _prefix, _classifier in (
    ("RubiksNet for images", "", "fc."),
    ("RubiksNet", "backbone.", "new_fc."),
):
    register_checkpoint_format(
        CheckpointFormat(
            name=_name,
            models=RubiksNet,
            marker=f"{_prefix}layer0.0.bn1.weight",
            prefixes={
                f"{_prefix}conv1.": "stem.",
                f"{_prefix}bn_last.": "head.norm.",
                _classifier: "head.classifier.",
            },
            block=re.escape(_prefix) + r"layer(?P<stage>[0-4])\.(?P<index>\d+)\.",
            block_name=lambda stage, index: f"res{stage + 1}.{index}.",
            parts=_BLOCK_PARTS,
            finish=_to_clips,
        )
    )
