"""``saccade train RECIPE``: train with a recipe, whose fields are flags."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from saccade.cli.console import console
from saccade.cli.fields import parse_fields
from saccade.cli.flags import PICTURES, Parser, check_file, positive
from saccade.errors import UsageError
from saccade.training.reporting import Callback, RemainingTime, loss_text

if TYPE_CHECKING:
    from rich.progress import Progress

    from saccade.training.config import TrainConfig

USAGE = """usage: saccade train RECIPE [--data PATH] [--field value ...] [--resume | --overwrite]

Train, fine-tune or resume a model from a recipe.

  RECIPE        name of a recipe (below), a .json file as written by saccade expand, or a .py file with a
                function that returns a TrainConfig
  --data PATH   data set: a folder of class folders, a list file, Something-Something, Charades or AVA
  --root DIR    folder of the relative paths in a list file (default: the list's folder)
  --out DIR     run folder (default runs/RECIPE)
  --resume      continue the run in that folder with its settings
  --overwrite   replace the run in that folder
  --folds K     cross-validation: K runs in DIR/fold1 ..., each tested on clips of sources that it never saw;
                --resume continues with the fold that was stopped
  --dry-run     print and draw the plan of the run without reading clips, and about how long it takes here,
                then exit. Optional: --num-clips N instead of --data, --devices N, --picture FILE.png

saccade train RECIPE --help describes the recipe and lists all fields with their values. Booleans are set with
--flag, --no-flag or --flag true|false, options of the architecture with --model.overrides NAME VALUE ...
With several GPUs: torchrun --nproc_per_node N -m saccade train RECIPE ...
"""
_LINE_SECONDS = 30.0  # between two lines if there is no progress bar
_WIDE = 110  # columns for a bar that also shows the step and the learning rate


def run(args: list[str]) -> int:
    """Train, or print the plan of a run; returns the exit code."""
    if not args or args[0] in ("-h", "--help"):
        print(f"{USAGE}\n{_recipes()}")
        return 0 if args else 2
    from saccade.recipes import describe, get_recipe

    if args[0].startswith("-"):
        raise UsageError(f"give the recipe first: saccade train RECIPE {args[0]} ...")
    config, prog = get_recipe(args[0]), f"saccade train {args[0]}"
    options, rest = _parser(prog).parse_known_args(args[1:])
    if {"-h", "--help"} & set(rest) and (about := describe(args[0])):
        print(f"{about}\n")
    parsed = parse_fields(config, rest, prog=prog)
    if parsed is not None and options.resume:
        saved, options.folds = _settings_of_run(parsed, options.folds)
        parsed = parse_fields(saved, rest, prog=prog)
    if parsed is None:
        return 0
    if options.dry_run:
        return _show_plan(parsed, options)
    for name in ("num_clips", "devices", "picture"):
        if getattr(options, name):
            raise UsageError(f"--{name.replace('_', '-')}: has no effect without --dry-run")
    from saccade.runs import Run
    from saccade.training import train

    if options.folds:
        return _train_folds(parsed, options)
    try:
        with ProgressBar() as bar:
            train(parsed, callbacks=[bar], resume=options.resume, overwrite=options.overwrite)
    except OSError as error:
        if (last := Run(parsed.run_dir).last).is_file():
            error.add_note(f"{last} keeps the last good state: when that is mended, repeat with --resume")
        raise
    return 0


def _parser(prog: str) -> Parser:
    """The flags that are not fields of the recipe."""
    parser = Parser(prog=prog, add_help=False)
    for flag in ("--resume", "--overwrite", "--dry-run"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("--num-clips", type=positive)
    parser.add_argument("--devices", type=positive)
    parser.add_argument("--folds", type=positive)
    parser.add_argument("--picture", default="")
    return parser


def _settings_of_run(config: TrainConfig, folds: int | None) -> tuple[TrainConfig, int | None]:
    """The saved settings of the run to resume, and the number of folds if it is a cross-validation."""
    from saccade.runs import Run
    from saccade.training.folds import stored_folds

    stored = stored_folds(config.run_dir)
    saved = stored[0] if stored else Run(config.run_dir).config
    folds = folds or (stored[1] if stored else None)
    if saved.recipe != config.recipe:
        raise UsageError(f"{saved.run_dir}: contains a run of {saved.recipe}, not of {config.recipe}")
    return saved, folds


def _train_folds(config: TrainConfig, options: Namespace) -> int:
    """Cross-validate, and print a table of the folds."""
    from saccade.cli.tables import aligned, percent
    from saccade.training.folds import train_folds

    with ProgressBar() as bar:
        found = train_folds(
            config, options.folds, callbacks=[bar], resume=options.resume, overwrite=options.overwrite
        )
    rows = [("", "right", "of", "top-1")]
    for number, each in enumerate(found.folds, 1):
        rows.append(
            (f"fold {number}", str(each.accuracy.num_right), str(each.num_videos), percent(each.top1))
        )
    total = found.accuracy
    rows.append(("all", str(total.num_right), str(total.num_videos), percent(total.fraction)))
    print("\n".join(aligned(rows)))
    print(f"{found}\neverything is in {found.folder}")
    return 0


def _show_plan(config: TrainConfig, options: Namespace) -> int:
    """Print the plan of a run as a table and draw it, without opening videos."""
    if options.folds:
        print(
            f"--folds: {options.folds} runs on {options.folds - 1} of {options.folds} parts of the videos; "
            "the plan of a run on all of them:"
        )
    path = options.picture or f"{config.run_dir}_plan.png"
    if options.picture or config.multigrid != "off":
        flag = "--picture" if options.picture else "--out"
        check_file(path, flag, what="chart", suffixes=PICTURES)
    from saccade.training.multigrid import MultigridTimetable
    from saccade.training.run import draw_plan
    from saccade.training.schedule import rate_text
    from saccade.training.timetable import make_timetable
    from saccade.training.validate import validate

    num_devices = options.devices or 1
    validate(config, world_size=num_devices)
    count = options.num_clips or _num_clips(config)
    timetable = make_timetable(config, count, world_size=num_devices)
    print(rate_text(config.optim, config.batch_size))
    if not isinstance(timetable, MultigridTimetable):
        shape = timetable.shape(0)
        print(
            f"{timetable.total_steps} steps of {shape.batch_size} clips x {shape.num_frames} frames x "
            f"{shape.crop} pixels, {timetable.epochs:g} epochs of {timetable.clips_per_epoch} clips; "
            "all batches have the same shape (--multigrid off)"
        )
        if not options.num_clips:
            print(_time_text(config, timetable.total_steps * shape.batch_size / num_devices))
        return 0
    from saccade.training.multigrid.show import plan_text

    print(plan_text(timetable))
    draw_plan(timetable, Path(path))
    print(f"chart: {path}")
    return 0


def _time_text(config: TrainConfig, num_clips: float) -> str:
    """How long the steps of a run take on this machine, measured on random clips."""
    from saccade.training.reporting import format_seconds
    from saccade.training.timing import clip_seconds

    if config.minutes:
        return f"{config.minutes:g} minutes: the schedule is shortened to what fits into them"
    measured = clip_seconds(config, seconds=1.0)
    if not measured.is_known:
        return "the time could not be measured on this machine"
    return (
        f"about {format_seconds(num_clips * measured.train)} on this machine "
        f"({1 / measured.train:.3g} clips a second, measured without decoding and validation)"
    )


def _num_clips(config: TrainConfig) -> int:
    if not config.data:
        raise UsageError("--dry-run needs the number of clips: give --num-clips N or --data PATH")
    from saccade.training.run import load_data

    return len(load_data(config.replace(val_every=0))[0])


def _recipes() -> str:
    """All recipes with the first line of their descriptions, in groups."""
    from saccade.recipes import recipe_groups, summary

    groups = recipe_groups()
    width = max(len(name) for names in groups.values() for name in names)
    return "\n\n".join(
        "\n".join([f"{title}:", *(f"  {name:<{width}}  {summary(name)}" for name in names)])
        for title, names in groups.items()
    )


# ----------------------------------------------------------------------------------------------- progress


class ProgressBar(Callback):
    """A progress bar on stderr, or a line every half minute if stderr is no terminal; a context manager."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._epochs, self._total = 0.0, 0
        self._clock = RemainingTime(0)
        self._last_line = 0.0

    def __enter__(self) -> ProgressBar:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def on_start(self, record: Mapping[str, Any]) -> None:
        self._epochs, self._total = record["epochs"], record["total_steps"]
        self._clock = RemainingTime(self._total)
        self._clock.start(record["step"])
        self._last_line = time.perf_counter()
        if console().is_terminal:
            self._bar = _bar()
            self._bar.add_task("", total=self._total, completed=record["step"], epoch="", text="", left="")
            self._bar.start()

    def on_step(self, record: Mapping[str, Any]) -> None:
        step = record["step"]
        self._epochs = record.get("epochs", self._epochs)
        self._total = self._clock.total = record.get("total_steps", self._total)
        figure = "top1" if "top1" in record else "explained"
        text = (
            f"{loss_text(record)}  {'top-1' if figure == 'top1' else figure} "
            f"{100 * record[figure]:.0f} %  "
            f"{record['clips_per_s']:.1f} clips/s  data wait {100 * record['data_wait']:.0f} %"
        )
        if self._bar is None or console().width >= _WIDE:
            text += f"  lr {record['lr']:.2g}"
        epoch = f"epoch {min(record['epoch'], self._epochs):.2f}/{self._epochs:.4g}"
        left = self._clock.left(step)
        if self._bar is not None:
            self._bar.update(
                self._bar.task_ids[0], total=self._total, completed=step, epoch=epoch, text=text, left=left
            )
        elif time.perf_counter() - self._last_line > _LINE_SECONDS:
            self._last_line = time.perf_counter()
            console().print(f"{epoch}  step {step}/{self._total}  {text}  {left}", markup=False)

    def on_validation(self, record: Mapping[str, Any]) -> None:
        self._last_line = time.perf_counter()

    def on_end(self, record: Mapping[str, Any]) -> None:
        self.__exit__(None, None, None)


def _bar() -> Progress:
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn

    wide = console().width >= _WIDE
    steps: list[ProgressColumn] = [BarColumn(bar_width=16), MofNCompleteColumn()] if wide else []
    return Progress(
        TextColumn("{task.fields[epoch]}"),
        *steps,
        TextColumn("{task.fields[text]}"),
        TextColumn("{task.fields[left]}", style="dim"),
        console=console(),
        transient=True,
    )
