"""``saccade visualize WHAT``: visualizations of models, each a sub-command."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.cli.flags import (
    PICTURES,
    Parser,
    add_backend,
    add_data,
    add_decoding,
    add_frames_fps,
    add_json,
    add_model,
    add_run,
    add_source,
    add_threads,
    check_file,
    check_folder,
    dataset_from_flags,
    load_from_flags,
    positive,
    run_settings,
    score,
)
from saccade.cli.tables import aligned
from saccade.cli.visualize_clips import add_attention, add_gradcam, add_hog, add_kind
from saccade.errors import DataError, UsageError

if TYPE_CHECKING:
    from saccade.data.types import VideoDataset
    from saccade.inference import LoadedModel
    from saccade.models import VideoModel
    from saccade.visualize.shifts import LayerShifts


def run(args: list[str]) -> int:
    """Draw; 1 if a video could not be read."""
    options = _parser().parse_args(args)
    code: int = options.draw(options)
    return code


def _parser() -> Parser:
    parser = Parser(prog="saccade visualize", description="Visualize models and their predictions.")
    kinds = parser.add_subparsers(dest="what", required=True, metavar="WHAT", parser_class=Parser)
    for add in (add_gradcam, add_attention, add_hog, _add_embedding, _add_shifts, _add_timeline):
        add(kinds)
    return parser


# -------------------------------------------------------------------------------------------------- embedding


def _add_embedding(kinds: Any) -> None:
    parser = add_kind(
        kinds,
        "embedding",
        _embedding,
        "t-SNE and PCA of the features of a data set's clips",
        "Draw a map of clip features with t-SNE and principal components: embedding.html (interactive) and\n"
        "embedding.png. The report.html of a run includes it.",
    )
    add_source(parser)
    add_data(parser)
    parser.add_argument(
        "--most",
        type=positive,
        default=400,
        metavar="N",
        help="maximum number of clips, evenly spaced over the data set (default %(default)s)",
    )
    parser.add_argument(
        "--perplexity", type=float, default=30.0, help="perplexity of t-SNE (default %(default)s)"
    )
    parser.add_argument(
        "--method", default="t-SNE", choices=("t-SNE", "PCA"), help="method of the .png (default %(default)s)"
    )
    parser.add_argument(
        "--out", metavar="FOLDER", help="output folder (default: the run folder, or the current folder)"
    )
    add_decoding(parser, batch="clips")
    add_model(parser)


def _embedding(options: Namespace) -> int:
    from saccade.cli.console import console, show_progress
    from saccade.evaluation.features import clip_features
    from saccade.inference.loading import task_of
    from saccade.inference.predictor import rule_to_predict
    from saccade.visualize import write_report
    from saccade.visualize.charts import save_figure
    from saccade.visualize.embedding import embed, embedding_chart, write_embedding

    if options.perplexity < 1:
        raise UsageError(f"--perplexity must be at least 1, got {options.perplexity:g}")
    source = Path(options.source)
    folder = check_folder(options.out or (source if source.is_dir() else "."))
    loaded = load_from_flags(options.source, None, options)
    dataset = _some_of_dataset(options, loaded)
    with show_progress("reading", unit="videos") as progress:
        seen = clip_features(
            loaded.model,
            dataset,
            loaded.clip,
            temporal_rule=rule_to_predict(loaded),
            workers=options.workers,
            batch_size=options.batch_size,
            backend=options.backend,
            frames_fps=run_settings(options.source).get("frames_fps"),
            progress=progress,
        )
    same = loaded.named and loaded.class_names == dataset.class_names
    scored = same and seen.logits.shape[1] == len(loaded.class_names)
    found = embed(
        seen.features,
        [item.path for item in seen.items],
        [item.label for item in seen.items],
        dataset.class_names,
        scores=task_of(loaded).activation(seen.logits) if scored else None,
        perplexity=options.perplexity,
    )
    title = f"{loaded.name}, {source.resolve().name if source.is_dir() else source.name}"
    subtitle = f"{len(seen.items)} clips of {Path(dataset.root).name or dataset.root}, {dataset.split}"
    picture, page = folder / "embedding.png", folder / "embedding.html"
    save_figure(embedding_chart(found, options.method, title=title, subtitle=subtitle), picture)
    with show_progress("writing", unit="clips", transient=True) as progress:
        write_embedding(found, page, title=title, subtitle=subtitle, progress=progress)
    if found.neighbour_accuracy == found.neighbour_accuracy:
        accuracy = f"{100 * found.neighbour_accuracy:.1f} % of {len(seen.items)}"
        console().print(f"nearest clip has the same class: {accuracy}")
    print(page)
    print(picture)
    if (folder / "report.html").is_file():
        print(write_report(folder))
    for failure in seen.failures:
        print(f"saccade: {failure.path}: {failure.cause}: skipped", file=sys.stderr)
    return 1 if seen.failures else 0


def _some_of_dataset(options: Namespace, loaded: LoadedModel) -> VideoDataset:
    """At most ``--most`` clips, evenly spaced over the data set."""
    from dataclasses import replace

    import numpy as np

    try:
        dataset = dataset_from_flags(options, class_names=loaded.class_names if loaded.named else None)
    except DataError:  # classes that the model does not know, which is fine here
        dataset = dataset_from_flags(options)
    if len(dataset) <= options.most:
        return dataset
    chosen = np.linspace(0, len(dataset) - 1, options.most).round().astype(int).tolist()
    return replace(dataset, items=tuple(dataset.items[i] for i in chosen))


# ----------------------------------------------------------------------------------------------------- shifts


def _add_shifts(kinds: Any) -> None:
    parser = add_kind(
        kinds,
        "shifts",
        _shifts,
        "the learned shifts of a RubiksNet's layers in time and space",
        "Draw the learned shifts of a RubiksNet's layers in time and space, and print a table.",
    )
    add_source(parser)
    parser.add_argument(
        "--model",
        default="",
        metavar="NAME",
        help="architecture of a checkpoint (default: detected from its shapes)",
    )
    parser.add_argument(
        "--out", default="", help=f"chart, {', '.join(PICTURES)} (default: shifts.png in the run folder)"
    )
    add_threads(parser)
    add_json(parser)


def _shifts(options: Namespace) -> int:
    source = Path(options.source)
    default = source / "shifts.png" if source.is_dir() else f"{source.name.split('.')[0]}_shifts.png"
    out = check_file(options.out or default, what="chart", suffixes=PICTURES)
    model = _load(source, options.model)
    from saccade.visualize.charts import save_figure
    from saccade.visualize.shifts import learned_shifts, shift_chart

    layers = learned_shifts(model)
    save_figure(shift_chart(layers, title=f"Learned shifts of {model.model_name}"), out)
    if options.json:
        print(json.dumps([layer.to_dict() for layer in layers]))
        return 0
    print(_shift_table(layers))
    print(f"\n{out}")
    return 0


def _shift_table(layers: list[LayerShifts]) -> str:
    titles = ("layer", "channels", "earlier", "later", "frames: mean", "max", "pixels: mean", "max")
    rows: list[Sequence[str]] = [titles]
    for layer in layers:
        row = layer.summary()
        lengths = [
            f"{row[f'{kind}_{unit}']:.2f}" for unit in ("frames", "pixels") for kind in ("mean", "most")
        ]
        rows.append(
            [row["layer"], str(row["channels"]), f"{row['earlier']:.0%}", f"{row['later']:.0%}", *lengths]
        )
    note = "earlier, later: fraction of channels with a shift of at least half a frame"
    return "\n".join([*aligned(rows), "", note])


def _load(source: Path, name: str) -> VideoModel:
    """The model of a run folder, a weights file, or a checkpoint of another code base."""
    from saccade.cli.convert import guess
    from saccade.models import create_model, load_model, load_weights
    from saccade.models.checkpoints import num_classes_of, read_state
    from saccade.runs import Run

    file = Run(source).best if source.is_dir() else source
    if not file.is_file():
        raise UsageError(f"{file}: no such file; give a run folder or weights")
    if file.suffix == ".safetensors":
        return load_model(file)[0]
    state = read_state(file)
    name = name or guess(str(file), state)
    model = create_model(name, num_classes_of(state, name))
    load_weights(model, file)
    return model.eval()


# --------------------------------------------------------------------------------------------------- timeline


def _add_timeline(kinds: Any) -> None:
    parser = add_kind(
        kinds,
        "timeline",
        _timeline,
        "a video with a timeline of its actions, as mp4",
        "Render a video with a timeline of the actions that a localization model detects.",
    )
    parser.add_argument("video", metavar="VIDEO", help="video file, or folder of images")
    add_run(parser)
    parser.add_argument("--out", metavar="FILE", help="mp4 to write (default: NAME.timeline.mp4)")
    parser.add_argument(
        "--threshold",
        type=score,
        default=0.5,
        metavar="SCORE",
        help="minimum score of an action (default %(default)s)",
    )
    add_frames_fps(parser)
    add_backend(parser)
    add_model(parser)


def _timeline(options: Namespace) -> int:
    if not (options.run or options.weights):
        raise UsageError("give a model: --run RUN, or --weights FILE (with --model NAME if not from saccade)")
    out = options.out or f"{Path(options.video).stem}.timeline.mp4"
    target = check_file(out, what="video", suffixes=(".mp4",))
    from saccade.inference import Localizer
    from saccade.visualize.timeline import render_timeline

    loaded = load_from_flags(options.run, options.weights, options)
    locate = Localizer(loaded, frames_fps=options.fps, backend=options.backend)
    print(render_timeline(locate(options.video), target, threshold=options.threshold))
    return 0
