"""Checks of config fields, shared by the architectures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from saccade.errors import ConfigError


def check_number(
    name: str, value: Any, *, above: float = -math.inf, at_least: float = -math.inf, below: float = math.inf
) -> None:
    """Raise `ConfigError` unless ``value`` is a finite number within the bounds."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if number and value > above and at_least <= value < below:
        return
    bounds = [
        f"{word} {bound:g}"
        for word, bound in (("above", above), ("at least", at_least), ("below", below))
        if math.isfinite(bound)
    ]
    wanted = f"a number {' and '.join(bounds)}" if bounds else "a finite number"
    raise ConfigError(f"{name} must be {wanted}, got {value!r}")


def check_count(name: str, value: Any) -> None:
    """Raise `ConfigError` unless ``value`` is an integer above 0."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"{name} must be a positive integer, got {value!r}")


def check_flag(name: str, value: Any) -> None:
    """Raise `ConfigError` unless ``value`` is a bool."""
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be true or false, got {value!r}")


def check_choice(name: str, value: Any, allowed: Sequence[str]) -> None:
    """Raise `ConfigError` unless ``value`` is one of ``allowed``."""
    if value not in allowed:
        raise ConfigError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")


def checked_depths(depths: Any, *, num_stages: int = 4) -> tuple[int, ...]:
    """Blocks of the stages as a tuple, from a sequence or from text such as "1,2,3,2"; else `ConfigError`."""
    entries = depths.split(",") if isinstance(depths, str) else depths
    try:
        counts = tuple(int(entry) if isinstance(entry, str) else entry for entry in entries)
    except (TypeError, ValueError):
        counts = ()
    if len(counts) != num_stages or any(type(count) is not int or count < 1 for count in counts):
        raise ConfigError(
            f"depths must be {num_stages} positive integers, the blocks of the stages, e.g. 1,2,3,2; "
            f"got {depths!r}"
        )
    return counts


def checked_num_classes(num_classes: int) -> int:
    """Return ``num_classes``; raise `ConfigError` unless it is an integer of at least 0 (no classifier)."""
    if not isinstance(num_classes, int) or isinstance(num_classes, bool) or num_classes < 0:
        raise ConfigError(f"num_classes must be an integer of at least 0, got {num_classes!r}")
    return num_classes
