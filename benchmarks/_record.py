"""Results of benchmarks: a CSV file per benchmark, in which each row has the context of the measurement."""

from __future__ import annotations

import csv
import datetime
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import torch

from saccade.files import atomic_path

RESULTS = Path(__file__).parent / "results"
CONTEXT = ("date", "commit", "machine", "threads", "python", "torch")


def context(device: str = "cpu") -> dict[str, str]:
    """Date, commit, machine and versions of this run."""
    return {
        "date": datetime.date.today().isoformat(),
        "commit": _commit(),
        "machine": torch.cuda.get_device_name() if device == "cuda" else f"{_cpu()}, {os.cpu_count()} cores",
        "threads": str(torch.get_num_threads()),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


def write_results(
    name: str, rows: Sequence[Mapping[str, object]], *, device: str = "cpu", folder: Path = RESULTS
) -> Path:
    """Replace ``<name>.csv`` in ``folder`` with ``rows`` and the columns of `context`."""
    path = folder / f"{name}.csv"
    columns = context(device)
    with atomic_path(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, fieldnames=[*rows[0], *CONTEXT], lineterminator="\n")
        writer.writeheader()
        writer.writerows({**row, **columns} for row in rows)
    return path


@cache
def _commit() -> str:
    if commit := os.environ.get("SACCADE_COMMIT"):  # for a copy without a git history
        return commit
    result = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
        cwd=RESULTS.parent,
    )
    return result.stdout.strip() or "unknown"


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
