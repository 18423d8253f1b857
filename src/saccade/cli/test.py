"""``saccade test RUN_OR_WEIGHTS``: measure the accuracy under a named protocol."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.cli.console import print_json
from saccade.cli.flags import (
    Parser,
    add_data,
    add_decoding,
    add_frames_fps,
    add_json,
    add_model,
    add_source,
    check_folder,
    load_from_flags,
    run_settings,
)
from saccade.cli.tables import bar, percent
from saccade.errors import DataError, UsageError
from saccade.sampling.views import PROTOCOLS, parse_views

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from saccade.data.types import VideoDataset
    from saccade.inference import LoadedModel
    from saccade.tasks import Result, Task

EXAMPLES = """examples:
  saccade test runs/my_run --views 10x1
  saccade test runs/my_run --data clips/ --views 1x1,3x1,10x1,10x3
  saccade test runs/my_run --data clips/ --views 3x1 --shuffle-frames
  saccade test runs/my_run --data something-something-v2 --views ssv2-1clip,ssv2-2clip-3crop
  saccade test runs/x3d_m_charades --data Charades --root Charades_v1_rgb --views 10x1,10x3
  saccade test runs/x3d_m_ava --data ava --boxes ava_val_predicted_boxes.csv
  saccade test x3d_m.pyth --model x3d_m --labels kinetics400 --data k400/val.csv --views 10x3

Exit code 1 if a video could not be read; the results are those of the other videos.
"""
_ROWS = 15  # classes in the table without --all-classes
_BARS = 40  # classes in the chart


def run(args: list[str]) -> int:
    """Test; 1 if a video could not be read."""
    from saccade.cli.console import show_progress
    from saccade.evaluation import evaluate
    from saccade.runs import data_of_run

    options = _parser().parse_args(args)
    settings = run_settings(options.source)
    if not (options.data or settings.get("data")):
        raise UsageError("give --data: class folders, a list file, Something-Something, Charades or AVA")
    loaded = load_from_flags(options.source, None, options)
    task = _task(loaded, options)
    folder = check_folder(_folder(options))
    data_options = _data_options(options, settings)
    if options.data:
        data, split = options.data, options.split or _default_split(options, settings)
    else:
        data, root, split = data_of_run(settings, options.split)
        data_options["root"] = options.root or root
        if split == "val" and not options.boxes:
            data_options["detected"] = settings.get("people", {}).get("val_boxes") or None
    dataset = load_test_set(task, loaded, data, split, data_options)
    if not options.data and split == "all" and options.split != "all":
        dataset = replace(dataset, split="val")
    with show_progress("testing", unit="videos", stopped="no figures were written") as progress:
        results = evaluate(
            loaded.model,
            dataset,
            loaded.clip,
            options.views or "1x1",
            task=task,
            workers=options.workers,
            batch_size=options.batch_size,
            shuffle_frames=options.shuffle_frames,
            temporal_rule=options.temporal_rule or loaded.metadata.get("temporal_rule") or "saccade",
            seed=options.seed,
            precision=options.precision,
            backend=options.backend,
            frames_fps=settings.get("frames_fps") if options.fps is None else options.fps,
            progress=progress,
        )
    record: dict[str, Any] = {
        "model": loaded.name,
        "weights": loaded.origin,
        "data": dataset.root,
        "split": dataset.split,
        **({"min_score": data_options["min_score"]} if "min_score" in task.test_options else {}),
        "device": str(loaded.device),
        "precision": options.precision,
        "results": [result.summary() for result in results.values()],
    }
    saved = _save(results, record, folder, shuffled=options.shuffle_frames)
    if options.json:
        print_json(record)
    else:
        _show(list(results.values()), record, num_rows=None if options.all_classes else _ROWS)
        print(f"saved to {folder}: {', '.join(saved)}")
    return _report_failures(next(iter(results.values())), len(dataset))


def _parser() -> Parser:
    parser = Parser(
        prog="saccade test",
        description="Measure the accuracy of a run or checkpoint under a named protocol.",
        epilog=EXAMPLES,
    )
    add_source(parser)
    add_data(parser, default="val; all of a list or folder without splits that --data gives")
    parser.add_argument(
        "--allow-missing", action="store_true", help="skip listed files that do not exist, with a warning"
    )
    parser.add_argument(
        "--views",
        help=f"CLIPSxCROPS, e.g. 10x3, or a protocol ({', '.join(PROTOCOLS)}), or several: 1x1,10x3,6-view "
        "(default 1x1; localization tests whole videos)",
    )
    parser.add_argument(
        "--temporal-rule", metavar="RULE", help="how the frames of a clip are sampled (default: as trained)"
    )
    parser.add_argument(
        "--shuffle-frames", action="store_true", help="control: shuffle the frames of each view"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the shuffling (default %(default)s)")
    parser.add_argument(
        "--ensemble",
        choices=("max", "mean"),
        help="multi-label: how to combine the scores of the views (default: as trained)",
    )
    parser.add_argument(
        "--overlap",
        type=float,
        metavar="FRACTION",
        help="localization: overlap of neighbouring windows (default 0.5)",
    )
    parser.add_argument(
        "--boxes",
        metavar="FILE",
        help="detection: file of detected people (default: the one of the run, or the annotated boxes)",
    )
    parser.add_argument(
        "--min-score",
        type=float,
        metavar="SCORE",
        help="detection: ignore detected people with a lower score (default: as trained)",
    )
    add_decoding(parser)
    add_frames_fps(parser)
    parser.add_argument(
        "--precision",
        default="float32",
        choices=("float32", "bfloat16"),
        help="autocast precision (default %(default)s)",
    )
    parser.add_argument("--out", metavar="FOLDER", help="folder of scores and charts (default: RUN/test)")
    add_json(parser)
    parser.add_argument("--all-classes", action="store_true", help="show all classes in the table")
    add_model(parser)
    return parser


def _task(loaded: LoadedModel, options: Namespace) -> Task:
    """The model's task with the options of the flags.

    Raises:
        UsageError: a flag does not apply to the task, or would change a named protocol.
    """
    from saccade.inference.loading import task_of

    task = task_of(loaded)
    if not task.has_classes:
        raise UsageError(
            f"{options.source}: pre-trained without labels, has no classes; fine-tune it with "
            "saccade train RECIPE --model.weights and test that run"
        )
    names = ("views", "temporal_rule", "overlap", "boxes", "min_score", "ensemble")
    flags = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    for name in flags:
        if name not in task.test_options:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag}: has no effect on a model trained for {task.name}")
    for text in options.views.split(",") if options.views else ():
        views = parse_views(text)
        if not views.protocol:
            continue
        fixed = {"--temporal-rule": options.temporal_rule not in (None, views.rule)}
        fixed["--short-side"] = options.short_side is not None and views.scale is not None
        for flag, changed in fixed.items():
            if changed:
                raise UsageError(
                    f"{flag}: cannot be combined with the protocol {views}; remove the flag, or give the "
                    f"views as {views.num_clips}x{views.num_crops}"
                )
    task_fields = {entry.name for entry in fields(task)}
    return replace(task, **{name: value for name, value in flags.items() if name in task_fields})


def _default_split(options: Namespace, settings: Mapping[str, Any]) -> str:
    """``val``, or ``all`` of a list or folder without splits that nothing was held out of."""
    from saccade.data.datasets import stated_splits

    trained_on = settings.get("data") if not settings.get("val_data") else None
    if trained_on and os.path.realpath(options.data) == os.path.realpath(trained_on):
        return "val"
    try:
        if stated_splits(options.data, root=options.root):
            return "val"
    except DataError:  # the task's own reader may read it, or say what is wrong
        return "val"
    print(f"{options.data}: states no splits, so all of it is tested", file=sys.stderr)
    return "all"


def _data_options(options: Namespace, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Options for loading the data set, from the flags or from the run."""
    people = settings.get("people", {})
    return {
        "root": options.root or None,
        "val_fraction": settings.get("val_fraction", 0.2),
        "allow_missing": options.allow_missing,
        "detected": options.boxes or None,
        "min_score": people.get("min_score", 0.9) if options.min_score is None else options.min_score,
    }


def load_test_set(
    task: Task,
    loaded: LoadedModel,
    data: str,
    split: str,
    data_options: dict[str, Any],
) -> VideoDataset:
    """A split of a data set with the classes of the model.

    Raises:
        DataError: it has another number of classes.
    """
    names = loaded.class_names if loaded.named else None
    dataset = task.load_test_split(data, split, data_options, class_names=names)
    if len(dataset.class_names) != len(loaded.class_names):
        raise DataError(
            f"{data} has {len(dataset.class_names)} classes, but {loaded.origin} has "
            f"{len(loaded.class_names)}; give the class names of the weights with --labels, or test on the "
            "data set of their training"
        )
    return dataset


def _report_failures(result: Result, total: int) -> int:
    if not result.failures:
        return 0
    num = len(result.failures)
    print(f"saccade: {num} of {total} videos could not be read and are not counted:", file=sys.stderr)
    for failure in result.failures:
        print(f"  {failure.path}: {failure.cause}", file=sys.stderr)
    return 1


# --------------------------------------------------------------------------------------------------- files


def _folder(options: Namespace) -> Path:
    if options.out:
        return Path(options.out)
    source = Path(options.source)
    return source / "test" if source.is_dir() else Path(f"{source.stem}-test")


def _save(
    results: Mapping[str, Result], record: dict[str, Any], folder: Path, *, shuffled: bool
) -> list[str]:
    """Write scores, summary and charts; return the names of the files."""
    from saccade.files import write_json
    from saccade.visualize.charts import save_figure

    prefix = f"{record['split']}{'_shuffled' if shuffled else ''}"
    saved = []
    for views, result in results.items():
        saved.append(f"{prefix}_scores_{views}.npz")
        result.save(folder / saved[-1])
        if result.submission_name:
            saved.append(f"{prefix}_{result.submission_name}")
            result.write_submission(folder / saved[-1])
    saved.append(f"{prefix}_result.json")
    write_json(folder / saved[-1], record)
    for name, figure in _charts(list(results.values()), record["model"]).items():
        for suffix in ("svg", "png"):
            save_figure(figure, folder / f"{prefix}_{name}.{suffix}")
        saved.append(f"{prefix}_{name}.svg (.png)")
    return saved


def _charts(results: Sequence[Result], model: str) -> dict[str, Figure]:
    """Charts of the classes for the largest view set, and of accuracy against cost for several view sets."""
    from saccade.tasks import figure_name
    from saccade.visualize.charts import confusion_chart, per_class_chart, sparse_view_chart

    largest = max(results, key=lambda result: result.num_views)
    table, charts = largest.class_table(), {}
    if table is not None and table.confusion is not None:
        title = f"{model}, {largest.views} views"
        charts[f"confusion_{largest.views}"] = confusion_chart(
            table.confusion, largest.class_names, title=title
        )
    elif table is not None:
        names, values = [row[0] for row in table.rows[:_BARS]], [row[1] for row in table.rows[:_BARS]]
        title = f"{table.value}: {model}, {largest.views}"
        charts[f"classes_{largest.views}"] = per_class_chart(names, values, title=title)
    if len(results) > 1:
        points = [(result.views, result.gmacs_per_video, result.score) for result in results]
        name = figure_name(largest.score_name)
        charts["sparse_views"] = sparse_view_chart(points, label=model, figure_name=name)
    return charts


# -------------------------------------------------------------------------------------------------- tables


def _show(results: Sequence[Result], record: dict[str, Any], *, num_rows: int | None) -> None:
    """Print protocol, metrics of each view set, cost, and the classes for the view set with most views.

    Args:
        record: model, weights, data, split, device and precision.
        num_rows: number of classes in the table, worst first; None shows all.
    """
    from rich.markup import escape

    from saccade.cli.console import output
    from saccade.tasks import figure_name, figure_note

    console, first = output(), results[0]
    title = f"\n[bold]{escape(record['model'])}[/] from {escape(record['weights'])}"
    console.print(title, soft_wrap=True)
    console.print(
        f"on {escape(record['data'])} ({record['split']}): {first.num_videos} videos, "
        f"{len(first.class_names)} classes",
        soft_wrap=True,
    )
    for line in dict.fromkeys(result.protocol_text() for result in results):  # without duplicates
        console.print(line, soft_wrap=True, markup=False)
    if first.shuffled:
        console.print("[yellow]control: the frames of each view are shuffled[/]", soft_wrap=True)
    console.print()
    names = _shown_figures(first)
    console.print(_figures(results, names))
    for name in names:
        if note := figure_note(name):
            console.print(f"{figure_name(name)}: {note}", style="dim", soft_wrap=True)
    console.print(
        f"{first.num_params / 1e6:.2f} M parameters; {first.clips_per_second:.1f} clips/s "
        f"on {record['device']} in {record['precision']}; {first.seconds:.1f} s, "
        f"{100 * first.data_wait:.0f} % of it waiting for video\n",
        style="dim",
        soft_wrap=True,
    )
    _show_classes(max(results, key=lambda result: result.num_views), num_rows)


def _shown_figures(result: Result) -> list[str]:
    """The metrics that have a value; top-5 only for more than five classes."""
    few = len(result.class_names) <= 5
    return [
        name for name, value in result.figures.items() if isfinite(value) and not (few and name == "top5")
    ]


def _figures(results: Sequence[Result], names: Sequence[str]) -> Any:
    from rich.table import Table

    from saccade.tasks import figure_name

    table = Table(box=None, pad_edge=False, header_style="bold")
    pairs = [getattr(result, "pair_accuracy", float("nan")) for result in results]
    with_pairs = any(map(isfinite, pairs))
    table.add_column("views")
    for heading in (*map(figure_name, names), *(["within pairs"] * with_pairs), "GMACs/video"):
        table.add_column(heading, justify="right")
    table.add_column("GMACs x views", style="dim", justify="right")
    for result, pair_accuracy in zip(results, pairs, strict=True):
        values = [
            f"{result.figures[name]:.4g}" if name in result.metrics else percent(result.figures[name])
            for name in names
        ]
        table.add_row(
            result.views,
            *values,
            *([percent(pair_accuracy)] * with_pairs),
            f"{result.gmacs_per_video:.4g}",
            f"{result.gmacs_per_view:.4g} x {result.num_views:.4g}",
        )
    return table


def _show_classes(result: Result, num_rows: int | None) -> None:
    from rich.markup import escape
    from rich.table import Table

    from saccade.cli.console import output
    from saccade.tasks.metrics import most_confused

    classes, console = result.class_table(), output()
    if classes is None:
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("class (worst first)")
    table.add_column(classes.value, justify="right")
    table.add_column("", width=12)
    for heading in classes.columns:
        table.add_column(heading, justify="right")
    for name, value, cells in classes.rows[:num_rows]:
        table.add_row(escape(name), percent(value), f"[cyan]{bar(value, 12)}[/]", *map(escape, cells))
    console.print(table)
    num_hidden = len(classes.rows) - len(classes.rows[:num_rows])
    if num_hidden:
        console.print(f"... and {num_hidden} better classes (--all-classes)", style="dim")
    confused = [] if classes.confusion is None else most_confused(classes.confusion, 5)
    if confused:
        names = result.class_names
        console.print(f"\n[bold]most confused[/] ({result.views})")
        for true, predicted, count in confused:
            console.print(f"  {count:>4} x {escape(names[true])} predicted as {escape(names[predicted])}")
    console.print()
