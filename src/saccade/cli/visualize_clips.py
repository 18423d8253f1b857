"""``saccade visualize gradcam``, ``attention`` and ``hog``: visualizations of clips."""

from __future__ import annotations

import difflib
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.cli.flags import (
    Parser,
    add_backend,
    add_frames_fps,
    add_model,
    add_source,
    add_videos,
    check_folder,
    find_videos,
    load_from_flags,
    output_names,
    positive,
    run_settings,
    seconds,
)
from saccade.errors import UsageError, VideoError

if TYPE_CHECKING:
    from saccade.inference import LoadedModel
    from saccade.training.config import MaskedConfig
    from saccade.visualize.clips import InputClip

Draw = Callable[["InputClip", Path], Iterable[Path]]


def add_kind(kinds: Any, name: str, draw: Callable[[Namespace], int], summary: str, text: str) -> Parser:
    """Add the sub-command of one kind of visualization."""
    parser: Parser = kinds.add_parser(name, help=summary, description=text)
    parser.set_defaults(draw=draw)
    return parser


def _add_clip_flags(parser: Parser, *, columns: bool = True) -> None:
    """Add the flags for the model, the videos and the output."""
    add_source(parser)
    add_videos(parser)
    parser.add_argument(
        "--out", metavar="FOLDER", default=".", help="output folder (default: the current folder)"
    )
    parser.add_argument(
        "--start", type=seconds, metavar="SECONDS", help="start of the clip (default: the middle clip)"
    )
    if columns:
        parser.add_argument(
            "--columns",
            type=positive,
            default=8,
            metavar="N",
            help="frames on the sheet (default %(default)s)",
        )
    parser.add_argument(
        "--format",
        default="png",
        choices=("png", "pdf", "svg"),
        help="format of the sheet (default %(default)s)",
    )
    parser.add_argument("--no-video", action="store_true", help="draw only the sheet, no mp4")
    add_frames_fps(parser)
    add_backend(parser)


def _for_each_clip(options: Namespace, loaded: LoadedModel, what: str, draw: Draw) -> int:
    """Read a clip of each video, draw it, and print the files; 1 if a video could not be read."""
    failures: list[VideoError] = []
    paths = find_videos(options.videos)
    for path, name in output_names(paths).items():
        try:
            clip = _read_clip(path, loaded, options, alone=len(paths) == 1)
            for written in draw(clip, Path(options.out) / f"{name}.{what}"):
                print(written)
        except VideoError as error:
            failures.append(error)
    if failures:
        print(f"saccade: {len(failures)} of {len(paths)} videos could not be drawn:", file=sys.stderr)
        for failure in failures:
            print(f"  {failure.path}: {failure.cause}", file=sys.stderr)
    return 1 if failures else 0


def _read_clip(path: str, loaded: LoadedModel, options: Namespace, *, alone: bool) -> InputClip:
    """Read the clip of a video. If one of several videos is too short for ``--start``, raise `VideoError`."""
    from saccade.inference.predictor import rule_to_predict
    from saccade.visualize.clips import read_clip

    rule = rule_to_predict(loaded)
    try:
        return read_clip(
            path,
            loaded.clip,
            rule=rule,
            start=options.start,
            frames_fps=options.fps,
            backend=options.backend,
        )
    except UsageError as error:
        if alone:
            raise
        raise VideoError(path, str(error)) from error


def _write_maps(
    options: Namespace,
    clip: InputClip,
    rows: Sequence[Any],
    stem: Path,
    *,
    title: str,
    subtitle: str,
    bar: str,
    below: Any = None,
) -> Iterator[Path]:
    """Write the sheet and the video of heat maps; yields their paths."""
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


# ---------------------------------------------------------------------------------------------------- gradcam


def add_gradcam(kinds: Any) -> None:
    parser = add_kind(
        kinds,
        "gradcam",
        _gradcam,
        "Grad-CAM of a convolutional model",
        "Draw Grad-CAM of X3D, VoV3D, RubiksNet or TSM over the frames of a clip, as a sheet\n"
        "(NAME.gradcam.png) and a video (NAME.gradcam.mp4).",
    )
    _add_clip_flags(parser)
    parser.add_argument(
        "--class",
        dest="classes",
        action="append",
        default=[],
        metavar="NAME",
        help="class to explain, by name or number; can be repeated (default: the predicted class)",
    )
    parser.add_argument(
        "--top", type=positive, metavar="K", help="explain the K classes with the best scores"
    )
    parser.add_argument(
        "--stage",
        default="-1",
        metavar="STAGE",
        help="stage whose features are used, e.g. res4; earlier stages are finer but less class-specific "
        "(default: the last)",
    )
    add_model(parser)


def _gradcam(options: Namespace) -> int:
    check_folder(options.out)
    from saccade.inference.loading import task_of
    from saccade.visualize.clips import inputs_on_device
    from saccade.visualize.gradcam import grad_cam
    from saccade.visualize.overlay import MapRow

    if options.classes and options.top is not None:
        raise UsageError("--class and --top cannot be combined")
    loaded = load_from_flags(options.source, None, options)
    model: Any = loaded.model
    stage = _stage(model, options.stage)
    labels = [label_of(text, loaded.class_names) for text in options.classes] or None

    def draw(clip: InputClip, stem: Path) -> Iterator[Path]:
        inputs = inputs_on_device(clip, model)
        maps = grad_cam(model, inputs, labels, stage=stage)
        scores = task_of(loaded).activation(maps.logits)
        if options.top is not None:
            best = (-scores).argsort(kind="stable")[: options.top].tolist()
            maps = grad_cam(model, inputs, best, stage=stage)
        rows = [
            MapRow(
                loaded.class_names[label],
                class_map,
                f"{100 * scores[label]:.0f} %" + ("" if class_map.any() else ", no evidence"),
                maps.strides,
            )
            for label, class_map in zip(maps.labels, maps.scaled(), strict=True)
        ]
        best_label = int(scores.argmax())
        subtitle = f"{loaded.name} predicts {loaded.class_names[best_label]} {100 * scores[best_label]:.0f} %"
        title = f"Grad-CAM: {clip.name}"
        yield from _write_maps(
            options, clip, rows, stem, title=title, subtitle=subtitle, bar="fraction of peak"
        )

    return _for_each_clip(options, loaded, "gradcam", draw)


def label_of(text: str, names: Sequence[str]) -> int:
    """The class with the name or number ``text``."""
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
    raise UsageError(f"--class {text}: no such class of the model; {hint}")


def _stage(model: Any, text: str) -> int:
    """The index of a stage given by its name in the network or by its number."""
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


# -------------------------------------------------------------------------------------------------- attention


def add_attention(kinds: Any) -> None:
    parser = add_kind(
        kinds,
        "attention",
        _attention,
        "attention maps of a transformer",
        "Draw attention maps of TimeSformer, ViViT or MViT: rollout over all blocks and the heads of one\n"
        "block, as a sheet (NAME.attention.png) and a video (NAME.attention.mp4), and the temporal\n"
        "attention matrices if there are any (NAME.attention-time.png).",
    )
    _add_clip_flags(parser)
    parser.add_argument(
        "--heads",
        default="all",
        metavar="HEADS",
        help="all, none, mean, or numbers such as 0,3,5 (default %(default)s)",
    )
    parser.add_argument(
        "--block", type=int, default=-1, metavar="N", help="block of the heads (default: the last, -1)"
    )
    add_model(parser)


def _attention(options: Namespace) -> int:
    check_folder(options.out)
    from saccade.visualize.attention import attention_maps, attention_rows, time_chart, time_row
    from saccade.visualize.charts import save_figure
    from saccade.visualize.clips import inputs_on_device

    loaded = load_from_flags(options.source, None, options)
    model: Any = loaded.model

    def draw(clip: InputClip, stem: Path) -> Iterator[Path]:
        maps = attention_maps(model, inputs_on_device(clip, model), block=options.block)
        title, subtitle = f"Attention: {clip.name}", attention_subtitle(loaded, maps, options.heads)
        yield from _write_maps(
            options,
            clip,
            attention_rows(maps, options.heads),
            stem,
            title=title,
            subtitle=subtitle,
            bar="minimum to maximum",
            below=time_row(maps),
        )
        if maps.temporal is not None:
            path = Path(f"{stem}-time.{options.format}")
            times = clip.seconds.reshape(maps.temporal.shape[1], -1).mean(1)
            save_figure(time_chart(maps.temporal, times, title=title, subtitle=subtitle), path)
            yield path

    return _for_each_clip(options, loaded, "attention", draw)


def attention_subtitle(loaded: LoadedModel, maps: Any, heads: str) -> str:
    """Model, prediction, and the blocks of the maps."""
    from saccade.inference.loading import task_of

    predicted = ""
    if len(maps.logits):
        logits = maps.logits.mean(-1) if maps.logits.ndim == 2 else maps.logits
        scores = task_of(loaded).activation(logits)
        best = int(scores.argmax())
        predicted = f" predicts {loaded.class_names[best]} {100 * scores[best]:.0f} %"
    if heads == "none":
        return f"{loaded.name}{predicted}; rollout of {maps.num_blocks} blocks"
    return f"{loaded.name}{predicted}; heads of block {maps.block + 1} of {maps.num_blocks}"


# -------------------------------------------------------------------------------------------------------- hog


def add_hog(kinds: Any) -> None:
    parser = add_kind(
        kinds,
        "hog",
        _hog,
        "MaskFeat's predictions for masked tokens",
        "Draw masked input, predicted HOG, target HOG and original of the frames of a clip, as a sheet\n"
        "(NAME.hog.png) and a video (NAME.hog.mp4). The clip is masked as in training.",
    )
    _add_clip_flags(parser, columns=False)
    parser.add_argument(
        "--rows", type=positive, default=4, metavar="N", help="frames on the sheet (default %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the mask (default %(default)s)")
    parser.add_argument("--ratio", type=float, help="masked fraction (default: as trained)")
    add_model(parser)


def _hog(options: Namespace) -> int:
    from dataclasses import replace

    from saccade.models import MaskFeat
    from saccade.tasks.masked import masking
    from saccade.visualize.charts import save_figure
    from saccade.visualize.hog import hog_sheet, hog_video, predict_masked

    check_folder(options.out)
    if options.ratio is not None and not 0 < options.ratio < 1:
        raise UsageError(f"--ratio must lie between 0 and 1, got {options.ratio:g}")
    loaded = load_from_flags(options.source, None, options)
    model: Any = loaded.model
    if not isinstance(model, MaskFeat):
        raise UsageError(f"{loaded.name} does not predict masked tokens; see saccade models 'maskfeat_*'")
    config = _masked_config(options.source, model.target_kind)
    if options.ratio is not None:
        config = replace(config, ratio=options.ratio)
    generator = masking(config, model, loaded.clip.num_frames, loaded.clip.crop).generator

    def draw(clip: InputClip, stem: Path) -> Iterator[Path]:
        prediction = predict_masked(model, clip, generator.of_clip(options.seed))
        title, masked = f"Masked prediction: {clip.name}", f"{100 * prediction.masked.mean():.0f} % masked"
        subtitle = (
            f"{loaded.name}, {masked}; explains {100 * prediction.explained:.0f} % of the variance of the "
            f"masked {prediction.target_name}"
        )
        sheet = Path(f"{stem}.{options.format}")
        save_figure(hog_sheet(prediction, title=title, subtitle=subtitle, rows=options.rows), sheet)
        yield sheet
        if not options.no_video:
            yield hog_video(prediction, f"{stem}.mp4", title=f"{clip.name}   {subtitle}")

    return _for_each_clip(options, loaded, "hog", draw)


def _masked_config(source: str, kind: str) -> MaskedConfig:
    """The masking settings of the run; for weights without a run, those of the code base of their targets."""
    from dataclasses import fields

    from saccade.training.config import MaskedConfig

    settings = run_settings(source).get("masked")
    if isinstance(settings, dict):
        known = {field.name for field in fields(MaskedConfig)}
        return MaskedConfig(**{name: value for name, value in settings.items() if name in known})
    return MaskedConfig(rule="pyslowfast", scored="all") if kind == "hard" else MaskedConfig()
