"""Checkpoints of MaskFeat's pre-training, loaded into an MViT with classes: what is left out of them.

Ours are read here; those of other code bases have their keys mapped first.
"""

from __future__ import annotations

from torch import nn

from saccade.models.checkpoints.formats import CheckpointFormat, Conversion, register_checkpoint_format
from saccade.models.mvit import MViT

_OF_PRETRAINING = ("stem.mask_token", "head.decoder.")


def leave_out_pretraining(result: Conversion, model: nn.Module) -> None:
    """Of a checkpoint of MaskFeat, leave out what a model with classes does not have."""
    for key in [key for key in result.unexpected if key.startswith("hogs.")]:
        result.unexpected.remove(key)
        result.left_out[key] = "constant filters of the targets"
    target = model.state_dict()
    masked = [name for name in result.tensors if name.startswith(_OF_PRETRAINING) and name not in target]
    if not masked:
        return
    reasons = dict.fromkeys(masked, "mask token and decoder are of pre-training")
    if getattr(getattr(model, "head", None), "readout", None) == "mean":
        # learned for every token, used here after their mean; PySlowFast initialises it anew too
        norm = [name for name in target if name.startswith("head.norm.")]
        reasons |= dict.fromkeys(norm, "the norm was learned for tokens, not for their mean")
        result.kept |= dict.fromkeys(norm, "kept: new behind the mean of the tokens")
    for theirs, ours in list(result.mapped.items()):
        if ours in reasons:
            del result.mapped[theirs]
            del result.tensors[ours]
            result.left_out[theirs] = reasons[ours]
    note = "pre-trained by MaskFeat; mask token and decoder are left out"
    new = [name for name in target if name.startswith("head.classifier.") and name not in result.tensors]
    result.kept |= dict.fromkeys(new, "kept: pre-training has no classifier")
    result.notes.append(f"{note}, the classifier is new" if new else note)


register_checkpoint_format(
    CheckpointFormat(
        name="Saccade MaskFeat",
        models=MViT,
        marker="head.decoder.weight",
        prefixes={"": ""},
        finish=leave_out_pretraining,
    )
)
