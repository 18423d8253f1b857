"""``saccade predict VIDEO...``: classify videos, localize actions, or classify the actions of people."""

from __future__ import annotations

import logging
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from saccade.cli.console import print_json
from saccade.cli.flags import (
    Parser,
    add_decoding,
    add_frames_fps,
    add_json,
    add_model,
    add_run,
    add_videos,
    check_file,
    check_folder,
    find_videos,
    load_from_flags,
    output_names,
    positive,
    score,
)
from saccade.cli.signals import delayed
from saccade.cli.tables import bar, clock, gaps_text, shades, timeline
from saccade.errors import UsageError
from saccade.files import json_text

if TYPE_CHECKING:
    from saccade.inference import (
        Detector,
        Failure,
        LoadedModel,
        Localizer,
        PeopleActions,
        Prediction,
        Predictor,
    )
    from saccade.tasks.timeline import Timeline

logger = logging.getLogger(__name__)

Model = TypeVar("Model", "Predictor", "Localizer", "Detector")

EXAMPLES = """examples:
  saccade predict clip.mp4 --run runs/my_run
  saccade predict archive/ 'more/**/*.avi' --run runs/my_run --jsonl out.jsonl
  saccade predict video.mp4 --run runs/x3d_motion_loc --localize
  saccade predict film.mp4 --run runs/x3d_m_ava --boxes people.csv
  saccade predict clip.mp4 --model x3d_s --weights x3d_s.pyth --labels kinetics400

Exit code 1 if a video could not be read completely; the other videos are still predicted.
"""


def run(args: list[str]) -> int:
    """Predict; 1 if a video could not be read completely."""
    options = _parser().parse_args(args)
    _check(options)
    paths = find_videos(options.videos)
    problems = _Problems(len(paths))
    if options.boxes:
        _detect(_detector(options), paths, options, problems)
    elif options.localize:
        _localize(_localizer(options), paths, options, problems)
    else:
        _predict(_predictor(options), paths, options, problems)
    return problems.report()


class _Problems:
    """Collects the videos of a command that are unreadable, damaged or much shorter than a clip."""

    def __init__(self, num_videos: int) -> None:
        self._num_videos = num_videos
        self._failures: list[Failure] = []
        self._short: list[Prediction | Timeline] = []
        self._num_damaged = 0

    def watch(self, results: Iterable[Any]) -> Iterator[Any]:
        """Pass on the results, with a warning for each damaged video."""
        from saccade.inference import Failure
        from saccade.video.damage import damage_text

        for found in results:
            if isinstance(found, Failure):
                self._failures.append(found)
            elif found.damaged:
                self._num_damaged += 1
                logger.warning(f"{found.path}: {damage_text(found.damaged)}; the rest was predicted")
            if getattr(found, "short", False):
                self._short.append(found)
            yield found

    def report(self) -> int:
        """Print the short and the unreadable videos; returns the exit code."""
        if self._short:
            names = ", ".join(f"{found.path} ({found.duration:.2f} s)" for found in self._short[:3])
            names += " ..." if len(self._short) > 3 else ""
            logger.warning(
                f"{len(self._short)} of {self._num_videos} videos are shorter than half a clip "
                f"({self._short[0].clip_seconds:.2f} s), so their frames are repeated: {names}"
            )
        if self._failures:
            number = f"{len(self._failures)} of {self._num_videos}"
            print(f"saccade: {number} videos could not be read:", file=sys.stderr)
            for failure in self._failures:
                print(f"  {failure.path}: {failure.cause}", file=sys.stderr)
        return 1 if self._failures or self._num_damaged else 0


def _parser() -> Parser:
    parser = Parser(
        prog="saccade predict",
        description="Classify videos, localize actions (--localize) or classify actions of people (--boxes).",
        epilog=EXAMPLES,
    )
    add_videos(parser)
    add_run(parser)
    parser.add_argument(
        "--top", type=positive, default=5, metavar="K", help="labels to show (default %(default)s)"
    )
    parser.add_argument(
        "--views",
        default="auto",
        help="CLIPSxCROPS, e.g. 10x3, or auto: consecutive clips of the whole video (default %(default)s)",
    )
    parser.add_argument(
        "--no-reject", action="store_true", help='never answer "none of these" (saccade test RUN --reject)'
    )
    parser.add_argument(
        "--localize",
        action="store_true",
        help="localize actions in time; writes NAME.timeline.png and .json (needs a localization run)",
    )
    parser.add_argument(
        "--boxes",
        metavar="FILE",
        help="classify the actions of the people in these boxes; writes NAME.people.mp4 and .json (needs a "
        "detection run). CSV rows: video_id,second,x1,y1,x2,y2",
    )
    parser.add_argument(
        "--min-score",
        type=float,
        metavar="SCORE",
        help="with --boxes: ignore detected people with a lower score (default 0.9)",
    )
    parser.add_argument(
        "--threshold",
        type=score,
        metavar="SCORE",
        help="with --localize and --boxes: minimum score of an action (default 0.5)",
    )
    parser.add_argument(
        "--out",
        metavar="FOLDER",
        help="with --localize and --boxes: output folder (default: current folder)",
    )
    add_json(parser)
    parser.add_argument(
        "--jsonl", metavar="FILE", help="write one JSON object per video as results arrive; - is stdout"
    )
    add_decoding(parser)
    add_frames_fps(parser)
    add_model(parser)
    return parser


def _check(options: Namespace) -> None:
    """Raise `UsageError` for flags that cannot be combined."""
    if not (options.run or options.weights):
        from saccade.runs import newest_run

        newest = newest_run()
        hint = f"the newest run here is --run {newest.folder}" if newest else "./runs contains no run"
        raise UsageError(
            f"give a model: --run RUN, or --weights FILE (with --model NAME if not from saccade); {hint}"
        )
    if options.run and (options.weights or options.model):
        raise UsageError("--run cannot be combined with --model or --weights")
    if options.localize and options.boxes:
        raise UsageError("--boxes and --localize cannot be combined")
    mode = "--boxes" if options.boxes else "--localize" if options.localize else ""
    without_effect = {
        "--out": options.out is not None and not mode,
        "--threshold": options.threshold is not None and not mode,
        "--min-score": options.min_score is not None and not options.boxes,
        "--views": options.views != "auto" and bool(mode),
        "--jsonl": options.jsonl is not None and bool(mode),
        "--batch-size": options.batch_size is not None and mode == "--boxes",
        "--no-reject": options.no_reject and bool(mode),
    }
    for flag, is_set in without_effect.items():
        if is_set:
            raise UsageError(
                f"{flag}: has no effect {f'with {mode}' if mode else 'without --localize or --boxes'}"
            )
    if mode:
        check_folder(options.out or ".")
    if options.jsonl == "-" and options.json:
        raise UsageError("--json and --jsonl - both write to stdout; give one of them")
    if options.jsonl not in (None, "-"):
        check_file(options.jsonl, "--jsonl")


def _predictor(options: Namespace) -> Predictor:
    from saccade.inference import Predictor

    return _named(
        Predictor(
            _loaded(options),
            views=options.views,
            batch_size=options.batch_size,
            frames_fps=options.fps,
            backend=options.backend,
            reject=not options.no_reject,
        )
    )


def _localizer(options: Namespace) -> Localizer:
    from saccade.inference import Localizer

    return _named(
        Localizer(
            _loaded(options),
            batch_size=options.batch_size,
            frames_fps=options.fps,
            backend=options.backend,
        )
    )


def _detector(options: Namespace) -> Detector:
    from saccade.inference import Detector
    from saccade.inference.detector import MIN_SCORE

    return _named(
        Detector(
            _loaded(options),
            boxes=options.boxes,
            min_score=MIN_SCORE if options.min_score is None else options.min_score,
            frames_fps=options.fps,
            backend=options.backend,
        )
    )


def _loaded(options: Namespace) -> LoadedModel:
    return load_from_flags(options.run, options.weights, options)


def _named(model: Model) -> Model:
    """Return ``model`` with a warning if it has no class names."""
    if not model.loaded.named:
        logger.warning(f"{model.loaded.origin}: no class names, showing class numbers; give --labels")
    return model


def _predict(predictor: Predictor, paths: list[str], options: Namespace, problems: _Problems) -> None:
    """Classify videos and print the results."""
    from saccade.cli.console import show_progress
    from saccade.inference import Prediction

    records: list[dict[str, Any]] = []
    silent = options.json or options.jsonl
    with (
        _lines(options.jsonl) as lines,
        _json_at_end(records, options),
        _counted(records, len(paths)),
        show_progress("predicting", unit="videos", transient=True) as done,
    ):
        for found in problems.watch(predictor.predict_many(paths, workers=min(options.workers, len(paths)))):
            record = found.to_dict(options.top) if isinstance(found, Prediction) else found.to_dict()
            with delayed():  # a line is written as a whole
                records.append(record)
                if lines is not None:
                    lines.write(json_text(record, encoding=lines.encoding) + "\n")
                    lines.flush()
            if not silent:
                _show_prediction(found, options.top)
            elif len(paths) > 1:
                done(len(records), len(paths))


@contextmanager
def _json_at_end(records: list[dict[str, Any]], options: Namespace) -> Iterator[None]:
    """With ``--json``, print the records at the end, also if a signal stops the command."""
    try:
        yield
    except KeyboardInterrupt:
        if options.json:
            print_json(records)
        raise
    if options.json:
        print_json(records)


@contextmanager
def _counted(records: list[dict[str, Any]], total: int) -> Iterator[None]:
    """Add the number of finished videos to the message of a signal."""
    try:
        yield
    except KeyboardInterrupt as stop:
        text = f"{stop or 'interrupted'} after {len(records)} of {total} videos; their results are complete"
        raise KeyboardInterrupt(text) from None


@contextmanager
def _lines(path: str | None) -> Iterator[Any]:
    if path is None:
        yield None
    elif path == "-":
        yield sys.stdout
    else:
        target = Path(path)
        if target.is_dir() or not target.parent.is_dir():
            raise UsageError(f"--jsonl {path}: not a file in an existing folder")
        try:
            with target.open("w", encoding="utf-8") as stream:
                yield stream
        except OSError as error:  # the error of a full disk has no file name
            error.filename = error.filename or path
            raise


def _facts(found: Prediction | Timeline | PeopleActions, count: str) -> str:
    """Duration, frame rate, ``count`` and gaps of a video as one line."""
    gaps = gaps_text(found.gaps, found.duration)
    return ", ".join(filter(None, (f"{found.duration:.1f} s", f"{found.fps:.4g} fps", count, gaps)))


def _show_prediction(found: Prediction | Failure, k: int) -> None:
    from rich.markup import escape

    from saccade.cli.console import output
    from saccade.inference import Prediction

    console = output()
    if not isinstance(found, Prediction):
        console.print(f"{found.path}\n  not read: {found.cause}\n", style="red", markup=False, soft_wrap=True)
        return
    num = len(found.windows)
    facts = _facts(found, f"{num} clip{'s' * (num > 1)}")
    console.print(f"[bold]{escape(found.path)}[/]  [dim]{facts}[/]", soft_wrap=True)
    if found.rejection is not None and found.rejected:
        scores = f"{found.rejection.score} {found.reject_score:.3g}, below {found.rejection.threshold:.3g}"
        console.print(f"  [yellow]{found.label}[/] ({scores}); it would have been:", soft_wrap=True)
    for rank, (label, value) in enumerate(found.top(k)):
        style = "green" if rank == 0 and not found.rejected else "cyan"
        console.print(
            f"  {100 * value:5.1f} %  [{style}]{bar(value):<24}[/]  {escape(label)}", soft_wrap=True
        )
    if num > 2:
        for line in timeline(
            found.windows, found.duration, width=min(72, console.width - 16), gaps=found.gaps
        ):
            console.print(line, soft_wrap=True)
    console.print()


# ------------------------------------------------------------------------------------------- actions in time


def _localize(localizer: Localizer, paths: list[str], options: Namespace, problems: _Problems) -> None:
    """Localize actions in time, write and print the results."""
    from saccade.tasks.timeline import THRESHOLD
    from saccade.visualize.charts import save_figure
    from saccade.visualize.timeline import timeline_chart

    threshold = THRESHOLD if options.threshold is None else options.threshold

    def write(found: Timeline, stem: Path) -> tuple[dict[str, Any], list[Path]]:
        picture = Path(f"{stem}.timeline.png")
        save_figure(timeline_chart(found, title=stem.name, threshold=threshold), picture)
        return found.to_dict(threshold, options.top), [picture, Path(f"{stem}.timeline.json")]

    def show(found: Timeline) -> None:
        _show_timeline(found, threshold, options.top)

    found = problems.watch(localizer.locate_many(paths, workers=min(options.workers, len(paths))))
    _write_each(found, paths, options, write, show)


def _write_each(
    results: Iterable[Any],
    paths: list[str],
    options: Namespace,
    write: Callable[[Any, Path], tuple[dict[str, Any], list[Path]]],
    show: Callable[[Any], None],
) -> None:
    """Write the files of each video, the last of which is its record as JSON, and print the results."""
    from rich.text import Text

    from saccade.cli.console import output
    from saccade.files import write_json
    from saccade.inference import Failure

    folder, names = Path(options.out or "."), output_names(paths)
    records: list[dict[str, Any]] = []
    with _json_at_end(records, options), _counted(records, len(paths)):
        for found in results:
            if isinstance(found, Failure):
                records.append(found.to_dict())
                continue
            record, files = write(found, folder / names[found.path])
            write_json(files[-1], record)
            records.append(record)
            if not options.json:
                show(found)
                output().print(Text("  " + ", ".join(map(str, files)), "dim"), soft_wrap=True)
                output().print()


def _show_timeline(found: Timeline, threshold: float, k: int) -> None:
    from rich.text import Text

    from saccade.cli.console import output

    console = output()
    segments = found.segments(threshold)
    facts = _facts(found, f"{len(segments)} actions above {threshold:g}")
    console.print(Text.assemble((found.path, "bold"), ("  " + facts, "dim")), soft_wrap=True)
    names = list(dict.fromkeys(segment.label for segment in segments)) or [name for name, _ in found.top(k)]
    width = min(60, max(20, console.width - 30))
    longest = max(len(name) for name in names)
    for name in names:
        times = ", ".join(
            f"{clock(segment.start, found.duration)}-{clock(segment.end, found.duration)}"
            for segment in segments
            if segment.label == name
        )
        line = Text.assemble("  ", (name.ljust(longest), "cyan"), "  ", shades(found, name, width))
        console.print(line.append(f"  {times}", "dim"), soft_wrap=True)
    start, end = clock(0, found.duration), clock(found.duration, found.duration)
    axis = " " * (longest + 4) + start + end.rjust(width - len(start))
    console.print(Text(axis, "dim"), soft_wrap=True)


# ---------------------------------------------------------------------------------------- actions of people


def _detect(detector: Detector, paths: list[str], options: Namespace, problems: _Problems) -> None:
    """Classify the actions of people, write and print the results."""
    from saccade.inference.detector import THRESHOLD
    from saccade.visualize.people import render_people

    detector.check(paths)
    threshold = THRESHOLD if options.threshold is None else options.threshold

    def write(found: PeopleActions, stem: Path) -> tuple[dict[str, Any], list[Path]]:
        video = Path(f"{stem}.people.mp4")
        captions = [
            [f"{label} {100 * value:.0f} %" for label, value in found.actions(person, threshold, options.top)]
            for person in found.people
        ]
        render_people(
            found.path,
            found.people,
            captions,
            video,
            frames_fps=options.fps,
            damaged=bool(found.damaged),
        )
        return found.to_dict(threshold, options.top), [video, Path(f"{stem}.people.json")]

    def show(found: PeopleActions) -> None:
        _show_people(found, threshold, options.top)

    found = problems.watch(detector.detect_many(paths, workers=min(options.workers, len(paths))))
    _write_each(found, paths, options, write, show)


def _show_people(found: PeopleActions, threshold: float, k: int) -> None:
    from rich.text import Text

    from saccade.cli.console import output

    console = output()
    num_times = len({person.second for person in found.people})
    facts = _facts(found, f"{len(found.people)} boxes at {num_times} times")
    console.print(Text.assemble((found.path, "bold"), ("  " + facts, "dim")), soft_wrap=True)
    for person in found.people:
        x1, y1, x2, y2 = (round(100 * value) for value in person.box)
        actions = found.actions(person, threshold, k)
        line = Text(f"  {clock(person.time, found.duration):>6}  ")
        line.append(f"{x1:3}-{x2:<3} x {y1:3}-{y2:<3} %  ", "dim")
        if actions:
            line.append(", ".join(f"{label} {100 * value:.0f} %" for label, value in actions), "cyan")
        else:
            line.append(f"none above {100 * threshold:g} %", "dim")
        console.print(line, soft_wrap=True)
