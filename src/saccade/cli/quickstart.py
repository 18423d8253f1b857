"""``saccade quickstart``: train, test and predict on synthetic clips, end to end."""

from __future__ import annotations

import dataclasses
import json
import time
from pathlib import Path
from typing import TYPE_CHECKING

from saccade.cli.console import console, output, show_progress
from saccade.cli.flags import Parser, add_threads, check_folder, positive
from saccade.errors import UsageError

if TYPE_CHECKING:
    from torch import nn

    from saccade.data.types import VideoDataset
    from saccade.tasks import TestResult
    from saccade.training.config import TrainConfig

TEST_VIEWS = "3x1"
NUM_SHUFFLES = 6  # one shuffle of 240 clips has a standard error of 3 points within pairs
MARK = "quickstart.json"
"""File in the run folder with the settings of quickstart's run, which marks the folder as quickstart's."""


def run(args: list[str]) -> int:
    """Run ``saccade quickstart``."""
    parser = Parser(
        prog="saccade quickstart",
        description="Train, test and predict on synthetic clips, end to end.\n\n"
        "Generates the motion data set, trains a small X3D on it, tests it with ordered and with shuffled\n"
        "frames (a control: accuracy on shuffled frames does not come from motion), predicts one clip and\n"
        "writes a report. Takes less than ten minutes on two CPU cores.",
    )
    parser.add_argument("--data", default="data/motion", help="folder of the clips (default %(default)s)")
    parser.add_argument("--out", default="runs/quickstart", help="run folder (default %(default)s)")
    parser.add_argument("--epochs", type=float, help="epochs to train (default: the recipe's)")
    parser.add_argument("--clips-per-class", type=positive, metavar="N", help="training clips per class")
    parser.add_argument("--val-per-class", type=positive, metavar="N", help="validation clips per class")
    add_threads(parser)
    options = parser.parse_args(args)
    for flag in ("out", "data"):
        check_folder(getattr(options, flag), f"--{flag}")
    _check_run_folder(Path(options.out))

    from saccade.cli.train import ProgressBar
    from saccade.data.motion import make_motion
    from saccade.files import write_json
    from saccade.recipes import get_recipe
    from saccade.training import train

    start = time.perf_counter()
    _step(1, f"generating clips in {options.data}")
    counts = {
        name: value
        for name in ("clips_per_class", "val_per_class")
        if (value := getattr(options, name)) is not None
    }
    with show_progress("generating clips", unit="clips") as progress:
        root = make_motion(options.data, **counts, progress=progress)
    _step(2, f"training a small X3D in {options.out}")
    config = get_recipe("x3d_motion").replace(data=str(root), out=options.out, threads=options.threads or 0)
    if options.epochs is not None:
        warmup = min(config.optim.warmup_epochs, options.epochs / 10)
        config = config.replace(
            epochs=options.epochs, optim=dataclasses.replace(config.optim, warmup_epochs=warmup)
        )
    write_json(Path(options.out) / MARK, config.to_dict())
    with ProgressBar() as bar:
        train(config, overwrite=True, callbacks=[bar])
    _evaluate(config, start)
    return 0


def _check_run_folder(folder: Path) -> None:
    """Raise `UsageError` if the folder contains anything but an earlier run of quickstart."""
    from saccade.runs import Run

    if not folder.is_dir() or not any(folder.iterdir()):
        return
    run, mark = Run(folder), folder / MARK
    try:
        is_quickstart = mark.is_file() and (
            not run.config_file.is_file() or run.settings == json.loads(mark.read_text(encoding="utf-8"))
        )
    except (UsageError, ValueError):
        is_quickstart = False
    if not is_quickstart:
        raise UsageError(f"--out {folder}: contains files not created by quickstart; choose another folder")


def _evaluate(config: TrainConfig, start: float) -> None:
    from saccade.data import load_dataset
    from saccade.models import load_model
    from saccade.runs import Run

    model, _ = load_model(Run(config.out).best)
    held_out = load_dataset(config.data, "val")
    _step(3, f"testing on the validation clips with {TEST_VIEWS} views")
    ordered = _test(model, held_out, config)
    _step(4, f"control: the same test with shuffled frames, {NUM_SHUFFLES} times")
    shuffled = [_test(model, held_out, config, seed=seed) for seed in range(NUM_SHUFFLES)]
    _step(5, "predicting one clip")
    _predict(config.out, held_out)
    _summary(ordered, shuffled, Path(config.out), time.perf_counter() - start)


def _test(
    model: nn.Module, held_out: VideoDataset, config: TrainConfig, *, seed: int | None = None
) -> TestResult:
    """Test the model; with a ``seed``, on shuffled frames."""
    from saccade.cli.console import show_progress
    from saccade.evaluation import evaluate

    with show_progress("testing", unit="videos") as progress:
        results = evaluate(
            model,
            held_out,
            config.clip,
            TEST_VIEWS,
            workers=config.workers,
            temporal_rule=config.temporal_rule,
            shuffle_frames=seed is not None,
            seed=seed or 0,
            progress=progress,
        )
    return results[TEST_VIEWS]


def _predict(run: str, held_out: VideoDataset) -> None:
    from saccade.cli.tables import bar
    from saccade.inference import Predictor

    item = held_out.items[0]
    prediction = Predictor(run)(item.path)
    output().print(f"{item.path} (true class: {held_out.class_names[item.label]})")
    for label, score in prediction.top(3):
        output().print(f"  {score:6.1%}  {bar(score):<24}  {label}")


def _summary(ordered: TestResult, shuffled: list[TestResult], run: Path, seconds: float) -> None:
    from statistics import fmean

    from rich.table import Table

    table = Table(title=f"{ordered.num_videos} validation clips, {TEST_VIEWS} views")
    for heading in ("frames", "top-1", "within pairs"):
        table.add_column(heading, justify="left" if heading == "frames" else "right")
    table.add_row("ordered", f"{ordered.top1:.1%}", f"{ordered.pair_accuracy:.1%}")
    table.add_row(
        f"shuffled (mean of {len(shuffled)})",
        f"{fmean(result.top1 for result in shuffled):.1%}",
        f"{fmean(result.pair_accuracy for result in shuffled):.1%}",
    )
    output().print(table)
    output().print("The classes of a pair differ only in the direction of time; chance is 50 %.")
    output().print(f"report: {run / 'report.html'}    total time: {seconds / 60:.1f} minutes")
    output().print(f"next:   saccade predict VIDEO --run {run}    saccade train --help", markup=False)


def _step(number: int, text: str) -> None:
    console().print(f"[bold]{number}/5[/] {text}")
