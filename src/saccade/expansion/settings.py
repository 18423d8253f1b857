"""The settings of a search as its journal holds them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from saccade.errors import ConfigError
from saccade.expansion.types import Factors, SearchConfig, Target
from saccade.training.config import TrainConfig

_MAY_CHANGE = {"out", "device", "threads", "workers", "cache_mb", "latency_runs", "max_steps"}
"""Settings with which a stopped search may go on differently; the device not where a latency decides."""


def plain_settings(search: SearchConfig) -> dict[str, Any]:
    """What decides a search, as JSON has it."""
    figures = asdict(search) | {"base": search.base.to_dict(), "out": str(search.out)}
    plain: dict[str, Any] = json.loads(json.dumps(figures))
    return plain


def search_of(settings: dict[str, Any]) -> SearchConfig:
    """The inverse of `plain_settings`."""
    values = dict(settings)
    values["base"] = TrainConfig.from_dict(values["base"])
    values["targets"] = tuple(Target(**target) for target in values["targets"])
    values["start"] = Factors(**values["start"])
    values["axes"] = tuple(values["axes"])
    values["out"] = Path(values["out"])
    return SearchConfig(**values)


def check_same(before: dict[str, Any], now: dict[str, Any], out: Path) -> None:
    """Raise `ConfigError` if a search was begun with settings that would take it another way."""
    decided_by = {before["cost"], *(target["kind"] for target in before["targets"])}
    free = _MAY_CHANGE - ({"device"} if "latency_ms" in decided_by else set())
    old, new = _decisive(before, free), _decisive(now, free)
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            raise ConfigError(
                f"{name}: {new.get(name)!r}, but the search in {out} was begun with {old.get(name)!r}; "
                "resume it with that, or begin a new one with --out"
            )


def check_steps(search: SearchConfig, made: int) -> None:
    """Raise `ConfigError` if a search is to end before the steps it has made."""
    if search.max_steps < made:
        raise ConfigError(
            f"max_steps: {search.max_steps}, but the search in {search.out} has made {made} steps; "
            f"resume it with --max-steps {made} or more"
        )


def _decisive(values: dict[str, Any], free: set[str], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if name in free:
            continue
        if isinstance(value, dict) and value:
            found |= _decisive(value, free, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found
