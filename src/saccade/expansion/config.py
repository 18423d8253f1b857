"""The settings of a search, and the points of the space that it searches."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from saccade.errors import ConfigError, UsageError
from saccade.models.x3d import BASE_CROP, X3DConfig
from saccade.tasks import figure_name, get_task
from saccade.training.config import TrainConfig

Axis = Literal["fast", "temporal", "spatial", "depth", "width", "bottleneck"]
"""An expansion axis; section 3.1 of the X3D paper calls them X-Fast, X-Temporal and so on."""
AXES: tuple[Axis, ...] = get_args(Axis)

Cost = Literal["gmacs", "params", "latency_ms", "memory_mb"]
"""A field of `Complexity` that can be a target."""
COSTS: tuple[Cost, ...] = get_args(Cost)
UNITS: dict[Cost, str] = {"gmacs": "GMACs", "params": "parameters", "latency_ms": "ms", "memory_mb": "MB"}
TARGET_FLAGS: dict[Cost, str] = {
    "gmacs": "--target-gmacs",
    "params": "--target-params",
    "latency_ms": "--target-latency-ms",
    "memory_mb": "--target-memory",
}

Criterion = Literal["accuracy", "gain", "ratio"]
Runtime = Literal["saccade", "torch", "compile"]

_MAY_CHANGE = {"out", "device", "threads", "workers", "cache_mb", "latency_runs", "max_steps"}
"""Settings that may differ when a search is resumed, except for the device if the search uses latencies."""


def accuracy_name(task: str) -> str:
    """Display name of a search's accuracy: the task's main metric."""
    return figure_name(get_task(task or "single-label").figure)


@dataclass(frozen=True, kw_only=True)
class Factors:
    """A point in the search space of X3D: the clip in frames and pixels, the network in factors."""

    frames: int = 1
    stride: int = 1
    """Source frames, at the clip's frame rate, between two frames of the clip."""
    crop: int = BASE_CROP
    width: float = 1.0
    bottleneck: float = 1.0
    depth: float = 1.0

    @property
    def duration(self) -> int:
        """Source frames that the clip spans."""
        return self.frames * self.stride

    @property
    def network(self) -> dict[str, int | float | str]:
        """The fields of `X3DConfig` that do not depend on the clip."""
        return {"gamma_w": self.width, "gamma_b": self.bottleneck, "gamma_d": self.depth}

    @property
    def gammas(self) -> dict[str, Any]:
        """All six factors as fields of `X3DConfig`."""
        clip = {"gamma_tau": self.stride, "gamma_t": self.frames, "gamma_s": self.crop / BASE_CROP}
        return {**clip, **self.network}

    @property
    def config(self) -> X3DConfig:
        """An `X3DConfig` with these factors and otherwise default values."""
        return replace(X3DConfig(), **self.gammas)

    @classmethod
    def from_config(cls, config: X3DConfig) -> Factors:
        """The factors of a model's config."""
        return cls(
            frames=config.num_frames,
            stride=config.stride,
            crop=config.train_crop,
            width=config.gamma_w,
            bottleneck=config.gamma_b,
            depth=config.gamma_d,
        )

    def replace(self, **changes: Any) -> Factors:
        return replace(self, **changes)

    def __str__(self) -> str:
        return (
            f"{self.frames}x{self.stride} frames, {self.crop} pixels, "
            f"width {self.width:g}, bottleneck {self.bottleneck:g}, depth {self.depth:g}"
        )


@dataclass(frozen=True, kw_only=True)
class Complexity:
    """The cost of a forward pass of one clip.

    Attributes:
        gmacs: multiply-adds / 10⁹ of convolutions and linear layers, at the training crop.
        params: number of parameters, including the classifier for the data set's classes.
        memory_mb: peak memory of weights and live activations, in 10⁶ bytes, in float32.
        latency_ms: median latency on the device and runtime of the search; None if not measured.
    """

    gmacs: float
    params: int
    memory_mb: float
    latency_ms: float | None = None

    def cost(self, kind: Cost) -> float:
        """The field of that name.

        Raises:
            ConfigError: it was not measured.
        """
        value = getattr(self, kind)
        if value is None:
            raise ConfigError(f"{kind}: not measured in this search")
        return float(value)


@dataclass(frozen=True)
class Target:
    """An upper limit on one cost; the search ends at the largest network that meets it."""

    kind: Cost
    value: float

    def met(self, complexity: Complexity) -> bool:
        return complexity.cost(self.kind) <= self.value


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """The settings of one search.

    Attributes:
        base: recipe of the candidates. The search sets clip, network, seed and folder. ``base.data`` is the
            data set, ``base.epochs`` the number of epochs in the recipe that the search writes.
        epochs: training epochs of each candidate.
        targets: upper limits; the result meets all of them.
        cost: the cost that each step multiplies by ``rate``.
        rate: cost of a step's candidates relative to their parent's.
        criterion: how a step selects a candidate, see `saccade.expansion.criterion`.
        axes: axes that may be expanded.
        start: the first network.
        duration: source frames that the first clip with more than one frame spans.
        seeds: number of trainings of each candidate, with seeds 0, 1, ...
        out: folder of the search.
        device: device for training and for measuring latency.
        runtime: operators for measuring latency: this library's kernels, PyTorch's, or torch.compile.
        latency_runs: number of timed passes; 0 measures no latency.
        warm_start: initialise candidates with the expanded weights of their parent.
        halving: successive halving among the candidates of a step: 1/halving of them continues after each
            rung; 0 trains all of them to the end.
        max_steps: maximum number of steps.

    Raises:
        UsageError: invalid setting.
    """

    base: TrainConfig
    epochs: float
    targets: tuple[Target, ...]
    out: Path
    cost: Cost = "gmacs"
    rate: float = 2.0
    criterion: Criterion = "accuracy"
    axes: tuple[Axis, ...] = AXES
    start: Factors = Factors()
    duration: int = 48
    seeds: int = 1
    device: str = "cpu"
    runtime: Runtime = "saccade"
    latency_runs: int = 5
    warm_start: bool = False
    halving: int = 0
    max_steps: int = 30

    def __post_init__(self) -> None:
        if not self.targets:
            raise UsageError(f"no target: give at least one of {', '.join(TARGET_FLAGS.values())}")
        for target in self.targets:
            if not 0 < target.value < math.inf:
                raise UsageError(
                    f"{TARGET_FLAGS[target.kind]} must be a number above 0, got {target.value:g}"
                )
        for name, least in (("seeds", 1), ("duration", 2), ("max_steps", 1), ("latency_runs", 0)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if not 1.1 <= self.rate <= 16:
            raise UsageError(f"rate must be between 1.1 and 16, got {self.rate:g}")
        if not 0 < self.epochs < math.inf:
            raise UsageError(f"epochs must be a number above 0, got {self.epochs:g}")
        if self.halving < 0 or self.halving == 1:
            raise UsageError(f"halving must be 0 (off) or at least 2, got {self.halving}")
        if not self.axes:
            raise UsageError(f"axes must name at least one of {', '.join(AXES)}")
        if self._uses_latency and not self.latency_runs:
            raise UsageError("latency_runs must be above 0 if the target or the cost is a latency")
        if wrong := next((name for name, value in asdict(self.start).items() if not value > 0), None):
            raise UsageError(f"start: {wrong} must be above 0, got {getattr(self.start, wrong):g}")
        try:
            _ = self.start.config
        except ConfigError as error:
            raise UsageError(f"start: {error}") from None

    @property
    def _uses_latency(self) -> bool:
        return "latency_ms" in (self.cost, *(target.kind for target in self.targets))

    def replace(self, **changes: Any) -> SearchConfig:
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values, as in the journal."""
        values = asdict(self) | {"base": self.base.to_dict(), "out": str(self.out)}
        plain: dict[str, Any] = json.loads(json.dumps(values))
        return plain

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> SearchConfig:
        """The inverse of `to_dict`; missing fields, as in older journals, get their defaults."""
        values = dict(settings)
        values["base"] = TrainConfig.from_dict(values["base"])
        values["targets"] = tuple(Target(**target) for target in values["targets"])
        values["start"] = Factors(**values["start"])
        values["axes"] = tuple(values["axes"])
        values["out"] = Path(values["out"])
        return cls(**values)

    def check_continues(self, before: SearchConfig, steps_made: int) -> None:
        """Raise `ConfigError` if a search begun with the settings ``before`` cannot be resumed with these."""
        may_change = _MAY_CHANGE - ({"device"} if before._uses_latency else set())
        old, new = _flat(before.to_dict(), may_change), _flat(self.to_dict(), may_change)
        for name in sorted(old.keys() | new.keys()):
            if old.get(name) != new.get(name):
                raise ConfigError(
                    f"{name}: {new.get(name)!r}, but the search in {self.out} was begun with "
                    f"{old.get(name)!r}; resume with the same value, or start a new search with --out"
                )
        if self.max_steps < steps_made:
            raise ConfigError(
                f"max_steps: {self.max_steps}, but the search in {self.out} already has {steps_made} steps; "
                f"resume it with --max-steps {steps_made} or more"
            )


def _flat(values: dict[str, Any], without: set[str], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one dictionary with dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if name in without:
            continue
        if isinstance(value, dict) and value:
            flat |= _flat(value, without, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
