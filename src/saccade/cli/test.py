"""``saccade test RUN_OR_WEIGHTS``: measure the accuracy under a named protocol."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

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
    positive,
    run_settings,
    score,
)
from saccade.cli.rejection import add_rejection, calibrate_run, check_rejection
from saccade.errors import DataError, UsageError
from saccade.sampling.views import PROTOCOLS, parse_views

if TYPE_CHECKING:
    from saccade.data.types import VideoDataset
    from saccade.evaluation import Controls
    from saccade.inference import LoadedModel
    from saccade.tasks import Result, Task

EXAMPLES = """examples:
  saccade test runs/my_run --views 10x1
  saccade test runs/my_run --data clips/ --views 1x1,3x1,10x1,10x3
  saccade test runs/my_run --against runs/other_run
  saccade test runs/my_run --positive fall --false-alarms 0.01
  saccade test runs/my_run --controls shuffle --control-seeds 10
  saccade test runs/my_run --data clips/ --views 3x1 --shuffle-frames
  saccade test runs/my_run --reject --background other_clips/
  saccade test runs/my_run --data something-something-v2 --views ssv2-1clip,ssv2-2clip-3crop
  saccade test runs/x3d_m_charades --data Charades --root Charades_v1_rgb --views 10x1,10x3
  saccade test runs/x3d_m_ava --data ava --boxes ava_val_predicted_boxes.csv
  saccade test x3d_m.pyth --model x3d_m --labels kinetics400 --data k400/val.csv --views 10x3

Exit code 1 if a video could not be read; the results are those of the other videos.
"""
_ROWS = 15  # classes in the table without --all-classes


def run(args: list[str]) -> int:
    """Test; 1 if a video could not be read."""
    from saccade.cli.test_output import save_results, show_results
    from saccade.evaluation.speed import model_speed
    from saccade.inference.loading import LoadedModel, task_of
    from saccade.runs import data_of_run

    parser = _parser()
    options = parser.parse_args(args)
    check_rejection(parser, options)
    if options.reject:
        return calibrate_run(options)
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
    controls = _controls(task, options)
    two_class = _two_class_options(dataset, task, options)
    against, other_set = _read_against(options), None  # before the test, which may take hours
    if isinstance(against, LoadedModel):
        other_set = load_test_set(task_of(against), against, data, split, data_options)
    fps = settings.get("frames_fps") if options.fps is None else options.fps
    results = _evaluate(loaded, task, dataset, options, fps, controls=controls)
    results = _with_selection(results, options.source)
    speed = model_speed(loaded.model, loaded.clip, options.precision)
    results = {name: replace(result, model_clips_per_second=speed) for name, result in results.items()}
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
    for entry, result in zip(record["results"], results.values(), strict=True):
        if two_class:
            entry["two_class"] = result.two_class(**two_class)
    if dataset.split != "train" and not _was_trained_on(dataset, data, settings):
        largest = max(results.values(), key=lambda result: result.num_views)
        record["suspects"] = [asdict(each) for each in largest.suspects()]
    if against is not None:
        if isinstance(against, LoadedModel):
            changed = Namespace(**{**vars(options), "temporal_rule": None})  # that of its own training
            against = _evaluate(against, task_of(against), cast(Any, other_set), changed, fps)
        record["against"] = _compare(results, against, options.against)
    saved = save_results(results, record, folder, shuffled=options.shuffle_frames)
    if options.json:
        print_json(record)
    else:
        show_results(list(results.values()), record, num_rows=None if options.all_classes else _ROWS)
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
        "--controls",
        metavar="NAMES",
        help="also test one view of the same clips with rearranged frames: shuffle,repeat,reverse "
        "(default: all three for single-label models, none for others)",
    )
    parser.add_argument("--no-controls", action="store_true", help="leave the controls out")
    parser.add_argument(
        "--control-seeds", type=positive, metavar="N", help="number of shuffles of each clip (default 3)"
    )
    parser.add_argument(
        "--control-clips",
        type=positive,
        metavar="N",
        help="make the controls on at most N videos, spread evenly (default 1000)",
    )
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
    parser.add_argument(
        "--against",
        metavar="OTHER",
        help="compare with another model on the same videos, paired: a run or weights, which are tested too, "
        "or scores that a test has saved (.npz)",
    )
    parser.add_argument(
        "--positive", metavar="CLASS", help="two classes: the one to detect (default: the second)"
    )
    parser.add_argument(
        "--false-alarms",
        type=score,
        metavar="RATE",
        help="two classes: find the threshold with at most this fraction of false alarms, e.g. 0.01",
    )
    parser.add_argument("--out", metavar="FOLDER", help="folder of scores and charts (default: RUN/test)")
    add_json(parser)
    add_rejection(parser)
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


def _controls(task: Task, options: Namespace) -> Controls | None:
    """The controls that the flags ask for, by default those of a single-label model.

    Raises:
        UsageError: the flags contradict one another, or a control is unknown.
    """
    from saccade.evaluation import Controls

    flags = ("controls", "control_seeds", "control_clips")
    given = [f"--{name.replace('_', '-')}" for name in flags if getattr(options, name) is not None]
    for flag in ("no_controls", "shuffle_frames"):
        if getattr(options, flag) and given:
            raise UsageError(f"{given[0]}: cannot be combined with --{flag.replace('_', '-')}")
    if options.no_controls or options.shuffle_frames or not (given or task.tests_time_use):
        return None
    default = Controls()
    return Controls(
        names=tuple(options.controls.split(",")) if options.controls is not None else default.names,
        num_seeds=options.control_seeds or default.num_seeds,
        max_videos=options.control_clips or default.max_videos,
        seed=options.seed,
    )


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
    from saccade.runs import held_out_by

    people = settings.get("people", {})
    return {
        "root": options.root or None,
        **held_out_by(settings, options.data or settings.get("data") or ""),
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


def _evaluate(
    loaded: LoadedModel,
    task: Task,
    dataset: VideoDataset,
    options: Namespace,
    frames_fps: float | None,
    *,
    controls: Controls | None = None,
) -> dict[str, Any]:
    from saccade.cli.console import show_progress
    from saccade.evaluation import evaluate

    with show_progress("testing", unit="videos", stopped="no figures were written") as progress:
        return evaluate(
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
            controls=controls,
            precision=options.precision,
            backend=options.backend,
            frames_fps=frames_fps,
            progress=progress,
        )


def _two_class_options(dataset: VideoDataset, task: Task, options: Namespace) -> dict[str, Any]:
    """The arguments of `TestResult.two_class`; empty without two classes.

    Raises:
        UsageError: the flags need two classes, or the positive class is none of them.
    """
    names = dataset.class_names
    flags = [flag for flag in ("positive", "false_alarms") if getattr(options, flag) is not None]
    if task.multi_label or task.fixed_views or len(names) != 2:
        if flags:
            flag = f"--{flags[0].replace('_', '-')}"
            raise UsageError(f"{flag}: is for a single-label model of two classes, not of {len(names)}")
        return {}
    name = options.positive if options.positive is not None else names[1]
    if name not in names:
        raise UsageError(f"--positive {name}: the classes are {', '.join(names)}")
    return {"positive": names.index(name), "false_alarms": options.false_alarms}


def _was_trained_on(dataset: VideoDataset, data: str, settings: Mapping[str, Any]) -> bool:
    """Whether clips of the training may be among those tested: their scores say nothing of their labels."""
    trained_on = str(settings.get("data") or "")
    return (
        dataset.split == "all" and bool(trained_on) and os.path.realpath(data) == os.path.realpath(trained_on)
    )


def _read_against(options: Namespace) -> dict[str, Any] | LoadedModel | None:
    """The saved scores that ``--against`` names, by views, or the model; None without the flag."""
    from saccade.inference.loading import load_for_inference
    from saccade.tasks import load_result

    if not options.against:
        return None
    if Path(options.against).suffix != ".npz":
        return load_for_inference(options.against, device=options.device)
    other = load_result(options.against)
    wanted = [str(parse_views(text)) for text in (options.views or "1x1").split(",")]
    if other.views not in wanted:
        raise UsageError(
            f"--against {options.against}: scores of {other.views} views; give --views {other.views}"
        )
    if other.shuffled != options.shuffle_frames:
        raise UsageError(f"--against {options.against}: only one of the tests is with shuffled frames")
    return {other.views: other}


def _compare(results: Mapping[str, Any], others: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    from saccade.evaluation.paired import compare_results

    return [
        {"other": name, "views": views, "other_score": other.score}
        | compare_results(results[views], other).to_dict()
        for views, other in others.items()
    ]


def _with_selection(results: dict[str, Any], source: str) -> dict[str, Any]:
    """The results with the number of validations whose best chose the weights, if it was on these videos."""
    from saccade.runs import Run
    from saccade.tasks import load_result

    run = Run(source if Path(source).is_dir() else Path(source).parent)
    if not run.val_scores.is_file():
        return results
    chosen_on = {os.path.realpath(path) for path in load_result(run.val_scores).paths}
    if not any(os.path.realpath(path) in chosen_on for path in next(iter(results.values())).paths):
        return results
    return {name: replace(result, num_validations=run.num_validations) for name, result in results.items()}


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
