"""``saccade data``: check a data set, preview batches, make synthetic clips, list class names."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.cli.fields import parse_fields
from saccade.cli.flags import (
    Parser,
    add_backend,
    add_threads,
    check_file,
    not_negative,
    positive,
    set_threads,
)
from saccade.cli.tables import bar, gaps_text
from saccade.clip import ClipSpec
from saccade.errors import UsageError

if TYPE_CHECKING:
    from saccade.data.check import CheckReport, FileFacts
    from saccade.training.config import TrainConfig

_SHOWN = 20  # findings and classes listed before "and N more"

PREVIEW_USAGE = """usage: saccade data preview RECIPE --data PATH [--out FILE] [--step N] [--field value ...]

Draw a training batch as the network sees it: cropped, flipped, augmented and mixed, with its labels. The
flags are those of saccade train RECIPE, and the batch is the one that step N of that run trains on.

  --data PATH   data set, as for train
  --out FILE    picture to write (default preview.png)
  --step N      step of the batch (default 0, the first)

saccade train RECIPE --help lists every field of a recipe with its value.
"""
_MAX_CLIPS = 32  # drawn
_SHEETS = (".png", ".jpg", ".jpeg", ".webp")


def run(args: list[str]) -> int:
    """Run ``saccade data``; 1 if ``check`` found a file unreadable or in two splits."""
    if args[:1] == ["preview"]:  # its flags are the fields of a recipe
        return _preview(args[1:])
    options = _parser().parse_args(args)
    code: int = options.command(options)
    return code


def _parser() -> Parser:
    parser = Parser(
        prog="saccade data",
        description="Check a data set, preview training batches, make synthetic clips, list class names.",
    )
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_check(commands)
    commands.add_parser("preview", help="draw a training batch as the network sees it")
    _add_motion(commands)
    labels = commands.add_parser(
        "labels",
        help="list the class names of a data set",
        description="List the class names of a data set, one a line, or without NAME the lists there are.",
    )
    labels.add_argument("name", metavar="NAME", nargs="?", help="list, e.g. kinetics400")
    labels.set_defaults(command=_labels)
    return parser


def _add_check(commands: argparse._SubParsersAction[Any]) -> None:
    check = commands.add_parser(
        "check",
        help="read every video of a data set and report what would go wrong in training",
        description="Read every video of a data set and report unreadable files, short clips, sizes, frame\n"
        "rates, class balance, duplicates and files in two splits.\n"
        "Exit code 1 if a file is unreadable or in two splits.",
    )
    check.add_argument(
        "path",
        metavar="PATH",
        help="data set: class folders or list file, as for train; or a folder of videos",
    )
    check.add_argument(
        "--root",
        metavar="FOLDER",
        help="folder that relative paths of a list start from (default: the list's)",
    )
    check.add_argument(
        "--class-names",
        metavar="NAMES",
        help="class names in label order: a file, or a list such as kinetics400",
    )
    check.add_argument(
        "--group",
        metavar="COLUMN",
        help="column of the list that names the source of each clip, which is in one split (as for train)",
    )
    check.add_argument(
        "--recipe", metavar="RECIPE", help="recipe whose clip the videos should be long enough for"
    )
    check.add_argument(
        "--clip-frames", type=positive, metavar="N", help="frames of a clip (default 16, or the recipe's)"
    )
    check.add_argument(
        "--stride",
        type=positive,
        metavar="N",
        help="distance between frames of a clip, in frames at 30 fps (default 5, or the recipe's)",
    )
    check.add_argument(
        "--temporal-rule",
        metavar="RULE",
        help="how the frames of a clip are sampled; segment rules ignore the stride (default saccade, or the "
        "recipe's)",
    )
    check.add_argument(
        "--workers", type=not_negative, metavar="N", help="decoding workers (default: one per CPU)"
    )
    add_backend(check)
    add_threads(check)
    check.add_argument("--json", metavar="FILE", help="also write everything found to this file")
    check.set_defaults(command=_check)


def _add_motion(commands: argparse._SubParsersAction[Any]) -> None:
    motion = commands.add_parser(
        "motion",
        help="make the motion data set: synthetic clips in time-reversal pairs of classes",
        description="Make the motion data set: synthetic H.264 clips whose classes come in pairs that\n"
        "differ only in the direction of time. The same settings give the same clips; a set that\n"
        "was interrupted is completed.",
    )
    motion.add_argument("out", metavar="OUT", help="folder to write")
    motion.add_argument(
        "--clips-per-class", type=int, metavar="N", help="training clips of each class (default 48)"
    )
    motion.add_argument(
        "--val-per-class", type=int, metavar="N", help="validation clips of each class (default 20)"
    )
    motion.add_argument(
        "--untrimmed",
        action="store_true",
        help="longer videos with several actions and their times, in the format of Charades",
    )
    motion.add_argument(
        "--videos", type=int, metavar="N", help="with --untrimmed: training videos (default 240)"
    )
    motion.add_argument(
        "--val-videos", type=int, metavar="N", help="with --untrimmed: validation videos (default 80)"
    )
    motion.add_argument(
        "--seed", type=int, default=0, metavar="N", help="seed of the clips (default %(default)s)"
    )
    motion.add_argument(
        "--size",
        type=_size,
        default=(96, 112),
        metavar="HxW",
        help="height and width in pixels (default 96x112)",
    )
    motion.add_argument("--workers", type=not_negative, metavar="N", help="processes (default: one per CPU)")
    add_threads(motion)
    motion.add_argument("--force", action="store_true", help="replace a motion set made with other settings")
    motion.set_defaults(command=_motion)


def _size(text: str) -> tuple[int, int]:
    height, separator, width = text.lower().partition("x")
    if not (separator and height.isdecimal() and width.isdecimal()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size; write HEIGHTxWIDTH, e.g. 96x112")
    return int(height), int(width)


def _motion(options: argparse.Namespace) -> int:
    from saccade.cli.console import console, show_progress
    from saccade.data.motion import make_motion, make_untrimmed

    clips = {"clips_per_class": options.clips_per_class, "val_per_class": options.val_per_class}
    videos = {"num_videos": options.videos, "num_val_videos": options.val_videos}
    used, others = (videos, clips) if options.untrimmed else (clips, videos)
    if any(value is not None for value in others.values()):
        counts = "--videos and --val-videos" if options.untrimmed else "--clips-per-class and --val-per-class"
        raise UsageError(f"{'with' if options.untrimmed else 'without'} --untrimmed the counts are {counts}")
    make = make_untrimmed if options.untrimmed else make_motion
    with show_progress("making clips", unit="clips") as progress:
        root = make(
            options.out,
            **{name: value for name, value in used.items() if value is not None},
            seed=options.seed,
            size=options.size,
            workers=options.workers,
            force=options.force,
            progress=progress,
        )
    console().print(f"motion: ready in {root}")
    return 0


def _preview(args: list[str]) -> int:
    """Run ``saccade data preview``."""
    if not args or args[0] in ("-h", "--help"):
        print(PREVIEW_USAGE)
        return 0 if args else 2
    from saccade.cli.console import console
    from saccade.recipes import get_recipe

    if args[0].startswith("-"):
        raise UsageError(f"give the recipe first: saccade data preview RECIPE {args[0]} ...")
    parser = Parser(prog=f"saccade data preview {args[0]}", add_help=False)
    parser.add_argument("--out", default="preview.png")
    parser.add_argument("--step", type=not_negative, default=0)
    options, rest = parser.parse_known_args(args[1:])
    out = check_file(options.out, what="picture", suffixes=_SHEETS)
    config = parse_fields(get_recipe(args[0]), rest, prog=parser.prog)
    if config is None:
        return 0
    set_threads(config.threads)
    draw_preview(config, options.step, out)
    console().print(f"{options.out}: the batch of step {options.step}", markup=False)
    return 0


def draw_preview(config: TrainConfig, step: int, out: Path) -> None:
    """Draw the training batch of one step into a file."""
    from saccade.files import atomic_path
    from saccade.training.preview import preview_batch
    from saccade.visualize.sheets import clip_sheet

    batch = preview_batch(config, step)
    num_clips, num_frames, side = batch.frames.shape[:3]
    clips = (
        f"{num_clips} clips" if num_clips <= _MAX_CLIPS else f"the first {_MAX_CLIPS} of {num_clips} clips"
    )
    sheet = clip_sheet(
        batch.frames[:_MAX_CLIPS].numpy(),
        batch.captions,
        batch.sources,
        title=f"{config.recipe}, step {step}: {clips}, {num_frames} frames of {side} pixels",
        boxes=None if batch.boxes is None else [boxes.numpy() for boxes in batch.boxes],
    )
    with atomic_path(out) as temporary:
        sheet.save(temporary)


def _labels(options: argparse.Namespace) -> int:
    from saccade.data.classnames import LABEL_LISTS, class_ids

    if options.name is None:
        for name in LABEL_LISTS:
            print(f"{name:<14}{len(class_ids(name)):>4} classes")
        return 0
    for number, label in class_ids(options.name).items():
        print(f"{number}\t{label}")
    return 0


def _check(options: argparse.Namespace) -> int:
    from saccade.cli.console import show_progress
    from saccade.data.check import check_data
    from saccade.files import write_json

    if options.json:
        check_file(options.json, "--json")
    clip, rule = ClipSpec(num_frames=16, stride=5, crop=224, short_side=256), "saccade"
    if options.recipe:
        from saccade.recipes import get_recipe

        config = get_recipe(options.recipe)
        clip, rule = config.clip, config.temporal_rule
    with show_progress("reading", unit="files", stopped="there is no report") as progress:
        report = check_data(
            options.path,
            num_frames=options.clip_frames or clip.num_frames,
            stride=options.stride or max(1, round(clip.stride * 30 / clip.target_fps)),
            class_names=options.class_names,
            root=options.root,
            group=options.group,
            temporal_rule=options.temporal_rule or rule,
            workers=options.workers,
            backend=options.backend,
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

    from saccade.cli.console import output

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

    from saccade.cli.console import output

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
        length = bar(total[label] / max(1, max(total)))
        table.add_row(report.class_names[label], *(str(counts[split][label]) for split in counts), length)
        if len(shown) < len(order) and position == _SHOWN - 1:
            table.add_row(f"... {len(order) - len(shown)} classes between ...", *("" for _ in counts), "")
    output().print(table)


def _print_findings(report: CheckReport) -> None:
    _list(list(report.warnings), "warnings about lists and folders", "yellow")
    unreadable = [f"{file.name}: {file.cause}" for file in report.unreadable]
    _list(unreadable, "unreadable", "red")
    _list([_joined(group) for group in report.duplicates_across_splits], "the same file in two splits", "red")
    _list([_joined(group) for group in report.contradictions], "the same file with two labels", "yellow")
    span = (report.num_frames - 1) * report.stride + 1
    clip = (
        f"{report.num_frames} segments"
        if report.by_segments
        else f"{report.num_frames}x{report.stride} ({span / 30:.2f} s)"
    )
    _list(
        [f"{file.name}: {file.num_frames} frames at {file.fps:.4g} fps" for file in report.short],
        f"shorter than a clip of {clip}: frames repeat"
        + (f"; {report.fitting_clip}" if report.short else ""),
        "yellow",
    )
    _list(
        [f"{file.name}: {gaps_text(file.gaps, file.seconds)}" for file in report.with_gaps],
        "with gaps in the recording: no clip spans a gap",
        "yellow",
    )
    _list(
        [
            f"{file.name}: usually {file.fps:.4g} fps, {file.num_frames} frames in {file.seconds:.4g} s"
            for file in report.varying
            if not file.gaps
        ],
        "with a variable frame rate: clips are sampled by time",
        "yellow",
    )
    across = {id(group[0]) for group in report.duplicates_across_splits}
    within = [group for group in report.duplicates if id(group[0]) not in across]
    _list([_joined(group) for group in within], "the same file more than once in a split", "yellow")
    _list(
        [f"{one.name}  ~  {other.name}" for one, other in report.look_alikes()],
        "similar pairs across splits (encoded twice, or from the same source?)",
        "yellow",
    )
    _list(
        [
            f"{_labelled(report, one)}  ~  {_labelled(report, other)}"
            for one, other in report.look_alikes_of_two_classes()
        ],
        "similar pairs of two classes (a wrong label, or several classes in one place?)",
        "yellow",
    )
    _list([file.name for file in report.few_frames], "with fewer than 4 frames: no motion to see", "yellow")
    for split, names in report.missing_classes.items():
        _list(names, f"classes without a readable video in {split}", "yellow")
    _print_verdict(report)


def _labelled(report: CheckReport, file: FileFacts) -> str:
    return f"{file.name} ({', '.join(report.class_names[label] for label in file.labels)})"


def _joined(group: Sequence[FileFacts]) -> str:
    return "  =  ".join(f"{file.name} ({file.split})" for file in group)


def _print_verdict(report: CheckReport) -> None:
    from saccade.cli.console import output

    if report.ok:
        output().print("[green]ok[/]: every video is readable, and no file is in two splits")
        return
    findings = ((report.unreadable, "unreadable"), (report.duplicates_across_splits, "in two splits"))
    causes = ", ".join(f"{len(files)} {problem}" for files, problem in findings if files)
    output().print(f"[red]not ok[/]: {causes}")


def _list(lines: list[str], title: str, style: str) -> None:
    """Print a title with the number of findings, and the first findings."""
    from rich.text import Text

    from saccade.cli.console import output

    if not lines:
        return
    output().print(Text(f"{len(lines)} {title}", style=style))
    for line in lines[:_SHOWN]:
        output().print(Text(f"  {line}"), soft_wrap=True)
    if len(lines) > _SHOWN:
        output().print(Text(f"  and {len(lines) - _SHOWN} more; use --json OUT for all", style="dim"))
