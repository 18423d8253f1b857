"""``saccade visualize gradcam`` and ``attention``: maps over the frames of clips, as sheets and as videos."""

from __future__ import annotations

import difflib
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.cli._args import Parser
from saccade.cli._model_flags import add_model_flags, load_from_flags
from saccade.cli._outputs import check_folder, output_names
from saccade.errors import UsageError, VideoError

if TYPE_CHECKING:
    from saccade.inference import LoadedModel
    from saccade.visualize.clips import SeenClip

Draw = Callable[["SeenClip", Path], Iterable[Path]]


def add_gradcam(pictures: Any) -> None:
    """The parser of ``saccade visualize gradcam``."""
    parser: Parser = pictures.add_parser(
        "gradcam",
        help="where in a clip a convolutional model sees what it says",
        description="Where in a clip X3D, VoV3D or RubiksNet sees what speaks for a class: Grad-CAM over the "
        "frames, as a sheet (NAME.gradcam.png) and as a video (NAME.gradcam.mp4).",
    )
    parser.set_defaults(draw=draw_gradcam)
    add_clip_flags(parser)
    parser.add_argument(
        "--class",
        dest="classes",
        action="append",
        default=[],
        metavar="NAME",
        help="class to explain, by name or number; may be repeated (default: the best)",
    )
    parser.add_argument("--top", type=int, metavar="K", help="explain the K best classes")
    parser.add_argument(
        "--stage",
        default="-1",
        metavar="STAGE",
        help="part of the network whose map is drawn, such as res4; earlier ones are finer and mean less "
        "(default: the last)",
    )
    add_model_flags(parser)


def add_clip_flags(parser: Parser, *, columns: bool = True) -> None:
    """The model and the videos, and how to draw them."""
    parser.add_argument(
        "source", metavar="RUN_OR_WEIGHTS", help="run folder, weights, or checkpoint (--model)"
    )
    parser.add_argument("videos", nargs="+", metavar="VIDEO", help="file, folder or quoted glob")
    parser.add_argument("--out", metavar="FOLDER", default=".", help="of the pictures (default: here)")
    parser.add_argument(
        "--start", type=float, metavar="SECONDS", help="where the clip begins (default: the middle one)"
    )
    if columns:
        parser.add_argument(
            "--columns", type=int, default=8, metavar="N", help="frames on the sheet (default %(default)s)"
        )
    parser.add_argument(
        "--format",
        default="png",
        choices=("png", "pdf", "svg"),
        help="of the sheet (default %(default)s)",
    )
    parser.add_argument("--no-video", action="store_true", help="the sheet alone, no mp4")
    parser.add_argument("--fps", type=float, help="frames per second of folders of images (default 30)")


def check_clip_flags(options: Namespace) -> None:
    """Refuse what cannot be drawn, and folders that nothing can be written into."""
    if getattr(options, "columns", 1) < 1:
        raise UsageError(f"--columns must be at least 1, got {options.columns}")
    if options.start is not None and options.start < 0:
        raise UsageError(f"--start must be 0 or more, got {options.start:g}")
    check_folder(options.out)


def draw_gradcam(options: Namespace) -> int:
    """The command; returns 1 when a video could not be read."""
    check_clip_flags(options)
    from saccade.inference.loading import task_of
    from saccade.visualize.clips import on_device
    from saccade.visualize.gradcam import grad_cam
    from saccade.visualize.overlay import MapRow

    if options.classes and options.top is not None:
        raise UsageError("--class names the classes, --top takes the best; give one of them")
    if options.top is not None and options.top < 1:
        raise UsageError(f"--top must be at least 1, got {options.top}")
    loaded = load_from_flags(options.source, None, options)
    model: Any = loaded.model
    stage = _stage(model, options.stage)
    labels = [label_of(text, loaded.class_names) for text in options.classes] or None

    def draw(clip: SeenClip, stem: Path) -> Iterator[Path]:
        inputs = on_device(clip, model)
        found = grad_cam(model, inputs, labels, stage=stage)
        scores = task_of(loaded).activation(found.logits)
        if options.top is not None:
            best = (-scores).argsort(kind="stable")[: options.top].tolist()
            found = grad_cam(model, inputs, best, stage=stage)
        rows = [
            MapRow(
                loaded.class_names[label],
                maps,
                f"{100 * scores[label]:.0f} %" + ("" if maps.any() else ", nothing for it"),
                found.steps,
            )
            for label, maps in zip(found.labels, found.scaled(), strict=True)
        ]
        best_label = int(scores.argmax())
        said = f"says {loaded.class_names[best_label]} {100 * scores[best_label]:.0f} %"
        title = f"Grad-CAM: {clip.name}"
        yield from write_pictures(
            options,
            clip,
            rows,
            stem,
            title=title,
            subtitle=f"{loaded.name} {said}",
            bar="share of peak",
        )

    return for_each_clip(options, loaded, "gradcam", draw)


def write_pictures(
    options: Namespace,
    clip: SeenClip,
    rows: Sequence[Any],
    stem: Path,
    *,
    title: str,
    subtitle: str,
    bar: str,
    below: Any = None,
) -> Iterator[Path]:
    """The sheet and the video of some maps; their paths."""
    from saccade.visualize.charts import save_figure
    from saccade.visualize.overlay import map_sheet, map_video

    sheet = Path(f"{stem}.{options.format}")
    figure = map_sheet(
        clip, rows, title=title, subtitle=subtitle, bar=bar, columns=options.columns, below=below
    )
    save_figure(figure, sheet)
    yield sheet
    if not options.no_video:
        yield map_video(clip, rows, f"{stem}.mp4", title=f"{title}   {subtitle}")


def for_each_clip(options: Namespace, loaded: LoadedModel, what: str, draw: Draw) -> int:
    """Read a clip of each video, draw it, and say what was written; 1 if a video could not be read."""
    from saccade.cli.predict import expand

    failures: list[VideoError] = []
    paths = expand(options.videos)
    for path, name in output_names(paths).items():
        try:
            clip = _clip(path, loaded, options, alone=len(paths) == 1)
            for written in draw(clip, Path(options.out) / f"{name}.{what}"):
                print(written)
        except VideoError as error:
            failures.append(error)
    if failures:
        print(f"saccade: {len(failures)} of {len(paths)} videos could not be drawn:", file=sys.stderr)
        for failure in failures:
            print(f"  {failure.path}: {failure.cause}", file=sys.stderr)
    return 1 if failures else 0


def _clip(path: str, loaded: LoadedModel, options: Namespace, *, alone: bool) -> SeenClip:
    """The clip of a video. What one of several does not have, the others may: it is a fault of that video."""
    from saccade.inference.predictor import rule_to_predict
    from saccade.visualize.clips import read_clip

    rule = rule_to_predict(loaded)
    try:
        return read_clip(path, loaded.clip, rule=rule, start=options.start, frames_fps=options.fps)
    except UsageError as error:
        if alone:
            raise
        raise VideoError(path, str(error)) from error


def label_of(text: str, names: Sequence[str]) -> int:
    """The class called ``text``, or of that number."""
    if text in names:
        return list(names).index(text)
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    close = difflib.get_close_matches(text, names, n=3)
    hint = (
        f"did you mean {' or '.join(close)}?"
        if close
        else f"it has {len(names)}: {', '.join(names[:5])}, ..."
    )
    raise UsageError(f"--class {text}: the model knows no such class; {hint}")


def _stage(model: Any, text: str) -> int:
    """A stage by its name in the network or by its number."""
    names = [
        next((name for name, module in model.named_modules() if module is stage), "")
        for stage in model.stages()
    ]
    if text in names:
        return names.index(text)
    try:
        number = int(text)
    except ValueError:
        number = len(names)
    if not -len(names) <= number < len(names):
        raise UsageError(f"--stage {text}: {model.model_name} has stages {', '.join(names)}")
    return number
