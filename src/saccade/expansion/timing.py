"""The latencies a search ends with: of all its networks in turns, not each at the load of its own step."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from saccade.expansion.counting import Meter
from saccade.expansion.journal import Record, is_progress
from saccade.expansion.types import Candidate, Complexity

CHEAP_SECONDS = 120.0
CHEAP_MB = 4000.0
"""More than the way of a search is timed while all of it takes no longer and needs no more memory."""
_PASSES_BEFORE = 2


@dataclass(frozen=True, kw_only=True)
class Timed:
    """Networks that were timed in turns, under one load of the machine, by their names.

    Attributes:
        latency_ms: the median pass.
        low_ms: the lower quartile of the passes: above a target, the network is over it by more than its
            passes differ.
    """

    device: str
    runtime: str
    latency_ms: dict[str, float]
    low_ms: dict[str, float]

    def of(self, candidate: Candidate) -> Candidate:
        """The candidate with the latency timed here; with none if it was not, so that none is compared with
        that of another load.
        """
        latency = self.latency_ms.get(candidate.name)
        return replace(candidate, complexity=replace(candidate.complexity, latency_ms=latency))

    def record(self) -> Record:
        """A journal's line."""
        return {"kind": "latencies", **asdict(self)}


def timed_in(records: Sequence[dict[str, Any]]) -> Timed | None:
    """What a journal says was timed after its last network; None if it does not."""
    for record in reversed(records):
        if is_progress(record):
            return None
        if record["kind"] == "latencies":
            return Timed(**{name: record[name] for name in ("device", "runtime", "latency_ms", "low_ms")})
    return None


def time_in_turns(meter: Meter, candidates: Sequence[Candidate]) -> Timed:
    """Time networks in turns, each as often as ``meter`` says."""
    points = list(dict.fromkeys(candidate.factors for candidate in candidates))
    speeds = dict(zip(points, meter.time(points), strict=True))
    names = {candidate.name: speeds[candidate.factors] for candidate in candidates}
    return Timed(
        device=meter.device,
        runtime=meter.runtime,
        latency_ms={name: 1000 * speed.median for name, speed in names.items()},
        low_ms={name: 1000 * _lower_quartile(speed.seconds) for name, speed in names.items()},
    )


def is_cheap(meter: Meter, complexities: Sequence[Complexity]) -> bool:
    """Whether so many networks may be timed only to have a complete picture, by what is known of them."""
    if meter.runtime == "compile":  # half a minute and more each
        return False
    seconds = sum((one.latency_ms or 0.0) / 1000 for one in complexities) * (meter.runs + _PASSES_BEFORE)
    return seconds <= CHEAP_SECONDS and sum(one.memory_mb for one in complexities) <= CHEAP_MB


def _lower_quartile(seconds: Sequence[float]) -> float:
    return statistics.quantiles(seconds, n=4, method="inclusive")[0] if len(seconds) > 1 else seconds[0]
