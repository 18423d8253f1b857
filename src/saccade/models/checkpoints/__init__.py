"""Checkpoints: reading, loading and writing weights, and one module for each foreign format.

`load_weights` recognises the format of a file by its keys; `register_checkpoint_format` adds another.
"""

from __future__ import annotations

# Each of these registers its formats.
from saccade.models.checkpoints import (  # noqa: F401
    imagenet,
    maskfeat,
    mmaction2,
    pyslowfast,
    pytorchvideo,
    rubiksnet,
    timesformer,
    tsm,
    videotransformer,
    vit,
    vov3d,
    x3d_multigrid,
)
from saccade.models.checkpoints.files import read_state, read_weights, save_weights
from saccade.models.checkpoints.formats import (
    CheckpointFormat,
    Conversion,
    register_checkpoint_format,
    shorten,
)
from saccade.models.checkpoints.from_image import ImageReport, init_from_image
from saccade.models.checkpoints.load import (
    LoadReport,
    guess_models,
    load_model,
    load_weights,
    num_classes_of,
)

__all__ = [
    "CheckpointFormat",
    "Conversion",
    "ImageReport",
    "LoadReport",
    "guess_models",
    "init_from_image",
    "load_model",
    "load_weights",
    "num_classes_of",
    "read_state",
    "read_weights",
    "register_checkpoint_format",
    "save_weights",
    "shorten",
]
