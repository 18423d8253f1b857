"""``saccade fit CLIPS``: from a folder of labelled clips to a tested model, without a question."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING

from saccade.cli.console import console, output, show_progress
from saccade.cli.flags import Parser, add_threads, check_folder
from saccade.errors import DataError, UsageError, WeightsError

if TYPE_CHECKING:
    from saccade.data.check import CheckReport, FileFacts
    from saccade.fit import Plan
    from saccade.runs import Run

EXAMPLES = """examples:
  saccade fit clips                                 a folder for each class, or a list of path and label
  saccade fit clips --minutes 60                    for a larger network and more passes
  saccade fit clips --from runs/fit-clips           go on from a run, with more clips or classes

The choices and their reasons are printed and stand in RUN/recipe.json, which saccade train takes. Ctrl-C
keeps the best weights so far.
"""
_LISTED = 5


def run(args: list[str]) -> int:
    """Check, plan, train and test; returns the exit code."""
    start = time.perf_counter()
    options = _parser().parse_args(args)
    from saccade.fit import check_clips, check_start, plan_run, run_folder, this_machine

    if not options.minutes > 0:
        raise UsageError(f"--minutes: must be above 0, got {options.minutes:g}")
    earlier = check_start(options.start) if options.start else None
    folder = check_folder(run_folder(options.data, options.out))
    with show_progress("checking clips", unit="clips", transient=True) as progress:
        report, decoded = check_clips(
            options.data,
            root=options.root or "",
            minutes=options.minutes,
            cores=this_machine().cores,
            progress=progress,
        )
    show_clips(report, decoded=decoded)
    plan, report = plan_run(
        report,
        out=folder,
        root=options.root or "",
        minutes=options.minutes,
        used=(time.perf_counter() - start) / 60,
        purpose=options.purpose,
        start=earlier,
        unlabelled=options.unlabelled or "",
    )
    show_plan(plan, report)
    if options.dry_run:
        return 0
    finished = train(plan, report)
    show_next(finished, options.data, seconds=time.perf_counter() - start)
    return 0


def _parser() -> Parser:
    parser = Parser(
        prog="saccade fit",
        description="Train a classifier on your clips: checks them, chooses network, clip, crop, batch and\n"
        "epochs for the time there is, trains, tests on clips of other sources, says what time is worth,\n"
        "and writes a run folder with the best weights and a report.",
        epilog=EXAMPLES,
    )
    parser.add_argument(
        "data", metavar="CLIPS", help="data set: a folder of class folders, or a list file (docs/data.md)"
    )
    parser.add_argument(
        "--minutes", type=float, default=20.0, help="time for everything, the test included (default 20)"
    )
    parser.add_argument(
        "--for",
        dest="purpose",
        choices=("accuracy", "speed", "stream"),
        default="accuracy",
        help="accuracy: the best network for the time; speed: the smallest; stream: one that needs no later "
        "frame (default accuracy)",
    )
    parser.add_argument(
        "--from",
        dest="start",
        metavar="RUN",
        help="go on from the weights of a run; the classifier keeps the classes that stay, by name",
    )
    parser.add_argument(
        "--unlabelled", metavar="FOLDER", help="videos without labels of the same kind, to learn from too"
    )
    parser.add_argument("--root", metavar="FOLDER", help="folder of the relative paths in a list")
    parser.add_argument("--out", metavar="DIR", help="run folder (default: a new runs/fit-NAME)")
    parser.add_argument("--dry-run", action="store_true", help="check and plan, but do not train")
    add_threads(parser)
    return parser


def train(plan: Plan, report: CheckReport) -> Run:
    """Train, with a progress bar; what is there when it is interrupted is named.

    Raises:
        RunInterrupted: by Ctrl-C or a signal, with the best weights so far in its text.
        TrainingError, WeightsError: the network diverged before it had any weights to keep.
    """
    from saccade.cli.train import ProgressBar
    from saccade.fit import run_plan
    from saccade.runs import Run
    from saccade.training import RunInterrupted, TrainingError

    folder = Path(plan.config.out)
    try:
        with ProgressBar() as bar:
            return run_plan(plan, report, callbacks=[bar])
    except (TrainingError, WeightsError) as error:
        run = Run(folder)
        if not run.best.is_file():
            raise
        console().print(
            f"[yellow]warning:[/] training ended early ({_escaped(str(error))}); the best weights so far stay"
        )
        _write_report(run)
        return run
    except RunInterrupted:
        run = Run(folder)
        recipe = shlex.join(["saccade", "train", f"{folder}/recipe.json", "--resume"])
        if not run.best.is_file():
            raise RunInterrupted(
                f"stopped before the first validation, so there are no weights yet; go on with: {recipe}"
            ) from None
        _write_report(run)
        score = run.best_score
        best = f" ({100 * score:.1f} % of the validation clips)" if score is not None else ""
        raise RunInterrupted(
            f"stopped; the best weights so far{best} are in {folder}: use them with saccade predict VIDEO "
            f"--run {shlex.quote(str(folder))}, or go on with: {recipe}"
        ) from None


def _write_report(run: Run) -> None:
    from saccade.errors import SaccadeError
    from saccade.visualize.report import write_report

    try:
        write_report(run.folder)
    except (SaccadeError, OSError, ValueError) as error:
        console().print(f"the report could not be written: {error}", markup=False)


# --------------------------------------------------------------------------------------------------- output


def show_clips(report: CheckReport, *, decoded: bool) -> None:
    """Print what there is, and what is wrong with it."""
    out = output()
    readable = [file for file in report.files if file.num_frames]
    if not readable:
        first = next(iter(report.unreadable), None)
        why = f"; the first: {first.path}: {first.cause}" if first else ""
        raise DataError(f"{report.root}: none of the {len(report.files)} videos can be read{why}")
    minutes = sum(file.seconds for file in readable) / 60
    out.print(
        f"[bold]clips[/]    {len(readable)} readable videos of {len(report.class_names)} classes, "
        f"{minutes:.3g} minutes" + ("" if decoded else "; opened, not decoded (saccade data check does)"),
        soft_wrap=True,
    )
    for line in report.warnings:
        console().print(f"[yellow]warning:[/] {_escaped(line)}")
    _warn_unreadable(report.unreadable)
    for group in report.duplicates_across_splits[:_LISTED]:
        names = ", ".join(file.path for file in group)
        console().print(f"[yellow]warning:[/] the same file on both sides: {_escaped(names)}")
    for group in report.contradictions[:_LISTED]:
        names = ", ".join(file.path for file in group)
        console().print(f"[yellow]warning:[/] the same file with two labels: {_escaped(names)}")


def _warn_unreadable(files: list[FileFacts]) -> None:
    for file in files[:_LISTED]:
        cause = f": {file.cause}" if file.cause else ""
        console().print(f"[yellow]warning:[/] {_escaped(file.name + cause)}")
    if len(files) > _LISTED:
        console().print(f"[yellow]warning:[/] {len(files) - _LISTED} more videos cannot be read")


def show_plan(plan: Plan, report: CheckReport) -> None:
    """Print the choices with their reasons, and the warnings."""
    from dataclasses import replace

    from rich.table import Table

    from saccade.fit.facts import DataFacts

    facts, config, out = DataFacts.of(report), plan.config, output()
    sides = f"{facts.num_train} to train on, {facts.num_val} to validate"
    out.print(f"         {sides}; {_spread(facts.train_counts)} training clips a class", soft_wrap=True)
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(style="dim", overflow="fold")
    for choice in plan.choices:
        table.add_row(choice.what, choice.value, choice.why)
    out.print(table)
    for line in plan.warnings:
        console().print(f"[yellow]warning:[/] {_escaped(line)}")
    seen = replace(
        report,
        num_frames=config.clip.num_frames,
        stride=config.clip.stride,
        temporal_rule=config.temporal_rule,
    ).short
    if seen:
        console().print(
            f"[yellow]warning:[/] {len(seen)} of {len(report.files)} videos are shorter than the clip, so "
            f"their frames repeat; the first: {_escaped(seen[0].name)}"
        )


def _spread(counts: tuple[int, ...]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def show_next(run: Run, data: str, *, seconds: float) -> None:
    """Print where everything is and what to do with it."""
    from saccade.cli import COMMANDS
    from saccade.training.reporting import format_seconds

    folder, out = shlex.quote(str(run.folder)), output()
    lines = {
        "report": f"{run.report}",
        "predict": f"saccade predict VIDEO --run {folder}",
        "test": f"saccade test {folder} --views {run.config.test_views or '1x1'}",
        "go on": f"saccade fit {shlex.quote(data)} --from {folder}",
        "repeat": f"saccade train {folder}/recipe.json --out DIR",
    }
    if "export" in COMMANDS:
        lines["export"] = f"saccade export {folder}"
    out.print(f"\ndone in {format_seconds(seconds)}; the best weights and everything else: {run.folder}")
    for name, line in lines.items():
        out.print(f"  {name:<8} {line}", soft_wrap=True, markup=False)


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
