"""The command line of the fault injection: ``python -m tools.fuzz [part] [options]``."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("SVT_LOG", "1")

PARTS = ("videos",)
CASES = {"videos": 10_000}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("part", nargs="?", choices=PARTS, help="one part (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="the run's seed (default 0)")
    parser.add_argument("--cases", type=int, help="number of cases of each part")
    parser.add_argument("--case", type=int, nargs="+", help="run these cases alone; videos keeps their files")
    parser.add_argument("--minutes", type=float, help="start no case of a part later than this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cases at a time")
    parser.add_argument(
        "--out",
        type=Path,
        help="folder for seeds, failing files and tables (default: a new one in the temporary folder)",
    )
    args = parser.parse_args()
    folder = args.out or Path(tempfile.mkdtemp(prefix="saccade-fuzz-"))
    real = os.environ.get("SACCADE_REAL_DATA")
    print(f"results in {folder}", flush=True)
    failures = 0
    for part in [args.part] if args.part else PARTS:
        count = CASES[part] if args.cases is None else args.cases
        first = args.seed * 1_000_000
        cases = args.case or list(range(first, first + count))
        from tools.fuzz import videos

        summary = videos.run(
            folder / part,
            cases=cases,
            jobs=args.jobs,
            minutes=args.minutes,
            real_data=Path(real) if real else None,
        )
        summary.print()
        failures += len(summary.failures)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
