"""``saccade test RUN_OR_WEIGHTS``: accuracy under a named protocol."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.cli._args import Parser
from saccade.cli._model_flags import add_model_flags, load_from_flags
from saccade.cli._outputs import check_folder
from saccade.errors import DataError, UsageError
from saccade.runs import Run
from saccade.sampling.views import PROTOCOLS, parse_views

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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
"""


def run(args: list[str]) -> int:
    """The command; returns 1 when a video could not be read."""
    from saccade.console import show_progress
    from saccade.evaluation import evaluate

    options = _parser().parse_args(args)
    settings = settings_of_run(Path(options.source))
    data = options.data or settings.get("data")
    if not data:
        raise UsageError("--data is needed: class folders, a list file, Something-Something, Charades or AVA")
    loaded = load_from_flags(options.source, None, options)
    task = _task(loaded, options)
    folder = check_folder(_folder(options))
    given = _data_options(options, settings)
    dataset = task.load_test_split(
        data, options.split, given, class_names=loaded.class_names if loaded.named else None
    )
    if len(dataset.class_names) != len(loaded.class_names):
        raise DataError(
            f"{data} has {len(dataset.class_names)} classes and {loaded.origin} {len(loaded.class_names)}; "
            "name the classes of the weights with --labels, or test on their own data"
        )
    with show_progress("testing", unit="videos") as progress:
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
            progress=progress,
        )
    record: dict[str, Any] = {
        "model": loaded.name,
        "weights": loaded.origin,
        "data": dataset.root,
        "split": dataset.split,
        **({"min_score": given["min_score"]} if "min_score" in task.test_options else {}),
    }
    record |= {"device": str(loaded.device), "precision": options.precision}
    record["results"] = [result.summary() for result in results.values()]
    saved = _save(results, record, folder, shuffled=options.shuffle_frames, model=loaded.name)
    if options.json:
        print(json.dumps(record, indent=2, ensure_ascii=False))
    else:
        _show(results, record, num_rows=None if options.all_classes else 15)
        print(f"saved in {folder}: {', '.join(saved)}")
    return _report_failures(next(iter(results.values())), len(dataset))


def _data_options(options: Namespace, settings: dict[str, Any]) -> dict[str, Any]:
    """What the flags, or else the run, say of the data."""
    people = settings.get("people", {})
    own = not options.data  # the data of the run
    return {
        "root": options.root or (settings.get("root") if own else None) or None,
        "val_fraction": settings.get("val_fraction", 0.2),
        "allow_missing": options.allow_missing,
        "detected": options.boxes
        or (people.get("val_boxes") if own and options.split == "val" else None)
        or None,
        "min_score": people.get("min_score", 0.9) if options.min_score is None else options.min_score,
    }


def _show(results: Mapping[str, Result], record: dict[str, Any], *, num_rows: int | None) -> None:
    from saccade.cli._precision_tables import show_precisions
    from saccade.cli._test_detection import show_people
    from saccade.cli._test_tables import show

    tables: dict[str, Any] = {"accuracy": show, "precision": show_precisions, "people": show_people}
    found = list(results.values())
    tables[found[0].table](found, record, num_rows=num_rows)


def _parser() -> Parser:
    parser = Parser(
        prog="saccade test", description="Accuracy of a model under a named protocol.", epilog=EXAMPLES
    )
    parser.add_argument(
        "source", metavar="RUN_OR_WEIGHTS", help="run folder, weights, or checkpoint (--model)"
    )
    _add_data_flags(parser)
    parser.add_argument(
        "--views",
        help=f"CLIPSxCROPS, e.g. 10x3, or a protocol ({', '.join(PROTOCOLS)}), or several: "
        "1x1,10x3,6-view (default 1x1; to localise none: videos are looked at whole)",
    )
    parser.add_argument(
        "--shuffle-frames", action="store_true", help="control: permute the frames of every view"
    )
    parser.add_argument(
        "--ensemble",
        choices=("max", "mean"),
        help="of several labels: what to make of a class's scores in the views (default: as trained)",
    )
    parser.add_argument(
        "--overlap", type=float, metavar="SHARE", help="to localise: of neighbouring windows (default 0.5)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the permutation (default %(default)s)")
    parser.add_argument(
        "--temporal-rule", metavar="RULE", help="which frames make a clip (default: as trained)"
    )
    parser.add_argument("--batch-size", type=int, metavar="N", help="views per pass (default: by memory)")
    parser.add_argument("--workers", type=int, default=2, help="decoding processes (default %(default)s)")
    parser.add_argument(
        "--precision", default="float32", choices=("float32", "bfloat16"), help="default float32"
    )
    parser.add_argument(
        "--allow-missing", action="store_true", help="leave out listed files that are not there, aloud"
    )
    parser.add_argument("--out", metavar="FOLDER", help="for scores and pictures (default: RUN/test)")
    parser.add_argument(
        "--boxes",
        metavar="FILE",
        help="AVA: file of detected people (default: that of the run, or the one among the annotations)",
    )
    parser.add_argument(
        "--min-score", type=float, metavar="S", help="AVA: detected people below are left out (as trained)"
    )
    parser.add_argument("--json", action="store_true", help="the figures as JSON on stdout, no tables")
    parser.add_argument("--all-classes", action="store_true", help="every class in the table")
    add_model_flags(parser)
    return parser


def _add_data_flags(parser: Parser) -> None:
    parser.add_argument(
        "--data",
        metavar="PATH",
        help="class folders, a list file, Something-Something, Charades, AVA (default: that of the run)",
    )
    parser.add_argument(
        "--root",
        metavar="FOLDER",
        help="where the files of a list lie (default: as the run, beside the list)",
    )
    parser.add_argument(
        "--split", default="val", choices=("train", "val", "test", "all"), help="default %(default)s"
    )


def settings_of_run(source: Path) -> dict[str, Any]:
    """What the run's config says of its data; nothing for weights without a run."""
    try:
        return Run(source).settings
    except (OSError, UsageError):
        return {}


def _task(loaded: LoadedModel, options: Namespace) -> Task:
    """The model's task with the options that the flags give it. It is an error to give a flag that it has no
    use for, or one that would change a protocol.
    """
    from saccade.inference.loading import task_of

    task = task_of(loaded)
    if not task.has_classes:
        raise UsageError(
            f"{options.source}: was pre-trained without labels and has no classes; start a recipe with "
            "--model.weights from it, then test that run"
        )
    names = ("views", "temporal_rule", "overlap", "boxes", "min_score", "ensemble")
    given = {name: getattr(options, name) for name in names if getattr(options, name) is not None}
    for name in given:
        if name not in task.test_options:
            flag = f"--{name.replace('_', '-')}"
            raise UsageError(f"{flag}: a model trained for {task.name} has no use for it; leave the flag out")
    for text in options.views.split(",") if options.views else ():
        views = parse_views(text)
        if not views.protocol:
            continue
        fixed = {"--temporal-rule": options.temporal_rule not in (None, views.rule)}
        fixed["--short-side"] = options.short_side is not None and views.scale is not None
        for flag, changed in fixed.items():
            if changed:
                raise UsageError(
                    f"{flag}: the protocol {views} fixes it; leave the flag out, or give the views as "
                    f"{views.num_clips}x{views.num_crops}"
                )
    own = {entry.name for entry in fields(task)}
    return replace(task, **{name: value for name, value in given.items() if name in own})


def _folder(options: Namespace) -> Path:
    if options.out:
        return Path(options.out)
    source = Path(options.source)
    return source / "test" if source.is_dir() else Path(f"{source.stem}-test")


def _save(
    results: Mapping[str, Result], record: dict[str, Any], folder: Path, *, shuffled: bool, model: str
) -> list[str]:
    """Scores, figures and pictures; the names of the files."""
    from saccade.files import write_json
    from saccade.visualize.charts import save_figure

    mark = f"{record['split']}{'_shuffled' if shuffled else ''}"
    saved = []
    for views, result in results.items():
        saved.append(f"{mark}_scores_{views}.npz")
        result.save(folder / saved[-1])
        if result.submission_name:
            saved.append(f"{mark}_{result.submission_name}")
            result.write_submission(folder / saved[-1])
    saved.append(f"{mark}_result.json")
    write_json(folder / saved[-1], record)
    for name, figure in _pictures(list(results.values()), model).items():
        for suffix in ("svg", "png"):
            save_figure(figure, folder / f"{mark}_{name}.{suffix}")
        saved.append(f"{mark}_{name}.svg (.png)")
    return saved


def _pictures(results: Sequence[Result], model: str) -> dict[str, Figure]:
    """The classes of the view set with most views, and accuracy against cost where there are several."""
    from saccade.tasks import TestResult, figure_name
    from saccade.visualize.charts import confusion_chart, sparse_view_chart

    last = max(results, key=lambda result: result.num_views)
    if last.table == "people":
        return {}
    if isinstance(last, TestResult):
        title = f"{model}, {last.views} views"
        pictures = {f"confusion_{last.views}": confusion_chart(last.confusion, last.class_names, title=title)}
    else:
        pictures = {f"classes_{last.views}": _precision_chart(last, f"{model}, {last.views}")}
    if len(results) > 1:
        name = figure_name(last.score_name)
        points = [(result.views, result.gmacs_per_video, result.score) for result in results]
        pictures["sparse_views"] = sparse_view_chart(points, label=model, figure_name=name)
    return pictures


def _precision_chart(result: Result, title: str) -> Figure:
    from saccade.cli._precision_tables import worst_first
    from saccade.visualize.charts import per_class_chart

    rows = worst_first(result)[:40]
    names = [result.class_names[row.label] for row in rows]
    values = [row.average_precision for row in rows]
    return per_class_chart(names, values, title=f"Average precision: {title}")


def _report_failures(result: Result, total: int) -> int:
    if not result.failures:
        return 0
    num = len(result.failures)
    print(f"saccade: {num} of {total} videos could not be read and are in no figure:", file=sys.stderr)
    for failure in result.failures:
        print(f"  {failure.path}: {failure.cause}", file=sys.stderr)
    return 1
