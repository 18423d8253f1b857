"""``saccade test RUN --reject``: calibrate when a video shows none of the classes."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from saccade.cli.console import print_json
from saccade.cli.flags import Parser
from saccade.errors import UsageError

_USED = (
    *("source", "reject", "background", "accept", "data", "root", "workers", "json", "device", "threads"),
)


def add_rejection(parser: Parser) -> None:
    """Add the flags of the calibration."""
    group = parser.add_argument_group("none of these")
    group.add_argument(
        "--reject",
        action="store_true",
        help="instead of testing, calibrate when a video shows none of the classes, and keep it in the run: "
        "predict then says so",
    )
    group.add_argument(
        "--background",
        metavar="FOLDER",
        help="with --reject: videos that show none of the classes (default: the folder background/ beside "
        "the classes, else synthetic films)",
    )
    group.add_argument(
        "--accept",
        type=float,
        metavar="FRACTION",
        help="with --reject: fraction of the validation clips to accept (default 0.95)",
    )


def check_rejection(parser: Parser, options: Namespace) -> None:
    """Raise `UsageError` for flags that have no effect with or without ``--reject``."""
    defaults = vars(parser.parse_args([options.source]))
    for name, value in vars(options).items():
        is_set = value != defaults[name]
        flag = f"--{name.replace('_', '-')}"
        if options.reject and is_set and name not in _USED:
            raise UsageError(f"{flag}: has no effect with --reject")
        if not options.reject and is_set and name in ("background", "accept"):
            raise UsageError(f"{flag}: has no effect without --reject")


def calibrate_run(options: Namespace) -> int:
    """Calibrate a run and print what was measured."""
    from saccade.cli.console import output, show_progress
    from saccade.evaluation.rejection import ACCEPT
    from saccade.inference import calibrate
    from saccade.runs import Run

    if not Path(options.source).is_dir():
        raise UsageError(f"{options.source}: --reject needs a run folder, which keeps the threshold")
    run = Run(options.source)
    with show_progress("calibrating", unit="videos", stopped="nothing was written") as progress:
        rejection = calibrate(
            run,
            background=options.background,
            data=options.data or None,
            root=options.root or None,
            accept=ACCEPT if options.accept is None else options.accept,
            device=options.device,
            workers=options.workers,
            progress=progress,
        )
    if options.json:
        print_json(rejection.to_dict())
        return 0
    output().print(f"{run.folder}: {rejection}", markup=False, soft_wrap=True)
    output().print(
        f"score {rejection.score} at temperature {rejection.temperature:g}, threshold "
        f"{rejection.threshold:.4g}; saved to {run.rejection_file}",
        markup=False,
        soft_wrap=True,
    )
    return 0
