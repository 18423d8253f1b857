"""What a point in the space of X3D costs: counted on the meta device, and timed on a real one."""

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
"""Builds the network of some factors, on the default device."""

CHEAP_SECONDS = 120.0
CHEAP_MB = 4000.0
"""At the end of a search all its networks are timed if that takes at most this long and this much memory,
otherwise only those on its path."""
_WARMUP_PASSES = 2


class Meter:
    """Counts and times networks, each once.

    Args:
        build: builds the network whose clip is ``factors.frames`` x ``factors.crop``.
        device: of the latency.
        runtime: of the latency.
        runs: timed passes; 0 measures no latency.
    """

    def __init__(
        self, build: Build, *, device: str = "cpu", runtime: Runtime = "saccade", runs: int = 0
    ) -> None:
        self._build, self.device, self.runtime, self.runs = build, device, runtime, runs
        self._counted: dict[Factors, Complexity] = {}
        self._like: X3D | None = None

    def count(self, factors: Factors) -> Complexity:
        """Multiply-adds, parameters and memory of one clip; the latency too once it was measured."""
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
        """`count` with the latency of each; new points are timed in turns, so that other load of the machine
        affects all of them alike.
        """
        counted = [self.count(factors) for factors in points]
        new = [f for f, known in zip(points, counted, strict=True) if known.latency_ms is None]
        if self.runs and new:
            for factors, speed in zip(new, self.time(new), strict=True):
                self._counted[factors] = replace(self._counted[factors], latency_ms=1000 * speed.median)
        return [self.count(factors) for factors in points]

    def remember(self, factors: Factors, complexity: Complexity) -> None:
        """Take over what was counted and measured before the search was interrupted."""
        self._counted[factors] = complexity

    def cost(self, kind: Cost) -> Callable[[Factors], float]:
        """The cost ``kind`` as a function of the factors.

        Multiply-adds come from `x3d_macs`, which is fast enough to try many values; a latency is measured.
        """
        if kind == "gmacs":
            return self._gmacs
        if kind == "latency_ms":
            return lambda factors: self.measure([factors])[0].cost(kind)
        return lambda factors: self.count(factors).cost(kind)

    def _gmacs(self, factors: Factors) -> float:
        if self._like is None:
            with torch.device("meta"):
                self._like = self._build(factors)
        config = replace(self._like.config, **factors.gammas)
        return x3d_macs(config, self._like.num_classes) / 1e9

    def time(self, points: Sequence[Factors]) -> list[Speed]:
        """`runs` passes of one clip for each, in turns."""
        limit: AbstractContextManager[Any] = nullcontext()
        if self.runtime == "compile":
            torch._dynamo.reset()  # after 8 networks of one class the next would run as they are, uncompiled
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
    """Latencies of networks that were timed in turns, under one load of the machine, by candidate name.

    Attributes:
        latency_ms: the median pass.
        low_ms: the lower quartile of the passes. If it is above a target, the network misses the target by
            more than its passes vary.
    """

    device: str
    runtime: str
    latency_ms: dict[str, float]
    low_ms: dict[str, float]

    def of(self, candidate: Candidate) -> Candidate:
        """The candidate with its latency of here; without any if it was not timed here, so that latencies
        taken under different loads are never compared.
        """
        latency = self.latency_ms.get(candidate.name)
        return replace(candidate, complexity=replace(candidate.complexity, latency_ms=latency))


def time_in_turns(meter: Meter, candidates: Sequence[Candidate]) -> Latencies:
    """Time networks in turns, each with ``meter.runs`` passes."""
    points = list(dict.fromkeys(candidate.factors for candidate in candidates))
    speeds = dict(zip(points, meter.time(points), strict=True))
    names = {candidate.name: speeds[candidate.factors] for candidate in candidates}
    return Latencies(
        device=meter.device,
        runtime=meter.runtime,
        latency_ms={name: 1000 * speed.median for name, speed in names.items()},
        low_ms={name: 1000 * _lower_quartile(speed.seconds) for name, speed in names.items()},
    )


def is_cheap_to_time(meter: Meter, complexities: Sequence[Complexity]) -> bool:
    """Whether these networks can be timed within `CHEAP_SECONDS` and `CHEAP_MB`, by what is known of them."""
    if meter.runtime == "compile":  # half a minute and more each
        return False
    seconds = sum((one.latency_ms or 0.0) / 1000 for one in complexities) * (meter.runs + _WARMUP_PASSES)
    return seconds <= CHEAP_SECONDS and sum(one.memory_mb for one in complexities) <= CHEAP_MB


def _lower_quartile(seconds: Sequence[float]) -> float:
    return statistics.quantiles(seconds, n=4, method="inclusive")[0] if len(seconds) > 1 else seconds[0]


def x3d_macs(config: X3DConfig, num_classes: int) -> int:
    """`count_macs` of an X3D on one training clip, in closed form."""
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
    """Peak bytes of weights, input and live activations in a forward pass with PyTorch's own operators.

    ``model`` is on the meta device, where nothing is computed: each storage counts from its allocation until
    it is freed. Workspaces of kernels are not counted.
    """
    model.eval()
    own = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    with torch.no_grad(), _Storages() as seen:
        model(torch.empty(tuple(shape), device="meta"))
    return own + seen.peak


class _Storages(TorchDispatchMode):
    """Adds up the bytes of the storages that operators allocate while it is active."""

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known = weakref.WeakSet[torch.UntypedStorage]()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        before = {id(t.untyped_storage()) for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)}
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                self._see(tensor.untyped_storage(), before)
        return result

    def _see(self, storage: torch.UntypedStorage, before: set[int]) -> None:
        if id(storage) in before or storage in self._known:  # a view, or written in place
            return
        self._known.add(storage)
        size = storage.nbytes()
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self.live -= size
