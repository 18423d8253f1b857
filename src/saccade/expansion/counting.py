"""The cost of candidates: multiply-adds, parameters and memory counted on the meta device, and latency."""

from __future__ import annotations

import statistics
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from saccade.evaluation.speed import Speed, Stopwatch, random_clips, take_turns
from saccade.expansion.candidate import Candidate
from saccade.expansion.config import Complexity, Cost, Factors, Runtime
from saccade.layers import round_channels
from saccade.models import count_macs, count_params
from saccade.models.x3d import X3D, X3DConfig
from saccade.ops import use_backend

Build = Callable[[Factors], X3D]
"""Builds the network of some factors on the default device."""

MAX_TIMING_SECONDS = 120.0
MAX_TIMING_MB = 4000.0
"""The end of a search measures the latency of all its networks if this stays within these limits, otherwise
only of those on its path."""
_WARMUP_PASSES = 2


class Meter:
    """Counts the cost of networks and measures their latency, once per network.

    Args:
        build: builds the network whose clip is ``factors.frames`` x ``factors.crop``.
        device: device of the latency.
        runtime: runtime of the latency, see `SearchConfig.runtime`.
        runs: number of timed passes; 0 measures no latency.
    """

    def __init__(
        self, build: Build, *, device: str = "cpu", runtime: Runtime = "saccade", runs: int = 0
    ) -> None:
        self._build, self.device, self.runtime, self.runs = build, device, runtime, runs
        self._counted: dict[Factors, Complexity] = {}
        self._template: X3D | None = None

    def count(self, factors: Factors) -> Complexity:
        """Multiply-adds, parameters and memory for one clip, and the latency if it was measured before."""
        if factors not in self._counted:
            with torch.device("meta"):
                model = self._build(factors)
            shape = clip_shape(factors)
            self._counted[factors] = Complexity(
                gmacs=count_macs(model, shape) / 1e9,
                params=count_params(model),
                memory_mb=peak_memory(model, shape) / 1e6,
            )
        return self._counted[factors]

    def measure(self, points: Sequence[Factors]) -> list[Complexity]:
        """`count` with latency. New points are timed in turns, so that other load on the machine affects all
        of them equally.
        """
        counted = [self.count(factors) for factors in points]
        new = [f for f, known in zip(points, counted, strict=True) if known.latency_ms is None]
        if self.runs and new:
            for factors, speed in zip(new, self.time(new), strict=True):
                self._counted[factors] = replace(self._counted[factors], latency_ms=1000 * speed.median)
        return [self.count(factors) for factors in points]

    def remember(self, factors: Factors, complexity: Complexity) -> None:
        """Restore a cost from the journal."""
        self._counted[factors] = complexity

    def cost_function(self, kind: Cost) -> Callable[[Factors], float]:
        """A function from factors to the cost ``kind``.

        Multiply-adds come from `x3d_macs`, which is fast enough to try many values. Latencies are measured.
        """
        if kind == "gmacs":
            return self._gmacs
        if kind == "latency_ms":
            return lambda factors: self.measure([factors])[0].cost(kind)
        return lambda factors: self.count(factors).cost(kind)

    def _gmacs(self, factors: Factors) -> float:
        if self._template is None:
            with torch.device("meta"):
                self._template = self._build(factors)
        config = replace(self._template.config, **factors.gammas)
        return x3d_macs(config, self._template.num_classes) / 1e9

    def time(self, points: Sequence[Factors]) -> list[Speed]:
        """Time ``runs`` passes of one clip through each network, in turns."""
        limit: AbstractContextManager[Any] = nullcontext()
        if self.runtime == "compile":
            torch._dynamo.reset()  # by default torch.compile stops compiling a class after 8 networks
            most = max(torch._dynamo.config.recompile_limit, len(points))
            limit = torch._dynamo.config.patch(recompile_limit=most)
        with limit, use_backend("torch") if self.runtime == "torch" else nullcontext():
            return take_turns([self._stopwatch(factors) for factors in points], self.runs)

    def _stopwatch(self, factors: Factors) -> Stopwatch:
        model: nn.Module = self._build(factors).eval().to(self.device)
        model = model.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        if self.runtime == "compile":
            model = torch.compile(model, dynamic=False)  # type: ignore[assignment]
        clips = random_clips(1, factors.frames, factors.crop, self.device)
        return Stopwatch(model, clips, "forward", warmup=_WARMUP_PASSES)


@dataclass(frozen=True, kw_only=True)
class Latencies:
    """Latencies by candidate name, of networks that were timed in turns and thus under the same machine load.

    Attributes:
        latency_ms: median over the passes.
        low_ms: lower quartile over the passes. A network exceeds a target for certain only if this does.
    """

    device: str
    runtime: str
    latency_ms: dict[str, float]
    low_ms: dict[str, float]

    def apply_to(self, candidate: Candidate) -> Candidate:
        """The candidate with its latency replaced by the one measured here, or by None if there is none:
        latencies measured under different loads must not be compared.
        """
        latency = self.latency_ms.get(candidate.name)
        return replace(candidate, complexity=replace(candidate.complexity, latency_ms=latency))


def time_in_turns(meter: Meter, candidates: Sequence[Candidate]) -> Latencies:
    """Measure the latency of networks in turns, with ``meter.runs`` passes each."""
    points = list(dict.fromkeys(candidate.factors for candidate in candidates))
    speeds = dict(zip(points, meter.time(points), strict=True))
    names = {candidate.name: speeds[candidate.factors] for candidate in candidates}
    return Latencies(
        device=meter.device,
        runtime=meter.runtime,
        latency_ms={name: 1000 * speed.median for name, speed in names.items()},
        low_ms={name: 1000 * _lower_quartile(speed.seconds) for name, speed in names.items()},
    )


def is_cheap_to_measure(meter: Meter, complexities: Sequence[Complexity]) -> bool:
    """Whether timing these networks stays within `MAX_TIMING_SECONDS` and `MAX_TIMING_MB`."""
    if meter.runtime == "compile":  # compiling takes half a minute or more for each
        return False
    seconds = sum((one.latency_ms or 0.0) / 1000 for one in complexities) * (meter.runs + _WARMUP_PASSES)
    return seconds <= MAX_TIMING_SECONDS and sum(one.memory_mb for one in complexities) <= MAX_TIMING_MB


def _lower_quartile(seconds: Sequence[float]) -> float:
    return statistics.quantiles(seconds, n=4, method="inclusive")[0] if len(seconds) > 1 else seconds[0]


def x3d_macs(config: X3DConfig, num_classes: int) -> int:
    """`count_macs` of an X3D on one training clip, as a formula."""
    frames, side = config.num_frames, _half(config.train_crop)
    width = config.widths[0]
    total = frames * side**2 * width * (3 * 9 + 5)  # stem: 1x3x3, then 5x1x1 depthwise
    for out, inner, depth in zip(config.widths, config.inner_widths, config.depths, strict=True):
        for block in range(depth):
            before, side = side, _half(side) if block == 0 else side
            total += frames * (before**2 * width * inner + side**2 * inner * (27 + out))
            if block == 0:
                total += frames * side**2 * width * out  # shortcut
            if config.se_ratio and block % 2 == 0:
                total += 2 * inner * round_channels(inner * config.se_ratio)
            width = out
    total += frames * side**2 * width * config.inner_widths[-1]
    vectors = frames if config.localization else 1
    return total + vectors * config.head_width * (config.inner_widths[-1] + num_classes)


def _half(side: int) -> int:
    return (side + 1) // 2


def clip_shape(factors: Factors) -> tuple[int, int, int, int, int]:
    """(1, 3, T, H, W)"""
    return 1, 3, factors.frames, factors.crop, factors.crop


def peak_memory(model: nn.Module, shape: Sequence[int]) -> int:
    """Peak bytes of weights, input and live activations in a forward pass with PyTorch's operators.

    ``model`` is on the meta device. A storage counts from its allocation until it is freed. Kernel workspaces
    are not counted.
    """
    model.eval()
    weights = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    with torch.no_grad(), _StorageTracker() as tracker:
        model(torch.empty(tuple(shape), device="meta"))
    return weights + tracker.peak


class _StorageTracker(TorchDispatchMode):
    """Tracks the live and peak bytes of the storages that operators allocate."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._tracked = weakref.WeakSet[torch.UntypedStorage]()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        inputs = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if id(storage) not in inputs and storage not in self._tracked:  # not a view, not in place
                    self._track(storage)
        return result

    def _track(self, storage: torch.UntypedStorage) -> None:
        self._tracked.add(storage)
        size = storage.nbytes()
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self.live -= size
