"""Counts by outcome, progress while a part runs, and the failures with the number that repeats each."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any


class Summary:
    """Outcomes of one part.

    Args:
        part: its name on the command line.
        folder: gets ``<part>.jsonl``, a line for each failure.
        good: the outcomes that are no failure.
        total: the number of cases to come.
        minutes: start no case later than this.
    """

    def __init__(
        self, part: str, folder: Path, *, good: Collection[str], total: int, minutes: float | None = None
    ) -> None:
        self.part, self.folder, self.good, self.total = part, folder, good, total
        self.counts: Counter[str] = Counter()
        self.failures: list[dict[str, Any]] = []
        self._limit_s = minutes * 60 if minutes else None
        self._began = self._printed = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        self._file = folder / f"{part}.jsonl"
        self._file.write_text("")

    @property
    def seconds(self) -> float:
        """Seconds since the part began."""
        return time.monotonic() - self._began

    def until_late(self, cases: Iterable[int]) -> Iterator[int]:
        """``cases`` until the minutes are over."""
        for case in cases:
            if self._limit_s is not None and self.seconds > self._limit_s:
                return
            yield case

    def add(self, case: int, outcome: str, detail: Any = "", seconds: float = 0.0) -> bool:
        """Count a case; returns whether it is a failure, which is printed and recorded."""
        self.counts[outcome] += 1
        failed = outcome not in self.good
        if failed:
            entry = {"part": self.part, "case": case, "outcome": outcome, "detail": detail}
            self.failures.append(entry)
            with self._file.open("a") as file:
                file.write(json.dumps(entry) + "\n")
            print(f"FAILED {self.part} --case {case}: {outcome}: {json.dumps(detail)[-600:]}", flush=True)
        if time.monotonic() - self._printed > 15:
            self._printed = time.monotonic()
            done = self.counts.total()
            rate = done / self.seconds
            left = (self.total - done) / rate / 60
            print(
                f"{self.part}: {done} of {self.total}, {rate:.1f} a second, {left:.1f} minutes left",
                flush=True,
            )
        return failed

    def print(self) -> None:
        """The table of outcomes."""
        done = self.counts.total()
        print(
            f"\n{self.part}: {done} cases in {self.seconds / 60:.1f} minutes, {len(self.failures)} failures"
        )
        for outcome, count in sorted(
            self.counts.items(), key=lambda item: (item[0] not in self.good, -item[1])
        ):
            print(f"  {'' if outcome in self.good else 'FAILURE: '}{outcome:<24} {count:>7}")
        if self.failures:
            print(f"  failures in {self._file}")
