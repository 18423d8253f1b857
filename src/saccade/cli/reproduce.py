"""``saccade reproduce MODEL``: measure a published checkpoint by its published protocol."""

from __future__ import annotations

import json
import math
import sys
from argparse import Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from saccade.cli.flags import (
    Parser,
    add_decoding,
    add_device,
    add_frames_fps,
    add_json,
    add_threads,
    positive,
)
from saccade.cli.tables import aligned
from saccade.cli.test import load_test_set
from saccade.errors import UsageError, WeightsError

if TYPE_CHECKING:
    from saccade.models.published import PublishedResult
    from saccade.tasks import Result

EXAMPLES = """examples:
  saccade reproduce x3d_m --weights x3d_m.pyth --data k400/val.csv
  saccade reproduce vov3d_m --weights vov3d_M_f16_ssv2.pth --on ssv2 --data something-something-v2
  saccade reproduce x3d_m --weights x3d_m.pyth --data k400/val.csv --source all

Measured are the rows of docs/results.md for the model, the data set and the code base of the checkpoint.
Exit code 1 if a video could not be read; the figures are those of the others.
"""
_LABELS = {"k400": "kinetics400", "k600": "kinetics600", "ssv1": "something_v1", "ssv2": "something_v2"}
_FAR = 3.0
"""Standard errors beyond which a difference is pointed out."""


def run(args: list[str]) -> int:
    """Measure; 1 if a video could not be read."""
    options = _parser().parse_args(args)
    rows, format_name = _rows(options)
    measured = [(row, result) for group in _groups(rows) for row, result in _measure(group, options)]
    records = [_record(row, result) for row, result in measured]
    if options.json:
        print(json.dumps({"weights": options.weights, "format": format_name, "rows": records}, indent=2))
    else:
        _show(records, format_name, options)
    failures = {failure.path: failure.cause for _, result in measured for failure in result.failures}
    for path, cause in failures.items():
        print(f"saccade: {path}: {cause}", file=sys.stderr)
    return 1 if failures else 0


def _parser() -> Parser:
    from saccade.models.published import DATA_SETS

    parser = Parser(
        prog="saccade reproduce",
        description="Measure a published checkpoint by its published protocol.",
        epilog=EXAMPLES,
    )
    parser.add_argument("model", metavar="MODEL", help="a model of saccade models")
    parser.add_argument("--weights", required=True, metavar="FILE", help="checkpoint of any known code base")
    parser.add_argument(
        "--data", required=True, metavar="PATH", help="data set, as saccade test takes it; its val split"
    )
    parser.add_argument("--root", metavar="FOLDER", help="folder that relative paths of a list start from")
    parser.add_argument(
        "--split",
        default="val",
        choices=("train", "val", "test", "all"),
        help="split to use (default %(default)s)",
    )
    parser.add_argument(
        "--on",
        choices=tuple(DATA_SETS),
        help="published data set (default: by the number of classes of the checkpoint)",
    )
    parser.add_argument(
        "--source",
        metavar="TEXT",
        help="rows whose source contains this text, or all (default: those of the checkpoint's code base)",
    )
    parser.add_argument(
        "--labels",
        metavar="NAMES",
        help="class names in the checkpoint's order (default: the shipped list of the data set)",
    )
    parser.add_argument(
        "--num-classes", type=positive, metavar="N", help="classes of the checkpoint, where they are others"
    )
    parser.add_argument(
        "--allow-missing", action="store_true", help="skip listed files that do not exist, with a warning"
    )
    add_decoding(parser)
    add_frames_fps(parser)
    add_threads(parser)
    add_device(parser)
    add_json(parser)
    return parser


# ------------------------------------------------------------------------------------------- what to measure


def _rows(options: Namespace) -> tuple[list[PublishedResult], str]:
    """The published rows to measure, and the code base that the checkpoint is of.

    Raises:
        UsageError: nothing is published, or the data set is not clear.
    """
    from saccade.models import model_info
    from saccade.models.published import DATA_SETS, published_results

    model_info(options.model)  # raises for an unknown name
    rows = list(published_results(options.model, options.on or ""))
    if not rows:
        on = f" on {DATA_SETS[options.on]}" if options.on else ""
        known = sorted({row.model for row in published_results(data=options.on or "") if row.model})
        raise UsageError(
            f"nothing is published for {options.model}{on}; there are results of {', '.join(known)}"
        )
    rows, format_name = _that_fit(rows, options)
    found = {row.data: None for row in rows}
    if len(found) > 1:
        raise UsageError(
            f"--on: results of {options.model} with as many classes are published for {', '.join(found)}; "
            "name one of them"
        )
    if options.source == "all":
        return rows, format_name
    wanted = options.source or format_name.split()[0]
    chosen = [row for row in rows if wanted.lower() in row.source.lower()]
    if not chosen and options.source:
        sources = ", ".join(dict.fromkeys(row.source for row in rows))
        raise UsageError(f"--source: no source contains {options.source!r}; there are {sources}")
    return chosen or rows, format_name


def _that_fit(rows: list[PublishedResult], options: Namespace) -> tuple[list[PublishedResult], str]:
    """The rows with as many classes as the checkpoint, and the checkpoint's code base."""
    from saccade.models import create_model, load_weights
    from saccade.models.checkpoints import num_classes_of, read_state

    state = read_state(options.weights)
    num_classes = options.num_classes or num_classes_of(state, options.model)
    fitting = [row for row in rows if options.num_classes or row.classes == num_classes]
    if not fitting:
        counts = " or ".join(dict.fromkeys(str(row.classes) for row in rows))
        raise WeightsError(
            f"{options.weights}: its classifier has {num_classes} classes, the published results of "
            f"{options.model} are for {counts}; give --num-classes and --labels for other data"
        )
    return fitting, load_weights(create_model(options.model, num_classes), state).format


def _groups(rows: Sequence[PublishedResult]) -> list[list[PublishedResult]]:
    """Rows that one pass over the data set can measure: they differ in their views alone."""
    groups: dict[Any, list[PublishedResult]] = {}
    for row in rows:
        groups.setdefault((row.clip, row.rule, str(row.options), row.task), []).append(row)
    return list(groups.values())


# -------------------------------------------------------------------------------------------------- measuring


def _measure(rows: Sequence[PublishedResult], options: Namespace) -> list[tuple[PublishedResult, Result]]:
    from saccade.cli.console import show_progress
    from saccade.evaluation import evaluate
    from saccade.inference import load_for_inference
    from saccade.inference.loading import task_of
    from saccade.models import create_model

    first = rows[0]
    num_classes = options.num_classes or first.classes
    loaded = load_for_inference(
        create_model(options.model, num_classes, **first.options),
        weights=options.weights,
        labels=options.labels or (None if options.num_classes else _LABELS.get(first.data)),
        clip=first.clip,
        device=options.device,
        task=first.task,
    )
    task = task_of(loaded)
    data_options = {"root": options.root, "val_fraction": 0.2, "allow_missing": options.allow_missing}
    data_options |= {"detected": None, "min_score": 0.9}
    dataset = load_test_set(task, loaded, options.data, options.split, data_options)
    views = list(dict.fromkeys(row.views or "1x1" for row in rows))
    with show_progress(f"testing {', '.join(views)}", unit="videos") as progress:
        results = evaluate(
            loaded.model,
            dataset,
            loaded.clip,
            views,
            task=task,
            workers=options.workers,
            batch_size=options.batch_size,
            temporal_rule=first.rule or "saccade",
            backend=options.backend,
            frames_fps=options.fps,
            progress=progress,
        )
    only = next(iter(results.values()))  # tasks that test whole videos have one result
    return [(row, results.get(row.views, only)) for row in rows]


def _record(row: PublishedResult, result: Result) -> dict[str, Any]:
    """The published and the measured figure, in percent."""
    measured = 100 * result.figures[row.metric]
    error = 100 * result.standard_error if row.metric == result.score_name else math.nan
    far = (measured - row.value) / error if error > 0 else math.nan
    return {
        "name": row.name,
        "source": row.source,
        "data": row.data,
        "metric": row.metric,
        "views": row.views,
        "temporal_rule": row.rule,
        "num_videos": result.num_videos,
        "published": row.value,
        "measured": measured,
        "standard_error": None if math.isnan(error) else error,
        "difference_in_standard_errors": None if math.isnan(far) else far,
        "published_top5": None if math.isnan(row.top5) else row.top5,
        "measured_top5": 100 * result.figures["top5"] if "top5" in result.figures else None,
    }


# ---------------------------------------------------------------------------------------------------- showing


def _show(records: Sequence[dict[str, Any]], format_name: str, options: Namespace) -> None:
    from saccade.models.published import DATA_SETS
    from saccade.tasks import figure_name

    first = records[0]
    print(f"\n{options.weights}: {format_name} weights of {options.model}")
    print(f"{DATA_SETS[first['data']]}: {first['num_videos']} videos of {options.data} ({options.split})\n")
    lines = [["published as", "views", "rule", "figure", "published", "measured", "difference", "source"]]
    for record in records:
        error, far = record["standard_error"], record["difference_in_standard_errors"]
        measured = f"{record['measured']:.2f}" + (f" ± {error:.2f}" if error is not None else "")
        difference = f"{record['measured'] - record['published']:+.2f}"
        if far is not None:
            difference += f" ({far:+.1f} errors)"
        lines.append(
            [
                record["name"],
                record["views"] or "—",
                record["temporal_rule"] or "—",
                figure_name(record["metric"]),
                f"{record['published']:g}",
                measured,
                difference,
                record["source"],
            ]
        )
    print("\n".join(aligned(lines)))
    print(
        "\n±: one standard error for this number of videos. The authors had other videos, as far as some are "
        "no longer available."
    )
    far_off = [r for r in records if abs(r["difference_in_standard_errors"] or 0) > _FAR]
    if far_off:
        print(
            f"{len(far_off)} of {len(records)} differ by more than {_FAR:g} standard errors: check the class "
            "names (--labels), the list, and whether the videos were resized."
        )
