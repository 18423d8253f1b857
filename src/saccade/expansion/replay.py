"""Replay of a search with accuracies from a table instead of trainings.

The table is a CSV file with the columns ``step``, ``axis`` and ``percent`` (top-1 accuracy, 0 to 100), and
``seed`` if there are several rows for a candidate. ``axis`` is an axis, ``start`` in step 0, or
``contracted`` for the network that the last step is contracted to. Lines that begin with # are comments.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

from saccade.errors import DataError, UsageError
from saccade.expansion.axes import Limits
from saccade.expansion.candidate import Job, Trial
from saccade.expansion.checks import check_axes, check_targets
from saccade.expansion.config import AXES, Factors, SearchConfig
from saccade.expansion.counting import Meter
from saccade.expansion.result import SearchResult
from saccade.expansion.search import Driver
from saccade.models.x3d import X3D

Table = dict[tuple[int, str, int | None], float]
FIGURE_2 = Path(__file__).with_name("figure2.csv")
"""A table that resembles Figure 2 of the X3D paper; ``--replay figure2`` names it."""
NAMES = (*AXES, "start", "contracted")


def read_table(path: Path) -> Table:
    """(step, axis, seed) -> accuracy, 0..1. The seed is None for rows without one.

    Raises:
        UsageError: the file does not exist.
        DataError: a column is missing, or a value is invalid; names the line.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise DataError(f"{path}: not a text file; a table is a CSV file in UTF-8") from None
    rows = [(number, line) for number, line in enumerate(lines, 1) if line.strip() and line[0] != "#"]
    reader = csv.DictReader(line for _, line in rows)
    missing = {"step", "axis", "percent"} - set(reader.fieldnames or ())
    if missing:
        raise DataError(f"{path}: has no column {sorted(missing)[0]}; step, axis and percent are needed")
    table: Table = {}
    for (number, _), row in zip(rows[1:], reader, strict=True):
        try:
            key = (int(row["step"]), row["axis"].strip(), int(row["seed"]) if row.get("seed") else None)
            percent = float(row["percent"])
        except (TypeError, ValueError, AttributeError):
            raise DataError(
                f"{path}:{number}: step and seed are whole numbers, percent is a number"
            ) from None
        if key[1] not in NAMES:
            raise DataError(f"{path}:{number}: {key[1]!r} is not an axis; write one of {', '.join(NAMES)}")
        if not 0 <= percent <= 100:
            raise DataError(f"{path}:{number}: percent must be 0 to 100, got {percent:g}")
        table[key] = percent / 100
    return table


class ReplayEngine:
    """Looks up accuracies in a table. A job without a row fails."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def run(self, jobs: Sequence[Job]) -> Iterator[Trial]:
        """Yield one trial per job, without training."""
        for job in jobs:
            step, axis = job.candidate.step, "contracted" if job.candidate.contracted else job.candidate.axis
            accuracy = self.table.get((step, axis, job.seed), self.table.get((step, axis, None)))
            if accuracy is None:
                yield job.failed(f"the table has no row for {axis} in step {step}")
            else:
                yield job.done(accuracy, epochs=job.config.epochs)

    def close(self) -> None:
        """Nothing to release."""


def replay(
    search: SearchConfig,
    table: Table,
    *,
    num_classes: int = 400,
    limits: Limits | None = None,
    resume: bool = False,
    overwrite: bool = False,
    log: Callable[[str], None] | None = None,
) -> SearchResult:
    """Search with the accuracies of ``table``. Costs are computed as usual; nothing is trained.

    Args:
        num_classes: number of classes of the classifier.
        limits: size and length of the videos; default: unlimited.
        log: called with each line of progress; default: the logger of the module.
    """

    def build(factors: Factors) -> X3D:
        return X3D(factors.config, num_classes)

    limits = limits or Limits()
    meter = Meter(build, device=search.device, runtime=search.runtime, runs=search.latency_runs)
    check_axes(search, limits)
    if not resume:
        check_targets(search, meter, limits)
    with closing(Driver(search, ReplayEngine(table), meter=meter, limits=limits, log=log)) as driver:
        driver.open(resume=resume, overwrite=overwrite)
        return driver.run()
