"""Registry of custom transforms, for ``augment.transform`` of a recipe."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import Tensor

from saccade.plugins import Registry

BatchTransform = Callable[[Tensor], Tensor]
"""Training batch (B, 3, T, H, W), normalised, on the model's device -> batch of as many clips."""

_Transform = TypeVar("_Transform", bound=BatchTransform)

_TRANSFORMS = Registry[BatchTransform](
    "transform", group="saccade.transforms", adopt=lambda name, made: register_transform(name)(made)
)


def register_transform(name: str) -> Callable[[_Transform], _Transform]:
    """Register a transform by ``name``; packages use the entry-point group ``saccade.transforms``.

    It runs in the training process, after all other transforms and before MixUp and CutMix.
    Torch's global generator is seeded at every step, so that a resumed run draws the same.

    Example:
        >>> import torch
        >>> from saccade.transforms import list_transforms, register_transform
        >>> @register_transform("noise")
        ... def noise(x_BCTHW):
        ...     return x_BCTHW + 0.1 * torch.randn_like(x_BCTHW)
        >>> "noise" in list_transforms()
        True
    """

    def add(transform: _Transform) -> _Transform:
        made: Any = transform
        owner = f"{getattr(made, '__module__', '')}.{getattr(made, '__qualname__', type(made).__qualname__)}"
        _TRANSFORMS.add(name, transform, owner=owner)
        return transform

    return add


def get_transform(name: str) -> BatchTransform:
    """The transform of this name.

    Raises:
        UsageError: no transform has this name.
    """
    return _TRANSFORMS[name]


def list_transforms() -> list[str]:
    """The names of all registered transforms."""
    return list(_TRANSFORMS)
