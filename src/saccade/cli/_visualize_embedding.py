"""``saccade visualize embedding``: a map of the clips of a data set by what a model makes of them."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saccade.cli._args import Parser
from saccade.cli._model_flags import add_model_flags, load_from_flags
from saccade.cli._outputs import check_folder
from saccade.errors import DataError, UsageError

if TYPE_CHECKING:
    from saccade.data.types import VideoDataset
    from saccade.evaluation.features import ClipFeatures
    from saccade.inference import LoadedModel
    from saccade.visualize.embedding import Embedding


def add_embedding(pictures: Any) -> None:
    """The parser of ``saccade visualize embedding``."""
    parser: Parser = pictures.add_parser(
        "embedding",
        help="a map of the clips of a data set: those that a model makes alike features of lie together",
        description="A map of clip features by t-SNE and by principal components: embedding.html, to point "
        "at and click, and embedding.png. A run's report.html shows it too.",
    )
    parser.set_defaults(draw=draw_embedding)
    parser.add_argument(
        "source", metavar="RUN_OR_WEIGHTS", help="run folder, weights, or checkpoint (--model)"
    )
    parser.add_argument(
        "--data", metavar="PATH", help="clips, as test takes them (default: those of the run)"
    )
    parser.add_argument("--root", metavar="FOLDER", help="where the files of a list lie")
    parser.add_argument(
        "--split", default="val", choices=("train", "val", "test", "all"), help="default %(default)s"
    )
    parser.add_argument(
        "--most",
        type=int,
        default=400,
        metavar="N",
        help="clips at most, spread evenly (default %(default)s)",
    )
    parser.add_argument(
        "--perplexity", type=float, default=30.0, help="neighbours that count in t-SNE (default %(default)s)"
    )
    parser.add_argument(
        "--method", default="t-SNE", choices=("t-SNE", "PCA"), help="of the picture (default %(default)s)"
    )
    parser.add_argument("--workers", type=int, default=2, help="decoding processes (default %(default)s)")
    parser.add_argument("--batch-size", type=int, metavar="N", help="clips per pass (default: by memory)")
    parser.add_argument("--out", metavar="FOLDER", help="of the files (default: the run folder, or here)")
    add_model_flags(parser)


def draw_embedding(options: Namespace) -> int:
    """The command; returns 1 when a video could not be read."""
    from saccade.console import console, show_progress
    from saccade.evaluation.features import clip_features
    from saccade.inference.predictor import rule_to_predict
    from saccade.visualize import write_report

    for flag in ("most", "perplexity"):
        if getattr(options, flag) < 1:
            raise UsageError(f"--{flag} must be at least 1, got {getattr(options, flag):g}")
    folder = check_folder(options.out or _folder(Path(options.source)))
    loaded = load_from_flags(options.source, None, options)
    dataset = _dataset(options, loaded)
    with show_progress("reading", unit="videos") as progress:
        seen = clip_features(
            loaded.model,
            dataset,
            loaded.clip,
            temporal_rule=rule_to_predict(loaded),
            workers=options.workers,
            batch_size=options.batch_size,
            progress=progress,
        )
    found = _embedded(seen, loaded, dataset, options.perplexity)
    source = Path(options.source)
    title = f"{loaded.name}, {source.resolve().name if source.is_dir() else source.name}"
    subtitle = f"{len(seen.items)} clips of {Path(dataset.root).name or dataset.root}, {options.split}"
    page, picture = _write(found, folder, options.method, title, subtitle)
    if found.neighbour_accuracy == found.neighbour_accuracy:
        console().print(
            f"nearest clip of the same class: {100 * found.neighbour_accuracy:.1f} % of {len(seen.items)}"
        )
    print(page)
    print(picture)
    if (folder / "report.html").is_file():
        print(write_report(folder))
    for failure in seen.failures:
        print(f"saccade: {failure.path}: {failure.cause}: left out", file=sys.stderr)
    return 1 if seen.failures else 0


def _embedded(seen: ClipFeatures, loaded: LoadedModel, dataset: VideoDataset, perplexity: float) -> Embedding:
    """The map, with the model's scores where its classes are those of the clips."""
    from saccade.inference.loading import task_of
    from saccade.visualize.embedding import embed

    same = loaded.named and loaded.class_names == dataset.class_names
    own = same and seen.logits.shape[1] == len(loaded.class_names)
    return embed(
        seen.features,
        [item.path for item in seen.items],
        [item.label for item in seen.items],
        dataset.class_names,
        scores=task_of(loaded).activation(seen.logits) if own else None,
        perplexity=perplexity,
    )


def _write(found: Embedding, folder: Path, method: str, title: str, subtitle: str) -> tuple[Path, Path]:
    """The files written: the page and the picture."""
    from saccade.console import progress_bar
    from saccade.visualize.charts import save_figure
    from saccade.visualize.embedding import embedding_chart, write_embedding

    picture = folder / "embedding.png"
    save_figure(embedding_chart(found, method, title=title, subtitle=subtitle), picture)
    with progress_bar(unit="clips", transient=True) as bar:
        task = bar.add_task("writing", total=len(found.paths))
        page = write_embedding(
            found,
            folder / "embedding.html",
            title=title,
            subtitle=subtitle,
            on_clip=lambda: bar.advance(task),
        )
    return page, picture


def _dataset(options: Namespace, loaded: LoadedModel) -> VideoDataset:
    """The clips, at most so many, spread evenly over the list."""
    from dataclasses import replace
    from functools import partial

    from saccade.cli.test import settings_of_run
    from saccade.data import load_dataset

    settings = settings_of_run(Path(options.source))
    data = options.data or settings.get("data")
    if not data:
        raise UsageError("--data is needed: class folders, a list file, Something-Something or Charades")
    load = partial(
        load_dataset,
        data,
        options.split,
        root=options.root or (settings.get("root") if not options.data else None) or None,
        val_fraction=settings.get("val_fraction", 0.2),
    )
    try:
        dataset = load(class_names=loaded.class_names if loaded.named else None)
    except DataError:
        dataset = load()  # of classes that the model does not know; a map needs none of it
    if len(dataset) <= options.most:
        return dataset
    chosen = np.linspace(0, len(dataset) - 1, options.most).round().astype(int).tolist()
    return replace(dataset, items=tuple(dataset.items[i] for i in chosen))


def _folder(source: Path) -> Path:
    return source if source.is_dir() else Path()
