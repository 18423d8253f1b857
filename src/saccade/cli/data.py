"""``saccade data``: check a data set, look at training batches, make the motion clips, list class names."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from saccade.cli._args import Parser
from saccade.cli._data_preview import preview
from saccade.cli._outputs import check_file
from saccade.errors import UsageError

if TYPE_CHECKING:
    from saccade.data.check import CheckReport, FileFacts

_SHOWN = 20  # findings and classes listed before "and N more"


def run(args: list[str]) -> int:
    """Run ``saccade data``. The exit code is 1 if `check` found a file unreadable or in two splits."""
    if args[:1] == ["preview"]:  # its flags are the fields of a recipe
        return preview(args[1:])
    options = _parser().parse_args(args)
    code: int = options.command(options)
    return code


def _parser() -> Parser:
    parser = Parser(
        prog="saccade data",
        description="Check a data set, look at training batches, make the motion clips, list class names.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_check(commands)
    commands.add_parser("preview", help="a picture of a training batch as the network sees it")
    _add_motion(commands)
    labels = commands.add_parser(
        "labels", help="print a shipped list of class names", description=_labels.__doc__
    )
    labels.add_argument("name", metavar="NAME", nargs="?", help="a list; without it, the lists there are")
    labels.set_defaults(command=_labels)
    return parser


def _add_check(commands: argparse._SubParsersAction[Any]) -> None:
    check = commands.add_parser(
        "check",
        help="read every video once and report what training would trip over",
        description="Read every video of a data set once, in parallel; report unreadable files, short clips, "
        "sizes, frame rates, class balance and duplicates across splits.\n"
        "Exit code 1 if a file is unreadable or lies in two splits.",
    )
    check.add_argument(
        "path", metavar="PATH", help="folder or list file, as train takes it; or a folder of videos"
    )
    check.add_argument(
        "--clip-frames", type=int, default=16, metavar="N", help="frames of a clip (default 16)"
    )
    check.add_argument(
        "--stride", type=int, default=5, metavar="N", help="their stride at 30 fps (default 5)"
    )
    check.add_argument(
        "--temporal-rule",
        default="saccade",
        metavar="RULE",
        help="how clips are taken; with segments, tsm ... the stride does not matter (default saccade)",
    )
    check.add_argument(
        "--class-names", metavar="NAMES", help="shipped list (kinetics400) or file, in label order"
    )
    check.add_argument(
        "--root", metavar="FOLDER", help="where the paths of a list start (default: beside the list)"
    )
    check.add_argument("--workers", type=int, metavar="N", help="processes (default: one per CPU)")
    check.add_argument("--json", metavar="OUT", help="also write everything found to this file")
    check.set_defaults(command=_check)


def _add_motion(commands: argparse._SubParsersAction[Any]) -> None:
    motion = commands.add_parser(
        "motion",
        help="make the motion data set: clips in time-reversal pairs of classes",
        description="Make the motion data set: H.264 clips whose classes come in pairs that differ in the "
        "direction of time alone. The same settings give the same clips; an interrupted set is finished.",
    )
    motion.add_argument("out", metavar="OUT", help="folder to make")
    motion.add_argument("--clips-per-class", type=int, metavar="N", help="training clips (default 48)")
    motion.add_argument("--val-per-class", type=int, metavar="N", help="held-out clips (default 20)")
    motion.add_argument(
        "--untrimmed",
        action="store_true",
        help="longer videos in which several events happen, with their times, in the format of Charades",
    )
    motion.add_argument("--videos", type=int, metavar="N", help="of --untrimmed, to train (default 240)")
    motion.add_argument("--val-videos", type=int, metavar="N", help="of --untrimmed, held out (default 80)")
    motion.add_argument("--seed", type=int, default=0, metavar="N", help="determines every clip (default 0)")
    motion.add_argument(
        "--size",
        type=_size,
        default=(96, 112),
        metavar="HxW",
        help="height and width in pixels (default 96x112)",
    )
    motion.add_argument("--workers", type=int, metavar="N", help="processes (default: one per CPU)")
    motion.add_argument("--force", action="store_true", help="replace a motion set made with other settings")
    motion.set_defaults(command=_motion)


def _size(text: str) -> tuple[int, int]:
    height, separator, width = text.lower().partition("x")
    if not (separator and height.isdecimal() and width.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write HEIGHTxWIDTH, as 96x112")
    return int(height), int(width)


def _motion(options: argparse.Namespace) -> int:
    from saccade.console import console, show_progress
    from saccade.data.motion import make_motion, make_untrimmed

    clips = {"clips_per_class": options.clips_per_class, "val_per_class": options.val_per_class}
    videos = {"num_videos": options.videos, "num_val_videos": options.val_videos}
    own, others = (videos, clips) if options.untrimmed else (clips, videos)
    if any(value is not None for value in others.values()):
        counts = "--videos and --val-videos" if options.untrimmed else "--clips-per-class and --val-per-class"
        raise UsageError(f"{'with' if options.untrimmed else 'without'} --untrimmed the counts are {counts}")
    make = make_untrimmed if options.untrimmed else make_motion
    with show_progress("making clips", unit="clips") as progress:
        root = make(
            options.out,
            **{name: value for name, value in own.items() if value is not None},
            seed=options.seed,
            size=options.size,
            workers=options.workers,
            force=options.force,
            progress=progress,
        )
    console().print(f"motion: ready in {root}")
    return 0


def _labels(options: argparse.Namespace) -> int:
    """Print a shipped list of class names, one a line; without a name, the lists there are."""
    from saccade.data.classnames import LABEL_LISTS, class_ids

    if options.name is None:
        for name in LABEL_LISTS:
            print(f"{name:<14}{len(class_ids(name)):>4} classes")
        return 0
    for number, label in class_ids(options.name).items():
        print(f"{number}\t{label}")
    return 0


def _check(options: argparse.Namespace) -> int:
    from saccade.console import show_progress
    from saccade.data.check import check_data
    from saccade.files import write_json

    if options.json:
        check_file(options.json, "--json")
    with show_progress("reading", unit="files") as progress:
        report = check_data(
            options.path,
            num_frames=options.clip_frames,
            stride=options.stride,
            class_names=options.class_names,
            root=options.root,
            temporal_rule=options.temporal_rule,
            workers=options.workers,
            progress=progress,
        )
    if options.json:
        write_json(options.json, report.to_json())
    _print_statistics(report)
    _print_balance(report)
    _print_findings(report)
    return 0 if report.ok else 1


def _print_statistics(report: CheckReport) -> None:
    from rich.table import Table

    from saccade.console import output

    table = Table(title=f"{report.root}: {len(report.files)} videos", title_justify="left")
    table.add_column("")
    columns = []
    short = {id(file) for file in report.short}
    for split in report.splits:
        table.add_column(split, justify="right")
        columns.append(_statistics([file for file in report.files if file.split == split], short))
    for name in columns[0]:
        table.add_row(name, *(column[name] for column in columns))
    output().print(table)
    output().print("seconds, frames, fps: least / median / greatest", style="dim")


def _statistics(files: list[FileFacts], short: set[int]) -> dict[str, str]:
    from saccade.data.check import common_sizes, spread

    def spread_of(values: list[float]) -> str:
        return " / ".join(f"{value:.4g}" for value in spread(values)) if values else "-"

    good = [file for file in files if file.cause is None]
    return {
        "videos": str(len(files)),
        "unreadable": str(len(files) - len(good)),
        "shorter than a clip": str(sum(id(file) in short for file in good)),
        "hours": f"{sum(file.seconds for file in good) / 3600:.2f}",
        "seconds": spread_of([file.seconds for file in good]),
        "frames": spread_of([file.num_frames for file in good]),
        "fps": spread_of([file.fps for file in good]),
        "height x width": "\n".join(f"{h}x{w} ({count})" for (h, w), count in common_sizes(good)),
    }


def _print_balance(report: CheckReport) -> None:
    from rich.table import Table

    from saccade.console import output

    counts = report.class_counts
    if not report.class_names:
        return
    total = [sum(column) for column in zip(*counts.values(), strict=True)]
    order = sorted(range(len(total)), key=lambda label: (-total[label], report.class_names[label]))
    table = Table(title=f"{len(order)} classes", title_justify="left")
    table.add_column("class")
    for split in counts:
        table.add_column(split, justify="right")
    table.add_column("")
    shown = order if len(order) <= 2 * _SHOWN else order[:_SHOWN] + order[-_SHOWN:]
    for position, label in enumerate(shown):
        bar = "█" * round(24 * total[label] / max(1, max(total)))
        table.add_row(report.class_names[label], *(str(counts[split][label]) for split in counts), bar)
        if len(shown) < len(order) and position == _SHOWN - 1:
            table.add_row(f"... {len(order) - len(shown)} classes between ...", *("" for _ in counts), "")
    output().print(table)


def _print_findings(report: CheckReport) -> None:
    unreadable = [f"{file.path}: {file.cause}" for file in report.unreadable]
    _list(unreadable, "unreadable", "red")
    _list(
        [_together(group) for group in report.duplicates_across_splits], "the same file in two splits", "red"
    )
    _list([_together(group) for group in report.contradictions], "the same file with two labels", "yellow")
    span = (report.num_frames - 1) * report.stride + 1
    clip = (
        f"{report.num_frames} segments"
        if report.by_segments
        else f"{report.num_frames}x{report.stride} ({span / 30:.2f} s)"
    )
    _list(
        [f"{file.path}: {file.num_frames} frames at {file.fps:.4g} fps" for file in report.short],
        f"shorter than a clip of {clip}: frames repeat",
        "yellow",
    )
    across = {id(group[0]) for group in report.duplicates_across_splits}
    within = [group for group in report.duplicates if id(group[0]) not in across]
    _list([_together(group) for group in within], "the same file more than once in a split", "yellow")
    _list(
        [f"{one.path}  ~  {other.path}" for one, other in report.look_alikes()],
        "pairs across splits that look alike (encoded twice, or one source?)",
        "yellow",
    )
    for split, names in report.missing_classes.items():
        _list(names, f"classes without a readable video in {split}", "yellow")
    _print_verdict(report)


def _together(group: Sequence[FileFacts]) -> str:
    return "  =  ".join(f"{file.path} ({file.split})" for file in group)


def _print_verdict(report: CheckReport) -> None:
    from saccade.console import output

    if report.ok:
        output().print("[green]ok[/]: every video reads to its end, and no file lies in two splits")
        return
    findings = ((report.unreadable, "unreadable"), (report.duplicates_across_splits, "in two splits"))
    causes = ", ".join(f"{len(found)} {what}" for found, what in findings if found)
    output().print(f"[red]not ok[/]: {causes}")


def _list(lines: list[str], title: str, style: str) -> None:
    """A title with the number of findings, and the first of them."""
    from rich.text import Text

    from saccade.console import output

    if not lines:
        return
    output().print(Text(f"{len(lines)} {title}", style=style))
    for line in lines[:_SHOWN]:
        output().print(Text(f"  {line}"), soft_wrap=True)
    if len(lines) > _SHOWN:
        output().print(Text(f"  and {len(lines) - _SHOWN} more; --json OUT holds them all", style="dim"))
