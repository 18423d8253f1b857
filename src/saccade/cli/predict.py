"""``saccade predict VIDEO...``: what happens in videos."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from saccade.cli._args import Parser
from saccade.cli._model_flags import add_model_flags, load_from_flags
from saccade.errors import UsageError

if TYPE_CHECKING:
    from saccade.inference import Detector, Failure, LoadedModel, Localizer, Prediction, Predictor

Answers = TypeVar("Answers", "Predictor", "Localizer", "Detector")

EXAMPLES = """examples:
  saccade predict clip.mp4 --run runs/my_run
  saccade predict archive/ 'more/**/*.avi' --run runs/my_run --jsonl out.jsonl
  saccade predict video.mp4 --run runs/x3d_motion_loc --localize
  saccade predict film.mp4 --run runs/x3d_m_ava --boxes people.csv
  saccade predict clip.mp4 --model x3d_s --weights x3d_s.pyth --labels kinetics400
"""


def run(args: list[str]) -> int:
    """The command; returns 1 when a video could not be read."""
    options = _parser().parse_args(args)
    if options.top < 1:
        raise UsageError(f"--top must be at least 1, got {options.top}")
    if options.workers < 0:
        raise UsageError(f"--workers must be 0 or more, got {options.workers}")
    if not (options.run or options.weights):
        from saccade.runs import newest_run

        newest = newest_run()
        hint = f"the newest run here is --run {newest.folder}" if newest else "none is in ./runs"
        raise UsageError(f"which model? --run RUN, or --weights FILE (with --model NAME if not ours); {hint}")
    if options.run and (options.weights or options.model):
        raise UsageError("--run brings its own model and weights; leave --model and --weights out")
    for flag, value in (("--out", options.out), ("--threshold", options.threshold)):
        if value is not None and not (options.localize or options.boxes):
            raise UsageError(f"{flag} goes with --localize or --boxes")
    if options.min_score is not None and not options.boxes:
        raise UsageError("--min-score goes with --boxes")
    paths = expand(options.videos)
    if options.boxes:
        from saccade.cli import _people

        _people.check_flags(options)
        failures = _people.detect(_named(_detector(options)), paths, options)
    elif options.localize:
        from saccade.cli._localize import check_flags, localize

        check_flags(options)
        failures = localize(_named(_localizer(options)), paths, options)
    else:
        failures = _predict(_named(_predictor(options)), paths, options)
    if failures:
        print(f"saccade: {len(failures)} of {len(paths)} videos could not be read:", file=sys.stderr)
        for failure in failures:
            print(f"  {failure.path}: {failure.cause}", file=sys.stderr)
    return 1 if failures else 0


def _parser() -> Parser:
    parser = Parser(prog="saccade predict", description="What happens in videos.", epilog=EXAMPLES)
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="file, folder or quoted glob")
    parser.add_argument("--run", metavar="RUN", help="run folder of saccade train")
    parser.add_argument("--weights", metavar="FILE", help="weights file, or a checkpoint (with --model)")
    parser.add_argument(
        "--top", type=int, default=5, metavar="K", help="labels to show (default %(default)s)"
    )
    parser.add_argument(
        "--views",
        default="auto",
        help="CLIPSxCROPS such as 10x3; auto: clips end to end (default %(default)s)",
    )
    parser.add_argument(
        "--localize",
        action="store_true",
        help="when each action happens: printed, and as NAME.timeline.png and .json (a run of localization)",
    )
    parser.add_argument(
        "--boxes",
        metavar="FILE",
        help="what the people in these boxes do: printed, and as NAME.people.mp4 and .json (a run of "
        "detection); CSV rows video_id,second,x1,y1,x2,y2",
    )
    parser.add_argument(
        "--min-score", type=float, metavar="S", help="of --boxes: detected people below are left out (0.9)"
    )
    parser.add_argument(
        "--out", metavar="FOLDER", help="of --localize and --boxes, for their files (default: here)"
    )
    parser.add_argument(
        "--threshold",
        type=float,
        metavar="SCORE",
        help="of --localize and --boxes: an action is there (default 0.5)",
    )
    parser.add_argument("--json", action="store_true", help="one JSON array on stdout")
    parser.add_argument("--jsonl", metavar="FILE", help="a JSON object a line, as results come")
    parser.add_argument(
        "--batch-size", type=int, metavar="VIEWS", help="views per forward pass (default: by memory)"
    )
    parser.add_argument("--workers", type=int, default=2, help="decoding threads (default %(default)s)")
    parser.add_argument("--fps", type=float, help="frames per second of folders of images (default 30)")
    add_model_flags(parser)
    return parser


def _predictor(options: Namespace) -> Predictor:
    from saccade.inference import Predictor

    return Predictor(
        _loaded(options), views=options.views, batch_size=options.batch_size, frames_fps=options.fps
    )


def _localizer(options: Namespace) -> Localizer:
    from saccade.inference import Localizer

    return Localizer(_loaded(options), batch_size=options.batch_size, frames_fps=options.fps)


def _detector(options: Namespace) -> Detector:
    from saccade.inference import Detector
    from saccade.inference.detector import MIN_SCORE

    return Detector(
        _loaded(options),
        boxes=options.boxes,
        min_score=MIN_SCORE if options.min_score is None else options.min_score,
        frames_fps=options.fps,
    )


def _loaded(options: Namespace) -> LoadedModel:
    return load_from_flags(options.run, options.weights, options)


def _named(answers: Answers) -> Answers:
    """The same; warns if its labels are numbers, which of a model that cannot answer is not worth a word."""
    from saccade.console import warn

    if not answers.loaded.named:
        warn(f"{answers.loaded.origin} has no class names; labels are numbers (--labels gives names)")
    return answers


def _predict(predictor: Predictor, paths: list[str], options: Namespace) -> list[Failure]:
    """Predict and show; the videos that could not be read."""
    from saccade.console import progress_bar
    from saccade.inference import Prediction

    failures: list[Failure] = []
    records: list[dict[str, Any]] = []
    quiet = options.json or options.jsonl
    bar = progress_bar(unit="videos", transient=True) if quiet and len(paths) > 1 else None
    with _lines(options.jsonl) as lines, bar or nullcontext():
        task = bar.add_task("predicting", total=len(paths)) if bar else None
        for found in predictor.predict_many(paths, workers=min(options.workers, len(paths))):
            if isinstance(found, Prediction):
                record = found.to_dict(options.top)
            else:
                record = found.to_dict()
                failures.append(found)
            if options.json:
                records.append(record)
            if lines is not None:
                lines.write(json.dumps(record, ensure_ascii=False) + "\n")
                lines.flush()
            if not quiet:
                _show(found, options.top)
            if bar is not None and task is not None:
                bar.advance(task)
    if options.json:
        print(json.dumps(records, indent=2, ensure_ascii=False))
    return failures


@contextmanager
def _lines(path: str | None) -> Iterator[Any]:
    if path is None:
        yield None
    elif path == "-":
        yield sys.stdout
    else:
        target = Path(path)
        if target.is_dir() or not target.parent.is_dir():
            raise UsageError(f"--jsonl: {path} is no file in an existing folder")
        with target.open("w", encoding="utf-8") as stream:
            yield stream


def _show(found: Prediction | Failure, k: int) -> None:
    from saccade.cli._timeline import bar, timeline
    from saccade.console import output
    from saccade.inference import Prediction

    console = output()
    if not isinstance(found, Prediction):
        console.print(f"{found.path}\n  not read: {found.cause}\n", style="red", markup=False, soft_wrap=True)
        return
    num = len(found.windows)
    facts = f"{found.duration:.1f} s, {found.fps:.4g} fps, {num} clip{'s' * (num > 1)}"
    console.print(f"[bold]{_literal(found.path)}[/]  [dim]{facts}[/]", soft_wrap=True)
    for rank, (label, score) in enumerate(found.top(k)):
        style = "green" if rank == 0 else "cyan"
        console.print(
            f"  {100 * score:5.1f} %  [{style}]{bar(score):<24}[/]  {_literal(label)}", soft_wrap=True
        )
    if num > 2:
        for line in timeline(found.windows, found.duration, width=min(72, console.width - 16)):
            console.print(line, soft_wrap=True)
    console.print()


def expand(patterns: Sequence[str]) -> list[str]:
    """The videos that files, folders and globs name, each once.

    A folder is searched to the bottom for video files; a folder that holds images is one video. A file that
    does not exist stays in the list: it is reported in its turn.

    Raises:
        UsageError: a glob or folder without videos.
    """
    from glob import glob, has_magic

    found: dict[str, None] = {}
    for pattern in patterns:
        path = Path(pattern)
        if has_magic(pattern) and not path.exists():
            matches = [match for match in sorted(glob(pattern, recursive=True)) if _is_video(Path(match))]
            if not matches:
                raise UsageError(f"{pattern}: no video matches")
            found.update(dict.fromkeys(matches))
        elif path.is_dir() and not _is_video(path):
            inside = [str(file) for file in sorted(path.rglob("*")) if _is_video(file)]
            if not inside:
                raise UsageError(f"{pattern}: no videos in this folder")
            found.update(dict.fromkeys(inside))
        else:
            found[pattern] = None
    return list(found)


def _is_video(path: Path) -> bool:
    from saccade.data.folders import is_frame_folder, is_video_name

    return is_frame_folder(path) if path.is_dir() else is_video_name(path.name)


def _literal(text: str) -> str:
    from rich.markup import escape

    return escape(text)
