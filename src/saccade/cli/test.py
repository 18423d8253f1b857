"""``saccade test RUN_OR_WEIGHTS``: accuracy under a named protocol."""

from __future__ import annotations

import json
import sys
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saccade.cli._args import Parser
from saccade.cli._model_flags import add_model_flags, load_from_flags
from saccade.errors import DataError, UsageError
from saccade.video.views import PROTOCOLS, parse_views

if TYPE_CHECKING:
    from saccade.data.types import VideoDataset
    from saccade.evaluation import TestResult
    from saccade.inference import LoadedModel

EXAMPLES = """examples:
  saccade test runs/my_run --views 10x1
  saccade test runs/my_run --data clips/ --views 1x1,3x1,10x1,10x3
  saccade test runs/my_run --data clips/ --views 3x1 --shuffle-frames
  saccade test runs/my_run --data something-something-v2 --views ssv2-1clip,ssv2-2clip-3crop
  saccade test x3d_m.pyth --model x3d_m --labels kinetics400 --data k400/val.csv --views 10x3
"""


def run(args: list[str]) -> int:
    """The command; returns 1 when a video could not be read."""
    options = _parser().parse_args(args)
    settings = _settings_of_run(Path(options.source))
    data = options.data or settings.get("data")
    if not data:
        raise UsageError("--data is needed: a folder of class folders, a list file, or Something-Something")
    _check_views(options)
    loaded = load_from_flags(options.source, None, options)
    rule = options.temporal_rule or loaded.metadata.get("temporal_rule") or "saccade"
    dataset = _dataset(data, options, settings, loaded)

    from saccade.cli._test_tables import show
    from saccade.evaluation import evaluate

    results = evaluate(
        loaded.model,
        dataset,
        loaded.clip,
        options.views,
        workers=options.workers,
        batch_size=options.batch_size,
        temporal_rule=rule,
        shuffle_frames=options.shuffle_frames,
        seed=options.seed,
        precision=options.precision,
        progress=True,
    )
    record: dict[str, Any] = {
        "model": loaded.name,
        "weights": loaded.origin,
        "data": dataset.root,
        "split": dataset.split,
    }
    record |= {"device": str(loaded.device), "precision": options.precision}
    record["results"] = [result.summary() for result in results.values()]
    folder = _folder(options)
    saved = _save(results, record, folder, shuffled=options.shuffle_frames, model=loaded.name)
    if options.json:
        print(json.dumps(record, indent=2, ensure_ascii=False))
    else:
        show(list(results.values()), record, num_rows=None if options.all_classes else 15)
        print(f"saved in {folder}: {', '.join(saved)}")
    return _report_failures(next(iter(results.values())), len(dataset))


def _parser() -> Parser:
    parser = Parser(
        prog="saccade test", description="Accuracy of a model under a named protocol.", epilog=EXAMPLES
    )
    parser.add_argument(
        "source", metavar="RUN_OR_WEIGHTS", help="run folder, weights, or checkpoint (--model)"
    )
    parser.add_argument(
        "--data",
        metavar="PATH",
        help="class folders, a list file, Something-Something (default: that of the run)",
    )
    parser.add_argument(
        "--root",
        metavar="FOLDER",
        help="where the files of a list lie (default: as the run, beside the list)",
    )
    parser.add_argument(
        "--split", default="val", choices=("train", "val", "test", "all"), help="default %(default)s"
    )
    parser.add_argument(
        "--views",
        default="1x1",
        help=f"CLIPSxCROPS, e.g. 10x3, or a protocol ({', '.join(PROTOCOLS)}), or several: "
        "1x1,10x3,6-view (default %(default)s)",
    )
    parser.add_argument(
        "--shuffle-frames", action="store_true", help="control: permute the frames of every view"
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
    parser.add_argument("--json", action="store_true", help="the figures as JSON on stdout, no tables")
    parser.add_argument("--all-classes", action="store_true", help="every class in the table")
    add_model_flags(parser)
    return parser


def _settings_of_run(source: Path) -> dict[str, Any]:
    """What the run's config says of its data; nothing for weights without a run."""
    try:
        config = json.loads((source / "config.json").read_text(encoding="utf-8"))["config"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return config if isinstance(config, dict) else {}


def _dataset(data: str, options: Namespace, settings: dict[str, Any], loaded: LoadedModel) -> VideoDataset:
    from saccade.data import load_dataset

    names = loaded.class_names if loaded.named else None
    dataset = load_dataset(
        data,
        options.split,
        class_names=names,
        root=options.root or (settings.get("root") if not options.data else None) or None,
        val_fraction=settings.get("val_fraction", 0.2),
        allow_missing=options.allow_missing,
    )
    if len(dataset.class_names) != len(loaded.class_names):
        raise DataError(
            f"{data} has {len(dataset.class_names)} classes and {loaded.origin} {len(loaded.class_names)}; "
            "name the classes of the weights with --labels, or test on their own data"
        )
    return dataset


def _check_views(options: Namespace) -> None:
    """A protocol is measured as it is stated, or not under its name."""
    for text in options.views.split(","):
        views = parse_views(text)
        if not views.protocol:
            continue
        fixed = {"--temporal-rule": options.temporal_rule not in (None, views.rule)}
        fixed["--short-side"] = options.short_side is not None and views.scale is not None
        for flag, given in fixed.items():
            if given:
                raise UsageError(
                    f"{flag}: the protocol {views} fixes it; leave the flag out, or give the views as "
                    f"{views.num_clips}x{views.num_crops}"
                )


def _folder(options: Namespace) -> Path:
    if options.out:
        return Path(options.out)
    source = Path(options.source)
    return source / "test" if source.is_dir() else Path(f"{source.stem}-test")


def _save(
    results: dict[str, TestResult], record: dict[str, Any], folder: Path, *, shuffled: bool, model: str
) -> list[str]:
    """Scores, figures and pictures; the names of the files."""
    from saccade.files import write_json
    from saccade.visualize.charts import confusion_chart, save_figure, sparse_view_chart

    mark = f"{record['split']}{'_shuffled' if shuffled else ''}"
    saved = []
    for views, result in results.items():
        saved.append(f"{mark}_scores_{views}.npz")
        result.save(folder / saved[-1])
    saved.append(f"{mark}_result.json")
    write_json(folder / saved[-1], record)
    pictures = {}
    last = max(results.values(), key=lambda result: result.num_views)
    title = f"{model}, {last.views} views"
    name = f"{mark}_confusion_{last.views}"
    pictures[name] = confusion_chart(last.confusion, last.class_names, title=title)
    if len(results) > 1:
        points = [(r.views, r.gmacs_per_video, r.top1) for r in results.values()]
        pictures[f"{mark}_sparse_views"] = sparse_view_chart(points, label=model)
    for name, figure in pictures.items():
        for suffix in ("svg", "png"):
            save_figure(figure, folder / f"{name}.{suffix}")
        saved.append(f"{name}.svg (.png)")
    return saved


def _report_failures(result: TestResult, total: int) -> int:
    if not result.failures:
        return 0
    num = len(result.failures)
    print(f"saccade: {num} of {total} videos could not be read and are in no figure:", file=sys.stderr)
    for failure in result.failures:
        print(f"  {failure.path}: {failure.cause}", file=sys.stderr)
    return 1
