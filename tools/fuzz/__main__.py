"""The command line of the fault injection: ``python -m tools.fuzz [part] [options]``."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("SVT_LOG", "1")

from tools.fuzz.report import Summary

NUM_CASES = {"videos": 10_000, "checkpoints": 400, "runs": 300, "lists": 300}
NUM_CASES |= {"kills": 100, "disk": 50, "growth": 2}
"""The parts, with how many cases each has if nothing else is asked for."""


def _run(part: str, folder: Path, cases: list[int], args: argparse.Namespace) -> Summary:
    from tools.fuzz.part import run_part

    folder.mkdir(parents=True, exist_ok=True)
    options = {"jobs": args.jobs, "minutes": args.minutes}
    if part == "videos":
        from tools.fuzz import videos

        real = os.environ.get("SACCADE_REAL_DATA")
        return run_part(part, videos.Cases(folder, Path(real) if real else None), folder, cases, **options)
    if part == "checkpoints":
        from tools.fuzz import checkpoints

        return run_part(part, checkpoints.Cases(folder), folder, cases, **options)
    if part == "runs":
        from tools.fuzz import run_folders

        return run_part(part, run_folders.Cases(folder), folder, cases, **options)
    if part == "lists":
        from tools.fuzz import lists

        return run_part(part, lists.Cases(folder), folder, cases, **options)
    options["wall_s"] = 6000.0
    if part == "kills":
        from tools.fuzz import kills

        return run_part(part, kills.Cases(folder), folder, cases, **options)
    if part == "disk":
        from tools.fuzz import disk

        return run_part(part, disk.Cases(folder), folder, cases, **options)
    from tools.fuzz import growth

    minutes = args.minutes or 1.0
    options |= {"minutes": None, "wall_s": 60 * minutes + 3600}
    num_opens = 10_000 if args.cases is None else args.cases
    parts = growth.Cases(folder, num_opens=num_opens, minutes=minutes)
    return run_part(part, parts, folder, [0, 1], **options)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("part", nargs="?", choices=NUM_CASES, help="one part (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="the run's seed (default 0)")
    parser.add_argument("--cases", type=int, help="number of cases of each part")
    parser.add_argument("--case", type=int, nargs="+", help="run these cases alone")
    parser.add_argument("--minutes", type=float, help="start no case of a part later than this")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cases at a time")
    parser.add_argument(
        "--out", type=Path, help="folder for seeds, failing files and tables (default: a temporary one)"
    )
    args = parser.parse_args()
    folder = args.out or Path(tempfile.mkdtemp(prefix="saccade-fuzz-"))
    print(f"results in {folder}", flush=True)
    summaries = []
    for part in [args.part] if args.part else NUM_CASES:
        count = NUM_CASES[part] if args.cases is None else args.cases
        first = args.seed * 1_000_000
        summaries.append(_run(part, folder / part, args.case or list(range(first, first + count)), args))
        summaries[-1].print()
    return 1 if any(summary.failures for summary in summaries) else 0


if __name__ == "__main__":
    sys.exit(main())
